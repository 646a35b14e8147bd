"""
A proxy of one cell, between the provider and the server.

It counts requests, spoils the one it was told to, and sees from the server's own state which changes were carried out.

All proxies run on one event loop in a thread of its own. Each has one port, for the management API and the ingress. It
forwards everything unchanged, except the API key, which is the cell's own, and the port of the ingress in the list of
endpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import socket
import ssl
import struct
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .answers import Request, Response, parsed_request, parsed_response

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from .catalogue import Fault
    from .plot import Plot

_API = "/hopsworks-api/"
_MOST_KEPT = 1 << 16
_HELD_SECONDS = 90.0
_BEAT = 0.1
_LATE = 0.25
_MOST_PATIENCE = 5.0
"""Seconds: how often the lateness of a loop is measured, how late it may be, how long a cell waits for that."""
_IDS = re.compile(r"(?<=/)\d+(?=[/?]|$)")
_HASHES = re.compile(r"[0-9a-f]{12,}|\d{6,}(-[ab][0-9a-f]+)?")


class Loop:
    """An event loop in a thread of its own. It knows how late it is: that is how overloaded the machine is."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self._late = 0.0
        self.late_at = 0.0
        """When it was late last, by ``time.monotonic``."""
        self._gate = threading.Lock()
        self.submit(self._beat())

    async def _beat(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(_BEAT)
            now = time.monotonic()
            self._late = now - begun - _BEAT
            self.late_at = now if self._late > _LATE else self.late_at

    def await_calm(self) -> None:
        """Wait until the machine has time for another cell; one caller after the other, so that each is felt."""
        with self._gate:
            ends = time.monotonic() + _MOST_PATIENCE
            time.sleep(_BEAT)
            while self._late > _LATE and time.monotonic() < ends:
                time.sleep(_BEAT)

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, Any], seconds: float = 30) -> Any:
        return self.submit(work).result(seconds)

    def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.run(_cancel_all(), 5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        if not self._thread.is_alive():
            self.loop.close()


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A request of an operation: the n-th of those that look like it."""

    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.call} #{self.number}"


@dataclass(slots=True)
class Exchange:
    """A request, as the proxy saw it."""

    request: Request
    position: Position
    is_deferred: bool
    """Whether it came after the task was deferred."""
    began: float
    response: Response | None = None
    """The server's; None if it was not asked."""
    effect: str = ""
    """What it changed on the server; empty for nothing."""
    fault: str = ""
    cell_name: str = ""
    """Of the deployment and the model of its cell."""

    def __str__(self) -> str:
        status = self.response.status if self.response else "-"
        return f"{self.position} -> {status} {self.effect} {self.fault and f'[{self.fault}]'}".rstrip()


@dataclass(slots=True)
class Rule:
    """Where a fault happens."""

    fault: Fault
    at: Position
    after: Position | None
    """The request before it; None if it is the first."""
    gap: float = 0.0
    """Seconds between both without a fault."""
    left: float = 0.0
    """How many more requests it spoils."""
    is_met: bool = False


@dataclass(eq=False, slots=True)
class Caller:
    """The connection of a client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_trusted: bool
    """Whether the certificate that it was shown is trusted, or there is none."""

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the client has closed its side."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_HELD_SECONDS):
                while await self.reader.read(1 << 12):
                    pass

    def reset(self) -> None:
        """End the connection as a machine does that knows nothing of it."""
        raw = self.writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(eq=False)
class Proxy:
    """
    A proxy.

    :param plot: what the cell works on
    :param chains: TLS certificates, the second of which is not trusted; none for plain HTTP
    """

    plot: Plot
    rule: Rule | None = None
    chains: Sequence[Path] = ()
    exchanges: list[Exchange] = field(default_factory=list)
    is_deferred: bool = False
    keys: tuple[str, ...] = ()
    """The keys that the server takes at this moment."""
    on_fault: Callable[[str], None] = lambda _what: None
    """Called with the name of a fault in which somebody else acts, in a thread."""
    pretended: Response | None = None
    """The answer to a request that is not carried out."""
    held: threading.Event = field(default_factory=threading.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    trusted_blindly: list[str] = field(default_factory=list)
    """Requests that came although the certificate is not trusted."""
    broken: list[str] = field(default_factory=list)
    """Errors of its own."""

    def __post_init__(self) -> None:
        self.keys = self.keys or (self.plot.key,)
        self._seen: dict[str, int] = {}
        self._last: Position | None = None
        self._callers: set[Caller] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._changing = asyncio.Lock()
        self._chain = 0
        self._contexts = [_context(chain) for chain in self.chains]
        # It holds the port while nothing listens, and refuses connections then.
        self._placeholder = _bound(0)
        self.port: int = self._placeholder.getsockname()[1]

    # --- For its cell

    async def open(self) -> None:
        await self._listen()
        if self.rule is not None and self.rule.after is None:
            await self._arm()

    async def close(self) -> None:
        self.rule = None
        self.release.set()
        self._stop()
        for task in list(self._tasks):
            task.cancel()
        self._placeholder.close()

    async def disarm(self) -> None:
        """End the fault."""
        if self.rule is not None:
            self.rule.left = 0
            self.rule.at = Position("", 0)
            self.rule.after = None
        self.release.set()
        if self._chain:
            self._chain = 0
            self._stop()
        if self._server is None:
            await self._listen()

    def effects(self) -> list[str]:
        return [exchange.effect for exchange in self.exchanges if exchange.effect]

    # --- Listening

    async def _listen(self) -> None:
        listening = _bound(self.port)
        context = self._contexts[self._chain] if self._contexts else None
        # A request may still be read from a connection that was made before the certificate changed.
        serve = functools.partial(self._serve, is_trusted=not self._chain)
        self._server = await asyncio.start_server(serve, sock=listening, ssl=context, limit=1 << 20)

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for caller in list(self._callers):
            caller.writer.close()

    async def _arm(self) -> None:
        """Begin a fault that is there before its request is: the request right before it has been answered."""
        rule = self.rule
        assert rule is not None
        if rule.fault.prepares == "refuse":
            rule.is_met = True
            self._stop()
            self._spawn(self._listen_again(rule.gap + rule.fault.seconds))
        elif rule.fault.prepares == "certificate":
            rule.is_met = True
            self._chain = 1
            self._stop()
            await self._listen()

    async def _listen_again(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self._server is None:
            await self._listen()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_trusted: bool) -> None:
        caller = Caller(reader, writer, is_trusted)
        self._callers.add(caller)
        current = asyncio.current_task()
        assert current is not None
        self._tasks.add(current)
        try:
            while head := await _head(reader):
                length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1])) if length else b""
                if not await self._exchange(parsed_request(head, body), caller):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass
        except Exception:  # noqa: BLE001 - a fault of the proxy itself, for the judge
            self.broken.append(traceback.format_exc())
        finally:
            self._callers.discard(caller)
            self._tasks.discard(current)
            writer.close()

    # --- Exchanges

    async def _exchange(self, request: Request, caller: Caller) -> bool:
        """Answer a request, and return whether the connection can be used for another."""
        call = self._call(request)
        self._seen[call] = number = self._seen.get(call, 0) + 1
        exchange = Exchange(request, Position(call, number), self.is_deferred, time.monotonic())
        if not caller.is_trusted:
            self.trusted_blindly.append(str(exchange.position))
        exchange.cell_name = self.plot.name
        self.exchanges.append(exchange)
        fault = self._due(exchange)
        if fault is None:
            await caller.send((await self.forward(exchange)).encoded())
            goes_on = True
        else:
            exchange.fault = fault.name
            goes_on = await fault.act(self, exchange, caller)
        rule = self.rule
        if rule is not None and rule.after == exchange.position and rule.fault.prepares:
            await self._arm()
        return goes_on

    def _call(self, request: Request) -> str:
        """Name a request, without what differs from one run to the next."""
        path, _, query = request.target.partition("?")
        path = path.removeprefix("/hopsworks-api/api/").replace(self.plot.name, "{name}")
        path = _HASHES.sub("{n}", path.replace(self.plot.project.replace("_", "-"), "{project}"))
        path = _IDS.sub("{id}", path.replace(self.plot.project, "{project}"))
        action = re.search(r"action=\w+", query)
        by_name = "name=" if "name=" in query and path.endswith("/serving") else ""
        more = action[0] if action else by_name
        return f"{request.method} {path}{f'?{more}' if more else ''}"

    def _due(self, exchange: Exchange) -> Fault | None:
        rule = self.rule
        if rule is None or rule.fault.prepares:
            return None
        if rule.at == exchange.position:
            rule.left, rule.is_met = rule.fault.times, True
        if rule.left <= 0:
            return None
        rule.left -= 1
        return rule.fault

    async def forward(self, exchange: Exchange) -> Response:
        """Have the server carry a request out; keep its answer, and what it changed."""
        request = exchange.request
        if not _changes_something(request):
            exchange.response = await self._ask(request)
            return exchange.response
        async with self._changing:
            before = self.plot.stored()
            exchange.response = await self._ask(request)
            exchange.effect = before.effect(self.plot.stored())
        return exchange.response

    async def _ask(self, request: Request) -> Response:
        sent = request.header("authorization").removeprefix("ApiKey ")
        if sent not in self.keys:
            return Response(401, (("content-type", "application/json"),), b'{"errorCode": 320012, "errorMsg": "no"}')
        is_api = request.target.startswith(_API)
        port = self.plot.server.port if is_api else self.plot.server.ingress_port
        forwarded = request.with_headers(authorization=f"ApiKey {self.plot.key}", connection="close")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(forwarded.encoded())
            await writer.drain()
            response = parsed_response(await reader.read())
        finally:
            writer.close()
        if request.target.endswith("/inference/endpoints"):
            named = str(self.plot.server.ingress_port).encode()
            return response.with_body(response.body.replace(named, str(self.port).encode()))
        return response

    def exclusive(self) -> asyncio.Lock:
        """Return the lock of changes: who else changes something holds it, so that its changes are not ours."""
        return self._changing


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _changes_something(request: Request) -> bool:
    is_change = request.method in ("PUT", "POST", "DELETE")
    return is_change and ("/serving" in request.target or "/modelregistries" in request.target)


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _context(chain: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context
