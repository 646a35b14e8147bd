"""
A request as a value, with the parser of its response. No I/O.

A client, sync or async, sends a ``Call``. Clients know nothing about endpoints.
"""

from __future__ import annotations

import codecs
import functools
import json
import logging
import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import quote

from airflow_provider_hsml.hopsworks.domain import wire
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InvalidInputError,
    RequestRefusedError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.untrusted_text import beginning

from .response import ResponseKind, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

T = TypeVar("T")

API = "hopsworks-api/api"
MOST_READ = 1 << 16
"""Bytes of a refusal, or of an unexpected response, that are looked at."""
PAGE = 1000
"""Rows per page of a paged list."""
INSTANCE_NOT_FOUND = 240000
MODEL_NOT_FOUND = 360000
TAG_NOT_FOUND = 370002
_ROUTE_NOT_FOUND = 120004


class MissingRoute(Enum):
    """The result of a call whose route this Hopsworks may lack. ``routes.Routes`` decides whether it does."""

    CERTAIN = auto()
    """Hopsworks says so, by its own error code."""
    LIKELY = auto()
    """A 404 without an error code: of an older Hopsworks, or of a proxy for a moment."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A raw response, before ``Call.outcome`` has parsed it."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """With lower-case names."""

    @property
    def retry_after(self) -> float | None:
        """Seconds of the Retry-After header; None without a header that can be read."""
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
    read: Callable[[Any], T] | None
    """Parses the response's JSON, which is never null, into the result. None: the response has no content to read."""
    query: tuple[tuple[str, str], ...] = ()
    body: Any = field(default=None, repr=False)
    """Sent as JSON; bytes are JSON already."""
    text: str | None = field(default=None, repr=False)
    """Sent as plain text, in place of ``body``; also when it is empty."""
    upload: Upload | None = field(default=None, repr=False)
    repeatable: bool = False
    """Whether the request may be retried without harm."""
    is_write_slow: bool = False
    """Whether the server may take minutes to respond."""
    raw: bool = False
    """Whether ``read`` gets the response as bytes, whatever they are."""
    absent: frozenset[int] = frozenset()
    """Error codes by which Hopsworks says that the thing does not exist."""
    absence: Any = None
    """The result then."""
    optional: str = ""
    """Name of the route if some servers lack it: without the route, the result is a ``MissingRoute``."""
    seconds: float | None = None
    """Timeout of the response; None for the connection's."""
    base: str | None = None
    """``scheme://host:port`` to send to; None for the connection's."""
    host: str | None = None
    """The Host header; None for the host of ``base``."""
    request_id: str | None = None
    """The header x-request-id; None for none."""
    error: Callable[[str, Answer], HopsworksError] | None = None
    """Builds the error of a response that does not come from Hopsworks itself."""
    looks_at: int | str | None = None
    """Id or name of the deployment to read, for reads that a list of all deployments can answer as well."""
    kind: ResponseKind = ResponseKind.RESOURCE
    """The kind of the response, which decides how many bytes of it are accepted."""
    into: Path | None = None
    """The file to which a ``MODEL_FILE`` is written; its call reads an empty response then."""
    last: int | None = None
    """How many bytes at the end of the response are kept, of any number; None for all, up to the limit of its kind."""
    size: int | None = None
    """The listed size of a ``MODEL_FILE`` in bytes, of which no more are accepted; None if it is unknown."""
    asks_deployment: bool = False
    """Whether the deployment itself answers, and not Hopsworks: only then can a failure be evidence about it."""
    at_most: float | None = None
    """Seconds that the caller has left, for all attempts; None if the call's own timeout alone applies."""

    def __await__(self) -> Generator[Call[T], T, T]:
        """Yield this step to the driver of a flow."""
        try:
            return (yield self)
        except HopsworksError as error:
            error.is_from_deployment = self.asks_deployment
            raise

    def outcome(self, answer: Answer) -> T:
        """
        Parse a response.

        :return: the result of ``read``, or ``absence``
        :raises RequestRefusedError: Hopsworks refused the request
        :raises UnexpectedResponseError: the response does not come from Hopsworks, or has an unknown form
        :raises InvalidInputError: the thing has a name in another case
        """
        if not 200 <= answer.status < 300:
            error = (self.error or error_of)(self.what, answer)
            if isinstance(error, RequestRefusedError) and error.code in self.absent and error.status < 500:
                return cast("T", self.absence)
            if self.optional and answer.status == 404 and (missing := _missing_route(answer, error)):
                return cast("T", missing)
            raise error
        try:
            return self._read(answer.content)
        except HopsworksError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a response makes a parser raise
            fault = _fault(error)
        # Not from the parser's error, whose frames hold the parsed response: it is parsed again for the outline.
        message = f"{self.what}: the answer is not what Hopsworks gives ({fault}). {_outline_of(answer)}"
        raise UnexpectedResponseError(message, status=answer.status)

    def _read(self, content: bytes) -> T:
        if self.raw and self.read is not None:
            return self.read(content)
        data = wire.load(content) if content.strip() else None
        if self.read is None:
            return cast("T", None)
        if data is None:
            message = "it says nothing"
            raise wire.FormError(message)
        return self.read(data)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a list, with the total number of rows."""

    items: list[T]
    count: int | None
    """None if it is not known: the list then ends with an empty page."""
    unreadable: int = 0
    """Rows of the page that are left out, since they cannot be read."""
    unread_versions: tuple[int | None, ...] = ()
    """``version`` of each of those rows; None where that cannot be read either. Names in another case are none."""


def rows_of(data: Any, *, offset: int | None = None) -> list[Any]:
    """
    Return the rows of a list: a bare one, or ``{"count", "items"}``, where an empty one has no items.

    :param offset: number of rows that the request skipped; None for a list that does not come in pages
    :raises ValueError: ``data`` is no list, or lacks rows that it counts
    """
    count = 0
    if isinstance(data, dict):
        wire.check(data, {"count": int})
        count = data.get("count") or 0
        data = data.get("items", [] if data.get("count") == 0 else None)
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        message = "expected a list of objects"
        raise wire.FormError(message)
    # A page may be short, since the request or the server limits it. The pages after it have the rest.
    if count > len(data) and (offset is None or (not data and count > offset)):
        message = f"it counts {count} rows, and holds {len(data)}"
        raise wire.FormError(message)
    return data


def readable(what: str, rows: list[Any], read: Callable[[Any], T], *, complete: bool = False) -> list[T]:
    """
    Read the rows of a list; one that cannot be read is logged and left out.

    :param what: the request, for the log
    :param complete: raise the error of such a row instead
    :raises InvalidInputError: all that can be read have the name in another case
    """
    return _sorted_out(what, rows, read, complete=complete)[0]


def _sorted_out(
    what: str, rows: list[Any], read: Callable[[Any], T], *, complete: bool
) -> tuple[list[T], list[dict[str, Any]]]:
    """Return what ``readable`` returns, and the rows that cannot be read."""
    found, unread, in_another_case = [], [], None
    for row in rows:
        try:
            found.append(read(row))
        except InvalidInputError as error:
            in_another_case = error
        except Exception as error:
            if complete:
                raise
            unread.append(row)
            name = row.get("name", row.get("id"))
            log.warning("%s: left out %s, which cannot be read: %s", what, beginning(repr(name)), _fault(error))
    if in_another_case is not None and not found:
        raise in_another_case
    return found, unread


def page_of(what: str, data: Any, read: Callable[[Any], T], *, offset: int = 0, complete: bool = False) -> Page[T]:
    """
    Read one page of a list, as ``readable`` does.

    :param offset: number of rows that the request skipped
    :raises ValueError: ``data`` is no page, or is empty although more rows are counted
    """
    rows = rows_of(data, offset=offset)
    items, unread = _sorted_out(what, rows, read, complete=complete)
    count = data.get("count") if isinstance(data, dict) else len(rows)
    numbers = (row.get("version") for row in unread)
    unread_versions = tuple(number if type(number) is int else None for number in numbers)
    return Page(items, count, len(rows) - len(items), unread_versions)


def check_same(what: str, asked: str, found: str) -> None:
    """
    Raise an error if a response is about a thing of another name.

    :param what: the kind of thing, for the message
    :raises InvalidInputError: the names differ only in case; the message has the real one
    :raises ValueError: it is another thing
    """
    if found == asked:
        return
    if found.lower() == asked.lower():
        message = f"{what} {asked!r} does not exist: its name is {found!r}.\nUse that name; upper and lower case count."
        raise InvalidInputError(message)
    message = f"it is about {found!r}"
    raise wire.FormError(message)


def check_number(key: str, asked: int, found: int) -> None:
    """
    Raise an error if a response is about a thing of another number.

    :raises ValueError: it is
    """
    if found != asked:
        message = f"its {key} is {found}"
        raise wire.FormError(message)


def beginning_of(answer: Answer) -> str:
    """Return the beginning of a response, for a message. Keys are removed before it is cut."""
    if not answer.content:
        return "nothing, it is empty"
    return repr(beginning(answer.content[:MOST_READ].decode("utf-8", "replace")))


def _outline_of(answer: Answer) -> str:
    """Return a sentence about a response that cannot be read: of JSON the keys alone, since values may be secrets."""
    try:
        data = wire.load(answer.content)
    except ValueError:
        return f"It began: {beginning_of(answer)}"
    is_list = isinstance(data, list) and bool(data)
    row = data[0] if is_list else data
    keys = f" with the keys {', '.join(map(repr, list(row)[:50]))}" if isinstance(row, dict) else ""
    return f"It is {'a list, the first item ' if is_list else ''}{wire.kind_of(row)}{keys}"


def _fault(error: Exception) -> str:
    """Return a text about an error of a parser. The types are those whose messages quote no value."""
    kind = type(error).__name__
    if isinstance(error, wire.FormError | KeyError | UnicodeError | json.JSONDecodeError):
        return f"{kind}: {beginning(str(error))}"
    return kind


def _missing_route(answer: Answer, error: HopsworksError) -> MissingRoute | None:
    if isinstance(error, RequestRefusedError):
        return MissingRoute.CERTAIN if error.code == _ROUTE_NOT_FOUND else None
    return None if is_html(answer) else MissingRoute.LIKELY


def is_html(answer: Answer) -> bool:
    """Return whether a response is a page of HTML or XML, such as a proxy's."""
    is_markup = answer.content.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<"
    return is_markup or "html" in (answer.headers.get("content-type") or "").lower()


def error_of(what: str, answer: Answer) -> HopsworksError:
    """Build the error for a response with an HTTP error status."""
    if 300 <= answer.status < 400:
        message = (
            f"{what}: redirected (HTTP {answer.status}), which is not followed, since the API key would go along.\nPut "
            "the host that answers into the connection."
        )
        return UnexpectedResponseError(message, status=answer.status)
    try:
        body = wire.load(answer.content)
        body = wire.load(body) if isinstance(body, str) else body
        code = wire.resource(body, {"errorCode": int}, {})["errorCode"]
    except ValueError:
        message = (
            f"{what}: HTTP {answer.status} from something that is not Hopsworks, such as a proxy. It began: "
            f"{beginning_of(answer)}"
        )
        return UnexpectedResponseError(message, status=answer.status, retry_after=answer.retry_after)
    text = str(body.get("usrMsg") or body.get("errorMsg") or "")
    if 250000 <= code < 260000:
        text = str(body.get("usrMsg") or "")
    text = text.encode("utf-8", "backslashreplace").decode()
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
    :raises InvalidInputError: a segment would lead to another path, or is no text that can be sent
    """
    for segment in segments:
        if str(segment) in ("", ".", "..") or re.search(r"[\ud800-\udfff]", str(segment)):
            message = f"{segment!r} can be no part of a path."
            raise InvalidInputError(message)
    return "/".join(quote(str(segment), safe=":") for segment in segments)
