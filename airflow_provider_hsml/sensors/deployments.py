"""Waiting for deployments."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.links import DeploymentLink

from .base import HsmlSensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.sensing.conditions import StatusCondition
    from airflow_provider_hsml.triggers import DeploymentTrigger


class DeploymentStatusSensor(HsmlSensor):
    """
    Wait until a deployment is in one of some states.

    ``Running`` is met by Idle too, and ``Stopped`` by Created. Fails for good, with the server's reason and the end of
    the log, when the deployment is Failed and stays so, or is deleted; a name that does not exist fails at once and
    lists those that do.

    Returns ``{"deployment_name", "deployment_id", "status"}``.

    :param deployment_name: the deployment
    :param target_status: a state, or several, one of which is enough
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (*HsmlSensor.template_fields, "deployment_name", "target_status")

    def __init__(self, *, deployment_name: str, target_status: str | Sequence[str] = "Running", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._written(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name
        self.target_status = target_status
        self._has_been_seen = False

    @functools.cached_property
    def lookout(self) -> StatusCondition:
        """What is waited for."""
        from airflow_provider_hsml.hopsworks.sensing.conditions import StatusCondition  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        return StatusCondition.read(self.deployment_name, self.target_status)

    def trigger(self, **how: Any) -> DeploymentTrigger:
        """Make what waits for it in the triggerer."""
        from airflow_provider_hsml.triggers import DeploymentTrigger  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        statuses = [self.target_status] if isinstance(self.target_status, str) else list(self.target_status)
        return DeploymentTrigger(deployment_name=self.deployment_name, target_status=statuses, **how)

    def execute_complete(self, context: Context, event: Any = None, deadline: float = 0.0) -> Any:
        """
        Go on after the wait in the triggerer.

        :param context: Airflow's
        :param event: what the trigger ended with
        :param deadline: when the sensor's timeout is over, seconds since 1970
        """
        self._has_been_seen = True
        # One that the trigger has seen Failed for long enough is not looked at for as long once more.
        self.lookout.goal.failed.since = 0.0
        return super().execute_complete(context, event, deadline)

    def look(self) -> dict[str, Any] | None:
        """Look once; at a Failed for as long as it takes to know whether it stays."""
        lookout = self.lookout
        if not self._has_been_seen:
            self.hook.get_deployment(lookout.goal.name)
            self._has_been_seen = True
        return super().look()
