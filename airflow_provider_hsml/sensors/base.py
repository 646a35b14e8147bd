"""The base of the sensors: the connection, polling, deferring, and the mapping of errors."""

from __future__ import annotations

import functools
import math
import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_hsml.deferral import EXECUTION_TIMEOUT_MARGIN, defer_timeout
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, HopsworksError, InvalidInputError
from airflow_provider_hsml.links import DeploymentLink, Links, ModelVersionLink
from airflow_provider_hsml.parsing import TaskMixin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.sensing.conditions import SensorCondition
    from airflow_provider_hsml.triggers.sensor import SensorTrigger

LOGGED_EVERY = 60.0
"""Seconds between two log lines of a wait in the worker."""


class HsmlSensor(TaskMixin, BaseSensorOperator):
    """
    The base of all sensors. Sensors only read.

    A permanent error fails the task without retries (``AirflowFailException``). After any other error the sensor polls
    again. The first poll is in the worker; the task is deferred only if the condition is not met. Airflow's own
    arguments (``timeout``, ``poke_interval``, ``soft_fail``, ...) mean the same in the worker and in the triggerer.

    :param hsml_conn_id: the Airflow connection
    :param project: the project to use instead of the connection's
    :param deferrable: whether to wait in the triggerer, which frees the worker slot; None: as configured in Airflow,
        ``[operators] default_deferrable``
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
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = self._check_argument(arguments.boolean, "deferrable", deferrable)
        self.hsml_conn_id = hsml_conn_id
        self.project = project
        self._deadline = 0.0
        self._logged = 0.0
        self._trigger_error: HopsworksError | None = None
        self._links: Links | None = None

    @functools.cached_property
    def hook(self) -> HsmlHook:
        """The hook."""
        from airflow_provider_hsml.hooks import HsmlHook  # noqa: PLC0415 - not needed to parse a DAG

        return HsmlHook(self.hsml_conn_id, self.project, on_answer=self._on_answer)

    @property
    def condition(self) -> SensorCondition:
        """The condition to wait for, created once."""
        raise NotImplementedError

    def trigger(self, **how: Any) -> SensorTrigger:
        """
        Build the trigger that waits for the condition in the triggerer.

        :param how: the arguments of ``SensorTrigger``
        """
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """
        Wait until the condition is met, and return its result.

        :raises AirflowFailException: an argument from an XCom, a template or ``expand`` is empty; also with soft_fail
        """
        self._fail_if_empty()
        self._deadline, self._links = time.time() + self.timeout, Links(context["ti"])
        return super().execute(context)

    def execute_complete(self, context: Context, event: Any = None, deadline: float = 0.0) -> Any:
        """
        Resume after the wait in the triggerer: return the result, or fail as a wait in a worker does.

        After an event that this version cannot read, wait on in this worker: another trigger could end the same way.

        :param event: the payload of the trigger's event
        :param deadline: the end of the sensor's timeout, in seconds since 1970
        """
        from airflow_provider_hsml.hopsworks.domain import trigger_event  # noqa: PLC0415 - not needed to parse a DAG

        self._deadline, self._links = deadline, Links(context["ti"])
        try:
            ended = trigger_event.read(event)
            if isinstance(ended, trigger_event.Failure):
                raise ended.error()
            if isinstance(ended, trigger_event.Success):
                return self._push_version_link(dict(ended.result))
            self.deferrable, self.timeout = False, max(deadline - time.time(), 0.0)
        except DeadlineExceededError:
            self._fail_at_timeout()
        except HopsworksError as error:
            self._trigger_error = error
        # poke() raises the error, so that Airflow's own loop applies soft_fail and similar arguments.
        return super().execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Resume the sensor. If its trigger has not reported, say so; Airflow decides how the sensor ends.

        :param next_method: the method that was named when the sensor was deferred, or Airflow's word for a failure
        :param next_kwargs: its arguments
        :raises AirflowFailException: an argument from an XCom, a template or ``expand`` is empty now
        """
        if next_method == "__fail__":
            self.log.error(
                "The triggerer has not reported the end of this sensor's wait.\n"
                "Check that 'airflow triggerer' runs, is not overloaded, and has no error in its log."
            )
        self._fail_if_empty()
        return super().resume_execution(next_method, next_kwargs, context)

    def _fail_if_empty(self) -> None:
        try:
            self._check_arrived()
        except InvalidInputError as error:
            raise AirflowFailException(str(error)) from None

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Poll once. A deferrable sensor defers if the condition is not met."""
        error, self._trigger_error = self._trigger_error, None
        try:
            self.hook.client.deadline = self._deadline or math.inf
            found = self.poll()
            if found is None and error is not None:
                raise error
        except HopsworksError as failed:
            if not failed.transient:
                # The message is complete. The cause stays in __context__, so that no traceback is printed above it.
                raise AirflowFailException(str(failed)) from None
            from airflow_provider_hsml.hopsworks.sensing.conditions import may_pass  # noqa: PLC0415 - not needed to parse a DAG

            if error is not None or not may_pass(failed):
                raise
            self.log.warning("%s; polling again", failed)
            found = None
        if found is not None:
            return PokeReturnValue(is_done=True, xcom_value=self._push_version_link(found))
        if self.deferrable and time.time() < self._deadline:
            self._defer(context)
        if time.time() - self._logged >= LOGGED_EVERY:
            self._logged = time.time()
            self.log.info("The condition is not met; polling again every %g s", self.poke_interval)
        return False

    def poll(self) -> dict[str, Any] | None:
        """Read the current state once. Return the sensor's result, or None if the condition is not met."""
        hook = self.hook
        return hook.run(self.condition.look(hook.access, hook.client.project))

    def _on_answer(self, answer: Any) -> None:
        """Push the link to the deployment in a response. A sensor reads no other deployment."""
        from airflow_provider_hsml.hopsworks.domain.deployment import Deployment  # noqa: PLC0415 - not needed to parse a DAG

        if self._links is not None and isinstance(answer, Deployment):
            self._links.push(DeploymentLink(), self.hook.deployment_url(answer))

    def _push_version_link(self, found: dict[str, Any]) -> dict[str, Any]:
        """Push the link to a model version that was found, and return the result unchanged."""
        if self._links is not None and "url" in found:
            self._links.push(ModelVersionLink(), found["url"])
        return found

    def _defer(self, context: Context) -> None:
        deadline = self._deadline
        if self.execution_timeout is not None:
            started = getattr(context["ti"], "start_date", None)
            begun = started.timestamp() if started else time.time()
            deadline = min(deadline, begun + self.execution_timeout.total_seconds() - EXECUTION_TIMEOUT_MARGIN)
        longest = None
        if self.exponential_backoff:
            longest = self.max_wait.total_seconds() if self.max_wait else self.timeout
        trigger = self.trigger(
            hsml_conn_id=self.hsml_conn_id,
            project=self.project,
            deadline=deadline,
            poll_interval=self.poke_interval,
            longest_interval=longest,
        )
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            kwargs={"deadline": self._deadline},
            timeout=defer_timeout(deadline),
        )

    def _fail_at_timeout(self) -> None:
        """Raise the exception of Airflow's own loop: for the sensor's timeout, or the task's if that is shorter."""
        limit = self.execution_timeout
        if limit is not None and limit.total_seconds() - EXECUTION_TIMEOUT_MARGIN < self.timeout:
            message = f"The task's execution_timeout of {limit.total_seconds():g} s has passed."
            if self.soft_fail:
                raise AirflowSkipException(message)
            raise AirflowTaskTimeout(message)
        waited = max(0.0, time.time() - self._deadline) + self.timeout
        message = (
            f"Sensor has timed out; run duration of {waited} seconds exceeds the specified timeout of {self.timeout}."
        )
        if self.soft_fail:
            raise AirflowSkipException(message)
        raise AirflowSensorTimeout(message)
