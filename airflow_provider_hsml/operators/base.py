"""What all operators have in common: the connection, the way failures end, and how to wait."""

from __future__ import annotations

import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseOperator, conf

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.links import DeploymentLink, Links, ModelVersionLink
from airflow_provider_hsml.parsing import ParsedTask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event
    from airflow_provider_hsml.hopsworks.flow import Defer

log = logging.getLogger(__name__)

BEFORE_AIRFLOW = 5.0
"""Seconds before the task's execution_timeout at which a deferred wait ends: Airflow 2 cuts it off at that."""


class HsmlOperator(ParsedTask, BaseOperator):
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
        self._links = Links(context["ti"])
        return self._guarded(functools.partial(self.act, context))

    def _guarded(self, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do something, and end as failures end."""
        self._killed = threading.Event()
        try:
            return act()
        except HopsworksError as error:
            from airflow.providers.common.compat.sdk import redact  # noqa: PLC0415 - a DAG is parsed without it, and sooner

            # Airflow's scheduler prints the error as well, and masks nothing there.
            masked = error.with_text(str(redact(str(error))))
            if error.transient:
                raise masked from error.__cause__
            log.debug("The task failed with this", exc_info=True)
            # The message says it all; the cause stays in __context__ and is not printed above it.
            raise AirflowFailException(str(masked)) from None

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

        return HsmlHook(self.hsml_conn_id, self.project, sleep=self._sleep, on_answer=self._see)

    def _see(self, answer: Any) -> None:
        """Have the link lead to a deployment that was answered: no task asks for another one by itself."""
        from airflow_provider_hsml.hopsworks.domain.deployment import Deployment  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        if isinstance(answer, Deployment):
            self._links.lead(DeploymentLink(), self.hook.deployment_url(answer))

    def on_kill(self) -> None:
        """End the wait. What serves goes on serving, and a change that was sent goes on without us."""
        if hasattr(self, "_killed"):
            self._killed.set()

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
    :param deferrable: whether to wait in the triggerer, where it holds no worker; None: as Airflow is configured,
        ``[operators] default_deferrable``
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
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.wait_for_completion = self._given(arguments.boolean, "wait_for_completion", wait_for_completion)
        self.poll_interval = self._given(arguments.number, "poll_interval", poll_interval, least=0.1)
        self.timeout = self._given(arguments.number, "timeout", timeout, least=0)
        self.deferrable = self._given(arguments.boolean, "deferrable", deferrable)
        self._cut_off: float | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Do the task; wait in the triggerer where that is wanted.

        :param context: Airflow's
        """
        if self.execution_timeout is not None:
            started = getattr(context["ti"], "start_date", None)
            begun = started.timestamp() if started else time.time()
            self._cut_off = begun + self.execution_timeout.total_seconds() - BEFORE_AIRFLOW
        return super().execute(context)

    def resume(self, context: Context, event: Any = None, left: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """
        Go on after the wait in the triggerer.

        :param context: Airflow's
        :param event: how it ended
        :param left: what was left to it
        :raises AirflowFailException: it cannot succeed by being tried again
        :raises HopsworksError: it may
        """
        if event is not None and left is None:
            # `airflow dags test` runs the trigger and forgets what was left. So it is begun anew, as in a retry, which
            # finds what has come about.
            self.deferrable = False
            return self.execute(context)
        self._links = Links(context["ti"])
        self._cut_off = (left or {}).get("cut_off")
        return self._guarded(functools.partial(self._resume, context, event, left))

    def _resume(self, context: Context, event: Any, left: Mapping[str, Any] | None) -> dict[str, Any]:
        from airflow_provider_hsml.hopsworks.domain import trigger_event  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        return self.go_on(context, left or {}, trigger_event.read(event))

    def go_on(self, context: Context, left: Mapping[str, Any], event: Event) -> dict[str, Any]:
        """
        Do the rest of the work, after the wait in the triggerer.

        :param context: Airflow's
        :param left: what was left to it
        :param event: how it ended
        """
        raise NotImplementedError

    @functools.cached_property
    def hook(self) -> HsmlHook:
        """The hook, whose waits end when the task is killed, and are left to the triggerer where that is wanted."""
        from airflow_provider_hsml.hooks import HsmlHook  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        return HsmlHook(
            self.hsml_conn_id,
            self.project,
            sleep=self._sleep,
            leave=self._leaves,
            on_answer=self._see,
            on_decided=self._see_decided,
        )

    def _guarded(self, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        from airflow_provider_hsml.hopsworks.flow import Deferred  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        try:
            return super()._guarded(act)
        except Deferred as over:
            self._leave(over.wait)
            raise AssertionError from over  # Deferring always raises.

    def _leaves(self, wait: Defer[Any]) -> bool:
        """Tell whether a wait is to be left to the triggerer."""
        from airflow_provider_hsml.hopsworks.promotion.resume import why_not_deferrable  # noqa: PLC0415 - a DAG is parsed without it, and sooner
        from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch  # noqa: PLC0415

        if not self.deferrable or not isinstance(wait, RolloutWatch):
            return False
        reason = why_not_deferrable(wait)
        if reason:
            self.log.info("It is waited for in the worker: %s.", reason)
        return not reason

    def _leave(self, wait: Any) -> None:
        """Defer."""
        from airflow_provider_hsml.hopsworks.promotion.resume import to_json  # noqa: PLC0415 - a DAG is parsed without it, and sooner
        from airflow_provider_hsml.triggers import RolloutTrigger  # noqa: PLC0415

        watch = to_json(wait)
        trigger = RolloutTrigger(
            hsml_conn_id=self.hsml_conn_id,
            project=self.project,
            watch=watch,
            cut_off=self._cut_off,
            stop_when_killed=wait.change.action == "created" and getattr(self, "when_killed", "leave") == "stop",
        )
        left = {"watch": watch, "context": wait.resume.context, "cut_off": self._cut_off}
        self.defer(trigger=trigger, method_name="resume", kwargs={"left": left}, timeout=None)

    def _see_decided(self, model: ModelVersion) -> None:
        self._links.lead(ModelVersionLink(), self.hook.model_url(model))

    def _waits(self) -> dict[str, Any]:
        return {"timeout": self.timeout, "poll_interval": self.poll_interval, "wait": self.wait_for_completion}
