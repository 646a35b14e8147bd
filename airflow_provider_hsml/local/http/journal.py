"""The journal of requests, for tests that count them."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUESTS = 10_000
"""The number of recorded requests."""
BODY_BYTES = 1 << 20
"""Limit of one recorded body."""
ALL_BODIES_BYTES = 32 << 20
"""Limit of all recorded bodies together: the oldest are dropped."""
PATH_CHARACTERS = 8192
"""Longer paths and queries are cut off."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One answered request."""

    method: str
    path: str
    """Below ``/hopsworks-api/api``, decoded: ``/project/119/serving``."""
    query: str
    """Unchanged: ``expand=trainingdatasets&limit=1``."""
    body_bytes: int
    content: bytes = field(repr=False)
    """The JSON text of the body; empty if it was not JSON, was too long, or is no longer kept."""
    status: int
    """0 when the answer was never sent."""
    raw_path: str
    """The whole path, percent-encoded."""

    @property
    def body(self) -> Any:
        """The JSON body; None if there is none."""
        return json.loads(self.content) if self.content else None

    def document(self) -> dict[str, Any]:
        """Return the request for JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "content"}
        return values | {"body": self.body}


class Journal(Sequence[Asked]):
    """
    The requests so far, oldest first; the last 10,000 are kept. Thread-safe: an index or a loop sees a copy.

    ``len(serving.requests)``, ``serving.requests[-1]``, ``serving.requests.clear()``.

    :param keep_bodies: whether JSON bodies are recorded: the latest, up to a limit of bytes
    """

    def __init__(self, *, keep_bodies: bool = True) -> None:
        self.keep_bodies = keep_bodies
        self._lock = threading.Lock()
        self._asked: deque[Asked] = deque()
        self._body_bytes = 0
        self._without_body = 0
        """How many of the oldest requests have no recorded body any more."""

    def add(self, asked: Asked) -> None:
        """Record a request, without the body if bodies are not kept; drop the oldest bodies beyond the limit."""
        asked = asked if self.keep_bodies else replace(asked, content=b"")
        with self._lock:
            self._asked.append(asked)
            self._body_bytes += len(asked.content)
            while self._body_bytes > ALL_BODIES_BYTES:
                oldest = self._asked[self._without_body]
                self._body_bytes -= len(oldest.content)
                self._asked[self._without_body] = replace(oldest, content=b"")
                self._without_body += 1
            if len(self._asked) > REQUESTS:
                self._body_bytes -= len(self._asked.popleft().content)
                self._without_body = max(0, self._without_body - 1)

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self._asked.clear()
            self._body_bytes = self._without_body = 0

    def where(self, method: str | None = None, path: str = "") -> list[Asked]:
        """Return the requests of a method whose path begins with ``path``."""
        return [a for a in self[:] if method in (None, a.method) and a.path.startswith(path)]

    def __len__(self) -> int:
        with self._lock:
            return len(self._asked)

    @overload
    def __getitem__(self, index: int) -> Asked: ...

    @overload
    def __getitem__(self, index: slice) -> list[Asked]: ...

    def __getitem__(self, index: int | slice) -> Asked | list[Asked]:
        with self._lock:
            return list(self._asked)[index]


class JournalMiddleware:
    """
    Records each request when it has been answered, except those to ``/_local``.

    :param app: answers the requests
    :param prefix: left out of the recorded paths
    """

    def __init__(self, app: ASGIApp, journal: Journal, prefix: str) -> None:
        self._app = app
        self._journal = journal
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and record it."""
        if scope["type"] != "http" or scope["path"].startswith("/_local/"):
            await self._app(scope, receive, send)
            return
        chunks: list[bytes] = []
        size, status = 0, 0

        async def receive_and_keep() -> Message:
            nonlocal size
            message = await receive()
            chunk = message.get("body", b"")
            size += len(chunk)
            if self._journal.keep_bodies and size <= BODY_BYTES:
                chunks.append(chunk)
            else:
                chunks.clear()
            return message

        async def send_and_record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._record(scope, size, b"".join(chunks), status)
            await send(message)

        try:
            await self._app(scope, receive_and_keep, send_and_record)
        finally:
            if not status:
                self._record(scope, size, b"".join(chunks), 0)

    def _record(self, scope: Scope, size: int, body: bytes, status: int) -> None:
        try:
            json.loads(body)
        except (ValueError, RecursionError):
            body = b""
        self._journal.add(
            Asked(
                method=scope["method"],
                path=scope["path"].removeprefix(self._prefix)[:PATH_CHARACTERS],
                query=scope["query_string"][:PATH_CHARACTERS].decode("latin-1"),
                body_bytes=size,
                content=body,
                status=status,
                raw_path=scope["raw_path"][:PATH_CHARACTERS].decode("latin-1"),
            )
        )
