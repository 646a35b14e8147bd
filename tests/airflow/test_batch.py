"""Tables through a deployment: what is written, what is continued, and what stops it."""

from __future__ import annotations

import gzip
import itertools
import json
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
