"""Endpoints for predictions, through Hopsworks or at the ingress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import wire
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.domain.verification import check_path
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InferenceError, InvalidInputError
from airflow_provider_hsml.hopsworks.untrusted_text import beginning

from .call import MOST_READ, Call, encoded, error_of, is_html, path_of, rows_of
from .response import ResponseKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.project import Project

    from .call import Answer


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address at which the cluster accepts requests to models."""

    type: str
    """LOAD_BALANCER, NODE or KUBE_CLUSTER."""
    hosts: tuple[str, ...]
    ports: Mapping[str, int]
    """Ports by name: HTTP, HTTPS and so on."""


def get_endpoints(project: Project) -> Call[list[Endpoint]]:
    """List the addresses that accept requests to models."""
    return Call(
        "list the inference endpoints",
        "GET",
        path_of("project", project.id, "inference", "endpoints"),
        lambda data: [_endpoint(row) for row in rows_of(data)],
        repeatable=True,
    )


def _endpoint(data: Any) -> Endpoint:
    row = wire.resource(data, {"type": str}, {"hosts": [str], "ports": [{"name": str, "number": int}]})
    ports = {port["name"]: port["number"] for port in row.get("ports") or [] if port.get("name") and port.get("number")}
    if not all(1 <= number < 1 << 16 for number in ports.values()):
        message = "ports.number is no port"
        raise wire.FormError(message)
    return Endpoint(row["type"], tuple(row.get("hosts") or []), ports)


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a deployment at the ingress."""

    base: str
    """Percent-encoded path below the ingress; empty where the Host header selects the deployment."""
    name: str
    """The deployment's name."""
    host: str | None = None
    """The Host header that selects the deployment, on servers before 4.8."""

    @classmethod
    def by_path(cls, space: str, name: str) -> Address:
        """
        Build the address on newer servers.

        :param space: the project's Kubernetes namespace, or its name
        """
        return cls(encoded("v1", space, name), name)

    @classmethod
    def by_host(cls, host: str, name: str) -> Address:
        """
        Build the address on older servers.

        :param host: the Host header
        """
        return cls("", name, host)

    @property
    def path(self) -> str:
        """The path for predictions, below the ingress."""
        return self.below(f"/{encoded('v1', 'models', f'{self.name}:predict')}")

    def below(self, path: str) -> str:
        """
        Return the path of one of the deployment's own routes, below the ingress.

        :param path: a result of ``check_path``
        """
        return f"{self.base}{path}".removeprefix("/")


def predict(project: Project, name: str, body: Mapping[str, Any] | bytes, *, seconds: float | None = None) -> Call[Any]:
    """
    Request predictions from a deployment, through Hopsworks.

    :param body: ``{"instances": [...]}`` or ``{"inputs": ...}``; neither or both is refused here, since a server may
        invent predictions for it. Bytes are such a body as JSON, and are sent as they are
    :param seconds: timeout of the response
    """
    check_deployment_name(name)
    return Call(
        f"ask deployment {name!r} for predictions",
        "POST",
        path_of("project", project.id, "inference", "models", f"{name}:predict"),
        wire.load,  # Any JSON is an answer: the model decides.
        raw=True,
        body=_checked(name, body),
        seconds=seconds,
        kind=ResponseKind.PREDICTION,
        asks_deployment=True,
    )


def predict_at(
    url: str,
    address: Address,
    body: Mapping[str, Any] | bytes,
    *,
    seconds: float | None = None,
    request_id: str | None = None,
) -> Call[Any]:
    """
    Request predictions from a deployment, at the ingress.

    :param url: the ingress: ``scheme://host:port``
    :param address: the deployment's address at the ingress
    :param body: as for ``predict``
    :param seconds: timeout of the response
    :param request_id: the same for a request that is sent again, by which logged rows are recognized
    """
    return Call(
        f"ask deployment {address.name!r} for predictions at the ingress",
        "POST",
        address.path,
        wire.load,
        raw=True,
        body=_checked(address.name, body),
        seconds=seconds,
        kind=ResponseKind.PREDICTION,
        asks_deployment=True,
        base=url,
        host=address.host,
        request_id=request_id,
        error=_refused_at_ingress,
    )


def get_at(url: str, address: Address, path: str, *, seconds: float | None = None) -> Call[dict[str, Any]]:
    """
    Read a health route of a deployment, at the ingress.

    :param url: the ingress: ``scheme://host:port``
    :param address: the deployment's address at the ingress
    :param path: below the deployment's address: ``"/health"``
    :param seconds: timeout of the response
    :return: the response if it is a JSON object, else an empty one
    """
    return Call(
        f"ask deployment {address.name!r} for {path} at the ingress",
        "GET",
        address.below(check_path(path)),
        _object_or_nothing,
        raw=True,
        seconds=seconds,
        asks_deployment=True,
        base=url,
        host=address.host,
        error=_refused_at_ingress,
    )


def _object_or_nothing(content: bytes) -> dict[str, Any]:
    try:
        data = wire.load(content)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _checked(name: str, body: Mapping[str, Any] | bytes) -> dict[str, Any] | bytes:
    if isinstance(body, bytes):
        return body
    if len({"instances", "inputs"} & set(body)) != 1:
        message = (
            f"A request to deployment {name!r} needs exactly one of the keys 'instances' and 'inputs', got "
            f"{sorted(body)}."
        )
        raise InvalidInputError(message)
    return dict(body)


def _refused_at_ingress(what: str, answer: Answer) -> HopsworksError:
    # Envoy answers plain text: a page is a proxy's, and says nothing about the model. But a script's own server may
    # answer a page when the script fails.
    if 300 <= answer.status < 400 or (is_html(answer) and answer.status != 500):
        return error_of(what, answer)
    text = beginning(answer.content[:MOST_READ].decode("utf-8", "replace"), 2000).strip()
    return InferenceError(what, status=answer.status, text=text, retry_after=answer.retry_after)
