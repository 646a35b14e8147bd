"""
The nightly retrain on a feature view, run by a real Airflow: promoted, rolled back once, and promoted again.

The quick run trains with a script that sends the SDK's REST calls. The slow one runs the script beside the example DAG
with Hopsworks' SDK, which also publishes the first schema, and asks the deployment at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import HOPSWORKS, run_model
from tests.support import commands, pace
from tests.support.request_schemas import FILES, VIEW, Scene

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


@dataclass(frozen=True)
class State:
    """The deployment after a night."""

    model_version: int
    status: str
    variables: dict[str, str]
    schema: dict[str, Any]
    """The published document that the variables name."""
    prediction: Any
    run: commands.Ran | None = None
    """The night's run; None for the state before the first one."""

    @property
    def dataset(self) -> int:
        """The training dataset that the schema names."""
        return int(self.schema["trainingDatasetVersion"])


@dataclass
class World:
    """A local Model Serving with the job, and an Airflow with the example."""

    serving: LocalServing
    hook: HsmlHook
    home: Path
    model_file: Any
    states: list[State] = field(default_factory=list)

    def declare(self, *datasets: int) -> None:
        """Make training datasets of the view."""
        self.serving.world.declare(replace(VIEW, training_datasets=datasets))

    def run_job(self, name: str, script: str, *args: str, environment: str = "pandas-training-pipeline") -> str:
        """Run a script as a job, and give its output."""
        project = self.serving.world.project(self.serving.project_id)
        project.jobs.declare(name, script, environment=environment)
        ended = self.hook.run_job(name, [*args] or None, poll_interval=0.1)
        return project.files.read(str(ended.stdout)).read_text()

    def night(self, date: str) -> commands.Ran:
        """Run the example."""
        environment = commands.environment(
            self.home, AIRFLOW__CORE__DAGS_FOLDER=str(EXAMPLES), AIRFLOW_CONN_HSML_DEFAULT=self.serving.connection
        )
        (ran,) = commands.run([("dags", "test", "retrain_on_feature_view", date)], environment)
        return ran

    def look(self, ran: commands.Ran | None = None) -> None:
        """Keep the state of the deployment."""
        scene = Scene(self.hook, self.serving, "fraud", self.model_file)
        variables = scene.variables()
        (prediction,) = self.hook.predict("fraud", instances=[ROW])["predictions"]
        self.states.append(
            State(
                self.hook.get_deployment("fraud").model_version or 0,
                scene.status,
                variables,
                json.loads(scene.written(variables["SERVING_SCHEMA_ID"])["schema"]),
                prediction,
                ran,
            )
        )


def by_hand(serving: LocalServing, hook: HsmlHook, home: Path, model_file: Any) -> World:
    """Train without libraries, and publish the first schema as the SDK does."""
    world = World(serving, hook, home, model_file)
    world.declare(2)
    world.run_job("train_fraud", (ROOT / "tests" / "support" / "training_job.py").read_text(), *ARGUMENTS)
    scene = Scene(hook, serving, "fraud", model_file)
    scene.publish()
    scene.deploy(1, own=("OWN=1",))
    return world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The deployment before the first night, and after each of three."""
    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

    files = itertools.count()

    def model_file(**content: Any) -> Path:
        raise AssertionError

    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        serving = stack.enter_context(LocalServing(engine=run_model, hopsworks_version=HOPSWORKS))
        patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        home = tmp_path_factory.mktemp("airflow")
        commands.migrate(home)
        pace.hurry(home)
        world = by_hand(serving, HsmlHook(), home, model_file)
        world.look()
        for date, datasets in NIGHTS.items():
            world.declare(*datasets)
            world.look(world.night(date))
        yield world


class TestNights:
    def test_a_new_training_dataset_is_promoted_with_its_schema(self, world: World) -> None:
        before, after = world.states[:2]

        assert (before.dataset, after.dataset) == (2, 3)
        assert (after.model_version, after.status, after.run.code) == (2, "Running", "0")
