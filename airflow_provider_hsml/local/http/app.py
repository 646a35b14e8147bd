"""
HTTP: Hopsworks' REST API on top of the world.

``api`` has the handlers, and the tables of all routes with the API key scopes that each needs. Any other request gets a
501 that names the missing route.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_provider_hsml.local.api import feature_store, files, inference, jobs, models, projects, sdk, serving
from airflow_provider_hsml.local.api.asking import PREFIX, ApiRoute, Asking, json_answer
from airflow_provider_hsml.local.console import console_routes
from airflow_provider_hsml.local.errors import Refusal, malformed
from airflow_provider_hsml.local.limits import too_long
from airflow_provider_hsml.local.logs import logger
from airflow_provider_hsml.local.proxy.inference import Proxy
from airflow_provider_hsml.local.world.accounts import OWNER
from airflow_provider_hsml.local.world.disk import refusal_of

from .control import control_routes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_hsml.local.world.world import World

    from .journal import Journal

log = logger(__name__)

_FLAGGED = frozenset({"SERVING", "MODELREGISTRY"})
"""The scopes whose routes need a feature flag of the cluster."""
# Predictions first: they are the most frequent, and routes are compared one after the other.
_ROUTES = [
    *(*inference.ROUTES, *serving.ROUTES, *models.ROUTES, *files.ROUTES),
    *(*projects.ROUTES, *feature_store.ROUTES, *jobs.ROUTES, *sdk.ROUTES),
]


def make_app(world: World, controlled: Journal | None = None) -> Starlette:
    """
    Build the application.

    :param controlled: the journal, for control over HTTP; None: no control over HTTP
    """
    proxy = Proxy(world)

    def route(row: ApiRoute) -> Route:
        handler: Any = row.handler
        is_async = inspect.iscoroutinefunction(handler)

        async def endpoint(request: Request) -> Response:
            authorization = request.headers.get("authorization", "")
            if not row.takes_token and authorization.startswith("Bearer "):
                raise Refusal(250009, "Deployments are asked with an API key, not with a token.")
            if row.scopes:
                world.accounts.check(authorization, row.scopes)
            if row.since > world.line.number:
                return json_answer(Refusal(120004).body(), 404)
            if not _FLAGGED.isdisjoint(row.scopes) and not world.administration.is_on("enable_data_science_profile"):
                raise Refusal(120012, "The feature flag enable_data_science_profile is not on.")
            if "project" in request.path_params:
                world.accounts.by_id(request.path_params["project"])
            if row.for_owners and world.accounts.role(authorization) != OWNER:
                raise Refusal(150068, f"{row.method} needs the role {OWNER}.")
            if is_async:
                answer: Response = await handler(Asking(request, world, proxy))
                return answer
            return await run_in_threadpool(handler, Asking(request, world, proxy, await request.body()))

        return Route(f"{PREFIX}{row.path}", _guarded(endpoint), methods=[row.method], name=f"{row.method} {row.path}")

    app = Starlette(
        routes=[
            *(route(row) for row in _ROUTES),
            *console_routes(world, proxy),
            *(control_routes(world, controlled) if controlled is not None else ()),
        ],
        exception_handlers={
            Refusal: _refused,
            HTTPException: _not_here,
            ClientDisconnect: _gone,
        },
    )
    app.router.redirect_slashes = False  # A path with one more slash is another path: no redirects.
    return app


def _guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Answer 500 to unexpected exceptions. Starlette's own handler raises them again, which closes the connection."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (Refusal, HTTPException, ClientDisconnect):
            raise
        except Exception as error:
            if (refusal := refusal_of(error)) is not None:
                raise refusal from error
            log.exception("%s %s failed", request.method, request.url.path)
            return json_answer(Refusal(120000, f"{type(error).__name__}: see the server's log.").body(), 500)

    return guarded


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 - Starlette looks it up by its class
    log.info("%s %s: %s %s", request.method, request.url.path, error.status, error)
    answer = json_answer(error.body(), error.status)
    if error.status == 401:
        answer.headers["WWW-Authenticate"] = "ApiKey"
    return answer


def _not_here(request: Request, error: Exception) -> Response:
    """Answer 501 to a missing route, with a warning, so that it is not mistaken for Hopsworks' own 404."""
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette looks it up by its class
    asked = f"{request.method} {request.url.path}"
    if error.status_code == 413:
        return json_answer(too_long(error.detail), 413)
    if error.status_code not in (404, 405):
        return json_answer(malformed(f"{asked}: {error.detail}").body(), 422)
    log.warning("%s is not built into the local Model Serving", asked)
    text = (
        f"{asked} is not built into the local Model Serving.\n"
        "The page 'What the local server does differently' of the documentation lists its limits."
    )
    return json_answer({"errorCode": 120004, "errorMsg": "Not implemented", "usrMsg": text}, 501)


def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)
