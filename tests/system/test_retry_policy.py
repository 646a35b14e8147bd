"""Tasks with ``HopsworksRetryPolicy`` in a real Airflow, whose scheduler runs them again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.local import Administration, LocalServing, Quota
from tests.conftest import HOPSWORKS, run_model
from tests.support import commands
from tests.support.real_airflow import Airflow
from tests.system.test_example_dags import AIRFLOW

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="Airflow 3.3 and later have retry policies"),
]

DAGS = """
from datetime import datetime
from airflow.sdk import DAG, task
from airflow_provider_hsml import StartDeploymentOperator
from airflow_provider_hsml.hopsworks.errors import UnexpectedResponseError
from airflow_provider_hsml.retry_policy import HopsworksRetryPolicy

policy = HopsworksRetryPolicy(capacity_delay=8, capacity_timeout=600)
args = {"retries": 20, "retry_delay": 1, "retry_policy": policy}
once = {"schedule": "@once", "start_date": datetime(2026, 1, 1), "catchup": False, "default_args": args}

with DAG("limited", **once):
    StartDeploymentOperator(task_id="start", deployment_name="second", poll_interval=1)

with DAG("missing", **once):
    StartDeploymentOperator(task_id="start", deployment_name="nowhere")

with DAG("asked", **once):

    @task
    def start():
        raise UnexpectedResponseError("busy", status=503, retry_after=3000)

    start()
"""


CAN_RESCHEDULE = AIRFLOW >= (3, 4)


def test_a_task_waits_for_its_quota_and_for_the_server_and_not_after_a_permanent_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "dags.py").write_text(DAGS)
    administration = Administration(quota=Quota(running=1))
    with LocalServing(engine=run_model, administration=administration, hopsworks_version=HOPSWORKS) as serving:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        hook = HsmlHook()
        serving.world.register_model("digits", {"model.joblib": b'{"answer": 7}'})
        second = hook.save_deployment(deployment_name="second", model_name="digits").id
        hook.stop_deployment("second")
        hook.save_deployment(deployment_name="first", model_name="digits")
        serving.requests.clear()
        # Programs that are started one by one must share the secret that signs their tokens.
        airflow = Airflow.beside(serving, tmp_path, tmp_path / "dags")
        commands.migrate(tmp_path)

        def starts() -> int:
            return len(serving.requests.where("POST", f"/project/{serving.project_id}/serving/{second}"))

        def task(dag: str, *columns: str) -> tuple[Any, ...]:
            # Airflow 3.4 has a row for each try.
            newest = f"FROM task_instance WHERE dag_id = '{dag}' ORDER BY try_number DESC"
            return next(iter(airflow.rows(f"SELECT {', '.join(columns)} {newest}")), (None,))

        with contextlib.ExitStack() as stack:
            for program in ("api-server", "dag-processor"):
                stack.enter_context(airflow.started(program))
            airflow.until(airflow.answers)
            stack.enter_context(airflow.started("scheduler"))
            airflow.until(lambda: starts() == 2, 240)
            # It is tried once more at most before the quota is free, and not before 8 s are over.
            state = "up_for_reschedule" if CAN_RESCHEDULE else "up_for_retry"
            airflow.until(lambda: task("limited", "state") == (state,))
            if CAN_RESCHEDULE:
                first, *_ = airflow.rows("SELECT unixepoch(reschedule_date) - unixepoch(end_date) FROM task_reschedule")
                assert first == (8,)
            else:
                reason = "Hopsworks has no room, or a quota is reached"
                assert task("limited", "retry_delay_override", "retry_reason") == (8, reason)
            hook.stop_deployment("first")
            airflow.until(lambda: task("limited", "state") == ("success",))
            airflow.until(lambda: task("missing", "state") == ("failed",))
            airflow.until(lambda: task("asked", "state") == ("up_for_retry",))

        assert task("limited", "try_number") == ((1 if CAN_RESCHEDULE else starts()),)
        assert task("missing", "try_number") == (1,)
        assert task("asked", "retry_delay_override") == (3000,)
