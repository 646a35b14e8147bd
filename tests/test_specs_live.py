"""Every setting, through the hook and the local Model Serving: created, asked again, changed, asked again."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.settings import SETTINGS, setting_of
from airflow_provider_hsml.hopsworks.specs import DeploymentSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.promotion import Record
    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.airflow

_numbers = itertools.count()
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
    "inference_logger.kafka_topic": ("CREATE", None, {}),
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
FILES = {"script_file", "config_file", "transformer.script_file"}


def test_no_setting_is_left_out() -> None:
    assert set(SETTINGS) - SAME_FOR_ALL - OF_THE_MODEL - ELSEWHERE <= set(FIELDS)


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


@pytest.fixture
def save(hook: HsmlHook, register: Callable[..., int]) -> Callable[..., tuple[str, Record]]:
    """Deploys without waiting for the instances, under a name of its own."""
    name = f"live{next(_numbers)}"
    register(name, 1)

    def ask(spec: dict[str, Any]) -> tuple[str, Record]:
        record = hook.deploy_model(name, 1, spec=spec, wait=False, poll_interval=0.2)
        return name, record

    return ask


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("field", FIELDS)
def test_a_setting_is_created_kept_changed_and_kept(
    field: str, hook: HsmlHook, serving: LocalServing, save: Callable[..., tuple[str, Record]]
) -> None:
    first, other, along = FIELDS[field]
    name, record = save(spec_of(field, first, along))
    assert record.action == "created"

    def meets(value: Any) -> bool:
        wanted = DeploymentSpec.read(spec_of(field, value, along)).wanted()
        return all(setting_of(key).is_met(hook.get_deployment(name).raw, wish) for key, wish in wanted.items())

    def puts() -> int:
        return len(serving.requests.where("PUT", f"/project/{serving.project_id}/serving"))

    assert meets(first)
    hook.stop_deployment(name, poll_interval=0.05)
    before = puts()
    assert save(spec_of(field, first, along))[1].action == "started"
    assert puts() == before, "nothing is sent when nothing differs"
    if other is None:
        return

    hook.stop_deployment(name, poll_interval=0.05)
    kept = hook.get_deployment(name).raw
    assert save(spec_of(field, other, along))[1].action == "updated"
    assert meets(other)
    assert not meets(first)
    before = puts()
    hook.stop_deployment(name, poll_interval=0.05)
    assert save(spec_of(field, other, along))[1].action == "started"
    assert puts() == before
    now = hook.get_deployment(name).raw
    for setting in SETTINGS.values():
        if setting.name != field and not (field == "scaling.idle_scale_to_zero" and "min_inst" in setting.name):
            assert setting.read(now) == setting.read(kept), setting.name
