"""
The nightly retrain on a feature view, run by a real Airflow: promoted, rolled back once, and promoted again.

The quick run trains with a script that sends the SDK's REST calls. The slow one trains with the script beside the
example DAG and Hopsworks' SDK, which also publishes the first schema, and predicts at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

from tests.conftest import HOPSWORKS, run_model
from tests.support import commands, pace
from tests.support.request_schemas import VIEW, Scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "example_dags"
ARGUMENTS = ["--feature-view", VIEW.name, "--feature-view-version", "1"]
NIGHTS = {"2026-11-01": (2, 3), "2026-11-02": (2, 3, 4), "2026-11-03": (2, 3, 4, 5)}
"""The training datasets that exist in each night. The version that is trained on 4 does not answer."""
ROW = {"cc_num": 1, "amount": 9.5}
pytestmark = [pytest.mark.airflow, pytest.mark.since_hopsworks("5.2")]

# --- With Hopsworks' SDK, in jobs

SDK = "sdk"
"""The environment of these jobs."""
TRAIN = f"""
# The local Model Serving has no data: the training datasets are made here. In each, less is left to chance than in the
# one before. The features of number 4 have a column more than the feature view.
import hsfs.feature_view
import numpy
import pandas

def get_train_test_split(view, training_dataset_version):
    random = numpy.random.default_rng(training_dataset_version)
    chance = {{2: 4.0, 3: 2.0, 4: 0.1, 5: 0.5}}[training_dataset_version]
    rows = pandas.DataFrame({{"amount": random.uniform(0, 20, 400), "age": random.integers(18, 90, 400)}})
    labels = pandas.DataFrame({{"is_fraud": (rows["amount"] + random.normal(0, chance, 400) > 10).astype(int)}})
    if training_dataset_version == 4:
        rows["leaked"] = labels["is_fraud"]
    return rows[:200], rows[200:], labels[:200], labels[200:]

hsfs.feature_view.FeatureView.get_train_test_split = get_train_test_split
exec(compile({(EXAMPLES / "jobs" / "train_fraud.py").read_text()!r}, "train_fraud.py", "exec"))
"""
PUBLISH = """
import hopsworks

model = hopsworks.login().get_model_registry().get_model("fraud", version=1)
deployment = model.deploy(name="fraud", passed_features=["amount"], env_vars={"OWN": "1"})
deployment.start(await_running=120)
"""
PREDICT = f"""
import json
import hopsworks

deployment = hopsworks.login().get_model_serving().get_deployment("fraud")
answer = deployment.predict(data={{"instances": [{ROW}]}})
schema = deployment.schema
print("ANSWER=" + json.dumps([answer["predictions"], deployment.model_version, schema.schema_id, schema.to_dict()]))
"""


def sdk_requirements() -> str:
    """Give the packages of `make conformance`'s environment that belong on this machine."""
    lines = (ROOT / "constraints" / "hopsworks.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    return "".join(f"{pin.name}{pin.specifier}\n" for pin in pins if pin.marker is None or pin.marker.evaluate())


@dataclass(frozen=True)
class State:
    """The deployment after a night."""

    model_version: int
    status: str
    variables: dict[str, str]
    document: dict[str, Any]
    """The published schema that the variables name."""
    prediction: Any

    def names(self, dataset: int) -> bool:
        """Whether the schema and all variables are those of a training dataset."""
        document = {key: value for key, value in self.document.items() if key != "schemaId"}
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
        variables = {
            "OWN": "1",
            "SERVING_SCHEMA_ID": hashlib.sha256(canonical.encode()).hexdigest()[:16],
            "SERVING_SCHEMA_ENFORCER": "predictor",
            "SERVING_FEATURE_VIEW_NAME": VIEW.name,
            "SERVING_FEATURE_VIEW_VERSION": "1",
            "SERVING_TRAINING_DATASET_VERSION": str(dataset),
        }
        return (document["trainingDatasetVersion"], self.variables) == (dataset, variables)


@dataclass
class World:
    """A local Model Serving with the job ``train_fraud``, and the deployment in the course of the nights."""

    serving: LocalServing
    hook: HsmlHook
    states: list[State] = field(default_factory=list)
    """Before the first night, and after each."""
    ran: list[commands.Ran] = field(default_factory=list)
    """The nights."""

    @property
    def scene(self) -> Scene:
        """The deployment."""
        return Scene(self.hook, self.serving, "fraud", lambda **_: Path())

    def declare(self, *datasets: int) -> None:
        """Make training datasets of the view."""
        self.serving.world.declare(replace(VIEW, training_datasets=datasets))

    def run_job(self, name: str, script: str, *args: str, environment: str = "pandas-training-pipeline") -> str:
        """Run a script as a job, and give its output."""
        project = self.serving.world.project(self.serving.project_id)
        project.jobs.declare(name, script, environment=environment)
        log = str(self.hook.run_job(name, [*args] or None, poll_interval=0.1).stdout)
        deadline = time.monotonic() + 30
        while not project.files.exists(log):  # As in Hopsworks, it comes after the end of the execution.
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
        return project.files.read(log).read_text()

    def look(self) -> None:
        """Keep the state of the deployment."""
        variables = self.scene.variables()
        document = json.loads(self.scene.written(variables["SERVING_SCHEMA_ID"])["schema"])
        (prediction,) = self.hook.predict("fraud", instances=[ROW])["predictions"]
        version = self.hook.get_deployment("fraud").model_version or 0
        self.states.append(State(version, self.scene.status, variables, document, prediction))

    def run_nights(self, home: Path) -> None:
        """Run the example in each night, after its training dataset was made."""

        def before(night: int) -> None:
            self.look()
            self.declare(*datasets[night])

        datasets = [*NIGHTS.values()]
        asked = [("dags", "test", "retrain_on_feature_view", date) for date in NIGHTS]
        environment = commands.environment(
            home, AIRFLOW__CORE__DAGS_FOLDER=str(EXAMPLES), AIRFLOW_CONN_HSML_DEFAULT=self.serving.connection
        )
        self.ran = commands.run(asked, environment, before)
        self.look()


def prepare_without_libraries(world: World) -> None:
    """Train version 1 with the SDK's REST calls, and deploy it as the SDK does."""
    world.run_job("train_fraud", (ROOT / "tests" / "support" / "training_job.py").read_text(), *ARGUMENTS)
    scene = world.scene
    scene.publish()
    scene.deploy(1, own=("OWN=1",))


def prepare_with_the_sdk(world: World) -> None:
    """Train version 1 with the script for users, and deploy it, both with the SDK."""
    environment = world.serving.root / "environments" / "jobs" / f"{SDK}.txt"
    environment.parent.mkdir(parents=True)
    environment.write_text(sdk_requirements())
    world.run_job("train_fraud", TRAIN, *ARGUMENTS, environment=SDK)
    world.run_job("publish", PUBLISH, environment=SDK)


WORLDS = [
    pytest.param((run_model, prepare_without_libraries), id="rest"),
    pytest.param(("kserve", prepare_with_the_sdk), id="sdk", marks=[pytest.mark.slow, pytest.mark.kserve]),
]


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world after the nights."""
    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

    engine, prepare = request.param
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        serving = stack.enter_context(LocalServing(engine=engine, hopsworks_version=HOPSWORKS))
        patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        home = tmp_path_factory.mktemp("airflow")
        commands.migrate(home)
        if engine != "kserve":
            pace.hurry(home)
        world = World(serving, HsmlHook())
        world.declare(2)
        prepare(world)
        world.run_nights(home)
        yield world


@pytest.mark.parametrize("world", WORLDS, indirect=True)
class TestNights:
    def test_a_new_training_dataset_is_promoted_with_its_schema(self, world: World) -> None:
        before, after = world.states[:2]

        assert world.ran[0].code == "0", world.ran[0].output[-5000:]
        assert (before.model_version, after.model_version, after.status) == (1, 2, "Running")
        assert before.names(2)
        assert after.names(3)

    def test_a_version_that_does_not_answer_is_rolled_back_with_its_schema(self, world: World) -> None:
        before, after = world.states[1:3]

        assert world.ran[1].code != "0"
        assert "action      rolled_back" in world.ran[1].output
        assert "version 3" in world.ran[1].output
        assert after == before

    def test_the_next_version_is_promoted_over_both(self, world: World) -> None:
        after = world.states[3]

        assert world.ran[2].code == "0", world.ran[2].output[-5000:]
        assert "it was rejected before" in world.ran[2].output
        assert (after.model_version, after.status) == (4, "Running")
        assert after.names(5)

    def test_each_night_runs_the_job_once_and_registers_one_version(self, world: World) -> None:
        jobs = world.serving.world.project(world.serving.project_id).jobs
        executions = jobs.executions.find(jobs.get("train_fraud"), "id:asc")
        datasets = [world.hook.get_provenance("fraud", version).training_dataset for version in (1, 2, 3, 4)]

        assert [execution["state"] for execution in executions] == ["FINISHED"] * 4
        assert [dataset.version for dataset in datasets if dataset] == [2, 3, 4, 5]
        assert len(world.hook.get_models("fraud")) == 4


@pytest.mark.parametrize("world", WORLDS[1:], indirect=True)
def test_the_sdk_predicts_afterwards(world: World) -> None:
    told = world.run_job("predict", PREDICT, environment=SDK)

    (line,) = [line for line in told.splitlines() if line.startswith("ANSWER=")]
    predictions, version, schema_id, document = json.loads(line.removeprefix("ANSWER="))
    last = world.states[3]
    assert (predictions, version) == ([last.prediction], 4)
    assert schema_id == last.variables["SERVING_SCHEMA_ID"]
    assert document["trainingDatasetVersion"] == 5
