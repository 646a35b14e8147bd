"""Many procedures on one event loop, against a local Model Serving with a project full of deployments."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.access import Access
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentStatus
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, RequestRefusedError, SupersededError
from airflow_provider_hsml.hopsworks.flow import Backoff
from airflow_provider_hsml.hopsworks.rollout.status import StatusGoal, StatusWait, wait_until
from airflow_provider_hsml.hopsworks.transport.async_client import AsyncClient
from airflow_provider_hsml.hopsworks.transport.client import Client
from airflow_provider_hsml.local import LocalServing, Profile, RequestFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.hopsworks.api import Call, Project

DEPLOYMENTS = 40


@pytest.fixture(scope="module")
def filled() -> Iterator[LocalServing]:
    """A server with many deployments, none of which runs."""
    with LocalServing(engine=lambda _model: list, profile=Profile(list_cost=0.002)) as serving:
        files = serving.root / "projects" / serving.project / "Models" / "digits" / "1" / "Files"
        files.mkdir(parents=True)
        (files / "model.joblib").write_text("{}")
        client = Client(_access(serving))
        body = {"modelName": "digits", "modelVersion": 1, "modelPath": f"/Projects/{serving.project}/Models/digits"}
        body |= {"modelServer": "PYTHON", "modelFramework": "SKLEARN", "servingTool": "KSERVE", "requestedInstances": 1}
        for number in range(DEPLOYMENTS):
            client.send(api.put_deployment(client.project, body | {"name": f"d{number}"}))
        client.close()
        yield serving


@pytest.fixture
def serving(filled: LocalServing) -> Iterator[LocalServing]:
    """The same, in good health."""
    filled.requests.clear()
    yield filled
    filled.faults.clear()


def _access(serving: LocalServing) -> Access:
    return Access(serving.url, serving.project, serving.api_key, request_timeout=5)


def _asked(serving: LocalServing) -> Counter[str]:
    """Count the looks, by whether they were lists."""
    looks = [asked.path for asked in serving.requests if "/serving" in asked.path and asked.method == "GET"]
    return Counter("list" if path.endswith("/serving") else "one" for path in looks)


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - it is the server's or a counter's, which set no event
        await asyncio.sleep(0.05)


class Waits:
    """Waits for deployments, and how they end."""

    def __init__(self, client: AsyncClient, project: Project) -> None:
        self.client, self.project = client, project
        self.looks = 0

    async def wait(self, deployment: Deployment, *, first: float = 2.0, seconds: float = 60) -> str:
        """Wait until a deployment runs."""
        deadline = time.time() + seconds
        waits = self

        class Counted(StatusWait):
            def evaluate(self, deployment: Deployment | None) -> bool:
                waits.looks += 1
                return super().evaluate(deployment)

        goal = StatusGoal.of(deployment.name, DeploymentStatus.RUNNING)
        wait = Counted(goal, Backoff(first=first, most=2.0, deadline=deadline), f"{deployment.name} to run")
        look = api.get_deployment_by_id(self.project, deployment.id)
        try:
            found = await self.client.drive(wait_until(wait, look), deadline)
        except (DeadlineExceededError, RequestRefusedError, SupersededError) as error:
            return type(error).__name__
        return found.status.value if found else "gone"


def _run(serving: LocalServing, scene: Any) -> Any:
    async def main() -> Any:
        client = AsyncClient(_access(serving))
        try:
            project = await client.project()
            deployments = [each for each in await client.send(api.get_deployments(project)) if each.status.is_down]
            serving.requests.clear()
            return await asyncio.wait_for(scene(client, project, deployments), 60)
        finally:
            await client.close()

    return asyncio.run(main())


def test_a_thousand_waits_ask_for_a_list_about_once_an_interval(serving: LocalServing) -> None:
    async def scene(client: AsyncClient, project: Project, deployments: list[Deployment]) -> int:
        waits = Waits(client, project)
        everyone = [asyncio.create_task(waits.wait(each)) for each in deployments * 25]
        await _until(lambda: waits.looks >= 3000)
        for one in everyone:
            one.cancel()
        return waits.looks

    looks = _run(serving, scene)
    assert 1 < _asked(serving)["list"] <= looks / 500
    # Those who wake up apart from the rest once, on their way to the common beat, may be few enough to look singly.
    assert _asked(serving)["one"] < DEPLOYMENTS


def test_each_wait_ends_as_its_own_deployment_does_while_the_server_fails_now_and_then(serving: LocalServing) -> None:
    async def scene(client: AsyncClient, project: Project, deployments: list[Deployment]) -> tuple[list[str], str]:
        waits = Waits(client, project)
        *started, deleted, never = deployments[-5:]
        tasks = [asyncio.create_task(waits.wait(each)) for each in (*deployments[:-5], *started, deleted)]
        late = asyncio.create_task(waits.wait(never, seconds=6))
        await _until(lambda: waits.looks >= len(tasks))
        serving.faults.add(RequestFault("GET", "/project/*/serving", status=502, body="<html>"))
        serving.faults.add(RequestFault("GET", "/project/*/serving", cut=10))
        serving.faults.add(RequestFault("GET", "/project/*/serving/*", drop="after", times=3))
        for each in started:
            await client.send(api.start_deployment(project, each))
        await client.send(api.delete_deployment(project, deleted))
        ended = [await task for task in tasks[-4:]]
        too_late = await late
        for task in tasks:
            task.cancel()
        return ended, too_late

    ended, too_late = _run(serving, scene)
    assert ended == ["Running"] * 3 + ["SupersededError"]
    assert too_late == "DeadlineExceededError"


def test_a_key_that_is_revoked_ends_all_waits_at_once(serving: LocalServing) -> None:
    async def scene(client: AsyncClient, project: Project, deployments: list[Deployment]) -> list[str]:
        waits = Waits(client, project)
        everyone = [asyncio.create_task(waits.wait(each)) for each in deployments]
        # After their first polls, some may be apart from the rest once, on their way to the common beat.
        await _until(lambda: waits.looks >= 3 * len(deployments))
        body = {"errorCode": 320002, "errorMsg": "Key not found."}
        serving.faults.add(RequestFault("GET", "/project/*/serving/**", status=401, body=body, times=None))
        serving.faults.add(RequestFault("GET", "/project/*/serving", status=401, body=body, times=None))
        serving.requests.clear()
        return await asyncio.gather(*everyone)

    assert set(_run(serving, scene)) == {"RequestRefusedError"}
    assert _asked(serving).total() <= 2


def test_a_server_that_is_away_for_a_while_is_waited_for(serving: LocalServing) -> None:
    async def scene(client: AsyncClient, project: Project, deployments: list[Deployment]) -> str:
        waits = Waits(client, project)
        for path in ("/project/*/serving/**", "/project/*/serving"):
            serving.faults.add(RequestFault("GET", path, drop="before", times=None))
        everyone = [asyncio.create_task(waits.wait(each, first=0.1)) for each in deployments]
        await _until(lambda: _asked(serving).total() >= 3)
        assert not waits.looks
        serving.faults.clear()
        await client.send(api.start_deployment(project, deployments[0]))
        return await everyone[0]

    assert _run(serving, scene) == "Running"


def test_a_long_answer_is_read_beside_the_event_loop(serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_hsml.hopsworks.transport.async_client._LARGE", 1000)

    async def scene(client: AsyncClient, project: Project, _deployments: list[Deployment]) -> list[Any]:
        whole: Call[Any] = api.get_deployments(project)
        none: Call[Any] = api.get_deployments(project, status="Failed")
        return [await client.send(replace(call, read=lambda _: threading.current_thread())) for call in (whole, none)]

    long, short = _run(serving, scene)
    assert long is not threading.main_thread()
    assert short is threading.main_thread()
