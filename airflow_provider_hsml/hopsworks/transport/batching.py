"""
Batched polling: thousands of waits on one event loop share the reads of one project's deployments.

``Poller.send``, ``Poller.sleep`` and ``Poller.poll_again`` drive flows in the triggerer. ``sleep`` aligns the waits so
that they wake up together, and ``send`` collects their reads into one list. ``poll_again`` repeats the read of a wait,
and resumes only the waits whose deployment has changed. Waits are independent: each joins and leaves at any time.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_hsml.hopsworks.api import Answer, Call, Project, get_deployments
from airflow_provider_hsml.hopsworks.errors import HopsworksError, NoResponseError, UnexpectedResponseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Clock, Pause, PollAgain

log = logging.getLogger(__name__)

T = TypeVar("T")

GATHERING = 0.03
"""Seconds for which reads are collected after the first one, before they are sent together."""
READS_AT_ONCE = 3
"""Queued reads in progress at once."""
OTHER_CALLS_AT_ONCE = 3
"""Other calls in progress at once. They have a limit of their own, so that a hanging probe delays no read."""
FEW_READS = 8
"""
The largest number of collected reads that counts as few. Few reads are sent one by one and do not wait for the queued
reads, so that short waits stay short.
"""
FEW_READS_AT_ONCE = 2
"""Few reads in progress at once. The three limits add up to ``async_client.MAX_REQUESTS``."""
LIST_COSTS = 0.5
"""
Cost of one deployment in a list, where one single read costs 1. In both cases the server queries the cluster once for
each deployment, but single reads also cost one request each.
"""
LISTED_AGAIN = 300.0
"""
Seconds after a list until the next one is sent whatever it costs: deployments may have been deleted since, so it may
work where the last one failed or was too long.
"""
ALIGNED_FROM = 2.0
"""Seconds of the shortest pause that is aligned: a wait with shorter pauses must not be slowed down."""
LONGEST_RETRY = 30.0


@dataclass(slots=True, eq=False)
class _PendingRead:
    """One pending read of a wait."""

    call: Call[Any]
    deadline: float
    answer: asyncio.Future[Any]
    failures: int = 0
    error: BaseException | None = None
    """The last failure; None while there is no response."""
    end: asyncio.TimerHandle | None = None
    """Raises the error at the end of the wait."""

    def fail(self) -> None:
        """Raise the error in the wait, unless the wait has ended."""
        if not self.answer.done():
            self.answer.set_exception(self.error or _too_late(self.call))

    def succeed(self, deployment: Deployment | None, _listed_in: bytes | None = None) -> None:
        """Resume the wait with the deployment that was read, unless the wait has ended."""
        if not self.answer.done():
            self.answer.set_result(deployment)


@dataclass(slots=True, eq=False, kw_only=True)
class _RepeatedRead(_PendingRead):
    """A read that is repeated once an interval, until the deployment differs from the last answer."""

    pause: Pause
    seen: Deployment | None
    context: contextvars.Context
    """The context of the wait, for its log."""
    quiet_until: float
    """Loop time from which each answer counts."""
    due: float
    """Loop time of the next read, or of a later one if no round comes by then; infinite while one is in progress."""
    listed_in: bytes | None = None
    """The last list in which the deployment was the same as before; None if it was read by itself."""

    def succeed(self, deployment: Deployment | None, listed_in: bytes | None = None) -> None:
        """
        Resume the wait if the deployment has changed, or if each answer counts by now.

        :param listed_in: the list that holds the deployment; None if it was read by itself
        """
        if deployment != self.seen or asyncio.get_running_loop().time() >= self.quiet_until:
            _PendingRead.succeed(self, deployment)
        else:
            self.listed_in = listed_in
            self.stay()

    def stay(self) -> None:
        """Leave the wait asleep until the next round."""
        self.failures, self.error = 0, None
        self.due = asyncio.get_running_loop().time() + self.pause.seconds / 4
        if not self.answer.done():
            self.context.run(self.pause.unchanged)


class _Turns:
    """The limits of the requests that one poller has in progress at once."""

    def __init__(self) -> None:
        self.reads = asyncio.Semaphore(READS_AT_ONCE)
        self.few_reads = asyncio.Semaphore(FEW_READS_AT_ONCE)
        self.other_calls = asyncio.Semaphore(OTHER_CALLS_AT_ONCE)


class _List:
    """The list of a project's deployments: whether it costs less than single reads, and whether it has changed."""

    def __init__(self) -> None:
        self.content = b""
        """The last response; empty after one that was too long or failed: the next one is parsed and counted."""
        self.count = math.inf
        """Number of deployments in the project; infinite while it is unknown."""
        self._ask_again_at = -math.inf
        """Loop time from which a list is sent to find out the number, however high its cost."""

    def is_lower(self, reads: int) -> bool:
        """Return whether a list is sent in place of this number of single reads."""
        is_time = asyncio.get_running_loop().time() >= self._ask_again_at
        return reads > FEW_READS and (reads >= LIST_COSTS * self.count or is_time)

    def learn(self, count: float) -> None:
        """
        Record the number of deployments in a list.

        :param count: the number; infinite after a list that was too long or failed
        """
        self.count = count
        if count == math.inf:
            self.content = b""
        self._ask_again_at = asyncio.get_running_loop().time() + LISTED_AGAIN

    def call(self, project: Project, pending: list[_PendingRead]) -> Call[list[Deployment] | None]:
        """
        Return the call that sends the list. Its result is None if nothing has changed for any of the waits.

        :param pending: the reads that the list is for
        """
        listed: Call[Any] = get_deployments(project)
        now = asyncio.get_running_loop().time()
        are_same = all(
            isinstance(one, _RepeatedRead) and one.listed_in is self.content and now < one.quiet_until
            for one in pending
        )

        def read(content: bytes) -> list[Deployment] | None:
            if are_same and content == self.content:
                return None
            deployments: list[Deployment] = listed.outcome(Answer(200, content))
            self.content = content
            return deployments

        return replace(listed, read=read, raw=True)


class Poller:
    """
    The poller of one project and one event loop, which sends the calls of all waits of any number of tasks.

    :param send: sends one call and returns its result, or raises HopsworksError
    :param project: returns the project whose deployments are read
    :param clock: returns seconds, on the scale of the deadlines
    """

    def __init__(
        self,
        send: Callable[[Call[Any]], Awaitable[Any]],
        project: Callable[[], Awaitable[Project]],
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._send = send
        self._project = project
        self._clock = clock
        # Different for each project and triggerer, so that they do not all send at the same instant.
        self._phase = random.uniform(0, 60)  # noqa: S311 - not a secret
        self._turns = _Turns()
        self._list = _List()
        self._rounds: dict[int, set[_RepeatedRead]] = {}
        self._collected: list[_PendingRead] = []
        self._to_read: dict[int | str, list[_PendingRead]] = {}
        self._to_list: dict[int | str, list[_PendingRead]] = {}
        self._is_listing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, call: Call[T], deadline: float = math.inf) -> T:
        """
        Send a call. A read of a deployment is combined with the reads of other waits.

        A read with a transient failure is retried once for all waits that need it. Each wait raises the error at its
        own deadline.

        :param deadline: by the poller's clock
        :raises HopsworksError: the call failed, or has taken all the time that it may take, waiting for its turn
            included
        """
        if call.looks_at is None:
            try:
                async with asyncio.timeout(call.at_most), self._turns.other_calls:
                    outcome: T = await self._send(call)
                    return outcome
            except TimeoutError:
                raise _too_late(call) from None
        loop = asyncio.get_running_loop()
        read = _PendingRead(call, deadline, loop.create_future())
        if call.at_most is not None:
            read.end = loop.call_later(call.at_most, read.fail)
        self._collect([read])
        try:
            answer: T = await read.answer
            return answer
        finally:
            if read.end is not None:
                read.end.cancel()

    async def poll_again(self, step: PollAgain[Any], deadline: float = math.inf) -> Any:
        """
        Sleep and read a deployment again, until it has changed or the step's quiet time has passed.

        Waits with the same interval are read in one round. A round leaves out a wait that was read less than a quarter
        of the interval ago.

        :param deadline: by the poller's clock
        :raises HopsworksError: as ``send``
        """
        loop, pause = asyncio.get_running_loop(), step.pause
        if step.call.looks_at is None or pause.seconds < ALIGNED_FROM or pause.quiet <= pause.seconds:
            await self.sleep(pause.seconds)
            return await self.send(step.call, deadline)
        now, every = loop.time(), math.floor(pause.seconds)
        read = _RepeatedRead(
            call=step.call,
            deadline=deadline,
            answer=loop.create_future(),
            pause=pause,
            seen=step.seen,
            context=contextvars.copy_context(),
            quiet_until=now + pause.quiet,
            due=now + pause.seconds / 4,
        )
        if deadline < math.inf:
            read.end = loop.call_later(deadline - self._clock(), read.fail)
        if every not in self._rounds:
            self._rounds[every] = set()
            self._schedule_round(every)
        self._rounds[every].add(read)
        try:
            return await read.answer
        finally:
            self._rounds[every].discard(read)
            if read.end is not None:
                read.end.cancel()

    async def sleep(self, seconds: float) -> None:
        """
        Sleep; pauses of 2 s and more are aligned, so that waits with the same interval wake up together.

        Aligned pauses end at multiples of the interval. A pause may be shorter than requested, down to a quarter, but
        never longer: if a deadline has cut the pause, the deadline is still met.
        """
        await asyncio.sleep(self._aligned(seconds))

    def close(self) -> None:
        """Cancel all reads in progress, once no wait is left."""
        for task in self._tasks:
            task.cancel()

    def _aligned(self, seconds: float) -> float:
        if seconds < ALIGNED_FROM:
            return seconds
        now = asyncio.get_running_loop().time() - self._phase
        # Whole seconds, since the intervals of a rollout grow by fractions.
        step = math.floor(seconds)
        pause = math.floor(now / step + 1) * step - now
        # A pause below a quarter is too short: wait half an interval more. The pause after that ends at a multiple
        # again, and is long enough unless reads take very long.
        return pause if pause >= step / 4 else pause + step / 2

    def _schedule_round(self, every: int) -> None:
        asyncio.get_running_loop().call_later(
            self._aligned(every), self._begin_round, every, context=contextvars.Context()
        )

    def _begin_round(self, every: int) -> None:
        """Read the deployments of all waits with an interval, and schedule the next round while there are any."""
        waits = self._rounds[every]
        if not waits:
            del self._rounds[every]
            return
        self._schedule_round(every)
        now = asyncio.get_running_loop().time()
        due = [read for read in waits if read.due <= now]
        for read in due:
            read.due = math.inf
        self._collect(due)

    # --- Reads --------------------------------------------------------------------------------------------------------

    def _collect(self, pending: Sequence[_PendingRead]) -> None:
        if pending and not self._collected:
            # In a context of its own: a log line for all waits must not go to the log of the first task alone.
            asyncio.get_running_loop().call_later(GATHERING, self._begin, context=contextvars.Context())
        self._collected += pending

    def _begin(self) -> None:
        """Send the collected reads."""
        reads: dict[int | str, list[_PendingRead]] = {}
        for read in self._collected:
            if not read.answer.done() and read.call.looks_at is not None:
                reads.setdefault(read.call.looks_at, []).append(read)
        self._collected = []
        if self._list.is_lower(len(reads.keys() | self._to_read.keys())):
            # Together with the queued reads: one by one, thousands would never catch up.
            _add(self._to_read, to=self._to_list)
            self._to_read.clear()
            _add(reads, to=self._to_list)
            if not self._is_listing:
                self._start(self._read_lists())
        else:
            self._read(reads)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _read(self, reads: dict[int | str, list[_PendingRead]]) -> None:
        """Read deployments one by one; a deployment that is already queued is not queued again."""
        are_few = len(reads) <= FEW_READS
        turn = self._turns.few_reads if are_few else self._turns.reads
        queued = set() if are_few else set(self._to_read)
        _add(reads, to=self._to_read)
        for which in reads:
            if which not in queued:
                self._start(self._read_one(which, turn))

    async def _read_one(self, which: int | str, turn: asyncio.Semaphore) -> None:
        async with turn:
            pending = _still_waiting(self._to_read.pop(which, []))
            if not pending:
                return
            try:
                deployment = await self._send(_once(pending[0].call))
            except Exception as error:  # noqa: BLE001 - the error is raised in the waits
                self._start(self._fail(pending, error))
                return
        await _answer([(one, deployment) for one in pending])

    async def _read_lists(self) -> None:
        self._is_listing = True
        try:
            while self._to_list:
                reads, self._to_list = self._to_list, {}
                await self._read_list(reads)
        finally:
            self._is_listing = False

    async def _read_list(self, reads: dict[int | str, list[_PendingRead]]) -> None:
        pending = [one for some in reads.values() for one in some]
        try:
            async with self._turns.reads:
                deployments = await self._send(_once(self._list.call(await self._project(), pending)))
        except Exception as error:  # noqa: BLE001 - the error is raised in the waits
            if not _is_unavailable(error):
                self._list.learn(math.inf)
            self._start(self._fail(pending, error))
            return
        self._list.learn(self._list.count if deployments is None else len(deployments))
        if deployments is None:
            for one in pending:
                if isinstance(one, _RepeatedRead):
                    one.stay()
            return
        found: dict[int | str, Deployment] = {}
        for deployment in deployments:
            found[deployment.id] = found[deployment.name] = deployment
        # A list that lacks a deployment does not prove that the deployment is deleted: read it on its own.
        self._read({which: pending for which, pending in reads.items() if which not in found})
        listed = [(one, found[which]) for which in reads.keys() & found.keys() for one in reads[which]]
        await _answer(listed, self._list.content)

    async def _fail(self, pending: list[_PendingRead], error: Exception) -> None:
        """Retry later for waits whose deadline allows it; raise the error in the others."""
        if not (isinstance(error, HopsworksError) and error.transient):
            for one in pending:
                one.error = error
                one.fail()
            return
        loop, now = asyncio.get_running_loop(), self._clock()
        if not any(one.failures for one in pending):
            log.warning("%s; retrying, for %d waits", error, len(pending))
        for one in pending:
            one.failures += 1
            one.error = error
            if one.failures == 1 and one.deadline < math.inf:
                if one.end is not None:
                    one.end.cancel()
                one.end = loop.call_later(max(0.0, one.deadline - now), one.fail)
        failures = max(one.failures for one in pending)
        backoff = self._aligned(min(2.0**failures, LONGEST_RETRY))
        await asyncio.sleep(max(backoff, error.retry_after or 0.0))
        self._collect(_still_waiting(pending))


def _once(call: Call[T]) -> Call[T]:
    """Return a call that the client does not retry or end early: it is for all waits, and each ends by itself."""
    return replace(call, repeatable=False, at_most=None)


def _too_late(call: Call[Any]) -> NoResponseError:
    return NoResponseError(f"{call.what}: no answer within {call.at_most or 0.0:.0f} s, the end of the wait.")


def _is_unavailable(error: Exception) -> bool:
    """Return whether a list failed because the server is unavailable, not because the list is too long for it."""
    return (isinstance(error, NoResponseError) and not error.sent) or (
        isinstance(error, UnexpectedResponseError) and error.status != 200
    )


def _add(reads: dict[int | str, list[_PendingRead]], *, to: dict[int | str, list[_PendingRead]]) -> None:
    for which, pending in reads.items():
        to.setdefault(which, []).extend(pending)


def _still_waiting(pending: list[_PendingRead]) -> list[_PendingRead]:
    return [one for one in pending if not one.answer.done()]


async def _answer(answers: Sequence[tuple[_PendingRead, Deployment | None]], listed_in: bytes | None = None) -> None:
    for number, (one, deployment) in enumerate(answers, 1):
        one.succeed(deployment, listed_in)
        if not number % 100:
            await asyncio.sleep(0)  # Thousands wake up now: let other tasks run in between.
