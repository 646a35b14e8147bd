"""The journal of requests, for tests that count them."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KEPT_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """One answered request."""

    method: str
    path: str
    """Below ``/hopsworks-api/api``, decoded: ``/project/119/serving``."""
    query: str
    """Unchanged: ``expand=trainingdatasets&limit=1``."""
    body_bytes: int
    body: Any
    """The JSON body; None if it was not JSON, or longer than a MB."""
    status: int
    """0 when the answer was never sent."""
    raw_path: str
    """The whole path, percent-encoded."""


class Journal(Sequence[Asked]):
    """
    The requests so far, oldest first; the last 10,000 are kept. Thread-safe: an index or a loop sees a copy.

    ``len(serving.requests)``, ``serving.requests[-1]``, ``serving.requests.clear()``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: deque[Asked] = deque(maxlen=10_000)

    def add(self, asked: Asked) -> None:
        """Record a request."""
        with self._lock:
            self._asked.append(asked)

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self._asked.clear()

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
            if size <= _KEPT_BODY_BYTES:
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
            parsed = json.loads(body) if body else None
        except (ValueError, RecursionError):
            parsed = None
        self._journal.add(
            Asked(
                method=scope["method"],
                path=scope["path"].removeprefix(self._prefix),
                query=scope["query_string"].decode("latin-1"),
                body_bytes=size,
                body=parsed,
                status=status,
                raw_path=scope["raw_path"].decode("latin-1"),
            )
        )
