"""
Hopsworks' proxy for predictions: from the REST API through the ingress to an instance, and back.

No status of the other side survives it: what comes back is one of Hopsworks' codes, with the other side's text.
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
    from airflow_provider_hsml.local.world.world import Holdings, World

_TARGET = re.compile(r"(?P<name>[^/:]+)(?:/versions/\d+)?(?::(?P<verb>[a-z]+))?")
_VERBS = ("predict", "classify", "regress", "test")
_DOWN = (Status.CREATING, Status.CREATED, Status.STOPPING, Status.STOPPED)


class Proxy:
    """
    Answers predictions, over the few connections that it has.

    :param world: whose deployments it asks
    """

    def __init__(self, world: World) -> None:
        self._world = world
        connections = world.cluster.profile.proxy_connections
        self._connections = asyncio.Semaphore(connections) if connections else contextlib.nullcontext()

    async def infer(self, holdings: Holdings, target: str, body: bytes) -> Answer:
        """
        Answer a prediction.

        :param holdings: the project's
        :param target: what comes after ``inference/models/``: ``digits:predict``
        :param body: JSON with one of ``instances`` and ``inputs``
        :raises Refusal: everything but a 2xx of the instance
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
        except KeyError:  # Deleted meanwhile.
            raise Refusal(250000, f"Deployment {name} not found.") from None
        if state.status in _DOWN:
            raise Refusal(250001, f"Deployment {name} is {state.status}.")
        if state.status is Status.STARTING and state.condition.type == "SCHEDULED":
            raise Refusal(120000)


async def _directly(cluster: Cluster, deployment: int, request: Forwarded) -> Answer:
    """Ask without the ingress, as with the tool DEFAULT."""
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
    """Refuse what Hopsworks' proxy has no route for."""
    reasons = {
        "it speaks gRPC": config["apiProtocol"] == "GRPC",
        "it has no model": config["modelName"] is None,
        "it runs vLLM": config["modelServer"] == "VLLM",
    }
    if reason := next((reason for reason, holds in reasons.items() if holds), None):
        raise Refusal(250004, f"Deployment {name} cannot be asked through Hopsworks: {reason}. Use the ingress.")


def _check_body(body: bytes) -> None:
    """Refuse what a model would take for something else: without ``instances`` it would get None, and answer."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(250004, f"The body is not JSON: {error}.") from None
    given = [key for key in ("instances", "inputs") if isinstance(request, dict) and key in request]
    if len(given) != 1:
        what = " and ".join(given) or "neither"
        raise Refusal(250004, f"Expected a JSON object with one of instances and inputs, got {what}.")


def _passed_on(answer: Answer) -> Answer:
    """Give a 2xx, and say anything else in Hopsworks' codes."""
    if answer.status < 300:
        return answer
    text = answer.content.decode("utf-8", "replace")
    raise Refusal({401: 250010, 403: 250011}.get(answer.status, 250007 if answer.status >= 500 else 250008), text)
