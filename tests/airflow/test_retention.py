"""Deleting old versions of models of the local Model Serving."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import DeleteModelVersionsOperator, DeployModelOperator
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import UnexpectedResponseError
from airflow_provider_hsml.hopsworks.promotion import retention
from airflow_provider_hsml.local import RequestFault
from tests.support.tasks import changes, execute, rendered

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.hopsworks, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()


@pytest.fixture
def name(serving: LocalServing) -> str:
    """A model with six versions, the second of which is the best."""
    name = f"kept{next(_numbers)}"
    for accuracy in (0.5, 0.9, 0.6, 0.7, 0.8, 0.85):
        serving.world.register_model(name, {"model.joblib": b'{"answer": 1}'}, metrics={"accuracy": accuracy})
    return name


def delete(name: str, **more: Any) -> Any:
    return execute(DeleteModelVersionsOperator(task_id="task", model_name=name, **more))


def deploy(name: str, version: int, **more: Any) -> None:
    execute(DeployModelOperator(task_id="task", model_name=name, model_version=version, poll_interval=0.1, **more))


def left(hook: HsmlHook, name: str) -> list[int]:
    return sorted(model.version for model in hook.get_models(name))


@pytest.mark.airflow
def test_keeps_the_newest_and_the_best(hook: HsmlHook, serving: LocalServing, name: str) -> None:
    assert delete(name, keep="2", keep_best=("accuracy", "max")) == {"deleted": [1, 3, 4], "kept": [2, 5, 6]}
    assert left(hook, name) == [2, 5, 6]
    serving.requests.clear()
    assert delete(name, keep="2", keep_best=["accuracy", "max"]) == {"deleted": [], "kept": [2, 5, 6]}
    assert changes(serving) == []
    assert delete(name, keep=1, keep_best=("accuracy", "min")) == {"deleted": [2], "kept": [5, 6]}


@pytest.mark.since_hopsworks("5.2")
def test_keeps_what_deployments_name(hook: HsmlHook, name: str) -> None:
    """The one being served, and the one before it, which a rollback may bring back."""
    deploy(name, 1)
    deploy(name, 3)
    deploy(name, 4, deployment_name=f"{name}second")
    hook.stop_deployment(f"{name}second", poll_interval=0.1)

    done = hook.delete_model_versions(name, keep=1)

    assert done.deleted == (2, 5)
    assert done.kept == {
        1: f"named by version 1 of deployment '{name}'",
        3: f"set in deployment '{name}'",
        4: f"set in deployment '{name}second'",
        6: "among the newest 1",
    }


@pytest.mark.since_hopsworks("5.2")
def test_a_deployment_of_another_model_now(hook: HsmlHook, name: str, register: Callable[..., int]) -> None:
    """It can still be rolled back to the model that it served before."""
    deploy(name, 2)
    other = f"{name}other"
    register(other, 5)
    deploy(other, 1, deployment_name=name)

    assert delete(name, keep=1) == {"deleted": [1, 3, 4, 5], "kept": [2, 6]}


@pytest.fixture
def has_no_versions(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of a server that lists no versions of deployments; one of its versions is served, one was."""
    deploy(name, 1)
    deploy(name, 3)
    real = api.get_versions
    missing = api.MissingRoute.CERTAIN
    monkeypatch.setattr(
        api, "get_versions", lambda *one, **more: dataclasses.replace(real(*one, **more), read=lambda _data: missing)
    )
    return name


def says(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    real = api.get_server_version()
    monkeypatch.setattr(api, "get_server_version", lambda: dataclasses.replace(real, read=lambda _data: version))


@pytest.mark.parametrize("version", ["4.6.0", "5.1.3-SNAPSHOT", "3.7"])
def test_a_server_without_versions_of_deployments(
    has_no_versions: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, version)

    assert delete(has_no_versions, keep=1) == {"deleted": [2, 4, 5], "kept": [1, 3, 6]}, "a rollback leads to version 1"


@pytest.mark.parametrize("version", ["5.2.0", "6.0.1", None, "unknown"])
def test_nothing_is_deleted_where_versions_should_be(
    has_no_versions: str, hook: HsmlHook, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback may need the model versions that deployment versions name."""
    says(monkeypatch, version)

    with pytest.raises(UnexpectedResponseError, match="Nothing was deleted"):
        hook.delete_model_versions(has_no_versions, keep=1)
    assert left(hook, has_no_versions) == [1, 2, 3, 4, 5, 6]


def test_one_that_hopsworks_says_is_in_use_is_kept(hook: HsmlHook, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another project's deployment serves it, which nobody can see from here."""
    deploy(name, 2)

    async def sees_nothing(*_: object) -> Any:
        return {}

    monkeypatch.setattr(retention, "_in_use", sees_nothing)

    done = hook.delete_model_versions(name, keep=1)
    assert done.deleted == (1, 3, 4, 5)
    assert done.kept[2] == "in use, as Hopsworks says"


@pytest.mark.airflow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": 0}, "keep: expected a whole number of 1 or more"),
        ({"keep": "few"}, "keep: expected a whole number"),
        ({"keep_best": "accuracy"}, "keep_best: text as the whole value is read as JSON"),
        ({"keep_best": ("accuracy",)}, "a metric and a direction"),
        ({"keep_best": ("accuracy", "up")}, "keep_best: expected one of max, min"),
        ({"keep_best": ("auc", "max")}, r"no version .* has a finite metric 'auc'.* metrics there: accuracy"),
        ({"model_name": "my-model"}, "letters, digits and underscores"),
    ],
)
def test_what_cannot_be_asked(serving: LocalServing, name: str, given: dict[str, Any], message: str) -> None:
    serving.requests.clear()

    with pytest.raises(AirflowFailException, match=message):
        execute(rendered(DeleteModelVersionsOperator(task_id="task", model_name=name), **given))
    assert changes(serving) == []


def test_a_model_that_is_not_there() -> None:
    assert delete("neverwas") == {"deleted": [], "kept": []}


def test_a_list_that_cannot_be_read_is_no_empty_one(serving: LocalServing, hook: HsmlHook, name: str) -> None:
    rows = {"count": 6, "items": [{"id": f"{name}_{number}", "name": 7} for number in range(6)]}
    serving.faults.add(RequestFault("GET", "**/models", status=200, body=rows))

    with pytest.raises(UnexpectedResponseError, match="none of the 6 rows can be read"):
        delete(name, keep=3)
    assert left(hook, name) == [1, 2, 3, 4, 5, 6]


def test_a_deletion_that_was_answered_and_not_carried_out(
    serving: LocalServing, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "AWAIT_DELETION", 0.5)
    serving.faults.add(RequestFault("DELETE", f"**/models/{name}_3", status=204))

    with pytest.raises(UnexpectedResponseError, match=r"deletion of its versions \[3\] was answered"):
        delete(name, keep=3)
    assert delete(name, keep=3) == {"deleted": [3], "kept": [4, 5, 6]}
