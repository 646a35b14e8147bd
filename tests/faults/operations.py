"""
The operations: how each is prepared, which task does it, and what has to be so on the server once the task is green.

They are prepared by plain requests, except a rollback: the version before the last promotion is in the journal.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.operators import (
    BatchPredictOperator,
    CompareModelsOperator,
    DeleteDeploymentOperator,
    DeleteModelVersionsOperator,
    DeployBestModelOperator,
    DeployModelOperator,
    PredictOperator,
    RegisterModelOperator,
    RestartDeploymentOperator,
    RollbackDeploymentOperator,
    RunHopsworksJobOperator,
    StartDeploymentOperator,
    StopDeploymentOperator,
)
from airflow_provider_hsml.sensors import DeploymentStatusSensor, ModelVersionSensor

from .pace import POLL, TIMEOUT
from .plot import ROWS, Plot

Make: TypeAlias = Callable[[Plot, Mapping[str, Any], Mapping[str, Any]], Any]
"""Makes a task for a cell: of the arguments of each operator, and those of one that waits."""
_CHANGING = ("other scales", "other stops", "other deploys", "other deletes", "two promoters", "zombie")
_ONCE = ("two promoters", "zombie")


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation."""

    name: str
    prepare: Callable[[Plot], None]
    make: Make
    check: Callable[[Plot, Any], list[str]]
    """Tells what is not as the green task says; of its result."""
    effects: Mapping[str, int] = field(default_factory=dict)
    """What it may change, and how often."""
    can_defer: bool = True
    asks_model: bool = True
    """Whether it sends predictions, so that the route matters."""
    keeps_serving: bool = False
    """Whether some version answers all the time, however it ends."""
    rejects: bool = False
    """Whether it fails in the end, since the new version answers otherwise than recorded."""
    begin: Callable[[Plot], None] = lambda _plot: None
    """What happens once the task has begun."""
    clients: tuple[str, ...] = ()
    """Who may act beside it."""
    needs_deployment: bool = False
    """Whether it fails for good where the deployment was deleted."""
    repeats: bool = False
    """Whether a task with another run key does it again: a restart, a rollback, a try of a version."""
    believes: bool = False
    """Whether it is satisfied when the server says that there is no such deployment."""
    undoes: tuple[str, ...] = ()
    """The effects of a try that fails and undoes them itself, so that the next one has them again."""


def _serves(plot: Plot, version: int, answer: int | None = None) -> list[str]:
    row = plot.settle()
    if row is None:
        return ["there is no deployment"]
    found = []
    if (row["status"], row["modelVersion"], row["answering"]) not in (
        ("Running", version, version),
        ("Idle", version, version),
    ):
        found.append(
            f"{row['status']}, the row has version {row['modelVersion']}, version {row['answering']} answers: "
            f"expected version {version}"
        )
    said = plot.answer()
    if said != (11 * version if answer is None else answer):
        found.append(f"the model answers {said!r}")
    return found


def _record(result: Any, version: int, *actions: str) -> list[str]:
    if not isinstance(result, dict) or result.get("model_version") != version or result.get("action") not in actions:
        shown = {key: result.get(key) for key in ("action", "model_version")} if isinstance(result, dict) else result
        return [f"the record says {shown}"]
    return []


# --- Preparations


def _two_versions(plot: Plot) -> None:
    plot.register(1)
    plot.register(2)
    plot.deploy(1)


def _bad_version(plot: Plot) -> None:
    plot.register(1)
    plot.register(2, answer=66, recorded=22)
    plot.deploy(1)


def _one_version(plot: Plot) -> None:
    plot.register(1)


def _created(plot: Plot) -> None:
    plot.register(1)
    plot.deploy(1, starts=False)


def _running(plot: Plot) -> None:
    plot.register(1)
    plot.deploy(1)


def _promoted_twice(plot: Plot) -> None:
    plot.register(1)
    plot.register(2)
    name = f"faults_direct_{plot.server.line.replace('.', '')}_{plot.number}"
    variable = f"AIRFLOW_CONN_{name.upper()}"
    host = {"conn_type": "hsml", "host": "http://127.0.0.1", "port": plot.server.port}
    os.environ[variable] = json.dumps(host | {"password": plot.key, "extra": {"project": plot.project}})
    hook = HsmlHook(name)
    with contextlib.closing(hook.client):
        for version in (1, 2):
            hook.deploy_model(plot.name, version, timeout=60, poll_interval=0.1, run_key=f"before/{version}")
    plot.settle()


def _five_versions(plot: Plot) -> None:
    for version in range(1, 6):
        plot.register(version)
    plot.deploy(2, starts=False)


def _files(plot: Plot) -> None:
    (plot.folder / "model" / "model.joblib").write_text(json.dumps({"answer": 11}))


# --- Checks


def _registered(plot: Plot, result: Any) -> list[str]:
    beside = {"input_example.json", "expected.json"}
    files = {"Files/model.joblib" if plot.server.line != "3.7" else "model.joblib", "airflow_run.json", *beside}
    # A worker that stood still gives the number back that it had taken, if its retry has taken the next one.
    is_given_back = plot.notes.get("stood still", False) and "1" not in plot.folders(f"Models/{plot.name}")
    number = 1 + len(plot.empty_versions()) + is_given_back
    there = set(plot.files(f"Models/{plot.name}/{number}"))
    found = [] if plot.versions() == [number] else [f"versions {plot.versions()} are registered"]
    if there != files:
        found.append(f"version {number} has the files {sorted(there)}")
    if not isinstance(result, dict) or result.get("model_version") != number:
        found.append(f"the result is {result!r}")
    return found


def _retained(plot: Plot, result: Any) -> list[str]:
    found = [] if plot.versions() == [2, 4, 5] else [f"versions {plot.versions()} are left"]
    if not isinstance(result, dict) or result.get("kept") != [2, 4, 5]:
        found.append(f"the result is {result!r}")
    return found


def _predicted(plot: Plot, result: Any) -> list[str]:
    return [] if result == {"predictions": [11, 11]} else [f"the result is {result!r}"]


def _table(plot: Plot) -> None:
    _running(plot)
    (plot.folder / "rows.jsonl").write_text(
        "".join(f'{{"id": {number}, "instance": {ROWS[0]}}}\n' for number in range(9))
    )


def _scored(plot: Plot, result: Any) -> list[str]:
    lines = [
        json.loads(line)
        for name in result["files"]
        for line in (plot.folder / "results" / name).read_text().splitlines()
    ]
    expected = [{"row": number, "id": number, "prediction": 11} for number in range(9)]
    return [] if lines == expected else [f"the result is {lines!r}"]


def _stopped(plot: Plot, _result: Any) -> list[str]:
    row = plot.row()
    status = row and row["status"]
    return [] if status in ("Stopped", "Created") else [f"it is {status}"]


def _gone(plot: Plot, _result: Any) -> list[str]:
    return ["it exists"] if plot.row() is not None else []


def _has_status(plot: Plot, result: Any) -> list[str]:
    row = plot.row()
    fine = row is not None and row["status"] in ("Running", "Idle") and result["status"] in ("Running", "Idle")
    return [] if fine else [f"it is {row and row['status']}; the result is {result!r}"]


def _has_version(plot: Plot, result: Any) -> list[str]:
    fine = 2 in plot.versions() and isinstance(result, dict) and result.get("model_version") == 2
    return [] if fine else [f"versions {plot.versions()}; the result is {result!r}"]


def _updated(plot: Plot, result: Any) -> list[str]:
    return _serves(plot, 2) + _record(result, 2, "updated", "attached", "unchanged", "started", "created", "kept")


def _deployed(plot: Plot, result: Any) -> list[str]:
    return _serves(plot, 1) + _record(result, 1, "created", "started", "attached", "unchanged", "updated")


def _rolled_back(plot: Plot, result: Any) -> list[str]:
    return _serves(plot, 1) + _record(result, 1, "rolled_back", "unchanged", "attached", "started")


def _kept(plot: Plot, _result: Any) -> list[str]:
    return _serves(plot, 1)


def _ran(plot: Plot, result: Any) -> list[str]:
    rows = [(row["id"], row["state"], row["args"]) for row in plot.executions()]
    told = (result.get("execution_id"), result.get("state"), "--day 1") if isinstance(result, dict) else None
    return [] if rows and told == rows[-1] else [f"the executions are {rows}; the result is {result!r}"]


def _compared(plot: Plot, result: Any) -> list[str]:
    said = [result.get(key) and result[key].get("version") for key in ("champion", "challenger")]
    return _serves(plot, 1) + ([] if said == [1, 2] else [f"the record says {said}"])


def _all() -> list[Operation]:
    return [
        Operation(
            "register",
            _files,
            lambda plot, common, _waits: RegisterModelOperator(
                **common,
                model_name=plot.name,
                model_path=str(plot.folder / "model"),
                framework="SKLEARN",
                metrics={"auc": 0.9},
                input_example=ROWS,
                expected={"instances": ROWS, "predictions": [11, 11]},
            ),
            _registered,
            {"register": 1},
            can_defer=False,
            asks_model=False,
            repeats=True,
            clients=("zombie",),
        ),
        Operation(
            "create",
            _one_version,
            lambda plot, common, waits: DeployModelOperator(
                **common, **waits, model_name=plot.name, model_version=1, deployment_name=plot.name
            ),
            _deployed,
            {"create:1": 1, "start": 1},
            clients=_CHANGING,
        ),
        Operation(
            "update",
            _two_versions,
            lambda plot, common, waits: DeployModelOperator(
                **common, **waits, model_name=plot.name, model_version=2, deployment_name=plot.name
            ),
            _updated,
            {"put:2": 1},
            keeps_serving=True,
            clients=_CHANGING,
        ),
        Operation(
            "recreate",
            _two_versions,
            lambda plot, common, waits: DeployModelOperator(
                **common,
                **waits,
                model_name=plot.name,
                model_version=2,
                deployment_name=plot.name,
                rollout="recreate",
            ),
            _updated,
            # A start of the old version after a failed stop is its way back; then the retry stops it again.
            {"put:2": 1, "stop": 2, "start": 2},
            clients=_CHANGING,
            undoes=("stop", "start"),
        ),
        Operation(
            "best",
            _two_versions,
            lambda plot, common, waits: DeployBestModelOperator(
                **common,
                **waits,
                model_name=plot.name,
                metric="auc",
                direction="max",
                deployment_name=plot.name,
            ),
            _updated,
            {"put:2": 1},
            keeps_serving=True,
            clients=_CHANGING,
        ),
        Operation(
            "preflight",
            _two_versions,
            lambda plot, common, waits: DeployModelOperator(
                **common,
                **waits,
                model_name=plot.name,
                model_version=2,
                deployment_name=plot.name,
                preflight=True,
            ),
            _updated,
            # Each try may try the version in another temporary deployment.
            {"put:2": 1, "create:2": 4, "start": 4, "delete": 4},
            keeps_serving=True,
            clients=("other scales", "other deploys", "other deletes"),
        ),
        Operation(
            "reject",
            _bad_version,
            lambda plot, common, waits: DeployModelOperator(
                **common, **waits, model_name=plot.name, model_version=2, deployment_name=plot.name
            ),
            _kept,
            {"put:2": 1, "rollback:1": 1},
            keeps_serving=True,
            rejects=True,
            repeats=True,
            clients=_ONCE,
        ),
        Operation(
            "start",
            _created,
            lambda plot, common, waits: StartDeploymentOperator(**common, **waits, deployment_name=plot.name),
            lambda plot, _result: _serves(plot, 1),
            {"start": 1},
            clients=_CHANGING,
            needs_deployment=True,
        ),
        Operation(
            "stop",
            _running,
            lambda plot, common, waits: StopDeploymentOperator(**common, **waits, deployment_name=plot.name),
            _stopped,
            {"stop": 1},
            asks_model=False,
            clients=("other stops", "zombie"),
            believes=True,
        ),
        Operation(
            "restart",
            _running,
            lambda plot, common, waits: RestartDeploymentOperator(**common, **waits, deployment_name=plot.name),
            lambda plot, _result: _serves(plot, 1),
            {"stop": 1, "start": 1},
            repeats=True,
            clients=("other scales", "other stops", "other deletes", "zombie"),
            needs_deployment=True,
        ),
        Operation(
            "delete",
            _running,
            lambda plot, common, _waits: DeleteDeploymentOperator(**common, deployment_name=plot.name, force=True),
            _gone,
            {"delete": 1},
            can_defer=False,
            asks_model=False,
            clients=("other stops", "other deletes", "zombie"),
            believes=True,
        ),
        Operation(
            "rollback",
            _promoted_twice,
            lambda plot, common, waits: RollbackDeploymentOperator(**common, **waits, deployment_name=plot.name),
            _rolled_back,
            {"rollback:1": 1},
            keeps_serving=True,
            repeats=True,
            clients=("other scales", "other stops", "other deletes", "zombie"),
            needs_deployment=True,
        ),
        Operation(
            "retention",
            _five_versions,
            lambda plot, common, _waits: DeleteModelVersionsOperator(**common, model_name=plot.name, keep=2),
            _retained,
            {"unregister:1": 1, "unregister:3": 1},
            can_defer=False,
            asks_model=False,
            clients=("zombie",),
        ),
        Operation(
            "predict",
            _running,
            lambda plot, common, _waits: PredictOperator(
                **common, deployment_name=plot.name, instances=ROWS, timeout=TIMEOUT
            ),
            _predicted,
            can_defer=False,
            clients=("other scales",),
        ),
        Operation(
            "batch",
            _table,
            lambda plot, common, _waits: BatchPredictOperator(
                **common,
                deployment_name=plot.name,
                input=str(plot.folder / "rows.jsonl"),
                result_path=str(plot.folder / "results"),
                key_columns=["id"],
                chunk_rows=2,
                on_stale_state="restart",  # Another run of the task is to succeed, too.
                timeout=TIMEOUT,
                poll_interval=POLL,
            ),
            _scored,
            can_defer=False,
            clients=("other scales",),
        ),
        Operation(
            "compare",
            _two_versions,
            lambda plot, common, _waits: CompareModelsOperator(
                **common,
                deployment_name=plot.name,
                challenger=2,
                input=[{"x": number, "y": 11} for number in range(8)],
                label_column="y",
                metrics=["accuracy"],
                resamples=100,
                result_path=str(plot.folder / "results"),
                timeout=TIMEOUT,
                poll_interval=POLL,
            ),
            _compared,
            # Each try may make another temporary deployment, and starts it for each version.
            {"create:1": 4, "create:2": 4, "start": 8, "stop": 4, "put:2": 4, "delete": 4},
            can_defer=False,
            keeps_serving=True,
            clients=("other scales",),
        ),
        Operation(
            "job",
            lambda plot: plot.holdings.jobs.declare(plot.name, "import time; time.sleep(1)"),
            lambda plot, common, waits: RunHopsworksJobOperator(
                **common, **waits, job_name=plot.name, args=["--day", 1]
            ),
            _ran,
            {"run": 1},
            asks_model=False,
            clients=("zombie",),
        ),
        Operation(
            "status",
            _created,
            lambda plot, common, waits: DeploymentStatusSensor(
                **common, **_of_sensor(waits), deployment_name=plot.name, target_status="Running"
            ),
            _has_status,
            asks_model=False,
            begin=lambda plot: plot.soon(0.8, plot.start),
            clients=("other scales",),
        ),
        Operation(
            "version",
            _one_version,
            lambda plot, common, waits: ModelVersionSensor(
                **common, **_of_sensor(waits), model_name=plot.name, newer_than=1
            ),
            _has_version,
            asks_model=False,
            begin=lambda plot: plot.soon(0.8, lambda: plot.register(2)),
        ),
    ]


def _of_sensor(waits: Mapping[str, Any]) -> dict[str, Any]:
    return {"deferrable": waits["deferrable"], "timeout": TIMEOUT, "poke_interval": POLL}


OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in _all()}
