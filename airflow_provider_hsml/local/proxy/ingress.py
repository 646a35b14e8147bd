"""
The ingress: Istio in front of the instances, with Knative's activator behind it.

``relayed`` answers a request for a deployment; Hopsworks' proxy (``inference``) uses it as well. ``Ingress`` is the
listener for clients that call the ingress directly. It recognizes a deployment by the path
``/v1/<namespace>/<deployment>/`` (from 4.8 on) or by the Host header (KServe's own way, on every line). It forwards the
rest of the request unchanged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from airflow_provider_hsml.local.cluster.engines import CONNECTION_HEADERS, Answer, Forwarded
from airflow_provider_hsml.local.cluster.traffic import CUT_OFF, UnreachedError
from airflow_provider_hsml.local.errors import Refusal
from airflow_provider_hsml.local.logs import logger

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from airflow_provider_hsml.local.cluster.cluster import Cluster
    from airflow_provider_hsml.local.world.world import World

log = logger(__name__)

_PATH = re.compile(r"/v1/(?P<namespace>[^/]+)/(?P<name>[^/]+)(?P<rest>/.*)?")
_NOT_GRPC = "upstream connect error or disconnect/reset before headers. reset reason: protocol error"
_NOT_PASSED_ON = CONNECTION_HEADERS | {"authorization"}
"""The API key is for the ingress only: a model may print its headers."""


async def relayed(cluster: Cluster, deployment: int, request: Forwarded) -> Answer:
    """Forward a request to a deployment, and return its answer, or Envoy's where no instance is reached."""
    if not cluster.traffic.is_routed(deployment):
        return _envoy(404)  # Empty: a 404 with a body comes from an instance.
    try:
        async with cluster.traffic.instance(deployment) as instance:
            return await instance.ask(request)
    except UnreachedError as error:
        return _envoy(error.status, error.text)
    except TimeoutError:
        return _envoy(504, "upstream request timeout")
    except ConnectionError:
        return _envoy(503, CUT_OFF)


def _envoy(status: int, text: str = "") -> Answer:
    return Answer(status, text.encode(), {"content-type": "text/plain"} if text else {})


class Ingress:
    """The ingress's listener, an ASGI application."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except ClientDisconnect:
            return
        except HTTPException as error:
            answer = _envoy(error.status_code, error.detail)
        except Exception:
            log.exception("%s %s at the ingress failed", request.method, request.url.path)
            answer = Answer(500, b"")
        response = Response(answer.content, answer.status, {**answer.headers, "server": "istio-envoy"})
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Answer:
        try:
            self._world.accounts.check(request.headers.get("authorization", ""), ("SERVING",))
            target = (self._by_path(request) if self._world.ingress_by_path else None) or self._by_host(request)
        except Refusal as refusal:
            return {401: _envoy(401), 403: _envoy(403, "RBAC: access denied")}.get(refusal.status, _envoy(404))
        except UnreachedError as error:
            return _envoy(error.status, error.text)
        if target is None:
            return _envoy(404)
        deployment, path = target
        query = request.scope["query_string"].decode("latin-1")
        named = {name.strip().lower() for name in request.headers.get("connection", "").split(",")}
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_PASSED_ON | named}
        body = await request.body()
        forwarded = Forwarded(request.method, f"{path}?{query}" if query else path, headers, body)
        return await relayed(self._world.cluster, deployment, forwarded)

    def _by_path(self, request: Request) -> tuple[int, str] | None:
        """Return (deployment, rest of the path) for ``/v1/<namespace>/<deployment>/...``, or None."""
        match = _PATH.fullmatch(request.scope["raw_path"].decode("latin-1"))
        if match is None:
            return None
        deployment = self._find(unquote(match["namespace"]), unquote(match["name"]))
        return None if deployment is None else (deployment, match["rest"] or "/")

    def _by_host(self, request: Request) -> tuple[int, str] | None:
        """Return (deployment, whole path) for the Host ``<deployment>.<namespace>.<domain>`` in lower case, or None."""
        host = request.headers.get("host", "").partition(":")[0].lower()
        name, _, rest = host.partition(".")
        namespace, _, domain = rest.partition(".")
        if domain != self._world.administration.variables["kube_knative_domain_name"]:
            return None
        deployment = self._find(namespace, name, any_case=True)
        return None if deployment is None else (deployment, request.scope["raw_path"].decode("latin-1"))

    def _find(self, namespace: str, name: str, *, any_case: bool = False) -> int | None:
        """
        Return the id of a deployment behind the ingress, or None.

        :raises Refusal: the user has no role in the project
        :raises UnreachedError: its instances answer gRPC only
        """
        project = next((p for p in self._world.accounts.projects if p.namespace == namespace), None)
        if project is None:
            return None
        deployments = self._world.project(project.id).deployments
        deployment = deployments.stored.id_of(name, any_case=any_case)
        config = deployments.stored.config(deployment)
        if config["apiProtocol"] == "GRPC":
            raise UnreachedError(503, _NOT_GRPC)
        # Deployments of the tool DEFAULT do not use Istio.
        return deployment if config["servingTool"] == "KSERVE" else None
