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
from airflow_provider_hsml.hopsworks.untrusted_text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

T = TypeVar("T")

API = "hopsworks-api/api"
_MOST_READ = 1 << 16
"""Bytes of an unexpected response that are looked at."""
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
        """Seconds of the Retry-After header; None without the header, or if it is a date."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isdecimal() else None


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
            message = f"{self.what}: the answer is not what Hopsworks gives ({_fault(error)}). {_outline_of(answer)}"
            raise UnexpectedResponseError(message, status=answer.status) from error


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a list, with the total number of rows."""

    items: list[T]
    count: int


def beginning_of(answer: Answer) -> str:
    """Return the beginning of a response, for a message. Keys are removed before it is cut."""
    if not answer.content:
        return "nothing, it is empty"
    return repr(clean(answer.content[:_MOST_READ].decode("utf-8", "replace"))[:200])


def _outline_of(answer: Answer) -> str:
    """Return a sentence about a response that cannot be read: of JSON the keys alone, since values may be secrets."""
    try:
        data = json.loads(answer.content)
    except (ValueError, RecursionError):
        return f"It began: {beginning_of(answer)}"
    is_list = isinstance(data, list) and bool(data)
    row = data[0] if is_list else data
    keys = f" with the keys {', '.join(map(repr, list(row)[:50]))}" if isinstance(row, dict) else ""
    return f"It is {'a list, the first item ' if is_list else ''}{_kind(row)}{keys}"


def _kind(value: object) -> str:
    """Return the word that JSON has for a value."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _fault(error: Exception) -> str:
    """Return a text about an error of a parser, without the value that it may quote."""
    return f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else type(error).__name__


def error_of(what: str, answer: Answer) -> HopsworksError:
    """Build the error for a response with an HTTP error status."""
    if 300 <= answer.status < 400:
        message = (
            f"{what}: redirected (HTTP {answer.status}), which is not followed, since the API key would go along.\nPut "
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
