"""Sends calls with ``requests``: for workers, where blocking is fine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import requests
import tenacity

from airflow_provider_hsml.hopsworks.api import Answer, Call, Project
from airflow_provider_hsml.hopsworks.flow import drive
from airflow_provider_hsml.hopsworks.inference.ingress import find_project

from . import request

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.domain.access import Access

T = TypeVar("T")


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
        attempts: int | None = None,
        on_answer: Callable[[Any], object] = lambda _answer: None,
    ) -> None:
        """
        Prepare, without talking to anybody.

        :param access: where Hopsworks is and how to get in
        :param sleep: how to wait between attempts, in seconds; one that raises ends them
        :param on_new_key: is given a key that was renewed, before it is used
        :param attempts: how often a call is sent at the most; None: as for a task
        :param on_answer: is given what each answer says
        :raises InvalidInputError: the CA cannot be read
        """
        self.access = access
        self._sleep = sleep
        self._key = access.key
        self._on_new_key = on_new_key
        self._attempts = attempts
        self._on_answer = on_answer
        self._session = requests.Session()
        self._session.trust_env = False
        self._verify = request.trusted(access)
        if isinstance(self._verify, str):
            request.context_of(self._verify)  # Says what is wrong with it, where something is.
        self._project: Project | None = None

    @property
    def project(self) -> Project:
        """The project, looked up on first use."""
        if self._project is None:
            self._project = drive(find_project(self.access), self.send, self._sleep)
        return self._project

    def send(self, call: Call[T]) -> T:
        """
        Send a call and read its answer; again, where that does no harm and may help.

        :param call: what to ask
        :raises HopsworksError: what went wrong, by its kind
        """
        attempts = tenacity.Retrying(sleep=self._sleep, **request.attempts(call, self._attempts))
        outcome: T = attempts(self._send_once, call)
        self._on_answer(outcome)
        return outcome

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _send_once(self, call: Call[T]) -> T:
        used = self._key
        answer = self._exchange(call)
        if answer.status == 401 and self._renew(used):
            answer = self._exchange(call)
        return call.outcome(answer)

    def _renew(self, used: str) -> bool:
        """Read the key anew, unless somebody has; tell whether there is another one than was used."""
        key = request.read_key(self.access)
        if self._key == used and key not in (None, used):
            self._on_new_key(key)
            self._key = key
        return self._key != used

    def _exchange(self, call: Call[Any]) -> Answer:
        one = request.Exchange(self.access, call, self._key)
        proxy = request.proxy_for(one.base)
        try:
            response = self._session.request(
                one.method,
                one.url,
                headers=one.headers,
                data=one.content or one.fields,
                files=one.files,
                timeout=(one.connect_seconds, one.seconds),
                allow_redirects=False,
                proxies={"all": proxy} if proxy else None,
                verify=self._verify,
            )
        except requests.exceptions.ConnectTimeout as error:
            raise one.not_connected() from error
        except requests.exceptions.Timeout as error:
            raise one.not_answered() from error
        except requests.exceptions.RequestException as error:
            if isinstance(error, ValueError):
                raise one.not_sendable(error) from error
            unreached = "NewConnectionError" in repr(error.args) or "NameResolutionError" in repr(error.args)
            raise one.failed(error, unreached=unreached) from error
        return Answer(
            response.status_code, response.content, {name.lower(): value for name, value in response.headers.items()}
        )
