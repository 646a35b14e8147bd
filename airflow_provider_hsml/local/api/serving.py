"""Deployments: reading, changing, commanding them."""

from __future__ import annotations

from starlette.responses import Response

from airflow_provider_hsml.local.errors import Refusal, malformed

from .asking import PROJECT, ApiRoute, Asking, json_answer

_SERVING = f"{PROJECT}/serving"
_ONE = f"{_SERVING}/{{deployment:int}}"


def _deployments(asking: Asking) -> Response:
    deployments, name = asking.holdings.deployments, asking.query("name")
    if name is not None:
        return json_answer(deployments.by_name(name))
    version = asking.number("modelVersion", -1) if asking.query("modelVersion") is not None else None
    return json_answer(deployments.find(asking.query("model"), version, asking.query("status")))


def _put_deployment(asking: Asking) -> Response:
    new_version = (asking.query("newVersion") or "").lower() == "true"
    return json_answer(asking.holdings.deployments.put(asking.json_object(), new_version=new_version), 201)


def _deployment(asking: Asking) -> Response:
    return json_answer(asking.holdings.deployments.get(asking.param("deployment")))


def _command(asking: Asking) -> Response:
    deployments, action = asking.holdings.deployments, asking.query("action")
    match (action or "").upper():
        case "START":
            deployments.start(asking.param("deployment"))
        case "STOP":
            deployments.stop(asking.param("deployment"))
        case "":
            raise malformed("action is missing: expected START or STOP.")
        case _:
            raise Refusal(240007, f"action {action!r} is not known: expected START or STOP.")
    return Response(status_code=200)


def _delete_deployment(asking: Asking) -> Response:
    asking.holdings.deployments.delete(asking.param("deployment"))
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
    return json_answer(asking.holdings.deployments.roll_back(asking.param("deployment"), version))


ROUTES = [
    ApiRoute("GET", _SERVING, ("SERVING",), _deployments),
    ApiRoute("PUT", _SERVING, ("SERVING",), _put_deployment),
    ApiRoute("GET", _ONE, ("SERVING",), _deployment),
    ApiRoute("POST", _ONE, ("SERVING",), _command),
    ApiRoute("DELETE", _ONE, ("SERVING",), _delete_deployment),
    ApiRoute("GET", f"{_ONE}/logs", ("SERVING",), _logs),
    ApiRoute("GET", f"{_ONE}/versions", ("SERVING",), _deployment_versions),
    ApiRoute("POST", f"{_ONE}/rollback", ("SERVING",), _roll_back),
]
