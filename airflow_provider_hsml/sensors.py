"""What a DAG waits for."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseSensorOperator, PokeReturnValue, conf

from .hooks import HsmlHook
from .hopsworks import calls, reading
from .hopsworks.deployments import DeploymentStatus, check_deployment_name
from .hopsworks.errors import HopsworksError
from .hopsworks.waiting import UNSCHEDULABLE_STAYS, Pace, Pause, Procedure, Reach, ask, explained, note_change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from .hopsworks.deployments import Deployment

__all__ = ["DeploymentStatusSensor"]


class DeploymentStatusSensor(BaseSensorOperator):
    """
    Wait until a deployment is in one of some states.

    ``Running`` is met by Idle too, and ``Stopped`` by Created. Fails for good, with the server's reason and the end of
    the log, when the deployment is Failed and stays so, or is deleted; a name that does not exist fails at once and
    lists those that do.

    Returns ``{"deployment_name", "deployment_id", "status"}``.

    :param deployment_name: the deployment
    :param target_status: a state, or several, one of which is enough
    :param hsml_conn_id: the Airflow connection
    :param project: another project than the connection's
    :param deferrable: not supported yet: True is refused, and Airflow's ``default_deferrable`` does nothing here
    """

    template_fields: Sequence[str] = ("hsml_conn_id", "project", "deployment_name", "target_status")
    ui_color = "#d7f0ea"

    def __init__(
        self,
        *,
        deployment_name: str,
        target_status: str | Sequence[str] = "Running",
        hsml_conn_id: str = HsmlHook.default_conn_name,
        project: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if deferrable:
            message = (
                f"Task {self.task_id!r}: deferrable=True is not supported; leave it out, or use mode='reschedule'."
            )
            raise ValueError(message)
        self.deployment_name = deployment_name
        self.target_status = target_status
        self.hsml_conn_id = hsml_conn_id
        self.project = project
        self.deferrable = deferrable
        self._seen: Deployment | None = None

    @functools.cached_property
    def hook(self) -> HsmlHook:
        """The hook."""
        return HsmlHook(self.hsml_conn_id, self.project)

    def execute(self, context: Context) -> Any:
        """
        Wait.

        :param context: Airflow's
        """
        if self.deferrable is None and conf.getboolean("operators", "default_deferrable", fallback=False):
            self.log.info("Airflow is configured to defer by default; this sensor waits in the worker.")
        return super().execute(context)

    def poke(self, context: Context) -> PokeReturnValue | bool:  # noqa: ARG002
        """
        Look once; at a Failed for as long as it takes to know whether it stays.

        :param context: Airflow's
        """
        try:
            goal = Reach.of(check_deployment_name(self.deployment_name), *self._targets())
            project = self.hook.client.project
            deployment = self.hook.run(explained(project, self._watch(goal)))
        except HopsworksError as error:
            if error.transient:
                self.log.warning("%s; looking again", error)
                return False
            raise AirflowFailException(str(error)) from error
        if deployment is None:
            return False
        return PokeReturnValue(
            is_done=True,
            xcom_value={
                "deployment_name": deployment.name,
                "deployment_id": deployment.id,
                "status": deployment.status.value,
            },
        )

    def _watch(self, goal: Reach) -> Procedure[Deployment | None]:
        """Look; the deployment when the goal is reached, else None."""
        pace = Pace(first=1.0, most=5.0, deadline=time.time() + 2 * UNSCHEDULABLE_STAYS)
        while True:
            deployment = yield from ask(calls.get_deployment(self.hook.client.project, goal.name))
            if deployment is None and self._seen is None:
                self.hook.get_deployment(goal.name)  # Raises, and lists those that exist.
            note_change(self._seen, deployment)
            self._seen = deployment or self._seen
            if goal.reached(deployment, time.time()):
                return deployment
            pause = pace.pause()
            if deployment is None or deployment.status is not DeploymentStatus.FAILED or pause is None:
                return None
            yield Pause(pause)

    def _targets(self) -> list[DeploymentStatus]:
        """Read the states to wait for."""
        given = [self.target_status] if isinstance(self.target_status, str) else self.target_status
        known = [status.value for status in DeploymentStatus if status is not DeploymentStatus.UNKNOWN]
        return [
            DeploymentStatus(reading.choice("target_status", status, known))
            for status in reading.sequence("target_status", given)
        ]
