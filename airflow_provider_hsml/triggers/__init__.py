"""
What waits in the triggerer for tasks that are deferred, and for assets that are watched.

A trigger's path is in Airflow's metadata database while somebody waits: names here stay.
"""

from __future__ import annotations

from .deployments import DeploymentTrigger
from .models import AwaitModelVersionTrigger, ModelVersionTrigger
from .rollouts import RolloutTrigger

__all__ = ["AwaitModelVersionTrigger", "DeploymentTrigger", "ModelVersionTrigger", "RolloutTrigger"]
