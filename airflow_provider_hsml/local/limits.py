"""Size limits of request bodies: larger ones are refused before they fill the memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from .errors import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 32 << 20
"""Limit of a body that is read as a whole: JSON, and predictions."""
UPLOAD_BYTES = 128 << 20
"""Limit of one part of an upload, which is streamed to disk; clients send parts of 10 MB."""
FIELD_BYTES = 1 << 16
"""Limit of a form field that is not a file."""


class LimitMiddleware:
    """
    ASGI middleware that answers 413 to a body that is too large.

    A request with a Content-Length is refused at once, others as soon as they exceed the limit.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = UPLOAD_BYTES if "/dataset/upload/" in scope["path"] else BODY_BYTES
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            await _refuse(send, limit)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise HTTPException(413, _words(limit))
            return message

        await self._app(scope, counted, send)


def too_long(text: str) -> dict[str, object]:
    """Return the response body for a request that is too large."""
    return Refusal(120004, text).body()


def _words(limit: int) -> str:
    return f"The request's body is longer than {limit >> 20} MB."


async def _refuse(send: Send, limit: int) -> None:
    content = json.dumps(too_long(_words(limit))).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": content})
