"""What all sensors have in common: the connection, one look after another, deferring, and the way failures end."""

from __future__ import annotations

import functools
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

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, HopsworksError
from airflow_provider_hsml.links import DeploymentLink, Links, ModelVersionLink
from airflow_provider_hsml.parsing import ParsedTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.sensing.conditions import SensorCondition
    from airflow_provider_hsml.triggers.sensing import SensorTrigger

BEFORE_AIRFLOW = 5.0
"""Seconds before the task's execution_timeout at which a deferred wait ends: Airflow 2 cuts it off at that."""


class HsmlSensor(ParsedTask, BaseSensorOperator):
    """
    What all sensors have in common. They only read.

    A failure that cannot pass fails the task for good (``AirflowFailException``); after any other it looks again. It
    looks in the worker first, and is deferred only when what it waits for is not there. What Airflow's own arguments
    (``timeout``, ``poke_interval``, ``soft_fail``, ...) mean does not depend on where it waits.

    :param hsml_conn_id: the Airflow connection
    :param project: another project than the connection's
    :param deferrable: whether to wait in the triggerer, where it holds no worker; None: as Airflow is configured,
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
        self.deferrable = self._given(arguments.boolean, "deferrable", deferrable)
        self.hsml_conn_id = hsml_conn_id
        self.project = project
        self._deadline = 0.0
        self._error: HopsworksError | None = None
        self._links: Links | None = None

    @functools.cached_property
    def hook(self) -> HsmlHook:
        """The hook."""
        from airflow_provider_hsml.hooks import HsmlHook  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        return HsmlHook(self.hsml_conn_id, self.project, on_answer=self._see)

    @property
    def lookout(self) -> SensorCondition:
        """What is waited for; made once."""
        raise NotImplementedError

    def trigger(self, **how: Any) -> SensorTrigger:
        """
        Make what waits for it in the triggerer.

        :param how: arguments that all such triggers have
        """
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """
        Wait.

        :param context: Airflow's
        """
        self._deadline, self._links = time.time() + self.timeout, Links(context["ti"])
        return super().execute(context)

    def execute_complete(self, context: Context, event: Any = None, deadline: float = 0.0) -> Any:
        """
        Go on after the wait in the triggerer: give what was found, or fail as the wait in a worker does.

        :param context: Airflow's
        :param event: what the trigger ended with
        :param deadline: when the sensor's timeout is over, seconds since 1970
        """
        from airflow_provider_hsml.hopsworks.domain import trigger_event  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        self._deadline, self._links = deadline, Links(context["ti"])
        try:
            ended = trigger_event.read(event)
            if isinstance(ended, trigger_event.Failure):
                raise ended.error()
            return self._linked(dict(ended.result))
        except DeadlineExceededError:
            self._time_out()
        except HopsworksError as error:
            self._error = error
        # Airflow's own loop decides what soft_fail and the like make of it.
        return super().execute(context)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """
        Look once, and defer when it is not there.

        :param context: Airflow's
        """
        error, self._error = self._error, None
        try:
            found = self.look()
            if found is None and error is not None:
                raise error
        except HopsworksError as failed:
            if not failed.transient:
                # The sentence says it all; the cause stays in __context__, not printed above it.
                raise AirflowFailException(str(failed)) from None
            from airflow_provider_hsml.hopsworks.sensing.conditions import may_pass  # noqa: PLC0415 - a DAG is parsed without it, and sooner

            if error is not None or not may_pass(failed):
                raise
            self.log.warning("%s; looking again", failed)
            found = None
        if found is not None:
            return PokeReturnValue(is_done=True, xcom_value=self._linked(found))
        if self.deferrable and time.time() < self._deadline:
            self._defer(context)
        return False

    def look(self) -> dict[str, Any] | None:
        """Look once."""
        hook = self.hook
        return hook.run(self.lookout.look(hook.access, hook.client.project))

    def _see(self, answer: Any) -> None:
        """Have the link lead to a deployment that was answered: a sensor asks for no other one."""
        from airflow_provider_hsml.hopsworks.domain.deployment import Deployment  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        if self._links is not None and isinstance(answer, Deployment):
            self._links.lead(DeploymentLink(), self.hook.deployment_url(answer))

    def _linked(self, found: dict[str, Any]) -> dict[str, Any]:
        """Have the link lead to a model version that was found."""
        if self._links is not None and "url" in found:
            self._links.lead(ModelVersionLink(), found["url"])
        return found

    def _defer(self, context: Context) -> None:
        deadline = self._deadline
        if self.execution_timeout is not None:
            started = getattr(context["ti"], "start_date", None)
            begun = started.timestamp() if started else time.time()
            deadline = min(deadline, begun + self.execution_timeout.total_seconds() - BEFORE_AIRFLOW)
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
        self.defer(trigger=trigger, method_name="execute_complete", kwargs={"deadline": self._deadline}, timeout=None)

    def _time_out(self) -> None:
        """End as Airflow's own loop does: by the sensor's timeout, or by the task's where that is shorter."""
        limit = self.execution_timeout
        if limit is not None and limit.total_seconds() - BEFORE_AIRFLOW < self.timeout:
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
