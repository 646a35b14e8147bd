"""
Polling together: what the server is asked for many waits, and when.

The loop of these tests has a clock of its own: where nothing is to be done, time has passed.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import logging
import math
import selectors
import statistics
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Answer, Call, Project
from airflow_provider_hsml.hopsworks.domain.access import Access
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    DeploymentFailedError,
    HopsworksError,
    NoResponseError,
    RequestRefusedError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Heartbeat, drive_async
from airflow_provider_hsml.hopsworks.rollout.status import StatusGoal
from airflow_provider_hsml.hopsworks.sensing import conditions
from airflow_provider_hsml.hopsworks.transport import batching
from airflow_provider_hsml.hopsworks.transport.batching import (
    FEW_READS,
    FEW_READS_AT_ONCE,
    GATHERING,
    LISTED_AGAIN,
    LONGEST_RETRY,
    OTHER_CALLS_AT_ONCE,
    READS_AT_ONCE,
    Poller,
)
from tests.support.fake import PROJECT, refusal, row

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from airflow_provider_hsml.hopsworks.flow import Flow

T = TypeVar("T")

BEGIN = 1_000_000.0
ACCESS = Access("http://localhost", "demo", "key")


class _Selector(selectors.DefaultSelector):
    """Lets time pass instead of waiting for it."""

    now = BEGIN

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing will ever happen"
        self.now += timeout
        return super().select(0)


@dataclass
class Hopsworks:
    """Answers looks, each after a while, and notes when it was asked for what."""

    deployments: int = 1
    takes: float = 0.01
    now: Any = None
    asked: list[tuple[float, str]] = field(default_factory=list)
    faults: dict[str, list[Any]] = field(default_factory=dict)
    """What befalls the next requests: the answer, an error, or the seconds that it takes."""
    away_until: float = 0.0
    gone: set[int] = field(default_factory=set)
    unlisted: set[int] = field(default_factory=set)
    odd: set[int] = field(default_factory=set)
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What differs in the rows of some deployments."""
    under_way: int = 0
    most_at_once: int = 0

    @property
    def what(self) -> list[str]:
        return [what for _when, what in self.asked]

    async def send(self, call: Call[T]) -> T:
        what = "list" if call.looks_at is None and call.method == "GET" else str(call.looks_at or call.what)
        self.asked.append((self.now(), what))
        fault = self.faults[what].pop(0) if self.faults.get(what) else None
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await asyncio.sleep(fault if isinstance(fault, float) else self.takes)
        finally:
            self.under_way -= 1
        if isinstance(fault, Exception):
            raise fault
        if self.now() < self.away_until:
            raise NoResponseError(f"{call.what}: nobody answers there", sent=False)
        return call.outcome(fault if isinstance(fault, Answer) else self._answer(call))

    def _answer(self, call: Call[Any]) -> Answer:
        rows = {number: row(id=number, name=f"d{number}") for number in range(1, self.deployments + 1)}
        for number in self.gone:
            del rows[number]
        for number, change in self.changes.items():
            rows[number] |= change
        for number in self.odd:
            rows[number]["modelVersion"] = "many"
        if call.looks_at is None:
            return _json([each for number, each in rows.items() if number not in self.unlisted])
        number = int(str(call.looks_at).removeprefix("d"))
        return _json(rows[number]) if number in rows else refusal(404, api.INSTANCE_NOT_FOUND)


def _json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode())


async def _project() -> Project:
    return PROJECT


class Scene:
    """A Hopsworks, a poller, and a loop with a clock of its own."""

    def __init__(self, **hopsworks: Any) -> None:
        selector = _Selector()
        self.loop = asyncio.SelectorEventLoop(selector)
        self.clock: Callable[[], float] = lambda: selector.now
        self.loop.time = self.clock  # type: ignore[method-assign]
        self.server = Hopsworks(now=self.clock, **hopsworks)
        self.poller = Poller(self.server.send, _project, clock=self.clock)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self.loop.run_until_complete(work)
        finally:
            self.loop.close()

    def look(self, which: int | str, deadline: float = BEGIN + 1e6) -> Coroutine[Any, Any, Deployment | None]:
        if isinstance(which, str):
            return self.poller.send(api.get_deployment(PROJECT, which), deadline)
        return self.poller.send(api.get_deployment_by_id(PROJECT, which), deadline)

    async def looks(self, *which: int | str) -> list[Any]:
        return list(await asyncio.gather(*map(self.look, which), return_exceptions=True))


def test_waits_that_look_at_the_same_deployment_at_the_same_time_ask_once() -> None:
    scene = Scene(deployments=2)
    found = scene.run(scene.looks(*[1] * 1000, *[2] * 1000))
    assert [deployment.id for deployment in found] == [1] * 1000 + [2] * 1000
    assert sorted(scene.server.what) == ["1", "2"]


def test_few_deployments_are_looked_at_one_by_one_and_not_all_at_once() -> None:
    scene = Scene(deployments=FEW_READS)
    found = scene.run(scene.looks(*range(1, FEW_READS + 1)))
    assert [deployment.id for deployment in found] == list(range(1, FEW_READS + 1))
    assert sorted(scene.server.what) == [str(number) for number in range(1, FEW_READS + 1)]
    assert scene.server.most_at_once == FEW_READS_AT_ONCE


def test_few_looks_pass_a_long_queue() -> None:
    scene = Scene(deployments=1000, takes=1.0)

    async def look() -> float:
        await scene.looks(*range(1, 20))
        many = asyncio.create_task(scene.looks(*range(1, 401)))
        await asyncio.sleep(1)
        begun = scene.clock()
        await scene.looks(399, 1000)
        passed = scene.clock() - begun
        await many
        return passed

    assert scene.run(look()) < 1.1
    assert scene.server.what.count("399") == 1
    assert scene.server.most_at_once == READS_AT_ONCE + FEW_READS_AT_ONCE


def test_looks_at_many_of_the_projects_deployments_are_one_list_by_id_or_by_name() -> None:
    scene = Scene(deployments=100)
    found = scene.run(scene.looks(*range(1, 51), *(f"d{number}" for number in range(40, 101))))
    assert [deployment.id for deployment in found] == [*range(1, 51), *range(40, 101)]
    assert scene.server.what == ["list"]


def test_where_the_project_has_many_more_deployments_a_list_is_tried_once_in_a_while() -> None:
    scene = Scene(deployments=100)

    async def look_thrice() -> None:
        await scene.looks(*range(1, 21))
        await scene.looks(*range(1, 21))
        await asyncio.sleep(LISTED_AGAIN)
        scene.server.deployments = 40
        await scene.looks(*range(1, 21))
        await scene.looks(*range(1, 21))

    scene.run(look_thrice())
    one_by_one = [str(number) for number in range(1, 21)]
    assert sorted(scene.server.what[1:-2], key=int) == one_by_one
    assert [scene.server.what[0], *scene.server.what[-2:]] == ["list"] * 3


def test_looks_that_come_bit_by_bit_faster_than_they_can_be_made_become_a_list() -> None:
    scene = Scene(deployments=100, takes=0.5)

    async def look() -> list[Any]:
        await scene.looks(*range(1, 21))
        scene.server.asked.clear()
        coming = []
        for first in range(1, 101, 5):
            coming.append(asyncio.create_task(scene.looks(*range(first, first + 5))))
            await asyncio.sleep(0.05)
        return [found for some in coming for found in await some]

    found = scene.run(look())
    assert [deployment.id for deployment in found] == list(range(1, 101))
    assert "list" in scene.server.what
    assert len(scene.server.asked) <= 60


def test_a_deployment_that_a_list_lacks_is_looked_at_before_anybody_is_told_that_it_is_gone() -> None:
    scene = Scene(deployments=20, unlisted={7}, gone={8})
    found = scene.run(scene.looks(*range(1, 21)))
    assert found[6].id == 7
    assert found[7] is None
    assert sorted(scene.server.what) == ["7", "8", "list"]


def test_one_odd_deployment_does_not_fail_the_waits_for_the_others() -> None:
    scene = Scene(deployments=20, odd={7})

    async def some() -> list[Any]:
        looks = [scene.look(number, BEGIN + 30) for number in range(1, 21)]
        return list(await asyncio.gather(*looks, return_exceptions=True))

    found = scene.run(some())
    assert isinstance(found.pop(6), UnexpectedResponseError)
    assert [one.id for one in found] == [number for number in range(1, 21) if number != 7]


def test_who_asks_while_a_look_is_under_way_gets_a_later_one() -> None:
    scene = Scene(takes=1.0)

    async def look_twice() -> None:
        first = asyncio.create_task(scene.look(1))
        await asyncio.sleep(0.5)
        await asyncio.gather(first, scene.look(1))

    scene.run(look_twice())
    assert [when - BEGIN for when, _what in scene.server.asked] == pytest.approx([GATHERING, 0.5 + GATHERING])


def test_other_calls_are_sent_as_they_are_and_hold_up_no_look() -> None:
    scene = Scene()
    logs = api.get_logs(PROJECT, Deployment.from_json(row(id=1)))
    scene.server.faults["list"] = [30.0] * 100

    async def look() -> float:
        probes = [asyncio.create_task(scene.poller.send(logs)) for _ in range(100)]
        await asyncio.sleep(1)
        assert scene.server.under_way == OTHER_CALLS_AT_ONCE
        await scene.look(1)
        for probe in probes:
            probe.cancel()
        return scene.clock() - BEGIN

    assert scene.run(look()) < 1.1


def test_a_look_that_hangs_holds_up_no_other() -> None:
    scene = Scene(deployments=3)
    scene.server.faults["1"] = [30.0]

    async def look() -> float:
        slow = asyncio.create_task(scene.look(1))
        for _ in range(10):
            await scene.looks(2, 3)
        passed = scene.clock() - BEGIN
        assert (await slow) is not None
        return passed

    assert scene.run(look()) < 1


# --- What fails -------------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_asked_now_and_then_once_for_all_and_nobody_hears_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(deployments=100, away_until=BEGIN + 600)

    async def look() -> list[Any]:
        first = asyncio.create_task(scene.looks(*range(1, 101)))
        await asyncio.sleep(100)
        return [*await scene.looks(*range(1, 101)), *await first]

    found = scene.run(look())
    assert [deployment.id for deployment in found] == list(range(1, 101)) * 2
    assert set(scene.server.what) == {"list"}
    assert len(scene.server.asked) < 60
    assert scene.clock() - BEGIN < 600 + LONGEST_RETRY + 1
    assert len(caplog.records) == 2, "one for each who joined"


def test_each_hears_of_the_failure_at_its_own_deadline() -> None:
    scene = Scene(deployments=100, away_until=BEGIN + 600)
    heard: dict[int, float] = {}

    async def wait(number: int) -> None:
        with pytest.raises(NoResponseError, match="nobody answers there"):
            await scene.look(number, BEGIN + 10 + number)
        heard[number] = scene.clock() - BEGIN - 10

    async def wait_all() -> Any:
        *_, found = await asyncio.gather(*map(wait, range(1, 100)), scene.look(100))
        return found

    assert scene.run(wait_all()).id == 100
    assert heard == pytest.approx({number: number for number in range(1, 100)}, abs=0.02)


def test_a_first_look_after_the_deadline_is_made_and_fails_at_once() -> None:
    scene = Scene(away_until=BEGIN + 600)
    with pytest.raises(NoResponseError):
        scene.run(scene.look(1, BEGIN - 5))
    assert len(scene.server.asked) == 1


@pytest.mark.parametrize("deployments", [1, 100])
@pytest.mark.parametrize("answer", [refusal(401, 200003), refusal(404, 150004), refusal(403, 320004)])
def test_what_will_not_pass_is_told_to_all_at_once(deployments: int, answer: Answer) -> None:
    scene = Scene(deployments=deployments, faults={"list": [answer], "1": [answer]})
    heard = scene.run(scene.looks(*range(1, deployments + 1)))
    assert all(isinstance(error, RequestRefusedError) and error.status == answer.status for error in heard)
    assert len(heard) == deployments
    assert len(scene.server.asked) == 1


def test_a_mistake_of_ours_leaves_nobody_waiting() -> None:
    scene = Scene(faults={"1": [RuntimeError("closed")]})
    (heard,) = scene.run(scene.looks(1))
    assert isinstance(heard, RuntimeError)


def test_it_is_not_asked_again_before_the_time_that_the_server_gives() -> None:
    busy = Answer(503, refusal(503, 120000).content, {"retry-after": "25"})
    scene = Scene(faults={"1": [busy]})
    scene.run(scene.looks(1))
    (first, _), (second, _) = scene.server.asked
    assert 25 <= second - first < 26


def test_a_server_cannot_ask_for_a_pause_of_more_than_half_a_minute() -> None:
    busy = Answer(503, refusal(503, 120000).content, {"retry-after": "3600"})
    scene = Scene(faults={"1": [busy]})
    scene.run(scene.looks(1))
    (first, _), (second, _) = scene.server.asked
    assert 30 <= second - first < 31


def test_a_list_that_is_too_much_for_the_server_is_left_and_a_server_that_is_away_is_not() -> None:
    for fault, then in [
        (NoResponseError("no answer within 30 s"), {"list", *map(str, range(1, 21))}),
        (Answer(200, b'[{"id": "one"}]'), {"list", *map(str, range(1, 21))}),
        (refusal(500, 240000), {"list", *map(str, range(1, 21))}),
        (Answer(502, b"<html>"), {"list"}),
        (NoResponseError("nobody answers there", sent=False), {"list"}),
    ]:
        scene = Scene(deployments=20, faults={"list": [fault]})
        found = scene.run(scene.looks(*range(1, 21)))
        assert [deployment.id for deployment in found] == list(range(1, 21))
        assert set(scene.server.what) == then, fault
        assert scene.server.what.count("list") == (1 if len(then) > 1 else 2)


def test_while_a_list_takes_long_no_other_is_asked_for_and_few_looks_pass_it() -> None:
    scene = Scene(deployments=20)
    scene.server.faults["list"] = [20.0]

    async def look() -> None:
        everyone = []
        for _ in range(10):
            everyone.append(asyncio.create_task(scene.looks(*range(1, 21))))
            await asyncio.sleep(1)
        begun = scene.clock()
        await scene.look(1)
        assert scene.clock() - begun < 0.1
        await asyncio.gather(*everyone)

    scene.run(look())
    assert scene.server.what == ["list", "1", "list"]


# --- Who leaves -------------------------------------------------------------------------------------------------------


def test_who_is_cancelled_leaves_the_others_their_answer() -> None:
    scene = Scene(takes=1.0)

    async def look() -> Any:
        leaving, staying = (asyncio.create_task(scene.look(1)) for _ in range(2))
        await asyncio.sleep(0.5)
        leaving.cancel()
        return await staying

    assert scene.run(look()).id == 1
    assert scene.server.what == ["1"]


@pytest.mark.parametrize("deployments", [1, 20])
def test_nothing_is_asked_again_when_nobody_waits_any_more(deployments: int) -> None:
    scene = Scene(deployments=deployments, away_until=BEGIN + 600)

    async def look() -> None:
        waiting = asyncio.create_task(scene.looks(*range(1, deployments + 1)))
        await asyncio.sleep(20)
        waiting.cancel()
        asked = len(scene.server.asked)
        await asyncio.sleep(100)
        assert len(scene.server.asked) == asked

    scene.run(look())


# --- When they wake up ------------------------------------------------------------------------------------------------


def test_waits_with_the_same_interval_come_to_ask_once_an_interval() -> None:
    scene = Scene(deployments=1)

    async def wait(begin: float) -> None:
        await asyncio.sleep(begin)
        for _ in range(20):
            await scene.look(1)
            await scene.poller.sleep(10)

    async def wait_all() -> None:
        await asyncio.gather(*(wait(number / 100) for number in range(1000)))

    scene.run(wait_all())
    later = [when - BEGIN for when, _what in scene.server.asked if 30 < when - BEGIN < 180]
    assert len(later) == 15
    assert all(abs(after - before - 10) < 0.1 for before, after in itertools.pairwise(later))


@pytest.mark.parametrize("seconds", [2.0, 2.53, 7.5, 10.0, 300.0])
def test_a_pause_is_never_longer_than_asked_for_nor_less_than_a_quarter_and_whoever_is_alone_keeps_the_interval(
    seconds: float,
) -> None:
    scene = Scene()

    async def wait() -> list[float]:
        moments = [scene.clock()]
        for _ in range(20):
            await scene.poller.sleep(seconds)
            moments.append(scene.clock())
            await asyncio.sleep(0.1)  # The look.
        return moments

    moments = scene.run(wait())
    passed = [after - before for before, after in itertools.pairwise(moments)]
    assert all(seconds // 1 / 4 <= each - 0.1 <= seconds for each in passed[1:])
    assert statistics.mean(passed[3:]) == pytest.approx(int(seconds))


def test_a_short_pause_is_as_long_as_asked_for() -> None:
    scene = Scene()
    scene.run(scene.poller.sleep(0.75))
    assert scene.clock() - BEGIN == pytest.approx(0.75)


# --- Waits that are resumed only by a change --------------------------------------------------------------------------


class Waits:
    """Waits for deployments that are to stop, as triggers run them, and when each looks and ends."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch, *, seconds: float = 1e5) -> None:
        self.scene = scene
        self.deadline = BEGIN + seconds
        self.evaluated: list[tuple[float, str]] = []
        self.ended: dict[int, tuple[float, Any]] = {}
        reached = StatusGoal.reached

        def noted(goal: StatusGoal, deployment: Deployment | None, now: float) -> bool:
            self.evaluated.append((now - BEGIN, goal.name))
            return reached(goal, deployment, now)

        monkeypatch.setattr(StatusGoal, "reached", noted)
        monkeypatch.setattr(conditions, "steady", lambda: scene.clock)

    def flow(self, number: int) -> Flow[Any]:
        backoff = Backoff(first=8.0, most=8.0, deadline=self.deadline, clock=self.scene.clock)
        condition = conditions.StatusCondition.read(f"d{number}", "Stopped")
        return conditions.wait_until_met(condition, ACCESS, PROJECT, backoff)

    async def wait(self, number: int) -> None:
        poller = self.scene.poller
        send, again = (partial(do, deadline=self.deadline) for do in (poller.send, poller.poll_again))
        try:
            ended = await drive_async(self.flow(number), send, poller.sleep, again)
        except HopsworksError as error:
            ended = error
        self.ended[number] = (self.scene.clock() - BEGIN, ended)

    async def wait_all(self, *numbers: int, at: dict[float, Callable[[], object]] | None = None) -> None:
        """Wait for some deployments, while things happen at some seconds; those who wait longer are left."""
        tasks = [asyncio.create_task(self.wait(number)) for number in numbers]
        for moment, happen in sorted((at or {}).items()):
            await asyncio.sleep(BEGIN + moment - self.scene.clock())
            happen()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.scene.poller.close()
        await asyncio.sleep(0)


def _nothing() -> None:
    """Do nothing."""


@pytest.mark.parametrize("deployments", [3, 100])
def test_only_the_wait_whose_deployment_has_changed_is_resumed(
    deployments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(deployments=deployments)
    waits = Waits(scene, monkeypatch)
    numbers = range(1, deployments + 1)

    def change() -> None:
        assert len(waits.evaluated) == deployments
        scene.server.changes[2] = {"status": "Stopped", "availableInstances": 0}
        scene.server.changes[3] = {"availableInstances": 5}

    scene.run(waits.wait_all(*numbers, at={100: change, 200: _nothing}))
    assert sorted(name for when, name in waits.evaluated if when > 100) == ["d2", "d3"]
    when, found = waits.ended.pop(2)
    assert 100 <= when <= 109
    assert found["status"] == "Stopped"
    assert not waits.ended
    rounds = scene.server.what.count("list") or len(scene.server.asked) / deployments
    assert 200 / 8 - 5 <= rounds <= 200 / 8 + 3


def test_a_list_with_the_same_bytes_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(deployments=100)
    waits = Waits(scene, monkeypatch)
    parsed: list[Any] = []
    from_json = Deployment.from_json

    def parse(row: Any) -> Deployment:
        parsed.append(row)
        return from_json(row)

    monkeypatch.setattr(Deployment, "from_json", parse)

    scene.run(waits.wait_all(*range(1, 101), at={100: _nothing, 101: parsed.clear, 1000: _nothing}))
    assert scene.server.what.count("list") > 100
    assert not parsed


def test_the_list_after_one_that_has_failed_is_parsed_and_counted_also_with_the_same_bytes() -> None:
    async def read_twice() -> list[Any]:
        listed, content = batching._List(), json.dumps([row()]).encode()
        found = [listed.call(PROJECT, []).outcome(Answer(200, content))]
        found.append(listed.call(PROJECT, []).outcome(Answer(200, content)))
        listed.learn(math.inf)
        return [*found, listed.call(PROJECT, []).outcome(Answer(200, content))]

    first, second, third = asyncio.run(read_twice())
    assert second is None
    assert first == third == [Deployment.from_json(row())]


def test_each_wait_still_logs_a_line_a_minute_in_its_own_context(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(deployments=100)
    waits = Waits(scene, monkeypatch)
    task: contextvars.ContextVar[int] = contextvars.ContextVar("task")
    logged: list[tuple[float, int | None]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "still waiting" in record.getMessage():
                logged.append((scene.clock() - BEGIN, task.get(None)))

    caplog.set_level("INFO", logger=Heartbeat.__module__)
    handler = Handler()
    logging.getLogger(Heartbeat.__module__).addHandler(handler)

    async def wait(number: int) -> None:
        task.set(number)
        await waits.wait(number)

    async def wait_all() -> None:
        tasks = [asyncio.create_task(wait(number)) for number in range(1, 101)]
        await asyncio.sleep(330)
        for each in tasks:
            each.cancel()

    try:
        scene.run(wait_all())
    finally:
        logging.getLogger(Heartbeat.__module__).removeHandler(handler)
    assert len(waits.evaluated) == 100
    for number in range(1, 101):
        moments = [when for when, whose in logged if whose == number]
        assert len(moments) in (4, 5)
        assert all(60 <= after - before <= 68 for before, after in itertools.pairwise([0.0, *moments]))


def test_a_wait_that_sees_no_change_ends_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(deployments=20)
    waits = Waits(scene, monkeypatch, seconds=100)
    scene.run(waits.wait_all(*range(1, 21), at={110: _nothing}))
    assert len(waits.ended) == 20
    for when, error in waits.ended.values():
        assert isinstance(error, DeadlineExceededError)
        assert when == pytest.approx(100, abs=0.1)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("deployments", [1, 20])
@pytest.mark.parametrize("is_hanging", [True, False])
def test_a_failure_that_lasts_is_raised_at_the_deadline(
    deployments: int, *, is_hanging: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(deployments=deployments)
    waits = Waits(scene, monkeypatch, seconds=100)

    def fail() -> None:
        if is_hanging:
            scene.server.takes = 600.0
        else:
            scene.server.away_until = math.inf

    scene.run(waits.wait_all(*range(1, deployments + 1), at={50: fail, 110: _nothing}))
    assert len(waits.ended) == deployments
    for when, error in waits.ended.values():
        assert isinstance(error, DeadlineExceededError)
        assert when == pytest.approx(100, abs=0.1)
    heard = [record.message for record in caplog.records if "polling again" in record.message]
    assert len(heard) == deployments
    assert all(("the end of the wait" if is_hanging else "nobody answers there") in each for each in heard)


def test_a_failure_that_passes_is_not_noticed_and_one_that_does_not_is_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(deployments=20)
    waits = Waits(scene, monkeypatch, seconds=1000)

    def away() -> None:
        scene.server.away_until = scene.clock() + 60

    def revoke() -> None:
        assert len(waits.evaluated) == 20
        scene.server.faults["list"] = [refusal(401, 200003)] * 2

    scene.run(waits.wait_all(*range(1, 21), at={50: away, 200: away, 400: revoke, 420: _nothing}))
    assert [record.message for record in caplog.records if "retrying, for 20 waits" in record.message][1:]
    assert len(waits.ended) == 20
    for when, error in waits.ended.values():
        assert isinstance(error, RequestRefusedError)
        assert 400 <= when <= 409


def test_a_failure_that_stays_is_noticed_by_the_passing_of_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(deployments=20)
    waits = Waits(scene, monkeypatch)
    failed = partial(scene.server.changes.update, {1: {"status": "Failed"}, 2: {"status": "Failed"}})
    well = partial(scene.server.changes.pop, 2)
    scene.run(waits.wait_all(*range(1, 21), at={100: failed, 120: well, 200: _nothing}))
    when, error = waits.ended.pop(1)
    assert isinstance(error, DeploymentFailedError)
    assert 130 <= when <= 145
    assert not waits.ended


@pytest.mark.parametrize(
    ("at", "changes"),
    [
        (30, {"status": "Stopped"}),
        (30, {"status": "Failed"}),
        (30, None),
        (500, {}),
    ],
)
def test_a_worker_and_a_triggerer_decide_alike(
    at: float, changes: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(deployments=20)
    waits = Waits(scene, monkeypatch, seconds=300)

    def change() -> None:
        if changes is None:
            scene.server.gone = {1}
        else:
            scene.server.changes[1] = changes

    async def in_worker() -> None:
        """Drive the same flow with plain calls and sleeps, as a worker does."""
        try:
            ended = await drive_async(waits.flow(1), scene.server.send, asyncio.sleep)
        except HopsworksError as error:
            ended = error
        waits.ended[0] = (scene.clock() - BEGIN, ended)

    async def both() -> None:
        worker = asyncio.create_task(in_worker())
        await waits.wait_all(*range(1, 21), at={at: change, 501: _nothing})
        await worker

    scene.run(both())
    (plain_when, plain), (when, found) = waits.ended[0], waits.ended[1]
    assert (type(found), str(found)) == (type(plain), str(plain))
    assert when == pytest.approx(plain_when, abs=9)


def test_a_wait_that_is_cancelled_leaves_its_round(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(deployments=20)
    waits = Waits(scene, monkeypatch)

    async def wait() -> None:
        await waits.wait_all(*range(1, 21), at={50: _nothing})
        scene.server.asked.clear()
        await asyncio.sleep(100)

    scene.run(wait())
    assert not scene.server.asked
    assert not scene.poller._rounds


# --- What never ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deployments", [1, 20])
def test_a_wait_ends_by_itself_while_its_read_does_not(deployments: int) -> None:
    scene = Scene(deployments=deployments, takes=600.0)
    numbers = range(1, deployments + 1)

    async def wait(number: int) -> float:
        call = replace(api.get_deployment_by_id(PROJECT, number), at_most=10.0 + number)
        with pytest.raises(NoResponseError, match="the end of the wait") as caught:
            await scene.poller.send(call, BEGIN + 10 + number)
        assert caught.value.transient
        return scene.clock() - BEGIN - 10

    async def wait_all() -> list[float]:
        return await asyncio.gather(*map(wait, numbers))

    assert scene.run(wait_all()) == pytest.approx(list(numbers), abs=0.05)


def test_a_read_is_not_cut_short_for_the_others_by_the_wait_that_began_it() -> None:
    scene = Scene(takes=20.0)

    async def wait(at_most: float) -> Any:
        return await scene.poller.send(replace(api.get_deployment_by_id(PROJECT, 1), at_most=at_most), BEGIN + 60)

    async def wait_both() -> list[Any]:
        return list(await asyncio.gather(wait(5), wait(60), return_exceptions=True))

    short, long = scene.run(wait_both())
    assert isinstance(short, NoResponseError)
    assert long.id == 1
    assert scene.server.what == ["1"]


def test_a_call_that_waits_for_its_turn_ends_with_its_wait() -> None:
    scene = Scene(takes=600.0)
    call = api.get_endpoints(PROJECT)

    async def ask(at_most: float | None) -> float:
        with suppress(HopsworksError):
            await scene.poller.send(replace(call, at_most=at_most))
        return scene.clock() - BEGIN

    async def ask_all() -> float:
        others = [asyncio.create_task(ask(None)) for _ in range(OTHER_CALLS_AT_ONCE)]
        await asyncio.sleep(1)
        ended = await ask(30)
        for other in others:
            other.cancel()
        return ended

    assert scene.run(ask_all()) == pytest.approx(31)
