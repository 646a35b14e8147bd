"""What all operators have in common: the connection, the way failures end, and how to wait."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseOperator, conf

from airflow_provider_hsml.hopsworks import reading
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hooks import HsmlHook

T = TypeVar("T")


class HsmlOperator(BaseOperator):
    """
    What all operators have in common: the connection, and how failures end.

    A failure that cannot pass fails the task for good (``AirflowFailException``); any other lets Airflow retry it.

    :param hsml_conn_id: the Airflow connection
    :param project: another project than the connection's
    """

    template_fields: Sequence[str] = ("hsml_conn_id", "project")
    ui_color = "#d7f0ea"

    def __init__(self, *, hsml_conn_id: str = "hsml_default", project: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hsml_conn_id = hsml_conn_id
        self.project = project

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Do the task.

        :param context: Airflow's
        :raises AirflowFailException: it cannot succeed by being tried again
        :raises HopsworksError: it may
        """
        self._killed = threading.Event()
        try:
            return self.act(context)
        except HopsworksError as error:
            if error.transient:
                raise
            raise AirflowFailException(str(error)) from error

    def act(self, context: Context) -> dict[str, Any]:
        """
        Do the work of this operator.

        :param context: Airflow's
        """
        raise NotImplementedError

    @functools.cached_property
    def hook(self) -> HsmlHook:
        """The hook, whose waits end when the task is killed."""
        from airflow_provider_hsml.hooks import HsmlHook  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        return HsmlHook(self.hsml_conn_id, self.project, sleep=self._sleep)

    def on_kill(self) -> None:
        """End the wait. What serves goes on serving, and a change that was sent goes on without us."""
        if hasattr(self, "_killed"):
            self._killed.set()

    def _given(self, read: Callable[..., T], name: str, value: object, **limits: float) -> T:
        """
        Check an argument when the DAG is parsed.

        :param read: one of ``hopsworks.reading``
        :param name: the argument's name
        :param value: what was given
        :param limits: for ``read``
        :raises ValueError: which task, which argument, and what is expected
        """
        try:
            return read(name, value, **limits)
        except InvalidInput as error:
            message = f"Task {self.task_id!r}: {error}"
            raise ValueError(message) from error

    def _sleep(self, seconds: float) -> None:
        if self._killed.wait(seconds):
            message = "The task was killed. The deployment is left as it is; what was asked of it goes on."
            raise AirflowException(message)


class WaitingOperator(HsmlOperator):
    """
    What the operators that wait have in common.

    :param wait_for_completion: whether to wait until the change is there; False returns once it has been asked for
    :param poll_interval: seconds between looks, once it takes longer; they begin closer together
    :param timeout: seconds for one change: sent, arrived, first prediction answered
    :param deferrable: not supported yet: True is refused, and Airflow's ``default_deferrable`` does nothing here
    """

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        poll_interval: float = 10.0,
        timeout: float = 600.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if deferrable:
            message = f"Task {self.task_id!r}: deferrable=True is not supported; leave it out to wait in the worker."
            raise ValueError(message)
        self.wait_for_completion = self._given(reading.boolean, "wait_for_completion", wait_for_completion)
        self.poll_interval = self._given(reading.number, "poll_interval", poll_interval, least=0.1)
        self.timeout = self._given(reading.number, "timeout", timeout, least=0)
        self.deferrable = deferrable

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Do the task.

        :param context: Airflow's
        """
        if self.deferrable is None and conf.getboolean("operators", "default_deferrable", fallback=False):
            self.log.info("Airflow is configured to defer by default; this operator waits in the worker.")
        return super().execute(context)

    def _waits(self) -> dict[str, Any]:
        return {"timeout": self.timeout, "poll_interval": self.poll_interval, "wait": self.wait_for_completion}
