"""
Control over HTTP, below ``/_local``, when the server was started with ``--control``: faults, speeds and the journal.

Each route has a counterpart in process: ``serving.faults``, ``serving.world.cluster.speeds``, ``serving.requests``,
``serving.reset()``. All routes need a key with the scope ADMIN, which the server's own key has.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route

from airflow_provider_hsml.local.cluster.behaviour import Looks, Speeds
from airflow_provider_hsml.local.cluster.faults import document_of, fault_of
from airflow_provider_hsml.local.errors import malformed

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from airflow_provider_hsml.local.world.world import World

    from .journal import Journal

    _Handler = Callable[[Request, Any], Any]

PREFIX = "/_local"
_PACED_BY_LOOKS = ("creating", "starting", "stale", "updating", "stopping")


def control_routes(world: World, journal: Journal) -> list[Route]:
    """Build the routes."""

    def route(method: str, path: str, handler: _Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            world.accounts.check(request.headers.get("authorization", ""), ("ADMIN",))
            body = await request.body()
            answer = await run_in_threadpool(handler, request, _object(body) if body else {})
            return Response(json.dumps(answer), 201 if method == "POST" else 200, media_type="application/json")

        return Route(f"{PREFIX}{path}", endpoint, methods=[method])

    return [route(*row) for row in (*_of_faults(world), *_of_time(world), *_of_requests(world, journal))]


def _of_faults(world: World) -> list[tuple[str, str, _Handler]]:
    def show(_request: Request, _body: Any) -> Any:
        return {"faults": [document_of(number, fault) for number, fault in world.faults.active().items()]}

    def add(_request: Request, body: Any) -> Any:
        try:
            fault = fault_of(body)
        except ValueError as error:
            raise malformed(str(error)) from None
        return document_of(world.faults.add(fault), fault)

    def remove(request: Request, body: Any) -> Any:
        world.faults.remove(request.path_params["fault"])
        return show(request, body)

    def clear(request: Request, body: Any) -> Any:
        world.faults.clear()
        return show(request, body)

    return [
        ("GET", "/faults", show),
        ("POST", "/faults", add),
        ("DELETE", "/faults", clear),
        ("DELETE", "/faults/{fault:int}", remove),
    ]


def _of_time(world: World) -> list[tuple[str, str, _Handler]]:
    def show(_request: Request, _body: Any) -> Any:
        return _speeds_on_the_wire(world.cluster.speeds)

    def change(request: Request, body: Any) -> Any:
        world.cluster.speeds = _speeds_of(body, world.cluster.speeds)
        return show(request, body)

    return [("GET", "/speeds", show), ("PUT", "/speeds", change)]


def _of_requests(world: World, journal: Journal) -> list[tuple[str, str, _Handler]]:
    def show(request: Request, _body: Any) -> Any:
        asked = journal.where(request.query_params.get("method"), request.query_params.get("path", ""))
        return {"requests": [one.document() for one in asked]}

    def clear(request: Request, body: Any) -> Any:
        journal.clear()
        return show(request, body)

    def reset(request: Request, body: Any) -> Any:
        world.reset(everything=request.query_params.get("everything", "").lower() == "true")
        return clear(request, body)

    return [("GET", "/requests", show), ("DELETE", "/requests", clear), ("POST", "/reset", reset)]


def _object(body: bytes) -> Any:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise malformed(f"The body is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise malformed("The body is not a JSON object.")
    return document


def _speeds_on_the_wire(speeds: Speeds) -> dict[str, Any]:
    paces = {field.name: getattr(speeds, field.name) for field in dataclasses.fields(speeds)}
    return {name: {"looks": pace.number} if isinstance(pace, Looks) else pace for name, pace in paces.items()}


def _speeds_of(body: dict[str, Any], now: Speeds) -> Speeds:
    """Parse new speeds: single ones, and ``every`` for all transitions at once."""
    known = [field.name for field in dataclasses.fields(now)]
    if unknown := sorted(set(body) - {*known, "every"}):
        raise malformed(f"{unknown[0]!r} is not a speed: expected some of every, {', '.join(known)}.")
    every = dict.fromkeys(_PACED_BY_LOOKS, body["every"]) if "every" in body else {}
    given = every | {name: pace for name, pace in body.items() if name != "every"}
    return dataclasses.replace(now, **{name: _pace(name, pace) for name, pace in given.items()})


def _pace(name: str, pace: Any) -> Any:
    if isinstance(pace, dict) and list(pace) == ["looks"] and name in _PACED_BY_LOOKS and _is_number(pace["looks"]):
        return Looks(pace["looks"])
    if _is_number(pace):
        return float(pace)
    looks = ', or {"looks": number}' if name in _PACED_BY_LOOKS else ""
    raise malformed(f"{name} {json.dumps(pace)[:100]}: expected seconds from 0 to a day{looks}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 86_400
