"""What a wait says when it ends badly, and that whoever drives it makes no difference."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Call, InstanceLog, Page, get_deployment, get_deployments
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentStatus
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    DeploymentFailedError,
    HopsworksError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.flow import (
    Backoff,
    Defer,
    Sleep,
    all_pages,
    attended,
    drive,
    drive_async,
    inlined,
    read_patiently,
    within,
)
from airflow_provider_hsml.hopsworks.rollout.status import StatusGoal, StatusWait, wait_until, with_log_tail
from tests.support.fake import PROJECT, UNSENT, FakeHopsworks, refusal, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.flow import Flow


@pytest.mark.parametrize(
    ("reason", "component"),
    [("Failed to run: predictor terminated", "predictor"), ("Failed to run: transformer terminated", "transformer")],
)
def test_a_failure_carries_the_log_of_the_component_at_fault(reason: str, component: str) -> None:
    condition = {"type": "STARTED", "status": False, "reason": reason}
    failed = Deployment.from_json(row("Failed", condition=condition))

    async def fail() -> None:
        raise DeploymentFailedError(failed)

    def send(call: Call[Any]) -> list[InstanceLog]:
        return [InstanceLog("pod-1", f"a line of the {dict(call.query)['component']}")]

    with pytest.raises(DeploymentFailedError) as caught:
        drive(with_log_tail(PROJECT, fail()), send, lambda _seconds: None)
    assert str(caught.value).splitlines()[1:] == [
        f"Last lines of the {component}'s log:",
        "[pod-1]",
        f"a line of the {component}",
    ]


@dataclass
class Coming(Defer[Deployment | None]):
    """A long wait for a deployment to run."""

    clock: Callable[[], float]

    async def run(self) -> Deployment | None:
        backoff = Backoff(first=1, most=5, deadline=1300, clock=self.clock)
        goal = StatusGoal.of("digits", DeploymentStatus.RUNNING)
        return await with_log_tail(
            PROJECT,
            wait_until(StatusWait(goal, backoff, "deployment 'digits' to run"), get_deployment(PROJECT, "digits")),
        )


async def coming(fake: FakeHopsworks) -> tuple[Deployment | None, float]:
    """Wait, look once more, and tell how long it took."""
    wait: Defer[Deployment | None] = Coming(fake.clock)
    await wait
    return await get_deployment(PROJECT, "digits"), fake.now


COMING: dict[str, tuple[dict[float, str], list[Any]]] = {
    # what becomes of the deployment, after how many seconds; what befalls the looks
    "comes": ({20: "Running"}, []),
    "fails": ({20: "Failed"}, []),
    "recovers": ({20: "Failed", 40: "Running"}, []),
    "does not come": ({}, []),
    "is deleted": ({20: "deleted"}, []),
    "server away": ({20: "Running"}, [None, UNSENT, UNSENT, refusal(503, 0), refusal(429, 0)]),
    "key revoked": ({}, [None, refusal(401, 320013)]),
    "project gone": ({}, [None, refusal(404, 150004)]),
}


class TestDrivers:
    """One procedure, on a thread and on an event loop: the same requests, times, result, error and words."""

    @pytest.mark.parametrize("name", COMING)
    def test_it_ends_the_same(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        def play(drive_it: Callable[[FakeHopsworks], object]) -> object:
            fake = FakeHopsworks(row("Starting"))
            becomes, fake.faults["serving"] = COMING[name][0], list(COMING[name][1])
            for seconds, status in becomes.items():
                deleted = status == "deleted"
                fake.after(seconds, (lambda: setattr(fake, "row", None)) if deleted else fake.becomes(status))
            caplog.clear()
            with caplog.at_level(logging.INFO):
                try:
                    end: object = drive_it(fake)
                except HopsworksError as error:
                    end = type(error), str(error)
            return end, fake.now, fake.reads, caplog.messages

        def on_a_loop(fake: FakeHopsworks) -> object:
            async def send(call: Call[Any]) -> Any:
                await asyncio.sleep(0)
                return fake.send(call)

            async def sleep(seconds: float) -> None:
                await asyncio.sleep(0)
                fake.sleep(seconds)

            return asyncio.run(drive_async(coming(fake), send, sleep))

        assert play(lambda fake: drive(coming(fake), fake.send, fake.sleep)) == play(on_a_loop)

    @pytest.mark.parametrize("what", ["call", "pause", "long"])
    def test_a_procedure_is_closed_when_its_task_is_cancelled(self, what: str) -> None:
        closed: list[str] = []

        class Nested(Defer[None]):
            async def run(self) -> None:
                await Sleep(1)

        async def flow() -> None:
            try:
                if what == "call":
                    await get_deployment(PROJECT, "digits")
                elif what == "pause":
                    await Sleep(1)
                else:
                    await Nested()
            finally:
                closed.append(what)

        async def hang(_step: object) -> None:
            await asyncio.Event().wait()

        async def cancel() -> None:
            task = asyncio.create_task(drive_async(flow(), hang, hang))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert closed == [what]

        asyncio.run(cancel())


class TestAwaitedByAsyncio:
    """Only a driver can carry out a step; asyncio refuses it at once, and a request's body is in no message."""

    def test_fails_at_the_first_step(self) -> None:
        reached: list[str] = []

        async def flow() -> None:
            reached.append("before")
            await api.predict(PROJECT, "digits", {"instances": [["a secret row"]]})
            reached.append("after")

        with pytest.raises(RuntimeError, match="Task got bad yield: Call") as caught:
            asyncio.run(flow())

        assert reached == ["before"]
        assert "a secret row" not in str(caught.value)

    @pytest.mark.parametrize("step", [Sleep(1), Coming(lambda: 0.0)])
    def test_fails_for_every_kind_of_step(self, step: Sleep | Coming) -> None:
        async def flow() -> None:
            await step

        with pytest.raises(RuntimeError, match="Task got bad yield"):
            asyncio.run(flow())


class TestPages:
    """Lists that come in pages."""

    @staticmethod
    def read(*pages: Page[int]) -> list[int] | None:
        sent: list[int] = []

        def send(_call: Call[Any]) -> Page[int]:
            return pages[min(len(sent), len(pages)) - 1]

        def page(offset: int) -> Call[Page[int]]:
            sent.append(offset)
            return get_deployments(PROJECT)  # type: ignore[return-value]

        return drive(all_pages(page), send, lambda _: None)

    def test_end_with_the_count(self) -> None:
        assert self.read(Page([1, 2], 3), Page([3], 3)) == [1, 2, 3]

    def test_without_a_count_end_with_an_empty_page(self) -> None:
        assert self.read(Page([1, 2], None), Page([3], None), Page([], None)) == [1, 2, 3]

    def test_count_rows_that_were_left_out(self) -> None:
        assert self.read(Page([1], 3, unreadable=1), Page([3], 3)) == [1, 3]

    def test_may_shift_by_a_row_meanwhile(self) -> None:
        assert self.read(Page([2, 1], 4), Page([1, 0], 4)) == [2, 1, 1, 0]

    @pytest.mark.parametrize("count", [3, None, 10**9])
    def test_that_ignore_the_offset_are_an_error(self, count: int | None) -> None:
        with pytest.raises(UnexpectedResponseError, match="does not end"):
            self.read(Page([1, 2], count))

    def test_of_rows_that_cannot_be_read_are_an_error_in_the_end(self) -> None:
        with pytest.raises(UnexpectedResponseError, match="does not end"):
            self.read(Page([], None, unreadable=2))


class TestWithin:
    """A read ends with the wait that needs it."""

    @staticmethod
    def at_most(flow: Any) -> list[float | None]:
        seen: list[float | None] = []

        def send(call: Call[Any]) -> Any:
            seen.append(call.at_most)
            raise UnexpectedResponseError("busy", status=503, retry_after=10.0)

        clock.now = 1000.0
        with pytest.raises(HopsworksError):
            drive(flow, send, clock.sleep)
        return seen

    def test_patient_reads_get_the_time_that_is_left(self) -> None:
        backoff = Backoff(first=10, most=10, deadline=1032, clock=clock)

        assert self.at_most(read_patiently(get_deployment(PROJECT, "digits"), backoff)) == [32, 22, 12, 5, 5]

    def test_so_does_every_read_of_a_flow(self) -> None:
        async def reads() -> None:
            for _ in range(3):
                with suppress(UnexpectedResponseError):
                    await get_deployment(PROJECT, "digits")
                await Sleep(8)
            await get_deployment(PROJECT, "digits")

        assert self.at_most(within(reads(), 1020, clock)) == [20, 12, 5, 5]
        assert self.at_most(within(reads(), math.inf, clock)) == [None] * 4

    def test_within_another_the_shorter_time_holds(self) -> None:
        backoff = Backoff(first=10, most=10, deadline=1005, clock=clock)
        reading = read_patiently(get_deployment(PROJECT, "digits"), backoff)

        assert self.at_most(within(reading, 2000, clock)) == [5, 5]

    def test_its_result_and_its_errors_are_the_flows(self) -> None:
        async def flow() -> str:
            try:
                await get_deployment(PROJECT, "digits")
            except UnexpectedResponseError:
                return "gave up"
            return "found"

        def send(call: Call[Any]) -> Any:
            raise UnexpectedResponseError(call.what, status=503)

        assert drive(within(flow(), 1020, clock), send, clock.sleep) == "gave up"


class _Clock:
    """A clock that goes on where somebody sleeps."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


clock = _Clock()


def test_a_wait_logs_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A log that stands still for ten minutes looks like a task that hangs."""
    caplog.set_level("INFO")
    now = [1000.0]
    backoff = Backoff(first=1.0, most=10.0, deadline=1600.0, clock=lambda: now[0])

    async def wait() -> None:
        while True:
            await backoff.wait("too late", about="deployment 'digits'")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(DeadlineExceededError):
        drive(wait(), lambda _call: None, sleep)

    lines = [line for line in caplog.messages if "still waiting" in line]
    assert 8 <= len(lines) <= 10
    assert lines[0].startswith("deployment 'digits': still waiting, for at most 5")


class TestAttended:
    """A flow with another one before each step, and with its long waits in their places."""

    @dataclass(frozen=True)
    class Wait(Defer[str]):
        fails: bool = False

        async def run(self) -> str:
            await Sleep(2)
            if self.fails:
                message = "late"
                raise DeadlineExceededError(message)
            return "waited"

    @staticmethod
    def play(flow: Flow[Any], sleep: Callable[[float], object]) -> Any:
        """Drive a flow that may neither send nor defer."""

        def refuse(_step: Any) -> Any:
            raise AssertionError

        return drive(flow, refuse, sleep, refuse)

    def test_each_step_comes_after_the_other_flow(self) -> None:
        slept: list[float] = []

        async def work() -> str:
            await Sleep(1)
            return await self.Wait()

        async def attend() -> None:
            await Sleep(0)

        assert self.play(attended(inlined(work()), attend), slept.append) == "waited"
        assert slept == [0, 1, 0, 2]

    def test_the_error_of_a_wait_reaches_the_flow(self) -> None:
        async def work() -> str:
            try:
                return await self.Wait(fails=True)
            except DeadlineExceededError as error:
                return f"{error}"

        async def attend() -> None:
            """Do nothing."""

        assert self.play(attended(inlined(work()), attend), lambda _seconds: None) == "late"

    def test_an_error_of_the_other_flow_ends_both(self) -> None:
        ended: list[str] = []

        async def work() -> None:
            try:
                await Sleep(1)
            except DeadlineExceededError:
                ended.append("caught")
            finally:
                ended.append("closed")

        async def attend() -> None:
            message = "expired"
            raise DeadlineExceededError(message)

        with pytest.raises(DeadlineExceededError, match="expired"):
            self.play(attended(inlined(work()), attend), lambda _seconds: None)
        assert ended == ["closed"]
