"""What all sensors have in common: the connection, one look after another, and the way failures end."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseSensorOperator, PokeReturnValue, conf

from airflow_provider_hsml.hopsworks.errors import HopsworksError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.sensing import Lookout


class HsmlSensor(BaseSensorOperator):
    """
    What all sensors have in common. They only read.

    A failure that cannot pass fails the task for good (``AirflowFailException``); after any other it looks again.

    :param hsml_conn_id: the Airflow connection
    :param project: another project than the connection's
    :param deferrable: not supported yet: True is refused, and Airflow's ``default_deferrable`` does nothing here
    """

    template_fields: Sequence[str] = ("hsml_conn_id", "project")
    ui_color = "#d7f0ea"

    def __init__(
        self,
        *,
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
        self.hsml_conn_id = hsml_conn_id
        self.project = project
        self.deferrable = deferrable

    @functools.cached_property
    def hook(self) -> HsmlHook:
        """The hook."""
        from airflow_provider_hsml.hooks import HsmlHook  # noqa: PLC0415 - a DAG is parsed without it, and sooner

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
        Look once.

        :param context: Airflow's
        """
        try:
            found = self.look()
        except HopsworksError as error:
            if not error.transient:
                raise AirflowFailException(str(error)) from error
            from airflow_provider_hsml.hopsworks.sensing import passes  # noqa: PLC0415 - a DAG is parsed without it, and sooner

            if not passes(error):
                raise
            self.log.warning("%s; looking again", error)
            return False
        return False if found is None else PokeReturnValue(is_done=True, xcom_value=found)

    @property
    def lookout(self) -> Lookout:
        """What is waited for; made once."""
        raise NotImplementedError

    def look(self) -> dict[str, Any] | None:
        """Look once."""
        hook = self.hook
        return hook.run(self.lookout.look(hook.access, hook.client.project))
