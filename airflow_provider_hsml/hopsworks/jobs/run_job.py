"""
Run a job: start an execution, or attach to the one that this task has started before; wait for it; report its end.

A start cannot be repeated without harm, and a worker may be killed at any moment. The steps, each of which a retry can
follow:

1. ``Records`` has what an earlier try of this task has recorded. ``_earlier`` decides whether its execution is ours.
2. Without one, the newest executions of the job and the hash of the arguments are recorded, then the start is sent.
3. A start whose outcome is unknown, here or in a killed worker, is looked for: among the newer executions, those with
   our arguments that no other task has recorded, or may still record. One is ours. None: the start is sent again.
   Several: an error, since it is not known which one is ours.
4. ``ExecutionWait`` polls the execution by its id. A trigger runs the same wait.
5. ``finish`` reports the end, and records that it was reported.
6. ``stop_own`` asks to stop the execution of a killed task, and records that. A retry waits for its end.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
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
from airflow_provider_hsml.hopsworks.flow import Backoff, Clock, Defer, Sleep, bounded, read_patiently
from airflow_provider_hsml.hopsworks.routes import Routes

from . import search
from .job_run import UNAVAILABLE
from .logs import log_ends
from .records import Record, Records, RecordState, hash_of, open_records

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project

    from .job_run import JobRun

log = logging.getLogger(__name__)

STARTS = 3
"""Times that a start is sent, if it had no effect."""
STOPPING = 4.0
"""Seconds for which a killed task looks for its execution, and then whether that has stopped."""
_MOST_NAMES = 100
_CREATED = 201
"""The status with which Hopsworks accepts a start."""
_ENV_VARS_SINCE = 5
"""The first version of Hopsworks that takes environment variables for one execution."""


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
    run.started, run.sought = found.id, None
    record = run.records.newest
    if record is None or record.state is not RecordState.ENDED:
        state = RecordState.STARTED if wait else RecordState.ENDED
        arguments = hash_of(_effective(run, job)) if record is None else record.arguments
        variables = run.variables if record is None else record.variables
        now = run.clock()
        await run.records.write(Record(state, run.key, arguments, now, execution=found.id, variables=variables))
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
    await _record(run, _ended(run, execution, succeeded=has_succeeded))
    if not has_succeeded:
        raise JobFailedError(execution, was_killed=execution.was_killed, reason=reason)
    return execution


async def stop_own(run: JobRun) -> None:
    """
    Stop the execution of a task that was killed, and no other one.

    A start that was just sent is looked for once, and stopped if it is certain which execution it is. Hopsworks stops
    an execution later, if at all: so it is recorded that this task has asked for it, and how the execution has ended if
    that shows within ``STOPPING``.

    :param run: as far as the task came
    :raises HopsworksError: the execution may be running on
    """
    started = run.started
    run.deadline = min(run.deadline, run.clock() + STOPPING)  # Of each look: a killed task has only seconds.
    if started is None and run.sought is not None:
        started = await search.certain(run, run.sought)
    if started is None:
        return
    log.warning("Stopping execution %s of job %r: the task was killed", started, run.job_name)
    failure = None
    try:
        await api.stop_execution(run.project, run.job_name, started)
    except HopsworksError as error:
        failure = error  # One that has just ended may be refused.
    records = await _opened(run)
    newest = records.newest if records is not None else None
    arguments, variables = (newest.arguments, newest.variables) if newest is not None else (hash_of(run.args), "")
    asked = Record(RecordState.STOPPING, run.key, arguments, run.clock(), execution=started, variables=variables)
    await _record(run, asked)
    ended = await _has_stopped(run, started)
    if ended is not None:
        await _record(run, ended)
    elif failure is not None:
        raise failure
    else:
        log.warning("Execution %s of job %r has not stopped yet; a retry waits for its end", started, run.job_name)


async def _has_stopped(run: JobRun, execution: int) -> Record | None:
    """Look for a few seconds how an execution has ended; None if it has not, or that is unknown."""
    pace = Backoff(first=0.5, most=1.0, deadline=run.clock() + STOPPING, clock=run.clock)
    try:
        job = await bounded(api.get_job(run.project, run.job_name), pace.deadline, run.clock)
        while job is not None:
            seen = await bounded(api.get_execution(run.project, run.job_name, execution), pace.deadline, run.clock)
            verdict = seen.verdict(job.type) if seen is not None else Verdict.UNFINISHED
            if seen is not None and verdict is not Verdict.UNFINISHED:
                return _ended(run, seen, succeeded=verdict is Verdict.SUCCEEDED)
            delay = pace.next_delay(about=seen)
            if delay is None:
                break
            await Sleep(delay)
    except HopsworksError as error:
        log.warning("%s", error)
    return None


async def _opened(run: JobRun) -> Records | None:
    """Open the records of what has happened already; None if they cannot be read, which changes nothing of that."""
    if run.records is None:
        try:
            run.records = await open_records(run.project, run.job_name, run.key)
        except HopsworksError as error:
            log.warning("%s; what has become of the execution of job %r is not recorded", error, run.job_name)
    return run.records


async def _record(run: JobRun, record: Record) -> None:
    """Record what has happened already, if the records can be read and written."""
    records = await _opened(run)
    if records is not None:
        await records.write(record)


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
        message += (
            f"; there are: {', '.join(sorted(names)[:_MOST_NAMES]) or 'none'}.\nUse one of them, or create the job."
        )
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
    if record.state is RecordState.STOPPING:
        return await _after_stop(run, job, record)
    found = await _recorded(run, job, record)
    if found is None:
        return None
    verdict = found.verdict(job.type)
    is_reported = record.state is RecordState.ENDED or not wait
    if not is_retry and (verdict is Verdict.FAILED or (verdict is Verdict.SUCCEEDED and is_reported)):
        return None
    _check_arguments(run, job, record, found)
    log.info("%s was started by an earlier try of this task; attaching to it", found)
    return found


async def _recorded(run: JobRun, job: Job, record: Record) -> Execution | None:
    """
    Return the execution that a record is about; None if there is none, or if it is not to be reported again.

    :raises JobError: it cannot be told, or was deleted
    """
    is_retry = record.run == run.key
    if record.state is RecordState.STARTING:
        run.sought = record
        found = await search.find(run, record, record.at + search.GRACE)
        run.sought = None
        if found is None:
            log.info("No execution of job %r was started by an earlier try", job.name)
        return found
    if record.execution is None or (record.succeeded and not is_retry):
        return None
    found = await read_patiently(api.get_execution(run.project, job.name, record.execution), run.reading())
    if found is None and is_retry:
        raise _deleted(job, record.execution)
    return found


async def _after_stop(run: JobRun, job: Job, record: Record) -> Execution | None:
    """
    Wait for the end of an execution that an earlier try has asked to stop when it was killed.

    :return: the execution, if it has succeeded all the same and is what this try is to run
    """
    assert record.execution is not None  # noqa: S101 - records of this state name it
    seen = await read_patiently(api.get_execution(run.project, job.name, record.execution), run.reading())
    if seen is not None and seen.verdict(job.type) is Verdict.UNFINISHED:
        log.info("%s: an earlier try was killed and has asked to stop it; waiting for its end", seen)
        run.started = seen.id
        try:
            await api.stop_execution(run.project, job.name, seen.id)
        except HopsworksError as error:
            log.warning("%s; it may run to its own end", error)
        # Not deferred: what comes after this wait is not the report of its end.
        seen = await ExecutionWait(run.project, job, seen.id, run.interval, run.deadline, run.clock).run()
        run.started = None
    has_succeeded = seen is not None and seen.verdict(job.type) is Verdict.SUCCEEDED
    is_wanted = record.run == run.key or _is_same(run, job, record)
    return seen if has_succeeded and is_wanted else None


def _is_same(run: JobRun, job: Job, record: Record) -> bool:
    """Return whether a record has the arguments and environment variables of this try, as far as it tells them."""
    return record.arguments == hash_of(_effective(run, job)) and record.variables in ("", run.variables)


def _check_arguments(run: JobRun, job: Job, record: Record, found: Execution) -> None:
    """
    Compare the arguments and variables with those of the execution that an earlier try has started.

    :raises JobError: a cleared task has others, and the execution runs
    """
    if _is_same(run, job, record):
        return
    if record.run == run.key:
        log.warning(
            "%s: its arguments or variables are not those of this try, which attaches to it all the same", found
        )
        return
    message = (
        f"{found}: this task has started it with other arguments or variables than it has now.\n"
        "Wait for its end, or stop it in Hopsworks; then clear the task again."
    )
    raise JobError(message)


async def _start(run: JobRun, job: Job) -> Execution:
    """
    Record and send a start. One that has had no effect, as far as is known, is sent again.

    :raises HopsworksError: Hopsworks refuses the start, or the start has no effect
    """
    assert run.records is not None  # noqa: S101 - they are opened first
    before = await search.newest(run)
    record = Record(
        RecordState.STARTING,
        run.key,
        hash_of(_effective(run, job)),
        run.clock(),
        seen=before,
        begun=run.clock(),
        variables=run.variables,
        takes_defaults=not run.args,
    )
    await run.records.write(record, is_needed=True)
    for attempt in range(1, STARTS + 1):
        run.sought = record = replace(record, at=run.clock())
        if attempt > 1:
            # For the retry of a worker that is killed now; and a slow server may have carried out the one before.
            await run.records.write(record, is_needed=True)
            found = await search.find(run, record, run.clock())
            if found is not None:
                return found
        try:
            execution = await api.start_execution(run.project, job.name, run.args, run.env_vars)
        except HopsworksError as error:
            found = await _after_error(run, record, error)
            if found is not None:
                return found
            if attempt == STARTS or run.clock() >= run.deadline:
                raise
            await Sleep(max(search.AGAIN, error.retry_after or 0.0))
        else:
            if record.is_older(execution.id):
                raise _accepted(run, f"the answer names execution {execution.id}, which existed before")
            log.info("%s: started", execution)
            return execution
    raise AssertionError  # The last attempt returns or raises.


async def _after_error(run: JobRun, record: Record, error: HopsworksError) -> Execution | None:
    """
    Look for the execution of a start that has met an error; None if the start may be sent again.

    :raises HopsworksError: it is not to be sent again
    """
    assert run.records is not None  # noqa: S101 - they are opened first
    if not (error.outcome_unknown or error.transient):
        run.sought = None
        await run.records.write(replace(record, state=RecordState.ENDED, succeeded=False))
        raise error
    log.warning("%s; checking whether it was started", error)
    grace = search.GRACE if error.outcome_unknown else 0.0
    found = await search.find(run, record, min(run.clock() + grace, run.deadline))
    if found is None and isinstance(error, UnexpectedResponseError) and 200 <= error.status < 300:
        if error.status != _CREATED:
            raise error  # Perhaps a login page of a proxy. A retry looks again before it starts the job.
        why = "its answer cannot be read, and no new execution with its arguments has appeared"
        raise _accepted(run, why) from error
    return found


def _accepted(run: JobRun, why: str) -> JobError:
    """Return the error for a start that was answered as accepted, while it is not known what was started."""
    return JobError(
        f"run job {run.job_name!r}: Hopsworks has accepted the start, but {why}. It was not sent again, since that "
        "would run the job twice.\n"
        "Look in Hopsworks which executions of the job run, and stop the one that is not wanted; then clear the task."
    )


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
