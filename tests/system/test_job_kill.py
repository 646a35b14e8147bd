"""A worker that is killed with -9 while it runs a job: whenever that is, its retry ends with one execution."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import HOPSWORKS, run_model
from tests.support import commands, pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.local import LocalServing

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "example_dags"
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
TRAINS = """
import base64, json, os, sys, urllib.request

files = {"model.joblib": json.dumps({"answer": 7}).encode()}
base = f"{os.environ['REST_ENDPOINT']}/hopsworks-api/api/project/{os.environ['HOPSWORKS_PROJECT_ID']}"
key = open(os.path.join(os.environ["SECRETS_DIR"], "api.key")).read().strip()

def ask(method, path, body=b"", kind="application/json"):
    headers = {"Authorization": f"ApiKey {key}", "Content-Type": kind}
    return urllib.request.urlopen(urllib.request.Request(base + path, body, headers, method=method))

for folder in FOLDERS:
    ask("POST", f"/dataset/{folder}?action=create")
part = b"--x\\r\\nContent-Disposition: form-data; name=\\"file\\"; filename=\\"model.joblib\\"\\r\\n\\r\\n"
ask("POST", f"/dataset/upload/{FOLDERS[-1]}", part + files["model.joblib"] + b"\\r\\n--x--\\r\\n",
    "multipart/form-data; boundary=x")
body = {"id": "churn_1", "name": "churn", "version": 1, "framework": "SKLEARN", "metrics": {"attributes": {"auc": 0.9}}}
ask("PUT", f"/modelregistries/{os.environ['HOPSWORKS_PROJECT_ID']}/models/churn_1", json.dumps(body).encode())
print("trained for", sys.argv[1:])
"""


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


@pytest.mark.airflow
def test_a_job_trains_and_airflow_deploys(own_serving: LocalServing, tmp_path: Path) -> None:
    """The example, run by a real Airflow: the job registers a version, and the DAG deploys it."""
    serving = own_serving
    folders = ["Models/churn", "Models/churn/1", *(["Models/churn/1/Files"] if HOPSWORKS != "3.7" else [])]
    trains = TRAINS.replace("FOLDERS", repr(folders))
    serving.world.project(serving.project_id).jobs.declare("train_churn", trains)
    commands.migrate(tmp_path / "airflow")
    pace.hurry(tmp_path / "airflow")
    environment = commands.environment(
        tmp_path / "airflow",
        AIRFLOW__CORE__DAGS_FOLDER=str(EXAMPLES),
        AIRFLOW_CONN_HSML_DEFAULT=serving.connection,
    )

    (ran,) = commands.run([("dags", "test", "train_in_hopsworks", "2026-11-01")], environment)

    assert ran.code == "0", ran.output[-5000:]
    (only,) = executions(serving, "train_churn")
    assert (only["state"], only["args"]) == ("FINISHED", "--day 2026-11-01")
    deployments = serving.world.project(serving.project_id).deployments
    deadline = time.monotonic() + 20
    while (row := deployments.by_name("churn"))["status"] not in ("Running", "Idle"):
        assert time.monotonic() < deadline, row
        time.sleep(0.1)
    assert row["modelVersion"] == 1
