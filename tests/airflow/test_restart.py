"""Restarting a deployment of the local Model Serving."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_hsml import DeployModelOperator, HsmlHook, RestartDeploymentOperator
from airflow_provider_hsml.hooks import base
from airflow_provider_hsml.hopsworks.domain import rollout_tracker
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, NoResponseError
from tests.support.tasks import FakeTaskInstance, changes, execute, rendered, resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.hopsworks, pytest.mark.usefixtures("serving")]

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


def restart(name: str, **more: Any) -> RestartDeploymentOperator:
    arguments: dict[str, Any] = {"poll_interval": 0.1} | more
    return RestartDeploymentOperator(task_id="task", deployment_name=name, **arguments)


def asked(serving: LocalServing) -> list[str]:
    """Give the commands that were sent, in their order."""
    sent = [one for one in serving.requests if one.method == "POST" and one.query.startswith("action=")]
    return [one.query.removeprefix("action=") for one in sent]


@pytest.mark.airflow
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
    monkeypatch.setattr(rollout_tracker, "FAILED_STAYS", 0.3)
    files = serving.world.project(serving.project_id).files
    (file,) = files.here(f"Models/{name}/1").rglob("*.joblib")
    file.write_text('{"broken": "no weights"}')

    with pytest.raises(AirflowFailException, match=r"(?s)no weights.*was Running before this restart stopped it"):
        execute(restart(name))


@pytest.mark.airflow
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


class Terminated(BaseException):
    """As Airflow 2 ends a task that is killed."""


def terminated(_seconds: float) -> None:
    raise Terminated


@pytest.mark.usefixtures("slow_stop")
def test_a_task_terminated_in_between_starts_it_all_the_same(serving: LocalServing, name: str) -> None:
    with pytest.raises(Terminated):
        HsmlHook(sleep=terminated).restart_deployment(name)
    assert asked(serving) == ["STOP", "START"]


@pytest.mark.usefixtures("slow_stop")
def test_what_cannot_be_started_again_is_said(
    serving: LocalServing, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hook = HsmlHook(sleep=terminated)
    real = hook.client.send

    def send(call: Any) -> Any:
        if ("action", "START") in call.query:
            raise NoResponseError("the server is gone")
        return real(call)

    monkeypatch.setattr(hook.client, "send", send)
    monkeypatch.setattr(base, "_START_BEFORE_EXIT_SECONDS", 3.0)

    with pytest.raises(Terminated):
        hook.restart_deployment(name)
    assert asked(serving) == ["STOP"]
    assert f"Deployment '{name}' may be left stopped: start it" in caplog.text


def test_an_outage_from_the_stop_on(serving: LocalServing, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error says that the deployment is left stopped, if it is."""
    hook = HsmlHook()
    real, seconds = hook.client.send, [3.0]

    def send(call: Any) -> Any:
        if asked(serving) == ["STOP"] and time.monotonic() < stopped_at() + seconds[0]:
            raise NoResponseError("the server is gone")
        return real(call)

    def stopped_at() -> float:
        moments.append(time.monotonic())
        return moments[0]

    moments: list[float] = []
    monkeypatch.setattr(hook.client, "send", send)
    with pytest.raises(DeadlineExceededError) as caught:
        hook.restart_deployment(name, timeout=1, poll_interval=0.1)
    assert "left stopped" not in str(caught.value)
    assert asked(serving) == ["STOP", "START"]

    hook.start_deployment(name, poll_interval=0.1)
    serving.requests.clear()
    seconds[0] = math.inf
    monkeypatch.setattr(base, "_START_BEFORE_EXIT_SECONDS", 1.0)
    with pytest.raises(DeadlineExceededError, match=f"Deployment '{name}' is left stopped: start it"):
        hook.restart_deployment(name, timeout=1, poll_interval=0.1)


@pytest.mark.usefixtures("slow_stop")
def test_a_stop_that_takes_too_long_is_followed_by_a_start(hook: HsmlHook, serving: LocalServing, name: str) -> None:
    with pytest.raises(DeadlineExceededError, match=f"Waited for deployment '{name}' to stop"):
        execute(restart(name, timeout=0.5))
    assert asked(serving) == ["STOP", "START"]


def test_a_task_killed_before_it_began_changes_nothing(serving: LocalServing, name: str, tmp_path: Path) -> None:
    operator = restart(name)
    operator.on_kill()

    assert asked(serving) == []


class TestRolling:
    @pytest.mark.since_hopsworks("4.8")
    def test_something_answers_all_the_time(self, hook: HsmlHook, serving: LocalServing, name: str) -> None:
        before, instance = hook.get_deployment(name), set(hook.get_deployment_logs(name))
        over = threading.Event()
        answers: list[object] = []

        def ask() -> None:
            client = HsmlHook()
            while not over.is_set():
                answers.append(client.predict(name, inputs=[1]))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            done = execute(restart(name, rolling="true"))
        finally:
            over.set()
            asking.join()

        after = hook.get_deployment(name)
        assert done["status"] == "Running"
        assert asked(serving) == []
        assert (after.version, after.model_version) == (before.version, before.model_version)
        assert after.revision != before.revision
        assert not set(hook.get_deployment_logs(name)) & instance
        assert answers
        assert set(map(str, answers)) == {"{'predictions': [7]}"}

    @pytest.mark.since_hopsworks("4.8")
    def test_it_is_no_change_of_the_configuration(self, hook: HsmlHook, serving: LocalServing, name: str) -> None:
        spec = {"env_vars": {"MINE": "1"}}
        execute(DeployModelOperator(task_id="task", model_name=name, spec=spec, poll_interval=0.1))
        hook.restart_deployment(name, rolling=True, poll_interval=0.1)
        hook.restart_deployment(name, rolling=True, poll_interval=0.1)

        record = execute(DeployModelOperator(task_id="task", model_name=name, spec=spec, poll_interval=0.1))
        assert record["action"] == "unchanged"
        variables = resource(hook, name)["predictorEnvVars"]
        assert [text.partition("=")[0] for text in sorted(variables)] == ["HSML_RESTARTED_AT", "MINE"]

    def test_what_is_stopped_is_started(self, hook: HsmlHook, serving: LocalServing, name: str) -> None:
        hook.stop_deployment(name, poll_interval=0.1)
        serving.requests.clear()

        assert execute(restart(name, rolling=True))["status"] == "Running"
        assert asked(serving) == ["START"]
        assert not [one for one in serving.requests if one.method == "PUT"]

    def test_a_server_without_environment_variables(
        self, hook: HsmlHook, serving: LocalServing, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It drops what it does not know, and then there is nothing that it would have to do."""
        deployments = serving.world.project(serving.project_id).deployments
        real = deployments.changes.put

        def put(body: dict[str, Any], **more: Any) -> Any:
            return real({key: value for key, value in body.items() if key != "predictorEnvVars"}, **more)

        monkeypatch.setattr(deployments.changes, "put", put)
        before = hook.get_deployment(name)

        with pytest.raises(AirflowFailException, match=r"cannot restart it without a stop(.|\n)*rolling=False"):
            execute(restart(name, rolling=True))
        assert hook.get_deployment(name) == before

    @pytest.mark.airflow
    def test_a_flag_that_is_none(self, name: str) -> None:
        with pytest.raises(AirflowFailException, match="rolling: expected true or false"):
            execute(rendered(restart(name), rolling="perhaps"))


class Store(dict[str, Any]):
    """Airflow's store of a task's state, which outlives its tries."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


@pytest.mark.airflow
@pytest.mark.parametrize("rolling", [pytest.param(True, marks=pytest.mark.since_hopsworks("4.8")), False])
def test_a_retry_after_a_worker_died_waits_for_the_restart_that_is_under_way(
    hook: HsmlHook, serving: LocalServing, name: str, monkeypatch: pytest.MonkeyPatch, rolling: bool
) -> None:
    speeds = serving.world.cluster.speeds
    monkeypatch.setattr(serving.world.cluster, "speeds", dataclasses.replace(speeds, stale=1.0))
    context: Any = {"ti": FakeTaskInstance(), "task_state_store": Store()}
    store, instances = context["task_state_store"], set(hook.get_deployment_logs(name))
    restart(name, rolling=rolling, wait_for_completion=False).execute(context)
    assert store == {}, "a restart that has ended is forgotten"
    store.set("hsml_restarted", "the one before")
    serving.requests.clear()

    assert restart(name, rolling=rolling).execute(context)["status"] == "Running"
    assert set(hook.get_deployment_logs(name)) - instances, "no other instances than before"
    assert [one for one in changes(serving) if not one[1].endswith(":predict")] == []
    assert store == {}


@pytest.mark.airflow
def test_a_retry_after_a_worker_died_before_it_had_stopped_anything(
    hook: HsmlHook, serving: LocalServing, name: str
) -> None:
    context: Any = {"ti": FakeTaskInstance(), "task_state_store": Store()}
    context["task_state_store"].set("hsml_restarted", hook.get_deployment(name).revision)

    restart(name).execute(context)

    assert asked(serving) == ["STOP", "START"]
