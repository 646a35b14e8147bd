"""The trigger that waits for a deployment's status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .sensor import SensorTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hsml.hopsworks.sensing.conditions import StatusCondition


class DeploymentTrigger(SensorTrigger):
    """
    Wait until a deployment has one of the given states. ``DeploymentStatusSensor`` and stopping tasks defer to it.

    :param deployment_name: the name of the deployment
    :param target_status: a list of states, one of which is enough
    :param how: the arguments of ``SensorTrigger``
    """

    def __init__(self, *, deployment_name: str, target_status: Sequence[str], **how: Any) -> None:
        super().__init__(**how)
        self.deployment_name = deployment_name
        self.target_status = target_status

    def condition(self) -> StatusCondition:
        """Return the condition to wait for."""
        from airflow_provider_hsml.hopsworks.sensing.conditions import StatusCondition  # noqa: PLC0415 - not needed to parse a DAG

        return StatusCondition.read(self.deployment_name, self.target_status)
