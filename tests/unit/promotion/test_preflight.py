"""The live deployment after a preflight: only another client's change ends the promotion's decision."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.promotion.journal import Journal, OutdatedDecision
from airflow_provider_hsml.hopsworks.promotion.preflight import Preflight, PreflightMode
from airflow_provider_hsml.hopsworks.promotion.situation import Situation
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from tests.support.fake import PROJECT, FakeHopsworks, row

RESOURCES = {"limits": {"cores": 2, "memory": 1024, "gpus": 0}}
LIVE = row(predictorResources=RESOURCES)


def unchanged(fake: FakeHopsworks, live: dict[str, Any] | None = LIVE) -> Deployment | None:
    """Return the deployment after a preflight that was begun while it was as given."""
    run = Run(PROJECT, "digits", 60.0, 1.0, fake.clock)
    decided_on = None if live is None else Deployment.from_json(live)
    situation = Situation("digits", decided_on, Journal(PROJECT, "digits"), None)
    return fake.run(Preflight(run, PreflightMode.REQUIRED, None)._unchanged(situation)).live


@pytest.mark.parametrize("key", ["version", "revision", "status", "modelVersion", "predictorResources"])
def test_one_read_that_lacks_something_is_no_change(key: str) -> None:
    live = unchanged(FakeHopsworks(LIVE, lacks={0: {key: None}}))

    assert live is not None
    assert live.raw["predictorResources"] == RESOURCES


def test_without_a_deployment_there_still_is_none() -> None:
    assert unchanged(FakeHopsworks(), None) is None


@pytest.mark.parametrize(("now", "was"), [(LIVE | {"revision": "200"}, LIVE), (LIVE, None), (None, LIVE)])
def test_another_clients_change(now: dict[str, Any] | None, was: dict[str, Any] | None) -> None:
    with pytest.raises(OutdatedDecision):
        unchanged(FakeHopsworks(now), was)
