"""The trigger that waits for the execution of a job."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError

from .base import HsmlTrigger, find_project, shared_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_hsml.hopsworks.domain.execution import Execution


class JobTrigger(HsmlTrigger):
    """
    Wait for the end of one execution of a job. ``RunHopsworksJobOperator`` defers to it.

    It only reads; the task reports how the execution has ended. If a person kills the task meanwhile, Airflow 3.3 and
    later notify the trigger, and with ``stop_when_killed`` it stops the execution.

    :param job_name: the job
    :param job_type: its type in Hopsworks, by which the end of an execution is told
    :param execution_id: the execution
    :param deadline: end of the wait in seconds since 1970; None: no limit
    :param poll_interval: seconds between polls
    :param cut_off: the task's execution_timeout in seconds since 1970, at which the wait ends; None: no limit
    :param stop_when_killed: whether to stop the execution when a person kills the task
    :param run_key: the key of the task, by which it is recorded that the task was killed; empty: it is not
    :param more: the arguments of ``HsmlTrigger``
    """

    def __init__(
        self,
        *,
        job_name: str,
        job_type: str,
        execution_id: int,
        deadline: float | None = None,
        poll_interval: float = 10.0,
        cut_off: float | None = None,
        stop_when_killed: bool = True,
        run_key: str = "",
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.job_name = job_name
        self.job_type = job_type
        self.execution_id = execution_id
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.cut_off = cut_off
        self.stop_when_killed = stop_when_killed
        self.run_key = run_key

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end of the execution, and notify the task."""
        left = None if self.cut_off is None else max(self.cut_off - time.time(), 0.0)
        try:
            async with asyncio.timeout(left):
                ended = await self._wait()
            event = trigger_event.success({"execution_id": ended.id, "state": ended.state})
        except TimeoutError:
            what = f"Job {self.job_name!r}, execution {self.execution_id}"
            message = f"{what}: the task's execution_timeout has passed. It keeps running, and a retry attaches to it."
            event = trigger_event.failure(DeadlineExceededError(message))
        except Exception as error:  # noqa: BLE001 - a task must hear of any end
            event = self.failure(error)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _wait(self) -> Execution:
        from airflow_provider_hsml.hopsworks.domain.execution import Job  # noqa: PLC0415 - not needed to store a trigger
        from airflow_provider_hsml.hopsworks.flow import Backoff, steady  # noqa: PLC0415 - imports more than that needs
        from airflow_provider_hsml.hopsworks.jobs.job_run import UNAVAILABLE  # noqa: PLC0415
        from airflow_provider_hsml.hopsworks.jobs.run_job import ExecutionWait  # noqa: PLC0415

        clock, deadline = steady(), math.inf if self.deadline is None else self.deadline
        until = min(deadline, clock() + UNAVAILABLE)
        backoff = Backoff(first=1.0, most=max(self.poll_interval, 1.0), deadline=until, clock=clock)
        async with shared_client(self.hsml_conn_id, self.project) as client:
            project = await find_project(client, backoff)
            job = Job(self.job_name, self.job_type)
            wait = ExecutionWait(project, job, self.execution_id, self.poll_interval, deadline, clock)
            return await client.drive(wait.run(), deadline)

    async def on_kill(self) -> None:
        """Stop the execution, if ``stop_when_killed`` is set. A person has killed the task."""
        from airflow_provider_hsml.hopsworks.flow import drive_async  # noqa: PLC0415 - not needed to store a trigger
        from airflow_provider_hsml.hopsworks.jobs.job_run import JobRun  # noqa: PLC0415
        from airflow_provider_hsml.hopsworks.jobs.run_job import stop_own  # noqa: PLC0415

        if not self.stop_when_killed:
            self.log.info("Execution %s of job %r keeps running.", self.execution_id, self.job_name)
            return
        async with shared_client(self.hsml_conn_id, self.project) as client:
            project = await client.project()
            run = JobRun(project, self.job_name, "", {}, self.run_key, self.poll_interval, started=self.execution_id)
            await drive_async(stop_own(run), client.send, asyncio.sleep)
