"""What a DAG waits for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseSensorOperator, PokeReturnValue, conf

from .hopsworks.errors import DeploymentError, HopsworksError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from .hooks import HsmlHook

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
        hsml_conn_id: str = "hsml_default",
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
        self._has_been_seen = False

    @functools.cached_property
    def hook(self) -> HsmlHook:
        """The hook."""
        from .hooks import HsmlHook  # noqa: PLC0415 - a DAG is parsed without it, and sooner

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
            deployment = self.hook.watch_deployment(
                self.deployment_name, self.target_status, must_exist=not self._has_been_seen
            )
        except HopsworksError as error:
            if not error.transient:
                raise AirflowFailException(str(error)) from error
            if isinstance(error, DeploymentError):
                # It has failed for as long as was worth waiting: a retry of the task may find room for it.
                raise
            self.log.warning("%s; looking again", error)
            return False
        self._has_been_seen = True
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
