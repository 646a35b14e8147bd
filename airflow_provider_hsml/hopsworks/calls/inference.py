"""Asking deployments for predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.deployments import check_deployment_name
from airflow_provider_hsml.hopsworks.errors import InvalidInput

from .wire import Call, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .projects import Project


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the cluster takes requests to models."""

    type: str
    """LOAD_BALANCER, NODE or KUBE_CLUSTER."""
    hosts: tuple[str, ...]
    ports: Mapping[str, int]
    """By their name: HTTP, HTTPS and so on."""


def get_endpoints(project: Project) -> Call[list[Endpoint]]:
    """
    List the places that take requests to models.

    :param project: the project
    """
    return Call(
        "list the inference endpoints",
        "GET",
        path_of("project", project.id, "inference", "endpoints"),
        lambda data: [_endpoint(row) for row in (data if isinstance(data, list) else data.get("items") or [])],
        repeatable=True,
    )


def _endpoint(row: Mapping[str, Any]) -> Endpoint:
    ports = {str(port["name"]): int(port["number"]) for port in row.get("ports") or [] if port.get("number")}
    return Endpoint(str(row["type"]), tuple(map(str, row.get("hosts") or [])), ports)


def predict(project: Project, name: str, body: Mapping[str, Any], *, seconds: float | None = None) -> Call[Any]:
    """
    Ask a deployment for predictions, through Hopsworks.

    :param project: the project
    :param name: the deployment's name
    :param body: ``{"instances": [...]}`` or ``{"inputs": ...}``; neither or both is refused here, since a server may
        make up an answer to it
    :param seconds: how long to wait for the answer
    """
    if len({"instances", "inputs"} & set(body)) != 1:
        message = (
            f"A request to deployment {name!r} needs exactly one of the keys 'instances' and 'inputs', got "
            f"{sorted(body)}."
        )
        raise InvalidInput(message)
    return Call(
        f"ask deployment {name!r} for predictions",
        "POST",
        path_of("project", project.id, "inference", "models", f"{check_deployment_name(name)}:predict"),
        _predictions,
        body=dict(body),
        seconds=seconds,
    )


def _predictions(data: Any) -> Any:
    if not isinstance(data, dict):
        message = "expected a JSON object"
        raise TypeError(message)
    return data
