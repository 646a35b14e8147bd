"""Sensors that wait for deployments and model versions."""

from __future__ import annotations

from .deployments import DeploymentStatusSensor
from .models import ModelVersionSensor

__all__ = ["DeploymentStatusSensor", "ModelVersionSensor"]
