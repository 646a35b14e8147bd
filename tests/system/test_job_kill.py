"""A worker that is killed with -9 while it runs a job: whenever that is, its retry ends with one execution."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import HOPSWORKS, run_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.local import LocalServing

ROOT = Path(__file__).parents[2]
_numbers = itertools.count()
MOMENTS = {
    "before the record": {"method": "POST", "path": "/dataset/upload/", "number": 1, "after": False},
    "after the record, before the start": {"method": "POST", "path": "/executions", "number": 1, "after": False},
    "after the start": {"method": "POST", "path": "/executions", "number": 1, "after": True},
    "after the execution is recorded": {"method": "POST", "path": "/dataset/upload/", "number": 2, "after": True},
    "while it waits": {"method": "GET", "path": "/executions/", "number": 3, "after": True},
    "before the end is recorded": {"method": "POST", "path": "/dataset/upload/", "number": 3, "after": False},
    "after the end is recorded": {"method": "POST", "path": "/dataset/upload/", "number": 3, "after": True},
}


@pytest.fixture(scope="module")
def own_serving() -> Iterator[LocalServing]:
    from airflow_provider_hsml.local import LocalServing

    with LocalServing(engine=run_model, hopsworks_version=HOPSWORKS) as serving:
        yield serving


def executions(serving: LocalServing, job: str) -> list[dict[str, Any]]:
    jobs = serving.world.project(serving.project_id).jobs
    return jobs.executions.find(jobs.get(job), "id:asc")


@pytest.fixture(scope="module")
def tasks(own_serving: LocalServing) -> Iterator[Callable[..., dict[str, Any]]]:
    """Does a task in a process of its own, and tells how it ended."""
    env = {**os.environ, "AIRFLOW_CONN_HSML_DEFAULT": own_serving.connection}
    command = [sys.executable, "-m", "tests.support.mortal_job_worker"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def do(job: str, **wish: Any) -> dict[str, Any]:
            print(json.dumps({"job": job, "key": f"dag/{job}/task/-1@1", **wish}), file=stdin, flush=True)
            return dict(json.loads(stdout.readline()))

        yield do
        stdin.close()


@pytest.mark.hopsworks
@pytest.mark.parametrize("moment", MOMENTS)
def test_its_retry_starts_no_second_execution(
    own_serving: LocalServing, tasks: Callable[..., dict[str, Any]], moment: str
) -> None:
    job = f"killed{next(_numbers)}"
    own_serving.world.project(own_serving.project_id).jobs.declare(job, "import time; time.sleep(1)")

    assert tasks(job, **MOMENTS[moment]) == {"killed": signal.SIGKILL}
    result = tasks(job)

    (only,) = executions(own_serving, job)
    assert result == {"id": only["id"], "state": "FINISHED"}
