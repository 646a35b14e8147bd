"""
The route to models that bypasses Hopsworks' REST API and goes straight to the cluster's ingress.

A deployment has an address there by path (from 4.8 on), or by the Host header (before). No endpoint returns which, so
they are tried, the newest first. The ingress responds to an unknown address with an empty 404.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Address
from airflow_provider_hsml.hopsworks.domain.access import is_loopback
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InferenceError,
    InvalidInputError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_hsml.hopsworks.api import Call, Endpoint, Project
    from airflow_provider_hsml.hopsworks.domain.access import Access

T = TypeVar("T")

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


async def find_project(access: Access) -> Project:
    """Find the connection's project, and the ingress if predictions go there."""
    project = await api.get_project(access.project)
    if access.inference_route != "istio":
        return project
    endpoints = [] if access.ingress_url else await api.get_endpoints(project)
    return replace(project, ingress=Ingress.of(access, endpoints))


class Ingress:
    """
    Sends requests to models at the ingress, and caches the address of each deployment.

    :param url: ``scheme://host:port``
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._known: dict[str, Address] = {}

    @classmethod
    def of(cls, access: Access, endpoints: Sequence[Endpoint]) -> Ingress:
        """
        Build the ingress of the connection, or the one that the server names.

        :param endpoints: the endpoints that the server names
        :raises InvalidInputError: the server names none on the connection's host, and the key goes to no other host
        """
        if access.ingress_url is not None:
            return cls(access.ingress_url)
        own = urlsplit(access.url).hostname or ""
        named = [
            (host, scheme, endpoint.ports[scheme.upper()])
            for kind in ("LOAD_BALANCER", "NODE", "KUBE_CLUSTER")
            for endpoint in endpoints
            if endpoint.type == kind
            for scheme in ("https", "http")
            if scheme.upper() in endpoint.ports
            for host in endpoint.hosts
        ]
        for host, scheme, port in named:
            if host.lower() == own and (scheme == "https" or access.allow_http or is_loopback(host)):
                return cls(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        there = ", ".join(f"{scheme}://{host}:{port}" for host, scheme, port in named) or "none"
        message = (
            f"inference_route is 'istio', and the ingress that the server names ({there}) does not get the API key by "
            "itself: it is on another host than the connection's, or would get it over plain http.\nPut its address "
            "into the connection's extra 'ingress_url', or leave 'inference_route' out to go through Hopsworks."
        )
        raise InvalidInputError(message)

    async def predict(
        self,
        project: Project,
        name: str,
        body: Mapping[str, Any] | bytes,
        *,
        seconds: float | None = None,
        request_id: str | None = None,
    ) -> Any:
        """
        Request predictions from a deployment, once at each address that it may have.

        :param seconds: timeout of the response
        :param request_id: the same for a request that is sent again
        :raises NotFoundError: there is no such deployment
        :raises InferenceError: the ingress or the model refused the request
        """
        return await self._ask(
            project,
            name,
            lambda address: api.predict_at(self.url, address, body, seconds=seconds, request_id=request_id),
        )

    async def get(self, project: Project, name: str, path: str, *, seconds: float | None = None) -> dict[str, Any]:
        """
        Read a health route of a deployment, once at each address that it may have.

        :param path: below its address: ``"/health"``
        :param seconds: timeout of the response
        :return: the response if it is a JSON object, else an empty one
        :raises NotFoundError: there is no such deployment
        :raises InferenceError: the ingress or the deployment refused the request
        """
        return await self._ask(project, name, lambda address: api.get_at(self.url, address, path, seconds=seconds))

    async def _ask(self, project: Project, name: str, call: Callable[[Address], Call[T]]) -> T:
        known = self._known.pop(name, None)
        addresses = [known] if known else await self._addresses(project, name)
        for number, address in enumerate(addresses, 1):
            try:
                answer = await call(address)
            except InferenceError as error:
                if not error.not_routed:
                    self._known[name] = address
                elif number < len(addresses):
                    continue
                raise
            except HopsworksError:
                if known:  # A lost request says nothing about the address that has answered before.
                    self._known[name] = known
                raise
            self._known[name] = address
            return answer
        message = (
            f"Deployment {name!r}: the server returns neither its Kubernetes namespace nor the cluster's domain "
            "(kube_knative_domain_name), so its address at the ingress is unknown.\nLeave 'inference_route' out of "
            "the connection to go through Hopsworks."
        )
        raise InvalidInputError(message)

    async def prediction_url(self, project: Project, name: str) -> str:
        """Return the address that answers predictions: the one that has answered, else the first to try."""
        known = self._known.get(name)
        addresses = [known] if known else await self._addresses(project, name)
        return f"{self.url}/{addresses[0].path}" if addresses else self.url

    @staticmethod
    async def _addresses(project: Project, name: str) -> list[Address]:
        """Return the addresses that a deployment may have, those of the newest servers first."""
        deployment = await api.get_deployment(project, name)
        if deployment is None:
            message = f"Deployment {name!r} does not exist in project {project.name!r}."
            raise NotFoundError(message)
        namespace = deployment.raw.get("projectNamespace")
        if namespace and not _HOST_NAME.fullmatch(namespace):
            message = f"get deployment {name!r}: projectNamespace {namespace!r} is no name of a Kubernetes namespace."
            raise UnexpectedResponseError(message, status=200)
        # The namespace since 5.1, the project's name from 4.8 on.
        spaces = dict.fromkeys([namespace, project.name]) if namespace else {}
        found = [Address.by_path(space, name) for space in spaces]
        witness = api.get_deployment(project, name)
        domain = await Routes().read(api.get_variable("kube_knative_domain_name"), witness)
        if domain:
            host = f"{name}.{namespace or project.name.replace('_', '-')}.{domain}".lower()
            if _HOST_NAME.fullmatch(host):
                found.append(Address.by_host(host, name))
        return found
