"""The schema of a deployment's requests, at an update that keeps the model version."""

from __future__ import annotations

import pytest

from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.flow import Backoff
from airflow_provider_hsml.hopsworks.rollout.schema_carry import CarriedSchema, carry_schema
from airflow_provider_hsml.hopsworks.routes import Routes
from tests.support.fake import PROJECT, FakeHopsworks, row

NAMED = ["SERVING_SCHEMA_ID=abc", "SERVING_FEATURE_VIEW_NAME=view"]


def carried(live_path: str | None, path: str | None) -> tuple[CarriedSchema, FakeHopsworks]:
    """Carry the schema over an update without a model to look up, which names the model's folder by a path."""
    live = row(modelPath=live_path, predictorEnvVars=NAMED)
    fake = FakeHopsworks(live)
    backoff = Backoff(first=1.0, most=1.0, deadline=fake.now + 60, clock=fake.clock)
    flow = carry_schema(
        PROJECT, Routes(), Deployment.from_json(live), None, live | {"modelPath": path}, backoff=backoff
    )
    return fake.run(flow), fake


@pytest.mark.parametrize(
    "live_path",
    ["/Projects/demo/Models/digits", "hdfs:///Projects/demo/Models/digits/1", "/Projects/Demo/Models/digits", None],
)
def test_another_form_of_the_models_path_is_the_same_model(live_path: str | None) -> None:
    schema, fake = carried(live_path, "/Projects/demo/Models/digits")

    assert schema == CarriedSchema("abc")
    assert (fake.sent, fake.reads) == ([], [])


def test_another_owner_is_another_model() -> None:
    with pytest.raises(InvalidInputError, match="not in the registry"):
        carried("/Projects/other/Models/digits", "/Projects/demo/Models/digits")
