"""Deployments: read, change, start, stop, roll back, delete and tag them."""

from __future__ import annotations

from starlette.responses import Response

from airflow_provider_hsml.local.errors import Refusal, malformed
from airflow_provider_hsml.local.world import tags
from airflow_provider_hsml.local.world.administration import SCHEMA_OF_LOGS
from airflow_provider_hsml.local.world.checks import VARIANTS

from .asking import PROJECT, ApiRoute, Asking, json_answer

_SERVING = f"{PROJECT}/serving"
_ONE = f"{_SERVING}/{{deployment:int}}"


def _deployments(asking: Asking) -> Response:
    deployments, name = asking.holdings.deployments, asking.query("name")
    if name is not None:
        return json_answer(deployments.by_name(name))
    version = asking.number("modelVersion", -1) if asking.query("modelVersion") is not None else None
    matching = deployments.find(asking.query("model"), version, asking.query("status"))
    return json_answer(asking.listed(matching))


def _put_deployment(asking: Asking) -> Response:
    new_version = (asking.query("newVersion") or "").lower() == "true"
    return json_answer(asking.holdings.deployments.changes.put(asking.json_object(), new_version=new_version), 201)


def _deployment(asking: Asking) -> Response:
    return json_answer(asking.holdings.deployments.get(asking.param("deployment")))


def _command(asking: Asking) -> Response:
    deployments, action = asking.holdings.deployments, asking.query("action")
    match (action or "").upper():
        case "START":
            deployments.lifecycle.start(asking.param("deployment"))
        case "STOP":
            deployments.lifecycle.stop(asking.param("deployment"))
        case "":
            raise malformed("action is missing: expected START or STOP.")
        case _:
            raise Refusal(240007, f"action {action!r} is not known: expected START or STOP.")
    return Response(status_code=200)


def _delete_deployment(asking: Asking) -> Response:
    asking.holdings.deployments.lifecycle.delete(asking.param("deployment"))
    return Response(status_code=200)


def _logs(asking: Asking) -> Response:
    component = asking.query("component") or "predictor"
    return json_answer(
        asking.holdings.deployments.logs(asking.param("deployment"), component, asking.number("tail", 5))
    )


def _deployment_versions(asking: Asking) -> Response:
    versions = asking.holdings.deployments.versions(asking.param("deployment"))
    offset, limit = max(asking.number("offset", 0), 0), asking.number("limit", 0)
    return json_answer({"count": len(versions), "items": versions[offset:][: limit if limit > 0 else None]})


def _roll_back(asking: Asking) -> Response:
    version = asking.json_object().get("version")
    return json_answer(asking.holdings.deployments.changes.roll_back(asking.param("deployment"), version))


def _tags(asking: Asking) -> Response:
    return json_answer(tags.on_the_wire(asking.holdings.deployments.stored.tags_of(asking.param("deployment"))))


def _tag(asking: Asking) -> Response:
    existing = asking.holdings.deployments.stored.tags_of(asking.param("deployment"))
    return json_answer(tags.on_the_wire(tags.named(existing, asking.param("tag"))))


def _put_tag(asking: Asking) -> Response:
    deployments, deployment = asking.holdings.deployments, asking.param("deployment")
    schemas = asking.world.administration.tag_schemas
    now = tags.put(deployments.stored.tags_of(deployment), asking.param("tag"), asking.text(), schemas)
    deployments.stored.set_tags(deployment, now)
    return json_answer(tags.on_the_wire(now), 201)


def _delete_tag(asking: Asking) -> Response:
    deployments, deployment = asking.holdings.deployments, asking.param("deployment")
    deployments.stored.set_tags(deployment, tags.without(deployments.stored.tags_of(deployment), asking.param("tag")))
    return Response(status_code=204)


def _vllm_image_tags(_asking: Asking) -> Response:
    return json_answer({variant: {"tags": ["local"], "default": "local"} for variant in VARIANTS})


def _serving_configuration(_asking: Asking) -> Response:
    return json_answer({"kafkaTopicSchema": SCHEMA_OF_LOGS, "kafkaTopicSchemaVersion": 1})


ROUTES = [
    ApiRoute("GET", "/servingconf", (), _serving_configuration),
    ApiRoute("GET", f"{_SERVING}/vllmImageTags", ("SERVING",), _vllm_image_tags, since=(5, 0)),
    ApiRoute("GET", _SERVING, ("SERVING",), _deployments),
    ApiRoute("PUT", _SERVING, ("SERVING",), _put_deployment, for_owners=True),
    ApiRoute("GET", _ONE, ("SERVING",), _deployment),
    ApiRoute("POST", _ONE, ("SERVING",), _command, for_owners=True),
    ApiRoute("DELETE", _ONE, ("SERVING",), _delete_deployment, for_owners=True),
    ApiRoute("GET", f"{_ONE}/logs", ("SERVING",), _logs),
    ApiRoute("GET", f"{_ONE}/versions", ("SERVING",), _deployment_versions, since=(5, 2)),
    ApiRoute("POST", f"{_ONE}/rollback", ("SERVING",), _roll_back, for_owners=True, since=(5, 2)),
    ApiRoute("GET", f"{_ONE}/tags", ("SERVING",), _tags, since=(5, 0)),
    ApiRoute("GET", f"{_ONE}/tags/{{tag}}", ("SERVING",), _tag, since=(5, 0)),
    ApiRoute("PUT", f"{_ONE}/tags/{{tag}}", ("SERVING",), _put_tag, for_owners=True, since=(5, 0)),
    ApiRoute("DELETE", f"{_ONE}/tags/{{tag}}", ("SERVING",), _delete_tag, for_owners=True, since=(5, 0)),
]
