"""
The asynchronous client, which sends calls with ``httpx2`` or ``httpx``. For the triggerer, where nothing may block.

Airflow brings one of the two: ``httpx`` up to 3.3, ``httpx2`` from 3.4 on. They have the same names.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from airflow_provider_hsml.hopsworks.api import Answer, Call, Project
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.flow import drive_async
from airflow_provider_hsml.hopsworks.inference.ingress import find_project

from . import request
from .batching import Poller
from .once import Once

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx

    from airflow_provider_hsml.hopsworks.domain.access import Access
    from airflow_provider_hsml.hopsworks.flow import Flow
else:
    try:
        import httpx2 as httpx
    except ImportError:
        import httpx

T = TypeVar("T")

MAX_REQUESTS = 8
"""Requests in progress at once: thousands of waits must not send a burst to the server."""
_LARGE = 1 << 20
"""Bytes above which a response is parsed off the event loop: as much as a list of 700 deployments."""


async def _nothing(_key: str) -> None:
    """Do nothing with a new key."""


class AsyncClient:
    """
    A client for one project of one Hopsworks, on one event loop, for any number of tasks at once.

    It keeps its connections open: use one client for all triggers, not one for each.
    """

    def __init__(
        self,
        access: Access,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_new_key: Callable[[str], Awaitable[None]] = _nothing,
    ) -> None:
        """
        Prepare the client, without any I/O on the network.

        :param sleep: waits the given seconds between attempts; an exception from it ends the attempts
        :param on_new_key: called with a renewed key before the key is used
        :raises InvalidInputError: the CA file cannot be read
        """
        self.access = access
        self._sleep = sleep
        self._key = access.key
        self._on_new_key = on_new_key
        trusted = request.trusted(access)
        # Created once: it takes 20 ms.
        self._tls = (
            request.context_of(trusted)
            if isinstance(trusted, str)
            else httpx.create_ssl_context(verify=trusted, trust_env=False)
        )
        # Not left to httpx, which walks through all waiting requests whenever a connection is free.
        self._few = asyncio.Semaphore(MAX_REQUESTS)
        # Parsed JSON takes up to 30 times the memory of a response: one large response at a time.
        self._parsing = asyncio.Lock()
        self._places: dict[str, httpx.AsyncClient] = {}
        with contextlib.suppress(ImportError, ValueError, InvalidInputError):
            self._place(access.url)  # The first one imports httpcore, which must not block the event loop later.
        self._project = Once(lambda: drive_async(find_project(access), self.send, sleep))
        self._poller = Poller(self.send, self.project)

    async def project(self) -> Project:
        """Return the project, which is looked up once for all callers."""
        return await self._project.get()

    async def drive(self, flow: Flow[T], deadline: float) -> T:
        """
        Run a flow, and share its polls with all other flows of this client.

        :param deadline: seconds since 1970, by which pauses end and a failing poll raises its error
        """
        ends = deadline - time.time() + time.monotonic()
        poller = self._poller
        send, poll_again = (functools.partial(do, deadline=ends) for do in (poller.send, poller.poll_again))
        return await drive_async(flow, send, poller.sleep, poll_again)

    async def send(self, call: Call[T]) -> T:
        """
        Send a call and return its result. Transient failures of repeatable calls are retried.

        :raises HopsworksError: the call failed; the class tells how
        """
        attempts = tenacity.AsyncRetrying(sleep=self._sleep, **request.attempts(call))
        try:
            outcome: T = await attempts(self._send_once, call, time.monotonic())
        except HopsworksError as error:
            raise request.without_causes(error) from None
        return outcome

    async def close(self) -> None:
        """Close the connections."""
        self._project.cancel()
        self._poller.close()
        for place in self._places.values():
            await place.aclose()

    async def _send_once(self, call: Call[T], begun: float) -> T:
        used = self._key
        answer = await self._exchange(request.within_time(call, begun))
        if answer.status == 401 and await self._renew(used):
            answer = await self._exchange(request.within_time(call, begun))
        if len(answer.content) > _LARGE:
            async with self._parsing:
                return await asyncio.to_thread(call.outcome, answer)
        return call.outcome(answer)

    async def _renew(self, used: str) -> bool:
        """Reread the key, unless another task has; return whether it differs from the one that was used."""
        key = request.read_key(self.access)
        if self._key == used and key not in (None, used):
            await self._on_new_key(key)
            self._key = key
        return self._key != used

    async def _exchange(self, call: Call[Any]) -> Answer:
        async with self._few:
            one = request.HttpRequest(self.access, call, self._key)
            is_connected = False

            async def trace(event: str, info: Mapping[str, Any]) -> None:
                nonlocal is_connected
                is_sending = event == "http11.send_request_headers.started"
                is_connected = is_connected or (is_sending and info["request"].method != b"CONNECT")

            try:
                return await self._receive(one, trace)
            except TimeoutError as error:
                raise one.not_in_time(is_connected=is_connected) from error
            except httpx.ConnectTimeout as error:
                raise one.not_connected() from error
            except httpx.TimeoutException as error:
                raise one.not_answered() from error
            except httpx.HTTPError as error:
                raise one.failed(error, unreached=not is_connected) from error
            except OSError as error:  # TLS errors while an answer is read are not wrapped.
                raise one.failed(error, unreached=not is_connected) from error
            except (ImportError, ValueError, httpx.InvalidURL) as error:
                # After the request was sent, such an error is about the response.
                raise (one.failed(error, unreached=False) if is_connected else one.not_sendable(error)) from error

    async def _receive(self, one: request.HttpRequest, trace: Callable[..., Awaitable[None]]) -> Answer:
        async with (
            asyncio.timeout(one.seconds) as deadline,
            self._place(one.base).stream(
                one.method,
                one.url,
                headers=one.headers,
                content=one.content,
                data=one.fields,
                files=one.files,
                timeout=httpx.Timeout(one.seconds, connect=one.connect_seconds),
                follow_redirects=False,
                extensions={"trace": trace},
            ) as response,
        ):
            headers = dict(response.headers)
            with one.receive(response.status_code, headers) as body:
                stream: Any = response.stream  # aiter_raw would free the connection for other requests at its end.
                async for data in stream:
                    if body.add(data) and body.is_file:
                        deadline.reschedule(asyncio.get_running_loop().time() + one.seconds)
                if not _is_last_byte_read(response):
                    await response.extensions["network_stream"].aclose()
                return Answer(response.status_code, body.finish(), headers)

    def _place(self, base: str) -> httpx.AsyncClient:
        """Return the connections to one address: Hopsworks or its ingress."""
        if base not in self._places:
            proxy = request.proxy_for(base)
            transport = httpx.AsyncHTTPTransport(
                verify=self._tls,
                limits=httpx.Limits(max_connections=MAX_REQUESTS, keepalive_expiry=60),
                trust_env=False,
                proxy=httpx.Proxy(proxy) if proxy else None,
            )
            self._places[base] = httpx.AsyncClient(
                transport=transport,
                trust_env=False,
                cookies=CookieJar(request.NO_COOKIES),
                event_hooks={"response": [_drop_location]},
            )
        return self._places[base]


async def _drop_location(response: httpx.Response) -> None:
    """Remove the target of a redirect: even without following it, httpx would parse it, and fail if it is malformed."""
    response.headers.pop("location", None)


def _is_last_byte_read(response: httpx.Response) -> bool:
    """
    Whether no byte has arrived after the response: httpx would take it for the response to the next request.

    There is no public way to see this. Where an httpx is built in another way, the connection is not used again.
    """
    link: Any = response.stream
    for name in ("_stream", "_httpcore_stream", "_stream", "_connection", "_h11_state"):
        link = getattr(link, name, None)
    return link is not None and link.trailing_data[0] == b""
