"""The synchronous client, which sends calls with ``requests``. For workers, where blocking is fine."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, TypeVar

import requests
import tenacity

from airflow_provider_hsml.hopsworks.api import Answer, Call, Project
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.flow import bounded, drive
from airflow_provider_hsml.hopsworks.inference.ingress import find_project

from . import request
from .body import PIECE
from .watchdog import GuardedConnection, Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.domain.access import Access

T = TypeVar("T")


class Client:
    """
    A client for one project of one Hopsworks.

    It keeps its connections open: use one client per task, not one per request. It is not thread-safe.
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
        Prepare the client, without any I/O on the network.

        :param sleep: waits the given seconds between attempts; an exception from it ends the attempts
        :param on_new_key: called with a renewed key before the key is used
        :param attempts: maximum number of attempts per call; None for the default of tasks
        :param on_answer: called with the parsed result of each call
        :raises InvalidInputError: the CA file cannot be read
        """
        self.access = access
        self.deadline = math.inf
        """
        The end of the wait that this client reads for, in seconds since 1970: its reads end by then. A change lifts it,
        since each wait after a change has a deadline of its own.
        """
        self.sleep = sleep
        """Waits the given seconds between attempts."""
        self._key = access.key
        self._on_new_key = on_new_key
        self._attempts = attempts
        self._on_answer = on_answer
        self._adapter = _Adapter()
        self._headers = requests.utils.default_headers()
        self._proxies: dict[str, dict[str, str]] = {}
        """The proxy for each address, as the environment names it when the client first sends a request there."""
        self._verify = request.trusted(access)
        if isinstance(self._verify, str):
            request.context_of(self._verify)  # Raises an error that explains the fault of a broken CA file.
        self._project: Project | None = None

    @property
    def project(self) -> Project:
        """The project, looked up on first use."""
        if self._project is None:
            self._project = drive(find_project(self.access), self.send, self.sleep)
        return self._project

    def send(self, call: Call[T]) -> T:
        """
        Send a call and return its result. Transient failures of repeatable calls are retried.

        :raises HopsworksError: the call failed; the class tells how
        """
        if call.repeatable:
            call = bounded(call, self.deadline, time.time)
        else:
            self.deadline = math.inf
        attempts = tenacity.Retrying(sleep=self.sleep, **request.attempts(call, self._attempts))
        try:
            outcome: T = attempts(self._send_once, call, time.monotonic())
        except HopsworksError as error:
            raise request.without_causes(error) from None
        self._on_answer(outcome)
        return outcome

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()

    def _send_once(self, call: Call[T], begun: float) -> T:
        used = self._key
        answer = self._exchange(request.within_time(call, begun))
        if answer.status == 401 and self._renew(used):
            answer = self._exchange(request.within_time(call, begun))
        return call.outcome(answer)

    def _renew(self, used: str) -> bool:
        """Reread the key, and return whether it differs from the one that was used."""
        key = request.read_key(self.access)
        if self._key == used and key not in (None, used):
            self._on_new_key(key)
            self._key = key
        return self._key != used

    def _exchange(self, call: Call[Any]) -> Answer:
        one = request.HttpRequest(self.access, call, self._key)
        with Watchdog(one.seconds) as watchdog:
            self._adapter.exchange.watchdog = watchdog
            try:
                return self._receive(one, watchdog)
            except (HopsworksError, OSError) as error:
                if watchdog.has_cut:
                    raise one.not_in_time(is_connected=watchdog.is_connected) from error
                raise

    def _prepared(self, one: request.HttpRequest) -> requests.PreparedRequest:
        prepared = requests.PreparedRequest()
        prepared.prepare_method(one.method)
        prepared.prepare_url(one.url, None)
        prepared.prepare_headers({**self._headers, **one.headers})
        prepared.prepare_body(one.content or one.fields, one.files)
        return prepared

    def _receive(self, one: request.HttpRequest, watchdog: Watchdog) -> Answer:
        if one.base not in self._proxies:
            proxy = request.proxy_for(one.base)
            self._proxies[one.base] = {"all": proxy} if proxy else {}
        try:
            # Without a session, which costs as much as the exchange itself, and follows redirects and keeps cookies.
            response = self._adapter.send(
                self._prepared(one),
                stream=True,
                timeout=(one.connect_seconds, one.seconds),
                verify=self._verify,
                proxies=self._proxies[one.base],
            )
            headers = {name.lower(): value for name, value in response.headers.items()}
            with response, one.receive(response.status_code, headers) as body:
                # With a chunk of the size -1, read would take everything. Before 2.1, urllib3 has no read1.
                read = getattr(response.raw, "read1", response.raw.read)
                while data := read(PIECE, decode_content=False):
                    if body.add(data) and body.is_file:
                        watchdog.extend()
                if watchdog.has_cut:  # A body without a length just ends with its connection.
                    raise one.not_answered()
                return Answer(response.status_code, body.finish(), headers)
        except requests.exceptions.ConnectTimeout as error:
            raise one.not_connected() from error
        except requests.exceptions.Timeout as error:
            raise one.not_answered() from error
        except requests.exceptions.RequestException as error:
            # A ValueError after that is about the response: a malformed header, for example.
            if isinstance(error, ValueError) and not watchdog.is_connected:
                raise one.not_sendable(error) from error
            raise one.failed(error, unreached=not watchdog.is_connected) from error
        except requests.exceptions.BaseHTTPError as error:  # type: ignore[attr-defined]  # urllib3's, from the body
            raise (
                one.not_answered() if "Read timed out" in str(error) else one.failed(error, unreached=False)
            ) from error


class _Exchange:
    """The current exchange of a client."""

    watchdog: Watchdog | None = None


class _Adapter(requests.adapters.HTTPAdapter):
    """
    Makes connections that are guarded by the watchdog of the current exchange.

    They know the exchange and not this adapter: urllib3 closes the connections of a pool when the pool is collected,
    and keeps them until then, so a connection that led to its pool would stay open for ever.
    """

    def __init__(self) -> None:
        self.exchange = _Exchange()
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the connections without a proxy."""
        super().init_poolmanager(*args, **kwargs)
        self._guard(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Create, or return, the connections through a proxy."""
        return self._guard(super().proxy_manager_for(*args, **kwargs))

    def _guard(self, manager: Any) -> Any:
        pools = manager.pool_classes_by_scheme
        if not any(issubclass(pool.ConnectionCls, GuardedConnection) for pool in pools.values()):
            manager.pool_classes_by_scheme = {scheme: self._guarded(pool) for scheme, pool in pools.items()}
        return manager

    def _guarded(self, pool: Any) -> Any:
        exchange = self.exchange
        current = staticmethod(lambda: exchange.watchdog)
        connection = type("Connection", (GuardedConnection, pool.ConnectionCls), {"watchdog": current})
        return type(pool.__name__, (pool,), {"ConnectionCls": connection})
