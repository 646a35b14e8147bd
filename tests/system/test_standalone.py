"""Deferred tasks in a real Airflow whose triggerer dies, and in which people kill and clear tasks."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.local.cluster.faults import Hold
from tests.conftest import run_model
from tests.support import commands
from tests.support.real_airflow import Airflow
from tests.system.test_example_dags import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="Airflow 3.3 and later tell a trigger that its task was killed"),
]

DAGS = """
from airflow.sdk import DAG, task
from airflow_provider_hsml import DeployModelOperator

more = {
    "stop": {"when_killed": "stop"},
    "killed": {"when_killed": "stop"},
    "late": {"timeout": 90},
    "lying": {"model_name": "lying"},
}
for name in ("restarted", "updated", "late", "leave", "stop", "killed", "cleared", "lying"):
    with DAG(name, schedule=None):
        DeployModelOperator(
            **{
                "task_id": "deploy",
                "model_name": "digits",
                "deployment_name": name,
                "deferrable": True,
                "poll_interval": 1,
                **more.get(name, {}),
            }
        )

with DAG("another", schedule=None):
    task(lambda: None, task_id="runs")()
"""


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[Airflow]:
    """A scheduler that has one slot, and all that it needs, but for the triggerer."""
    from airflow_provider_hsml.local import LocalServing

    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "waits.py").write_text(DAGS)
    with LocalServing(engine=run_model) as serving, contextlib.ExitStack() as stack:
        airflow = Airflow.beside(
            serving,
            tmp_path,
            tmp_path / "dags",
            AIRFLOW__CORE__PARALLELISM="1",
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        )
        commands.migrate(tmp_path)
        for program in ("api-server", "dag-processor", "scheduler"):
            stack.enter_context(airflow.started(program))
        airflow.until(airflow.answers)
        airflow.until(lambda: len(airflow.rows("SELECT dag_id FROM dag")) == 9)
        yield airflow


def test_deferred_tasks_outlive_the_triggerer_and_end_when_people_end_them(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serving = airflow.serving
    monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
    two_versions_of_which_one_serves(tmp_path)
    tell = airflow.api()

    def state(dag: str) -> str:
        rows = airflow.rows(f"SELECT state FROM task_instance WHERE dag_id = '{dag}'")  # noqa: S608 - a name of ours
        return str(rows[0][0]) if rows else ""

    def run(dag: str) -> None:
        tell("POST", f"dags/{dag}/dagRuns", {"dag_run_id": "one", "logical_date": None})

    def held(dag: str) -> int:
        """Run a DAG until its task waits for a deployment that does not come up."""
        number = serving.faults.add(Hold(dag, "Running"))
        run(dag)
        airflow.until(lambda: state(dag) == "deferred")
        return number

    def kill(dag: str) -> None:
        tell("PATCH", f"dags/{dag}/dagRuns/one/taskInstances/deploy", {"new_state": "failed"})

    def clear(dag: str) -> None:
        what = {"dry_run": False, "task_ids": ["deploy"], "dag_run_id": "one", "only_failed": False}
        tell("POST", f"dags/{dag}/clearTaskInstances", what)

    def waits(dag: str, looks: int = 0) -> None:
        """Wait until the triggerer has looked at a deployment."""
        before = asked(airflow, "GET", dag)
        airflow.until(lambda: asked(airflow, "GET", dag) > before + looks)

    # The triggerer is killed in the midst of a wait, which holds no slot of a worker.
    with airflow.started("triggerer"):
        held_up = [held("restarted"), held("updated")]
        held("late")
        run("another")
        airflow.until(lambda: state("another") == "success")
        airflow.until(lambda: asked(airflow, "GET", "restarted") > 5)
    with airflow.started("triggerer"):
        again = time.monotonic()
        waits("restarted", looks=2)
        assert (state("restarted"), state("updated"), state("late")) == ("deferred",) * 3
        for number in held_up:
            serving.faults.remove(number)
        airflow.until(lambda: (state("restarted"), state("updated")) == ("success", "success"))
        assert asked(airflow, "POST", "restarted") == 1, "one START"
        assert len(changes(airflow, "updated")) == 2, "it was created, and updated once"
        assert deployed(airflow, "updated")["answering"] == 2

        # Its timeout went on while there was no triggerer.
        airflow.until(lambda: state("late") != "deferred")
        assert time.monotonic() < again + 90
        airflow.until(lambda: state("late") == "failed")

        # What answers wrongly is taken back.
        run("lying")
        airflow.until(lambda: state("lying") == "failed")
        assert {body["modelVersion"] for body in changes(airflow, "lying")} == {1, 2}
        assert HsmlHook().predict("lying", instances=[[0.0]]) == {"predictions": [1]}

        # A person kills it.
        for dag, stops in (("leave", 0), ("stop", 1)):
            held(dag)
            waits(dag)
            kill(dag)
            airflow.until(lambda stops=stops, dag=dag: asked(airflow, "POST", dag) == 1 + stops)  # type: ignore[misc]
            assert state(dag) == "failed"
        serving.faults.clear()
        assert deployed(airflow, "stop")["status"] in {"Stopping", "Stopped"}
        airflow.until(lambda: deployed(airflow, "leave")["status"] == "Running")

        # A person kills an update: what served goes on, and nothing is stopped.
        held("killed")
        waits("killed")
        starts, trigger = asked(airflow, "POST", "killed"), trigger_of(airflow, "killed")
        kill("killed")
        airflow.until(lambda: not airflow.rows(f"SELECT id FROM trigger WHERE id = {trigger}"))  # noqa: S608 - a number
        serving.faults.clear()
        airflow.until(lambda: deployed(airflow, "killed")["answering"] == 2)
        assert asked(airflow, "POST", "killed") == starts

        # A person clears it while it waits: it goes on with what is under way.
        held("cleared")
        tries = tries_of(airflow, "cleared")
        clear("cleared")
        airflow.until(lambda: state("cleared") == "deferred" and tries_of(airflow, "cleared") > tries)
        serving.faults.clear()
        airflow.until(lambda: state("cleared") == "success")
        assert asked(airflow, "POST", "cleared") == 1, "one START"

        # A person clears what was killed.
        clear("stop")
        airflow.until(lambda: state("stop") == "success")
        assert deployed(airflow, "stop")["status"] == "Running"


def deployed(airflow: Airflow, name: str) -> dict[str, Any]:
    shown = airflow.serving.world.project(airflow.serving.project_id).deployments.all_shown()
    return next((row for row in shown if row["name"] == name), {"id": None})


def trigger_of(airflow: Airflow, dag: str) -> int | None:
    rows = airflow.rows(f"SELECT trigger_id FROM task_instance WHERE dag_id = '{dag}'")  # noqa: S608 - a name of ours
    return rows[0][0] if rows else None


def tries_of(airflow: Airflow, dag: str) -> int:
    rows = airflow.rows(f"SELECT try_number FROM task_instance WHERE dag_id = '{dag}'")  # noqa: S608 - a name of ours
    return int(rows[0][0])


def two_versions_of_which_one_serves(folder: Path) -> None:
    """Register two versions of each model, and deploy the first; the second of one answers what nobody expects."""
    hook, rows = HsmlHook(), [[0.0], [1.0]]
    file = folder / "model.joblib"
    for version in (1, 2):
        for model, answer in (("digits", version), ("lying", 1 if version == 1 else 66)):
            file.write_text(json.dumps({"answer": answer}))
            expected = {"instances": rows, "predictions": [version] * 2}
            hook.register_model(
                model_name=model, model_path=file, framework="SKLEARN", input_example=rows, expected=expected
            )
    for name, model in (("updated", "digits"), ("killed", "digits"), ("lying", "lying")):
        hook.deploy_model(model, 1, deployment_name=name, poll_interval=0.5)


def changes(airflow: Airflow, name: str) -> list[dict[str, Any]]:
    """Give what a deployment was told to be."""
    path = f"/project/{airflow.serving.project_id}/serving"
    told = (one.body for one in airflow.serving.requests.where("PUT", path) if one.path == path)
    return [body for body in told if body["name"] == name]


def asked(airflow: Airflow, method: str, name: str) -> int:
    """Count the looks at a deployment, or what it was told."""
    path = f"/project/{airflow.serving.project_id}/serving/{deployed(airflow, name)['id']}"
    return sum(one.path == path for one in airflow.serving.requests.where(method, path))
