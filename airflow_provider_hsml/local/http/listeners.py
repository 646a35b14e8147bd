"""The two listeners of the local Model Serving, the REST API and the ingress, run by uvicorn in one thread."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import TYPE_CHECKING

import uvicorn

from airflow_provider_hsml.local.limits import LimitMiddleware

from .fault_middleware import Connections, FaultMiddleware
from .journal import JournalMiddleware

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp

    from airflow_provider_hsml.local.cluster.engines import Engine
    from airflow_provider_hsml.local.cluster.faults import Faults

    from .journal import Journal

HOST = "127.0.0.1"
_START_SECONDS = 30.0


class Listeners:
    """
    The sockets of both listeners, bound at once, and the thread that serves them.

    :param port: the port of the REST API; 0: a free one
    :param ingress_port: the port of the ingress; 0: a free one
    :raises OSError: a port is in use
    """

    def __init__(self, port: int, ingress_port: int) -> None:
        self._sockets: list[socket.socket] = []
        self._servers: list[uvicorn.Server] = []
        try:
            self._sockets.append(_bind("port", port))
            self._sockets.append(_bind("ingress-port", ingress_port))
        except BaseException:
            self.close()
            raise
        self.port, self.ingress_port = (bound.getsockname()[1] for bound in self._sockets)

    def start(self, servers: list[uvicorn.Server], engine: Engine) -> None:
        """
        Serve, and return when both listeners answer.

        :param servers: of the REST API and of the ingress, in this order
        :param engine: closed in the thread's event loop, after the servers have ended
        :raises RuntimeError: they did not start in time
        """
        self._servers = servers
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve(engine)], name="hsml-local", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not all(server.started for server in servers):
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(f"The local Model Serving did not start on port {self.port}: see its log.")
            time.sleep(0.005)

    def stop(self) -> None:
        """End both servers, and return when they have ended."""
        for server in self._servers:
            server.should_exit = True
        self._thread.join()
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        for bound in self._sockets:
            bound.close()

    async def _serve(self, engine: Engine) -> None:
        """
        Run both servers until they are told to end.

        Not with ``uvicorn.Server.run``: that uses uvloop where it is installed, and uvloop was seen to hang when it is
        closed in a thread.
        """
        pairs = zip(self._servers, self._sockets, strict=True)
        await asyncio.gather(*(server.serve(sockets=[bound]) for server, bound in pairs))
        await engine.aclose()


def make_server(
    app: ASGIApp, prefix: str, journal: Journal, faults: Faults, certificate_chain: Path | None = None
) -> uvicorn.Server:
    """
    Build the server of an application: its requests are recorded, may be spoiled by a fault, and have limits.

    :param prefix: left out of the paths in the journal and in faults
    :param certificate_chain: None: plain HTTP
    """
    connections = Connections()
    spoiled = FaultMiddleware(LimitMiddleware(app), faults, connections, prefix)
    return uvicorn.Server(
        uvicorn.Config(
            JournalMiddleware(spoiled, journal, prefix),
            http=connections.protocol(),
            log_config=None,
            access_log=False,
            ws="none",
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            ssl_certfile=certificate_chain,
            # The longest wait for a client that keeps its TLS connection open.
            timeout_graceful_shutdown=2,
            timeout_keep_alive=60,
        )
    )


def _bind(option: str, port: int) -> socket.socket:
    try:
        # A socket made from the descriptor knows its protocol. Without, asyncio does not switch Nagle's algorithm off,
        # and the body of an answer waits 40 ms for the client to acknowledge the head.
        return socket.socket(fileno=socket.create_server((HOST, port), backlog=256).detach())
    except OSError as error:
        text = (
            f"port {port} cannot be used ({error.strerror}): end the program that uses it, or give another --{option}."
        )
        raise OSError(error.errno, text) from error
