"""
A deadline for a blocking exchange: a thread shuts the connection then, whatever the exchange is doing.

The timeouts of sockets are for each read alone, so a server that sends a byte now and then would never meet them. One
thread watches all exchanges of the process: to start one for each would cost more than the rest of a request.
"""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable


_IDLE_SECONDS = 1.0
"""Seconds without an exchange after which the thread ends."""


class _Watch:
    """Watches the exchanges of this process, in a thread that lives as long as there are some."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._exchanges: set[Watchdog] = set()
        self._thread: threading.Thread | None = None
        self._looks_at = 0.0
        """When the thread looks next, by ``time.monotonic``."""

    def add(self, exchange: Watchdog) -> None:
        """Watch an exchange."""
        with self._condition:
            self._exchanges.add(exchange)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hsml-watchdog", daemon=True)
                self._thread.start()
            elif exchange.deadline < self._looks_at:
                self._condition.notify()

    def remove(self, exchange: Watchdog) -> None:
        """Stop watching an exchange."""
        with self._condition:
            self._exchanges.discard(exchange)

    def _run(self) -> None:
        idle_since: float | None = None
        with self._condition:
            while True:
                now = time.monotonic()
                for exchange in [one for one in self._exchanges if one.deadline <= now]:
                    self._exchanges.discard(exchange)
                    exchange.cut()
                idle_since = None if self._exchanges else idle_since or now
                if idle_since is not None and now - idle_since >= _IDLE_SECONDS:
                    self._thread = None
                    return
                self._looks_at = min((one.deadline for one in self._exchanges), default=now + _IDLE_SECONDS)
                self._condition.wait(min(self._looks_at - now, threading.TIMEOUT_MAX))


_watch = _Watch()


def _forget() -> None:
    """Begin anew in a process that was forked: its parent's thread is not in it."""
    global _watch  # noqa: PLW0603 - the one of the process
    _watch = _Watch()


os.register_at_fork(after_in_child=_forget)


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
        self.deadline = 0.0
        """By ``time.monotonic``."""
        self._seconds = seconds
        self._lock = threading.Lock()
        self._handles: list[socket.socket] = []

    def __enter__(self) -> Self:
        """Start the time."""
        self.extend()
        _watch.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        _watch.remove(self)
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()

    def extend(self) -> None:
        """Start the time again."""
        self.deadline = time.monotonic() + self._seconds

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

    def cut(self) -> None:
        """Shut the connections: the deadline has passed."""
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
