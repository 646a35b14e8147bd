"""Servers on loopback that answer what a test says, and a client that is driven from outside its event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.transport.async_client import AsyncClient
from tests.support.samples import PROJECT

if TYPE_CHECKING:
    import ssl

    from airflow_provider_hsml.hopsworks.api import Call
    from airflow_provider_hsml.hopsworks.domain.access import Access
    from airflow_provider_hsml.hopsworks.transport.client import Client

T = TypeVar("T")

Connect: TypeAlias = "Callable[..., Client | Driven]"
KEY = "prefix.secretpart"
OK: tuple[int, dict[str, str], bytes] = (200, {}, b"[]")
LIST = api.get_deployments(PROJECT)
PUT = api.put_deployment(PROJECT, {"name": "x"})


class Request(BaseHTTPRequestHandler):
    """A request, as a server of the tests gets it."""

    content: bytes


Handle = Callable[[Request], tuple[int, dict[str, str], bytes]]


@contextmanager
def serving(handle: Handle, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve on loopback; give the address."""

    class Handler(Request):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.content = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, content = handle(self)
            self.send_response(status)
            for name, value in ({"content-length": str(len(content))} | headers).items():
                self.send_header(name, value)
            with suppress(ConnectionError):  # Who asked may have left.
                self.end_headers()
                self.wfile.write(content)
            if headers.get("content-length"):
                self.close_connection = True

        do_GET = do_PUT = do_POST = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Driven:
    """The asynchronous client, asked from outside its event loop."""

    def __init__(self, access: Access, *, sleep: Callable[[float], None]) -> None:
        async def pause(seconds: float) -> None:
            sleep(seconds)

        self._client = AsyncClient(access, sleep=pause)
        self._runner = asyncio.Runner()

    def send(self, call: Call[T]) -> T:
        return self._runner.run(self._client.send(call))

    @property
    def project(self) -> api.Project:
        return self._runner.run(self._client.project())

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


class Seen:
    """Counts requests and gives one answer after another, the last for ever."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self.answers = list(answers)
        self.paths: list[str] = []
        self.keys: list[str | None] = []

    def __call__(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        self.paths.append(request.path)
        self.keys.append(request.headers["authorization"])
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
