"""
Hopsworks' proxy for predictions: from the REST API through the ingress to an instance, and back.

The status of an instance never reaches the client: errors become Hopsworks' own codes, with the instance's text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.cluster.engines import Forwarded
from airflow_provider_hsml.local.cluster.states import Status
from airflow_provider_hsml.local.cluster.traffic import UnreachedError
from airflow_provider_hsml.local.errors import Refusal

from .ingress import relayed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.local.cluster.cluster import Cluster
    from airflow_provider_hsml.local.cluster.engines import Answer
    from airflow_provider_hsml.local.world.holdings import Holdings
    from airflow_provider_hsml.local.world.world import World

_TARGET = re.compile(r"(?P<name>[^/:]+)(?:/versions/\d+)?(?::(?P<verb>[a-z]+))?")
_VERBS = ("predict", "classify", "regress", "test")
_DOWN = (Status.CREATING, Status.CREATED, Status.STOPPING, Status.STOPPED)


class Proxy:
    """Forwards predictions to deployments, over a limited number of connections."""

    def __init__(self, world: World) -> None:
        self._world = world
        connections = world.cluster.profile.proxy_connections
        self._connections = asyncio.Semaphore(connections) if connections else contextlib.nullcontext()

    async def infer(self, holdings: Holdings, target: str, body: bytes) -> Answer:
        """
        Answer a prediction.

        :param target: the path after ``inference/models/``: ``digits:predict``
        :param body: JSON with one of ``instances`` and ``inputs``
        :raises Refusal: for any answer but a 2xx of the instance
        """
        match = _TARGET.fullmatch(target)
        if match is None or match["verb"] is None:
            raise Refusal(250005, "Expected inference/models/<deployment>:predict.")
        name, verb = match["name"], match["verb"]
        deployment = holdings.deployments.stored.id_of(name, code=250000)
        config = holdings.deployments.stored.config(deployment)
        is_default = config["servingTool"] == "DEFAULT"
        _check_verb(verb, is_default=is_default)
        _check_has_route(name, config)
        if verb == "predict":
            _check_body(body)
        self._check_is_up(name, deployment)
        ask = _directly if is_default else relayed
        async with self._connections:
            answer = await ask(self._world.cluster, deployment, Forwarded.prediction(name, body, verb))
        return _passed_on(answer)

    def _check_is_up(self, name: str, deployment: int) -> None:
        try:
            state = self._world.cluster.slots.state(deployment)
        except KeyError:  # It was deleted in the meantime.
            raise Refusal(250000, f"Deployment {name} not found.") from None
        if state.status in _DOWN:
            raise Refusal(250001, f"Deployment {name} is {state.status}.")
        if state.status is Status.STARTING and state.condition.type == "SCHEDULED":
            raise Refusal(120000)


async def _directly(cluster: Cluster, deployment: int, request: Forwarded) -> Answer:
    """Send a request to an instance without the ingress, as with the tool DEFAULT."""
    try:
        async with cluster.traffic.instance(deployment) as instance:
            return await instance.ask(request)
    except (UnreachedError, OSError) as error:
        raise Refusal(250002, f"The instance could not be reached: {error}") from error


def _check_verb(verb: str, *, is_default: bool) -> None:
    known = _VERBS if is_default else _VERBS[:1]
    if verb not in known:
        expected = ", ".join(f":{each}" for each in known)
        raise Refusal(250004, f"Verb {verb!r} is not known for this serving tool: expected {expected}.")


def _check_has_route(name: str, config: Mapping[str, Any]) -> None:
    """Refuse deployments that Hopsworks' proxy has no route for."""
    reasons = {
        "it speaks gRPC": config["apiProtocol"] == "GRPC",
        "it has no model": config["modelName"] is None,
        "it runs vLLM": config["modelServer"] == "VLLM",
    }
    if reason := next((reason for reason, holds in reasons.items() if holds), None):
        raise Refusal(250004, f"Deployment {name} cannot be asked through Hopsworks: {reason}. Use the ingress.")


def _check_body(body: bytes) -> None:
    """Refuse a body without rows: a model would get None instead, and answer."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(250004, f"The body is not JSON: {error}.") from None
    given = [key for key in ("instances", "inputs") if isinstance(request, dict) and key in request]
    if len(given) != 1:
        found = " and ".join(given) or "neither"
        raise Refusal(250004, f"Expected a JSON object with one of instances and inputs, got {found}.")


def _passed_on(answer: Answer) -> Answer:
    """Return a 2xx as it is; raise any other answer with one of Hopsworks' codes."""
    if answer.status < 300:
        return answer
    text = answer.content.decode("utf-8", "replace")
    raise Refusal({401: 250010, 403: 250011}.get(answer.status, 250007 if answer.status >= 500 else 250008), text)
