"""The part of ``HsmlHook`` that runs jobs."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.execution import Job
from airflow_provider_hsml.hopsworks.domain.trigger_event import Failure
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.flow import Deferred, drive, steady
from airflow_provider_hsml.hopsworks.jobs import run_job
from airflow_provider_hsml.hopsworks.jobs.job_run import JobRun

from .base import MIN_POLL_INTERVAL, HsmlBaseHook

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from airflow_provider_hsml.hopsworks.domain.execution import Execution
    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event
    from airflow_provider_hsml.hopsworks.flow import Flow

log = logging.getLogger(__name__)


class JobsMixin(HsmlBaseHook):
    """Run jobs of Hopsworks, such as trainings that need the official SDK."""

    def run_job(
        self,
        job_name: str,
        args: str | Sequence[Any] | None = None,
        *,
        env_vars: Mapping[str, Any] | None = None,
        wait: bool = True,
        timeout: float | timedelta | None = None,
        poll_interval: float = 10.0,
        stop_when_killed: bool = False,
        run_key: str = "",
    ) -> Execution:
        """
        Run a job, and wait for its end.

        With a ``run_key``, the execution is recorded in the project's files: a second call with the same key attaches
        to it instead of starting another one.

        :param job_name: the name of an existing job
        :param args: text, which is sent unchanged, or a list, whose items are quoted as in a shell; None for the job's
            default arguments
        :param env_vars: environment variables of this execution (Hopsworks 5.0 and later)
        :param wait: whether to wait until it has ended
        :param timeout: seconds, or a ``timedelta``, until it must have ended; None for no limit. It keeps running
        :param poll_interval: seconds between polls
        :param stop_when_killed: whether to stop the execution if the wait is broken off by another exception than one
            of this package, as when a task is killed
        :param run_key: identifies the task, with ``@`` before the part that changes when the task is cleared
        :raises NotFoundError: there is no such job; the message lists those that exist
        :raises JobFailedError: the execution failed, or was stopped
        :raises DeadlineExceededError: it has not ended in time
        """
        deadline = math.inf if timeout is None else steady()() + arguments.seconds("timeout", timeout)
        run = self._job_run(
            job_name,
            poll_interval,
            deadline,
            run_key,
            args=arguments.job_args("args", args),
            env_vars=arguments.job_env_vars("env_vars", env_vars),
        )
        wait = arguments.boolean("wait", wait)
        return self._drive_job(run, run_job.run_job(run, wait=wait), stop_when_killed=stop_when_killed)

    def resume_job(self, left: Mapping[str, Any], event: Event, *, stop_when_killed: bool = False) -> Execution:
        """
        Resume after a trigger has waited for an execution.

        :param left: the state kept when the task was deferred
        :param event: the event with which the trigger ended
        :param stop_when_killed: as for ``run_job``
        """
        if isinstance(event, Failure):
            raise event.error()
        deadline = math.inf if left["deadline"] is None else left["deadline"]
        run = self._job_run(left["job_name"], left["poll_interval"], deadline, left["run_key"])
        run.started = left["execution_id"]
        flow = run_job.wait_and_finish(run, Job(run.job_name, left["job_type"]), left["execution_id"])
        return self._drive_job(run, flow, stop_when_killed=stop_when_killed)

    def job_url(self, job_name: str) -> str:
        """
        Return the URL of the page with a job's executions in the Hopsworks UI.

        :param job_name: the job's name
        """
        return self.access.ui_url(self.client.project.id, "jobs", "named", job_name, "executions")

    def _job_run(
        self,
        job_name: str,
        poll_interval: object,
        deadline: float,
        run_key: str,
        *,
        args: str = "",
        env_vars: Mapping[str, str] | None = None,
    ) -> JobRun:
        """Return a run that begins now."""
        name = arguments.job_name("job_name", job_name)
        interval = arguments.seconds("poll_interval", poll_interval, least=MIN_POLL_INTERVAL)
        run = JobRun(self.client.project, name, args, env_vars or {}, run_key, interval, deadline)
        run.start_seconds = self.access.write_timeout
        return run

    def _drive_job(self, run: JobRun, flow: Flow[Execution], *, stop_when_killed: bool) -> Execution:
        try:
            return self.run(flow)
        except (Deferred, HopsworksError):
            raise
        except BaseException as error:
            # Airflow 2 ends a killed task by an exception that is not an Exception.
            if stop_when_killed and self._is_over(error):
                self._stop_before_exit(run)
            elif stop_when_killed:
                log.warning(
                    "The execution of job %r, if one was started, keeps running: a retry attaches", run.job_name
                )
            raise

    def _stop_before_exit(self, run: JobRun) -> None:
        """Stop the execution, in the few seconds that a killed task still has."""
        self.client.sleep = time.sleep  # The hook's own may end each wait of a killed task.
        try:
            drive(run_job.stop_own(run), self.client.send, time.sleep)
        except Exception:
            log.exception("An execution of job %r may be running: stop it in Hopsworks", run.job_name)
