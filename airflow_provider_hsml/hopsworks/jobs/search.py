"""
Look for the execution of a start whose answer is not known.

Nothing in an execution tells who has started it. So what a task may take for its own is what no other task can own: new
since the record of the start, with its arguments, and neither recorded by another task nor sought by one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, JobError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.flow import MOST_PAGES, Sleep, read_patiently

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.domain.execution import Execution

    from .job_run import JobRun
    from .records import Record

log = logging.getLogger(__name__)

GRACE = 120.0
"""Seconds for which to look for an execution whose start has an unknown outcome: a slow server may still start it."""
AGAIN = 1.0
"""Seconds between two looks for it."""
PAGE = 100
"""Executions that are asked for at once, and that a record names at least, if there are as many."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What there is at one moment."""

    ours: list[Execution]
    """The executions that may be the one of the start."""
    others: list[Record | None]
    """Open starts of other tasks that may own one of these; None for one that cannot be read."""


async def find(run: JobRun, record: Record, until: float) -> Execution | None:
    """
    Look for the execution of a start that was recorded; None if there is none until then.

    While another task that seeks its own execution may own the one that is found, this waits for that task.

    :param until: seconds since 1970
    :raises JobError: several may be it, or another task may own it
    :raises DeadlineExceededError: the timeout has passed while another task is looking
    """
    begun = run.clock()
    while True:
        look = await _look(run, record)
        if look.ours and not look.others:
            if len(look.ours) > 1:
                raise _ambiguous(run, look)
            return look.ours[0]
        now = run.clock()
        if not look.ours and now >= until:
            return None
        if look.ours and now >= _settled_at(look, begun):
            raise _ambiguous(run, look)
        if look.ours and now >= run.deadline:
            message = f"{look.ours[0]}: another task may have started it, and is still looking.\nA retry looks again."
            raise DeadlineExceededError(message)
        await Sleep(AGAIN)


async def certain(run: JobRun, record: Record) -> int | None:
    """
    Look once for the execution of a start that was recorded. Return its id if no other task can own it.

    Without records of the other tasks nothing is certain.
    """
    if run.records is None or not run.records.is_kept:
        return None
    look = await _look(run, record)
    if len(look.ours) == 1 and not look.others:
        return look.ours[0].id
    if look.ours:
        log.warning("%s\nNothing is stopped.", _ambiguous(run, look))
    return None


async def newest(run: JobRun) -> tuple[int, ...]:
    """Return the ids of the newest executions of the job: of all, or of ``PAGE`` at least."""
    return tuple(one.id for one in await _listed(run, lambda found: len(found) >= PAGE))


def _settled_at(look: _Look, begun: float) -> float:
    """
    Return when the other tasks have found their executions, or given up.

    :param begun: when this task began to look, for a record that cannot be read: it may just be written
    """
    return max((begun if other is None else other.at) + GRACE for other in look.others)


async def _look(run: JobRun, record: Record) -> _Look:
    records = run.records
    assert records is not None  # noqa: S101 - they are opened first
    found = [one for one in await _newer(run, record) if record.may_own(one)]
    if record.is_over(run.clock(), run.start_seconds):
        late = [one for one in found if not record.is_in_time(one, run.start_seconds)]
        found = [one for one in found if one not in late]
        for one in late:
            log.warning("%s was submitted at another time than this task's start; it is not its own", one)
    if not found:
        return _Look([], [])
    starting = await records.starting_elsewhere(run.reading())
    ours = [one for one in found if one.id not in records.claimed]
    others = [
        other
        for other in starting
        if other is None or any(other.may_own(one) and other.is_in_time(one, run.start_seconds) for one in ours)
    ]
    return _Look(ours, others if ours else [])


async def _newer(run: JobRun, record: Record) -> list[Execution]:
    """Return the executions that were not there before a start."""
    listed = await _listed(run, lambda found: any(record.is_older(one.id) for one in found))
    older = [position for position, one in enumerate(listed) if record.is_older(one.id)]
    if len(record.seen) >= PAGE and older:
        # The newest comes first. What follows all of those that the record names is older than they are.
        listed = listed[: older[-1]]
    return [one for one in listed if not record.is_older(one.id)]


async def _listed(run: JobRun, is_enough: Callable[[list[Execution]], bool]) -> list[Execution]:
    """
    Return the executions of the job, newest first.

    :param is_enough: returns whether the pages read so far are enough
    :raises UnexpectedResponseError: the list does not end
    """
    found: dict[int, Execution] = {}
    offset = 0
    for _ in range(MOST_PAGES):
        call = api.get_executions(run.project, run.job_name, offset=offset, limit=PAGE)
        page = await read_patiently(call, run.reading())
        known = len(found)
        found |= {one.id: one for one in page.items}
        offset += len(page.items)
        rows = list(found.values())
        if not page.items or (page.count is not None and offset >= page.count) or is_enough(rows):
            return rows
        if len(found) == known:
            break
    message = f"The executions of job {run.job_name!r}: the list does not end; after {len(found)} rows it repeats them."
    raise UnexpectedResponseError(message, status=200)


def _ambiguous(run: JobRun, look: _Look) -> JobError:
    """Return the error for executions of which it is not known whether they are this task's."""
    numbers = " and ".join(str(number) for number in sorted(one.id for one in look.ours))
    is_one = len(look.ours) == 1
    which = f"execution {numbers} was" if is_one else f"executions {numbers} were"
    doubt = (
        "which one is its own" if not is_one else "whether it is its own or that of another task, which seeks one too"
    )
    records = run.records
    way = f"delete the file {records.path!r} to let the task start a new one" if records and records.is_kept else ""
    return JobError(
        f"Job {run.job_name!r}: {which} started with this task's arguments after it had recorded its own start, so it "
        f"is not known {doubt}. Nothing was started.\n"
        f"Delete {'it, if it is not wanted,' if is_one else 'the others'} in Hopsworks and clear the task"
        f"{f', or {way}' if way else ''}."
    )
