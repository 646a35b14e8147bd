"""Serving models of another project, whose registry is shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.domain.gate import Metric
from airflow_provider_hsml.hopsworks.domain.model_version import Direction
from airflow_provider_hsml.hopsworks.errors import NotFoundError
from airflow_provider_hsml.hopsworks.promotion.promote import Promotion, Selection
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from tests.support.fake import PROJECT, FakeHopsworks, row

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.promotion.record import PromotionResult

REGISTRIES = {"count": 2, "items": [{"id": 119, "name": "demo"}, {"id": 120, "name": "training"}]}


def model(version: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return {
        "id": f"digits_{version}",
        "name": "digits",
        "version": version,
        "framework": "SKLEARN",
        "metrics": {"accuracy": accuracy},
    } | more


@pytest.fixture
def fake() -> FakeHopsworks:
    """Version 1 of its own model serves; the other project has versions 1 and 2 of a model of the same name."""
    theirs = [model(1, 0.8), model(2, 0.9, projectName="training", modelRegistryId=120)]
    fake = FakeHopsworks(
        row(),
        files={
            "modelregistries": REGISTRIES,
            "modelregistries/119/models/digits_1": model(1, 0.5),
            "modelregistries/120/models": {"count": 2, "items": theirs},
            "modelregistries/120/models/digits_1": theirs[0],
            "modelregistries/120/models/digits_2": theirs[1],
            "training::Models/digits/2/Files": {"items": [{"attributes": {"name": "model.pkl"}}]},
            "training::Models/digits/1/Files": {"items": [{"attributes": {"name": "model.pkl"}}]},
            "training::Models/digits/2/input_example.json": [[1]],
        },
    )
    fake.on["PUT"] = fake.serves(["new"], [1])
    return fake


def promote(fake: FakeHopsworks, **more: Any) -> PromotionResult:
    selection = Selection("digits", model_project="training", **more)
    return fake.run(Promotion(Run(PROJECT, "", 600, 10, fake.clock), selection, {}).promote())


def test_the_path_is_the_owners(fake: FakeHopsworks) -> None:
    done = promote(fake)

    assert done.outcome is not None
    assert done.outcome.action == "updated"
    assert fake.row is not None
    assert fake.row["modelPath"] == "/Projects/training/Models/digits"
    assert fake.row["modelVersion"] == 2
    assert any("training::Models/digits/2/input_example.json" in path for path in fake.reads)


def test_the_best_is_compared_with_what_is_served(fake: FakeHopsworks) -> None:
    """Version 1 of theirs is another model than version 1 of ours, so it is a candidate too."""
    by = Metric("accuracy", Direction.MAX, candidates=[1])
    done = promote(fake, by=by)

    assert done.decision is not None
    assert done.decision.chosen is not None
    assert done.decision.chosen.path == "/Projects/training/Models/digits"
    assert done.decision.chosen.version == 1
    assert done.champion is not None
    assert done.champion.path == "/Projects/demo/Models/digits"
    assert promote(fake, by=by).decision.is_kept  # type: ignore[union-attr]


def test_a_registry_that_is_not_shared(fake: FakeHopsworks) -> None:
    fake.files["modelregistries"] = {"count": 1, "items": [{"id": 119, "name": "demo"}]}

    with pytest.raises(NotFoundError, match=r"'training' is not shared with project 'demo'; shared with it are: none"):
        promote(fake)
    assert fake.sent == []


def test_a_version_that_is_not_there(fake: FakeHopsworks) -> None:
    with pytest.raises(NotFoundError, match="the registry of project 'training'; versions there: 1, 2"):
        promote(fake, version=7)


def test_what_a_deployment_serves_is_read_where_it_is(fake: FakeHopsworks) -> None:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

    live = Deployment.from_json(row(modelPath="/Projects/training/Models/digits", modelVersion=2))
    found = fake.run(lookup.served_model(PROJECT, live))

    assert found is not None
    assert (found.project, found.registry_id, found.metrics) == ("training", 120, {"accuracy": 0.9})
    assert lookup.model_folder(PROJECT, found) == "training::Models/digits/2"
    gone = Deployment.from_json(row(modelPath="/Projects/elsewhere/Models/digits"))
    assert fake.run(lookup.served_model(PROJECT, gone)) is None


def test_an_own_registry_is_not_asked_for(fake: FakeHopsworks) -> None:
    assert fake.run(lookup.find_registry(PROJECT, "demo")) is None
    assert fake.run(lookup.find_registry(PROJECT, None)) is None
    assert fake.reads == []
