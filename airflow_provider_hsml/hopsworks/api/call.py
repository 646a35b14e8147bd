"""
A request as a value, with the parser of its response. No I/O.

A client, sync or async, sends a ``Call``. Clients know nothing about endpoints.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InvalidInputError,
    RequestRefusedError,
    UnexpectedResponseError,
)

from .response import ResponseKind, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

T = TypeVar("T")

API = "hopsworks-api/api"
PAGE = 1000
"""Rows per page of a paged list."""
INSTANCE_NOT_FOUND = 240000
MODEL_NOT_FOUND = 360000
TAG_NOT_FOUND = 370002
_OBJECT_NOT_FOUND = frozenset({INSTANCE_NOT_FOUND, MODEL_NOT_FOUND})


@dataclass(frozen=True, slots=True)
class Answer:
    """A raw response, before ``Call.outcome`` has parsed it."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """With lower-case names."""

    @property
    def retry_after(self) -> float | None:
        """Seconds of the Retry-After header, cut to 30; None without a header that can be read."""
        return retry_after(self.headers.get("retry-after", ""))


@dataclass(frozen=True, slots=True)
class Upload:
    """One part of a file, for the multipart form of the dataset endpoint."""

    filename: str
    content: bytes
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and the parser of its response."""

    what: str
    """The purpose of the request, for messages: "start deployment 'digits'"."""
    method: str
    path: str
    """Percent-encoded, below the host."""
    read: Callable[[Any], T]
    """Parses the response's JSON, or None when it is empty, into the result."""
    query: tuple[tuple[str, str], ...] = ()
    body: Any = field(default=None, repr=False)
    upload: Upload | None = field(default=None, repr=False)
    repeatable: bool = False
    """Whether the request may be retried without harm."""
    is_write_slow: bool = False
    """Whether the server may take minutes to respond."""
    raw: bool = False
    """Whether the response is bytes, not JSON."""
    absent: frozenset[int] = frozenset()
    """Error codes for 'does not exist': read as None, not raised."""
    optional: bool = False
    """Whether some servers lack the endpoint: the 404 for a missing route is then read as None."""
    seconds: float | None = None
    """Timeout of the response; None for the connection's."""
    base: str | None = None
    """``scheme://host:port`` to send to; None for the connection's."""
    host: str | None = None
    """The Host header; None for the host of ``base``."""
    error: Callable[[str, Answer], HopsworksError] | None = None
    """Builds the error of a response that does not come from Hopsworks itself."""
    looks_at: int | str | None = None
    """Id or name of the deployment to read, for reads that a list of all deployments can answer as well."""
    kind: ResponseKind = ResponseKind.RESOURCE
    """The kind of the response, which decides how many bytes of it are accepted."""
    into: Path | None = None
    """The file to which a ``MODEL_FILE`` is written; its call reads an empty response then."""
    size: int | None = None
    """The listed size of a ``MODEL_FILE`` in bytes, of which no more are accepted; None if it is unknown."""
    at_most: float | None = None
    """Seconds that the caller has left, for all attempts; None if the call's own timeout alone applies."""

    def __await__(self) -> Generator[Call[T], T, T]:
        """Yield this step to the driver of a flow."""
        return (yield self)

    def outcome(self, answer: Answer) -> T:
        """
        Parse a response.

        :return: the result of ``read``
        :raises RequestRefusedError: Hopsworks refused the request
        :raises UnexpectedResponseError: the response does not come from Hopsworks, or has an unknown form
        """
        if not 200 <= answer.status < 300:
            error = (self.error or error_of)(self.what, answer)
            code = error.code if isinstance(error, RequestRefusedError) else None
            if code in self.absent or (self.optional and answer.status == 404 and code not in _OBJECT_NOT_FOUND):
                return self.read(None)
            raise error
        if self.raw:
            return self.read(answer.content)
        try:
            return self.read(json.loads(answer.content) if answer.content.strip() else None)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            message = (
                f"{self.what}: the answer is not what Hopsworks gives ({type(error).__name__}: {error}). It began: "
                f"{beginning_of(answer)}"
            )
            raise UnexpectedResponseError(message, status=answer.status) from error


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a list, with the total number of rows."""

    items: list[T]
    count: int


def beginning_of(answer: Answer) -> str:
    """Return the beginning of a response, for a message."""
    return repr(answer.content[:200].decode("utf-8", "replace")) if answer.content else "nothing, it is empty"


def error_of(what: str, answer: Answer) -> HopsworksError:
    """Build the error for a response with an HTTP error status."""
    if 300 <= answer.status < 400:
        message = (
            f"{what}: redirected (HTTP {answer.status}), which is not followed, since the API key would go along. Put "
            "the host that answers into the connection."
        )
        return UnexpectedResponseError(message, status=answer.status)
    try:
        body = json.loads(answer.content)
        body = json.loads(body) if isinstance(body, str) else body
        code = int(body["errorCode"])
    except (KeyError, TypeError, ValueError):
        message = (
            f"{what}: HTTP {answer.status} from something that is not Hopsworks, such as a proxy. It began: "
            f"{beginning_of(answer)}"
        )
        return UnexpectedResponseError(message, status=answer.status, retry_after=answer.retry_after)
    text = str(body.get("usrMsg") or body.get("errorMsg") or "")
    if 250000 <= code < 260000:
        text = str(body.get("usrMsg") or "")
    return RequestRefusedError(what, status=answer.status, code=code, text=text, retry_after=answer.retry_after)


def path_of(*segments: str | int) -> str:
    """
    Return the path of an endpoint, with each segment percent-encoded.

    :param segments: names and ids, not encoded
    :raises InvalidInputError: a segment would lead to another path
    """
    return f"{API}/{encoded(*segments)}"


@functools.lru_cache(maxsize=256)
def encoded(*segments: str | int) -> str:
    """
    Return a path below another base, with each segment percent-encoded.

    :param segments: names and ids, not encoded
    :raises InvalidInputError: a segment would lead to another path
    """
    for segment in segments:
        if str(segment) in ("", ".", ".."):
            message = f"{segment!r} can be no part of a path."
            raise InvalidInputError(message)
    return "/".join(quote(str(segment), safe=":") for segment in segments)


def nothing(_data: object) -> None:
    """Ignore the response's content."""
