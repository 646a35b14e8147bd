"""Faults of requests: invented, late, truncated or missing answers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from airflow_provider_hsml.local.cluster.faults import Faults, RequestFault

_ADDRESS = tuple[str, int]


class Connections:
    """The open connections of a server by client address: ASGI itself cannot close a connection."""

    def __init__(self) -> None:
        self._transports: dict[_ADDRESS, asyncio.Transport] = {}

    def protocol(self) -> type[asyncio.Protocol]:
        """Return the class for ``uvicorn.Config(http=...)``."""
        transports = self._transports

        class TrackingProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
            def connection_made(self, transport: asyncio.Transport) -> None:
                self.client_address: _ADDRESS = transport.get_extra_info("peername")[:2]
                transports[self.client_address] = transport
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                transports.pop(self.client_address, None)
                super().connection_lost(exc)

        return TrackingProtocol

    def abort(self, client: _ADDRESS) -> None:
        """Close a connection at once, without sending buffered data."""
        transport = self._transports.get(client)
        if transport is not None:
            transport.abort()


class FaultMiddleware:
    """
    Applies faults to requests.

    :param app: answers the requests
    :param connections: the connections of the server that runs this middleware
    :param prefix: left out of the paths that faults match
    """

    def __init__(self, app: ASGIApp, faults: Faults, connections: Connections, prefix: str) -> None:
        self._app = app
        self._faults = faults
        self._connections = connections
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or apply a fault to it."""
        may_fail = scope["type"] == "http" and not scope["path"].startswith("/_local/")
        fault = self._fault(scope) if may_fail else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        await asyncio.sleep(fault.delay)
        if fault.status is not None:
            await _read(receive)
            await _answer(send, fault)
        elif fault.drop == "before":
            await _read(receive)
            await self._drop(scope, receive)
        elif fault.drop == "after":
            await self._app(scope, receive, _nowhere)
            await self._drop(scope, receive)
        elif fault.cut is not None:
            await _cut(self._app, scope, receive, send, fault.cut)
        else:
            await self._app(scope, receive, send)

    def _fault(self, scope: Scope) -> RequestFault | None:
        path = scope["path"].removeprefix(self._prefix)
        return self._faults.for_request(scope["method"], path, scope["query_string"].decode("latin-1"))

    async def _drop(self, scope: Scope, receive: Receive) -> None:
        self._connections.abort(tuple(scope["client"]))
        while (await receive())["type"] != "http.disconnect":  # Else the server would answer 500.
            pass


async def _read(receive: Receive) -> None:
    """Read the whole request, so that the client has sent it before it gets an answer."""
    while (await receive()).get("more_body"):
        pass


async def _answer(send: Send, fault: RequestFault) -> None:
    content = fault.body.encode() if isinstance(fault.body, str) else json.dumps(fault.body).encode()
    kind = "text/plain; charset=utf-8" if isinstance(fault.body, str) else "application/json"
    headers = {"content-type": kind, **{name.lower(): value for name, value in fault.headers.items()}}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": fault.status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


async def _cut(app: ASGIApp, scope: Scope, receive: Receive, send: Send, size: int) -> None:
    """Send the head of the answer, and less of its body than declared; then the server closes the connection."""
    start: dict[str, Any] = {}
    body = bytearray()

    async def gather(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, gather)
    if not start:  # The client has disconnected.
        return
    headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
    headers.append((b"content-length", str(max(len(body), size + 1)).encode()))
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(body[:size]), "more_body": True})


async def _nowhere(_message: Message) -> None:
    """Discard an answer."""
