"""
Polling together: thousands of waits on one event loop that look at the deployments of one project ask it once.

``Poller.send`` and ``Poller.sleep`` are what drives procedures there. ``sleep`` lets waits wake up together, and
``send`` gathers what they ask then. No wait knows of another one; each joins and leaves when it likes.
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

from airflow_provider_hsml.hopsworks.api import Call, Project, get_deployments
from airflow_provider_hsml.hopsworks.errors import HopsworksError, NoResponseError, UnexpectedResponseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

GATHERING = 0.03
"""Seconds from the first look that is asked for until those asked for meanwhile are sent together."""
AT_ONCE = 3
"""
Looks under way at once; and as many other calls, so that a probe that hangs holds up no look. With those of few they
are as many as a client sends at once.
"""
FEW = 8
"""Deployments that are always looked at one by one, and before all that queue: it is somebody in a hurry."""
AT_ONCE_FEW = 2
"""Looks under way at once for those."""
LIST_COSTS = 0.5
"""
What a list costs for each deployment of the project, in looks: the server asks the cluster as often for a row of a list
as for a look, but a look is a request more.
"""
LISTED_AGAIN = 300.0
"""Seconds after which a list is tried again that was too long, or failed: deployments may have been deleted."""
ALIGNED_FROM = 2.0
"""Seconds of the shortest pause that is aligned: shorter ones are those of a wait that is in a hurry."""
LONGEST_RETRY = 30.0


@dataclass(slots=True, eq=False)
class _Asked:
    """Somebody who waits for an answer."""

    call: Call[Any]
    deadline: float
    answer: asyncio.Future[Any]
    failures: int = 0
    error: BaseException | None = None
    end: asyncio.TimerHandle | None = None
    """Tells the error at the deadline, once there is one."""

    def fail(self) -> None:
        """Tell the error, unless nobody listens any more."""
        if self.error is not None and not self.answer.done():
            self.answer.set_exception(self.error)


class Poller:
    """
    Sends the calls of all waits on one project, and lets them wait; on one event loop, for any number of tasks.

    :param send: sends one call and gives its answer, or raises HopsworksError
    :param project: finds the project whose deployments are looked at
    :param clock: tells the seconds in which deadlines are given
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
        # So that not every project, and every triggerer, is asked at the same instant.
        self._phase = random.uniform(0, 60)  # noqa: S311 - not a secret
        self._looking = asyncio.Semaphore(AT_ONCE)
        self._hurrying = asyncio.Semaphore(AT_ONCE_FEW)
        self._others = asyncio.Semaphore(AT_ONCE)
        self._gathered: list[_Asked] = []
        self._to_look: dict[int | str, list[_Asked]] = {}
        self._to_list: dict[int | str, list[_Asked]] = {}
        self._is_listing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = math.inf
        """How many deployments the project has, where it is known."""
        self._list_again = -math.inf

    async def send(self, call: Call[T], deadline: float = math.inf) -> T:
        """
        Send a call; a look at a deployment together with the looks of others.

        A look that fails and may succeed later is repeated, once for all who wait for it; each of them hears of the
        failure at its own deadline.

        :param call: what to ask
        :param deadline: by the poller's clock
        :raises HopsworksError: what went wrong
        """
        if call.looks_at is None:
            async with self._others:
                outcome: T = await self._send(call)
                return outcome
        asked = _Asked(call, deadline, asyncio.get_running_loop().create_future())
        self._ask([asked])
        try:
            answer: T = await asked.answer
            return answer
        finally:
            if asked.end is not None:
                asked.end.cancel()

    async def sleep(self, seconds: float) -> None:
        """
        Wait, for a pause of 2 s and more so that waits with the same interval wake up together.

        They wake up at the multiples of the interval. It may be less than asked for, down to a quarter, never
        more: where a deadline has cut the pause, it is still met.

        :param seconds: how long
        """
        await asyncio.sleep(self._aligned(seconds))

    def close(self) -> None:
        """End what is under way; for when nobody waits any more."""
        for task in self._tasks:
            task.cancel()

    def _aligned(self, seconds: float) -> float:
        if seconds < ALIGNED_FROM:
            return seconds
        now = asyncio.get_running_loop().time() - self._phase
        # Whole seconds, since the intervals of a rollout grow by fractions.
        step = math.floor(seconds)
        pause = math.floor(now / step + 1) * step - now
        # Too soon is half an interval later, from where the next multiple is not too soon, unless looks take very long.
        return pause if pause >= step / 4 else pause + step / 2

    # --- Looks --------------------------------------------------------------------------------------------------------

    def _ask(self, asked: list[_Asked]) -> None:
        if asked and not self._gathered:
            # In a context of nobody's: what is logged for all is no line of the task that happened to be first.
            asyncio.get_running_loop().call_later(GATHERING, self._begin, context=contextvars.Context())
        self._gathered += asked

    def _begin(self) -> None:
        """Send what was gathered."""
        looks: dict[int | str, list[_Asked]] = {}
        for asked in self._gathered:
            if not asked.answer.done() and asked.call.looks_at is not None:
                looks.setdefault(asked.call.looks_at, []).append(asked)
        self._gathered = []
        if self._is_for_a_list(len(looks.keys() | self._to_look.keys())):
            # With those that are still to be looked at: one by one, thousands would never catch up.
            _add(self._to_look, to=self._to_list)
            self._to_look.clear()
            _add(looks, to=self._to_list)
            if not self._is_listing:
                self._start(self._list())
        else:
            self._look(looks)

    def _is_for_a_list(self, looks: int) -> bool:
        is_time = asyncio.get_running_loop().time() >= self._list_again
        return looks > FEW and (looks >= LIST_COSTS * self._count or is_time)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _look(self, looks: dict[int | str, list[_Asked]]) -> None:
        """Look at deployments one by one; at none twice that is still to be looked at."""
        is_hurry = len(looks) <= FEW
        queued = set() if is_hurry else set(self._to_look)
        _add(looks, to=self._to_look)
        for which in looks:
            if which not in queued:
                self._start(self._look_at(which, self._hurrying if is_hurry else self._looking))

    async def _look_at(self, which: int | str, turn: asyncio.Semaphore) -> None:
        async with turn:
            asked = _listening(self._to_look.pop(which, []))
            if not asked:
                return
            try:
                deployment = await self._send(_once(asked[0].call))
            except Exception as error:  # noqa: BLE001 - those who wait are told
                self._start(self._fail(asked, error))
                return
        await _answer([(one, deployment) for one in asked])

    async def _list(self) -> None:
        self._is_listing = True
        try:
            while self._to_list:
                looks, self._to_list = self._to_list, {}
                await self._list_once(looks)
        finally:
            self._is_listing = False

    async def _list_once(self, looks: dict[int | str, list[_Asked]]) -> None:
        try:
            async with self._looking:
                deployments = await self._send(_once(get_deployments(await self._project())))
        except Exception as error:  # noqa: BLE001 - those who wait are told
            if not _is_away(error):
                self._know(math.inf)
            self._start(self._fail([one for asked in looks.values() for one in asked], error))
            return
        self._know(len(deployments))
        found: dict[int | str, Deployment] = {}
        for deployment in deployments:
            found[deployment.id] = found[deployment.name] = deployment
        # Nobody is told that a deployment is gone because a list lacks it.
        self._look({which: asked for which, asked in looks.items() if which not in found})
        await _answer([(one, found[which]) for which in looks.keys() & found.keys() for one in looks[which]])

    def _know(self, count: float) -> None:
        self._count = count
        self._list_again = asyncio.get_running_loop().time() + LISTED_AGAIN

    async def _fail(self, asked: list[_Asked], error: Exception) -> None:
        """Ask again later, for those who have the time; tell the others."""
        if not (isinstance(error, HopsworksError) and error.transient):
            for one in asked:
                one.error = error
                one.fail()
            return
        loop, now = asyncio.get_running_loop(), self._clock()
        if not any(one.failures for one in asked):
            log.warning("%s; asking again, for %d waits", error, len(asked))
        for one in asked:
            one.failures += 1
            one.error = error
            if one.end is None and one.deadline < math.inf:
                one.end = loop.call_later(max(0.0, one.deadline - now), one.fail)
        failures = max(one.failures for one in asked)
        backoff = self._aligned(min(2.0**failures, LONGEST_RETRY))
        await asyncio.sleep(max(backoff, error.retry_after or 0.0))
        self._ask(_listening(asked))


def _once(call: Call[T]) -> Call[T]:
    """Make it a call that the client does not repeat: the poller does, while somebody waits."""
    return replace(call, repeatable=False)


def _is_away(error: Exception) -> bool:
    """Tell whether a list failed because the server is away, and not because it is too much for the server."""
    return (isinstance(error, NoResponseError) and not error.sent) or (
        isinstance(error, UnexpectedResponseError) and error.status != 200
    )


def _add(looks: dict[int | str, list[_Asked]], *, to: dict[int | str, list[_Asked]]) -> None:
    for which, asked in looks.items():
        to.setdefault(which, []).extend(asked)


def _listening(asked: list[_Asked]) -> list[_Asked]:
    return [one for one in asked if not one.answer.done()]


async def _answer(answers: list[tuple[_Asked, Deployment | None]]) -> None:
    for number, (one, deployment) in enumerate(answers, 1):
        if not one.answer.done():
            one.answer.set_result(deployment)
        if not number % 100:
            await asyncio.sleep(0)  # Thousands wake up now; others have their turn in between.
