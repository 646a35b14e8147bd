"""The feature store: its views and their training datasets, for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import Refusal

from .asking import PROJECT, ApiRoute, Asking, json_answer

if TYPE_CHECKING:
    from starlette.responses import Response

    from airflow_provider_hsml.local.world.feature_store import FeatureStore, FeatureView


def _stores(asking: Asking) -> Response:
    return json_answer([asking.holdings.features.on_the_wire()])


def _store(asking: Asking) -> Response:
    store = asking.holdings.features
    if asking.param("store") not in (store.name, str(store.id)):
        raise Refusal(270008, f"Feature store {asking.param('store')} not found.")
    return json_answer(store.on_the_wire())


def _own(asking: Asking) -> FeatureStore:
    """Return the feature store of the id in the path."""
    store = asking.holdings.features
    if asking.param("store") != store.id:
        raise Refusal(270008, f"Feature store {asking.param('store')} not found.")
    return store


def _listed(items: list[dict[str, Any]]) -> Response:
    return json_answer({"count": len(items)} | ({"items": items} if items else {}))


def _views(asking: Asking) -> Response:
    store = _own(asking)
    return _listed([store.view_on_the_wire(view) for view in store.named()])


def _versions(asking: Asking) -> Response:
    store = _own(asking)
    return _listed([store.view_on_the_wire(view) for view in store.named(asking.param("view"))])


def _view_of(asking: Asking) -> FeatureView:
    return _own(asking).get(asking.param("view"), asking.param("version"))


def _view(asking: Asking) -> Response:
    return json_answer(_own(asking).view_on_the_wire(_view_of(asking)))


def _datasets(asking: Asking) -> Response:
    store, view = _own(asking), _view_of(asking)
    return _listed([store.dataset_on_the_wire(view, version) for version in view.training_datasets])


def _dataset(asking: Asking) -> Response:
    view, version = _view_of(asking), asking.param("dataset")
    if version not in view.training_datasets:
        raise Refusal(270012, f"Training dataset version {version} of feature view {view.name} not found.")
    return json_answer(_own(asking).dataset_on_the_wire(view, version))


def _provenance_of_model(asking: Asking) -> Response:
    """Return the training dataset and the feature view that a model was registered with."""
    owner = asking.world.registry(asking.param("project"), asking.param("registry"))
    store = asking.world.holdings_of(owner.project).features
    return json_answer(store.links(owner.get(asking.param("model")), asking.number("upstreamLvls", 1)))


_STORE = f"{PROJECT}/featurestores/{{store:int}}/featureview"
_VIEW = f"{_STORE}/{{view}}/version/{{version:int}}"
ROUTES = [
    ApiRoute("GET", f"{PROJECT}/featurestores", ("FEATURESTORE",), _stores),
    ApiRoute("GET", f"{PROJECT}/featurestores/{{store}}", ("FEATURESTORE",), _store),
    ApiRoute("GET", _STORE, ("FEATURESTORE",), _views),
    ApiRoute("GET", f"{_STORE}/{{view}}", ("FEATURESTORE",), _versions),
    ApiRoute("GET", _VIEW, ("FEATURESTORE",), _view),
    ApiRoute("GET", f"{_VIEW}/trainingdatasets", ("FEATURESTORE",), _datasets),
    ApiRoute("GET", f"{_VIEW}/trainingdatasets/version/{{dataset:int}}", ("FEATURESTORE",), _dataset),
    ApiRoute(
        "GET",
        f"{PROJECT}/modelregistries/{{registry:int}}/models/{{model}}/provenance/links",
        ("MODELREGISTRY",),
        _provenance_of_model,
    ),
]
