"""The example DAGs that events start: a new version in the registry, and a new version in production."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.triggers.models import EVENT_STORED_AFTER
from tests.conftest import HOPSWORKS
from tests.support import commands, pace
from tests.support.real_airflow import Airflow
from tests.system.test_example_dags import AIRFLOW, FOLDER, HAS_WATCHERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_hsml.local import ModelFiles

pytest.importorskip("sklearn", reason="one of the examples scores scikit-learn's images")
pytestmark = [pytest.mark.airflow, pytest.mark.whole_airflow]


HAS_STORE = AIRFLOW >= (3, 3)
"""Whether this Airflow remembers what was told of an asset."""


def load_model(model: ModelFiles) -> Callable[[Any], list[int]]:
    """Answer the version: who asks knows which one it was."""
    return lambda rows: [model.version or 0] * len(rows)


def looks(airflow: Airflow) -> int:
    """Count the looks at the registry."""
    serving = airflow.serving
    registry = f"/project/{serving.project_id}/modelregistries/{serving.project_id}"
    return len(serving.requests.where("GET", f"{registry}/models"))


def register(airflow: Airflow, accuracy: float) -> None:
    airflow.serving.world.register_model("digits", {"model.joblib": b"{}"}, metrics={"accuracy": accuracy})


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[Airflow]:
    from airflow_provider_hsml.local import LocalServing

    dags = tmp_path / "dags"
    dags.mkdir()
    for name in ("promote_on_new_version", "score_on_promotion"):
        if name != "promote_on_new_version" or HAS_WATCHERS:
            text = (FOLDER / f"{name}.py").read_text()
            (dags / f"{name}.py").write_text(
                text.replace('metric="accuracy"))', 'metric="accuracy", poll_interval=1))')
            )
    with LocalServing(engine=load_model, hopsworks_version=HOPSWORKS) as serving:
        yield Airflow.beside(serving, tmp_path, dags)


@pytest.mark.skipif(not HAS_WATCHERS, reason="Airflow 3 and later watch assets")
def test_a_new_version_starts_a_dag_and_it_is_promoted_and_scored(airflow: Airflow) -> None:
    """Airflow's own triggerer watches; the DAGs that wait to be started are then run one after another."""
    # The first time an asset is seen, Airflow 3.0 does not watch it yet.
    commands.migrate(airflow.home)
    pace.hurry(airflow.home)
    asked = [("dags", "reserialize")] * 2
    assert [one.code for one in commands.run(asked, airflow.environment)] == ["0"] * 2
    register(airflow, 0.8)
    airflow.serving.requests.clear()
    with airflow.started("triggerer"):
        airflow.until(lambda: looks(airflow) > 1)
        register(airflow, 0.9)
        airflow.until(lambda: airflow.rows("SELECT * FROM asset_dag_run_queue"))

    ((extra,),) = airflow.rows("SELECT extra FROM asset_event")
    assert json.loads(extra)["payload"]["model_version"] == 2
    assert airflow.rows("SELECT target_dag_id FROM asset_dag_run_queue") == [("promote_on_new_version",)]

    runs = [("dags", "test", "promote_on_new_version"), ("dags", "test", "score_on_promotion")]
    promoted, scored = commands.run(runs, airflow.environment)
    assert promoted.code == "0", promoted.output
    assert "version 2 (accuracy 0.9)" in promoted.output
    assert scored.code == "0", scored.output
    assert json.loads((airflow.home / "scored" / "digits_2.json").read_text())["predictions"] == [2] * 20


@pytest.mark.slow
@pytest.mark.skipif(not HAS_WATCHERS, reason="Airflow 3 and later watch assets")
def test_each_version_once_all_by_itself_also_when_airflow_is_killed_in_between(airflow: Airflow) -> None:
    """Nobody runs a DAG: Airflow's scheduler starts both, and what it scores carries what the event said."""
    register(airflow, 0.8)
    for version, accuracy in ((2, 0.9), (3, 0.95)):
        if HAS_STORE and version == 3:
            register(airflow, accuracy)  # While nobody watches.
        airflow.serving.requests.clear()
        with airflow.started("standalone"):
            airflow.until(airflow.answers)
            airflow.until(lambda: looks(airflow) > 1)
            if not (HAS_STORE and version == 3):
                register(airflow, accuracy)
            scored = airflow.home / "scored" / f"digits_{version}.json"
            airflow.until(scored.exists)
            time.sleep(2 * EVENT_STORED_AFTER)

        assert json.loads(scored.read_text()) == {
            "model_version": version,
            "metric_value": accuracy,
            "predictions": [version] * 20,
        }
    events = airflow.rows("SELECT extra FROM asset_event WHERE extra LIKE '%payload%' ORDER BY id")
    runs = airflow.rows("SELECT dag_id, run_type FROM dag_run ORDER BY dag_id")

    assert [json.loads(extra)["payload"]["model_version"] for (extra,) in events] == [2, 3]
    assert runs == [(dag, "asset_triggered") for dag in ("promote_on_new_version", "score_on_promotion") for _ in "23"]


def test_what_the_event_says_goes_with_the_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 2 gives the events another name."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("score_on_promotion", FOLDER / "score_on_promotion.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    events = [
        SimpleNamespace(timestamp=number, extra={"model_version": number, "metric_value": 0.9, "action": "updated"})
        for number in (3, 4)
    ]
    for name in ("triggering_asset_events", "triggering_dataset_events"):
        monkeypatch.setattr(module, "get_current_context", lambda name=name: {name: {module.DEPLOYED.uri: events}})
        assert module.promoted.function() == {"model_version": 4, "metric_value": 0.9}
