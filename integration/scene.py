"""A real Airflow with a production setup: PostgreSQL, an executor, and each of its programs in its own process."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from airflow_provider_hsml.local import Administration, LocalServing
from integration import machines
from integration.servers import bucket, postgresql, redis
from tests.support import commands
from tests.support.real_airflow import Airflow

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from airflow_provider_hsml.local import ModelFiles
    from integration.servers import Bucket

WITHOUT_PROVIDER = Path(__file__).parent / "without_provider"
"""On the path of a program, it hides the provider from it."""
AT_ONCE = 8
"""The number of parallel tasks."""


@dataclass
class Scene:
    """
    A running Airflow and its local Model Servings.

    :param airflow: its programs are running; its connections are the local servers
    :param tell: sends a request to its API
    :param servings: by the name of the connection
    :param workers: the Celery workers' Airflows, with folders of their own; none with the LocalExecutor
    :param bucket: where trained models are handed over
    :param database_log: the log of PostgreSQL
    :param says: a description of the setup, for people
    """

    airflow: Airflow
    tell: Callable[..., Any]
    servings: dict[str, LocalServing]
    workers: list[Airflow]
    bucket: Bucket
    database_log: Path
    says: str

    def unpause(self, *dags: str) -> None:
        """Unpause DAGs."""
        for dag in dags:
            self.tell("PATCH", f"dags/{dag}?update_mask=is_paused", {"is_paused": False})

    def trigger(self, dag: str, run: str, **conf: Any) -> None:
        """Trigger a run of a DAG."""
        self.tell("POST", f"dags/{dag}/dagRuns", {"dag_run_id": run, "logical_date": None, "conf": conf})

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs of all DAGs."""
        runs: list[dict[str, Any]] = self.tell("GET", "dags/~/dagRuns?limit=100")["dag_runs"]
        return runs

    def tasks(self, dag: str) -> list[dict[str, Any]]:
        """Return the tasks of all runs of a DAG."""
        path = f"dags/{dag}/dagRuns/~/taskInstances?limit=100"
        tasks: list[dict[str, Any]] = self.tell("GET", path)["task_instances"]
        return tasks

    def links(self, dag: str, task: str) -> dict[str, str | None]:
        """Return the links on the page of a task of a DAG that has one run."""
        (run,) = [run["dag_run_id"] for run in self.runs() if run["dag_id"] == dag]
        path = f"dags/{dag}/dagRuns/{run}/taskInstances/{task}/links"
        links: dict[str, str | None] = self.tell("GET", path)["extra_links"]
        return links

    def state(self, dag: str, task: str) -> str | None:
        """Return the state of a task of a DAG that has one run."""
        return next((one["state"] for one in self.tasks(dag) if one["task_id"] == task), None)

    def has_left_worker(self, dag: str, task: str) -> bool:
        """Whether the scheduler knows that the worker has finished: Airflow fails a task that resumes before that."""
        log = (self.airflow.home / "scheduler.log").read_text()
        return bool(re.search(rf"TaskInstance Finished: dag_id={dag}, task_id={task},.*executor_state=success", log))

    def until(self, holds: Callable[[], object], seconds: float = 600) -> None:
        """Wait until a condition holds; the timeout allows for a busy machine."""
        self.airflow.until(holds, seconds, every=1)

    def until_succeeded(self, *dags: str, runs: int = 1, seconds: float = 600) -> list[dict[str, Any]]:
        """Wait until each DAG has at least ``runs`` successful runs; raise as soon as one failed. Return the runs."""
        current: list[dict[str, Any]] = []

        def have_ended() -> bool:
            current[:] = [run for run in self.runs() if run["dag_id"] in dags]
            failed = [f"{run['dag_id']} {run['dag_run_id']}" for run in current if run["state"] == "failed"]
            assert not failed, f"failed: {', '.join(failed)}"
            done = [run["dag_id"] for run in current if run["state"] == "success"]
            return all(done.count(dag) >= runs for dag in dags)

        self.until(have_ended, seconds)
        return current

    def written(self, path: str) -> Path:
        """Return a file that a task has written below Airflow's home, on the machine where it ran."""
        (file,) = [found for one in self.workers or [self.airflow] if (found := one.home / path).exists()]
        return file

    def ask(self, connection: str, deployment: str, rows: list[Any]) -> Any:
        """Request predictions as users of a deployment do."""
        serving = self.servings[connection]
        answer = requests.post(
            f"{serving.url}/hopsworks-api/api/project/{serving.project_id}/inference/models/{deployment}:predict",
            json={"instances": rows},
            headers={"Authorization": f"ApiKey {serving.api_key}"},
            timeout=60,
            verify=True,
        )
        assert answer.ok, answer.text
        return answer.json()["predictions"]


def load_model(model: ModelFiles) -> Callable[[Any], list[Any]]:
    """Load a model: one that the example DAGs saved, or JSON with the answer for every row."""
    import joblib  # noqa: PLC0415 - slow, and the first messages should not wait for it

    assert model.path is not None
    (file,) = model.path.rglob("*.joblib")
    content = file.read_bytes()
    if content.startswith(b"{"):
        answer = json.loads(content)["answer"]
        return lambda rows: [answer] * len(rows)
    loaded: Any = joblib.load(file)
    return lambda rows: [int(answer) for answer in loaded.predict(rows)]


def start(
    executor: str, folder: Path, dags: dict[str, str], enter: Callable[[AbstractContextManager[Any]], Any]
) -> Scene:
    """
    Start Airflow and its servers.

    :param executor: LocalExecutor or CeleryExecutor
    :param folder: Airflow's home, with the logs; emptied first
    :param dags: the texts of the DAG files, by file name
    :param enter: enters a context that must be left at the end
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "dags").mkdir(parents=True)
    for name, text in dags.items():
        (folder / "dags" / name).write_text(text)
    administration = Administration(tag_schemas={"approval": {"type": "string"}})
    serving = partial(LocalServing, engine=load_model, administration=administration)
    servings = {f"hsml_{name}": enter(serving()) for name in ("default", "other")}
    database = enter(postgresql())
    models = enter(bucket())
    url = f"postgresql+psycopg2://airflow:{database.password}@127.0.0.1:{database.port}/postgres"
    settings = {
        "CORE__EXECUTOR": executor,
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "CORE__PARALLELISM": str(AT_ONCE),
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        "DATABASE__SQL_ALCHEMY_CONN": url,
    }
    no_logs = "--skip-serve-logs"  # All logs are in one folder, and log servers would listen on all interfaces.
    programs = [("api-server",), ("scheduler", no_logs), ("dag-processor",), ("triggerer", no_logs)]
    says = f"{executor} on {database.version}"
    if executor == "CeleryExecutor":
        broker = enter(redis())
        settings |= {
            "CELERY__BROKER_URL": f"redis://:{broker.password}@127.0.0.1:{broker.port}/0",
            "CELERY__RESULT_BACKEND": f"db+{url}",
            "CELERY__WORKER_CONCURRENCY": str(AT_ONCE // len(machines.WORKERS)),
        }
        says = f"{executor} on {database.version} and {broker.version}, {len(machines.WORKERS)} workers"
        says += " with separate file systems" if machines.can_hide() else " with separate folders, not hidden"
    more = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    airflow = Airflow.beside(servings["hsml_default"], folder, folder / "dags", **more)
    del airflow.environment["AIRFLOW_CONN_HSML_DEFAULT"]  # The connections are in the database, as in production.
    (migrated,) = commands.run([("db", "migrate")], airflow.environment)
    assert migrated.code == "0", migrated.output
    # Only what imports DAG files or triggers needs the provider. With the LocalExecutor the scheduler runs the tasks.
    absent = {"PYTHONPATH": str(WITHOUT_PROVIDER)}
    bare = dataclasses.replace(airflow, environment=airflow.environment | absent)
    needs_none = {"api-server"} | ({"scheduler"} if executor == "CeleryExecutor" else set())
    for program in programs:
        enter((bare if program[0] in needs_none else airflow).started(*program))
    # All folders are made before the first worker hides those of the others: it would not hide one that replaces them.
    names = machines.WORKERS if executor == "CeleryExecutor" else ()
    workers = [machines.machine(airflow, name) for name in names]
    for name, worker in zip(names, workers, strict=True):
        command = ("celery", "worker", no_logs, "--celery-hostname", f"{name}@%h", "--queues", f"default,{name}")
        through = machines.alone(airflow, name)
        enter(worker.started(*command, log_name="worker", through=through, cwd=worker.home))
    airflow.until(airflow.answers, 300)
    tell = airflow.api()
    for name, one in servings.items():
        fields = one.connection_fields(one.api_key)
        tell("POST", "connections", {"connection_id": name, **fields, "extra": json.dumps(fields["extra"])})
    tell("POST", "connections", {"connection_id": "storage", **models.connection})
    tell("POST", "variables", {"key": "trained_models", "value": f"s3://storage@{models.name}/trained"})
    return Scene(airflow, tell, servings, workers, models, database.log, f"{says}, {models.version}")
