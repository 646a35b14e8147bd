"""The model registry."""

from __future__ import annotations

import logging
from typing import Any

from starlette.responses import Response

from airflow_provider_hsml.local.errors import Refusal
from airflow_provider_hsml.local.registry import FIELDS

from .asking import PREFIX, PROJECT, ApiRoute, Asking, json_answer

log = logging.getLogger(__name__)

_REGISTRY = f"{PROJECT}/modelregistries/{{registry:int}}"


def _registries(asking: Asking) -> Response:
    item = _registry_on_the_wire(asking)
    return json_answer({"href": item["href"].rpartition("/")[0], "count": 1, "items": [item]})


def _registry(asking: Asking) -> Response:
    _check_registry(asking)
    return json_answer(_registry_on_the_wire(asking))


def _registry_on_the_wire(asking: Asking) -> dict[str, Any]:
    project = asking.holdings.project
    href = f"{PREFIX}/project/{project.id}/modelregistries/{project.id}"
    return {"href": href, "id": project.id, "name": project.name}


def _check_registry(asking: Asking) -> None:
    """Each project has its own registry; others are not shared with it."""
    registry_id = asking.param("registry")
    if registry_id == asking.holdings.project.id:
        return
    known = any(project.id == registry_id for project in asking.world.accounts.projects)
    raise Refusal(360007 if known else 360006, f"Model registry {registry_id} is not this project's.")


def _models(asking: Asking) -> Response:
    _check_registry(asking)
    filters = asking.request.query_params.getlist("filter_by")
    limit, offset = asking.number("limit", 0), asking.number("offset", 0)
    return json_answer(asking.holdings.registry.find(filters, asking.query("sort_by"), limit, offset))


def _model(asking: Asking) -> Response:
    _check_registry(asking)
    return json_answer(asking.holdings.registry.get(asking.param("model")))


def _put_model(asking: Asking) -> Response:
    _check_registry(asking)
    body = asking.json_object()
    if unknown := sorted(set(body) - FIELDS):
        log.warning("PUT model: fields %s are not known, and dropped", ", ".join(unknown))
    return json_answer(asking.holdings.registry.put(asking.param("model"), body), 201)


def _delete_model(asking: Asking) -> Response:
    _check_registry(asking)
    asking.world.delete_model(asking.param("project"), asking.param("model"))
    return Response(status_code=204)


ROUTES = [
    ApiRoute("GET", f"{PROJECT}/modelregistries", ("MODELREGISTRY",), _registries),
    ApiRoute("GET", _REGISTRY, ("MODELREGISTRY",), _registry),
    ApiRoute("GET", f"{_REGISTRY}/models", ("MODELREGISTRY",), _models),
    ApiRoute("GET", f"{_REGISTRY}/models/{{model}}", ("MODELREGISTRY",), _model),
    ApiRoute("PUT", f"{_REGISTRY}/models/{{model}}", ("MODELREGISTRY",), _put_model),
    ApiRoute("DELETE", f"{_REGISTRY}/models/{{model}}", ("MODELREGISTRY",), _delete_model),
]
