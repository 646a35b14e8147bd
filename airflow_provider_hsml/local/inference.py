"""
The way of a prediction through Hopsworks: from the REST API to the instance that answers, and back.

No status of the other side survives it: what the instance answers comes out as one of Hopsworks' codes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from .engines import Forwarded
from .errors import Refusal

if TYPE_CHECKING:
    from .engines import Answer
    from .world import Holdings, World

_TARGET = re.compile(r"(?P<name>[^/:]+)(?:/versions/\d+)?(?::(?P<verb>[a-z]+))?")


async def infer(world: World, holdings: Holdings, target: str, body: bytes) -> Answer:
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
    deployment = holdings.deployments.id_of(match["name"], code=250000)
    if match["verb"] != "predict":
        raise Refusal(250004, f"Verb {match['verb']!r} is not known: with KServe there is only :predict.")
    _check_body(body)
    try:
        answer = await _answered(world, deployment, Forwarded.prediction(match["name"], body))
    except ConnectionError as error:
        raise Refusal(250002, f"The instance of {match['name']} could not be reached: {error}") from error
    if answer.status < 300:
        return answer
    text = answer.content.decode("utf-8", "replace")
    raise Refusal({401: 250010, 403: 250011}.get(answer.status, 250007 if answer.status >= 500 else 250008), text)


async def _answered(world: World, deployment: int, request: Forwarded) -> Answer:
    taken = world.cluster.asked(deployment)
    # Waking takes seconds: not in the event loop.
    is_asleep = world.cluster.is_asleep(deployment)
    instance = await run_in_threadpool(taken.__enter__) if is_asleep else taken.__enter__()
    try:
        return await instance.ask(request)
    finally:
        taken.__exit__(None, None, None)


def _check_body(body: bytes) -> None:
    """Refuse what a model would take for something else: without ``instances`` it would get None, and answer."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise Refusal(250004, f"The body is not JSON: {error}.") from None
    given = [key for key in ("instances", "inputs") if isinstance(request, dict) and key in request]
    if len(given) != 1:
        what = " and ".join(given) or "neither"
        raise Refusal(250004, f"Expected a JSON object with one of instances and inputs, got {what}.")
