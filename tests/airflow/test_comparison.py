"""Two versions on the same rows: on a temporary deployment, from stored answers, and what cannot be compared."""

from __future__ import annotations

import gzip
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_hsml.hopsworks.domain.comparison import Comparison
from airflow_provider_hsml.hopsworks.domain.side_deployment import is_lease_file
from airflow_provider_hsml.hopsworks.errors import DeploymentFailedError, InvalidInputError, NotFoundError
from airflow_provider_hsml.hopsworks.inference import scoring
from airflow_provider_hsml.hopsworks.promotion.journal import FOLDER
from airflow_provider_hsml.local import LocalServing
from airflow_provider_hsml.operators import CompareModelsOperator
from tests.conftest import HOPSWORKS
from tests.support.tasks import FakeTaskInstance, change_by_rest, execute, prepare_thread, rendered, resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import ModelFiles

pytest.importorskip("sklearn", reason="a comparison measures with scikit-learn")
pytestmark = pytest.mark.airflow

ROWS = [
    {"x": x, "y": int(x >= 200), "day": f"2026-11-{x % 28 + 1:02}", "land": "AT" if x % 2 else "DE"} for x in range(400)
]
_numbers = itertools.count()


def load(model: ModelFiles) -> Callable[[Any], Any]:
    """Make a model of a file: it says whether ``x`` reaches a threshold, and fails with the values it refuses."""
    assert model.path is not None
    (file,) = model.path.rglob("*.joblib")
    content = json.loads(file.read_text())
    if "broken" in content:
        raise RuntimeError(content["broken"])

    def predict(rows: Any) -> Any:
        values = [row["x"] if isinstance(row, dict) else row[0] for row in rows]
        for value in values:
            if value in content.get("refuses", ()):
                raise ValueError(f"x is {value}{content.get('says', '')}")
        return {"predictions": [int(value >= content["threshold"]) for value in values]}

    return predict


@pytest.fixture(scope="module")
def local_serving() -> Iterator[LocalServing]:
    with LocalServing(engine=load, hopsworks_version=HOPSWORKS) as serving:
        yield serving


class Scene:
    """A deployment with a served version, and challengers."""

    def __init__(self, hook: HsmlHook, serving: LocalServing, model_file: Callable[..., Path], folder: Path) -> None:
        self.hook, self.serving, self.model_file, self.folder = hook, serving, model_file, folder
        self.name = f"compared{next(_numbers)}"
        self.register(150)

    def register(self, threshold: float, *, example: Any = None, framework: str = "SKLEARN", **content: Any) -> int:
        model = self.hook.register_model(
            model_name=self.name,
            model_path=self.model_file(threshold=threshold, **content),
            framework=framework,
            input_example=example or {"x": 0},
        )
        return model.version

    def deploy(self) -> Scene:
        self.hook.deploy_model(self.name, 1, poll_interval=0.1)
        self.serving.requests.clear()
        return self

    def task(self, **given: Any) -> CompareModelsOperator:
        how: dict[str, Any] = {
            "task_id": "task",
            "deployment_name": self.name,
            "input": ROWS,
            "label_column": "y",
            "metrics": ["accuracy"],
            "result_path": str(self.folder),
            "poll_interval": 0.1,
        }
        return CompareModelsOperator(**{name: value for name, value in {**how, **given}.items() if value is not None})

    def asked(self, name: str | None = None) -> list[str]:
        """Give the deployments that were asked for predictions, in order."""
        asked = [one.path.rpartition("/")[2] for one in self.serving.requests if one.path.endswith(":predict")]
        return [one.removesuffix(":predict") for one in asked if name is None or one == f"{name}:predict"]

    def deployments(self) -> set[str]:
        return {one.name for one in self.hook.get_deployments() if one.name.startswith(self.name)}

    def leases(self) -> list[str]:
        files = self.serving.world.project(self.serving.project_id).files
        folder = f"{FOLDER}/{self.name}"
        names = [entry.name for entry in files.listing(folder)] if files.exists(folder) else []
        return [name for name in names if is_lease_file(name)]


@pytest.fixture
def scene(hook: HsmlHook, serving: LocalServing, model_file: Callable[..., Path], tmp_path: Path) -> Scene:
    return Scene(hook, serving, model_file, tmp_path / "results")


@pytest.fixture
def served(scene: Scene) -> Scene:
    """Version 1 serves and is right for 350 of 400 rows; version 2 for 390."""
    scene.register(190)
    return scene.deploy()


class TestOnOneTemporaryDeployment:
    def test_both_versions_answer_the_same_rows_there(self, served: Scene) -> None:
        before, ti = resource(served.hook, served.name), FakeTaskInstance()

        record = execute(served.task(challenger=2, slice_columns=["land"]), ti)

        found = record["metrics"]["accuracy"]
        assert (found["champion"], found["challenger"]) == (0.875, 0.975)
        assert found["lower_bound"] > 0
        assert (record["champion"]["version"], record["challenger"]["version"]) == (1, 2)
        assert record["rows"]["compared"] == 400
        assert {one["column"] for one in found["slices"]} <= {"land"}
        assert record["latency_ms"]
        assert not {served.name} & set(served.asked()), "the live deployment is not asked"
        assert resource(served.hook, served.name) == before
        assert served.deployments() == {served.name}
        assert served.leases() == []
        assert json.loads((served.folder / "comparison.json").read_text()) == record
        assert record["report"] == str(served.folder / "report.html")
        assert "<html" in Path(record["report"]).read_text()
        assert Comparison.read(record).metrics["accuracy"].challenger == 0.975
        assert record["deployment_name"] == Comparison.read(record).deployment_name == served.name
        assert ti.pushed["hsml_report_url"] == record["report"]
        assert ti.pushed["hsml_deployment_url"].endswith(f"/{before['id']}")
        assert len(json.dumps(record)) < 48_000

    def test_a_retry_and_another_challenger_of_the_run_use_the_stored_answers(self, served: Scene) -> None:
        served.register(199)
        ti = FakeTaskInstance()
        first = execute(served.task(challenger=2), ti)
        served.serving.requests.clear()

        again = execute(served.task(challenger=2), ti)

        assert served.asked() == []
        assert again["metrics"] == first["metrics"]
        assert {one.method for one in served.serving.requests} == {"GET"}

        other = execute(served.task(challenger=3), ti)
        probes = 20
        assert 100 <= len(served.asked()) <= 100 + probes, "only the challenger is asked"
        assert other["results"]["champion"] == first["results"]["champion"]
        served.serving.requests.clear()

        execute(served.task(challenger=2), FakeTaskInstance(run_id="tomorrow"))
        assert len(served.asked()) >= 200, "another run asks both versions"
        served.serving.requests.clear()

        execute(served.task(challenger=2, input=ROWS[:300]), ti)
        assert len(served.asked()) >= 200, "other rows are sent to both versions"

    def test_stored_answers_are_not_used_for_other_requests(self, served: Scene, tmp_path: Path) -> None:
        """Columns in another order, a column that is no longer sent, a version that was registered anew."""
        ti, path, rows = FakeTaskInstance(), tmp_path / "rows.jsonl", [{"x": 0, "z": 0, "y": row["y"]} for row in ROWS]

        def asked(**given: Any) -> int:
            served.serving.requests.clear()
            execute(served.task(**{"challenger": 2, "input": str(path), **given}), ti)
            return len(served.asked())

        for columns in (["x", "z", "y"], ["z", "x", "y"]):
            path.write_text("".join(json.dumps({name: row[name] for name in columns}) + "\n" for row in rows))
            assert asked() >= 200
        assert asked() == 0
        assert asked(group_column="z") >= 200
        served.hook.delete_model(served.name, 2)
        assert served.register(190) == 2
        assert 100 <= asked() <= 120, "only the challenger is asked"

    def test_mapped_challengers_write_into_folders_of_their_own(self, served: Scene) -> None:
        served.register(199)
        with DAG("dag", schedule=None) as dag:
            CompareModelsOperator.partial(
                task_id="task",
                deployment_name=served.name,
                input=ROWS,
                label_column="y",
                metrics=["accuracy"],
                result_path=str(served.folder),
                poll_interval=0.1,
            ).expand(challenger=[2, 3])

        for number, version in enumerate((2, 3)):
            task = dag.get_task("task").unmap({"challenger": version})
            record = execute(task, FakeTaskInstance(run_id="night", map_index=number), expanded_ti_count=2)
            assert record["challengers"] == 2
            assert record["report"] == str(served.folder / f"{served.name}_{version}" / "report.html")
            assert (served.folder / f"{served.name}_{version}" / "comparison.json").is_file()

    @pytest.mark.parametrize(
        ("given", "counted", "expected", "is_warned"),
        [
            ({}, {}, 1, True),
            ({}, {"expanded_ti_count": None}, 1, True),
            ({}, {"expanded_ti_count": 2}, 2, False),
            ({"challengers": 3}, {}, 3, False),
            ({"challengers": "3"}, {"expanded_ti_count": 2}, 3, False),
        ],
    )
    def test_mapped_challengers_are_counted(
        self,
        served: Scene,
        caplog: pytest.LogCaptureFixture,
        given: dict[str, Any],
        counted: dict[str, Any],
        expected: int,
        is_warned: bool,
    ) -> None:
        """Airflow 2 tells a mapped task how many there are, and Airflow 3 does not."""
        with DAG("dag", schedule=None) as dag:
            CompareModelsOperator.partial(
                task_id="task",
                deployment_name=served.name,
                input=ROWS,
                label_column="y",
                metrics=["accuracy"],
                result_path=str(served.folder),
                resamples=100,
                poll_interval=0.1,
                **given,
            ).expand(challenger=[2])
        task = dag.get_task("task").unmap({"challenger": 2})

        record = execute(task, FakeTaskInstance(map_index=0), **counted)

        assert record["challengers"] == expected
        assert ("Give challengers=" in caplog.text) is is_warned

    def test_a_task_that_is_not_mapped_may_be_one_of_several(
        self, served: Scene, caplog: pytest.LogCaptureFixture
    ) -> None:
        ti = FakeTaskInstance()

        assert execute(served.task(challenger=2), ti)["challengers"] == 1
        assert "Give challengers=" not in caplog.text
        assert execute(served.task(challenger=2, challengers=4), ti)["challengers"] == 4

    def test_rows_that_a_version_refuses_are_counted(self, scene: Scene) -> None:
        scene.register(190, refuses=[7, 8, 250])
        scene.deploy()

        record = execute(scene.task(challenger=2))

        assert record["rows"]["refused_by_challenger"] == 3
        assert record["rows"]["compared"] == 397
        lines = Path(record["results"]["challenger"]) / "rows.jsonl.gz"
        rows = [json.loads(line) for line in gzip.decompress(lines.read_bytes()).splitlines()]
        assert [row["row"]["x"] for row in rows if "refused" in row] == [7, 8, 250]
        assert "x is 250" in rows[250]["refused"]

    def test_the_key_is_in_no_result_whatever_a_model_says(self, scene: Scene) -> None:
        key = json.loads(scene.serving.connection)["password"]
        scene.register(190, refuses=[7], says=f" and the key is {key}")
        scene.deploy()

        record = execute(scene.task(challenger=2))

        files = [path for path in scene.folder.rglob("*") if path.is_file()]
        contents = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in files]
        assert any(b"x is 7 and the key is" in content for content in contents)
        for text in (json.dumps(record).encode(), *contents):
            assert key.encode() not in text
            assert key.rpartition(".")[2].encode() not in text

    def test_two_at_the_same_time_wait_for_each_other_and_ask_the_champion_once(self, served: Scene) -> None:
        served.register(199)

        def compare(number: int) -> dict[str, Any]:
            folder = served.folder.parent / "both"
            task = served.task(challenger=2 + number, result_path=str(folder / "results"), task_id=f"task{number}")
            ti = FakeTaskInstance(run_id="night", task_id=f"task{number}")
            return dict(execute(task, ti))

        with ThreadPoolExecutor(2, initializer=prepare_thread) as threads:
            first, second = threads.map(compare, range(2))

        assert [one["challenger"]["version"] for one in (first, second)] == [2, 3]
        assert first["results"]["champion"] == second["results"]["champion"]
        probes = 40
        assert 300 <= len(served.asked()) <= 300 + probes
        assert served.deployments() == {served.name}
        assert served.leases() == []

    def test_straight_to_the_ingress(self, served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        fields = json.loads(served.serving.connection)
        fields["extra"] |= {"inference_route": "istio", "ingress_url": served.serving.ingress_url}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(fields))

        record = execute(served.task(challenger=2))

        assert record["metrics"]["accuracy"]["challenger"] == 0.975
        reads = [one for one in served.serving.requests if one.path.endswith("kube_knative_domain_name")]
        assert len(reads) <= 2 * (1 + scoring.AT_THE_INGRESS), "a connection finds the address once"

    def test_a_champion_that_does_not_come_up_is_an_error_that_leaves_nothing(self, served: Scene) -> None:
        broken = served.register(150, broken="no such file")
        change_by_rest(served.hook, served.name, lambda row: row.update(modelVersion=broken))

        with pytest.raises(AirflowFailException, match=f"version {broken} of model .* do not come up.*no such file"):
            execute(served.task(challenger=2))
        assert served.deployments() == {served.name}
        assert served.leases() == []

    def test_without_labels_agreement_is_left(self, served: Scene) -> None:
        record = execute(served.task(challenger=2, label_column=None, metrics=None))

        assert record["metrics"] == {}
        assert record["agreement"]

    def test_a_stopped_champion_is_compared_and_stays_stopped(self, served: Scene) -> None:
        served.hook.stop_deployment(served.name, poll_interval=0.1)

        record = execute(served.task(challenger=2))

        assert record["champion"]["version"] == 1
        assert served.hook.get_deployment_state(served.name) == "Stopped"

    def test_without_a_champion_the_challenger_alone_is_measured(self, scene: Scene) -> None:
        record = execute(scene.task(challenger={"model_name": scene.name, "model_version": 1}))

        assert record["champion"] is None
        assert record["metrics"]["accuracy"]["challenger"] == 0.875
        assert scene.deployments() == set()

    def test_a_version_that_does_not_come_up_leaves_nothing(self, scene: Scene) -> None:
        scene.register(190, broken="no such file")
        scene.deploy()

        with pytest.raises((AirflowFailException, DeploymentFailedError), match="no such file"):
            execute(scene.task(challenger=2))
        assert scene.deployments() == {scene.name}
        assert scene.leases() == []

    @pytest.mark.parametrize("ends_by", [KeyboardInterrupt, RuntimeError])
    def test_whatever_ends_the_task_the_temporary_deployment_is_removed(
        self, served: Scene, monkeypatch: pytest.MonkeyPatch, ends_by: type[BaseException]
    ) -> None:
        task = served.task(challenger=2)

        def ended(rows: Any, target: Any, *_: Any, **__: Any) -> Any:
            assert target.name in served.deployments()
            task.on_kill()
            raise ends_by

        monkeypatch.setattr(scoring, "score", ended)
        with pytest.raises(ends_by):
            execute(task)
        assert served.deployments() == {served.name}
        assert served.leases() == []


class TestRows:
    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "folder"])
    def test_from_files(self, served: Scene, tmp_path: Path, name: str) -> None:
        content = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
        path = tmp_path / name
        if name == "folder":
            path.mkdir()
            half = content.index(b'{"x": 200')
            (path / "part-0.jsonl").write_bytes(content[:half])
            (path / "part-1.jsonl.gz").write_bytes(gzip.compress(content[half:]))
            (path / "_SUCCESS").touch()
        else:
            path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

        record = execute(served.task(challenger=2, input=str(path)))

        assert record["metrics"]["accuracy"]["challenger"] == 0.975

    @pytest.mark.parametrize(
        ("example", "change"),
        [
            ({"x": 0}, lambda row: row | {"id": "secret"}),
            ([[0]], lambda row: {"y": row["y"], "x": row["x"]}),
            ([[0, 0]], lambda row: {"instance": [row["x"], 1], "y": row["y"]}),
        ],
        ids=["by the names of the example", "in the order of the columns", "as the model takes it"],
    )
    def test_what_is_sent(self, scene: Scene, example: Any, change: Callable[[Any], Any]) -> None:
        scene.register(190, example=example)
        scene.register(195, example=example)
        scene.hook.deploy_model(scene.name, 2, poll_interval=0.1)

        record = execute(scene.task(challenger=3, input=[change(row) for row in ROWS]))

        assert record["metrics"]["accuracy"] | {} == record["metrics"]["accuracy"]
        assert record["metrics"]["accuracy"]["challenger"] == 0.9875


BAD: list[tuple[dict[str, Any], str]] = [
    ({"challenger": 1}, "is the champion itself"),
    ({"challenger": 9}, "versions there: 1, 2"),
    ({"challenger": "newest"}, "challenger: expected a whole number"),
    ({"challenger": None}, "challenger: expected a whole number"),
    ({"deployment_name": "nothere"}, "there is no deployment 'nothere' that would tell the model"),
    ({"input": []}, "input: expected rows, got none"),
    ({"input": [[1]]}, r"input\[0\]: expected a record"),
    ({"input": [{"x": 1}]}, r"input\[0\]: the column 'y' of label_column is not in the record"),
    ({"input": [{"x": 1, "y": None}]}, "input: the column 'y' of label_column is null in all rows"),
    ({"input": [{"x": float("nan"), "y": 1}]}, r"input\[0\].x: expected plain JSON values, got nan \(row 0"),
    (
        {"input": [{"y": 1, "a": 2, "b": 3}]},
        "no row has the column 'x', which the registered example of the version has",
    ),
    ({"input": "/no/such/file.jsonl"}, "there is no such file or folder"),
    ({"input": ""}, "input: expected a text that is not empty, got ''"),
    ({"input": None, "challenger_results": " "}, "challenger_results: expected a text that is not empty, got ' '"),
    ({"input": __file__}, "input: expected files of JSON lines"),
    ({"input": "[1, "}, "input: text as the whole value is read as JSON"),
    ({"group_column": "who"}, r"input\[0\]: the column 'who' of group_column"),
    ({"slice_columns": ["who"]}, r"input\[0\]: the column 'who' of slice_columns"),
    ({"slice_columns": ["land", "land"]}, "slice_columns: expected each column once"),
    ({"slice_columns": ["y"]}, "label_column: expected a column of its own"),
    ({"metrics": None}, "metrics and label_column: expected both"),
    ({"label_column": None}, "metrics and label_column: expected both"),
    ({"metrics": ["acuracy"]}, "accuracy"),
    ({"resamples": 10}, "resamples: expected a whole number of 100 or more"),
    ({"seed": "x"}, "seed: expected a whole number"),
    ({"challengers": "some"}, "challengers: expected a whole number of 1 or more"),
    ({"challengers": ""}, "challengers: expected a whole number of 1 or more"),
    ({"result_path": "/proc/no"}, "result_path"),
    ({"input": None}, "input: expected rows, or stored result sets"),
    ({"champion_results": "/x"}, "input"),
    ({"input": None, "challenger_results": "/no/such"}, "challenger_results '/no/such': there is no such"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=str)
def test_what_cannot_be_compared_is_refused_before_anything_is_made(
    served: Scene, given: dict[str, Any], message: str
) -> None:
    task = rendered(served.task(challenger=2), **given)

    with pytest.raises(AirflowFailException, match=message):
        execute(task)
    assert {one.method for one in served.serving.requests} <= {"GET"}


def test_a_version_of_another_framework_is_refused(served: Scene, tmp_path: Path) -> None:
    served.hook.register_model(
        model_name=served.name, model_path=served.model_file(threshold=1), framework="TENSORFLOW"
    )

    with pytest.raises(AirflowFailException, match="needs TENSORFLOW_SERVING"):
        execute(served.task(challenger=3))
    assert served.deployments() == {served.name}


class TestStoredAnswers:
    @pytest.fixture
    def stored(self, served: Scene) -> dict[str, Any]:
        return dict(execute(served.task(challenger=2, label_column=None, metrics=None))["results"])

    def test_are_compared_without_a_request_once_the_labels_are_there(
        self, served: Scene, stored: dict[str, Any]
    ) -> None:
        served.serving.requests.clear()

        record = execute(
            served.task(
                input=None, champion_results=stored["champion"], challenger_results=stored["challenger"], seed=3
            )
        )

        assert record["metrics"]["accuracy"]["champion"] == 0.875
        assert served.asked() == []
        assert record["results"] == stored

    def test_of_the_challenger_alone(self, served: Scene, stored: dict[str, Any]) -> None:
        record = execute(served.task(input=None, challenger=2, challenger_results=stored["challenger"]))

        assert record["champion"] is None

    def test_from_another_program(self, served: Scene, stored: dict[str, Any], tmp_path: Path) -> None:
        other = tmp_path / "spark"
        other.mkdir()
        lines = [json.dumps({"row": row, "prediction": row["y"]}) for row in ROWS]
        (other / "part-00000.json").write_text("\n".join(lines[:250]))
        (other / "part-00001.json").write_text("\n".join(lines[250:]))
        (other / "results.json").write_text(json.dumps({"model_name": "other", "model_version": 7}))

        record = execute(served.task(input=None, champion_results=stored["champion"], challenger_results=other))

        assert record["challenger"] == {"project": served.hook.client.project.name, "name": "other", "version": 7}
        assert record["metrics"]["accuracy"]["challenger"] == 1.0
        assert Comparison.read(record).challenger.project == served.hook.client.project.name

    def test_that_do_not_fit(self, served: Scene, stored: dict[str, Any], tmp_path: Path) -> None:
        both = {"champion_results": stored["champion"], "challenger_results": stored["challenger"]}
        others = {
            name: execute(served.task(challenger=2, input=rows))["results"]["champion"]
            for name, rows in (("fewer", ROWS[:300]), ("sorted", ROWS[::-1]))
        }
        (tmp_path / "empty").mkdir()
        (tmp_path / "half").mkdir()
        (tmp_path / "half" / "rows.jsonl").write_text('{"row": {"x": 1, "y": 1}, "prediction": 1}\n')
        (tmp_path / "half" / "results.json").write_text('{"model_name": "a", "model_version": 1, "rows": 2}')

        for given, message in [
            ({"challenger": 5}, "challenger: expected version 2 of model"),
            ({"challenger_results": stored["champion"]}, "is the champion itself"),
            ({"champion_results": others["fewer"]}, "got 400 rows, and there are 300"),
            ({"champion_results": others["sorted"]}, "in the same order; row 0 differs"),
            ({"challenger_results": str(tmp_path / "empty")}, "there is no file 'results.json'"),
            ({"challenger_results": str(tmp_path / "half")}, "expected 2 rows, got 1"),
            ({"champion_results": None, "challenger_results": None}, "input: expected rows"),
        ]:
            with pytest.raises(AirflowFailException, match=message):
                execute(rendered(served.task(input=None, challenger_results="x"), **{**both, **given}))


def always(_labels: Any, _predictions: Any) -> float:
    """Measure nothing."""
    return 1.0


def token_rate(_labels: Any, predictions: Any) -> float:
    """Measure something whose name Airflow takes for that of a secret."""
    return float(sum(predictions) / len(predictions))


FUNCTION = f"{__name__}.always"


class TestFunctionsAsMetrics:
    METRICS = ["accuracy", {"metric": FUNCTION, "direction": "max"}]  # noqa: RUF012

    def test_are_taken_from_the_dag_file(self, served: Scene) -> None:
        task = served.task(challenger=2, metrics=self.METRICS)

        assert task.metrics == ["accuracy"]
        assert task._all_metrics() == self.METRICS

    def test_may_have_a_name_that_airflow_masks(self, served: Scene) -> None:
        name = f"{__name__}.token_rate"
        how: dict[str, Any] = {"metrics": [{"metric": name, "direction": "max"}], "slice_columns": ["land"]}
        rows = [{**row, "land": served.serving.api_key} for row in ROWS]
        record = execute(served.task(challenger=2, input=rows, resamples=100, **how))

        (worse,) = Comparison.read(record).metrics[name].slices
        assert (worse.champion, worse.challenger, worse.value) == (0.625, 0.525, "***")

    def test_are_not_taken_from_elsewhere(self, served: Scene) -> None:
        task = rendered(served.task(challenger=2, metrics="{{ params.metrics }}"), metrics=json.dumps(self.METRICS))

        with pytest.raises(AirflowFailException, match="metrics: a dotted path names code to run"):
            execute(task)

    def test_are_not_mapped(self, served: Scene) -> None:
        how: dict[str, Any] = {"deployment_name": served.name, "input": ROWS, "label_column": "y", "challenger": 2}
        with DAG("dag", schedule=None) as dag:
            CompareModelsOperator.partial(task_id="task", result_path=str(served.folder), **how).expand(
                metrics=[self.METRICS]
            )
            CompareModelsOperator.partial(task_id="written", metrics=self.METRICS, **how).expand(
                result_path=[str(served.folder)]
            )

        with pytest.raises(AirflowFailException, match="metrics: a dotted path names code to run"):
            execute(dag.get_task("task").unmap({"metrics": self.METRICS}))
        written: Any = dag.get_task("written").unmap({"result_path": str(served.folder)})
        assert written._all_metrics() == self.METRICS


def test_the_hook_does_it_too(served: Scene) -> None:
    record = served.hook.compare_models(
        served.name, 2, ROWS, label_column="y", metrics=["accuracy"], result_path=served.folder, poll_interval=0.1
    )

    assert record["metrics"]["accuracy"]["difference"] == pytest.approx(0.1)
    with pytest.raises(NotFoundError):
        served.hook.compare_models(served.name, 7, ROWS, label_column="y", metrics=["mae"], result_path=served.folder)
    with pytest.raises(InvalidInputError, match="only one of input, challenger_results"):
        served.hook.compare_models(served.name, 2, ROWS, result_path=served.folder, challenger_results="/x")
