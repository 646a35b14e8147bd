"""The names, bodies and leases of temporary deployments."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.settings import Script
from airflow_provider_hsml.hopsworks.domain.side_deployment import (
    Lease,
    is_lease_file,
    mandatory_tags,
    newest_files,
    side_name,
    side_settings,
    template,
)

LEASE = Lease("0f" * 16, "preflight", "digitspreflight", "digits", "dag/run/task/-1@2", 1000.0, 600.0)
LIVE: dict[str, Any] = {
    "id": 7,
    "name": "digits",
    "version": 3,
    "revision": "00003",
    "status": "Running",
    "condition": {"type": "READY", "status": True},
    "created": "2026-01-01",
    "creator": "somebody",
    "description": "of the team",
    "modelName": "digits",
    "modelVersion": 1,
    "modelPath": "/Projects/demo/Models/digits",
    "modelFramework": "SKLEARN",
    "modelServer": "PYTHON",
    "servingTool": "KSERVE",
    "requestedInstances": 3,
    "predictorScalingConfig": {"minInstances": 3, "maxInstances": 9, "target": 10},
    "predictorResources": {"requests": {"cores": 1, "memory": 64, "gpus": 0}},
    "predictorEnvVars": ["OWN=1", "SERVING_FEATURE_LOGGING=job", "HSML_RESTARTED_AT=9", "SERVING_SCHEMA_ID=0123"],
    "inferenceLogging": "ALL",
    "kafkaTopicDTO": {"name": "digits-inf1234"},
    "tags": {"count": 1, "items": [{"name": "team", "value": "risk"}]},
    "featureLogging": {"enabled": True},
    "tracing": {"enabled": False},
    "batchingConfiguration": {"batchingEnabled": True},
    "predictor": "serve.py",
    "gitAutoRedeploy": True,
}


class TestName:
    @pytest.mark.parametrize("live", ["d", "digits", "Digits", "x" * 200, "9lives"])
    @pytest.mark.parametrize("purpose", ["preflight", "compare"])
    def test_is_of_lower_case_letters_and_digits_and_short(self, live: str, purpose: str) -> None:
        name = side_name(live, purpose)

        assert re.fullmatch(r"[a-z0-9]{1,30}", name)
        assert name.startswith(live[0].lower())
        assert purpose in name
        assert name == side_name(live, purpose)

    def test_tells_apart_what_differs_in_case_or_behind_the_cut(self) -> None:
        lives = ["digits", "Digits", "x" * 40, "x" * 41]

        assert len({side_name(live, purpose) for live in lives for purpose in ("preflight", "compare")}) == 8


class TestTemplate:
    def test_is_the_live_one_after_the_update_without_what_is_its_own(self) -> None:
        body = template(Deployment.from_json(LIVE), {"model_version": 2, "env_vars": {"OWN": "2"}}, 0)

        assert body == {
            "modelName": "digits",
            "modelVersion": 2,
            "modelPath": "/Projects/demo/Models/digits",
            "modelFramework": "SKLEARN",
            "modelServer": "PYTHON",
            "servingTool": "KSERVE",
            "predictorScalingConfig": {"maxInstances": 1},
            "predictorResources": {"requests": {"cores": 1, "memory": 64, "gpus": 0}},
            "predictorEnvVars": ["SERVING_SCHEMA_ID=0123", "OWN=2"],
            "tracing": {"enabled": False},
            "batchingConfiguration": {"batchingEnabled": True},
            "predictor": "serve.py",
        }

    def test_leaves_the_live_one_as_it_is(self) -> None:
        before = json.dumps(LIVE)

        template(Deployment.from_json(LIVE), {"env_vars": {}, "resources.limits.memory": 2048}, 1)

        assert json.dumps(LIVE) == before

    def test_a_transformer_has_one_instance_as_well(self) -> None:
        live = LIVE | {"transformer": "before.py", "requestedTransformerInstances": 2}

        body = template(Deployment.from_json(live), {}, 0)

        assert body["transformerScalingConfig"] == {"maxInstances": 1}
        assert "requestedTransformerInstances" not in body

    @pytest.mark.parametrize(
        ("settings", "scaling"),
        [
            ({}, {"predictorScalingConfig": {"maxInstances": 2}}),
            (
                {"transformer.script_file": Script("/Projects/demo/t.py")},
                {key: {"maxInstances": 2} for key in ("predictorScalingConfig", "transformerScalingConfig")},
            ),
        ],
    )
    def test_without_a_live_one_only_instances_are_bounded(self, settings: Any, scaling: Any) -> None:
        assert template(None, settings, 2) == scaling


def test_settings_have_no_spare_instances_logs_and_tags() -> None:
    asked = {
        "model_version": 2,
        "scaling.max_instances": 9,
        "scaling.idle_scale_to_zero": True,
        "transformer.scaling.min_instances": 2,
        "inference_logger.mode": "ALL",
        "inference_logger.kafka_topic": "CREATE",
        "tags": {"team": "risk"},
        "description": "of the team",
        "extra.featureLogging": {"enabled": True},
        "extra.tracing": {"enabled": True},
        "resources.limits.gpus": 1,
    }

    assert side_settings(asked, 0, "temporary") == {
        "model_version": 2,
        "extra.tracing": {"enabled": True},
        "resources.limits.gpus": 1,
        "scaling.min_instances": 0,
        "inference_logger.mode": "NONE",
        "inference_logger.kafka_topic": None,
        "description": "temporary",
    }


@pytest.mark.parametrize("missing", [["team"], [{"name": "team"}], ["team", "cost", None, {}]])
def test_tags_are_those_that_hopsworks_demands_and_that_are_known(missing: list[Any]) -> None:
    created = Deployment.from_json({"id": 8, "name": "side", "missingMandatoryTags": missing})
    live = Deployment.from_json(LIVE)

    assert mandatory_tags(created, live, {}) == {"team": "risk"}
    assert mandatory_tags(created, live, {"tags": {"team": "fraud", "other": 1}}) == {"team": "fraud"}
    assert mandatory_tags(created, None, {}) == {}
    nothing: list[Any] = [None, [], "team"]
    for given in nothing:
        without = Deployment.from_json({"id": 8, "name": "side", "missingMandatoryTags": given})
        assert mandatory_tags(without, live, {"tags": {"team": "fraud"}}) == {}


class TestLease:
    def test_is_read_as_it_was_written(self) -> None:
        complete = dataclasses.replace(LEASE, deployment_id=7, number=2)

        assert [Lease.from_json(json.loads(json.dumps(one.to_json()))) for one in (LEASE, complete)] == [
            LEASE,
            complete,
        ]

    @pytest.mark.parametrize(
        "wrong", [None, [], {}, {"id": 1}, LEASE.to_json() | {"expires": "soon"}, LEASE.to_json() | {"name": None}]
    )
    def test_that_is_none_is_refused(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match=r"missing|expected|is a"):
            Lease.from_json(wrong)

    def test_keys_of_a_newer_version_are_ignored(self) -> None:
        assert Lease.from_json(LEASE.to_json() | {"colour": "red"}) == LEASE

    def test_expires_and_is_renewed_after_a_third(self) -> None:
        assert (LEASE.is_expired(999.9), LEASE.is_expired(1000.0)) == (False, True)
        assert LEASE.renewed_from == 600.0

    @pytest.mark.parametrize(
        ("run", "is_of"),
        [("dag/run/task/-1@2", True), ("dag/run/task/-1@4", True), ("dag/run/task/0@2", False), ("", False)],
    )
    def test_is_of_the_same_task_in_each_round_of_tries(self, run: str, is_of: bool) -> None:
        assert LEASE.is_of(run) is is_of
        assert not dataclasses.replace(LEASE, run="").is_of(run)

    @pytest.mark.parametrize(
        ("number", "row", "holds"),
        [
            (7, {}, True),
            (8, {}, False),
            (7, {"name": "other"}, False),
            (None, {"description": LEASE.description}, True),
            (None, {"description": None}, False),
            (None, {"description": LEASE.description.replace("0f", "1f")}, False),
            (None, {"description": LEASE.description, "name": "other"}, False),
        ],
    )
    def test_holds_its_own_deployment_only(self, number: int | None, row: dict[str, Any], holds: bool) -> None:
        found = Deployment.from_json({"id": 7, "name": LEASE.name, **row})

        assert dataclasses.replace(LEASE, deployment_id=number).holds(found) is holds

    def test_its_newest_file_comes_first_among_other_files(self) -> None:
        files = [dataclasses.replace(LEASE, number=number).file_name for number in (9, 10, 11)]
        other = dataclasses.replace(LEASE, id="1e" * 16, purpose="compare").file_name
        entry = "00000001-a0123456789.json"

        assert newest_files([*files, other, entry]) == {LEASE.id: files[::-1], "1e" * 16: [other]}
        assert [is_lease_file(name) for name in (files[0], other, entry)] == [True, True, False]

    def test_another_one_is_beside_it_if_it_has_the_same_purpose(self) -> None:
        other = dataclasses.replace(LEASE, id="1e" * 16)

        assert LEASE.is_beside(other.file_name)
        assert not LEASE.is_beside(dataclasses.replace(other, purpose="compare").file_name)
        assert not LEASE.is_beside("00000001-a0123456789.json")
