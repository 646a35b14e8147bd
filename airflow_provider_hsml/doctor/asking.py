"""One request of the doctor, and its answer as a value: a refusal is an answer as well as a success."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.api import Answer, Call
from airflow_provider_hsml.hopsworks.api.call import encoded, error_of, is_html, path_of
from airflow_provider_hsml.hopsworks.domain import wire
from airflow_provider_hsml.hopsworks.untrusted_text import beginning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.errors import HopsworksError

SCOPE_MISSING = 320004
"""Hopsworks' error code for an API key that lacks the scope of a request."""
_PASSING = (502, 503, 504)
"""Statuses of gateways. They are repeated by the client, as in any task."""
_MOST_OF_TEXT = 300


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request."""

    status: int
    code: int | None
    """Hopsworks' errorCode; None without one."""
    data: Any
    """The parsed JSON; None if the body is empty or is not JSON."""
    text: str
    """The beginning of the body, without keys."""
    headers: Mapping[str, str]
    """With lower-case names."""

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300

    @property
    def lacks_scope(self) -> bool:
        """Whether the API key lacks the scope of the request."""
        return self.code == SCOPE_MISSING

    @property
    def outcome(self) -> str:
        """The status, with the error code or what stands in its place: ``404/360000``, ``404 with an empty body``."""
        if self.is_success:
            return str(self.status)
        if self.code is not None:
            return f"{self.status}/{self.code}"
        return f"{self.status} {'without an errorCode' if self.text else 'with an empty body'}"

    @property
    def said(self) -> str:
        """The text that Hopsworks gives for a refusal; empty without one."""
        return str(self.data.get("usrMsg") or "") if isinstance(self.data, dict) else ""


class Look(Call[Reply]):
    """A request whose answer is a ``Reply``, whatever its status."""

    __slots__ = ()

    def outcome(self, answer: Answer) -> Reply:
        """
        Return the answer as it is.

        :raises UnexpectedResponseError: a gateway answers in place of Hopsworks, or the answer is a redirect
        """
        reply = _reply(answer)
        if reply.code is None and (answer.status in _PASSING or 300 <= answer.status < 400) and self.base is None:
            raise error_of(self.what, answer)
        return reply


def _reply(answer: Answer) -> Reply:
    try:
        data = wire.load(answer.content) if answer.content.strip() else None
    except ValueError:
        data = None
    code = data.get("errorCode") if isinstance(data, dict) else None
    text = "a page of HTML" if is_html(answer) else beginning(answer.content.decode("utf-8", "replace"), _MOST_OF_TEXT)
    is_code = isinstance(code, int) and not isinstance(code, bool)
    return Reply(answer.status, code if is_code else None, data, text.strip(), answer.headers)


def brief(error: HopsworksError) -> str:
    """Return what an error is, without its text: that may quote a gateway, or name a model or a host."""
    status, code = getattr(error, "status", None), getattr(error, "code", None)
    if status is None:
        return type(error).__name__
    return f"{type(error).__name__} (HTTP {status}{'' if code is None else f'/{code}'})"


def look(*segments: str | int, query: Mapping[str, str] | None = None) -> Look:
    """
    Build a read.

    :param segments: of the path below Hopsworks' API, not encoded
    :param query: the parameters
    """
    path = path_of(*segments)
    return Look(f"read {path}", "GET", path, None, query=tuple((query or {}).items()), repeatable=True)


def look_at(base: str, *segments: str | int, host: str | None = None, body: Any = None) -> Look:
    """
    Build a request at the ingress: a read, or a prediction.

    :param base: ``scheme://host:port``
    :param segments: of the path, not encoded
    :param host: the Host header; None for that of ``base``
    :param body: that of a prediction; None for a read
    """
    path = encoded(*segments)
    method = "GET" if body is None else "POST"
    return Look(f"{method} {path} at the ingress", method, path, None, body=body, base=base, host=host, repeatable=True)


def send(method: str, *segments: str | int, body: Any = None, query: Mapping[str, str] | None = None) -> Look:
    """
    Build a request that is sent once.

    :param segments: of the path below Hopsworks' API, not encoded
    :param body: sent as JSON; None for none
    :param query: the parameters
    """
    path = path_of(*segments)
    is_slow = method in ("PUT", "DELETE")
    return Look(
        f"{method} {path}", method, path, None, query=tuple((query or {}).items()), body=body, is_write_slow=is_slow
    )
