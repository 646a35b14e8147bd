"""Waits end at their own deadline, and triggers live on, whatever a request does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout

from airflow_provider_hsml import DeploymentStatusSensor, ModelVersionSensor
from airflow_provider_hsml.hopsworks.transport.async_client import AsyncClient
from airflow_provider_hsml.triggers import (
    AwaitModelVersionTrigger,
    DeploymentTrigger,
    ModelVersionTrigger,
    RolloutTrigger,
)
from tests.support.servers import KEY, Request, serving
from tests.support.tasks import FakeTaskInstance

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.airflow

WAIT = 2.0
"""The timeout of the waits in seconds."""
AT_LATEST = 20.0
"""Seconds by which they end: what a last read may take, and a busy machine; far below a request's timeout."""
PROJECT = json.dumps({"projectId": 119, "projectName": "example"}).encode()


@pytest.fixture(params=["reads", "everything"])
def _dripping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The default connection: a server whose responses never end, or all but the project's."""
    is_over = threading.Event()

    def drip(asked: Request) -> tuple[int, dict[str, str], bytes]:
        if "getProjectInfo" in asked.path and request.param == "reads":
            return 200, {}, PROJECT
        with contextlib.suppress(OSError):
            asked.send_response(200)
            asked.send_header("content-length", "1000000")
            asked.end_headers()
            while not is_over.wait(0.1):
                asked.wfile.write(b" ")
        return 200, {"content-length": "0"}, b""

    with serving(drip) as url:
        connection = {"conn_type": "hsml", "host": url, "password": KEY, "extra": {"project": "example"}}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(connection))
        yield
        is_over.set()


async def first_event(trigger: Any) -> dict[str, Any]:
    """Run a trigger until its first event."""
    events = trigger.run()
    try:
        return dict((await anext(events)).payload)
    finally:
        await events.aclose()


def watch(deadline: float) -> dict[str, Any]:
    """Return a rollout's watch as a trigger stores it."""
    checks = dict.fromkeys(("tolerance", "bake_seconds", "max_error_rate"), 0.0)
    absent = ("version_path", "health_path", "max_latency_ms", "signature", "stopped_at", "champion_version", "expect")
    return {
        **checks,
        **dict.fromkeys(absent),
        "probe_interval": 1.0,
        "deployment_name": "digits",
        "deployment_id": 14,
        "action": "updated",
        "has_changed": True,
        "cause": "CHANGE",
        "since": time.time(),
        "model_version": None,
        "old_names": [],
        "unschedulable_grace": 300.0,
        "can_wake": False,
        "started_again": False,
        "timeout": WAIT,
        "deadline": deadline,
        "poll_interval": 0.5,
        "journal_id": None,
        "last_logged": "",
        "on_failure": "leave",
    }


def triggers() -> dict[str, Any]:
    """Return a trigger of each kind that ends."""
    how = {"deadline": time.time() + WAIT, "poll_interval": 0.5}
    return {
        "status": DeploymentTrigger(deployment_name="digits", target_status=["Running"], **how),
        "version": AwaitModelVersionTrigger(model_name="digits", wanted={}, **how),
        "rollout": RolloutTrigger(watch=watch(how["deadline"])),
    }


@pytest.mark.usefixtures("_dripping")
class TestDeadlines:
    @pytest.mark.parametrize("kind", ["status", "version", "rollout"])
    def test_a_trigger_ends_at_its_deadline(self, kind: str) -> None:
        begun = time.monotonic()
        event = asyncio.run(first_event(triggers()[kind]))

        assert time.monotonic() - begun < AT_LATEST
        assert (event["status"], event["code"], event["transient"]) == ("error", "deadline_exceeded", True)

    def test_so_do_many(self) -> None:
        async def wait_all() -> list[dict[str, Any]]:
            return await asyncio.gather(
                *(first_event(triggers()[kind]) for kind in ["status", "version", "rollout"] * 10)
            )

        begun = time.monotonic()
        assert {event["code"] for event in asyncio.run(wait_all())} == {"deadline_exceeded"}
        assert time.monotonic() - begun < AT_LATEST

    @pytest.mark.parametrize("kind", ["status", "version"])
    def test_a_sensor_ends_at_its_timeout(self, kind: str) -> None:
        how: dict[str, Any] = {"task_id": "task", "timeout": WAIT, "poke_interval": 0.5}
        sensor = (
            DeploymentStatusSensor(deployment_name="digits", target_status="Running", **how)
            if kind == "status"
            else ModelVersionSensor(model_name="digits", **how)
        )
        begun = time.monotonic()
        context: Any = {"ti": FakeTaskInstance()}
        with pytest.raises(AirflowSensorTimeout):
            sensor.execute(context)
        assert time.monotonic() - begun < 2 * AT_LATEST


@pytest.fixture
def _broken(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flow ends with an exception that nobody has thought of."""

    async def fail(_client: Any, flow: Any, _deadline: float) -> None:
        flow.close()
        raise RecursionError("with prefix.secretpart in it")

    monkeypatch.setattr(AsyncClient, "drive", fail)


@pytest.mark.usefixtures("_broken")
class TestSurvival:
    @pytest.mark.parametrize("kind", ["status", "version", "rollout"])
    def test_the_task_hears_of_an_unexpected_exception(self, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.ERROR):
            event = asyncio.run(first_event(triggers()[kind]))

        assert (event["status"], event["transient"]) == ("error", True)
        assert event["message"].startswith("The wait in the triggerer ended with an unexpected RecursionError.\n")
        assert "secret" not in str(event)

    def test_the_watch_for_versions_goes_on_with_a_warning(
        self, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def run() -> bool:
            async def consume() -> None:
                async for _ in ModelVersionTrigger(model_name="digits", poll_interval=0.5).run():
                    """There is no event."""

            watching = asyncio.create_task(consume())
            await asyncio.sleep(2)
            goes_on = not watching.done()
            watching.cancel()
            await asyncio.wait([watching])
            return goes_on

        with caplog.at_level(logging.WARNING):
            assert asyncio.run(run())
        # Airflow 3.3 logs with structlog, earlier ones with logging, perhaps to the console as well.
        logged = capsys.readouterr().out, "".join(one.getMessage() for one in caplog.records)
        warning = "The poll ended with an unexpected RecursionError; polling again every 0.5 s"
        assert max(text.count(warning) for text in logged) == 1
