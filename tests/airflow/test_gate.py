"""The gate, as tasks use it: against a local Model Serving over HTTP."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_hsml import DeployBestModelOperator, DeployModelOperator, ModelVersionSensor
from airflow_provider_hsml.hopsworks import Gate, api
from airflow_provider_hsml.hopsworks.errors import UnexpectedResponseError
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes
from airflow_provider_hsml.local import RequestFault
from tests.support.tasks import FakeTaskInstance, changes, execute, reads, rendered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.hopsworks, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"gated{next(_numbers)}"


@pytest.fixture
def champion(name: str, register: Callable[..., int]) -> str:
    """A model whose first version (accuracy 0.8, recall 0.7) serves; its name."""
    register(name, 1, accuracy=0.8, recall=0.7)
    execute(best(name))
    return name


def best(name: str, **more: Any) -> DeployBestModelOperator:
    return DeployBestModelOperator(
        task_id="task", model_name=name, metric="accuracy", poll_interval=0.2, **{"direction": "max", **more}
    )


def test_a_gate_that_is_not_passed(serving: LocalServing, champion: str, register: Callable[..., int]) -> None:
    register(champion, 2, accuracy=0.82, recall=0.7)
    serving.requests.clear()

    record = execute(best(champion, gate=Gate(min_improvement=0.05)))

    assert (record["action"], record["model_version"], record["is_kept"]) == ("kept", 1, True)
    assert "by less than the 0.05 that the gate asks for" in record["reason"]
    assert changes(serving) == [("POST", f"{champion}:predict")], "one probe, and nothing else"
    assert reads(serving) <= 9


def test_a_gate_that_is_passed(champion: str, register: Callable[..., int]) -> None:
    """Said in a mapping, with numbers as text, as templates give them."""
    register(champion, 2, accuracy=0.9, recall=0.695)
    guards = {"recall": {"direction": "max", "max_loss": "0.01"}}

    record = execute(best(champion, gate={"min_improvement": "0.05", "relative": "True", "guards": guards}))

    assert (record["action"], record["model_version"], record["is_kept"]) == ("updated", 2, False)


def test_a_guard_holds_the_best_one_back(champion: str, register: Callable[..., int]) -> None:
    register(champion, 2, accuracy=0.95, recall=0.2)
    register(champion, 3, accuracy=0.85, recall=0.7)

    record = execute(best(champion, gate={"guards": {"recall": {"direction": "max", "max_loss": 0.01}}}))

    assert (record["action"], record["model_version"]) == ("updated", 3)


@pytest.mark.airflow
def test_the_task_log_has_the_candidates(
    champion: str, register: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    register(champion, 2, accuracy=0.95, recall=0.2)
    register(champion, 3, accuracy=0.85, recall=0.7)

    execute(best(champion, gate={"guards": {"recall": {"direction": "max", "max_loss": 0.01}}}))

    said = [record.getMessage() for record in caplog.records]
    assert (
        said.count(
            f"Deployment {champion!r}, candidates of model {champion!r}:\n"
            "  version  accuracy  recall\n"
            "        2      0.95     0.2  its recall 0.2 is worse than the served 0.7 by more than 0.01\n"
            "        3      0.85     0.7  chosen\n"
            "        1       0.8     0.7  served"
        )
        == 1
    )


@pytest.mark.airflow
@pytest.mark.parametrize(("if_not_better", "error"), [("skip", AirflowSkipException), ("fail", AirflowFailException)])
def test_not_better(champion: str, register: Callable[..., int], if_not_better: str, error: type[Exception]) -> None:
    """The record is there when it matters most."""
    register(champion, 2, accuracy=0.7)
    ti = FakeTaskInstance()

    with pytest.raises(error, match="does not beat the served version 1"):
        execute(best(champion, if_not_better=if_not_better), ti)

    assert (ti.pushed["promotion"]["action"], ti.pushed["model_version"]) == ("kept", 1)


@pytest.mark.airflow
@pytest.mark.parametrize("if_not_better", ["keep", "skip", "fail"])
def test_better_is_a_success_in_any_case(champion: str, register: Callable[..., int], if_not_better: str) -> None:
    register(champion, 2, accuracy=0.9)

    assert execute(best(champion, if_not_better=if_not_better))["action"] == "updated"


def test_a_first_deployment_below_the_floor(serving: LocalServing, name: str, register: Callable[..., int]) -> None:
    register(name, 1, accuracy=0.6)
    serving.requests.clear()
    ti = FakeTaskInstance()

    record = execute(best(name, gate=Gate(floor=0.7)), ti)

    assert (record["action"], record["deployment_name"], record["deployment_id"]) == ("kept", name, None)
    assert "none is served yet, and the best one, version 1 (accuracy 0.6), is left out" in record["reason"]
    assert (record["model_version"], record["status"], record["url"]) == (None, None, None)
    assert ti.pushed["promotion"] == record
    assert changes(serving) == []
    with pytest.raises(AirflowSkipException, match=r"below the floor of 0\.7"):
        execute(best(name, gate=Gate(floor=0.7), if_not_better="skip"))
    assert execute(best(name, gate=Gate(floor=0.5)))["action"] == "created"


def test_a_downgrade_only_where_it_is_allowed(name: str, register: Callable[..., int]) -> None:
    register(name, 1, accuracy=0.9)
    register(name, 2, accuracy=0.8)
    execute(best(name, candidates=[2]))

    assert "it is older than the served one" in execute(best(name))["reason"]
    assert execute(best(name, gate=Gate(allow_downgrade=True)))["model_version"] == 1


@pytest.mark.airflow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"gate": {"flor": 0.7}}, "gate: unknown key 'flor'; did you mean 'floor'"),
        ({"gate": {"floor": "high"}}, r"gate\.floor: expected a finite number"),
        ({"if_not_better": "keeep"}, "if_not_better: expected one of keep, skip, fail"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    serving: LocalServing, name: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(AirflowFailException, match=message):
        execute(rendered(best(name), **more))

    assert changes(serving) == []


@pytest.mark.airflow
def test_a_dataclass_is_templated_as_a_mapping(name: str) -> None:
    operator = best(name, gate=Gate(floor="{{ params.floor }}"))

    operator.render_template_fields({"params": {"floor": 0.5}})

    assert isinstance(operator.gate, dict)
    assert operator.gate["floor"] == "0.5"


class TestOlderData:
    """A backfill gets the highest number, and does not replace a model trained on newer data."""

    def register(self, hook: HsmlHook, model_file: Callable[..., Path], name: str, answer: int, until: str) -> int:
        return hook.register_model(
            model_name=name,
            model_path=model_file(answer=answer),
            framework="SKLEARN",
            metrics={"accuracy": 0.8 + answer / 100},
            trained_until=until,
        ).version

    def best(self, name: str, **more: Any) -> dict[str, Any]:
        record: dict[str, Any] = execute(
            DeployBestModelOperator(task_id="best", model_name=name, metric="accuracy", direction="max", **more)
        )
        return record

    def test_is_left_out(self, hook: HsmlHook, model_file: Callable[..., Path]) -> None:
        name = "backfilled"
        self.register(hook, model_file, name, 1, "2026-11-02T00:00:00+00:00")
        assert self.best(name, poll_interval=0.1)["action"] == "created"
        self.register(hook, model_file, name, 9, "2026-10-01T00:00:00+02:00")

        record = self.best(name, poll_interval=0.1)
        assert (record["action"], record["model_version"]) == ("kept", 1)
        assert "it was trained on older data than the served one" in record["reason"]

        self.register(hook, model_file, name, 5, "2026-11-02T00:00:00")
        assert self.best(name, poll_interval=0.1)["model_version"] == 3, "equal is not older; the next one is taken"
        assert self.best(name, gate={"allow_downgrade": True}, poll_interval=0.1)["model_version"] == 2

    def test_that_cannot_be_read_is_not_unknown(self, hook: HsmlHook, model_file: Callable[..., Path]) -> None:
        name = "unreadableage"
        self.register(hook, model_file, name, 1, "2026-11-02")
        self.best(name, poll_interval=0.1)
        self.register(hook, model_file, name, 2, "2026-11-03")
        project, path = hook.client.project, f"Models/{name}/1/airflow.json"
        hook.client.send(api.delete_path(project, path))
        hook.run(upload_bytes(project, path, b'{"trained_until": "yesterday"}'))

        with pytest.raises(UnexpectedResponseError, match=r"airflow\.json': the answer is not what Hopsworks gives"):
            self.best(name, poll_interval=0.1)


def test_a_newest_version_that_cannot_be_read_leads_to_no_older_one(
    serving: LocalServing, hook: HsmlHook, name: str, register: Callable[..., int]
) -> None:
    """Neither 'latest', nor the sensor, nor candidates by number; an older one by its number is served all the same."""
    for accuracy in (0.7, 0.8, 0.9):
        register(name, 1, accuracy=accuracy)
    execute(DeployModelOperator(task_id="task", model_name=name, model_version=3, poll_interval=0.2))
    rows = [
        {"id": f"{name}_{version}", "name": name, "version": version, "metrics": {"accuracy": 0.9}}
        for version in (1, 2)
    ]
    odd = {"id": f"{name}_3", "name": name, "version": 3, "metrics": []}
    listing = RequestFault("GET", "**/models", status=200, body={"count": 3, "items": [odd, *rows]}, times=None)
    serving.faults.add(listing)
    latest = DeployModelOperator(task_id="task", model_name=name, poll_interval=0.2)
    sensor = ModelVersionSensor(task_id="task", model_name=name, poke_interval=0.1, timeout=20)
    serving.requests.clear()

    for deploying in (latest, best(name, candidates=[3])):
        with pytest.raises(UnexpectedResponseError, match="version 3 cannot be read"):
            execute(deploying)
    assert sensor.poke({}) is False
    assert changes(serving) == []
    assert hook.get_deployment(name).model_version == 3
    older = DeployModelOperator(task_id="task", model_name=name, model_version=2, poll_interval=0.2)
    assert execute(older)["model_version"] == 2

    serving.faults.clear()
    assert execute(sensor)["model_version"] == 3
    assert execute(latest)["model_version"] == 3
