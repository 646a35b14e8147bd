from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain import arguments, diff
from airflow_provider_hsml.hopsworks.domain.spec import DeploymentSpec, Resources, Scaling
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from tests.support.samples import deployment

RAW = deployment("serving/running").raw


class TestReading:
    @pytest.mark.parametrize(("value", "number"), [(2, 2), ("2", 2), (" 3 ", 3), ("-1", -1)])
    def test_whole_numbers(self, value: Any, number: int) -> None:
        assert arguments.integer("n", value) == number

    @pytest.mark.parametrize("value", [True, 2.0, "2.0", "", None, "two", "--1"])
    def test_no_whole_numbers(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match="n: expected a whole number"):
            arguments.integer("n", value)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "x", None, False])
    def test_no_numbers(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match="n: expected a finite number"):
            arguments.number("n", value)

    @pytest.mark.parametrize(("value", "flag"), [("False", False), ("true", True), (True, True), (False, False)])
    def test_flags(self, value: Any, flag: bool) -> None:
        assert arguments.boolean("f", value) is flag

    @pytest.mark.parametrize("value", ["", "no", 0, 1, None])
    def test_no_flags(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match="f: expected true or false"):
            arguments.boolean("f", value)

    @pytest.mark.parametrize("value", ["abc", {"a": 1}, 3, None])
    def test_no_lists(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match="l: expected a list"):
            arguments.sequence("l", value)

    def test_lists(self) -> None:
        assert arguments.sequence("l", iter([1, 2])) == [1, 2]

    @pytest.mark.parametrize("value", ["", "  ", 3, None])
    def test_no_texts(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match="t: expected a text"):
            arguments.text("t", value)

    @pytest.mark.parametrize("value", [3, {1: 2}, [1]])
    def test_no_mappings(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match="m: expected a mapping"):
            arguments.mapping("m", value)


class TestDeploymentSpec:
    def test_an_unknown_key_names_the_nearest(self) -> None:
        with pytest.raises(InvalidInputError, match="spec: unknown key 'enviroment'; did you mean 'environment'"):
            DeploymentSpec.read({"enviroment": "x"})
        with pytest.raises(InvalidInputError, match="unknown key 'zzz'; known are"):
            DeploymentSpec.read({"scaling": {"zzz": 1}}).setting_values()

    @pytest.mark.parametrize("value", ["not json", "[1]", 3])
    def test_no_spec(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match="spec: expected"):
            DeploymentSpec.read(value)

    def test_a_dataclass_a_mapping_and_text_are_the_same(self) -> None:
        spec = DeploymentSpec(
            environment="env", resources=Resources(requests={"cores": 1.5}), scaling=Scaling(max_instances=3)
        )
        given = spec.given()

        assert given == {
            "environment": "env",
            "resources": {"requests": {"cores": 1.5}},
            "scaling": {"max_instances": 3},
        }
        desired = {"environment": "env", "resources.requests.cores": 1.5, "scaling.max_instances": 3}
        assert DeploymentSpec.read(given).setting_values() == desired
        assert DeploymentSpec.read(json.dumps(given)).setting_values() == desired
        assert DeploymentSpec.read(spec).setting_values() == desired

    def test_texts_from_templates(self) -> None:
        given = {
            "resources": {"instances": "2", "limits": {"memory": "2048"}},
            "scaling": {"target": "1.5", "metric": "RPS"},
        }

        assert DeploymentSpec.read(given).setting_values() == {
            "scaling.min_instances": 2,
            "resources.limits.memory": 2048,
            "scaling.target": 1.5,
            "scaling.metric": "RPS",
        }

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"resources": {"instances": 1}, "scaling": {"min_instances": 2}}, "spec.resources.instances"),
            ({"resources": {"requests": {"cpu": 2}}}, "unknown key 'cpu'"),
            ({"resources": {"requests": {"memory": "lots"}}}, "spec.resources.requests.memory"),
            ({"scaling": {"metric": "LOAD"}}, "spec.scaling.metric: expected one of"),
            ({"environment": ""}, "spec.environment"),
            ({"env_vars": {"SERVING_SCHEMA_ID": "1"}}, "spec.env_vars: expected none of SERVING_FEATURE_LOGGING, "),
            ({"env_vars": {"1A": "1"}}, "spec.env_vars: expected names of letters"),
            ({"env_vars": {"A": True}}, r"spec.env_vars.A: expected a text or a number, got 'bool'"),
            ({"env_vars": ["A=1"]}, "spec.env_vars: expected a mapping"),
            ({"transformer": {"env_vars": {"SERVING_SCRIPT_KIND": ""}}}, "spec.transformer.env_vars"),
            ({"transformer": {"script": "x.py"}}, "spec.transformer: unknown key 'script'; did you mean 'script_file'"),
            ({"transformer": True}, "spec.transformer"),
            ({"scaling": {"idle_scale_to_zero": "yes"}}, "spec.scaling.idle_scale_to_zero: expected true or false"),
            ({"scaling": {"additional_metrics": [{"target": 1}]}}, "spec.scaling.additional_metrics.metric"),
            ({"scaling": {"additional_metrics": [{"metric": "CPU", "value": 1}]}}, "unknown key 'value'"),
            ({"scaling": {"autoscaler": "hpa"}}, "spec.scaling.autoscaler: expected one of HPA, KEDA"),
            ({"scaling": {"stable_window_seconds": 1.5}}, "spec.scaling.stable_window_seconds"),
            ({"inference_logger": {"mode": "SOME"}}, "spec.inference_logger.mode"),
            ({"inference_logger": {"mode": "NONE", "kafka_topic": "logs"}}, "spec.inference_logger.kafka_topic"),
            ({"inference_logger": {"mode": "ALL", "kafka_topic": "NONE"}}, "spec.inference_logger.kafka_topic"),
            ({"inference_logger": {"kafka_topic": "logs", "partitions": 2}}, "expected 'CREATE', with partitions"),
            ({"inference_batcher": {"enabled": "perhaps"}}, "spec.inference_batcher.enabled"),
            ({"inference_batcher": {"max_batch_size": 0}}, "spec.inference_batcher.max_batch_size"),
            ({"api_protocol": "grpc"}, "spec.api_protocol: expected one of REST, GRPC"),
            ({"serving_tool": "KFSERVING"}, "spec.serving_tool"),
            ({"env_vars": {"HUGE": 10**5000}}, "spec.env_vars.HUGE: expected a text or a number"),
            ({"script_file": "x" * 5000 + ".py"}, "spec.script_file: expected a file of the machine"),
            ({"script_file": "a\0b.py"}, "spec.script_file: expected a file of the machine"),
            ({"tags": {"when": object()}}, "spec.tags.when: expected plain JSON values"),
            ({"extra": {"predictorResources": {}}}, "use spec.resources.requests.cores instead"),
            ({"extra": {"modelVersion": 2}}, "spec.extra: expected no key that follows from something else"),
            ({"extra": {"status": "Running"}}, "spec.extra: expected no key that follows from something else"),
            ({"extra": {"tracing": float("nan")}}, "spec.extra.tracing: expected plain JSON values"),
        ],
    )
    def test_what_cannot_be(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            DeploymentSpec.read(given).setting_values()

    def test_the_value_of_a_variable_is_in_no_message(self) -> None:
        with pytest.raises(InvalidInputError) as caught:
            DeploymentSpec.read({"env_vars": {"PASSWORD": ["hunter2"]}}).setting_values()
        live = dict(RAW, predictorEnvVars=["PASSWORD=hunter1"])
        said = diff.describe_changes(diff.differences(live, {"env_vars": {"PASSWORD": "hunter2", "MORE": "3"}}))

        assert "hunter" not in str(caught.value)
        assert said == "env_vars (PASSWORD) -> (MORE, PASSWORD)"

    @pytest.mark.parametrize("away", [False, "False", "false"])
    def test_what_takes_away(self, away: Any) -> None:
        given = {"script_file": away, "config_file": away, "transformer": away, "env_vars": {}, "tags": {}}
        given |= {"inference_logger": {"mode": "NONE"}, "inference_batcher": {"enabled": away}}

        assert DeploymentSpec.read(given).setting_values() == {
            "script_file": None,
            "config_file": None,
            "transformer.script_file": None,
            "env_vars": {},
            "tags": {},
            "inference_logger.mode": "NONE",
            "inference_logger.kafka_topic": None,
            "inference_batcher.enabled": False,
        }

    def test_both_numbers_of_instances_may_be_given_alike(self) -> None:
        assert DeploymentSpec(resources=Resources(instances=2), scaling=Scaling(min_instances="2")).setting_values()


class TestDifferences:
    def test_nothing_given_changes_nothing(self) -> None:
        assert diff.differences(RAW, {}) == {}

    def test_the_same_changes_nothing(self) -> None:
        assert (
            diff.differences(RAW, {"resources.limits.cores": 2, "scaling.min_instances": 1, "model_version": 2}) == {}
        )

    def test_a_description_is_no_reason(self) -> None:
        assert diff.differences(RAW, {"description": "new"}) == {}

    def test_says_what_is_live_and_what_is_wanted(self) -> None:
        assert diff.differences(RAW, {"model_version": 3}) == {"model_version": (2, 3)}

    def test_an_environment_is_read_from_either_key(self) -> None:
        assert diff.differences({"environmentDTO": {"name": "env"}}, {"environment": "env"}) == {}
        assert diff.differences({"predictorEnvironment": {"name": "env"}}, {"environment": "env"}) == {}

    def test_both_minimums_are_written(self) -> None:
        body = diff.update_body(RAW, {"scaling.min_instances": 3})

        assert body["requestedInstances"] == body["predictorScalingConfig"]["minInstances"] == 3
        assert RAW["requestedInstances"] == 1, "what was read is not changed"

    def test_what_is_not_known_is_kept(self) -> None:
        body = diff.update_body(dict(RAW, newer={"key": 1}), {"description": "why", "environment": "env"})

        assert body["newer"] == {"key": 1}
        assert body["description"] == "why"
        assert body["predictorEnvironment"] == body["environmentDTO"] == {"name": "env"}


class TestTopics:
    """A topic that the server made is the one that was asked for."""

    def read(self, **given: Any) -> dict[str, Any]:
        return DeploymentSpec.read({"inference_logger": given}).setting_values()

    def test_one_to_be_created(self) -> None:
        body = diff.update_body({"name": "digits"}, self.read(kafka_topic="CREATE", partitions="2", replicas=3))

        assert body["kafkaTopicDTO"] == {"name": "CREATE", "numOfReplicas": 3, "numOfPartitions": 2}
        assert body["inferenceLogging"] == "ALL"

    def test_a_mode_alone_creates_one(self) -> None:
        body = diff.update_body({"name": "digits"}, self.read(mode="PREDICTIONS"))

        assert (body["kafkaTopicDTO"]["name"], body["inferenceLogging"]) == ("CREATE", "PREDICTIONS")

    def test_one_that_was_created_is_kept(self) -> None:
        live = {"name": "digits", "inferenceLogging": "ALL", "kafkaTopicDTO": {"name": "digits-inf0042"}}

        assert diff.differences(live, self.read(kafka_topic="CREATE")) == {}
        assert diff.update_body(live, self.read(mode="PREDICTIONS"))["kafkaTopicDTO"] == {"name": "digits-inf0042"}
        assert diff.differences(live, self.read(kafka_topic="own"))
        assert diff.differences(live | {"name": "other"}, self.read(kafka_topic="CREATE"))

    @pytest.mark.parametrize("given", [{"mode": "NONE"}, {"kafka_topic": "NONE"}])
    def test_none_any_more(self, given: dict[str, Any]) -> None:
        live = {"name": "digits", "inferenceLogging": "ALL", "kafkaTopicDTO": {"name": "own"}}
        body = diff.update_body(live, self.read(**given))

        assert body["inferenceLogging"] == "NONE"
        assert "kafkaTopicDTO" not in body
        assert diff.differences({"name": "digits", "kafkaTopicDTO": {"name": "NONE"}}, self.read(**given)) == {}


class TestNormalised:
    @pytest.mark.parametrize(
        ("live", "given"),
        [
            ({"predictorEnvVars": ["B=x=y", "A=1"]}, {"env_vars": {"A": 1, "B": "x=y"}}),
            ({}, {"env_vars": {}, "script_file": False, "transformer": False, "api_protocol": "REST"}),
            ({"predictor": None, "predictorEnvVars": None}, {"env_vars": {}, "script_file": False}),
            ({"predictorResources": {"requests": {"cores": 1.0}}}, {"resources": {"requests": {"cores": "1"}}}),
            ({"requestedInstances": 2}, {"scaling": {"min_instances": 2}}),
            ({"requestedInstances": 1, "predictorScalingConfig": {"minInstances": 2}}, {"resources": {"instances": 2}}),
            ({"tracing": {"enabled": True, "more": 1}}, {"extra": {"tracing": {"enabled": True}}}),
            ({}, {"scaling": {"idle_scale_to_zero": False}, "inference_batcher": {"enabled": False}}),
        ],
    )
    def test_the_same_said_otherwise(self, live: dict[str, Any], given: dict[str, Any]) -> None:
        assert diff.differences(live, DeploymentSpec.read(given).setting_values()) == {}

    def test_extra_is_put_into_what_is_there(self) -> None:
        live = {"tracing": {"enabled": True, "price": 1}}

        body = diff.update_body(live, DeploymentSpec.read({"extra": {"tracing": {"enabled": False}}}).setting_values())

        assert body["tracing"] == {"enabled": False, "price": 1}

    def test_a_limit_below_the_default_request(self) -> None:
        desired = {"resources.limits.cores": 0.1, "resources.requests.memory": 4096}
        body = diff.creation_body("digits", None, desired, serving_tool="KSERVE", minimum=1)

        assert body["predictorResources"] == {
            "requests": {"cores": 0.1, "memory": 4096, "gpus": 0},
            "limits": {"cores": 0.1, "memory": 4096, "gpus": 0},
        }
