"""Asset events of runs with and without a partition key, and the DAGs that a real Airflow starts for them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hsml.local import LocalServing
from tests.conftest import HOPSWORKS
from tests.support import commands, pace
from tests.support.real_airflow import Airflow
from tests.system.test_example_dags import AIRFLOW, FOLDER
from tests.system.test_example_events import load_model, register

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("sklearn", reason="the example scores scikit-learn's images")
pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.skipif(AIRFLOW < (3, 2), reason="Airflow 3.2 and later have partition keys"),
]

PRODUCERS = """
from datetime import datetime
from airflow.sdk import DAG, AssetAlias, CronPartitionTimetable
from airflow_provider_hsml import DeployBestModelOperator

daily = CronPartitionTimetable("0 0 * * *", timezone="UTC", key_format="%Y-%m-%d", run_immediately=True)
for name, schedule in (("with_key", daily), ("without_key", None)):
    with DAG(
        name,
        schedule=schedule,
        start_date=datetime(2026, 1, 1),
        catchup=False,
        is_paused_upon_creation=schedule is not None,
        default_args={"retries": 2, "retry_delay": 1},
    ):
        DeployBestModelOperator(
            task_id="deploy",
            model_name="digits",
            metric="accuracy",
            direction="max",
            outlets=[AssetAlias("in_production")],
        )
"""


def by_partition(example: str) -> str:
    """Change the example as docs/guides/events.md says."""
    for old, new in (
        ('    "score_on_promotion",\n    schedule=[DEPLOYED]', None),
        ("from airflow_provider_hsml", "from airflow.sdk import PartitionedAssetTimetable\nfrom airflow_provider_hsml"),
        ('"scored"', '"scored_by_partition"'),
    ):
        assert old in example
        example = example.replace(
            old, new or '    "by_partition",\n    schedule=PartitionedAssetTimetable(assets=DEPLOYED)', 1
        )
    return example


def test_a_key_goes_through_the_alias_and_starts_partitioned_dags_alone(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    example = (FOLDER / "score_on_promotion.py").read_text()
    (dags / "producers.py").write_text(PRODUCERS)
    (dags / "plain.py").write_text(example)
    (dags / "by_partition.py").write_text(by_partition(example))
    with LocalServing(engine=load_model, hopsworks_version=HOPSWORKS) as serving, contextlib.ExitStack() as stack:
        # Programs that are started one by one must share the secret that signs their tokens.
        airflow = Airflow.beside(
            serving,
            tmp_path,
            dags,
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        )
        commands.migrate(tmp_path)
        pace.hurry(tmp_path)
        for program in ("api-server", "dag-processor"):
            stack.enter_context(airflow.started(program))
        airflow.until(airflow.answers)
        airflow.until(lambda: len(airflow.rows("SELECT dag_id FROM dag")) == 4)
        stack.enter_context(airflow.started("scheduler"))
        tell = airflow.api()

        register(airflow, 0.8)
        tell("POST", "dags/without_key/dagRuns", {"dag_run_id": "one", "logical_date": None})
        airflow.until((tmp_path / "scored" / "digits_1.json").exists, 300)
        register(airflow, 0.9)
        tell("PATCH", "dags/with_key", {"is_paused": False})
        scored = tmp_path / "scored_by_partition" / "digits_2.json"
        airflow.until(scored.exists, 300)
        runs = "SELECT dag_id, partition_key FROM dag_run ORDER BY start_date"
        airflow.until(lambda: len(airflow.rows(runs)) == 4)

        ((key,),) = airflow.rows("SELECT partition_key FROM dag_run WHERE dag_id = 'with_key'")
        assert key
        assert airflow.rows(runs) == [
            ("without_key", None),
            ("score_on_promotion", None),
            ("with_key", key),
            ("by_partition", key),
        ]
        assert airflow.rows("SELECT partition_key FROM asset_event ORDER BY id") == [(None,), (key,)]
        assert not airflow.rows("SELECT * FROM asset_dag_run_queue")
        told = json.loads(scored.read_text())
        assert (told["model_version"], told["metric_value"]) == (2, 0.9), "the run has the event"
        assert airflow.rows("SELECT count(*) FROM log WHERE event = 'missing partition key'") == [(1,)]
        (log,) = tmp_path.glob("logs/dag_id=with_key/**/attempt=*.log")
        assert f"partition key '{key}': it starts only DAGs on a PartitionedAssetTimetable" in log.read_text()
