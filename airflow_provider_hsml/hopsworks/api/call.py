"""
A request as a value, and how to judge its answer. No I/O.

A ``Call`` is sent by a client, sync or async, which knows nothing of endpoints.
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

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

T = TypeVar("T")

API = "hopsworks-api/api"
PAGE = 1000
"""Rows asked for at once where a list is paged."""
INSTANCE_NOT_FOUND = 240000
MODEL_NOT_FOUND = 360000
TAG_NOT_FOUND = 370002
_OBJECT_NOT_FOUND = frozenset({INSTANCE_NOT_FOUND, MODEL_NOT_FOUND})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, before anybody has judged it."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """With lower-case names."""

    @property
    def retry_after(self) -> float | None:
        """Seconds from the Retry-After header; None without one that is a number."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Upload:
    """One part of a file, as the dataset endpoint takes it: a multipart form."""

    filename: str
    content: bytes
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how to read its answer."""

    what: str
    """What is being asked, for messages: "start deployment 'digits'"."""
    method: str
    path: str
    """Percent-encoded, below the host."""
    read: Callable[[Any], T]
    """From the answer's JSON (None when it is empty) to what the caller wants."""
    query: tuple[tuple[str, str], ...] = ()
    body: Any = field(default=None, repr=False)
    upload: Upload | None = field(default=None, repr=False)
    repeatable: bool = False
    """Whether sending it a second time does no harm."""
    is_write_slow: bool = False
    """Whether the server may take minutes to answer."""
    raw: bool = False
    """Whether the answer is bytes, not JSON."""
    absent: frozenset[int] = frozenset()
    """Error codes that mean 'not there': read as None, not raised."""
    optional: bool = False
    """Whether some servers lack the endpoint: a 404 of its own kind is then read as None."""
    seconds: float | None = None
    """How long to wait for the answer, where that is not the connection's to say."""
    base: str | None = None
    """``scheme://host:port`` where it goes, when that is not the connection's."""
    host: str | None = None
    """The Host header, where it is not that of ``base``."""
    error: Callable[[str, Answer], HopsworksError] | None = None
    """Makes the error of an answer that is not Hopsworks' own."""
    looks_at: int | str | None = None
    """The id or the name of the deployment that it looks at, where a list of all deployments answers it as well."""

    def __await__(self) -> Generator[Call[T], T, T]:
        """Yield this step to the driver of a flow."""
        return (yield self)

    def outcome(self, answer: Answer) -> T:
        """
        Judge an answer.

        :param answer: what came back
        :return: what ``read`` makes of it
        :raises RequestRefusedError: Hopsworks said no
        :raises UnexpectedResponseError: it is not an answer of Hopsworks
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
    """Some rows of a list, and how many there are in all."""

    items: list[T]
    count: int


def beginning_of(answer: Answer) -> str:
    """Show how an answer begins, for a message."""
    return repr(answer.content[:200].decode("utf-8", "replace")) if answer.content else "nothing, it is empty"


def error_of(what: str, answer: Answer) -> HopsworksError:
    """Make the error that an answer stands for."""
    if 300 <= answer.status < 400:
        message = (
            f"{what}: redirected (HTTP {answer.status}), which is not followed, since the API key would go along. Put "
            "the host "
            "that answers into the connection."
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
    Build a path from segments, each encoded so that it stays one.

    :param segments: names and ids, not encoded
    :raises InvalidInputError: one of them would lead elsewhere
    """
    return f"{API}/{encoded(*segments)}"


@functools.lru_cache(maxsize=256)
def encoded(*segments: str | int) -> str:
    """
    Build a path from segments below another place.

    :param segments: names and ids, not encoded
    :raises InvalidInputError: one of them would lead elsewhere
    """
    for segment in segments:
        if str(segment) in ("", ".", ".."):
            message = f"{segment!r} can be no part of a path."
            raise InvalidInputError(message)
    return "/".join(quote(str(segment), safe=":") for segment in segments)


def nothing(_data: object) -> None:
    """
    Read an answer of which nothing is needed.

    :param _data: the answer
    """
