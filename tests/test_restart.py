"""Restarting a deployment of the local Model Serving."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_hsml import DeployModelOperator, RestartDeploymentOperator
from airflow_provider_hsml.hopsworks import waiting
from airflow_provider_hsml.hopsworks.errors import NotInTime

from .tasks import changes, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()


@pytest.fixture
def name(register: Callable[..., int], serving: LocalServing) -> str:
    """A deployment that runs."""
    name = f"restarted{next(_numbers)}"
    register(name, 7)
    execute(DeployModelOperator(task_id="task", model_name=name, poll_interval=0.1))
    serving.requests.clear()
    return name


@pytest.fixture
def slow_stop(serving: LocalServing) -> Iterator[None]:
    """Stopping lasts long enough to be seen."""
    before = serving.world.cluster.speeds
    serving.world.cluster.speeds = dataclasses.replace(before, stopping=1.5)
    yield
    serving.world.cluster.speeds = before


def restart(name: str, **more: object) -> RestartDeploymentOperator:
    arguments: dict[str, object] = {"poll_interval": 0.1} | more
    return RestartDeploymentOperator(task_id="task", deployment_name=name, **arguments)


def asked(serving: LocalServing) -> list[str]:
    """Give the commands that were sent, in their order."""
    return [one.query.removeprefix("action=") for one in serving.requests if one.query.startswith("action=")]


def test_stops_and_starts(hook: HsmlHook, serving: LocalServing, name: str) -> None:
    before = hook.get_deployment(name)
    done = execute(restart(name))

    assert done == {
        "deployment_name": name,
        "deployment_id": before.id,
        "status": "Running",
        "url": hook.deployment_url(before),
    }
    assert asked(serving) == ["STOP", "START"]
    assert hook.get_deployment(name).revision != before.revision
    assert hook.predict(name) == {"predictions": [7, 7]}


def test_what_is_stopped_is_started(hook: HsmlHook, serving: LocalServing, name: str) -> None:
    hook.stop_deployment(name, poll_interval=0.1)
    serving.requests.clear()

    assert execute(restart(name))["status"] == "Running"
    assert asked(serving) == ["START"]


def test_without_waiting_the_stop_is_waited_for(hook: HsmlHook, serving: LocalServing, name: str) -> None:
    assert execute(restart(name, wait_for_completion=False))["deployment_name"] == name
    assert asked(serving) == ["STOP", "START"]
    assert hook.start_deployment(name, poll_interval=0.1).status == "Running"


def test_a_name_that_does_not_exist(serving: LocalServing) -> None:
    with pytest.raises(AirflowFailException, match=r"'nothere' does not exist .* there are:"):
        execute(restart("nothere"))
    assert changes(serving) == []


def test_a_start_that_fails_says_what_was_before(
    hook: HsmlHook, serving: LocalServing, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "FAILED_STAYS", 0.3)
    files = serving.world.project(serving.project_id).files
    (file,) = files.here(f"Models/{name}/1/Files").iterdir()
    file.write_text('{"broken": "no weights"}')

    with pytest.raises(AirflowFailException, match=r"(?s)no weights.*was Running before this restart stopped it"):
        execute(restart(name))


@pytest.mark.usefixtures("slow_stop")
def test_a_task_killed_in_between_starts_it_all_the_same(hook: HsmlHook, serving: LocalServing, name: str) -> None:
    operator = restart(name)
    killer = threading.Thread(target=_kill_once_stopping, args=(hook, name, operator))
    killer.start()

    with pytest.raises(AirflowException, match="killed"):
        execute(operator)
    killer.join()
    assert asked(serving) == ["STOP", "START"]
    assert hook.start_deployment(name, poll_interval=0.1).status == "Running"


def _kill_once_stopping(hook: HsmlHook, name: str, operator: RestartDeploymentOperator) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and hook.get_deployment_state(name) != "Stopping":
        time.sleep(0.02)
    operator.on_kill()


@pytest.mark.usefixtures("slow_stop")
def test_a_stop_that_takes_too_long_is_followed_by_a_start(hook: HsmlHook, serving: LocalServing, name: str) -> None:
    with pytest.raises(NotInTime, match=f"Waited for deployment '{name}' to stop"):
        execute(restart(name, timeout=0.5))
    assert asked(serving) == ["STOP", "START"]


def test_a_task_killed_before_it_began_changes_nothing(serving: LocalServing, name: str, tmp_path: Path) -> None:
    operator = restart(name)
    operator.on_kill()

    assert asked(serving) == []
