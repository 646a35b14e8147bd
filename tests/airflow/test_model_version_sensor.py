"""Waiting for a version of a model: one that is good enough, or one that a person has approved."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_hsml import ModelVersionSensor
from airflow_provider_hsml.hopsworks.errors import NoResponseError
from airflow_provider_hsml.hopsworks.sensing import conditions
from airflow_provider_hsml.hopsworks.transport.client import Client
from airflow_provider_hsml.local import AccessOptions, LocalServing
from tests.conftest import HOPSWORKS, run_model
from tests.support.tasks import changes, execute, reads, rendered

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml import HsmlHook

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("serving")]

APPROVED = {"approval": "approved"}


def sensor(name: str, **more: Any) -> ModelVersionSensor:
    return ModelVersionSensor(task_id="task", model_name=name, **{"poke_interval": 0.1, "timeout": 20.0} | more)


def test_gives_the_version_as_registering_does(hook: HsmlHook, register: Callable[..., int]) -> None:
    register("ready", 1, auc=0.8)

    assert execute(sensor("ready")) == {
        "model_name": "ready",
        "model_version": 1,
        "model_id": "ready_1",
        "metrics": {"auc": 0.8},
        "url": hook.model_url(hook.get_model("ready", 1)),
    }


def test_of_several_the_newest_that_will_do(register: Callable[..., int], serving: LocalServing) -> None:
    for auc in (0.8, 0.9, 0.95, 0.7):
        register("several", 1, auc=auc)
    serving.requests.clear()

    assert execute(sensor("several", metric="auc", at_least=0.75, at_most="0.92"))["model_version"] == 2
    assert execute(sensor("several", newer_than="2", metric="auc", at_least="0.75"))["model_version"] == 3
    assert execute(sensor("several", model_version="1"))["model_version"] == 1
    assert changes(serving) == []


def test_somebody_registers_it_later(hook: HsmlHook, register: Callable[..., int]) -> None:
    waiting_for = sensor("later", metric="auc", at_least=0.9)

    assert waiting_for.poke({}) is False
    register("later", 1, auc=0.8)
    assert waiting_for.poke({}) is False
    register("later", 2, auc=0.9)
    assert execute(waiting_for)["model_version"] == 2


def test_waits_for_a_person(hook: HsmlHook, register: Callable[..., int]) -> None:
    """The tag is set from outside while the sensor waits."""
    register("asked", 1)
    waiting_for = sensor("asked", model_version=1, tag=APPROVED)
    assert waiting_for.poke({}) is False
    hook.set_model_tag("asked", 1, "approval", "rejected")
    assert waiting_for.poke({}) is False
    person = threading.Timer(0.5, hook.set_model_tag, ("asked", 1, "approval", "approved"))
    person.start()
    found = execute(waiting_for)
    person.join()

    assert (found["model_version"], found["tags"]) == (1, APPROVED)


def test_a_newer_version_is_not_the_one_that_was_asked_about(hook: HsmlHook, register: Callable[..., int]) -> None:
    for _ in range(2):
        register("exact", 1)
    hook.set_model_tag("exact", 2, "approval", "approved")

    assert sensor("exact", model_version=1, tag=APPROVED).poke({}) is False
    assert execute(sensor("exact", tag=APPROVED))["model_version"] == 2


def test_says_once_what_is_lacking(register: Callable[..., int], caplog: pytest.LogCaptureFixture) -> None:
    waiting_for = sensor("lacking", tag=APPROVED)
    with caplog.at_level(logging.INFO, conditions.__name__):
        assert waiting_for.poke({}) is False
        assert waiting_for.poke({}) is False
        register("lacking", 1)
        assert waiting_for.poke({}) is False
        assert waiting_for.poke({}) is False

    assert [record.getMessage() for record in caplog.records if record.name == conditions.__name__] == [
        "Model 'lacking' is not in the registry of project 'example' yet.",
        "Model 'lacking': version 1 has no tag 'approval' (an administrator makes the schema that such a tag needs).",
    ]


def test_a_look_for_a_person_takes_two_requests(serving: LocalServing, register: Callable[..., int]) -> None:
    for _ in range(3):
        register("cheap", 1)
    waiting_for = sensor("cheap", model_version=2, tag=APPROVED)
    waiting_for.poke({})
    serving.requests.clear()
    waiting_for.poke({})

    assert (reads(serving), changes(serving)) == (2, [])


def test_times_out(register: Callable[..., int]) -> None:
    register("never", 1)

    with pytest.raises(AirflowSensorTimeout):
        execute(sensor("never", newer_than=1, timeout=0.3))


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("my-model", {}, "letters, digits and underscores only"),
        ("x", {"at_least": 1}, "Give its name as well"),
        ("x", {"newer_than": "None"}, "newer_than: expected a whole number"),
        ("x", {"tag": "approved"}, "tag: text as the whole value is read as JSON"),
        ("x", {"model_project": "nothere"}, "'nothere' is not shared with project 'example'"),
    ],
)
def test_what_cannot_be_waited_for(name: str, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(AirflowFailException, match=message):
        execute(rendered(sensor("x"), model_name=name, **wanted))


def test_a_server_that_is_away_is_waited_for(register: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    register("away", 1)
    answers = iter([NoResponseError("away")] * 3)
    send = Client.send

    def sometimes(self: Client, call: Any) -> Any:
        if error := next(answers, None):
            raise error
        return send(self, call)

    monkeypatch.setattr(Client, "send", sometimes)

    assert execute(sensor("away"))["model_version"] == 1


def test_another_projects_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalServing(
        engine=run_model,
        project=["example", "training"],
        access=AccessOptions(shared_registries={"training": ["example"]}),
        hopsworks_version=HOPSWORKS,
    ) as serving:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        serving.world.register_model("churn", {"model.joblib": b"{}"}, project="training")
        waiting_for = sensor("churn", model_project="training", tag=APPROVED)
        assert waiting_for.poke({}) is False
        from airflow_provider_hsml.hooks import HsmlHook

        HsmlHook(project="training").set_model_tag("churn", 1, "approval", "approved")

        found = execute(waiting_for)
        assert (found["model_version"], found["tags"]) == (1, APPROVED)
