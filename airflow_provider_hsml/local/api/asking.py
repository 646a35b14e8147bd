"""What every handler has to do with: a request that is in order, an answer, and a row of a table of routes."""

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
    from airflow_provider_hsml.local.world.world import Holdings, World

PREFIX = "/hopsworks-api/api"
PROJECT = "/project/{project:int}"
"""The path of what belongs to a project, below ``PREFIX``."""


class ApiRoute(NamedTuple):
    """
    One row of a table of routes.

    :param method: GET, POST, PUT, ...
    :param path: below ``PREFIX``, as Starlette writes it; with ``{project}`` the project is checked as well
    :param scopes: of which the API key needs one; empty: no key is needed
    :param handler: a plain function runs in a thread; a coroutine function runs in the event loop, and reads the body
        by itself
    :param takes_token: whether a session's token is looked at at all; where not, 400/250009 says so
    :param for_owners: whether only a Data owner of the project may ask
    :param since: the line of Hopsworks that brought it; earlier ones do not know the path
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
    """A request whose key and project are in order. ``body`` is there for handlers that run in a thread."""

    request: Request
    world: World
    proxy: Proxy
    body: bytes = b""

    @property
    def holdings(self) -> Holdings:
        """What the project in the path has."""
        return self.world.project(self.request.path_params["project"])

    def param(self, name: str) -> Any:
        """Give a part of the path."""
        return self.request.path_params[name]

    def query(self, name: str, default: str | None = None) -> str | None:
        """Give a query parameter."""
        return self.request.query_params.get(name, default)

    def number(self, name: str, default: int) -> int:
        """Read a query parameter that is a number."""
        text = self.query(name)
        if text is None:
            return default
        try:
            return int(text)
        except ValueError:
            raise malformed(f"{name}={text!r} is not a number.") from None

    def text(self) -> str:
        """Read the body as a text."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise malformed(f"The body is not UTF-8: {error}.") from None

    def listed(self, items: list[Any]) -> Any:
        """Give a list of what is served as the line has it: bare, or counted."""
        if not self.world.line.counts_lists:
            return items
        return {"count": len(items)} | ({"items": items} if items else {})

    def json_object(self) -> dict[str, Any]:
        """Read the body as a JSON object."""
        body = read_json(self.body)
        if not isinstance(body, dict):
            raise malformed("The body is not a JSON object.")
        return body


def read_json(body: bytes) -> Any:
    """Read JSON, and refuse what cannot be written down again: text with half a surrogate pair."""
    try:
        content = json.loads(body)
        json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise malformed("The body is nested too deeply.") from None
    except ValueError as error:
        raise malformed(f"The body is not JSON: {error}.") from None
    return content


def json_answer(content: Any, status: int = 200) -> Response:
    """Make an answer of JSON."""
    # json.dumps and not JSONResponse: a metric that is NaN travels as Hopsworks' own JSON has it.
    return Response(json.dumps(content), status, media_type="application/json")
