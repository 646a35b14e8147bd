"""How much a request may bring: what is longer is refused before it fills the memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from .errors import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 32 << 20
"""Of a request that is read as a whole: JSON, and predictions."""
UPLOAD_BYTES = 128 << 20
"""Of a part of an upload, which is written to disk as it comes; clients send parts of 10 MB."""
FIELD_BYTES = 1 << 16
"""Of a form's field that is no file."""


class LimitMiddleware:
    """
    Answers 413 to a body that is too long: at once where its length is said, else when it has grown too long.

    :param app: what answers the others
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = UPLOAD_BYTES if "/dataset/upload/" in scope["path"] else BODY_BYTES
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > limit:
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
    """Give the body of the answer to what is too long."""
    return Refusal(120004, text).body()


def _words(limit: int) -> str:
    return f"The request's body is longer than {limit >> 20} MB."


async def _refuse(send: Send, limit: int) -> None:
    content = json.dumps(too_long(_words(limit))).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": content})
