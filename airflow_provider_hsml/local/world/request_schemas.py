"""The schema of a deployment's requests when its instances start: its document, and whether it is of the model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_hsml.local.cluster.engines import StartError
from airflow_provider_hsml.local.cluster.request_schemas import DEFAULT_PREDICTOR, SCHEMA_VARIABLE, RequestSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_hsml.local.cluster.engines import ModelFiles

    from .holdings import Holdings


def find_schema(sharing: Callable[[int], list[Holdings]], model: ModelFiles) -> RequestSchema | None:
    """
    Return the schema that the instances of a deployment enforce; None without one.

    As in Hopsworks, only the default predictor checks at its start that the schema is of its model.

    :param sharing: returns what a project holds, and what those hold that share their models with it
    :raises StartError: it is not
    """
    holdings, *others = sharing(int(model.env["PROJECT_ID"]))
    path = f"Deployments/{model.deployment}/resources/schema/{model.env[SCHEMA_VARIABLE]}.json"
    document = json.loads(holdings.files.read(path).read_bytes()) if holdings.files.exists(path) else None
    is_default = model.script is not None and model.script.name.endswith(DEFAULT_PREDICTOR)
    if not is_default:
        return None if document is None else RequestSchema(document)
    if document is None:
        _fail(f"Deployment '{model.deployment}' has no deployment schema: the file that its id names is gone.")
    owner = _owner(holdings, others, model)
    registered = owner.registry.get(f"{model.name}_{model.version}")
    inputs = _inputs(owner, registered)
    view = _check_origin(owner, document, registered)
    if view is None:
        return RequestSchema(document, inputs)
    features = {**view.features, **{field["name"]: field["type"] for field in document["passedFeatures"]}}
    if missing := [name for name in inputs if name not in features]:
        _fail(f"Model input columns {missing} are not in the feature vector of '{view.name}' v{view.version}.")
    return RequestSchema(document, inputs, view.entity)


def _fail(reason: str) -> NoReturn:
    raise StartError("STARTED", reason)


def _owner(holdings: Holdings, others: Iterable[Holdings], model: ModelFiles) -> Holdings:
    """Return the holdings of the project that owns the model, which may share it."""
    for owner in others:
        if model.path is not None and model.path.is_relative_to(owner.files.here("Models")):
            return owner
    return holdings


def _inputs(owner: Holdings, registered: Mapping[str, Any]) -> list[str]:
    """Return the names of a model's input columns, from its model schema."""
    path = f"Models/{registered['name']}/{registered['version']}/model_schema.json"
    schema = json.loads(owner.files.read(path).read_bytes()) if owner.files.exists(path) else {}
    columns = ((schema or {}).get("input_schema") or {}).get("columnar_schema")
    if not columns:
        _fail(f"Model '{registered['name']}' v{registered['version']} has no model schema with columns.")
    return [column["name"] for column in columns]


def _check_origin(owner: Holdings, document: Mapping[str, Any], registered: Mapping[str, Any]) -> Any:
    """Check the feature view and the training dataset of a schema, and return the view; None without one."""
    wanted, published = document.get("featureView"), document.get("trainingDatasetVersion")
    recorded = registered.get("featureView") or {}
    view = owner.features.find(recorded.get("name", ""), recorded.get("version", 0))
    if wanted is None and not document.get("servingKeys"):
        return view
    if view is None:
        _fail(f"No feature view is linked to model '{registered['name']}' v{registered['version']}.")
    if wanted is not None and (wanted["name"], wanted["version"]) != (view.name, view.version):
        _fail(
            f"The deployment schema was published for feature view '{wanted['name']}' v{wanted['version']} but the "
            f"deployment serves '{view.name}' v{view.version}. Redeploy."
        )
    dataset = registered.get("trainingDatasetVersion")
    if published is not None and dataset is not None and published != dataset:
        _fail(
            f"Deployment schema {document.get('schemaId')} was published for training dataset v{published} but this "
            f"revision serves v{dataset}. Redeploy so the schema and the statistics agree."
        )
    return view
