"""
Flows: decisions of several steps, written once and driven by a worker or by the triggerer.

A flow is a coroutine that awaits steps and does no I/O itself. There are four steps: a ``Call`` to send, a ``Sleep``, a
``PollAgain``, which is both, and a ``Defer``, a long wait that another process may finish. ``drive`` carries the steps
out in a worker, ``drive_async`` on the event loop of the triggerer. So the same responses lead to the same result, with
the same error and the same message, everywhere.

A step yields itself to the driver; asyncio cannot await one. A flow is driven once.
"""

from __future__ import annotations

import functools
import logging
import math
import time
import types
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from .api import Call, Page
from .errors import DeadlineExceededError, HopsworksError, UnexpectedResponseError

log = logging.getLogger(__name__)

T = TypeVar("T")

LAST_READ = 5.0
"""Seconds that a read of a wait has at least: the last one is sent at the deadline, and its response counts."""
Clock: TypeAlias = Callable[[], float]
"""Returns the seconds since 1970."""
MOST_PAGES = 1000
"""Pages after which a list counts as endless."""


def steady() -> Clock:
    """
    Return a clock for one wait, which does not jump when the machine's clock is set.

    It counts from 1970, so a deadline that is written down means the same in another process.
    """
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset


@dataclass(frozen=True, slots=True)
class Sleep:
    """A step: do nothing for some seconds."""

    seconds: float

    def __await__(self) -> Generator[Sleep, None, None]:
        """Yield this step to the driver."""
        yield self


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause between two polls of a wait."""

    seconds: float
    quiet: float
    """Seconds from now for which a poll that shows no change decides nothing; 0 if each poll counts."""
    unchanged: Callable[[], None]
    """Called after each poll that is left out: it logs once a minute that the wait goes on."""


@dataclass(frozen=True, slots=True)
class PollAgain(Generic[T]):
    """
    A step: sleep, and read again. The result is the new answer.

    While the answer stays the same, a driver may repeat the step for ``pause.quiet`` seconds before it resumes the
    flow: a triggerer with thousands of waits resumes only those for which something has changed.
    """

    call: Call[T]
    pause: Pause
    seen: T
    """The last answer."""

    def __await__(self) -> Generator[PollAgain[T], T, T]:
        """Yield this step to the driver."""
        return (yield self)


class Defer(ABC, Generic[T]):
    """
    A step: a long wait that only reads and probes.

    A driver runs it like everything else, or ends the flow with ``Deferred``: then a trigger runs the wait, and
    another worker resumes from its result.
    """

    __slots__ = ()

    @abstractmethod
    async def run(self) -> T:
        """Wait to the end."""

    def __await__(self) -> Generator[Defer[T], T, T]:
        """Yield this step to the driver."""
        return (yield self)


Step: TypeAlias = Call[Any] | Sleep | PollAgain[Any] | Defer[Any]
Flow: TypeAlias = Coroutine[Step, Any, T]


class Deferred(Exception):
    """The flow has ended because another process finishes ``wait``."""

    def __init__(self, wait: Defer[Any]) -> None:
        """Keep the wait that is left."""
        super().__init__()
        self.wait = wait


def drive(
    flow: Flow[T],
    send: Callable[[Call[Any]], Any],
    sleep: Callable[[float], object],
    defer: Callable[[Defer[Any]], Any] | None = None,
) -> T:
    """
    Carry out the steps of a flow in this thread, and return its result.

    :param flow: closed at the end, however that comes
    :param send: sends a call and returns what its response says
    :param sleep: sleeps for some seconds; an exception from it ends the flow, as when a task is killed
    :param defer: runs a long wait, or raises ``Deferred``; None runs it like everything else
    """
    defer = defer or (lambda wait: drive(wait.run(), send, sleep))
    try:
        step = flow.send(None)
        while True:
            try:
                match step:
                    case Call():
                        answer = send(step)
                    case Sleep():
                        answer = sleep(step.seconds)
                    case PollAgain():
                        sleep(step.pause.seconds)
                        answer = send(step.call)
                    case _:
                        answer = defer(step)
            except HopsworksError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        flow.close()


async def drive_async(
    flow: Flow[T],
    send: Callable[[Call[Any]], Awaitable[Any]],
    sleep: Callable[[float], Awaitable[object]],
    poll_again: Callable[[PollAgain[Any]], Awaitable[Any]] | None = None,
) -> T:
    """
    Carry out the steps of a flow on an event loop, as ``drive`` does in a thread. A ``Defer`` wait runs here as well.

    :param flow: closed at the end, also when this is cancelled
    :param send: sends a call and returns what its response says
    :param sleep: sleeps for some seconds
    :param poll_again: sleeps and reads again; None: with ``sleep`` and ``send``
    """

    async def plainly(step: PollAgain[Any]) -> Any:
        await sleep(step.pause.seconds)
        return await send(step.call)

    poll_again = poll_again or plainly
    try:
        step = flow.send(None)
        while True:
            try:
                match step:
                    case Call():
                        answer = await send(step)
                    case Sleep():
                        answer = await sleep(step.seconds)
                    case PollAgain():
                        answer = await poll_again(step)
                    case _:
                        answer = await drive_async(step.run(), send, sleep, poll_again)
            except HopsworksError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        flow.close()


@types.coroutine
def timed(flow: Flow[T], clock: Clock) -> Generator[Step, Any, tuple[T, float]]:
    """
    Run a flow and measure its last successful call, without the failed attempts before it.

    :param flow: the flow; its steps are passed on to the driver
    :param clock: returns the seconds since 1970
    :return: the flow's result, and the seconds from sending that call to its response
    """
    took = 0.0
    try:
        step = flow.send(None)
        while True:
            begun = clock()
            try:
                answer = yield step
            except HopsworksError as error:
                step = flow.throw(error)
            else:
                took = clock() - begun
                step = flow.send(answer)
    except StopIteration as end:
        return end.value, took
    finally:
        flow.close()


def bounded(call: Call[T], deadline: float, clock: Clock) -> Call[T]:
    """
    Return a read that ends with the wait that needs it, whatever the server does.

    :param deadline: the end of the wait, in seconds since 1970
    :param clock: returns the seconds since 1970
    """
    if deadline == math.inf:
        return call
    left = max(deadline - clock(), LAST_READ)
    return replace(call, at_most=left if call.at_most is None else min(left, call.at_most))


async def _step_by_step(flow: Flow[T], before: Callable[[Any], Coroutine[Step, Any, Awaitable[Any]]]) -> T:
    """
    Run a flow, with something done before each of its steps. An error of a step goes to the flow.

    :param flow: closed at the end, however that comes
    :param before: returns what is awaited in place of a step, often the step itself; an error of it ends the flow
    """
    try:
        step = flow.send(None)
        while True:
            instead = await before(step)
            try:
                answer = await instead
            except HopsworksError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        flow.close()


async def within(flow: Flow[T], deadline: float, clock: Clock) -> T:
    """
    Run a flow that only reads, and end each of its reads with the wait that needs it.

    :param flow: the flow; its steps are passed on to the driver
    :param deadline: the end of the wait, in seconds since 1970
    :param clock: returns the seconds since 1970
    """

    async def in_time(step: Any) -> Any:
        if isinstance(step, Call):
            return bounded(step, deadline, clock)
        if isinstance(step, PollAgain):
            return replace(step, call=bounded(step.call, deadline - step.pause.seconds, clock))
        return step

    return await _step_by_step(flow, in_time)


async def inlined(flow: Flow[T]) -> T:
    """
    Run a flow with its long waits in their places, so that this process runs them to the end.

    :param flow: the flow; its other steps are passed on to the driver
    """

    async def in_place(step: Any) -> Any:
        return inlined(step.run()) if isinstance(step, Defer) else step

    return await _step_by_step(flow, in_place)


async def attended(flow: Flow[T], attend: Callable[[], Flow[None]]) -> T:
    """
    Run a flow, and another one before each of its steps. An error of the other one ends both.

    :param flow: the flow; its steps are passed on to the driver
    :param attend: returns the flow that runs before a step, such as one that renews a lease if that is due
    """

    async def after_the_other(step: Any) -> Any:
        await attend()
        return step

    return await _step_by_step(flow, after_the_other)


async def all_pages(
    page: Callable[[int], Flow[Page[T] | None] | Call[Page[T]] | Call[Page[T] | None]],
) -> list[T] | None:
    """
    Read a list that comes in pages; None if the server has no such list.

    :param page: returns the step that reads the page beginning at an offset
    :raises UnexpectedResponseError: the list does not end, such as one that ignores the offset
    """
    items: list[T] = []
    firsts: list[T] = []
    seen = 0
    for _ in range(MOST_PAGES):
        step: Any = page(seen)
        rows: Page[T] | None = await step
        if rows is None:
            return None
        seen += len(rows.items) + rows.unreadable
        if rows.items and rows.items[0] in firsts:
            break
        firsts += rows.items[:1]
        items += rows.items
        if not (rows.items or rows.unreadable) or (rows.count is not None and seen >= rows.count):
            return items
    message = f"A list does not end: after {len(items)} rows the server repeats them, or goes on for ever."
    raise UnexpectedResponseError(message, status=200)


LOGGED_EVERY = 60.0
"""Seconds between two log lines of a wait in which nothing changes."""


class Heartbeat:
    """Tells once a minute that a wait still goes on: a log that stands still looks like a task that hangs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged = clock()

    def log(self, about: object, deadline: float) -> None:
        """
        Log that the wait goes on, if nothing was logged for a minute.

        :param about: the thing that is waited for
        :param deadline: the end of the wait, in seconds since 1970
        """
        now = self._clock()
        if now - self._logged >= LOGGED_EVERY:
            self._logged = now
            limit = "" if deadline == math.inf else f", for at most {max(0.0, deadline - now):.0f} s more"
            log.info("%s: still waiting%s", about, limit)


class Backoff:
    """
    How often to poll, and until when. The delays grow by half each time; no poll is after the deadline.

    Each minute, a log line tells that the wait still goes on.
    """

    def __init__(self, *, first: float, most: float, deadline: float, clock: Clock = time.time) -> None:
        """
        Begin.

        :param first: seconds before the second poll
        :param most: the longest delay in seconds
        :param deadline: seconds since 1970, so that it means the same in another process
        :param clock: returns the seconds since 1970
        """
        self._next = min(first, most)
        self._most = most
        self.deadline = deadline
        self.clock = clock
        self._heartbeat = Heartbeat(clock)

    def next_delay(self, *, at_least: float = 0.0, about: object = "Hopsworks") -> float | None:
        """
        Return the seconds to sleep before the next poll; None once the deadline has passed.

        :param at_least: seconds that the server asked for
        :param about: the thing that is waited for, for the log
        """
        left = self.deadline - self.clock()
        if left <= 0:
            return None
        self._heartbeat.log(about, self.deadline)
        seconds = max(self._next, at_least)
        self._next = min(self._next * 1.5, self._most)
        return min(seconds, left)

    async def wait(self, too_late: str, *, at_least: float = 0.0, about: object = "Hopsworks") -> None:
        """
        Sleep until the next poll.

        :param too_late: the message of the error when the deadline has passed
        :param at_least: seconds that the server asked for
        :param about: the thing that is waited for, for the log
        :raises DeadlineExceededError: the deadline has passed
        """
        delay = self.next_delay(at_least=at_least, about=about)
        if delay is None:
            raise DeadlineExceededError(too_late)
        await Sleep(delay)

    def pause(self, too_late: str, *, about: object) -> Pause:
        """
        Return the pause until the next poll. It is quiet once the delays do not grow any more and the end is not near.

        :param too_late: the message of the error when the deadline has passed
        :param about: the thing that is waited for, for the log
        :raises DeadlineExceededError: the deadline has passed
        """
        is_growing = self._next < self._most
        delay = self.next_delay(about=about)
        if delay is None:
            raise DeadlineExceededError(too_late)
        quiet = 0.0 if is_growing else max(0.0, self.deadline - self.clock() - 2 * self._most)
        return Pause(delay, quiet, functools.partial(self._heartbeat.log, about, self.deadline))


async def read_patiently(call: Call[T], backoff: Backoff, check: Callable[[T], object] | None = None) -> T:
    """
    Read something, and retry until the deadline while the server is unavailable.

    :param call: the read; safe to repeat
    :param backoff: how often and until when
    :param check: raises the error of an answer that counts as unreadable; None if each counts
    """
    while True:
        try:
            answer: T = await bounded(call, backoff.deadline, backoff.clock)
            if check is not None:
                check(answer)
        except HopsworksError as error:
            if not error.transient:
                raise
            log.warning("%s; retrying", error)
            await backoff.wait(f"Gave up at the timeout: {error}", at_least=error.retry_after or 0.0)
        else:
            return answer
