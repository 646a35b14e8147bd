"""The model registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from airflow_provider_hsml.local.errors import Refusal
from airflow_provider_hsml.local.logs import logger
from airflow_provider_hsml.local.world import tags
from airflow_provider_hsml.local.world.registry import FIELDS

from .asking import PREFIX, PROJECT, ApiRoute, Asking, json_answer

if TYPE_CHECKING:
    from airflow_provider_hsml.local.world.accounts import Project
    from airflow_provider_hsml.local.world.registry import Registry

log = logger(__name__)

_REGISTRY = f"{PROJECT}/modelregistries/{{registry:int}}"


def _registries(asking: Asking) -> Response:
    project = asking.holdings.project
    items = [_registry_on_the_wire(asking, owner) for owner in asking.world.accounts.shared_with(project)]
    href = f"{PREFIX}/project/{project.id}/modelregistries"
    return json_answer({"href": href, "count": len(items), "items": items})


def _registry(asking: Asking) -> Response:
    return json_answer(_registry_on_the_wire(asking, _shared(asking).project))


def _registry_on_the_wire(asking: Asking, owner: Project) -> dict[str, Any]:
    href = f"{PREFIX}/project/{asking.param('project')}/modelregistries/{owner.id}"
    return {"href": href, "id": owner.id, "name": owner.name}


def _shared(asking: Asking) -> Registry:
    """Return the registry in the path, for reading."""
    return asking.world.registry(asking.param("project"), asking.param("registry"))


def _own(asking: Asking) -> Registry:
    """Return the registry in the path, for writing; a shared registry is refused."""
    registry = _shared(asking)
    if registry.project.id != asking.param("project"):
        raise Refusal(360007, f"Model registry {registry.project.name} is shared to be read, not to be written.")
    return registry


def _models(asking: Asking) -> Response:
    filters = asking.request.query_params.getlist("filter_by")
    limit, offset = asking.number("limit", 0), asking.number("offset", 0)
    return json_answer(_shared(asking).find(filters, asking.query("sort_by"), limit, offset))


def _model(asking: Asking) -> Response:
    return json_answer(_shared(asking).get(asking.param("model")))


def _put_model(asking: Asking) -> Response:
    registry, body = _own(asking), asking.json_object()
    if unknown := sorted(set(body) - FIELDS):
        log.warning("PUT model: unknown fields %s are dropped", ", ".join(unknown))
    return json_answer(registry.put(asking.param("model"), body), 201)


def _patch_model(asking: Asking) -> Response:
    return json_answer(_own(asking).change_framework(asking.param("model"), asking.json_object().get("framework")))


def _delete_model(asking: Asking) -> Response:
    _own(asking)
    asking.world.delete_model(asking.param("project"), asking.param("model"))
    return Response(status_code=204)


def _tags(asking: Asking) -> Response:
    return json_answer(tags.on_the_wire(_shared(asking).tags_of(asking.param("model"))))


def _tag(asking: Asking) -> Response:
    tag = tags.named(_shared(asking).tags_of(asking.param("model")), asking.param("tag"))
    return json_answer(tags.on_the_wire(tag))


def _put_tag(asking: Asking) -> Response:
    registry, model = _own(asking), asking.param("model")
    now = tags.put(registry.tags_of(model), asking.param("tag"), asking.text(), asking.world.administration.tag_schemas)
    registry.set_tags(model, now)
    return json_answer(tags.on_the_wire(now), 201)


def _delete_tag(asking: Asking) -> Response:
    registry, model = _own(asking), asking.param("model")
    registry.set_tags(model, tags.without(registry.tags_of(model), asking.param("tag")))
    return Response(status_code=204)


_MODEL = f"{_REGISTRY}/models/{{model}}"
ROUTES = [
    ApiRoute("GET", f"{PROJECT}/modelregistries", ("MODELREGISTRY",), _registries),
    ApiRoute("GET", _REGISTRY, ("MODELREGISTRY",), _registry),
    ApiRoute("GET", f"{_REGISTRY}/models", ("MODELREGISTRY",), _models),
    ApiRoute("GET", _MODEL, ("MODELREGISTRY",), _model),
    ApiRoute("PUT", _MODEL, ("MODELREGISTRY",), _put_model),
    ApiRoute("DELETE", _MODEL, ("MODELREGISTRY",), _delete_model),
    ApiRoute("PATCH", _MODEL, ("MODELREGISTRY",), _patch_model, since=(5, 0)),
    ApiRoute("GET", f"{_MODEL}/tags", ("MODELREGISTRY",), _tags),
    ApiRoute("GET", f"{_MODEL}/tags/{{tag}}", ("MODELREGISTRY",), _tag),
    ApiRoute("PUT", f"{_MODEL}/tags/{{tag}}", ("MODELREGISTRY",), _put_tag),
    ApiRoute("DELETE", f"{_MODEL}/tags/{{tag}}", ("MODELREGISTRY",), _delete_tag),
]
