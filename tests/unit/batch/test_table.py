"""The engine of a batch, with a folder in memory and a model of one line: failed writes, changes, and two tries."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.batch import table
from airflow_provider_hsml.hopsworks.batch.rows import Columns, RowForm
from airflow_provider_hsml.hopsworks.batch.served import Served
from airflow_provider_hsml.hopsworks.batch.table import Asked, Settings, Workplace, score_table
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentStatus
from airflow_provider_hsml.hopsworks.domain.records import Shape
from airflow_provider_hsml.hopsworks.errors import DeploymentError, HopsworksError, InferenceError, InvalidInputError
from airflow_provider_hsml.hopsworks.inference import scoring, tally
from airflow_provider_hsml.hopsworks.inference.scoring import Target
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from tests.support.fake import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_hsml.hopsworks.api import Call
    from airflow_provider_hsml.hopsworks.batch.progress import Progress, ResultRows

ROWS, CHUNK = 100, 10


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "PART_BYTES", 150)


@dataclass
class Folder:
    """A folder in memory. ``before`` is called with each change, and may fail."""

    files: dict[str, bytes] = field(default_factory=dict)
    before: Callable[[str, str], object] = lambda _act, _name: None
    is_local: bool = True

    def names(self) -> list[str]:
        return sorted(self.files)

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, content: bytes) -> None:
        self.before("write", name)
        self.files[name] = content

    def create(self, name: str, content: bytes) -> bool:
        is_new = name not in self.files
        self.before("create", name)
        if self.is_local:
            is_new = name not in self.files
        if is_new:
            self.files[name] = content
        return is_new

    def delete(self, name: str) -> None:
        self.before("delete", name)
        self.files.pop(name, None)

    def join(self, name: str, parts: Sequence[str]) -> None:
        self.before("write", name)
        self.files[name] = b"".join(self.files[part] for part in parts)

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.files["manifest.json"])
        return found

    def lines(self) -> list[Any]:
        return [json.loads(line) for name in self.manifest()["files"] for line in self.files[name].splitlines()]


@dataclass
class Part:
    """Rows as lines of ``[number, prediction]``. The first ones decide the type of all predictions, as in Parquet."""

    remembered: dict[str, Any]
    content: bytes = b""

    @property
    def size(self) -> int:
        return len(self.content)

    def add(self, rows: ResultRows) -> None:
        for number, prediction in enumerate(rows.predictions, rows.first):
            kind = type(prediction).__name__
            if prediction is not None and self.remembered.setdefault("kind", kind) != kind:
                message = f"row {number}: expected {self.remembered['kind']}, got {kind}"
                raise InvalidInputError(message)
            self.content += json.dumps([number, prediction]).encode() + b"\n"

    def finish(self) -> bytes:
        return self.content


class Lines:
    ending = "jsonl"

    def begin(self, remembered: dict[str, Any]) -> Part:
        return Part(remembered)


@dataclass
class Numbers:
    """Rows of one number each. ``before`` is called with the number of the first row of each chunk that is read."""

    total: int = ROWS
    row: Callable[[int], Any] = lambda number: {"x": number}
    before: Callable[[int], object] = lambda _first: None

    def chunks(self, size: int, start: int, _columns: object = None) -> Iterator[tuple[int, list[Any]]]:
        for first in range(start, self.total, size):
            self.before(first)
            yield first, [self.row(number) for number in range(first, min(first + size, self.total))]

    def check_unchanged(self) -> None:
        """Nothing changes."""


@dataclass
class Scene:
    """A deployment, rows, and a folder for the result."""

    folder: Folder = field(default_factory=Folder)
    rows: Numbers = field(default_factory=Numbers)
    model: Callable[[int, int], Any] = lambda _version, x: x
    """Gives the prediction of a version for a number; None if it refuses the row."""
    version: int = 1
    status: int = 400
    """With which rows are refused."""
    asked: int = 0
    tries: Any = field(default_factory=itertools.count)

    def score(self, **given: Any) -> Progress:
        run = Run(PROJECT, "digits", 60.0, 1.0)
        form = RowForm.build(Columns(), Shape.of_example({"instances": [{"x": 0}]}), {"x": 0})
        place = Workplace(
            run=run,
            results=self.folder,
            format=Lines(),
            rows=self.rows,
            ask=lambda _deployment, _settings: Asked(Target(PROJECT, "digits"), form, CHUNK),
            drive=self.drive,
            connect=lambda _sleep: Connection(self),
            check_alive=lambda: None,
        )
        settings = {"concurrency": 1, **given}
        return score_table(place, Settings("key", f"try-{next(self.tries)}", CHUNK, **settings))

    def drive(self, flow: Any) -> Any:
        name = flow.__name__
        flow.close()
        live = Deployment(
            1, "digits", DeploymentStatus.RUNNING, "digits", self.version, self.version, revision=str(self.version)
        )
        return live if name == "settled" else Served.of(live)


@dataclass
class Connection:
    scene: Scene

    def send(self, call: Call[Any]) -> Any:
        self.scene.asked += 1
        found = [self.scene.model(self.scene.version, row["x"]) for row in json.loads(call.body)["instances"]]
        if None in found:
            raise InferenceError("ask", status=self.scene.status, text="it is refused")
        return call.outcome(Answer(200, json.dumps({"predictions": found}).encode()))

    def close(self) -> None:
        """Nothing is open."""


class TestFailedWrites:
    @pytest.mark.parametrize("act", ["write", "create", "delete"])
    def test_the_next_try_has_each_row_once(self, act: str) -> None:
        """The n-th change of the folder fails once, for each n."""
        for n in itertools.count():
            scene, numbers = Scene(model=lambda _version, x: None if x in (7, 55) else x), itertools.count()

            def fail(done: str, name: str, n: int = n, numbers: Any = numbers) -> None:
                if done == act and next(numbers) == n:
                    message = f"{name} cannot be written"
                    raise InvalidInputError(message)

            scene.folder.before = fail
            try:
                scene.score(max_errors=2)
            except InvalidInputError:
                progress = scene.score(max_errors=2)
            else:
                break

            assert scene.folder.lines() == [[x, None if x in (7, 55) else x] for x in range(ROWS)]
            assert (progress.rows, progress.errors) == (ROWS, 2)
            errors = scene.folder.files[scene.folder.manifest()["errors_file"]].splitlines()
            assert [json.loads(line)["row"] for line in errors] == [7, 55]
        assert n > 0

    def test_rows_that_the_format_refuses_are_never_written(self) -> None:
        """A failure in the middle of a chunk: neither this try nor the next one writes a part of it."""
        scene = Scene(model=lambda _version, x: 0.5 if x == 65 else x)
        for _ in range(2):
            with pytest.raises(InvalidInputError, match="row 65: expected int, got float"):
                scene.score()
        assert "manifest.json" not in scene.folder.files

    def test_parts_that_leave_rows_out_are_no_result(self) -> None:
        scene = Scene()
        progress = scene.score()
        del scene.folder.files["manifest.json"]
        (name,) = (name for name in scene.folder.files if name.startswith("_progress-"))
        stored = progress.to_json()
        stored["parts"] = [{**part, "first": part["first"] + 1} for part in stored["parts"]]
        scene.folder.files[name] = json.dumps(stored).encode()
        scene.asked = 0

        scene.score(on_stale_state="restart")

        assert scene.asked == ROWS / CHUNK
        assert [number for number, _ in scene.folder.lines()] == list(range(ROWS))


class TestErrors:
    def test_errors_of_an_earlier_try_count(self) -> None:
        scene = Scene(model=lambda _version, x: None if 90 <= x < 95 else x)
        for _ in range(2):
            with pytest.raises(InvalidInputError, match=r"5 of 100 rows failed, more than 1 \(max_errors\)"):
                scene.score(max_errors=1)
            assert "manifest.json" not in scene.folder.files
        sent = scene.asked

        assert scene.score(max_errors=5).errors == 5
        assert scene.asked == sent

    def test_a_result_that_is_there_has_too_many_of_them(self) -> None:
        scene = Scene(model=lambda _version, x: x or None)
        scene.score(max_errors=1)

        with pytest.raises(InvalidInputError, match="1 of 100 rows failed, more than 0"):
            scene.score(max_errors=0)
        assert scene.score(max_errors=1).rows == ROWS

    @pytest.mark.parametrize("bad", ["refused", "crash", "unsendable"])
    @pytest.mark.parametrize("is_answered", [True, False])
    def test_bad_rows_at_the_beginning(self, monkeypatch: pytest.MonkeyPatch, bad: str, *, is_answered: bool) -> None:
        """More rows than tell that none is answered, fewer than may fail: the rows elsewhere decide."""
        monkeypatch.setattr(tally, "ALL_REFUSED", 10)
        monkeypatch.setattr(scoring, "OUTAGE_SECONDS", 0.1)
        monkeypatch.setattr(scoring, "_FIRST_PAUSE", 0.001)
        monkeypatch.setattr(table, "_BEFORE_ANY_ANSWER", 10)
        count = 25 if is_answered else ROWS
        scene = Scene(status=500 if bad == "crash" else 400)
        if bad == "unsendable":
            scene.rows.row = lambda x: {"x": float("nan") if x < count else x}
        else:
            scene.model = lambda _version, x: None if x < count else x

        if is_answered:
            assert scene.score(max_errors=25).errors == 25
            assert scene.folder.lines() == [[x, None if x < 25 else x] for x in range(ROWS)]
        else:
            with pytest.raises(HopsworksError, match=r"none was answered|none of the first 10 rows has a prediction"):
                scene.score(max_errors=ROWS)
            assert bad == "crash" or scene.asked < ROWS  # A crash may pass: it is asked again for a while.


@dataclass
class Second:
    """A try that begins while another one reads a row; the other one has been given up by Airflow since."""

    scene: Scene
    given: dict[str, Any]
    at: int
    found: list[Progress] = field(default_factory=list)

    def begin(self, first: int) -> None:
        if first == self.at:
            self.scene.rows = Numbers(self.scene.rows.total, self.scene.rows.row)
            self.scene.version += 1
            self.found.append(self.scene.score(**self.given))


class TestTwoTries:
    @pytest.mark.parametrize("policy", ["restart", "allow"])
    @pytest.mark.parametrize("at", [20, 50, 90])
    def test_a_zombie_does_not_change_the_result_after_a_promotion(self, policy: str, at: int) -> None:
        scene = Scene(model=lambda version, x: version if x != 45 else None)
        given = {"on_model_change": policy, "max_errors": 1}
        second = Second(scene, given, at)
        scene.rows.before = second.begin

        progress = scene.score(**given)

        assert progress.to_json() == second.found[0].to_json()
        assert len(scene.folder.lines()) == ROWS
        assert policy == "allow" or {one for _, one in scene.folder.lines()} == {2, None}
        assert progress.files == scene.folder.manifest()["files"]

    def test_a_zombie_that_begins_anew_keeps_the_parts_of_a_running_try(self) -> None:
        """The second try has taken over parts of the first one, and is in the middle, when that one sees the change."""
        scene = Scene(model=lambda version, _x: version)
        given = {"on_model_change": "restart"}
        scene.rows.before = Stop(80)
        with pytest.raises(KeyboardInterrupt):
            scene.score(**given)
        scene.version = 2
        parts = {name for name in scene.folder.files if name.startswith("part-")}
        assert parts

        scene.rows.before = Stop(80)
        with pytest.raises(KeyboardInterrupt):
            scene.score(**given)
        assert parts < set(scene.folder.files)
        scene.asked, scene.rows.before = 0, lambda _first: None
        scene.score(**given)

        assert scene.asked < ROWS / CHUNK  # The newest version's parts are continued, not the older ones'.
        assert [one for _, one in scene.folder.lines()] == [2] * ROWS
        assert not parts & set(scene.folder.files)

    @pytest.mark.parametrize("is_local", [True, False])
    @pytest.mark.parametrize("at", [0, 60])
    def test_two_tries_that_end_together(self, at: int, *, is_local: bool) -> None:
        """Object storage: each has seen no manifest, and writes its own. Nothing of the last one is deleted."""
        scene = Scene(Folder(is_local=is_local), model=lambda _version, x: x or None)
        if at:
            scene.rows.before = Stop(at + 30)
            with pytest.raises(KeyboardInterrupt):
                scene.score(max_errors=1)
            scene.rows.before = lambda _first: None
        second: list[Progress] = []

        def end(act: str, _name: str) -> None:
            if act == "create" and not second:
                scene.folder.before = lambda _act, _name: None
                second.append(scene.score(max_errors=1))

        scene.folder.before = end
        progress = scene.score(max_errors=1)

        manifest = scene.folder.manifest()
        assert progress.manifest("") == {**manifest, "result_path": ""}
        assert scene.folder.lines() == [[x, x or None] for x in range(ROWS)]
        assert [json.loads(line)["row"] for line in scene.folder.files[manifest["errors_file"]].splitlines()] == [0]

    def test_a_try_that_begins_anew_keeps_apart_what_two_versions_answered(self) -> None:
        """It is killed when it has begun anew, and the deployment is rolled back: no part has changed its rows."""
        scene = Scene(model=lambda version, _x: version)

        def change(first: int) -> None:
            if first == 80:
                scene.version, scene.rows.before = 2, Stop(60)

        scene.rows.before = change
        with pytest.raises(KeyboardInterrupt):
            scene.score(on_model_change="restart")
        scene.version, scene.rows.before = 1, lambda _first: None
        scene.score(on_model_change="restart")

        assert [one for _, one in scene.folder.lines()] == [1] * ROWS

    def test_a_part_that_is_deleted_before_the_end(self) -> None:
        scene = Scene()

        def lose(act: str, name: str) -> None:
            if act == "write" and name.startswith("part-0000000000") and not name.startswith("part-000000000000"):
                for one in [one for one in scene.folder.files if one.startswith("part-000000000000")]:
                    del scene.folder.files[one]

        scene.folder.before = lose
        with pytest.raises(DeploymentError, match="one was deleted meanwhile") as caught:
            scene.score()
        assert caught.value.transient
        assert "manifest.json" not in scene.folder.files

        scene.folder.before = lambda _act, _name: None
        scene.score(on_stale_state="restart")
        assert scene.folder.lines() == [[x, x] for x in range(ROWS)]


@dataclass
class Stop:
    """Ends a task when a row is read, as a kill does."""

    at: int

    def __call__(self, first: int) -> None:
        if first == self.at:
            raise KeyboardInterrupt
