"""What becomes of a deployment that a task was creating when a person kills the task."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_provider_hsml import DeploymentStatusSensor, DeployModelOperator, HsmlHook
from airflow_provider_hsml.local.cluster.faults import StartFault
from tests.support.tasks import FakeTaskInstance, begin, changes, execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()


@pytest.fixture
def name(register: Callable[..., int]) -> str:
    """A model that is not deployed."""
    name = f"killed{next(_numbers)}"
    register(name, 1)
    return name


def deploy(name: str, version: int = 1, **how: Any) -> DeployModelOperator:
    given: dict[str, Any] = {"poll_interval": 0.1, "timeout": 60} | how
    return DeployModelOperator(task_id="task", model_name=name, model_version=version, **given)


def becomes(name: str, status: str) -> Any:
    return execute(
        DeploymentStatusSensor(
            task_id="task", deployment_name=name, target_status=status, poke_interval=0.1, timeout=20
        )
    )


@pytest.mark.parametrize(
    ("when_killed", "state", "ends"),
    [("leave", "failed", "Running"), ("stop", "failed", "Stopped"), ("stop", "running", "Running")],
    ids=["leave", "stop", "the worker ends"],
)
def test_in_a_worker(
    serving: LocalServing, name: str, caplog: pytest.LogCaptureFixture, when_killed: str, state: str, ends: str
) -> None:
    serving.faults.add(StartFault(name, stage="INITIALIZED", lasts=1.0))
    operator = deploy(name, when_killed=when_killed)

    def kill() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not serving.requests.where("POST", "/project/119/serving/"):
            time.sleep(0.05)
        operator.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(AirflowException, match="killed"):
        execute(operator, FakeTaskInstance(state=state))
    killer.join()

    assert becomes(name, ends)["status"] == ends
    assert (f"{name!r}, which was being created, is left as it is" in caplog.text) is (ends == "Running")


@pytest.mark.parametrize("when_killed", ["leave", "stop"])
def test_in_the_triggerer(hook: HsmlHook, serving: LocalServing, name: str, when_killed: str) -> None:
    """Airflow tells a trigger from 3.3 on."""
    serving.faults.add(StartFault(name, stage="INITIALIZED", lasts=1.0))
    with pytest.raises(TaskDeferred) as deferred:
        begin(deploy(name, when_killed=when_killed, deferrable=True))
    serving.requests.clear()

    asyncio.run(deferred.value.trigger.on_kill())

    asked = serving.requests.where("POST", f"/project/119/serving/{hook.get_deployment(name).id}")
    assert [one.query for one in asked] == (["action=STOP"] if when_killed == "stop" else [])


def test_in_the_triggerer_what_served_goes_on(serving: LocalServing, name: str, register: Callable[..., int]) -> None:
    execute(deploy(name))
    register(name, 2)
    with pytest.raises(TaskDeferred) as deferred:
        begin(deploy(name, 2, when_killed="stop", deferrable=True))
    serving.requests.clear()

    asyncio.run(deferred.value.trigger.on_kill())

    assert changes(serving) == []
