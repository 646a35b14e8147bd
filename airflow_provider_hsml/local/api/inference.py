"""Predictions, and the list of inference endpoints."""

from __future__ import annotations

from starlette.responses import Response

from airflow_provider_hsml.local.cluster.engines import INSTANCE_HEADER, VERSION_HEADER

from .asking import PROJECT, ApiRoute, Asking, json_answer

_PASSED_ON = ("content-type", VERSION_HEADER, INSTANCE_HEADER)
"""The response headers that the proxy passes on."""


def _endpoints(asking: Asking) -> Response:
    ports = [{"name": "HTTP", "number": asking.world.ingress_port}]
    types = asking.world.line.endpoint_types
    return json_answer(asking.listed([{"type": kind, "hosts": ["127.0.0.1"], "ports": ports} for kind in types]))


async def _infer(asking: Asking) -> Response:
    answer = await asking.proxy.infer(asking.holdings, asking.param("target"), await asking.request.body())
    headers = {name: value for name, value in answer.headers.items() if name in _PASSED_ON}
    return Response(answer.content, answer.status, headers)


ROUTES = [
    ApiRoute("GET", f"{PROJECT}/inference/endpoints", ("SERVING",), _endpoints),
    ApiRoute("POST", f"{PROJECT}/inference/models/{{target:path}}", ("SERVING",), _infer, takes_token=False),
]
