"""
A deadline for a blocking exchange: a thread shuts the connection then, whatever the exchange is doing.

The timeouts of sockets are for each read alone, so a server that sends a byte now and then would never meet them.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Watchdog:
    """
    Shuts the connections of one exchange at its deadline. Use it as a context around the exchange.

    :param seconds: from entering the context to the deadline
    """

    def __init__(self, seconds: float) -> None:
        self.has_cut = False
        """Whether the deadline has passed."""
        self.is_connected = False
        """Whether there was a connection, so that the request may have been sent."""
        self._seconds = seconds
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._handles: list[socket.socket] = []
        self._thread = threading.Thread(target=self._watch, name="hsml-watchdog", daemon=True)

    def __enter__(self) -> Self:
        """Start the time."""
        self.extend()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._is_over.set()
        self._thread.join()
        for handle in self._handles:
            handle.close()

    def extend(self) -> None:
        """Start the time again."""
        self._deadline = time.monotonic() + self._seconds

    def guard(self, connection: socket.socket) -> None:
        """
        Shut this connection at the deadline, too.

        :param connection: a socket, or a TLS object around one
        """
        # A handle of our own: who uses the connection may wrap or close theirs meanwhile.
        handle = socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        with self._lock:
            self._handles.append(handle)
            if self.has_cut:
                _shut(handle)

    def _watch(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            if self._is_over.wait(left):
                return
        with self._lock:
            self.has_cut = True
            for handle in self._handles:
                _shut(handle)


def _shut(handle: socket.socket) -> None:
    with suppress(OSError):  # The other side was faster.
        handle.shutdown(socket.SHUT_RDWR)


class GuardedConnection(http.client.HTTPConnection):
    """A mixin for connections of ``http.client``: each exchange is guarded by the watchdog of its time."""

    watchdog: Callable[[], Watchdog | None]
    _dns_host: str

    def _new_conn(self) -> socket.socket:
        """Connect, and share the timeout among the host's addresses: it would be allowed to each of them."""
        whole: Any = self.timeout
        with suppress(OSError, UnicodeError):  # The connection attempt itself tells this better.
            addresses = socket.getaddrinfo(self._dns_host.strip("[]"), self.port, type=socket.SOCK_STREAM)
            self.timeout = whole / len(addresses)
        try:
            connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        finally:
            self.timeout = whole
        connection.settimeout(whole)
        if (watchdog := self.watchdog()) is not None:
            watchdog.guard(connection)
        return connection

    def connect(self) -> None:
        """Connect, with the TLS handshake if there is one."""
        super().connect()
        if (watchdog := self.watchdog()) is not None:
            watchdog.is_connected = True

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, over a connection that may be open since an earlier one."""
        if self.sock is not None and (watchdog := self.watchdog()) is not None:
            watchdog.guard(self.sock)
            watchdog.is_connected = True
        super().request(*args, **kwargs)
