"""The example DAGs that keep production in order, run by a real Airflow: back by hand, clearing up, restarting."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support import commands, pace
from tests.support.real_airflow import Airflow
from tests.system.test_example_dags import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.airflow, pytest.mark.whole_airflow]


@pytest.fixture
def airflow(serving: LocalServing, tmp_path: Path) -> Airflow:
    """An Airflow whose tasks wait for less long, as the tests do."""
    commands.migrate(tmp_path)
    pace.hurry(tmp_path)
    return Airflow.beside(serving, tmp_path, FOLDER)


def test_back_by_hand_then_what_is_old_is_deleted_and_what_is_named_is_restarted_and_retired(
    airflow: Airflow, hook: HsmlHook, register: Callable[..., int]
) -> None:
    versions = [register("digits", number, accuracy=accuracy) for number, accuracy in enumerate((0.7, 0.95, 0.9, 0.91))]
    for version in versions[2:]:
        hook.deploy_model("digits", version)
    for name in ("shadow1", "shadow2"):
        hook.save_deployment(deployment_name=name, model_name="digits", model_version=versions[0])
    names = json.dumps({"keep": 1, "retire": ["shadow1", "shadow2"], "restart": ["digits"]})

    back, weekly, by_hand = commands.run(
        [
            ("dags", "test", "roll_back"),
            ("dags", "test", "maintenance"),
            ("dags", "test", "maintenance", "2026-11-01", "--conf", names),
        ],
        airflow.environment,
    )

    assert back.code == "0", back.output
    assert hook.get_deployment("digits").model_version == versions[2]
    assert weekly.code == "0", weekly.output
    assert by_hand.code == "0", by_hand.output
    assert not [found for found in hook.get_deployments() if found.name.startswith("shadow")]
    assert [model.version for model in hook.get_models("digits")] == versions[1:]
    tasks = airflow.rows(
        "SELECT run_id, task_id, rendered_map_index, state FROM task_instance WHERE dag_id = 'maintenance' "
        "ORDER BY run_id, task_id, rendered_map_index"
    )
    runs = [[tuple(row) for run, *row in tasks if run == one] for one in {run for run, *_ in tasks}]
    assert sorted(runs, key=len) == [
        [
            ("clear_up", "model digits", "success"),
            ("remove_side_deployments", None, "success"),
            ("restart", None, "skipped"),
            ("retire", None, "skipped"),
            ("to_restart", None, "success"),
            ("to_retire", None, "success"),
        ],
        [
            ("clear_up", "model digits", "success"),
            ("remove_side_deployments", None, "success"),
            ("restart", "deployment digits", "success"),
            ("retire", "deployment shadow1", "success"),
            ("retire", "deployment shadow2", "success"),
            ("to_restart", None, "success"),
            ("to_retire", None, "success"),
        ],
    ]
