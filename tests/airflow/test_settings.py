"""Every setting, sent to the local Model Serving: created, asked for again, changed, asked for again."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import script_file
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.settings import SETTINGS
from airflow_provider_hsml.hopsworks.domain.spec import DeploymentSpec
from airflow_provider_hsml.hopsworks.errors import UnsupportedError
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from airflow_provider_hsml.hopsworks.rollout.update import Update
from tests.support.tasks import whole

if TYPE_CHECKING:
    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.hopsworks

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "deployments.md"
_numbers = itertools.count()
MODEL = "everysetting"
_TRANSFORMER = {"script_file": "transformer.py"}


# field: (first value, other value, what has to be given along)
FIELDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "script_file": ("one.py", "two.py", {}),
    "config_file": ("one.yml", "two.yml", {"script_file": "one.py"}),
    "environment": ("one", "two", {}),
    "env_vars": ({"A": "1", "B": "x=y"}, {"B": "2"}, {}),
    **{
        f"resources.{kind}.{unit}": (*values, {})
        for kind in ("requests", "limits")
        for unit, values in {"cores": (1, 1.5), "memory": (512, 1024), "gpus": (0, 1)}.items()
    },
    "resources.requests.gpus": (0, 1, {"resources": {"limits": {"gpus": 1}}}),
    "scaling.min_instances": (1, 2, {}),
    "scaling.max_instances": (2, 3, {}),
    "scaling.metric": ("RPS", "CONCURRENCY", {}),
    "scaling.target": (10, 20.5, {}),
    "scaling.panic_window_percentage": (10, 20, {}),
    "scaling.panic_threshold_percentage": (200, 300, {}),
    "scaling.stable_window_seconds": (60, 90, {}),
    "scaling.scale_to_zero_retention_seconds": (0, 30, {}),
    "scaling.log_persistence": ("NONE", "ALL_REPLICAS", {}),
    "scaling.autoscaler": ("HPA", "KEDA", {}),
    "scaling.scale_down_stabilization_window_seconds": (60, 90, {}),
    "scaling.scale_up_stabilization_window_seconds": (60, 90, {}),
    "scaling.additional_metrics": ([{"metric": "CPU", "target": 80}], [{"metric": "MEMORY"}], {}),
    "scaling.idle_scale_to_zero": (False, True, {}),
    "scaling.idle_cooldown_seconds": (60, 90, {}),
    "scaling.cold_start_timeout_seconds": (60, 90, {}),
    "transformer.script_file": ("one.py", "two.py", {}),
    "transformer.environment": ("one", "two", {"transformer": _TRANSFORMER}),
    "transformer.env_vars": ({"A": "1"}, {"B": "2"}, {"transformer": _TRANSFORMER}),
    "transformer.resources.requests.cores": (1, 1.5, {"transformer": _TRANSFORMER}),
    "transformer.resources.limits.memory": (512, 1024, {"transformer": _TRANSFORMER}),
    "transformer.scaling.min_instances": (1, 2, {"transformer": _TRANSFORMER}),
    "transformer.scaling.max_instances": (2, 3, {"transformer": _TRANSFORMER}),
    "inference_logger.mode": ("ALL", "PREDICTIONS", {}),
    "inference_logger.kafka_topic": ("CREATE", "NONE", {}),
    "inference_batcher.enabled": (False, True, {}),
    "inference_batcher.max_batch_size": (8, 16, {"inference_batcher": {"enabled": True}}),
    "inference_batcher.max_latency": (8, 16, {"inference_batcher": {"enabled": True}}),
    "inference_batcher.timeout": (8, 16, {"inference_batcher": {"enabled": True}}),
    "api_protocol": ("REST", "GRPC", {}),
    "extra.tracing": ({"enabled": True}, {"enabled": False}, {}),
    "extra.knativeMode": (True, False, {}),
}
SAME_FOR_ALL = {name for name in SETTINGS if name.startswith(("transformer.resources", "transformer.scaling"))}
OF_THE_MODEL = {"model_name", "model_version", "model_path", "framework"}
ELSEWHERE = {"serving_tool", "description", "tags"}


def test_no_setting_is_left_out() -> None:
    assert set(SETTINGS) - SAME_FOR_ALL - OF_THE_MODEL - ELSEWHERE <= set(FIELDS)


def since(field: str) -> tuple[int, int]:
    """Tell which Hopsworks brought a setting, as the docs say."""
    rows = re.findall(r"^\| `([a-z_.]+)` \|.*\| (\S+) \| [^|]* \|$", DOCS.read_text(), re.MULTILINE)
    told = dict(rows) | {"extra.tracing": "5.0", "extra.knativeMode": "5.2"}
    version = told.get(field) or told[field.removeprefix("transformer.")]
    return (0, 0) if version == "all" else tuple(map(int, version.split(".")))  # type: ignore[return-value]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scripts that the tests name, in the folder that they run in."""
    for file in ("one.py", "two.py", "transformer.py", "one.yml", "two.yml"):
        (tmp_path / file).write_text(f"# {file}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec_of(field: str, value: Any, along: dict[str, Any]) -> dict[str, Any]:
    """Put a value at its place in a spec."""
    spec = {key: dict(inner) if isinstance(inner, dict) else inner for key, inner in along.items()}
    place = spec
    *above, last = field.split(".")
    for key in above:
        place = place.setdefault(key, {})
    place[last] = value
    return spec


@pytest.fixture(scope="session")
def served(local_serving: LocalServing) -> int:
    """A model for all of them: its version."""
    return local_serving.world.register_model(MODEL, {"model.joblib": b"{}"})


@pytest.fixture
def model(hook: HsmlHook, served: int) -> ModelVersion:
    """The same, as the registry gives it."""
    return hook.get_model(MODEL, served)


class Saver:
    """Has the server write down what is wanted of one deployment, and starts nothing."""

    def __init__(self, hook: HsmlHook, model: ModelVersion | None) -> None:
        self.hook = hook
        self.model = model
        self.name = f"setting{next(_numbers)}"

    def change(self, spec: dict[str, Any]) -> Update:
        project = self.hook.client.project
        desired = DeploymentSpec.read(spec).setting_values() | (model_settings(self.model) if self.model else {})
        deadline = time.time() + 60
        run = Run(project, self.name, 60.0, 0.05)
        return Update(run, script_file.absolute(project, desired), self.model, deadline)

    def create(self, spec: dict[str, Any]) -> Deployment:
        change = self.change(spec)
        live, _ = self.hook.run(change.create(self.hook.run(change.prepare_create())))
        return self.hook.run(change.stable(live))

    def update(self, spec: dict[str, Any]) -> Deployment:
        change, live = self.change(spec), self.live
        self.hook.run(change.prepare_update(live))
        return self.hook.run(change.update(live, newest_version=1))

    @property
    def live(self) -> Deployment:
        return cast("Deployment", whole(self.hook, self.name))

    def differs(self, spec: dict[str, Any]) -> bool:
        return self.change(spec).differs(self.live)


@pytest.fixture
def saver(hook: HsmlHook, model: ModelVersion) -> Saver:
    """A deployment of the model, yet to be created."""
    return Saver(hook, model)


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("field", FIELDS)
def test_a_setting_is_created_kept_changed_and_kept(field: str, saver: Saver, serving: LocalServing) -> None:
    first, other, along = FIELDS[field]
    one, two = spec_of(field, first, along), spec_of(field, other, along)
    if serving.world.line.number < since(field):
        with pytest.raises(UnsupportedError, match=rf"this Hopsworks does not know .*spec\.{re.escape(field)}"):
            saver.create(two)
        return

    saver.create(one)
    assert not saver.differs(one)
    assert saver.differs(two)

    before = saver.live.raw
    saver.update(two)
    assert not saver.differs(two)
    assert saver.differs(one)
    after = saver.live.raw
    asked = set(saver.change(two).settings)
    for setting in SETTINGS.values():
        if setting.name not in asked:
            assert setting.read(after) == setting.read(before), f"{setting.name} was not asked for"


EVERYWHERE: dict[str, Any] = {
    "script_file": "one.py",
    "resources": {"requests": {"cores": 1, "memory": 100, "gpus": 0}, "limits": {"cores": 3, "memory": 2000}},
    "transformer": {"script_file": "two.py", "resources": {"instances": 2, "requests": {"cores": 1}}},
    "inference_logger": {"mode": "PREDICTIONS", "kafka_topic": "CREATE", "partitions": 2},
    "inference_batcher": {"enabled": True, "max_batch_size": 4},
}
NEWER: dict[str, Any] = EVERYWHERE | {
    "config_file": "one.yml",
    "environment": "own",
    "env_vars": {"A": "1"},
    "scaling": {"min_instances": 2, "max_instances": 5, "metric": "RPS", "target": 3},
    "transformer": {"script_file": "two.py", "env_vars": {"B": "2"}, "scaling": {"max_instances": 4}},
    "extra": {"tracing": {"enabled": True}},
}


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize(
    "everything", [EVERYWHERE, pytest.param(NEWER, marks=pytest.mark.since_hopsworks("5.0"))], ids=["old", "new"]
)
def test_an_unrelated_change_keeps_everything(everything: dict[str, Any], saver: Saver) -> None:
    saver.create(everything)
    assert not saver.differs(everything)
    before = saver.live.raw

    saver.update({"resources": {"limits": {"gpus": 1}}})

    changing = {"version", "predictorResources"}
    assert {key: value for key, value in saver.live.raw.items() if key not in changing} == {
        key: value for key, value in before.items() if key not in changing
    }
    assert not saver.differs(everything)


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize(
    ("there", "away", "gone"),
    [
        ({"script_file": "one.py"}, {"script_file": False}, ["predictor"]),
        pytest.param(
            {"script_file": "one.py", "config_file": "one.yml"},
            {"config_file": "False"},
            ["configFile"],
            marks=pytest.mark.since_hopsworks("4.2"),
        ),
        (
            {"transformer": {"script_file": "two.py", "resources": {"instances": 2}}},
            {"transformer": False},
            ["transformer", "transformerResources", "requestedTransformerInstances", "transformerScalingConfig"],
        ),
        pytest.param(
            {"env_vars": {"A": "1"}},
            {"env_vars": {}},
            ["predictorEnvVars"],
            marks=pytest.mark.since_hopsworks("4.8"),
        ),
        ({"inference_logger": {"mode": "ALL"}}, {"inference_logger": {"mode": "NONE"}}, ["kafkaTopicDTO"]),
    ],
)
def test_what_is_taken_away_is_gone(there: dict[str, Any], away: dict[str, Any], gone: list[str], saver: Saver) -> None:
    saver.create(there)
    assert saver.differs(away)

    saver.update(away)

    assert not saver.differs(away)
    assert not any(saver.live.raw.get(key) for key in gone)
    assert saver.differs(there)


@pytest.mark.usefixtures("in_folder")
def test_a_new_version_of_the_model_takes_its_scripts_along(saver: Saver, serving: LocalServing) -> None:
    """Up to 4.4 they have to be found in the artifact of the version before."""
    spec = {"script_file": "one.py", "transformer": {"script_file": "two.py"}}
    saver.create(spec)
    number = serving.world.register_model(MODEL, {"model.joblib": b"{}"})
    saver.model = saver.hook.get_model(MODEL, number)

    live = saver.update({})

    assert live.model_version == number
    assert not saver.differs(spec)


@pytest.mark.usefixtures("in_folder")
class TestScripts:
    def test_the_same_content_is_uploaded_once(self, saver: Saver, serving: LocalServing, in_folder: Path) -> None:
        (in_folder / "my own.py").write_text("# once\n")
        saver.create({"script_file": "my own.py"})
        name = saver.live.raw["predictor"]
        assert name.startswith("my_own-")
        hook = saver.hook
        assert hook.client.send(api.download(hook.client.project, f"{script_file.FOLDER}/{name}")) == b"# once\n"
        serving.requests.clear()

        assert not saver.differs({"script_file": "my own.py"})
        Saver(saver.hook, saver.model).create({"script_file": "my own.py"})

        assert not [request for request in serving.requests if "upload" in request.path]

    def test_other_content_is_another_script(self, saver: Saver, in_folder: Path) -> None:
        saver.create({"script_file": "one.py"})
        before = saver.live.raw["predictor"]
        (in_folder / "one.py").write_text("# changed\n")

        assert saver.differs({"script_file": "one.py"})
        assert saver.update({"script_file": "one.py"}).raw["predictor"] != before
