"""
The console: web pages for projects, deployments and models.

The paths are those of Hopsworks' own UI, so that links from Airflow work. No key is needed, since the server listens on
loopback only. Against attacks through a browser, it refuses Host headers other than this machine (a foreign name that
resolves to 127.0.0.1), and forms sent from another site.
"""

from __future__ import annotations

import json
import re
import time
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from airflow_provider_hsml.local.errors import Refusal
from airflow_provider_hsml.local.limits import limited_form
from airflow_provider_hsml.local.logs import logger

from . import chart, pages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from airflow_provider_hsml.local.proxy.inference import Proxy
    from airflow_provider_hsml.local.world.holdings import Holdings
    from airflow_provider_hsml.local.world.world import World

log = logger(__name__)

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_HERE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
_BODY_BYTES = 1 << 20
_PROJECT = "/p/{project:int}"

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader(__name__),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_filters: dict[str, Callable[..., str]] = {"when": pages.when, "number": chart.number, "kind": pages.kind}
_templates.filters |= _filters


def console_routes(world: World, proxy: Proxy) -> list[Route]:
    """
    Return the routes of the console.

    :param world: the state to show
    :param proxy: answers the predictions of its form
    """

    def page(path: str, name: str, read: Callable[..., dict[str, Any]]) -> Route:
        def shown(request: Request) -> Response:
            return _render(name, request, read(world, **request.path_params))

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(shown, request)

        return Route(path, _guarded(endpoint), methods=["GET"])

    async def predict(request: Request) -> Response:
        _check_same_site(request)
        arguments = request.path_params
        context = await run_in_threadpool(lambda: pages.deployment(world, **arguments))
        async with limited_form(request, _BODY_BYTES) as form:
            body = str(form.get("body", ""))
        answer = await _predicted(proxy, world.project(arguments["project"]), context["row"]["name"], body)
        return _render("deployment", request, context | {"body": body, "answer": answer})

    async def style(_request: Request) -> Response:
        text = (files(__name__) / "console.css").read_text()
        return Response(text, media_type="text/css", headers={"cache-control": "max-age=60"})

    async def home(_request: Request) -> Response:
        return RedirectResponse("/p", headers=_HEADERS)

    async def missing(request: Request) -> Response:
        raise pages.NoPageError(f"There is no page {request.url.path}.")

    return [
        Route("/", _guarded(home), methods=["GET"]),
        Route("/p/console.css", _guarded(style), methods=["GET"]),
        page("/p", "projects", pages.projects),
        page(_PROJECT, "project", pages.project),
        page(f"{_PROJECT}/deployments", "project", pages.project),
        page(f"{_PROJECT}/deployments/{{deployment:int}}", "deployment", pages.deployment),
        Route(f"{_PROJECT}/deployments/{{deployment:int}}", _guarded(predict), methods=["POST"]),
        page(f"{_PROJECT}/models", "project", pages.project),
        page(f"{_PROJECT}/models/{{name}}", "model", pages.model),
        page(f"{_PROJECT}/models/{{name}}/{{version:int}}", "version", pages.version),
        Route("/p/{rest:path}", _guarded(missing), methods=["GET"]),
    ]


async def _predicted(proxy: Proxy, holdings: Holdings, name: str, body: str) -> dict[str, Any]:
    """Send a prediction request as a client would, and return the answer for the template."""
    started = time.perf_counter()
    try:
        answer = await proxy.infer(holdings, f"{name}:predict", body.encode())
    except Refusal as refusal:
        status, content, headers = refusal.status, json.dumps(refusal.body()), {}
    else:
        status, content, headers = answer.status, answer.content.decode("utf-8", "replace"), dict(answer.headers)
    milliseconds = (time.perf_counter() - started) * 1000
    return {"status": status, "content": pages.indented(content), "milliseconds": milliseconds, "headers": headers}


def _render(name: str, request: Request, context: dict[str, Any], status: int = 200) -> Response:
    defaults = {"path": request.url.path, "is_moving": False, "body": None, "answer": None}
    return HTMLResponse(_templates.get_template(f"{name}.html").render(defaults | context), status, headers=_HEADERS)


def _guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Wrap an endpoint: answer only for this machine, and turn errors into pages."""

    async def guarded(request: Request) -> Response:
        # The header itself, because `request.url` falls back to our own address if the Host is invalid.
        if _HERE.fullmatch(request.headers.get("host", "")) is None:
            return _render("missing", request, {"message": "This page is for http://127.0.0.1 only."}, 421)
        try:
            return await endpoint(request)
        except ClientDisconnect:
            raise
        except HTTPException as error:
            return _render("missing", request, {"message": error.detail}, error.status_code)
        except pages.NoPageError as error:
            return _render("missing", request, {"message": str(error)}, error.status)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.url.path)
            message = f"This page could not be built ({type(error).__name__}): see the server's log."
            return _render("missing", request, {"message": message}, 500)

    return guarded


def _check_same_site(request: Request) -> None:
    """Refuse a form that another site sent; browsers state the origin in a header."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    is_own = site == "same-origin" or (site is None and urlsplit(origin or "").netloc == request.url.netloc)
    if not is_own:
        raise pages.NoPageError("Only the console's own pages can send this form; programs use the REST API.", 403)
