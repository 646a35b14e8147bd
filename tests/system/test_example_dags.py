"""The example DAGs: what README quotes is there, parsing is cheap, and they do what they say when Airflow runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import HOPSWORKS
from tests.support import commands, pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing, ModelFiles

FOLDER = Path(__file__).parents[2] / "example_dags"
AIRFLOW = tuple(map(int, version("apache-airflow").split(".")[:2]))
HAS_APPROVAL = AIRFLOW >= (3, 1)
"""Whether this Airflow asks people."""
HAS_WATCHERS = AIRFLOW >= (3, 0)
"""Whether this Airflow watches assets."""
LATER = {
    name for name, has in (("approve_in_airflow", HAS_APPROVAL), ("promote_on_new_version", HAS_WATCHERS)) if not has
}
"""Examples for later ones."""
EXAMPLES = [path for path in sorted(FOLDER.glob("*.py")) if path.stem not in LATER]
# A DAG that needs nothing loads this much; the examples may load our operators on top of it.
LOAD_EXAMPLES = """
import json, runpy, sys
from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias, Param, get_current_context, task
try:
    from airflow.sdk import AssetWatcher
    from airflow.triggers.base import BaseEventTrigger
    from airflow.providers.standard.operators.hitl import ApprovalOperator
except Exception:  # Airflow 2.11 has none, and 3.0 no approval
    pass
with DAG("plain", params={"number": Param(1, type="integer")}):
    @task
    def plain(): ...
    plain()
before = set(sys.modules)
for path in sys.argv[1:]:
    runpy.run_path(path)
print("LOADED=" + json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.airflow
class TestFiles:
    def test_there_are_some(self) -> None:
        assert {path.stem for path in EXAMPLES} >= {"approve_by_tag", "retrain_and_deploy", "start_predict_stop"}

    @pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
    def test_has_what_the_documentation_quotes(self, path: Path) -> None:
        text = path.read_text()

        assert re.findall(r"^# \[START (\w+)\]$", text, re.MULTILINE)[0] == path.stem
        assert text.rstrip().endswith(f"# [END {path.stem}]")
        assert "from airflow" in text.partition("# [START")[2], "what is quoted runs as it stands"

    def test_parsing_loads_no_http_and_no_model_library(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", LOAD_EXAMPLES, *map(str, EXAMPLES)],
            capture_output=True,
            text=True,
            check=True,
            env=commands.environment(tmp_path),
        )
        line = next(line for line in done.stdout.splitlines() if line.startswith("LOADED="))
        loaded = {name.partition(".")[0] for name in json.loads(line.removeprefix("LOADED="))}

        assert "airflow_provider_hsml" in loaded
        assert not loaded & {"sklearn", "joblib", "numpy", "scipy", "pandas", "requests", "httpx", "urllib3"}

    # Airflow 3.0 and 3.1 warn of their own old names while they load a file, and DagBag says it again in its own name.
    @pytest.mark.filterwarnings("ignore:The `airflow:DeprecationWarning", "ignore:The `airflow:FutureWarning")
    def test_airflow_takes_them(self) -> None:
        try:
            from airflow.dag_processing.dagbag import DagBag
        except ImportError:  # Airflow 2.11 and 3.0
            from airflow.models import DagBag
        bag = DagBag(str(FOLDER))

        assert {Path(path).stem for path in bag.import_errors} == LATER
        assert sorted(bag.dags) == [path.stem for path in EXAMPLES]
        for dag in bag.dags.values():
            assert dag.max_active_runs == 1
            assert not dag.catchup or dag.start_date is None
            assert dag.doc_md
            assert all(task.retries for task in dag.tasks)
            assert all(dag.params.get_param(name).schema.get("type") for name in dag.params)
        dag = bag.dags["start_predict_stop"]
        assert [task.task_id for task in dag.tasks if task.is_setup] == ["start"]
        assert [(task.task_id, task.on_failure_fail_dagrun) for task in dag.teardowns] == [("stop", True)]
        assert set(dag.partial_subset("predict", include_upstream=False).task_dict) == {"start", "predict", "stop"}


@pytest.fixture(scope="module")
def retrain() -> ModuleType:
    """The module of the DAG."""
    pytest.importorskip("sklearn", reason="the example trains with scikit-learn")
    spec = importlib.util.spec_from_file_location("retrain_and_deploy", FOLDER / "retrain_and_deploy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def local(url: str) -> Path:
    """Return the path of a folder that is named by its URL."""
    assert url.startswith("file:///")
    return Path(url.removeprefix("file://"))


class TestTraining:
    PARAMS = {"training_images": 60, "neighbors": 3, "trees": 5, "gamma": 0.001, "scaling": "none"}  # noqa: RUF012

    @pytest.fixture
    def train(
        self, retrain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., dict[str, Any]]:
        monkeypatch.setenv("AIRFLOW_VAR_TRAINED_MODELS", f"file://{tmp_path}")

        def run(algorithm: str, run_id: str = "run", map_index: int = 0, **params: Any) -> dict[str, Any]:
            ti = type("TaskInstance", (), {"map_index": map_index})
            dag = type("DAG", (), {"dag_id": "retrain_and_deploy"})
            context = {"params": self.PARAMS | params, "run_id": run_id, "ti": ti, "dag": dag}
            monkeypatch.setattr(retrain, "get_current_context", lambda: context)
            trained: dict[str, Any] = retrain.train.function(algorithm)
            return trained

        return run

    def test_a_retry_writes_the_same_file(self, retrain: ModuleType, train: Callable[..., dict[str, Any]]) -> None:
        """Registering it then finds the version that the try before it registered."""
        for algorithm in retrain.ALGORITHMS:
            trained = train(algorithm)
            (file,) = local(trained["model_path"]).iterdir()
            content = file.read_bytes()

            assert train(algorithm) == trained
            assert file.read_bytes() == content

    def test_no_two_tasks_share_a_folder(self, train: Callable[..., dict[str, Any]]) -> None:
        folders = [
            local(train("nearest_neighbors", run_id, map_index)["model_path"])
            for run_id in ("..", "b")
            for map_index in (0, 1)
        ]

        assert len(set(map(os.path.realpath, folders))) == 4

    def test_expected_answers_tell_candidates_apart(
        self, retrain: ModuleType, train: Callable[..., dict[str, Any]]
    ) -> None:
        expected = [train(algorithm)["expected"] for algorithm in retrain.ALGORITHMS]

        assert all(len(recorded["instances"]) == len(recorded["predictions"]) == 30 for recorded in expected)
        assert expected[0]["instances"] == expected[1]["instances"] == expected[2]["instances"]
        assert expected[0]["predictions"] != expected[1]["predictions"] != expected[2]["predictions"]
        assert all(type(answer) is int for recorded in expected for answer in recorded["predictions"])

    @pytest.mark.parametrize(("scaling", "is_as_recorded"), [("none", True), ("saved", True), ("forgotten", False)])
    def test_what_is_saved_answers_as_recorded_unless_a_step_was_forgotten(
        self, train: Callable[..., dict[str, Any]], scaling: str, *, is_as_recorded: bool
    ) -> None:
        import joblib

        trained = train("support_vectors", scaling=scaling, gamma=0.3)
        saved: Any = joblib.load(local(trained["model_path"]) / "model.joblib")
        recorded = trained["expected"]

        assert (saved.predict(recorded["instances"]).tolist() == recorded["predictions"]) is is_as_recorded


def load_model(model: ModelFiles) -> Callable[[Any], list[Any]]:
    """Load the file that the example saved."""
    import joblib

    assert model.path is not None
    loaded: Any = joblib.load(model.path / "model.joblib") if model.name == "digits" else None
    return lambda rows: [int(answer) for answer in loaded.predict(rows)]


FORGOTTEN = '{"scaling": "forgotten", "gamma": 0.3, "trees": 10}'
"""A night with a better number than all others, and files that answer otherwise."""


@dataclass
class Runs:
    """What came of the runs."""

    hook: HsmlHook
    serving: LocalServing
    home: Path
    ran: list[commands.Ran]


@pytest.fixture(scope="module")
def runs(retrain: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Both DAGs, run by a real Airflow with a database of its own: three nights, and start_predict_stop after them."""
    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

    asked: list[Sequence[str]] = [
        ("dags", "test", "retrain_and_deploy", "2026-11-01", "--conf", '{"trees": 10}'),
        ("dags", "test", "retrain_and_deploy", "2026-11-02", "--conf", '{"training_images": 30, "trees": 10}'),
        ("dags", "test", "retrain_and_deploy", "2026-11-03", "--conf", FORGOTTEN),
        ("dags", "test", "start_predict_stop"),
        ("dags", "test", "start_predict_stop", "--conf", '{"deployment_name": "mute"}'),
    ]
    with pytest.MonkeyPatch.context() as patch, LocalServing(engine=load_model, hopsworks_version=HOPSWORKS) as serving:
        patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        hook = HsmlHook()
        # Without an input example there is nothing to ask: the prediction fails, and no retry would help.
        serving.world.register_model("mute", {"model.joblib": b""})
        hook.save_deployment(deployment_name="mute", model_name="mute")
        hook.stop_deployment("mute")
        serving.requests.clear()
        home = tmp_path_factory.mktemp("airflow")
        commands.migrate(home)
        pace.hurry(home)
        environment = commands.environment(
            home,
            AIRFLOW__CORE__DAGS_FOLDER=str(FOLDER),
            AIRFLOW_CONN_HSML_DEFAULT=serving.connection,
        )
        yield Runs(hook, serving, home, commands.run(asked, environment))


@pytest.mark.airflow
class TestRuns:
    def result(self, runs: Runs, number: int) -> dict[str, Any]:
        from airflow_provider_hsml.local.demo.nights import read_result

        results = [result for line in runs.ran[number].output.splitlines() if (result := read_result(line))]
        assert len(results) == 1, runs.ran[number].output
        return dict(results[0])

    def test_the_first_night_makes_a_deployment_of_the_best_candidate(self, runs: Runs) -> None:
        result = self.result(runs, 0)
        promotion = result["promotion"]
        models = {model.version: model for model in runs.hook.get_models("digits")}

        assert runs.ran[0].code == "0"
        assert (promotion["action"], promotion["verified_by"]) == ("created", "fingerprint")
        assert promotion["deployment_name"] == "digits"
        assert promotion["metric_value"] == max(models[version].metric("accuracy") or 0 for version in (1, 2, 3))
        assert result["served_accuracy"] == pytest.approx(promotion["metric_value"])

    def test_trained_models_wait_in_airflows_folder_unless_the_variable_names_another(self, runs: Runs) -> None:
        assert len(list((runs.home / "trained" / "retrain_and_deploy").glob("*/model.joblib"))) == 9

    def test_a_weak_night_changes_nothing(self, runs: Runs) -> None:
        first, second = self.result(runs, 0), self.result(runs, 1)

        assert runs.ran[1].code == "0"
        assert second["promotion"]["action"] == "kept"
        assert second["promotion"]["model_version"] == first["promotion"]["model_version"]
        assert second["served_accuracy"] == first["served_accuracy"]
        assert len(runs.hook.get_models("digits")) == 9
        assert [deployment.name for deployment in runs.hook.get_deployments("digits")] == ["digits"]

    def test_a_better_number_that_fails_verification_is_taken_back(self, runs: Runs) -> None:
        first, third = self.result(runs, 0)["promotion"], self.result(runs, 2)["promotion"]

        assert runs.ran[2].code != "0"
        assert third["action"] == "rolled_back"
        assert third["metric_value"] > third["previous_metric_value"] == first["metric_value"]
        assert third["previous_model_version"] == first["model_version"]
        assert "answers otherwise than recorded" in third["reason"]
        assert f"version {first['model_version']} of model 'digits') serves again" in third["reason"]
        assert runs.hook.get_deployment("digits").model_version == first["model_version"]

    def test_a_deployment_runs_only_while_it_is_needed(self, runs: Runs) -> None:
        assert runs.ran[3].code == "0"
        assert re.search(r"Predictions: \[\d\]", runs.ran[3].output)
        assert runs.hook.get_deployment_state("digits") == "Stopped"

    def test_it_is_stopped_when_the_prediction_fails_and_the_run_is_red(self, runs: Runs) -> None:
        assert runs.ran[4].code != "0"
        assert "has no registered input example" in " ".join(runs.ran[4].output.split()), "wrapped by Airflow 3.0"
        mute = runs.hook.get_deployment("mute")
        commands = runs.serving.requests.where("POST", f"/project/{runs.serving.project_id}/serving/{mute.id}")
        assert [command.query for command in commands] == ["action=START", "action=STOP"]
        assert mute.status == "Stopped"
