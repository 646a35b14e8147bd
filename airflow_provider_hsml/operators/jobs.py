"""The operator that runs jobs of Hopsworks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_hsml.deferral import defer_timeout
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.links import ExecutionLink
from airflow_provider_hsml.parsing import BY_JOB

from .base import WaitingOperator
from .promotion_record import run_key
from .spec_masking import SpecOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.domain.execution import Execution
    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event
    from airflow_provider_hsml.hopsworks.flow import Defer


class RunHopsworksJobOperator(SpecOperator):
    """
    Run a job of Hopsworks, and wait for the end of this very execution.

    Use it for trainings that need the official SDK, which cannot be installed beside Airflow 3.2 or later. The job has
    to exist. A retry, a cleared task and a task whose worker was killed attach to the execution that this task has
    started, and start no second one; for that, the task keeps a record in the project's files. If it is not certain
    which execution is its own, the task fails and starts nothing.

    Returns ``{"job_name", "execution_id", "state", "final_status", "submitted", "seconds", "stdout", "stderr",
    "url"}``: ``submitted`` is ISO 8601 text, ``seconds`` the duration, ``stdout`` and ``stderr`` are paths of log files
    in the project. Fails if the execution fails, with the end of its logs in the task's log. A retry then starts a new
    execution, but not after one that was stopped in Hopsworks.

    :param job_name: the name of an existing job
    :param args: the arguments: text, which is sent unchanged, or a list, whose items are quoted as in a shell; None for
        the job's default arguments
    :param env_vars: environment variables of this execution, values by name; needs Hopsworks 5.0 or later. Airflow
        neither stores nor shows the values
    :param wait_for_completion: whether to wait until the execution has ended; False returns once it was started
    :param timeout: seconds, or a ``timedelta``, until the execution must have ended; None: no limit. When it has passed
        the task fails, the execution keeps running, and a retry attaches to it
    :param stop_on_kill: whether to stop the execution if the task is marked as failed, cleared, or exceeds its
        ``execution_timeout`` in a worker. It keeps running if the worker is shut down: the retry attaches to it. While
        the task is deferred, it is stopped with Airflow 3.3 and later, and keeps running after the
        ``execution_timeout``
    """

    operator_extra_links = (ExecutionLink(),)
    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "job_name", "args", "env_vars", "stop_on_kill")
    template_fields_renderers = {"env_vars": "json"}  # noqa: RUF012
    map_index_template_default = BY_JOB
    structured: ClassVar = {"env_vars": arguments.job_env_vars}

    def __init__(
        self,
        *,
        job_name: str,
        args: str | Sequence[Any] | None = None,
        env_vars: Mapping[str, Any] | str | None = None,
        timeout: float | timedelta | None = None,
        stop_on_kill: bool | str = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(timeout=0 if timeout is None else timeout, **kwargs)
        self.timeout = math.inf if timeout is None else self.timeout
        self._check_literal(arguments.job_name, "job_name", job_name)
        self.job_name = job_name
        if args == "" or (isinstance(args, list) and not args):
            self._check_argument(arguments.job_args, "args", args)
        self.args = args
        self.env_vars = env_vars
        self._check_structured("env_vars", env_vars)
        self._check_literal(arguments.boolean, "stop_on_kill", stop_on_kill)
        self.stop_on_kill = stop_on_kill

    def act(self, context: Context) -> dict[str, Any]:
        """Run the job."""
        self._run_key = run_key(context)
        ended = self.hook.run_job(
            self.job_name,
            self.args,
            env_vars=self._unmasked_spec()["env_vars"],
            stop_when_killed=self._stops(),
            run_key=self._run_key,
            **self._wait_arguments(),
        )
        return self._summary(ended)

    def act_after_wait(self, context: Context, left: Mapping[str, Any], event: Event) -> dict[str, Any]:  # noqa: ARG002
        """
        Report the end of the execution after the wait in the triggerer.

        :param left: the state kept when the task was deferred
        :param event: the result of the wait
        """
        self._run_key = left["run_key"]
        self._links.push(ExecutionLink(), self.hook.job_url(left["job_name"]))
        return self._summary(self.hook.resume_job(left, event, stop_when_killed=self._stops()))

    def _stops(self) -> bool:
        return arguments.boolean("stop_on_kill", self.stop_on_kill)

    def _wait_arguments(self) -> dict[str, Any]:
        timeout = None if self.timeout == math.inf else self.timeout
        return {**super()._wait_arguments(), "timeout": timeout}

    def _summary(self, ended: Execution) -> dict[str, Any]:
        return ended.summary(self.hook.job_url(ended.job_name))

    def _on_answer(self, answer: Any) -> None:
        """Push the link once an execution was started or found."""
        from airflow_provider_hsml.hopsworks.domain.execution import Execution  # noqa: PLC0415 - not needed to parse a DAG

        if isinstance(answer, Execution):
            self._links.push(ExecutionLink(), self.hook.job_url(answer.job_name))

    def _should_defer(self, wait: Defer[Any]) -> bool:  # noqa: ARG002 - a job has one kind of wait
        return self.deferrable

    def _defer(self, wait: Any) -> None:
        from airflow_provider_hsml.triggers import JobTrigger  # noqa: PLC0415 - not needed to parse a DAG

        deadline = None if wait.deadline == math.inf else wait.deadline
        about = {
            "job_name": wait.job.name,
            "job_type": wait.job.type,
            "execution_id": wait.execution,
            "deadline": deadline,
            "poll_interval": wait.interval,
        }
        cut_off = self._execution_deadline
        trigger = JobTrigger(
            hsml_conn_id=self.hsml_conn_id,
            project=self.project,
            cut_off=cut_off,
            stop_when_killed=self._stops(),
            run_key=self._run_key,
            **about,
        )
        ends = min((end for end in (deadline, cut_off) if end is not None), default=None)
        self.defer(
            trigger=trigger,
            method_name="resume",
            kwargs={"left": {**about, "run_key": self._run_key, "cut_off": cut_off}},
            timeout=None if ends is None else defer_timeout(ends),
        )

    # The environment variables are masked as those of a deployment's spec are.

    def _masked_spec(self) -> Any:
        return {"env_vars": self.env_vars}

    def _set_masked_spec(self, spec: Any) -> None:
        self.env_vars = spec["env_vars"]

    def _field(self, name: str) -> Any:
        """Return the value of a template field, with the real values of environment variables."""
        return self._unmasked_spec()["env_vars"] if name == "env_vars" else super()._field(name)
