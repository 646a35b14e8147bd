"""What an ``AssetWatcher`` watches for new versions with; on Airflow 2, which has none, it still runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local.cluster.faults import RequestFault
from airflow_provider_hsml.triggers import ModelVersionTrigger, models

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("serving")]


class Store:
    """Remembers what Airflow 3.3's asset state store does, as JSON."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def aget(self, key: str) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else None

    async def aset(self, key: str, value: Any) -> None:
        self.kept[key] = json.dumps(value)


@contextlib.asynccontextmanager
async def watching(store: Store | None = None, **what: Any) -> AsyncIterator[list[dict[str, Any]]]:
    """Run a trigger in the background, and give the events so far."""
    trigger = ModelVersionTrigger(poll_interval=0.5, **what)
    if store is not None:
        trigger.asset_state_store = store  # type: ignore[assignment]
    events: list[dict[str, Any]] = []

    async def run() -> None:
        async for event in trigger.run():
            events.append(event.payload)  # noqa: PERF401 - they are read meanwhile

    task = asyncio.create_task(run())
    try:
        yield events
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - it is the server's to say
            await asyncio.sleep(0.05)


def looks(serving: LocalServing) -> int:
    return len(
        serving.requests.where("GET", f"/project/{serving.project_id}/modelregistries/{serving.project_id}/models")
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "EVENT_STORED_AFTER", 0.1)


def test_tells_of_a_new_version_as_the_sensor_does(
    serving: LocalServing, hook: HsmlHook, register: Callable[..., int]
) -> None:
    register("watched", 1, auc=0.8)
    serving.requests.clear()

    async def watch() -> list[dict[str, Any]]:
        async with watching(model_name="watched") as events:
            await until(lambda: looks(serving) > 1)
            await asyncio.to_thread(register, "watched", 1, auc=0.9)
            seen = looks(serving)
            await until(lambda: looks(serving) > seen + 2)
            return events

    assert asyncio.run(watch()) == [
        {
            "model_name": "watched",
            "model_version": 2,
            "model_id": "watched_2",
            "metrics": {"auc": 0.9},
            "url": hook.model_url(hook.get_model("watched", 2)),
        }
    ]


def test_once_a_version_also_when_the_triggerer_is_restarted(
    serving: LocalServing, register: Callable[..., int]
) -> None:
    register("restarted", 1)
    store = Store()

    async def watch(*, registers: bool) -> list[int]:
        serving.requests.clear()
        async with watching(store, model_name="restarted") as events:
            await until(lambda: looks(serving) > 1)
            if registers:
                await asyncio.to_thread(register, "restarted", 1)
                await until(lambda: events and "2" in str(store.kept))
            else:
                await until(lambda: looks(serving) > 2)
            return [event["model_version"] for event in events]

    assert asyncio.run(watch(registers=True)) == [2]
    assert asyncio.run(watch(registers=False)) == []
    register("restarted", 1)
    assert asyncio.run(watch(registers=False)) == [3], "it came while nobody watched"
    assert asyncio.run(watch(registers=False)) == []


def test_without_a_store_of_its_own_nothing_is_remembered(serving: LocalServing, register: Callable[..., int]) -> None:
    """Airflow gives one trigger to all assets that watch with the same arguments."""

    class Several(Store):
        async def aget(self, key: str) -> Any:
            raise ValueError("Task has 2 concrete inlets and outlets")

    register("several_assets", 1)

    async def watch() -> list[int]:
        async with watching(Several(), model_name="several_assets", newer_than=0) as events:
            await until(lambda: events)
            return [event["model_version"] for event in events]

    assert [asyncio.run(watch()) for _ in range(2)] == [[1], [1]]


def test_begins_anew_with_other_arguments() -> None:
    def key(**given: Any) -> str:
        return ModelVersionTrigger(model_name="m", **given)._key

    assert key() == key(poll_interval=5.0)
    assert len({key(), key(newer_than=1), key(tag={"a": 1}), key(project="other"), key(hsml_conn_id="other")}) == 5


def test_a_server_that_is_away_and_a_key_that_is_revoked_are_no_end(
    serving: LocalServing, register: Callable[..., int]
) -> None:
    register("lasting", 1)
    serving.requests.clear()
    body = {"errorCode": 320002, "errorMsg": "Could not find the API key"}

    async def watch() -> list[int]:
        async with watching(model_name="lasting") as events:
            await until(lambda: looks(serving) > 1)
            for fault in (RequestFault(status=401, body=body, times=None), RequestFault(drop="before", times=None)):
                serving.faults.add(fault)
                serving.requests.clear()
                await until(lambda: len(serving.requests) > 2)
                serving.faults.clear()
            await asyncio.to_thread(register, "lasting", 1)
            await until(lambda: events)
            return [event["model_version"] for event in events]

    try:
        assert asyncio.run(watch()) == [2]
    finally:
        serving.faults.clear()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model_name": "my-model"}, "letters, digits and underscores only"),
        ({"model_name": "m", "at_least": 1}, "Give its name as well"),
        ({"model_name": "m", "poll_interval": 0}, "poll_interval: expected a finite number of 0.5 or more"),
        ({"model_name": "m", "model_version": 1}, "unexpected keyword argument 'model_version'"),
    ],
)
def test_what_cannot_be_watched_for_is_said_when_the_file_is_parsed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ModelVersionTrigger(**given)


def test_stores_numbers_and_text_of_python() -> None:
    trigger = ModelVersionTrigger(
        model_name="x",
        newer_than="3",  # type: ignore[arg-type]
        metric="accuracy",
        at_least=Decimal("0.9"),  # type: ignore[arg-type]
        tag={"since": date(2026, 1, 2)},
        poll_interval=timedelta(minutes=1),
    )
    _, kwargs = trigger.serialize()

    assert json.loads(json.dumps(kwargs)) == kwargs
    assert (kwargs["newer_than"], kwargs["at_least"], kwargs["poll_interval"]) == (3, 0.9, 60)
    assert kwargs["tag"] == {"since": "2026-01-02"}


@pytest.mark.parametrize("given", [{"poll_interval": 0}, {"newer_than": "last"}, {"at_least": 1}])
def test_what_cannot_be_watched(given: dict[str, Any]) -> None:
    """Airflow's triggerer survives no other error than TypeError there."""
    with pytest.raises(TypeError, match="ModelVersionTrigger: "):
        ModelVersionTrigger(model_name="x", **given)
