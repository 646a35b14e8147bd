"""Base classes of the operators: the connection, the mapping of errors, waiting and deferring."""

from __future__ import annotations

import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseOperator, conf

from airflow_provider_hsml.deferral import EXECUTION_TIMEOUT_MARGIN, defer_timeout
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, HopsworksError
from airflow_provider_hsml.links import DeploymentLink, Links, ModelVersionLink
from airflow_provider_hsml.parsing import TaskMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event
    from airflow_provider_hsml.hopsworks.flow import Defer

log = logging.getLogger(__name__)

_FAIL = "__fail__"
"""The method that Airflow resumes a task with when its trigger failed, or did not end in time."""


class HsmlOperator(TaskMixin, BaseOperator):
    """
    The base of all operators: the connection, and the mapping of errors.

    A permanent error fails the task without retries (``AirflowFailException``). Any other error lets Airflow retry it,
    and so does a reached quota if the task has a ``retry_policy``.

    :param hsml_conn_id: the Airflow connection
    :param project: the project to use instead of the connection's
    """

    template_fields: Sequence[str] = ("hsml_conn_id", "project")
    ui_color = "#d7f0ea"

    def __init__(self, *, hsml_conn_id: str = "hsml_default", project: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hsml_conn_id = hsml_conn_id
        self.project = project

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Run the operator.

        :raises AirflowFailException: a retry cannot succeed
        :raises HopsworksError: a retry may succeed
        """
        self._links = Links(context["ti"])
        return self._map_errors(functools.partial(self.act, context))

    def _map_errors(self, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """
        Check that the arguments have arrived, also those of a task that is resumed, and call ``act``.

        A permanent error becomes an ``AirflowFailException``, so that Airflow does not retry it.
        """
        self._killed = threading.Event()
        try:
            self._check_arrived()
            return act()
        except HopsworksError as error:
            from airflow.providers.common.compat.sdk import redact  # noqa: PLC0415 - not needed to parse a DAG

            # With the LocalExecutor, Airflow's scheduler prints the error as well, and masks nothing.
            masked = error.with_text(str(redact(str(error))))
            # A retry policy is not asked about AirflowFailException. A reached quota is the one permanent error that it
            # may want to retry.
            if error.transient or (error.is_out_of_capacity and getattr(self, "retry_policy", None)):
                raise masked from error.__cause__
            log.debug("The task failed with this error", exc_info=True)
            # The message is complete. The cause stays in __context__, so that no traceback is printed above it.
            raise AirflowFailException(str(masked)) from None

    def act(self, context: Context) -> dict[str, Any]:
        """Do the work of this operator, and return the result for XCom."""
        raise NotImplementedError

    @functools.cached_property
    def hook(self) -> HsmlHook:
        """The hook. Its waits end when the task is killed."""
        from airflow_provider_hsml.hooks import HsmlHook  # noqa: PLC0415 - not needed to parse a DAG

        return HsmlHook(
            self.hsml_conn_id,
            self.project,
            sleep=self._sleep,
            on_answer=self._on_answer,
            on_decided=self._on_decided,
            is_over=self._is_over,
        )

    def _on_decided(self, model: ModelVersion) -> None:
        """Push the link to the model version that the task works on."""
        self._links.push(ModelVersionLink(), self.hook.model_url(model))

    def _on_answer(self, answer: Any) -> None:
        """Push the link to the deployment in a response. A task reads single deployments only to work on them."""
        from airflow_provider_hsml.hopsworks.domain.deployment import Deployment  # noqa: PLC0415 - not needed to parse a DAG

        if isinstance(answer, Deployment):
            self._links.push(DeploymentLink(), self.hook.deployment_url(answer))

    def on_kill(self) -> None:
        """End the wait. A serving deployment keeps serving, and Hopsworks carries out a change that was sent."""
        if hasattr(self, "_killed"):
            self._killed.set()

    def _is_over(self, error: BaseException) -> bool:
        """Whether the task is over for Airflow after an exception that broke its work off; else its worker ends."""
        from . import task_state  # noqa: PLC0415 - not needed to parse a DAG

        return task_state.is_over(self._links.ti, error)

    def _sleep(self, seconds: float) -> None:
        if self._killed.wait(seconds):
            message = "The task was killed. Hopsworks still carries out a change that was sent."
            raise AirflowException(message)


class WaitingOperator(HsmlOperator):
    """
    The base of the operators that wait for a change to complete.

    :param wait_for_completion: whether to wait until the change is complete; False returns once it was requested
    :param poll_interval: seconds, or a ``timedelta``, between polls of a long wait; the first polls follow each other
        faster
    :param timeout: seconds, or a ``timedelta``, for one change: sent, live, first prediction answered
    :param deferrable: whether to wait in the triggerer, which frees the worker slot; None: as configured in Airflow,
        ``[operators] default_deferrable``
    """

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta = 600.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.wait_for_completion = self._check_argument(arguments.boolean, "wait_for_completion", wait_for_completion)
        self.poll_interval = self._check_argument(arguments.seconds, "poll_interval", poll_interval, least=0.1)
        self.timeout = self._check_argument(arguments.seconds, "timeout", timeout)
        self.deferrable = self._check_argument(arguments.boolean, "deferrable", deferrable)
        self._execution_deadline: float | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the operator. A deferrable one waits in the triggerer."""
        if self.execution_timeout is not None:
            started = getattr(context["ti"], "start_date", None)
            begun = started.timestamp() if started else time.time()
            self._execution_deadline = begun + self.execution_timeout.total_seconds() - EXECUTION_TIMEOUT_MARGIN
        return super().execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Resume the task. If the trigger has not reported, end it with an error that says so.

        :param next_method: the method that was named when the task was deferred, or Airflow's word for a failure
        :param next_kwargs: its arguments
        :raises HopsworksError: the trigger failed, or did not end in time
        """
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowException as error:
            if next_method != _FAIL:
                raise
            reason = str(getattr(error.args[0], "value", error.args[0]) if error.args else error)
        self._links = Links(context["ti"])
        return self._map_errors(functools.partial(self.act_without_event, context, reason))

    def act_without_event(self, context: Context, reason: str) -> dict[str, Any]:  # noqa: ARG002
        """
        End the task after a trigger that has not reported. A change that was sent stays pending.

        :param reason: Airflow's reason
        :raises HopsworksError: a retry attaches to the change
        """
        name = getattr(self, "deployment_name", None)
        if name:
            self._push_link(name)
        raise unreported(reason)

    def _push_link(self, name: str) -> None:
        """Push the link to a deployment, which reading it does."""
        try:
            self.hook.get_deployment(name)
        except HopsworksError as error:
            self.log.warning("%s", error)

    def resume(self, context: Context, event: Any = None, left: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """
        Resume after the wait in the triggerer.

        :param event: the result of the wait
        :param left: the state kept when the task was deferred
        :raises AirflowFailException: a retry cannot succeed
        :raises HopsworksError: a retry may succeed
        """
        if event is not None and left is None:
            # `airflow dags test` runs the trigger but drops the kwargs of the deferral. So the task starts again, as a
            # retry does, and reads the current state of the deployment.
            self.deferrable = False
            return self.execute(context)
        self._links = Links(context["ti"])
        self._execution_deadline = (left or {}).get("cut_off")
        return self._map_errors(functools.partial(self._resume, context, event, left))

    def _resume(self, context: Context, event: Any, left: Mapping[str, Any] | None) -> dict[str, Any]:
        """Check the event, and do the rest of the work."""
        from airflow_provider_hsml.hopsworks.domain import trigger_event  # noqa: PLC0415 - not needed to parse a DAG

        return self.act_after_wait(context, left or {}, trigger_event.read(event))

    def act_after_wait(self, context: Context, left: Mapping[str, Any], event: Event) -> dict[str, Any]:
        """
        Do the rest of the work after the wait in the triggerer.

        :param left: the state kept when the task was deferred
        :param event: the result of the wait
        """
        raise NotImplementedError

    @functools.cached_property
    def hook(self) -> HsmlHook:
        """The hook. Its waits end when the task is killed; a deferrable operator leaves long ones to the triggerer."""
        from airflow_provider_hsml.hooks import HsmlHook  # noqa: PLC0415 - not needed to parse a DAG

        return HsmlHook(
            self.hsml_conn_id,
            self.project,
            sleep=self._sleep,
            leave=self._should_defer,
            on_answer=self._on_answer,
            on_decided=self._on_decided,
            is_over=self._is_over,
        )

    def _map_errors(self, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        from airflow_provider_hsml.hopsworks.flow import Deferred  # noqa: PLC0415 - not needed to parse a DAG

        try:
            return super()._map_errors(act)
        except Deferred as over:
            self._defer(over.wait)
            raise AssertionError from over  # defer() always raises.

    def _should_defer(self, wait: Defer[Any]) -> bool:
        """Whether the triggerer is to run this wait."""
        from airflow_provider_hsml.hopsworks.promotion.resume import why_not_deferrable  # noqa: PLC0415 - not needed to parse a DAG
        from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch  # noqa: PLC0415

        if not self.deferrable or not isinstance(wait, RolloutWatch):
            return False
        reason = why_not_deferrable(wait)
        if reason:
            self.log.info("Waiting in the worker instead of the triggerer: %s.", reason)
        return not reason

    def _defer(self, wait: Any) -> None:
        """Defer the task until the triggerer has run a wait."""
        from airflow_provider_hsml.hopsworks.promotion.resume import to_json  # noqa: PLC0415 - not needed to parse a DAG
        from airflow_provider_hsml.triggers import RolloutTrigger  # noqa: PLC0415

        watch = to_json(wait)
        trigger = RolloutTrigger(
            hsml_conn_id=self.hsml_conn_id,
            project=self.project,
            watch=watch,
            cut_off=self._execution_deadline,
            stop_when_killed=wait.change.action == "created" and getattr(self, "when_killed", "leave") == "stop",
        )
        left = {"watch": watch, "context": wait.resume.context, "cut_off": self._execution_deadline}
        ends = watch["deadline"] + watch["bake_seconds"]
        self.defer(trigger=trigger, method_name="resume", kwargs={"left": left}, timeout=defer_timeout(ends))

    def _wait_arguments(self) -> dict[str, Any]:
        return {"timeout": self.timeout, "poll_interval": self.poll_interval, "wait": self.wait_for_completion}


def unreported(reason: str) -> HopsworksError:
    """
    Return the error for a trigger that has not reported.

    :param reason: Airflow's reason
    """
    return DeadlineExceededError(
        f"The triggerer has not reported the end of this task's wait ({reason}), so it is unknown how the wait ended.\n"
        "Check that 'airflow triggerer' runs, is not overloaded, and has no error in its log. A change that was sent "
        "stays pending; a retry of the task attaches to it."
    )


def task_instance_id(context: Context) -> list[Any]:
    """
    Return what distinguishes a task instance from all others, also from the other iterations of a task loop.

    Iterations (Airflow 3.4 and later) share DAG, run, task, map index and try. Only their index in the loop differs.
    """
    ti, iteration = context["ti"], iteration_of(context)
    same = [ti.dag_id, ti.run_id, ti.task_id, ti.map_index]
    return same if iteration is None else [*same, iteration]


def iteration_of(context: Context) -> int | None:
    """Return the index of a task's iteration in its task loop (Airflow 3.4 and later); None outside of a loop."""
    ti, loop = context["ti"], cast("Any", context.get("loop"))
    if loop:
        return int(loop.index)
    index = getattr(ti, "region_index", None)
    return None if index in (None, ti.map_index) else index
