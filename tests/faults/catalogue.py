"""
The faults, each with its name in the table.

``… x6`` spoils six requests in a row, more than the attempts of a call; ``… on`` each one from its position on, until
the task has ended. ``after`` means that the server has carried the request out. The answer of a model is any JSON in a
2xx, also ``null``: no such answer is a fault of a prediction.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from . import answers
from .answers import Request, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .proxy import Caller, Exchange, Proxy

Act: TypeAlias = "Callable[[Proxy, Exchange, Caller], Awaitable[bool]]"
MANY = 6
_DRIP_SECONDS = 0.25
_PIECE = b" " * (1 << 16)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and the requests that it makes sense at."""

    name: str
    act: Act
    fits: Callable[[Request, Response], bool] = lambda _request, _response: True
    """Whether it can happen at a request that was answered like this without a fault."""
    times: float = 1
    prepares: str = ""
    """What happens right before the request, in place of ``act``: the port refuses, or has another certificate."""
    seconds: float = 0.0
    """How long the port refuses connections."""
    is_client: bool = False
    """Whether it is no fault, but somebody else who acts at that moment."""

    def repeated(self, times: float) -> Fault:
        return replace(self, times=times, name=f"{self.name} {'on' if math.isinf(times) else f'x{times:g}'}")


# --- Connections


async def _nothing(_proxy: Proxy, _exchange: Exchange, _caller: Caller) -> bool:
    return False


async def _reset_before(_proxy: Proxy, _exchange: Exchange, caller: Caller) -> bool:
    caller.reset()
    return False


async def _reset_after(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
    await proxy.forward(exchange)
    caller.reset()
    return False


async def _silent(_proxy: Proxy, _exchange: Exchange, caller: Caller) -> bool:
    await caller.gone()
    return False


async def _silent_after(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
    await proxy.forward(exchange)
    await caller.gone()
    return False


async def _drips(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
    """Send a byte now and then: each read of the client succeeds, and the answer takes for ever."""
    raw = (await proxy.forward(exchange)).encoded()
    for at in range(len(raw)):
        await caller.send(raw[at : at + 1])
        await asyncio.sleep(_DRIP_SECONDS)
    return False


async def _cut(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
    response = await proxy.forward(exchange)
    raw = response.encoded()
    # In the middle of the body; in the middle of the headers where there is none.
    await caller.send(raw[: len(raw) - (len(response.body) + 1) // 2] if response.body else raw[: len(raw) // 2])
    return False


async def _endless(_proxy: Proxy, _exchange: Exchange, caller: Caller) -> bool:
    await caller.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(1024):
        await caller.send(b"%x\r\n%s\r\n" % (len(_PIECE), _PIECE))
    return False


# --- Answers


def _answered(make: Callable[[Request], Response]) -> Act:
    """Answer without asking the server."""

    async def act(_proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
        await caller.send(make(exchange.request).encoded())
        return True

    return act


def _answered_after(make: Callable[[Request], Response]) -> Act:
    """Answer like this although the server has carried the request out."""

    async def act(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
        await proxy.forward(exchange)
        await caller.send(make(exchange.request).encoded())
        return True

    return act


def _changed(change: Callable[[Response], Response | None]) -> Act:
    async def act(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
        response = await proxy.forward(exchange)
        await caller.send((change(response) or response).encoded())
        return True

    return act


async def _pretended(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
    """Answer as if it were carried out."""
    assert proxy.pretended is not None
    await caller.send(proxy.pretended.encoded())
    return True


async def _revoked(_proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
    await caller.send(answers.refusal(exchange.request, 401, 320013, "Api key not found in the database.").encoded())
    return True


async def _rotated(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
    """Take another key from now on; the connection is changed when the task has failed."""
    proxy.keys = (proxy.plot.next_key,)
    return await _revoked(proxy, exchange, caller)


def _page(status: int, title: str, *headers: tuple[str, str]) -> Callable[[Request], Response]:
    return lambda request: answers.as_page(request, status, title, *headers)


def _refused(status: int, code: int | None = None) -> Callable[[Request], Response]:
    """Refuse as Hopsworks does; without a code: with one that fits the kind of request."""

    def make(request: Request) -> Response:
        own = code
        if own is None:
            own = 110026 if "/dataset" in request.target else 360002 if "/models" in request.target else 240003
            own = 130000 if "/jobs" in request.target else own
        return answers.refusal(request, status, own)

    return make


def _not_found(request: Request) -> Response:
    return answers.refusal(request, *answers.not_found_code(request), "There is no such thing")


def _busy(request: Request) -> Response:
    return answers.refusal(request, 500, 240002, "It is Updating: wait before changing it.")


def _redirect(proxy: Proxy) -> Response:
    there = f"http://localhost:{proxy.plot.server.trap.port}/hopsworks-api/api/project"
    return Response(307, (("location", there),))


async def _redirected(proxy: Proxy, _exchange: Exchange, caller: Caller) -> bool:
    await caller.send(_redirect(proxy).encoded())
    return True


def _later() -> str:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


def _slow_down(retry_after: Callable[[], str] | None) -> Callable[[Request], Response]:
    def make(request: Request) -> Response:
        if retry_after is None:  # As Envoy says it.
            return Response(429, (("content-type", "text/plain"),), b"local_rate_limited")
        return answers.as_page(request, 429, "Too many requests", ("retry-after", retry_after()))

    return make


# --- Somebody else


def _somebody(what: str) -> Act:
    """Another client changes the deployment right before the request."""

    async def act(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
        async with proxy.exclusive():
            await asyncio.to_thread(proxy.on_fault, what)
        await caller.send((await proxy.forward(exchange)).encoded())
        return True

    return act


async def _promoter(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
    """Another task with the same wish begins."""
    await asyncio.to_thread(proxy.on_fault, "promoter")
    await caller.send((await proxy.forward(exchange)).encoded())
    return True


async def _zombie(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
    """The worker stands still at its request until its retry has ended, and goes on then."""
    proxy.held.set()
    await proxy.release.wait()
    await caller.send((await proxy.forward(exchange)).encoded())
    return True


# --- What fits where


def _is_change(request: Request, _response: Response) -> bool:
    return request.method != "GET" and not request.target.endswith(":predict")


def _is_no_prediction(request: Request, _response: Response) -> bool:
    return not request.target.endswith(":predict")


def _is_rest(request: Request, _response: Response) -> bool:
    return request.target.startswith("/hopsworks-api/")


def _has_row(request: Request, response: Response) -> bool:
    return answers.other_row(response) is not None and not request.target.endswith(":predict")


def _has_types(request: Request, response: Response) -> bool:
    return answers.wrong_types(response) is not None and not request.target.endswith(":predict")


def _is_of_serving(request: Request, _response: Response) -> bool:
    return "/serving" in request.target


def _codes() -> list[Fault]:
    codes = {400: None, 401: 320012, 403: 150068, 409: 240028, 422: 120001}
    coded = [Fault(f"{status} code", _answered(_refused(status, code)), _is_rest) for status, code in codes.items()]
    bare = [Fault(f"{status} proxy", _answered(_page(status, "Refused"))) for status in (*codes, 404)]
    return [
        *coded,
        *bare,
        Fault("403 scope", _answered(_refused(403, 320004)), _is_rest),
        Fault("404 code", _answered(_not_found), _is_rest),
        Fault("busy code", _answered(_busy), lambda *both: _is_of_serving(*both) and _is_change(*both)),
    ]


def _servers() -> list[Fault]:
    page = {502: "Bad gateway", 503: "Service unavailable", 504: "Gateway timeout"}
    return [
        Fault("500 code", _answered(_refused(500, 120000)), _is_rest),
        *(Fault(f"{status} html", _answered(_page(status, title))) for status, title in page.items()),
        Fault("504 after", _answered_after(_page(504, page[504])), _is_change),
        Fault("500 after", _answered_after(_refused(500, 120000)), _is_change),
        Fault("429 bare", _answered(_slow_down(None))),
        Fault("429 seconds", _answered(_slow_down(lambda: "1"))),
        Fault("429 date", _answered(_slow_down(_later))),
        Fault("429 absurd", _answered(_slow_down(lambda: "9" * 40))),
    ]


def _bodies() -> list[Fault]:
    json_type = (("content-type", "application/json"),)
    texts = {
        "empty 200": Response(200),
        "204": Response(204),
        "deep nesting": Response(200, json_type, b"[" * 200_000),
    }
    return [
        *(Fault(name, _answered(lambda _request, made=made: made)) for name, made in texts.items()),  # type: ignore[misc]
        Fault("null", _answered(lambda _request: Response(200, json_type, b"null")), _is_no_prediction),
        Fault("login page", _answered(_page(200, "Log in"))),
        Fault("endless", _endless),
        Fault("other row", _changed(answers.other_row), _has_row),
        Fault("wrong types", _changed(answers.wrong_types), _has_types),
        Fault("redirect", _redirected),
        Fault("pretended", _pretended, _is_change),
    ]


def _connections() -> list[Fault]:
    return [
        Fault("refused", _nothing, prepares="refuse", seconds=0.7),
        Fault("refused long", _nothing, prepares="refuse", seconds=5.0),
        Fault("reset before", _reset_before),
        Fault("reset after", _reset_after),
        Fault("silent", _silent),
        Fault("silent after", _silent_after, _is_change),
        Fault("drips", _drips),
        Fault("cut", _cut),
        Fault("certificate", _nothing, prepares="certificate"),
        Fault("key revoked", _revoked, times=math.inf),
        Fault("key rotated", _rotated, times=math.inf),
    ]


def _clients() -> list[Fault]:
    """Return those in which somebody acts."""
    return [
        *(
            Fault(f"other {what}", _somebody(what), is_client=True)
            for what in ("scales", "stops", "deploys", "deletes")
        ),
        Fault("two promoters", _promoter, is_client=True),
        Fault("zombie", _zombie, is_client=True),
        Fault("unknown event", _nothing, is_client=True),
    ]


_LONGER = ("reset before", "500 code", "503 html", "502 html", "429 bare", "empty 200", "login page", "cut", "silent")
_LASTING = ("reset before", "503 html", "login page", "403 code")


def _all() -> list[Fault]:
    once = [*_connections(), *_codes(), *_servers(), *_bodies()]
    known = {fault.name: fault for fault in once}
    longer = [known[name].repeated(MANY) for name in _LONGER]
    lasting = [known[name].repeated(math.inf) for name in _LASTING]
    return [*once, *longer, *lasting, *_clients()]


FAULTS: dict[str, Fault] = {fault.name: fault for fault in _all()}
"""All of them, by name, in the order of the table."""
