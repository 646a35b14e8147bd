"""The gate by comparisons, as tasks use it: against a local Model Serving over HTTP."""

from __future__ import annotations

import itertools
import json
import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_hsml import DeployBestModelOperator, DeployModelOperator
from airflow_provider_hsml.hopsworks.compare.compare import compare
from airflow_provider_hsml.hopsworks.compare.scored import Rows, Scored
from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
from airflow_provider_hsml.hopsworks.promotion.record import Record
from tests.support.tasks import FakeTaskInstance, changes, execute, rendered

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.hopsworks, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"measured{next(_numbers)}"


@pytest.fixture
def compared(name: str, hook: HsmlHook, register: Callable[..., int]) -> Callable[..., dict[str, Any]]:
    """
    Compares a new version with the one that serves.

    Version 1 serves. By its number in the registry, each new version is far better; the argument says how much better
    it answers in truth.
    """
    register(name, 1, accuracy=0.5)
    execute(best(name))

    def make(better: float, *, champion: int = 1, deployment: str = name, **more: Any) -> dict[str, Any]:
        version = register(name, 2, accuracy=0.99)
        project = hook.get_model(name, version).project
        chance = np.random.default_rng(version)
        labels = (chance.random(1000) < 0.5).astype(int)
        before = np.where(chance.random(1000) < 0.8, labels, 1 - labels)
        mended = np.where(before == labels, 0, chance.random(1000) < better / 0.2)
        return compare(
            Scored(ServedVersion(project, name, champion), before.tolist()),
            Scored(ServedVersion(project, name, version), np.where(mended, labels, before).tolist()),
            Rows(labels.tolist()),
            ["accuracy"],
            **{"resamples": 500, "at": time.time(), **more},
        ).to_json() | {"report": "s3://results/report.html", "deployment_name": deployment}

    return make


def best(name: str, **more: Any) -> DeployBestModelOperator:
    return DeployBestModelOperator(
        task_id="task", model_name=name, metric="accuracy", poll_interval=0.2, **{"direction": "max", **more}
    )


def test_noise_keeps_the_champion_whatever_the_registry_says(
    serving: LocalServing, name: str, compared: Callable[..., dict[str, Any]]
) -> None:
    comparison = compared(0.0)
    serving.requests.clear()

    record = execute(best(name, gate={"measured": comparison}))

    assert (record["action"], record["model_version"], record["is_kept"]) == ("kept", 1, True)
    assert "version 2 is not shown to beat the served version 1 on the same 1000 rows" in record["reason"]
    assert changes(serving) == [("POST", f"{name}:predict")], "one probe, and nothing else"
    assert record["metric_value"] == comparison["metrics"]["accuracy"]["champion"]
    assert record["measured"]["challenger"] == comparison["metrics"]["accuracy"]["challenger"]
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("form", [lambda one: one, lambda one: [one], json.dumps])
def test_a_better_one_is_deployed(name: str, compared: Callable[..., dict[str, Any]], form: Any) -> None:
    comparison = compared(0.1)

    record = execute(best(name, gate={"measured": form(comparison), "confidence": "0.99"}))

    assert (record["action"], record["model_version"]) == ("updated", 2)
    assert "beats the served version 1" in record["reason"]
    values = comparison["metrics"]["accuracy"]
    assert (record["metric_value"], record["previous_metric_value"]) == (values["challenger"], values["champion"])
    again = execute(best(name, gate={"measured": comparison}))
    assert (again["action"], again["reason"]) == ("kept", "the served version 2 is kept: no candidate is newer")
    assert (again["metric_value"], again["measured"]) == (None, None)


@pytest.mark.airflow
def test_the_numbers_survive_the_wait_in_the_triggerer(name: str, compared: Callable[..., dict[str, Any]]) -> None:
    comparison = compared(0.1)

    record = execute(best(name, gate={"measured": comparison}, deferrable=True))

    values = comparison["metrics"]["accuracy"]
    assert (record["action"], record["metric_value"]) == ("updated", values["challenger"])
    assert record["measured"]["lower_bound"] == values["lower_bound"]


def test_one_that_is_not_worse_is_deployed_where_that_is_enough(
    name: str, compared: Callable[..., dict[str, Any]]
) -> None:
    gate = {"measured": compared(0.0), "require": "not_worse", "margin": 0.01}

    assert execute(best(name, gate=gate))["action"] == "updated"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"champion": 9}, "it was compared with version 9"),
        ({"deployment": "staging"}, "it was compared for deployment 'staging', not for 'measured"),
        ({"at": 1000.0}, "more than the 3600 s of gate.max_age"),
    ],
)
def test_a_comparison_of_something_else_is_not_used(
    name: str, compared: Callable[..., dict[str, Any]], more: dict[str, Any], reason: str
) -> None:
    gate = {"measured": compared(0.1, **more), "max_age": 3600}

    with pytest.raises(AirflowSkipException, match=reason):
        execute(best(name, gate=gate, if_not_better="skip"))


def test_a_plan_and_its_approval_show_the_numbers_and_the_report(
    name: str, compared: Callable[..., dict[str, Any]]
) -> None:
    ti = FakeTaskInstance()
    plan = execute(best(name, gate={"measured": compared(0.1)}, plan_only=True), ti)

    assert (plan["action"], plan["model_version"]) == ("planned", 2)
    assert plan["measured"]["report"] == "s3://results/report.html"
    assert plan["measured"]["interval"][0] > 0
    logged = Record(**plan).summary()
    assert re.search(r"measured +accuracy of version 2: 0\.\d+, served: 0\.\d+, .* on 1000 rows", logged)
    assert re.search(r"note +No time_column is given", logged)
    assert re.search(r"report +s3://results/report\.html", logged)
    assert ti.pushed["measured"] == plan["measured"]
    record = execute(
        DeployModelOperator(task_id="deploy", model_name=name, model_version=2, plan=plan, poll_interval=0.2)
    )
    assert record["action"] == "updated"


@pytest.mark.airflow
def test_a_measurement_comes_from_a_template(name: str) -> None:
    operator = best(name, gate={"measured": "{{ params.measured }}", "require": "not_worse", "margin": 0.01})

    operator.render_template_fields({"params": {"measured": "[]"}})

    assert operator.gate["measured"] == "[]"
    with pytest.raises(AirflowFailException, match=r"gate\.measured: expected the result of CompareModelsOperator"):
        execute(operator)


@pytest.mark.airflow
@pytest.mark.parametrize("empty", [None, "", "None", []])
def test_a_measurement_that_arrives_empty_is_an_error(serving: LocalServing, name: str, empty: Any) -> None:
    operator = best(name, gate={"measured": "{{ ti.xcom_pull('compare') }}"})

    with pytest.raises(AirflowFailException, match=r"gate\.measured: expected"):
        execute(rendered(operator, gate={"measured": empty}))

    assert changes(serving) == []


def test_a_gate_may_come_from_elsewhere_as_a_whole(name: str, compared: Callable[..., dict[str, Any]]) -> None:
    """None has a meaning in a comparison; in the gate itself it is a value that has not arrived."""
    comparison = compared(0.1)
    assert comparison["groups"] is None

    operator = best(name, gate="{{ params.gate }}")
    assert execute(rendered(operator, gate={"measured": comparison}))["action"] == "updated"
    with pytest.raises(AirflowFailException, match=r"gate\.margin: expected a value from the template"):
        execute(rendered(best(name, gate="{{ params.gate }}"), gate={"measured": comparison, "margin": None}))


@pytest.mark.airflow
def test_fields_are_checked_when_the_dag_is_parsed(name: str) -> None:
    with pytest.raises(ValueError, match=r"gate\.require: expected one of better, not_worse"):
        best(name, gate={"measured": "{{ params.measured }}", "require": "no_worse"})
