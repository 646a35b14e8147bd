"""Running jobs in a real Airflow whose worker is shut down, or whose task is marked as failed."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from airflow_provider_hsml.local import LocalServing
from tests.conftest import HOPSWORKS, run_model
from tests.support import commands
from tests.support.real_airflow import Airflow
from tests.system.test_example_dags import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="Airflow 3.3 and later forward the signal to tasks"),
]

DAGS = """
from datetime import datetime
from airflow.sdk import DAG
from airflow_provider_hsml import RunHopsworksJobOperator

for name in ("evicted", "marked"):
    with DAG(name, schedule="@once", start_date=datetime(2026, 1, 1), catchup=False):
        RunHopsworksJobOperator(task_id="train", job_name=name, poll_interval=0.5, retries=3, retry_delay=1)
"""


def supervisors() -> Iterator[psutil.Process]:
    """Find the processes that supervise a task: workers of the LocalExecutor with a child."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "LocalExecutor" in "".join(process.cmdline()) and process.children():
                yield process


def test_a_worker_that_is_shut_down_starts_no_second_execution(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "dags.py").write_text(DAGS)
    done = tmp_path / "done"
    with LocalServing(engine=run_model, hopsworks_version=HOPSWORKS) as serving:
        jobs = serving.world.project(serving.project_id).jobs
        wait = f"import os, time\nwhile not os.path.exists({str(done)!r}): time.sleep(0.1)"
        for name in ("evicted", "marked"):
            jobs.declare(name, wait)
        airflow = Airflow.beside(
            serving,
            tmp_path,
            tmp_path / "dags",
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        )
        commands.migrate(tmp_path)

        def states(name: str) -> list[str]:
            return [one["state"] for one in jobs.executions.find(jobs.get(name), "id:asc")]

        def task(dag: str) -> tuple[Any, ...]:
            newest = f"FROM task_instance WHERE dag_id = '{dag}' ORDER BY try_number DESC"
            return next(iter(airflow.rows(f"SELECT state, try_number, run_id {newest}")), (None, None, None))

        with contextlib.ExitStack() as stack:
            for program in ("api-server", "dag-processor"):
                stack.enter_context(airflow.started(program))
            airflow.until(airflow.answers)
            stack.enter_context(airflow.started("scheduler"))
            airflow.until(lambda: (states("evicted"), states("marked")) == (["RUNNING"], ["RUNNING"]), 240)

            run = task("marked")[2]
            airflow.api()("PATCH", f"dags/marked/dagRuns/{run}/taskInstances/train", {"new_state": "failed"})
            airflow.until(lambda: states("marked") == ["KILLED"])

            airflow.until(lambda: len(list(supervisors())) == 1)
            next(supervisors()).send_signal(signal.SIGTERM)
            airflow.until(lambda: task("evicted")[:2] == ("running", 2))
            done.touch()
            airflow.until(lambda: task("evicted")[0] == "success")

        assert states("evicted") == ["FINISHED"]
        assert task("marked")[:2] == ("failed", 1)
