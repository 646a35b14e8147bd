"""What is refused before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain import diff, preconditions
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.model_version import Framework, ModelVersion
from airflow_provider_hsml.hopsworks.domain.settings import Script
from airflow_provider_hsml.hopsworks.domain.spec import DeploymentSpec
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from tests.support.fake import PROJECT, row

SCRIPT = "/Projects/demo/Resources/one.py"
CONFIG = "/Projects/demo/Resources/one.yml"


def model(framework: str = "SKLEARN", **more: Any) -> ModelVersion:
    return ModelVersion("digits", 2, "digits_2", "demo", 119, framework=Framework(framework), **more)


def check_new(spec: dict[str, Any], framework: str | None = "SKLEARN", tool: str = "KSERVE") -> None:
    """Check what would create a deployment."""
    desired = DeploymentSpec.read(spec).setting_values()
    tool = desired.get("serving_tool", tool)
    body = diff.creation_body("digits", model(framework) if framework else None, desired, serving_tool=tool, minimum=1)
    preconditions.check_combination(body, {*desired, "framework", "script_file", "serving_tool"})


class TestCombinations:
    @pytest.mark.parametrize(
        ("framework", "tool", "spec"),
        [
            ("SKLEARN", "KSERVE", {}),
            ("SKLEARN", "KSERVE", {"script_file": SCRIPT, "config_file": CONFIG, "api_protocol": "GRPC"}),
            ("SKLEARN", "DEFAULT", {"script_file": SCRIPT}),
            ("PYTHON", "KSERVE", {"script_file": SCRIPT, "transformer": {"script_file": SCRIPT}}),
            ("TORCH", "KSERVE", {"script_file": SCRIPT}),
            ("TENSORFLOW", "DEFAULT", {"inference_batcher": {"enabled": True}}),
            ("TENSORFLOW", "KSERVE", {"transformer": {"script_file": SCRIPT}}),
            ("LLM", "KSERVE", {}),
            ("LLM", "KSERVE", {"config_file": CONFIG, "extra": {"vllmVariant": "VLLM_OMNI"}}),
            ("LLM", "KSERVE", {"scaling": {"metric": "QUEUE_DEPTH"}}),
            (None, "KSERVE", {"script_file": SCRIPT}),
        ],
    )
    def test_what_goes_together(self, framework: str | None, tool: str, spec: dict[str, Any]) -> None:
        check_new(spec, framework, tool)

    @pytest.mark.parametrize(
        ("framework", "tool", "spec", "message"),
        [
            ("TENSORFLOW", "KSERVE", {"script_file": SCRIPT}, "spec.script_file: TensorFlow Serving takes no"),
            ("PYTHON", "KSERVE", {}, "spec.script_file: version 2 of model 'digits' is of framework PYTHON"),
            ("TORCH", "KSERVE", {}, "framework TORCH"),
            (None, "KSERVE", {}, "spec.script_file: expected one, since a deployment without a model"),
            (
                "SKLEARN",
                "DEFAULT",
                {},
                "spec.script_file: .* SKLEARN models need a predictor script on the serving tool",
            ),
            ("SKLEARN", "KSERVE", {"config_file": CONFIG}, "spec.config_file: only vLLM and predictor scripts"),
            (
                "SKLEARN",
                "DEFAULT",
                {"script_file": SCRIPT, "transformer": {"script_file": SCRIPT}},
                "spec.transformer: there are no transformers on the serving tool DEFAULT",
            ),
            ("LLM", "DEFAULT", {}, "spec.serving_tool: expected KSERVE, since vLLM"),
            ("LLM", "KSERVE", {"api_protocol": "GRPC"}, "spec.api_protocol: expected REST, since vLLM"),
            ("TENSORFLOW", "DEFAULT", {"api_protocol": "GRPC"}, "spec.api_protocol: there is no GRPC"),
            ("TENSORFLOW", "DEFAULT", {"scaling": {"min_instances": 2}}, "spec.scaling.min_instances"),
            (
                "TENSORFLOW",
                "DEFAULT",
                {"inference_logger": {"mode": "PREDICTIONS", "kafka_topic": "logs"}},
                "spec.inference_logger.mode",
            ),
            (
                "SKLEARN",
                "DEFAULT",
                {"script_file": SCRIPT, "inference_batcher": {"enabled": True}},
                "spec.inference_batcher.enabled",
            ),
            (
                "TENSORFLOW",
                "DEFAULT",
                {"inference_batcher": {"enabled": True, "max_latency": 3}},
                "maxLatency need KSERVE",
            ),
            (
                "SKLEARN",
                "KSERVE",
                {"inference_batcher": {"timeout": 3}},
                "spec.inference_batcher.enabled: expected",
            ),
            ("SKLEARN", "KSERVE", {"extra": {"vllmVariant": "VLLM"}}, "spec.extra: vllmVariant applies only to models"),
            (
                "SKLEARN",
                "KSERVE",
                {"transformer": {"environment": "own"}},
                "spec.transformer.script_file: expected one, since the deployment has no transformer",
            ),
            (
                "SKLEARN",
                "KSERVE",
                {"resources": {"requests": {"cores": 2}, "limits": {"cores": 1}}},
                "spec.resources.limits.cores: expected at least",
            ),
            (
                "SKLEARN",
                "KSERVE",
                {"transformer": {"script_file": SCRIPT, "scaling": {"min_instances": 3, "max_instances": 1}}},
                "spec.transformer.scaling.max_instances",
            ),
            ("SKLEARN", "KSERVE", {"scaling": {"min_instances": 3, "max_instances": 1}}, "spec.scaling.max_instances"),
            (
                "SKLEARN",
                "KSERVE",
                {"scaling": {"min_instances": 1, "idle_scale_to_zero": True}},
                "spec.scaling.min_instances: expected 0",
            ),
            (
                "SKLEARN",
                "KSERVE",
                {"scaling": {"metric": "QUEUE_TIME"}},
                "spec.scaling.metric: only vLLM measures QUEUE_TIME",
            ),
        ],
    )
    def test_what_does_not(self, framework: str | None, tool: str, spec: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            check_new(spec, framework, tool)

    def test_what_is_live_counts_too(self) -> None:
        live = row(predictorResources={"requests": {"memory": 100}, "limits": {"memory": 200}})
        desired = DeploymentSpec.read({"resources": {"requests": {"memory": 300}}}).setting_values()

        with pytest.raises(InvalidInputError, match=r"at least the request \(300\), got 200"):
            preconditions.check_combination(diff.update_body(live, desired), desired)

    def test_what_is_live_and_not_touched_is_left_to_the_server(self) -> None:
        live = row(predictorResources={"requests": {"memory": 300}, "limits": {"memory": 200}})

        preconditions.check_combination(live, {"model_version"})

    def test_the_serving_tool_is_kept_for_life(self) -> None:
        live = Deployment.from_json(row())
        differing = diff.differences(live.raw, {"serving_tool": "DEFAULT"})

        with pytest.raises(InvalidInputError, match=r"spec.serving_tool: .* has KSERVE, which Hopsworks cannot change"):
            preconditions.check_live(live, None, differing)

    def test_a_cluster_that_wants_zero_instances(self) -> None:
        body = {"servingTool": "KSERVE", "requestedInstances": 2}

        preconditions.check_minimum(body, must_be_zero=False)
        with pytest.raises(
            InvalidInputError, match=r"spec.scaling.min_instances: expected 0, since all deployments of this Hopsworks"
        ):
            preconditions.check_minimum(body, must_be_zero=True)


def test_reserved_variables_are_sent_back_and_not_compared() -> None:
    reserved = ["SERVING_SCHEMA_ID=7", "SERVING_TRAINING_DATASET_VERSION=3", "SERVING_FEATURE_VIEW_NAME=pixels"]
    live = row(predictorEnvVars=[*reserved, "OWN=1"])

    assert diff.differences(live, {"env_vars": {"OWN": "1"}}) == {}
    body = diff.update_body(live, {"env_vars": {"OTHER": "2"}})
    assert body["predictorEnvVars"] == [*reserved, "OTHER=2"]


def test_the_row_limit_is_a_variable_of_the_user() -> None:
    live = row(predictorEnvVars=["SERVING_SCHEMA_ID=7", "SERVING_MAX_BATCH_ROWS=64"])

    assert diff.differences(live, {"env_vars": {"SERVING_MAX_BATCH_ROWS": "64"}}) == {}
    body = diff.update_body(live, {"env_vars": {"SERVING_MAX_BATCH_ROWS": "32"}})
    assert body["predictorEnvVars"] == ["SERVING_SCHEMA_ID=7", "SERVING_MAX_BATCH_ROWS=32"]


class TestRestoring:
    """A rollback names every setting, and None for those that the former deployment did not have."""

    def test_a_deployment_without_a_transformer(self) -> None:
        before = row(transformer=None)
        live = diff.update_body(before, {"transformer.script_file": Script("/Projects/demo/Resources/t.py")})
        desired = diff.read_settings(PROJECT, before)
        changes = diff.differences(live, desired)
        assert "transformer.resources.limits.memory" in changes

        preconditions.check_changes(diff.update_body(live, desired), changes)

    def test_a_script_that_the_framework_needs_is_not_removed(self) -> None:
        live = row(predictor="/Projects/demo/Resources/p.py", modelFramework="TORCH")
        desired = {"script_file": None}

        with pytest.raises(InvalidInputError, match=r"spec\.script_file"):
            preconditions.check_changes(diff.update_body(live, desired), diff.differences(live, desired))
