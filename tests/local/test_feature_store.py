"""Feature views that a test declares, and the provenance of models; `make conformance` asks for them with the SDKs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import FeatureView, LocalServing
from tests.local.conftest import Client, load

if TYPE_CHECKING:
    from pathlib import Path

VIEW = FeatureView(
    name="transactions_view",
    features={"amount": "double"},
    labels={"is_fraud": "int"},
    serving_keys={"cc_num": "bigint"},
    training_datasets=(2, 3),
)
_STORE = "/featurestores/67/featureview"
_MODELS = "/modelregistries/119/models"


@pytest.fixture
def viewed(client: Client) -> Client:
    """A client of a server with a view."""
    client.serving.world.declare(VIEW)
    return client


def _register(client: Client, **fields: Any) -> None:
    view = {"featurestoreId": 67, "name": "transactions_view", "version": 1}
    client.give("PUT", f"{_MODELS}/digits_1", json={"featureView": view, "trainingDatasetVersion": 2} | fields)


def _kinds(links: dict[str, Any]) -> list[tuple[str, bool]]:
    """Give the nodes above a model from below, and whether each was deleted."""
    found = []
    while links["upstream"]:
        (links,) = links["upstream"]
        found.append((links["node"]["artifact_type"], links["node"]["deleted"]))
    return found


def test_the_store_of_the_project(viewed: Client) -> None:
    store = viewed.give("GET", "/featurestores/example_featurestore")

    assert (store["featurestoreId"], store["projectName"]) == (67, "example")
    assert viewed.give("GET", "/featurestores") == [store]
    assert viewed.refused("GET", "/featurestores/other_featurestore") == (400, 270008)
    assert viewed.refused("GET", "/featurestores/9/featureview") == (400, 270008)


def test_a_view_with_its_columns_and_keys(viewed: Client) -> None:
    view = viewed.give("GET", f"{_STORE}/transactions_view/version/1")

    assert [(one["name"], one["type"], one["label"]) for one in view["features"]] == [
        ("amount", "double", False),
        ("is_fraud", "int", True),
    ]
    assert [key["featureName"] for key in view["servingKeys"]] == ["cc_num"]
    assert viewed.give("GET", f"{_STORE}/transactions_view") == {"count": 1, "items": [view]}
    assert viewed.give("GET", _STORE) == {"count": 1, "items": [view]}


def test_a_view_that_is_not_there(viewed: Client) -> None:
    for path in ("transactions_view/version/2", "nope", "nope/version/1", "nope/version/1/trainingdatasets"):
        assert viewed.refused("GET", f"{_STORE}/{path}") == (404, 270181)


def test_training_datasets(viewed: Client) -> None:
    path = f"{_STORE}/transactions_view/version/1/trainingdatasets"

    assert [one["version"] for one in viewed.give("GET", path)["items"]] == [2, 3]
    assert viewed.give("GET", f"{path}/version/3")["version"] == 3
    assert viewed.refused("GET", f"{path}/version/4") == (404, 270012)


def test_the_scope(viewed: Client) -> None:
    assert viewed.refused("GET", _STORE, key="reader.secret") == (403, 320004)


class TestProvenance:
    def test_by_levels(self, viewed: Client) -> None:
        _register(viewed)
        path = f"{_MODELS}/digits_1/provenance/links"

        assert _kinds(viewed.give("GET", f"{path}?upstreamLvls=2")) == [
            ("TRAINING_DATASET", False),
            ("FEATURE_VIEW", False),
        ]
        assert _kinds(viewed.give("GET", f"{path}?upstreamLvls=1")) == [("TRAINING_DATASET", False)]
        assert _kinds(viewed.give("GET", f"{path}?upstreamLvls=0")) == []

    def test_what_was_deleted(self, viewed: Client) -> None:
        _register(viewed)
        viewed.serving.world.project(119).features.remove("transactions_view")

        links = viewed.give("GET", f"{_MODELS}/digits_1/provenance/links?upstreamLvls=2")

        assert _kinds(links) == [("TRAINING_DATASET", True), ("FEATURE_VIEW", True)]

    def test_none_without_a_training_dataset(self, viewed: Client) -> None:
        _register(viewed, trainingDatasetVersion=None)

        assert _kinds(viewed.give("GET", f"{_MODELS}/digits_1/provenance/links?upstreamLvls=2")) == []

    def test_a_model_that_is_not_there(self, viewed: Client) -> None:
        assert viewed.refused("GET", f"{_MODELS}/digits_99/provenance/links") == (404, 360000)


class TestDeclared:
    def test_kept_in_the_root(self, tmp_path: Path) -> None:
        with LocalServing(tmp_path, engine=load) as serving:
            serving.world.declare(VIEW)
        with LocalServing(tmp_path, engine=load) as serving:
            kept = serving.world.project(serving.project_id).features.get("transactions_view", 1)

            assert (kept.name, list(kept.training_datasets)) == ("transactions_view", [2, 3])
            serving.reset(everything=True)
            assert serving.world.project(serving.project_id).features.named() == []

    def test_in_another_project(self) -> None:
        with LocalServing(engine=load, project=["example", "team"]) as serving:
            assert serving.world.declare(VIEW, project="team").id == 68
            with pytest.raises(ValueError, match="project 'nope' is not known: expected one of example, team"):
                serving.world.declare(VIEW, project="nope")

    def test_a_name_that_no_view_has(self) -> None:
        with pytest.raises(ValueError, match="feature view 'Bad-Name'"):
            FeatureView(name="Bad-Name")

    def test_an_entity_of_the_online_store(self) -> None:
        view = FeatureView(name="v", serving_keys={"id": "bigint"}, entities=[{"id": 1, "amount": 2.0}])

        assert view.entity({"id": "1"}) == {"id": 1, "amount": 2.0}
        assert view.entity({"id": 2}) is None
