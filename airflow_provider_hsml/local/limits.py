"""Size limits of request bodies: larger ones are refused before they fill the memory."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from starlette.exceptions import HTTPException

from .errors import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 32 << 20
"""Limit of a body that is read as a whole: JSON, and predictions."""
UPLOAD_BYTES = 128 << 20
"""Limit of one part of an upload, which is streamed to disk; clients send parts of 10 MB."""
FIELD_BYTES = 1 << 16
"""Limit of a field in the form of an upload that is not a file."""
_FIELDS = 50
"""Limit of the number of such fields in a form."""


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


@contextlib.asynccontextmanager
async def limited_form(request: Request, field_bytes: int) -> AsyncIterator[FormData]:
    """
    Read a form, of either encoding.

    :param field_bytes: the limit of a field that is not a file; files have only the limit of the whole body
    :raises HTTPException: 413 for a field that is too long, 400 for a malformed form
    """
    too_long_field = HTTPException(413, f"A text field of the form is longer than {field_bytes >> 10} kB.")
    is_url_encoded = "urlencoded" in request.headers.get("content-type", "").lower()
    try:
        # Up to three bytes of an encoded field are one byte of its text.
        form = await request.form(max_fields=_FIELDS, max_part_size=(3 if is_url_encoded else 1) * field_bytes)
    except HTTPException as error:
        # Starlette has one error for all faults of a form; only its text tells them apart.
        raise (too_long_field if "exceeded maximum size" in error.detail else error) from None
    except FormParserError as error:
        raise HTTPException(400, f"The form is malformed: {error}") from None
    try:
        texts = [value for _, value in form.multi_items() if isinstance(value, str)]
        if any(len(text.encode("utf-8", "surrogatepass")) > field_bytes for text in texts):
            raise too_long_field
        yield form
    finally:
        await form.close()


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
