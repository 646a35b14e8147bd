from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks import changes, reading
from airflow_provider_hsml.hopsworks.errors import InvalidInput
from airflow_provider_hsml.hopsworks.specs import DeploymentSpec, Resources, Scaling

from .samples import deployment

RAW = deployment("serving/running").raw


class TestReading:
    @pytest.mark.parametrize(("value", "number"), [(2, 2), ("2", 2), (" 3 ", 3), ("-1", -1)])
    def test_whole_numbers(self, value: Any, number: int) -> None:
        assert reading.integer("n", value) == number

    @pytest.mark.parametrize("value", [True, 2.0, "2.0", "", None, "two", "--1"])
    def test_no_whole_numbers(self, value: Any) -> None:
        with pytest.raises(InvalidInput, match="n: expected a whole number"):
            reading.integer("n", value)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "x", None, False])
    def test_no_numbers(self, value: Any) -> None:
        with pytest.raises(InvalidInput, match="n: expected a finite number"):
            reading.number("n", value)

    @pytest.mark.parametrize(("value", "flag"), [("False", False), ("true", True), (True, True), (False, False)])
    def test_flags(self, value: Any, flag: bool) -> None:
        assert reading.boolean("f", value) is flag

    @pytest.mark.parametrize("value", ["", "no", 0, 1, None])
    def test_no_flags(self, value: Any) -> None:
        with pytest.raises(InvalidInput, match="f: expected true or false"):
            reading.boolean("f", value)

    @pytest.mark.parametrize("value", ["abc", {"a": 1}, 3, None])
    def test_no_lists(self, value: Any) -> None:
        with pytest.raises(InvalidInput, match="l: expected a list"):
            reading.sequence("l", value)

    def test_lists(self) -> None:
        assert reading.sequence("l", iter([1, 2])) == [1, 2]

    @pytest.mark.parametrize("value", ["", "  ", 3, None])
    def test_no_texts(self, value: Any) -> None:
        with pytest.raises(InvalidInput, match="t: expected a text"):
            reading.text("t", value)

    @pytest.mark.parametrize("value", [3, {1: 2}, [1]])
    def test_no_mappings(self, value: Any) -> None:
        with pytest.raises(InvalidInput, match="m: expected a mapping"):
            reading.mapping("m", value)


class TestDeploymentSpec:
    def test_an_unknown_key_names_the_nearest(self) -> None:
        with pytest.raises(InvalidInput, match="spec: unknown key 'enviroment'; did you mean 'environment'"):
            DeploymentSpec.read({"enviroment": "x"})
        with pytest.raises(InvalidInput, match="unknown key 'zzz'; known are"):
            DeploymentSpec.read({"scaling": {"zzz": 1}}).wanted()

    @pytest.mark.parametrize("value", ["not json", "[1]", 3])
    def test_no_spec(self, value: Any) -> None:
        with pytest.raises(InvalidInput, match="spec: expected"):
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
        wanted = {"environment": "env", "resources.requests.cores": 1.5, "scaling.max_instances": 3}
        assert DeploymentSpec.read(given).wanted() == wanted
        assert DeploymentSpec.read(json.dumps(given)).wanted() == wanted
        assert DeploymentSpec.read(spec).wanted() == wanted

    def test_texts_from_templates(self) -> None:
        given = {
            "resources": {"instances": "2", "limits": {"memory": "2048"}},
            "scaling": {"target": "1.5", "metric": "RPS"},
        }

        assert DeploymentSpec.read(given).wanted() == {
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
        ],
    )
    def test_what_cannot_be(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInput, match=message):
            DeploymentSpec.read(given).wanted()

    def test_both_numbers_of_instances_may_be_given_alike(self) -> None:
        assert DeploymentSpec(resources=Resources(instances=2), scaling=Scaling(min_instances="2")).wanted()


class TestDifferences:
    def test_nothing_given_changes_nothing(self) -> None:
        assert changes.differences(RAW, {}) == {}

    def test_the_same_changes_nothing(self) -> None:
        assert (
            changes.differences(RAW, {"resources.limits.cores": 2, "scaling.min_instances": 1, "model_version": 2})
            == {}
        )

    def test_a_description_is_no_reason(self) -> None:
        assert changes.differences(RAW, {"description": "new"}) == {}

    def test_says_what_is_live_and_what_is_wanted(self) -> None:
        assert changes.differences(RAW, {"model_version": 3}) == {"model_version": (2, 3)}

    def test_an_environment_is_read_from_either_key(self) -> None:
        assert changes.differences({"environmentDTO": {"name": "env"}}, {"environment": "env"}) == {}
        assert changes.differences({"predictorEnvironment": {"name": "env"}}, {"environment": "env"}) == {}

    def test_both_minimums_are_written(self) -> None:
        body = changes.changed(RAW, {"scaling.min_instances": 3})

        assert body["requestedInstances"] == body["predictorScalingConfig"]["minInstances"] == 3
        assert RAW["requestedInstances"] == 1, "what was read is not changed"

    def test_what_is_not_known_is_kept(self) -> None:
        body = changes.changed(dict(RAW, newer={"key": 1}), {"description": "why", "environment": "env"})

        assert body["newer"] == {"key": 1}
        assert body["description"] == "why"
        assert body["predictorEnvironment"] == body["environmentDTO"] == {"name": "env"}
