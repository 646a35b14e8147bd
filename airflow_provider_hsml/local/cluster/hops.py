"""
A small HTTP client for the model servers on loopback: connections stay open, and no thread is needed.

A model server answers in a millisecond, and a general HTTP client would add two. Loopback needs no TLS, no redirects
and no cookies. httptools parses the answers, as it parses the requests in uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import httptools

from .engines import CONNECTION_HEADERS, Answer

if TYPE_CHECKING:
    from .engines import Forwarded

_HOST = "127.0.0.1"
_KEPT_SECONDS = 3.0
"""Shorter than the 5 s for which uvicorn keeps an idle connection of a model server."""
_READ_BYTES = 1 << 16


class Hops:
    """
    Connections to HTTP servers on ports of loopback.

    :param timeout: seconds until the whole answer must have come
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._idle: defaultdict[int, list[_Connection]] = defaultdict(list)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, port: int, request: Forwarded) -> Answer:
        """
        Send a request, and return its answer.

        :raises TimeoutError: there was no answer in time
        :raises ConnectionError: the request could not be sent, or the connection ended before the answer did
        """
        self._loop = asyncio.get_running_loop()
        connection = None
        try:
            async with asyncio.timeout(self._timeout):
                connection = self._taken(port) or await _connected(port)
                return await connection.ask(request)
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._timeout:g} s") from None
        except (OSError, httptools.HttpParserError) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        finally:
            if connection is not None and connection.is_free:
                self._idle[port].append(connection)
            elif connection is not None:
                connection.close()

    def forget(self, port: int) -> None:
        """Close the connections to a server that has ended. Thread-safe."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop has ended, and its connections were closed before.
                self._loop.call_soon_threadsafe(self._close, port)

    async def aclose(self) -> None:
        """Close the idle connections."""
        for port in list(self._idle):
            self._close(port)
        await asyncio.sleep(0)  # The loop closes them in this step.

    def _taken(self, port: int) -> _Connection | None:
        """Return the most recently used idle connection, and close those that may be stale."""
        idle = self._idle[port]
        while idle:
            connection = idle.pop()
            if connection.is_free and time.monotonic() - connection.used < _KEPT_SECONDS:
                return connection
            connection.close()
        return None

    def _close(self, port: int) -> None:
        for connection in self._idle.pop(port, []):
            connection.close()


async def _connected(port: int) -> _Connection:
    return _Connection(*await asyncio.open_connection(_HOST, port, limit=_READ_BYTES), host=f"{_HOST}:{port}")


class _Connection:
    """One connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host
        self._is_between = True
        """Whether the last answer was complete, and the server keeps the connection."""
        self.used = time.monotonic()

    @property
    def is_free(self) -> bool:
        """Whether the connection can take a request."""
        return self._is_between and not self._reader.at_eof() and not self._writer.is_closing()

    async def ask(self, request: Forwarded) -> Answer:
        self._is_between = False
        own = {"host": self._host, "accept-encoding": "identity", "content-length": str(len(request.body))}
        lines = [f"{name}: {value}\r\n" for name, value in {**request.headers, **own}.items()]
        head = "".join((f"{request.method} {request.path} HTTP/1.1\r\n", *lines, "\r\n"))
        self._writer.write(head.encode("latin-1") + request.body)
        await self._writer.drain()
        reply = _Reply(has_body=request.method != "HEAD")
        while not reply.is_complete:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                reply.end()
                break
            reply.parser.feed_data(data)
        self.used = time.monotonic()
        self._is_between = reply.keeps_connection
        kept = {name: value for name, value in reply.headers.items() if name not in CONNECTION_HEADERS}
        return Answer(reply.parser.get_status_code(), bytes(reply.content), kept)

    def close(self) -> None:
        self._writer.close()


class _Reply:
    """The parts of an answer so far. httptools calls the methods whose names begin with ``on_``."""

    def __init__(self, *, has_body: bool) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self.content = bytearray()
        self.has_head = False
        self.is_complete = False
        self.keeps_connection = False
        self._has_body = has_body

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.has_head = True
        self.is_complete = not self._has_body
        self.keeps_connection = self._has_body and self.parser.should_keep_alive()

    def on_body(self, content: bytes) -> None:
        self.content += content

    def on_message_complete(self) -> None:
        self.is_complete = True

    def end(self) -> None:
        """Complete a body without a declared length, at the end of the connection."""
        if not self.has_head or not {"content-length", "transfer-encoding"}.isdisjoint(self.headers):
            raise ConnectionError("the connection ended before the answer did")
