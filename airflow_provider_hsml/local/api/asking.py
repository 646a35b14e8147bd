"""The parts that all handlers share: a checked request, a response, and a row of a table of routes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.responses import Response

from airflow_provider_hsml.local.errors import malformed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from airflow_provider_hsml.local.proxy.inference import Proxy
    from airflow_provider_hsml.local.world.holdings import Holdings
    from airflow_provider_hsml.local.world.world import World

PREFIX = "/hopsworks-api/api"
PROJECT = "/project/{project:int}"
"""The path of a project, below ``PREFIX``."""


class ApiRoute(NamedTuple):
    """
    One row of a table of routes.

    :param path: below ``PREFIX``, in Starlette's syntax; with ``{project}`` the project is checked as well
    :param scopes: the API key needs one of them; empty if no key is needed
    :param handler: a plain function runs in a thread; a coroutine function runs in the event loop, and reads the body
        itself
    :param takes_token: whether a session token is accepted; if not, it is refused with 400/250009
    :param for_owners: whether only a Data owner of the project is allowed
    :param since: the line of Hopsworks that introduced the route; in earlier lines it does not exist
    """

    method: str
    path: str
    scopes: tuple[str, ...]
    handler: Callable[[Asking], Response] | Callable[[Asking], Awaitable[Response]]
    takes_token: bool = True
    for_owners: bool = False
    since: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Asking:
    """A request whose key and project have been checked. ``body`` is set for handlers that run in a thread."""

    request: Request
    world: World
    proxy: Proxy
    body: bytes = b""

    @property
    def holdings(self) -> Holdings:
        """The files, models and deployments of the project in the path."""
        return self.world.project(self.request.path_params["project"])

    def param(self, name: str) -> Any:
        """Return a path parameter."""
        return self.request.path_params[name]

    def query(self, name: str, default: str | None = None) -> str | None:
        """Return a query parameter."""
        return self.request.query_params.get(name, default)

    def number(self, name: str, default: int) -> int:
        """Return a query parameter as a number."""
        text = self.query(name)
        if text is None:
            return default
        try:
            return int(text)
        except ValueError:
            raise malformed(f"{name}={text!r} is not a number.") from None

    def text(self) -> str:
        """Return the body as text."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise malformed(f"The body is not UTF-8: {error}.") from None

    def listed(self, items: list[Any]) -> Any:
        """Return a list in the format of the line: bare, or with a count."""
        if not self.world.line.counts_lists:
            return items
        return {"count": len(items)} | ({"items": items} if items else {})

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object."""
        body = read_json(self.body)
        if not isinstance(body, dict):
            raise malformed("The body is not a JSON object.")
        return body


def read_json(body: bytes) -> Any:
    """Parse JSON, and refuse text that cannot be encoded again: half a surrogate pair."""
    try:
        content = json.loads(body)
        json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise malformed("The body is nested too deeply.") from None
    except ValueError as error:
        raise malformed(f"The body is not JSON: {error}.") from None
    return content


def json_answer(content: Any, status: int = 200) -> Response:
    """Build a JSON response."""
    # json.dumps instead of JSONResponse, which refuses NaN: Hopsworks sends a metric that is NaN as NaN.
    return Response(json.dumps(content), status, media_type="application/json")
