"""Sends calls with ``requests``: for workers, where blocking is fine."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import requests
import tenacity
from requests.auth import AuthBase

from . import calls
from .calls import Answer, Call, Project
from .errors import HopsworksError, NoAnswer, Untrusted
from .ingress import Ingress

if TYPE_CHECKING:
    from collections.abc import Callable

    from .access import Access

T = TypeVar("T")

ATTEMPTS = 4
"""How often a call is sent before its failure is reported; those that wait for longer ask again themselves."""
_LONGEST_PAUSE = 30.0


class _KeyAuth(AuthBase):
    """Puts the key into the header. As an auth object, so that no ``.netrc`` takes its place."""

    def __init__(self, access: Access, on_new_key: Callable[[str], object]) -> None:
        self._access = access
        self._key = access.key
        self._on_new_key = on_new_key

    def renew(self) -> bool:
        """Read the key anew from its file; tell whether there was another one."""
        if self._access.key_path is None:
            return False
        before, self._key = self._key, Path(self._access.key_path).read_text().strip()
        if self._key == before:
            return False
        self._on_new_key(self._key)
        return True

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"{self._access.key_kind} {self._key}"
        return request


class Client:
    """
    Talks to one project of one Hopsworks.

    Keeps its connections open, so make one a task and not one a request. Not for use by several threads at once.
    """

    def __init__(
        self,
        access: Access,
        *,
        sleep: Callable[[float], None] = time.sleep,
        on_new_key: Callable[[str], object] = lambda _key: None,
    ) -> None:
        """
        Prepare, without talking to anybody.

        :param access: where Hopsworks is and how to get in
        :param sleep: how to wait between attempts, in seconds; one that raises ends them
        :param on_new_key: is given a key that was renewed, before it is used
        """
        self.access = access
        self._sleep = sleep
        self._auth = _KeyAuth(access, on_new_key)
        self._session = requests.Session()
        self._project: Project | None = None

    @property
    def project(self) -> Project:
        """The project, looked up on first use."""
        if self._project is None:
            project = self.send(calls.get_project(self.access.project))
            if self.access.inference_route == "istio":
                endpoints = [] if self.access.ingress_url else self.send(calls.get_endpoints(project))
                project = replace(project, ingress=Ingress.of(self.access, endpoints))
            self._project = project
        return self._project

    def send(self, call: Call[T]) -> T:
        """
        Send a call and read its answer; again, where that does no harm and may help.

        :param call: what to ask
        :raises HopsworksError: what went wrong, by its kind
        """

        def may_repeat(error: BaseException) -> bool:
            unsent = isinstance(error, NoAnswer) and not error.sent
            return isinstance(error, HopsworksError) and error.transient and (call.repeatable or unsent)

        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            retry=tenacity.retry_if_exception(may_repeat),
            wait=pause_before_retry,
            sleep=self._sleep,
            reraise=True,
        )
        outcome: T = attempts(self._send_once, call)
        return outcome

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _send_once(self, call: Call[T]) -> T:
        answer = self._exchange(call)
        if answer.status == 401 and self._auth.renew():
            answer = self._exchange(call)
        return call.outcome(answer)

    def _exchange(self, call: Call[T]) -> Answer:
        access = self.access
        wait = call.seconds or (access.write_timeout if call.is_write_slow else access.request_timeout)
        upload = call.upload
        base = call.base or access.url
        where = f"{call.what} at {base}"
        try:
            response = self._session.request(
                call.method,
                f"{base}/{call.path}",
                params=list(call.query),
                json=call.body,
                headers={"Host": call.host} if call.host else None,
                data=dict(upload.fields) if upload else None,
                files={"file": (upload.filename, upload.content)} if upload else None,
                auth=self._auth,
                timeout=(min(wait, access.request_timeout), wait),
                allow_redirects=False,
                verify=access.verify,
            )
        except requests.exceptions.SSLError as error:
            message = (
                f"{where}: the server's TLS certificate does not verify ({_cause(error)}). If it is signed by a "
                "private CA, put "
                "the path of that CA's PEM file into the connection's extra 'ca_bundle'."
            )
            raise Untrusted(message) from error
        except requests.exceptions.ConnectTimeout as error:
            message = (
                f"{where}: no connection within {access.request_timeout:g} s. Check the connection's host and port."
            )
            raise NoAnswer(message, sent=False) from error
        except requests.exceptions.Timeout as error:
            message = f"{where}: no answer within {wait:g} s."
            raise NoAnswer(message) from error
        except requests.exceptions.RequestException as error:
            refused = "NewConnectionError" in repr(error.args) or "NameResolutionError" in repr(error.args)
            how = "nobody answers there. Check the connection's host and port" if refused else "the answer was cut off"
            message = f"{where}: {how} ({_cause(error)})."
            raise NoAnswer(message, sent=not refused) from error
        return Answer(
            response.status_code, response.content, {name.lower(): value for name, value in response.headers.items()}
        )


def pause_before_retry(state: tenacity.RetryCallState) -> float:
    """
    Tell how long to wait before the next attempt: what the server asks for, else longer each time, with jitter.

    :param state: tenacity's account of the attempts so far
    """
    error = state.outcome and state.outcome.exception()
    if isinstance(error, HopsworksError) and error.retry_after is not None:
        return min(error.retry_after, _LONGEST_PAUSE)
    return tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE)(state)


def _cause(error: BaseException) -> str:
    """Say the innermost reason, without the addresses in memory that the outer ones carry."""
    reason = getattr(error.args[0], "reason", error.args[0]) if error.args else error
    return str(reason).rpartition(">: ")[2] or type(error).__name__
