from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_hsml import DeploymentStatusSensor
from airflow_provider_hsml.hopsworks.domain import rollout_tracker
from airflow_provider_hsml.hopsworks.errors import DeploymentFailedError
from airflow_provider_hsml.local.cluster.states import Condition, Status
from tests.support.tasks import changes, execute, rendered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("serving")]


def sensor(name: str, target: Any = "Running", **more: Any) -> DeploymentStatusSensor:
    arguments = {"poke_interval": 0.1, "timeout": 20.0} | more
    return DeploymentStatusSensor(task_id="task", deployment_name=name, target_status=target, **arguments)


@pytest.fixture
def sensed(hook: HsmlHook, register: Callable[..., int]) -> str:
    """A deployment that serves."""
    if not hook.get_deployments(model_name="sensed"):
        register("sensed", 1)
    hook.save_deployment(deployment_name="sensed", model_name="sensed", model_version=1)
    return "sensed"


def test_waits_until_it_runs(hook: HsmlHook, serving: LocalServing, sensed: str) -> None:
    done = execute(sensor(sensed))

    assert done == {"deployment_name": sensed, "deployment_id": hook.get_deployment(sensed).id, "status": "Running"}


@pytest.mark.parametrize("target", ["Stopped", ["Failed", "Stopped"]])
def test_one_of_several(hook: HsmlHook, sensed: str, target: Any) -> None:
    hook.start_deployment(sensed, poll_interval=0.1)
    hook.stop_deployment(sensed, wait=False)

    assert execute(sensor(sensed, target))["status"] == "Stopped"


def test_never_changes_anything(serving: LocalServing, sensed: str) -> None:
    serving.requests.clear()
    execute(sensor(sensed))

    assert changes(serving) == []


def test_times_out(sensed: str) -> None:
    with pytest.raises(AirflowSensorTimeout):
        execute(sensor(sensed, "Stopped", timeout=0.3))


def test_fails_with_the_end_of_the_log(
    hook: HsmlHook, model_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_tracker, "FAILED_STAYS", 0.3)
    hook.register_model(model_name="brokensensed", model_path=model_file(broken="no weights"), framework="SKLEARN")
    hook.save_deployment(deployment_name="brokensensed", model_name="brokensensed")

    with pytest.raises(AirflowFailException, match=r"(?s)do not come up: .*no weights"):
        execute(sensor("brokensensed"))
    assert execute(sensor("brokensensed", "Failed"))["status"] == "Failed"


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("nothere", "Running", "'nothere' does not exist in project 'example'; there are:"),
        ("my_model", "Running", "letters and digits only"),
        ("x", "Up", "target_status: expected one of Creating"),
        ("x", 3, "target_status: expected a list"),
    ],
)
def test_what_cannot_be_waited_for(name: str, target: Any, message: str) -> None:
    with pytest.raises(AirflowFailException, match=message):
        execute(rendered(sensor("x"), deployment_name=name, target_status=target))


def test_deleted_meanwhile(hook: HsmlHook, register: Callable[..., int]) -> None:
    register("fleeting", 1)
    hook.save_deployment(deployment_name="fleeting", model_name="fleeting")
    waiting_for = sensor("fleeting", "Stopped")
    assert waiting_for.poke({}) is False
    hook.delete_deployment("fleeting", force=True, poll_interval=0.1)

    with pytest.raises(AirflowFailException, match="deleted while it was waited for") as failed:
        waiting_for.poke({})
    assert failed.value.__suppress_context__, "one sentence in the log, and no traceback above it"


def test_a_server_that_is_away_is_waited_for(sensed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_hsml.hopsworks.errors import NoResponseError
    from airflow_provider_hsml.hopsworks.transport.client import Client

    answers = iter([NoResponseError("away")] * 3)
    send = Client.send

    def sometimes(self: Client, call: Any) -> Any:
        if error := next(answers, None):
            raise error
        return send(self, call)

    monkeypatch.setattr(Client, "send", sometimes)

    assert execute(sensor(sensed))["status"] == "Running"


def test_no_room_ends_the_wait_and_may_be_retried(
    hook: HsmlHook, serving: LocalServing, register: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_tracker, "UNSCHEDULABLE_STAYS", 0.0)
    register("roomless", 1)
    hook.save_deployment(deployment_name="roomless", model_name="roomless")
    running = hook.start_deployment("roomless", poll_interval=0.1)
    slot = serving.world.cluster.slots[running.id]
    slot.status, slot.condition = Status.FAILED, Condition("SCHEDULED", status=False, reason="no room")

    with pytest.raises(DeploymentFailedError, match="no room"):
        execute(sensor("roomless"))
