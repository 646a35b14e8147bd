"""Tags of deployments, by an endpoint of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.api import API, Answer, Call
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.errors import RequestRefusedError, UnsupportedError
from airflow_provider_hsml.hopsworks.flow import drive
from airflow_provider_hsml.hopsworks.rollout import tags
from airflow_provider_hsml.hopsworks.routes import Routes
from tests.support.fake import PROJECT, refusal, row

LIVE = b'{"count": 2, "items": [{"name": "team", "value": "fraud"}, {"name": "tier", "value": "3"}]}'


def bring(desired: dict[str, Any], answer: Answer) -> tuple[bool, list[tuple[str, str, Any]]]:
    """Bring tags to a deployment that has those of ``answer``: whether any were changed, and what was sent."""
    sent: list[tuple[str, str, Any]] = []

    def send(call: Call[Any]) -> Any:
        if call.method == "GET":
            return call.outcome(answer if "tags" in call.path else Answer(200, json.dumps(row()).encode()))
        sent.append((call.method, call.path.removeprefix(f"{API}/project/119/serving/14/tags/"), call.body))
        return call.outcome(Answer(204, b""))

    deployment = Deployment.from_json(row())
    return drive(tags.set_tags(PROJECT, deployment, desired, Routes()), send, lambda _: None), sent


@pytest.mark.parametrize("desired", [{"team": "fraud", "tier": 3}, {"tier": "3", "team": "fraud"}])
def test_the_same_are_left_alone(desired: dict[str, Any]) -> None:
    assert bring(desired, Answer(200, LIVE)) == (False, [])


def test_they_are_replaced_as_a_whole() -> None:
    is_changed, sent = bring({"team": "credit", "owner": {"name": "ann"}}, Answer(200, LIVE))

    assert is_changed
    assert sent == [("PUT", "team", "credit"), ("PUT", "owner", {"name": "ann"}), ("DELETE", "tier", None)]


def test_none_are_there() -> None:
    assert bring({}, refusal(404, 370002)) == (False, [])
    assert bring({"tier": 3}, refusal(404, 370002))[1] == [("PUT", "tier", 3)]


@pytest.mark.parametrize("answer", [Answer(404, b""), refusal(404, 120004)])
def test_a_hopsworks_without_them(answer: Answer) -> None:
    assert bring({}, answer) == (False, [])
    with pytest.raises(UnsupportedError, match="this Hopsworks has no tags of deployments"):
        bring({"tier": 3}, answer)


def test_a_deployment_that_is_gone() -> None:
    with pytest.raises(RequestRefusedError, match="240000"):
        bring({"tier": 3}, refusal(404, 240000))
