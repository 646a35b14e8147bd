"""What a wait says when it ends badly, and that whoever drives it makes no difference."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Call, InstanceLog, get_deployment
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentStatus
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, DeploymentFailedError, HopsworksError
from airflow_provider_hsml.hopsworks.flow import Backoff, Defer, Sleep, drive, drive_async
from airflow_provider_hsml.hopsworks.rollout.status import StatusGoal, StatusWait, wait_until, with_log_tail
from tests.support.fake import PROJECT, UNSENT, FakeHopsworks, refusal, row

if TYPE_CHECKING:
    from collections.abc import Callable


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
