"""Waiting for deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.sensing.conditions import StatusCondition

from .sensing import SensorTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence


class DeploymentTrigger(SensorTrigger):
    """
    Waits until a deployment is in one of some states: what ``DeploymentStatusSensor`` is deferred to.

    :param deployment_name: the deployment
    :param target_status: states, one of which is enough
    :param how: the arguments of ``SensorTrigger``
    """

    def __init__(self, *, deployment_name: str, target_status: Sequence[str], **how: Any) -> None:
        super().__init__(**how)
        self.deployment_name = deployment_name
        self.target_status = target_status

    def lookout(self) -> StatusCondition:
        """Say what is looked for."""
        return StatusCondition.read(self.deployment_name, self.target_status)
