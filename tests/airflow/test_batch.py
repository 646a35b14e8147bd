"""Tables through a deployment: what is written, what is continued, and what stops it."""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml.hopsworks.batch import table
from airflow_provider_hsml.hopsworks.inference import scoring
from airflow_provider_hsml.local import LocalServing
from airflow_provider_hsml.operators import BatchPredictOperator
from tests.conftest import HOPSWORKS
from tests.support.tasks import FakeTaskInstance, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import ModelFiles

pytestmark = pytest.mark.airflow

ROWS = 1000
_numbers = itertools.count()


def load(model: ModelFiles) -> Callable[[Any], Any]:
    """Make a model of a file: it multiplies ``x``, and refuses some values."""
    assert model.path is not None
    (file,) = model.path.rglob("*.joblib")
    content = json.loads(file.read_text())

    def predict(rows: Any) -> Any:
        values = [row["x"] if isinstance(row, dict) else row[0] for row in rows]
        for value in values:
            if value in content.get("refuses", ()):
                raise ValueError(f"x is {value}")
        return {"predictions": [value * content["factor"] for value in values]}

    return predict


@pytest.fixture(scope="module")
def local_serving() -> Iterator[LocalServing]:
    with LocalServing(engine=load, hopsworks_version=HOPSWORKS) as serving:
        yield serving


@dataclass
class Scene:
    """A deployment, rows in a file, and a folder for the result."""

    hook: HsmlHook
    serving: LocalServing
    model_file: Callable[..., Path]
    folder: Path
    name: str

    @property
    def input(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def register(self, factor: float, **content: Any) -> Scene:
        self.hook.register_model(
            model_name=self.name,
            model_path=self.model_file(factor=factor, **content),
            framework="SKLEARN",
            input_example={"instances": [{"x": 0}]},
        )
        return self

    def deploy(self, version: int = 1) -> Scene:
        self.hook.deploy_model(self.name, version, poll_interval=0.1)
        self.serving.requests.clear()
        return self

    def write(self, rows: Any = None) -> Scene:
        rows = [{"id": f"n{x}", "x": x} for x in range(ROWS)] if rows is None else rows
        self.input.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return self

    def task(self, **given: Any) -> BatchPredictOperator:
        how: dict[str, Any] = {
            "task_id": "task",
            "deployment_name": self.name,
            "input": str(self.input),
            "result_path": str(self.results),
            "key_columns": ["id"],
            "chunk_rows": 50,
            "poll_interval": 0.1,
        }
        return BatchPredictOperator(**{name: value for name, value in {**how, **given}.items() if value is not None})

    def score(self, ti: FakeTaskInstance | None = None, **given: Any) -> dict[str, Any]:
        manifest: dict[str, Any] = execute(self.task(**given), ti)
        return manifest

    def content(self, manifest: dict[str, Any] | None = None) -> bytes:
        manifest = manifest or json.loads((self.results / "manifest.json").read_bytes())
        return b"".join((self.results / name).read_bytes() for name in manifest["files"])

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.content().splitlines()]

    def sent(self) -> int:
        """Count the requests for predictions."""
        return sum(asked.path.endswith(":predict") for asked in self.serving.requests)


@pytest.fixture
def scene(hook: HsmlHook, serving: LocalServing, model_file: Callable[..., Path], tmp_path: Path) -> Scene:
    return Scene(hook, serving, model_file, tmp_path, f"batch{next(_numbers)}").register(2).deploy().write()


class TestResult:
    def test_each_row_is_in_the_result_once_in_order(self, scene: Scene) -> None:
        manifest = scene.score()

        assert scene.lines() == [{"row": x, "id": f"n{x}", "prediction": 2 * x} for x in range(ROWS)]
        assert manifest["counts"] == {"success": ROWS, "error": 0, "skipped": 0}
        assert (manifest["model_version"], manifest["single_version"]) == (1, True)
        assert manifest["distribution"]["count"] == ROWS
        assert manifest["distribution"]["max"] == 2 * (ROWS - 1)
        assert set(manifest["latency_ms"]) == {"p50", "p95", "p99"}
        assert scene.sent() == ROWS / 50
        names = {path.name for path in scene.results.iterdir()}
        assert names - set(manifest["files"]) - {"manifest.json"} == {
            name for name in names if name.startswith("_progress-")
        }

    def test_a_clear_of_the_same_run_sends_nothing_again(self, scene: Scene) -> None:
        ti = FakeTaskInstance()
        manifest = scene.score(ti)
        scene.serving.requests.clear()

        assert scene.score(ti) == manifest
        assert scene.sent() == 0


class Worker:
    """A process that scores in forks, which are killed."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.support.mortal_batch_worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, scene: Scene, results: Path, **kill_at: Any) -> Any:
        """Score, and tell how it ended."""
        arguments = {
            "input": str(scene.input),
            "result_path": str(results),
            "key_columns": ["id"],
            "chunk_rows": 50,
            "max_errors": 10,
            "fail_on_partial_error": False,
            "run_key": "run",
            "try_name": "try1",
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"name": scene.name, "arguments": arguments, "kill_at": kill_at}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def worker(serving: LocalServing) -> Iterator[Worker]:
    worker = Worker()
    with worker.process:
        yield worker
        assert worker.process.stdin is not None
        worker.process.stdin.close()


class TestKill:
    """Real processes, killed at any moment, and the same task again."""

    def test_the_result_is_that_of_an_undisturbed_run(self, scene: Scene, worker: Worker) -> None:
        """Each try is killed at another moment, so that all of them together come to the end."""
        scene.register(2, refuses=[7, 555]).deploy(2)
        undisturbed = scene.folder / "undisturbed"
        expected = worker(scene, undisturbed)
        files = len(expected["files"])
        assert files > 5

        endings = [
            worker(scene, scene.results, **moment)
            for moment in (
                {"request": 1},
                {"request": 9},
                *({"file": number, "when": when} for when in ("before", "after") for number in (1, 2, 3)),
                {"request": 3},
            )
        ]
        assert endings == ["killed"] * len(endings)
        manifest = worker(scene, scene.results)

        whole = b"".join((undisturbed / name).read_bytes() for name in expected["files"])
        assert scene.content(manifest) == whole
        assert (scene.results / "errors.jsonl").read_bytes() == (undisturbed / "errors.jsonl").read_bytes()
        same = ("counts", "distribution", "single_version", "model_version")
        assert {name: manifest[name] for name in same} == {name: expected[name] for name in same}
        assert manifest["counts"] == {"success": ROWS - 2, "error": 2, "skipped": 0}

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_kill_at_each_file_of_the_end(self, scene: Scene, worker: Worker, when: str) -> None:
        """Errors, progress and manifest are the last files: a kill between any two of them loses nothing."""
        scene.register(2, refuses=[7, 555]).deploy(2).write([{"id": "a", "x": x} for x in range(60)])
        expected = worker(scene, scene.folder / "undisturbed")
        for number in itertools.count(1):
            results = scene.folder / f"results{number}"
            if worker(scene, results, file=number, when=when) != "killed":
                break
            manifest = worker(scene, results)
            assert manifest["counts"] == expected["counts"]
            assert b"".join((results / name).read_bytes() for name in manifest["files"]) == b"".join(
                (scene.folder / "undisturbed" / name).read_bytes() for name in expected["files"]
            )
        assert number > 5
