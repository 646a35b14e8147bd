"""
Run a job: start an execution, or attach to the one that this task has started before; wait for it; report its end.

A start cannot be repeated without harm, and a worker may be killed at any moment. The steps, each of which a retry can
follow:

1. ``Records`` has what an earlier try of this task has recorded. ``_earlier`` decides whether its execution is ours.
2. Without one, the newest execution of the job and the hash of the arguments are recorded, then the start is sent.
3. A start whose outcome is unknown, here or in a killed worker, is looked for: among the executions newer than the
   recorded one, those with our arguments that no other task has recorded. One is ours. None: the start is sent again.
   Several: an error, since it is not known which one is ours.
4. ``ExecutionWait`` polls the execution by its id. A trigger runs the same wait.
5. ``finish`` reports the end, and records that it was reported.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.execution import Execution, Job, Verdict
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    HopsworksError,
    JobError,
    JobFailedError,
    NotFoundError,
    UnexpectedResponseError,
    UnsupportedError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Clock, Defer, Sleep, read_patiently, steady
from airflow_provider_hsml.hopsworks.routes import Routes

from .logs import log_ends
from .records import Record, Records, RecordState, hash_of, open_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project

log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds after a start was sent within which its execution appears in the list, if it appears at all."""
AGAIN = 1.0
"""Seconds between two looks for it."""
STARTS = 3
"""Times that a start is sent, if it had no effect."""
UNAVAILABLE = 3600.0
"""Seconds for which Hopsworks may be unavailable during a wait without a timeout."""
_PAGE = 100
_ENV_VARS_SINCE = 5
"""The first version of Hopsworks that takes environment variables for one execution."""


@dataclass(slots=True)
class JobRun:
    """The run of a job by one task."""

    project: Project
    job_name: str
    args: str = field(repr=False)
    """One text; empty for the job's default arguments."""
    env_vars: Mapping[str, str] = field(repr=False)
    key: str
    """The key of the task, the same in its retries; empty outside of Airflow."""
    interval: float
    """Seconds between two polls."""
    deadline: float = math.inf
    """The end of the wait in seconds since 1970."""
    clock: Clock = field(default_factory=steady)
    records: Records | None = None
    started: int | None = None
    """The execution of this run, as soon as it is known."""
    sought: Record | None = None
    """The record of a start that was sent, while its execution is not known."""

    def reading(self) -> Backoff:
        """Return the retries of one read: until the deadline, or until Hopsworks was unavailable for too long."""
        deadline = min(self.deadline, self.clock() + UNAVAILABLE)
        return Backoff(first=1.0, most=max(self.interval, 1.0), deadline=deadline, clock=self.clock)


async def run_job(run: JobRun, *, wait: bool = True) -> Execution:
    """
    Run a job, and return its execution.

    :param wait: whether to wait for its end
    :raises NotFoundError: there is no such job; the message lists those that exist
    :raises JobFailedError: the execution failed, or was stopped
    :raises JobError: it is not certain which execution is this task's
    :raises DeadlineExceededError: it has not ended in time; it keeps running
    """
    job = await _find_job(run)
    if run.env_vars:
        await _check_env_vars(run)
    execution = await start_or_attach(run, job, wait=wait)
    if not wait:
        return execution
    return await wait_and_finish(run, job, execution.id)


async def wait_and_finish(run: JobRun, job: Job, execution: int) -> Execution:
    """
    Wait for the end of an execution, and report it.

    :param execution: its id
    :raises JobFailedError: the execution failed, or was stopped
    """
    ended = await ExecutionWait(run.project, job, execution, run.interval, run.deadline, run.clock)
    return await finish(run, job, ended)


async def start_or_attach(run: JobRun, job: Job, *, wait: bool) -> Execution:
    """
    Return the execution of this task: one that an earlier try has started, or a new one.

    :param wait: whether its end is waited for
    """
    run.records = await open_records(run.project, job.name, run.key)
    found = await _earlier(run, job, wait=wait)
    if found is None:
        found = await _start(run, job)
    run.started = found.id
    record = run.records.newest
    if record is None or record.state is not RecordState.ENDED:
        state = RecordState.STARTED if wait else RecordState.ENDED
        arguments = hash_of(_effective(run, job)) if record is None else record.arguments
        await run.records.write(Record(state, run.key, arguments, run.clock(), execution=found.id))
    return found


@dataclass(frozen=True, slots=True)
class ExecutionWait(Defer[Execution]):
    """The wait for the end of an execution. It only reads."""

    project: Project
    job: Job
    execution: int
    interval: float
    deadline: float
    clock: Clock

    async def run(self) -> Execution:
        """
        Poll until the execution has ended.

        :raises JobError: the execution was deleted
        :raises DeadlineExceededError: the deadline has passed
        """
        pace = Backoff(first=min(1.0, self.interval), most=self.interval, deadline=self.deadline, clock=self.clock)
        shown = None
        while True:
            until = min(self.deadline, self.clock() + UNAVAILABLE)
            reading = Backoff(first=1.0, most=max(self.interval, 1.0), deadline=until, clock=self.clock)
            seen = await read_patiently(api.get_execution(self.project, self.job.name, self.execution), reading)
            if seen is None:
                raise _deleted(self.job, self.execution)
            if (seen.state, seen.final_status) != shown:
                shown = seen.state, seen.final_status
                log.info("%s", seen)
            if seen.verdict(self.job.type) is not Verdict.UNFINISHED:
                return seen
            delay = pace.next_delay(about=seen)
            if delay is None:
                message = f"{seen}: it has not ended within the timeout, and keeps running.\nA retry attaches to it."
                raise DeadlineExceededError(message)
            await Sleep(delay)


async def finish(run: JobRun, job: Job, execution: Execution) -> Execution:
    """
    Report an execution that has ended, and record that it was reported.

    :raises JobFailedError: it failed, or was stopped
    """
    has_succeeded = execution.verdict(job.type) is Verdict.SUCCEEDED
    reason = "" if has_succeeded else await log_ends(run.project, execution, run.clock)
    if run.records is None:
        run.records = await open_records(run.project, job.name, run.key)
    await run.records.write(_ended(run, execution, succeeded=has_succeeded))
    if not has_succeeded:
        raise JobFailedError(execution, was_killed=execution.was_killed, reason=reason)
    return execution


async def stop_own(run: JobRun) -> None:
    """
    Stop the execution of a task that was killed, and no other one. A start that was just sent is looked for once.

    :param run: as far as the task came
    """
    started = run.started
    if started is None and run.sought is not None and run.records is not None:
        found = await _sought(run, run.sought, run.clock())
        started = found.id if found is not None else None
    if started is None:
        return
    log.warning("Stopping execution %s of job %r: the task was killed", started, run.job_name)
    await api.stop_execution(run.project, run.job_name, started)
    if run.records is not None:
        arguments = run.records.newest.arguments if run.records.newest else hash_of(run.args)
        record = Record(RecordState.ENDED, run.key, arguments, run.clock(), execution=started, succeeded=False)
        await run.records.write(record)


async def _find_job(run: JobRun) -> Job:
    job = await read_patiently(api.get_job(run.project, run.job_name), run.reading())
    if job is not None:
        return job
    message = f"Job {run.job_name!r} does not exist in project {run.project.name!r}"
    try:
        names = await api.get_job_names(run.project)
    except HopsworksError as error:
        log.info("The names of the jobs could not be read: %s", error)
        message += ".\nCreate it in Hopsworks, or correct the name."
    else:
        message += f"; there are: {', '.join(sorted(names)[:_PAGE]) or 'none'}.\nUse one of them, or create the job."
    raise NotFoundError(message)


async def _check_env_vars(run: JobRun) -> None:
    """
    Refuse environment variables where Hopsworks would drop them, or would not understand the request.

    :raises UnsupportedError: this Hopsworks is older than 5.0
    """
    project = api.get_job(run.project, run.job_name)
    version = await Routes().read(api.get_server_version(), project, run.reading())
    major = (version or "").partition(".")[0]
    if major.isdecimal() and int(major) < _ENV_VARS_SINCE:
        message = (
            f"env_vars: Hopsworks {version} takes no environment variables for an execution; 5.0 and later do.\n"
            "Put them into the job's configuration, or pass the values as arguments."
        )
        raise UnsupportedError(message)


async def _earlier(run: JobRun, job: Job, *, wait: bool) -> Execution | None:
    """
    Return the execution that an earlier try has started, if this try is to attach to it.

    A retry attaches to it, however it has ended, unless that was reported as a failure. A cleared task attaches to one
    that runs, or that has succeeded without a report; else it starts anew.

    :param wait: whether its end is waited for
    :raises JobError: it cannot be told, or runs with other arguments
    """
    records = run.records
    record = records.newest if records is not None else None
    if record is None or (record.state is RecordState.ENDED and record.succeeded is False):
        return None
    is_retry = record.run == run.key
    if record.state is RecordState.STARTING:
        run.sought = record
        found = await _sought(run, record, record.at + GRACE)
        run.sought = None
        if found is None:
            log.info("No execution of job %r was started by an earlier try", job.name)
            return None
    elif record.execution is None or (record.succeeded and not is_retry):
        return None
    else:
        found = await read_patiently(api.get_execution(run.project, job.name, record.execution), run.reading())
        if found is None:
            if is_retry:
                raise _deleted(job, record.execution)
            return None
    verdict = found.verdict(job.type)
    is_reported = record.state is RecordState.ENDED or not wait
    if not is_retry and (verdict is Verdict.FAILED or (verdict is Verdict.SUCCEEDED and is_reported)):
        return None
    _check_arguments(run, job, record, found)
    log.info("%s was started by an earlier try of this task; attaching to it", found)
    return found


def _check_arguments(run: JobRun, job: Job, record: Record, found: Execution) -> None:
    """
    Compare the arguments with those of the execution that an earlier try has started.

    :raises JobError: a cleared task has other arguments, and the execution runs
    """
    if record.arguments == hash_of(_effective(run, job)):
        return
    if record.run == run.key:
        log.warning("%s: its arguments are not those of this try, which attaches to it all the same", found)
        return
    message = (
        f"{found}: this task has started it with other arguments than it has now.\n"
        "Wait for its end, or stop it in Hopsworks; then clear the task again."
    )
    raise JobError(message)


async def _start(run: JobRun, job: Job) -> Execution:
    """
    Record and send a start. One that has had no effect, as far as is known, is sent again.

    :raises HopsworksError: Hopsworks refuses the start, or the start has no effect
    """
    assert run.records is not None  # noqa: S101 - they are opened first
    newest = (await read_patiently(api.get_executions(run.project, job.name, limit=1), run.reading())).items
    record = Record(
        RecordState.STARTING,
        run.key,
        hash_of(_effective(run, job)),
        run.clock(),
        newest=max((one.id for one in newest), default=0),
    )
    await run.records.write(record, is_needed=True)
    for attempt in range(1, STARTS + 1):
        run.sought = replace(record, at=run.clock())
        try:
            execution = await api.start_execution(run.project, job.name, run.args, run.env_vars)
            if execution.id <= record.newest:
                message = f"run job {job.name!r}: the answer names execution {execution.id}, which existed before."
                raise UnexpectedResponseError(message, status=201)
        except HopsworksError as error:
            if not (error.outcome_unknown or error.transient):
                run.sought = None
                await run.records.write(replace(record, state=RecordState.ENDED, succeeded=False))
                raise
            log.warning("%s; checking whether it was started", error)
            found = await _sought(run, run.sought, run.clock() + GRACE)
            if found is not None:
                run.sought = None
                return found
            if attempt == STARTS or run.clock() >= run.deadline:
                raise
            await Sleep(max(AGAIN, error.retry_after or 0.0))
        else:
            run.sought = None
            log.info("%s: started", execution)
            return execution
    raise AssertionError  # The last attempt returns or raises.


async def _sought(run: JobRun, record: Record, until: float) -> Execution | None:
    """
    Look for the execution of a start that was recorded; None if there is none until then.

    :param until: seconds since 1970
    :raises JobError: several may be it
    """
    assert run.records is not None  # noqa: S101 - they are opened first
    while True:
        newer = await _newer(run, record.newest)
        ours = [one for one in newer if hash_of(one.args) == record.arguments and one.id not in run.records.claimed]
        if len(ours) > 1:
            raise _ambiguous(run, ours)
        if ours:
            return ours[0]
        if run.clock() >= until:
            return None
        await Sleep(AGAIN)


async def _newer(run: JobRun, newest: int) -> list[Execution]:
    """Return the executions that are newer than one."""
    found: dict[int, Execution] = {}
    offset = 0
    while True:
        call = api.get_executions(run.project, run.job_name, offset=offset, limit=_PAGE)
        rows = (await read_patiently(call, run.reading())).items
        found |= {one.id: one for one in rows if one.id > newest}
        if len(rows) < _PAGE or any(one.id <= newest for one in rows):
            return list(found.values())
        offset += len(rows)


def _effective(run: JobRun, job: Job) -> str:
    """Return the arguments that the execution shows: without any, Hopsworks takes the job's default ones."""
    return run.args or job.default_args


def _ended(run: JobRun, execution: Execution, *, succeeded: bool) -> Record:
    arguments = hash_of(execution.args)
    return Record(RecordState.ENDED, run.key, arguments, run.clock(), execution=execution.id, succeeded=succeeded)


def _deleted(job: Job, execution: int) -> JobError:
    return JobError(
        f"Job {job.name!r}, execution {execution}: it was deleted in Hopsworks, so it is unknown how it ended.\n"
        "Clear the task to run the job again."
    )


def _ambiguous(run: JobRun, found: list[Execution]) -> JobError:
    """Return the error for several executions, each of which may be this task's."""
    numbers = " and ".join(str(one.id) for one in sorted(found, key=lambda one: one.id))
    records = run.records
    way = f"delete the file {records.path!r} to let the task start a new one" if records and records.is_kept else ""
    return JobError(
        f"Job {run.job_name!r}: executions {numbers} were started with this task's arguments after it had recorded its "
        "own start, so it is not known which one is its own. Nothing was started.\n"
        f"Delete the others in Hopsworks and clear the task{f', or {way}' if way else ''}."
    )
