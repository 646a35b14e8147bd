"""The sensor that waits for a deployment's status."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.links import DeploymentLink

from .base import HsmlSensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.sensing.conditions import StatusCondition
    from airflow_provider_hsml.triggers import DeploymentTrigger


def _check_statuses(what: str, value: object) -> None:
    from airflow_provider_hsml.hopsworks.domain.deployment import read_statuses  # noqa: PLC0415 - not needed to parse most DAGs

    read_statuses(what, value)


class DeploymentStatusSensor(HsmlSensor):
    """
    Wait until a deployment has one of the given states.

    ``Running`` also matches Idle, and ``Stopped`` also matches Created. The task fails without retries, with the
    server's reason and the end of the log, when the deployment stays Failed or is deleted. If the name does not exist,
    it fails immediately and lists the names that exist.

    Returns ``{"deployment_name", "deployment_id", "status"}``.

    :param deployment_name: the name of an existing deployment
    :param target_status: a state such as ``Running``, or a list of states, one of which is enough
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (*HsmlSensor.template_fields, "deployment_name", "target_status")

    structured: ClassVar = {"target_status": _check_statuses}

    def __init__(self, *, deployment_name: str, target_status: str | Sequence[str] = "Running", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        if not (isinstance(target_status, str) and target_status == "Running"):
            self._check_structured("target_status", target_status)
        self.deployment_name = deployment_name
        self.target_status = target_status
        self._is_known = False

    @functools.cached_property
    def condition(self) -> StatusCondition:
        """The condition to wait for."""
        from airflow_provider_hsml.hopsworks.sensing.conditions import StatusCondition  # noqa: PLC0415 - not needed to parse a DAG

        return StatusCondition.read(self.deployment_name, self.target_status)

    def trigger(self, **how: Any) -> DeploymentTrigger:
        """Build the trigger that waits for the status."""
        from airflow_provider_hsml.hopsworks.domain.deployment import read_statuses  # noqa: PLC0415 - not needed to parse a DAG
        from airflow_provider_hsml.triggers import DeploymentTrigger  # noqa: PLC0415

        statuses = [status.value for status in read_statuses("target_status", self.target_status)]
        return DeploymentTrigger(deployment_name=self.deployment_name, target_status=statuses, **how)

    def execute_complete(self, context: Context, event: Any = None, deadline: float = 0.0) -> Any:
        """
        Resume after the wait in the triggerer.

        :param event: the payload of the trigger's event
        :param deadline: the end of the sensor's timeout, in seconds since 1970
        """
        self._is_known = True
        # The trigger has already waited whether a Failed deployment recovers: the worker does not wait again.
        self.condition.goal.failed.since = 0.0
        return super().execute_complete(context, event, deadline)

    def poll(self) -> dict[str, Any] | None:
        """Read the status once. A Failed deployment is polled until it is clear that it stays Failed."""
        if not self._is_known:
            self.hook.get_deployment(self.condition.goal.name)
            self._is_known = True
        return super().poll()
