"""Tables through a deployment: what is written, what is continued, and what stops it."""

from __future__ import annotations

import itertools
import json
import logging
import random
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml.hooks.row_files import RowFiles
from airflow_provider_hsml.hopsworks.batch import table
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.inference import predict, scoring
from airflow_provider_hsml.local import LocalServing, RequestFault
from airflow_provider_hsml.operators import BatchPredictOperator
from tests.conftest import HOPSWORKS
from tests.support.tasks import FakeTaskInstance, execute, rendered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import ModelFiles

pytestmark = pytest.mark.airflow

ROWS, CHUNK = 1000, 10
_numbers = itertools.count()


def load(model: ModelFiles) -> Callable[[Any], Any]:
    """Make a model of a file: it multiplies ``x``, and refuses some values."""
    assert model.path is not None
    (file,) = model.path.rglob("*.joblib")
    content = json.loads(file.read_text())

    def answers(rows: Any) -> Any:
        values = [row["x"] if isinstance(row, dict) else row[0] for row in rows]
        for value in values:
            if value in content.get("refuses", ()):
                raise ValueError(f"x is {value}{content.get('says', '')}")
        if "says" in content:
            return {"predictions": [content["says"] for _ in values]}
        return {"predictions": [value * content["factor"] for value in values]}

    return answers


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
    table: Path | None = None
    """A file of another format with the rows."""

    @property
    def input(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def register(self, factor: float, example: Any = None, **content: Any) -> Scene:
        self.hook.register_model(
            model_name=self.name,
            model_path=self.model_file(factor=factor, **content),
            framework="SKLEARN",
            input_example={"instances": example or [{"x": 0}]},
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
            "chunk_rows": CHUNK,
            "poll_interval": 0.1,
        }
        return BatchPredictOperator(**{name: value for name, value in {**how, **given}.items() if value is not None})

    def score(self, ti: FakeTaskInstance | None = None, **given: Any) -> dict[str, Any]:
        manifest: dict[str, Any] = execute(self.task(**given), ti)
        return manifest

    def content(self, manifest: dict[str, Any] | None = None) -> bytes:
        manifest = manifest or json.loads((self.results / "manifest.json").read_bytes())
        return b"".join((self.results / name).read_bytes() for name in manifest["files"])

    def errors_file(self) -> Path:
        name: str = json.loads((self.results / "manifest.json").read_bytes())["errors_file"]
        return self.results / name

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
        assert scene.sent() == ROWS / CHUNK
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

    def __call__(
        self, scene: Scene, results: Path, *, chunk_rows: int = 50, part_bytes: int = 1000, **kill_at: Any
    ) -> Any:
        """Score, and tell how it ended."""
        arguments = {
            "input": str(scene.table or scene.input),
            "result_path": str(results),
            "key_columns": ["id"],
            "chunk_rows": chunk_rows,
            "max_errors": 10,
            "fail_on_partial_error": False,
            "run_key": "run",
            "try_name": "try1",
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        task = {"name": scene.name, "arguments": arguments, "kill_at": kill_at, "part_bytes": part_bytes}
        self.process.stdin.write(json.dumps(task) + "\n")
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

        moments: list[dict[str, Any]] = [
            {"request": 1},
            {"request": 9},
            *({"file": number, "when": when} for when in ("before", "after") for number in (1, 2, 3)),
            {"request": 3},
        ]
        endings = [worker(scene, scene.results, **moment) for moment in moments]
        assert endings == ["killed"] * len(endings)
        manifest = worker(scene, scene.results)

        whole = b"".join((undisturbed / name).read_bytes() for name in expected["files"])
        assert scene.content(manifest) == whole
        assert (scene.results / manifest["errors_file"]).read_bytes() == (
            undisturbed / expected["errors_file"]
        ).read_bytes()
        same = ("counts", "distribution", "single_version", "model_version")
        assert {name: manifest[name] for name in same} == {name: expected[name] for name in same}
        assert manifest["counts"] == {"success": ROWS - 2, "error": 2, "skipped": 0}

    @pytest.mark.slow
    def test_a_million_rows_killed_three_times(self, scene: Scene, worker: Worker) -> None:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        scene.table = scene.folder / "million.parquet"
        source = random.Random(7)  # noqa: S311 - no secret
        rows = [float(source.randrange(17)) + source.random() / 10 for _ in range(1_000_000)]
        pq.write_table(pa.table({"id": [f"n{x}" for x in range(len(rows))], "x": rows}), scene.table)
        how = {"chunk_rows": 1000, "part_bytes": 1 << 20}
        expected = worker(scene, scene.folder / "undisturbed", **how)

        assert [worker(scene, scene.results, request=number, **how) for number in (300, 450, 200)] == ["killed"] * 3
        manifest = worker(scene, scene.results, **how)

        assert manifest["counts"] == {"success": len(rows), "error": 0, "skipped": 0}
        whole = pa.concat_tables(pq.read_table(scene.results / name) for name in manifest["files"])
        undisturbed = pa.concat_tables(pq.read_table(scene.folder / "undisturbed" / one) for one in expected["files"])
        assert whole.equals(undisturbed)
        assert whole["prediction"].to_pylist() == [2 * x for x in rows]
        assert manifest["distribution"] == expected["distribution"]

    def test_from_parquet_to_parquet(self, scene: Scene, worker: Worker) -> None:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        scene.table = scene.folder / "rows.parquet"
        rows: list[dict[str, Any]] = [{"id": f"n{x}", "x": x / 2} for x in range(20_000)]
        pq.write_table(pa.Table.from_pylist(rows), scene.table, row_group_size=1500)
        expected = worker(scene, scene.folder / "undisturbed")

        endings = [worker(scene, scene.results, request=number) for number in (90, 120, 150)]
        assert endings == ["killed"] * 3
        manifest = worker(scene, scene.results)

        whole = pa.concat_tables(pq.read_table(scene.results / name) for name in manifest["files"])
        undisturbed = pa.concat_tables(pq.read_table(scene.folder / "undisturbed" / one) for one in expected["files"])
        assert whole.equals(undisturbed)
        assert whole["prediction"].to_pylist() == [2 * row["x"] for row in rows]

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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts, and a deployment that is not waited for."""
    monkeypatch.setattr(table, "PART_BYTES", 500)
    monkeypatch.setattr(predict, "ROUTE_BUDGET", 0.2)
    monkeypatch.setattr(scoring, "OUTAGE_SECONDS", 0.2)
    monkeypatch.setattr(scoring, "_FIRST_PAUSE", 0.01)


def during(monkeypatch: pytest.MonkeyPatch, row: int, act: Callable[[], Any]) -> None:
    """Do something once, when a row is read."""
    chunks = RowFiles.chunks
    is_done: list[bool] = []

    def watched(self: RowFiles, size: int, start: int, columns: Any = None) -> Iterator[tuple[int, list[Any]]]:
        for first, rows in chunks(self, size, start, columns):
            if first >= row and not is_done:
                is_done.append(True)
                act()
            yield first, rows

    monkeypatch.setattr(RowFiles, "chunks", watched)


@pytest.mark.usefixtures("quick")
class TestChangeOfTheModel:
    def test_fail(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        scene.register(3)
        during(monkeypatch, 500, lambda: scene.hook.deploy_model(scene.name, 2, poll_interval=0.1))

        with pytest.raises(AirflowFailException, match=r"it served version 1 of model .* now serves version 2"):
            scene.score()
        assert not (scene.results / "manifest.json").exists()

    def test_restart(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        scene.register(3)
        during(monkeypatch, 500, lambda: scene.hook.deploy_model(scene.name, 2, poll_interval=0.1))

        manifest = scene.score(on_model_change="restart")

        assert [line["prediction"] for line in scene.lines()] == [3 * x for x in range(ROWS)]
        assert (manifest["model_version"], manifest["single_version"]) == (2, True)

    def test_allow(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """No answer of the time between two reads, of which the version is not known, is in the result."""
        scene.register(3)
        during(monkeypatch, 500, lambda: scene.hook.deploy_model(scene.name, 2, poll_interval=0.1))

        manifest = scene.score(on_model_change="allow")

        lines = scene.lines()
        by_two = [line["prediction"] == 2 * line["row"] for line in lines]
        assert [line["row"] for line in lines] == list(range(ROWS))
        assert by_two == sorted(by_two, reverse=True)
        assert any(by_two[1:])
        assert all(line["prediction"] in (2 * line["row"], 3 * line["row"]) for line in lines)
        assert (manifest["model_version"], manifest["single_version"]) == (2, False)

    @pytest.mark.parametrize(("policy", "factor"), [("fail", None), ("restart", 3), ("allow", 2)])
    def test_a_change_between_two_tries(self, scene: Scene, policy: str, factor: int | None) -> None:
        ti = FakeTaskInstance()
        self.break_off(scene, ti)
        scene.register(3).deploy(2)

        if factor is None:
            with pytest.raises(
                AirflowFailException, match="results of version 1 of this run, and the deployment serve"
            ):
                scene.score(ti, on_model_change=policy)
            manifest = scene.score(ti, on_model_change=policy, on_stale_state="restart")
        else:
            manifest = scene.score(ti, on_model_change=policy)
        assert scene.lines()[1]["prediction"] == (factor or 3)
        assert manifest["single_version"] is (policy != "allow")
        assert len(scene.lines()) == ROWS

    def break_off(self, scene: Scene, ti: FakeTaskInstance) -> None:
        """Score some of the rows."""
        with pytest.MonkeyPatch.context() as patch:

            def stop() -> None:
                raise KeyboardInterrupt

            patch.setattr(table, "READ_EVERY", 0.0)
            during(patch, 700, stop)
            with pytest.raises(KeyboardInterrupt):
                scene.score(ti)
        assert list(scene.results.glob("part-*"))


@pytest.mark.usefixtures("quick")
class TestBadRows:
    def test_one_percent_of_bad_rows(self, scene: Scene) -> None:
        bad = [7, 8, 49, 50, 333, 640, 641, 642, 998, 999]
        scene.register(2, refuses=bad).deploy(2)

        manifest = scene.score(fail_on_partial_error=False)

        lines = scene.lines()
        assert [line["row"] for line in lines if "error" in line] == bad
        assert all(line["prediction"] == (None if line["row"] in bad else 2 * line["row"]) for line in lines)
        assert manifest["counts"] == {"success": ROWS - 10, "error": 10, "skipped": 0}
        errors = [json.loads(line) for line in scene.errors_file().read_bytes().splitlines()]
        assert [(one["row"], one["id"], one["field"]) for one in errors] == [(x, f"n{x}", None) for x in bad]
        assert all(f"x is {one['row']}" in one["reason"] for one in errors)

    def test_a_row_that_failed_fails_the_task_with_a_complete_result(self, scene: Scene) -> None:
        scene.register(2, refuses=[3]).deploy(2)

        with pytest.raises(AirflowFailException, match="1 of 1000 rows have no prediction"):
            scene.score()
        assert len(scene.lines()) == ROWS

    def test_more_errors_than_are_allowed(self, scene: Scene) -> None:
        scene.register(2, refuses=list(range(100, 111))).deploy(2)

        with pytest.raises(
            AirflowFailException, match=r"11 of .* rows failed, more than 10 \(max_errors\); row 1\d\d:"
        ):
            scene.score()
        assert not (scene.results / "manifest.json").exists()
        assert (
            scene.score(max_errors=11, fail_on_partial_error=False, on_stale_state="restart")["counts"]["error"] == 11
        )

    def test_splitting_is_bounded(self, scene: Scene) -> None:
        scene.register(2, refuses=list(range(1, ROWS, 5))).deploy(2)

        with pytest.raises(AirflowFailException):
            scene.score(max_errors=1)
        assert scene.sent() < 200

    def test_no_success_at_all(self, scene: Scene) -> None:
        scene.register(2, refuses=list(range(1, ROWS))).deploy(2).write([{"id": x, "x": x} for x in range(1, ROWS)])

        with pytest.raises(HopsworksError, match="rows were refused, and none was answered"):
            scene.score(max_errors=ROWS, fail_on_partial_error=False)

    def test_rows_that_cannot_be_sent_are_named(self, scene: Scene) -> None:
        rows: list[Any] = [{"id": f"n{x}", "x": x} for x in range(ROWS)]
        rows[4], rows[5], rows[6] = {"id": "n4", "x": float("nan")}, {"x": 5}, {"id": "n6"}
        scene.write(rows)
        text = scene.input.read_text().splitlines()
        text[7], text[8] = '{"id": "n7", "x": ', '["not", "an object"]'
        scene.input.write_text("\n".join(text) + "\n\n")

        scene.score(fail_on_partial_error=False)

        errors = [json.loads(line) for line in scene.errors_file().read_bytes().splitlines()]
        assert [(one["row"], one["field"]) for one in errors] == [(4, "x"), (5, "id"), (6, "x"), (7, None), (8, "id")]
        assert "nan" in errors[0]["reason"]
        assert errors[1]["reason"] == errors[2]["reason"] == "the column is missing"
        assert "is no JSON" in errors[3]["reason"]
        assert [line["prediction"] for line in scene.lines()][:11] == [0, 2, 4, 6, None, None, None, None, None, 18, 20]


@pytest.mark.usefixtures("quick")
class TestOutage:
    @pytest.mark.parametrize(
        "fault",
        [
            {"status": 400, "body": {"errorCode": 250008, "usrMsg": ""}},
            {"status": 500, "body": {"errorCode": 250007, "usrMsg": "no healthy upstream"}},
            {"status": 500, "body": {"errorCode": 250007, "usrMsg": "model is broken"}},
            {"status": 503},
        ],
    )
    @pytest.mark.parametrize("max_errors", [None, ROWS])
    def test_an_outage_in_the_middle_is_never_bad_rows(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any], max_errors: int | None
    ) -> None:
        ti = FakeTaskInstance()
        outage = RequestFault("POST", "**:predict", **fault, times=None)
        during(monkeypatch, 500, lambda: scene.serving.faults.add(outage))
        try:
            with pytest.raises(HopsworksError) as caught:
                scene.score(ti, max_errors=max_errors, fail_on_partial_error=False)
        finally:
            scene.serving.faults.clear()
        assert caught.value.transient
        assert list(scene.results.glob("part-*"))
        scene.serving.requests.clear()

        manifest = scene.score(ti, max_errors=max_errors, fail_on_partial_error=False)

        assert manifest["counts"] == {"success": ROWS, "error": 0, "skipped": 0}
        assert [line["prediction"] for line in scene.lines()] == [2 * x for x in range(ROWS)]
        assert scene.sent() < ROWS / CHUNK

    def test_a_deployment_that_is_stopped(self, scene: Scene) -> None:
        scene.hook.stop_deployment(scene.name)

        with pytest.raises(HopsworksError, match="Start it with StartDeploymentOperator") as caught:
            scene.score()
        assert caught.value.transient
        assert scene.sent() == 0


class TestRows:
    """Which columns the model gets, and in which form."""

    def asked(self, scene: Scene, rows: list[Any], **given: Any) -> Any:
        """Score rows, and give the body of the request."""
        bodies: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            ask = predict.ask_model

            async def watched(project: Any, name: str, body: Any, **more: Any) -> Any:
                bodies.append(body)
                return await ask(project, name, body, **more)

            patch.setattr(predict, "ask_model", watched)
            scene.write(rows).score(key_columns=given.pop("key_columns", []), **given)
        return json.loads(bodies[0])["instances"]

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            ({}, {"x": 1}),
            ({"columns": ["x", "z"]}, {"x": 1, "z": 3}),
            ({"columns": {"z": "x"}}, {"x": 3}),
            ({"columns": '["x", "z"]', "row_format": "list"}, [1, 3]),
            ({"columns": ["z", "x"], "row_format": "list", "key_columns": ["x"]}, [3, 1]),
            ({"columns": {"x": "x", "z": "other"}}, {"x": 1, "other": 3}),
            ({"columns": ["x"], "row_format": "record"}, {"x": 1}),
        ],
    )
    def test_columns(self, scene: Scene, given: dict[str, Any], sent: Any) -> None:
        assert self.asked(scene, [{"x": 1, "y": 2, "z": 3}], **given) == [sent]

    def test_rows_as_the_model_takes_them(self, scene: Scene) -> None:
        assert self.asked(scene, [[5], [6]]) == [[5], [6]]
        rows = [{"instance": {"x": 1, "more": 2}, "id": "a"}]
        assert self.asked(scene, rows, key_columns=["id"], on_stale_state="restart") == [{"x": 1, "more": 2}]
        assert scene.lines() == [{"row": 0, "id": "a", "prediction": 2}]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"columns": ["x", "x"]}, "columns: expected each column once"),
            ({"columns": {"x": "a", "z": "a"}}, "columns: expected at least one column"),
            ({"columns": []}, "columns: expected at least one column"),
            *[
                ({"key_columns": [name]}, "key_columns: expected different names.* of the result or of the errors file")
                for name in ("prediction", "field", "reason")
            ],
            ({"row_format": "table"}, "row_format"),
            ({"chunk_rows": 0}, "chunk_rows"),
            ({"concurrency": 0}, "concurrency"),
            ({"max_errors": -1}, "max_errors"),
            ({"on_model_change": "ignore"}, "on_model_change"),
            ({"on_stale_state": "allow"}, "on_stale_state"),
        ],
    )
    def test_arguments_are_checked_when_the_dag_is_parsed(
        self, scene: Scene, given: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=f"Task 'task': {message}"):
            scene.task(**given)
        with pytest.raises(AirflowFailException, match=message):
            execute(rendered(scene.task(), **given))

    def test_columns_that_no_row_has(self, scene: Scene) -> None:
        with pytest.raises(
            AirflowFailException, match=r"none of the first .* rows has a prediction; row 0: nosuch: the c"
        ):
            scene.score(columns=["nosuch"], max_errors=ROWS)

    def test_an_empty_file(self, scene: Scene) -> None:
        scene.write([])
        with pytest.raises(AirflowFailException, match="input: expected rows, got none"):
            scene.score()


class TestWithoutPyarrow:
    def test_lines_work_and_tables_say_what_is_missing(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        for name in ("arrow_files", "arrow_rows", "csv_files"):
            monkeypatch.delitem(sys.modules, f"airflow_provider_hsml.hooks.{name}", raising=False)

        assert scene.write([{"id": "a", "x": 1}]).score()["counts"]["success"] == 1
        for name in ("rows.parquet", "rows.csv"):
            (scene.folder / name).write_bytes(b"x")
            with pytest.raises(
                AirflowFailException, match=r"need pyarrow, which is not installed.\nInstall airflow-pro"
            ):
                scene.score(input=str(scene.folder / name))


class TestSecrets:
    @pytest.mark.parametrize("is_strict", [False, True])
    def test_the_key_is_nowhere(self, scene: Scene, caplog: pytest.LogCaptureFixture, *, is_strict: bool) -> None:
        """A model that tells the key, in its answers and its refusals: no file, log, XCom, error or field has it."""
        caplog.set_level(logging.DEBUG)
        key = scene.serving.api_key
        scene.register(2, says=f"the key is {key}", refuses=[3, 777]).deploy(2)
        task = scene.task(fail_on_partial_error=is_strict)

        try:
            told = json.dumps(execute(task))
        except AirflowFailException as error:
            told = str(error)

        kept = {path.name: path.read_text() for path in scene.results.iterdir()}
        assert ("2 of 1000 rows have no prediction" in told) is is_strict
        assert "manifest.json" in kept
        assert "the key is ***" in kept[scene.errors_file().name]
        assert "the key is ***" in scene.content().decode()
        fields = [str(getattr(task, name)) for name in task.template_fields]
        secret = key.rpartition(".")[2]
        assert all(secret not in text for text in (*kept.values(), told, *fields, caplog.text))


class TestFolder:
    @pytest.mark.parametrize(
        "change",
        [{"chunk_rows": 20}, {"key_columns": []}, {"columns": ["x"]}, "another run", "another input"],
        ids=str,
    )
    def test_results_of_another_run_are_kept(self, scene: Scene, change: Any) -> None:
        ti = FakeTaskInstance()
        scene.score(ti)
        before = scene.content()
        given: dict[str, Any] = change if isinstance(change, dict) else {}
        if change == "another run":
            ti = FakeTaskInstance()
        elif change == "another input":
            scene.write([{"id": "a", "x": 1}])

        with pytest.raises(
            AirflowFailException, match="holds results of another run, of other rows or of other argument"
        ):
            scene.score(ti, **given)
        assert scene.content() == before

        (scene.results / "notes.txt").write_text("mine")
        scene.score(ti, **given, on_stale_state="restart")
        assert len(scene.lines()) == (1 if change == "another input" else ROWS)
        assert (scene.results / "notes.txt").exists()

    def test_reuse_by_another_run(self, scene: Scene) -> None:
        manifest = scene.score(reuse=True)
        scene.serving.requests.clear()

        assert scene.score(reuse=True) == manifest
        assert scene.sent() == 0

    def test_a_zombie_cannot_change_the_result(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """While a try that Airflow has given up still runs, the next one writes the manifest."""
        monkeypatch.setattr(table, "PART_BYTES", 500)
        ti = FakeTaskInstance()
        manifests: list[dict[str, Any]] = []
        during(monkeypatch, 700, lambda: manifests.append(scene.score(ti)))

        manifests.append(scene.score(ti))

        assert manifests[0] == manifests[1]
        assert [line["row"] for line in scene.lines()] == list(range(ROWS))

    def test_an_input_that_changes_while_it_is_read(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        during(monkeypatch, 700, lambda: scene.write([{"id": "a", "x": 1}] * ROWS))

        with pytest.raises(AirflowFailException, match=r"'rows.jsonl' was changed while it was read"):
            scene.score()
        assert not (scene.results / "manifest.json").exists()

    @pytest.mark.parametrize(("executor", "is_warned"), [("CeleryExecutor", True), ("LocalExecutor", False)])
    def test_a_local_folder_on_several_machines(
        self,
        scene: Scene,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        executor: str,
        *,
        is_warned: bool,
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
        monkeypatch.setattr(BatchPredictOperator, "log", logging.getLogger("batch"))

        scene.write([{"id": "a", "x": 1}]).score()

        assert ("a retry may run on another one" in caplog.text) is is_warned


class TestBatches:
    def test_batches_of_any_kind(self, scene: Scene) -> None:
        batches: list[Any] = [[{"x": 1}, {"x": 2}], [], tuple({"x": x} for x in range(3, 30)), [{"x": 30}]]

        found = list(scene.hook.predict_batches(scene.name, iter(batches), chunk_rows=10))

        assert [one.predictions for one in found] == [[2 * row["x"] for row in batch] for batch in batches]
        assert all(not one.errors for one in found)

    def test_a_table_of_arrow(self, scene: Scene) -> None:
        pa = pytest.importorskip("pyarrow")
        table_of_x = pa.table({"x": list(range(25))})

        found = list(scene.hook.predict_batches(scene.name, table_of_x, chunk_rows=10))
        batches = list(scene.hook.predict_batches(scene.name, table_of_x.to_batches(max_chunksize=7)))
        tables = list(scene.hook.predict_batches(scene.name, [[], table_of_x, table_of_x.slice(20)], chunk_rows=10))

        assert [value for one in found for value in one.predictions] == list(range(0, 50, 2))
        assert [len(one.predictions) for one in batches] == [7, 7, 7, 4]
        assert [one.predictions for one in tables] == [[], list(range(0, 50, 2)), list(range(40, 50, 2))]

    def test_a_table_for_a_model_that_takes_lists(self, scene: Scene) -> None:
        pa = pytest.importorskip("pyarrow")
        scene.register(3, example=[[0]]).deploy(2)

        empty, found = scene.hook.predict_batches(scene.name, [[], pa.table({"x": [1, 2]})])

        assert (empty.predictions, found.predictions) == ([], [3, 6])
        (body,) = [asked.body for asked in scene.serving.requests if asked.path.endswith(":predict")]
        assert body == {"instances": [[1], [2]]}

    def test_rows_that_fail(self, scene: Scene) -> None:
        scene.register(2, refuses=[7]).deploy(2)
        batches = [[{"x": 1}], [{"x": 6}, {"x": 7}, {"x": float("nan")}, {"x": 8}]]

        one, two = scene.hook.predict_batches(scene.name, batches)

        assert (one.predictions, one.errors) == ([2], {})
        assert two.predictions == [12, None, None, 16]
        assert sorted(two.errors) == [1, 2]
        assert "x is 7" in two.errors[1]
        assert "nan" in two.errors[2]
