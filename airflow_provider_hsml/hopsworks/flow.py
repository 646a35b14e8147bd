"""
Waiting, decided once and driven by whoever waits.

A procedure is a generator: it yields what is to be done next (a ``Call`` to send, a ``Pause``, or a ``Long`` wait) and
is told the answer. It does no I/O and does not know who drives it, a worker, a sensor or a trigger, so that the same
script of answers ends in the same result, with the same error and the same message, everywhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from .api import Call, Page, Project, get_deployment, get_logs
from .domain.deployment import Condition, Deployment, DeploymentStatus
from .errors import DeploymentFailed, HopsworksError, NotInTime, Superseded

log = logging.getLogger(__name__)

T = TypeVar("T")
Clock = Callable[[], float]

FAILED_STAYS = 30.0
"""Seconds after which a Failed is believed: it is computed anew at each look, and one crash may pass."""
UNSCHEDULABLE_STAYS = 300.0
"""The same when the cluster had no room: a node may be on its way."""
LOG_TAIL = 20
"""Lines of each instance's log that the message of a failure carries."""


def steady() -> Clock:
    """
    Make a clock for one wait: it tells the seconds since 1970, and does not jump when the machine's clock is set.

    Deadlines can be written down and mean the same in another process, which makes a clock of its own.
    """
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for some seconds."""

    seconds: float


T_co = TypeVar("T_co", covariant=True)


class Long(Protocol[T_co]):
    """A wait that takes long, and only reads and probes: whoever drives may leave it to somebody else."""

    def run(self) -> Procedure[T_co]:
        """See it through."""


Procedure = Generator["Call[Any] | Pause | Long[Any]", Any, T]


class HandOver(Exception):
    """A long wait is left to somebody else; the procedure ends here, and another goes on from there. Not an error."""

    def __init__(self, wait: Long[Any]) -> None:
        """
        Say which.

        :param wait: what is to be waited for
        """
        super().__init__()
        self.wait = wait


def watched(wait: Long[T]) -> Procedure[T]:
    """
    Yield a long wait and give how it ended, with its type.

    :param wait: what is waited for
    """
    seen: T = yield wait
    return seen


def ask(call: Call[T]) -> Procedure[T]:
    """
    Yield a call and give its answer, with its type.

    :param call: what to send
    """
    answer: T = yield call
    return answer


def timed(procedure: Procedure[T], clock: Clock) -> Procedure[tuple[T, float]]:
    """
    Run a procedure, and measure its last call: the one that was answered, after those that were tried in vain.

    :param procedure: what to run
    :param clock: tells the seconds since 1970
    :return: its result, and the seconds from sending that call to having its answer
    """
    took = 0.0
    try:
        step = next(procedure)
        while True:
            begun = clock()
            try:
                answer = yield step
            except HopsworksError as error:
                step = procedure.throw(error)
            else:
                took = clock() - begun
                step = procedure.send(answer)
    except StopIteration as done:
        return done.value, took
    finally:
        procedure.close()


def all_pages(page: Callable[..., Call[Page[T]] | Call[Page[T] | None]]) -> Procedure[list[T] | None]:
    """
    Read a list that comes in pages; None where the server has no such list.

    :param page: makes the call for the page that begins at ``offset``
    """
    found: list[T] = []
    while True:
        call: Call[Any] = page(offset=len(found))
        rows: Page[T] | None = yield from ask(call)
        if rows is None:
            return None
        found += rows.items
        if not rows.items or len(found) >= rows.count:
            return found


def drive(
    procedure: Procedure[T],
    send: Callable[[Call[Any]], Any],
    sleep: Callable[[float], object],
    watch: Callable[[Long[Any]], Any] | None = None,
) -> T:
    """
    Do what a procedure says, until it has a result or raises.

    :param procedure: what to do
    :param send: sends a call and gives its answer
    :param sleep: waits for some seconds; one that raises ends the procedure, for a task that is killed
    :param watch: sees a long wait through, or raises what ends the procedure; None: it is driven as everything else
    """
    watch = watch or (lambda wait: drive(wait.run(), send, sleep))
    try:
        step = next(procedure)
        while True:
            try:
                if isinstance(step, Pause):
                    answer: Any = sleep(step.seconds)
                else:
                    answer = send(step) if isinstance(step, Call) else watch(step)
            except HopsworksError as error:
                step = procedure.throw(error)
            else:
                step = procedure.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        procedure.close()


async def drive_async(
    procedure: Procedure[T],
    send: Callable[[Call[Any]], Awaitable[Any]],
    sleep: Callable[[float], Awaitable[object]],
) -> T:
    """
    Do what a procedure says, as ``drive`` does, on an event loop; its long waits as everything else.

    :param procedure: what to do; it is closed when this is cancelled
    :param send: sends a call and gives its answer
    :param sleep: waits for some seconds
    """
    try:
        step = next(procedure)
        while True:
            try:
                if isinstance(step, Pause):
                    answer: Any = await sleep(step.seconds)
                elif isinstance(step, Call):
                    answer = await send(step)
                else:
                    answer = await drive_async(step.run(), send, sleep)
            except HopsworksError as error:
                step = procedure.throw(error)
            else:
                step = procedure.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        procedure.close()


class Goal(Protocol):
    """What is waited for."""

    def reached(self, deployment: Deployment | None, now: float) -> bool:
        """
        Judge one look.

        :param deployment: what was seen; None when there is no such deployment
        :param now: seconds since 1970
        :raises DeploymentError: it cannot be reached any more
        """


class FailedWatch:
    """Tells a Failed that stays from one that passes."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.since: float | None = None

    def stays(self, deployment: Deployment, now: float) -> bool:
        """
        Judge one look.

        :param deployment: what was seen
        :param now: seconds since 1970
        :return: whether it is Failed, and has been for too long
        """
        if deployment.status is not DeploymentStatus.FAILED:
            self.since = None
            return False
        if self.since is None:
            self.since = now
            log.warning(
                "%s: %s; looking again, since this may pass", deployment, deployment.reason or "no reason given"
            )
        condition = deployment.condition or Condition("")
        return now - self.since >= (UNSCHEDULABLE_STAYS if condition.is_unschedulable else FAILED_STAYS)


@dataclass(slots=True)
class Reach:
    """The goal of being in one of some states."""

    name: str
    """The deployment's."""
    statuses: frozenset[DeploymentStatus]
    failed: FailedWatch = field(default_factory=FailedWatch)

    @classmethod
    def of(cls, name: str, *statuses: DeploymentStatus) -> Reach:
        """
        Make the goal, with what counts as the same: Idle as Running, Created as Stopped.

        :param name: the deployment's name
        :param statuses: the states, one of which is enough
        """
        wanted = set(statuses)
        wanted |= {DeploymentStatus.IDLE} if DeploymentStatus.RUNNING in wanted else set()
        wanted |= {DeploymentStatus.CREATED} if DeploymentStatus.STOPPED in wanted else set()
        return cls(name, frozenset(wanted))

    def reached(self, deployment: Deployment | None, now: float) -> bool:
        """
        Judge one look.

        :param deployment: what was seen
        :param now: seconds since 1970
        :raises Superseded: it was deleted
        :raises DeploymentFailed: it is Failed and stays so
        """
        if deployment is None:
            message = f"Deployment {self.name!r} was deleted while it was waited for."
            raise Superseded(message)
        if deployment.status in self.statuses:
            return True
        if self.failed.stays(deployment, now):
            raise DeploymentFailed(deployment)
        return False


class Gone:
    """The goal of not being there."""

    def reached(self, deployment: Deployment | None, now: float) -> bool:  # noqa: ARG002 - asked of every goal
        """
        Judge one look.

        :param deployment: what was seen
        :param now: not needed
        """
        return deployment is None


class Pace:
    """How often to look, and until when. Looks begin close together and get rarer; none is after the deadline."""

    def __init__(self, *, first: float, most: float, deadline: float, clock: Clock = time.time) -> None:
        """
        Begin.

        :param first: seconds before the second look
        :param most: seconds between looks later on
        :param deadline: seconds since 1970, so that it means the same in another process
        :param clock: tells the seconds since 1970
        """
        self._next = min(first, most)
        self._most = most
        self.deadline = deadline
        self.clock = clock

    def pause(self, *, at_least: float = 0.0) -> float | None:
        """
        Tell how long to wait before the next look; None when the deadline has passed.

        :param at_least: seconds that the server asked for
        """
        left = self.deadline - self.clock()
        if left <= 0:
            return None
        seconds = max(self._next, at_least)
        self._next = min(self._next * 1.5, self._most)
        return min(seconds, left)


@dataclass(slots=True)
class Wait:
    """A goal, how often to look for it, and until when."""

    goal: Goal
    pace: Pace
    what: str
    """What is waited for, for the message when it does not come: "deployment 'digits' to stop"."""
    seen: Deployment | None = None
    _begun: float | None = None
    _said: str = ""

    def pause_after(self, deployment: Deployment | None) -> float | None:
        """
        Judge a look.

        :param deployment: what was seen; None when there is no such deployment
        :return: seconds before the next look; None when the goal is reached
        :raises DeploymentError: it cannot be reached any more
        :raises NotInTime: the deadline has passed
        """
        now = self.pace.clock()
        self._begun = now if self._begun is None else self._begun
        self._said = note_change(self._said or state_of(self.seen), deployment, now - self._begun)
        self.seen = deployment
        if self.goal.reached(deployment, now):
            return None
        pause = self.pace.pause()
        if pause is None:
            state = f"now: {deployment}, {deployment.reason or 'no reason given'}" if deployment else "it is not there"
            message = f"Waited for {self.what} until the timeout; {state}."
            raise NotInTime(message)
        return pause


def until(wait: Wait, look: Call[Deployment | None]) -> Procedure[Deployment | None]:
    """
    Look until a goal is reached. The first look is at once.

    :param wait: the goal
    :param look: how to look
    :return: what was seen last
    """
    while True:
        deployment = yield from patiently(look, wait.pace)
        pause = wait.pause_after(deployment)
        if pause is None:
            return deployment
        yield Pause(pause)


def watch(project: Project, goal: Reach, pace: Pace) -> Procedure[Deployment | None]:
    """
    Look once; at a Failed for as long as it takes to know whether it stays.

    :param project: the deployment's project
    :param goal: the goal
    :param pace: how often to look at a Failed
    :return: the deployment when the goal is reached, else None
    """
    while True:
        deployment = yield from ask(get_deployment(project, goal.name))
        if goal.reached(deployment, pace.clock()):
            return deployment
        pause = pace.pause()
        if deployment is None or deployment.status is not DeploymentStatus.FAILED or pause is None:
            return None
        yield Pause(pause)


def patiently(call: Call[T], pace: Pace) -> Procedure[T]:
    """
    Read something, however often the server is away meanwhile; it must be back by the deadline.

    :param call: what to read; it must be safe to repeat
    :param pace: how often and until when
    """
    while True:
        try:
            return (yield from ask(call))
        except HopsworksError as error:
            if not error.transient:
                raise
            pause = pace.pause(at_least=error.retry_after or 0.0)
            if pause is None:
                message = f"Gave up at the timeout: {error}"
                raise NotInTime(message) from error
            log.warning("%s; asking again", error)
            yield Pause(pause)


def explained(project: Project, procedure: Procedure[T]) -> Procedure[T]:
    """
    Run a procedure, and put the end of the log into its error where a deployment failed.

    :param project: the deployment's project
    :param procedure: what to run
    """
    try:
        return (yield from procedure)
    except DeploymentFailed as error:
        component = error.deployment.condition.component if error.deployment.condition else "predictor"
        try:
            logs = yield from ask(get_logs(project, error.deployment, component=component, tail=LOG_TAIL))
        except HopsworksError as unread:
            log.warning("%s", unread)
            raise error from None
        tail = [
            line
            for instance in logs or []
            for line in (f"[{instance.instance}]", *instance.content.splitlines()[-LOG_TAIL:])
        ]
        raise DeploymentFailed(error.deployment, log_tail=tail) from None


def state_of(deployment: Deployment | None) -> str:
    """
    Give what is worth a line in the log when it changes; empty where there is nothing.

    :param deployment: what was seen
    """
    if deployment is None:
        return ""
    condition = deployment.condition or Condition("")
    return f"{deployment.status.value} {condition.type} {condition.status}"


def note_change(said: str, now: Deployment | None, seconds: float) -> str:
    """
    Say once in the log what changed between two looks.

    :param said: the state that was said last
    :param now: what is seen
    :param seconds: since the wait began
    :return: the state that is said now
    """
    state = state_of(now)
    if now is not None and state != said:
        after = f" (after {seconds:.0f} s)" if seconds >= 1 else ""
        log.info("%s%s%s", now, f": {now.reason}" if now.reason else "", after)
    return state or said
