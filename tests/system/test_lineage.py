"""What OpenLineage hears of a real Airflow: which version of a model went into which deployment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_hsml.local import LocalServing
from tests.conftest import HOPSWORKS, run_model
from tests.support import commands, pace

pytestmark = [pytest.mark.airflow, pytest.mark.whole_airflow]

DAG = """
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_hsml import DeployBestModelOperator, DeployModelOperator, RegisterModelOperator

with DAG("night", schedule=None):
    register = RegisterModelOperator(
        task_id="register",
        model_name="churn",
        model_path=Path(__file__).with_name("model"),
        framework="SKLEARN",
        metrics={"auc": 0.8},
    )
    plan = DeployBestModelOperator(task_id="plan", model_name="churn", metric="auc", direction="max", plan_only=True)
    deploy = DeployBestModelOperator(task_id="deploy", model_name="churn", metric="auc", direction="max")
    again = DeployBestModelOperator(task_id="again", model_name="churn", metric="auc", direction="max")
    refused = DeployModelOperator(task_id="refused", model_name="churn", model_version=9)
    register >> plan >> deploy >> again >> refused
"""


Named = dict[str, list[tuple[str, str, str | None]]]
"""Task -> namespace, name and version of data sets."""


@dataclass
class Heard:
    """What OpenLineage has heard."""

    namespace: str
    """The cluster's."""
    inputs: Named
    outputs: Named
    failed: list[str]
    text: str
    log: str


def named(event: dict[str, Any], what: str) -> list[tuple[str, str, str | None]]:
    """Give the data sets in an event."""
    return [
        (one["namespace"], one["name"], one.get("facets", {}).get("version", {}).get("datasetVersion"))
        for one in event[what]
    ]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """One night of a real Airflow, with OpenLineage's provider, which writes to a file."""
    folder, home = tmp_path_factory.mktemp("dags"), tmp_path_factory.mktemp("airflow")
    (folder / "dags.py").write_text(DAG)
    (folder / "model").mkdir()
    (folder / "model" / "model.joblib").write_text('{"answer": 7}')
    transport = {"type": "file", "log_file_path": str(home / "events"), "append": True}
    with LocalServing(engine=run_model, hopsworks_version=HOPSWORKS) as serving:
        environment = commands.environment(
            home,
            AIRFLOW__CORE__DAGS_FOLDER=str(folder),
            AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps(transport),
            AIRFLOW_CONN_HSML_DEFAULT=serving.connection,
        )
        commands.migrate(home)
        pace.hurry(home)
        todo = [("dags", "reserialize"), ("dags", "test", "night", "2026-11-01")]
        log = commands.run(todo, environment)[-1].output
    text = (home / "events").read_text()
    ended = {
        event["job"]["name"].removeprefix("night."): event
        for event in map(json.loads, text.splitlines())
        if event["eventType"] in ("COMPLETE", "FAIL") and event["job"]["name"] != "night"
    }
    return Heard(
        namespace="hopsworks://" + serving.url.partition("://")[2],
        inputs={task: named(event, "inputs") for task, event in ended.items()},
        outputs={task: named(event, "outputs") for task, event in ended.items()},
        failed=[task for task, event in ended.items() if event["eventType"] == "FAIL"],
        text=text,
        log=log,
    )


@pytest.mark.parametrize("task", ["deploy", "again"])
def test_a_version_went_into_a_deployment(heard: Heard, task: str) -> None:
    assert heard.inputs[task] == [(heard.namespace, "example/models/churn", "1")]
    assert heard.outputs[task] == [(heard.namespace, "example/deployments/churn", None)]


def test_a_version_was_registered(heard: Heard) -> None:
    assert (heard.inputs["register"], heard.outputs["register"]) == ([], heard.inputs["deploy"])


@pytest.mark.parametrize("task", ["plan", "refused"])
def test_nothing_is_said_of_a_plan_or_a_failure(heard: Heard, task: str) -> None:
    assert (heard.inputs[task], heard.outputs[task]) == ([], [])
    assert heard.failed == ["refused"]


def test_nothing_is_wrong_with_it(heard: Heard) -> None:
    assert "non-valid metadata" not in heard.log
    assert "OpenLineage method failed" not in heard.log


def test_the_key_is_not_in_it(heard: Heard, serving: LocalServing) -> None:
    assert serving.api_key not in heard.text
