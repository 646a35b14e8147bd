"""
Triggers: the waits of deferred tasks and of watched assets.

While a task is deferred, Airflow's metadata database holds the trigger's path. So the names here must not change.
"""

from __future__ import annotations

from .deployments import DeploymentTrigger
from .jobs import JobTrigger
from .models import AwaitModelVersionTrigger, ModelVersionTrigger
from .rollouts import RolloutTrigger

__all__ = ["AwaitModelVersionTrigger", "DeploymentTrigger", "JobTrigger", "ModelVersionTrigger", "RolloutTrigger"]
