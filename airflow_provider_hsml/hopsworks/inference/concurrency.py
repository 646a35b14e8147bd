"""The number of requests at a time: fewer when the deployment is overloaded, more again when it is not."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InferenceError,
    NoResponseError,
    RequestRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.api import Call, Project

T = TypeVar("T")

_WINDOW = 40
"""Answered requests whose latencies are judged together."""
_RISE = 4
"""Windows without an overload after which one more request is sent at a time."""
_FORGET = 1.02
"""The factor by which the best latency is raised at each window: a deployment may become slower for good."""
_LONGEST_WAIT = 0.5
"""Seconds between two checks whether the work has ended."""


class Connection(Protocol):
    """A client that sends calls, for one thread."""

    def send(self, call: Call[T]) -> T:
        """Send a call, and return its result."""

    def close(self) -> None:
        """Close the connection."""


class Limit:
    """
    How many requests are sent at a time, in all threads together.

    It is halved after an answer that shows an overload (429, 503, a timeout), and cut by a quarter when the 95th
    percentile of the latencies has doubled. It rises by one after some time without either.

    :param most: the largest number
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = most
        self._sent = 0
        self._answered_since_cut = 0
        self._calm = 0
        self._best: float | None = None
        self._window: list[float] = []
        self._room = threading.Condition()

    def enter(self, check: Callable[[], object]) -> None:
        """
        Wait until one more request may be sent.

        :param check: raises an exception once the work has ended
        """
        with self._room:
            while self._sent >= self.now:
                self._room.wait(_LONGEST_WAIT)
                check()
            self._sent += 1

    def leave(self) -> None:
        """Count a request as ended."""
        with self._room:
            self._sent -= 1
            self._room.notify()

    def answered(self, seconds: float) -> None:
        """
        Count an answered request.

        :param seconds: its latency
        """
        with self._room:
            self._answered_since_cut += 1
            self._window.append(seconds)
            if len(self._window) < _WINDOW:
                return
            slow = sorted(self._window)[int(0.95 * _WINDOW)]
            self._window.clear()
            if self._best is not None and slow > 2 * self._best:
                self._cut(max(1, self.now * 3 // 4))
            else:
                self._calm += 1
                if self._calm >= _RISE and self.now < self.most:
                    self.now += 1
                    self._calm = 0
                    self._room.notify()
            self._best = slow if self._best is None else min(slow, self._best * _FORGET)

    def overloaded(self) -> None:
        """Count an answer that shows an overload. Those of requests that were sent before the last cut count once."""
        with self._room:
            if self._answered_since_cut > 0 or self.now == self.most:
                self._cut(max(1, self.now // 2))

    def _cut(self, to: int) -> None:
        self.now = to
        self._answered_since_cut = self._calm = 0
        self._window.clear()


@dataclass(slots=True)
class Lane:
    """The connection of one thread, whose requests to the deployment keep to the limit of all threads."""

    connection: Connection
    project: Project
    """The thread's own view of the project: an ingress keeps the addresses it has tried."""
    limit: Limit
    check: Callable[[], object]
    """Raises an exception once the work has ended."""
    seconds: float = 0.0
    """Seconds of the last request to the deployment, without the wait for the limit."""

    def send(self, call: Call[T]) -> T:
        """Send a call, and return its result. What Hopsworks itself is asked is not limited."""
        if not call.asks_deployment:
            return self.connection.send(call)
        self.limit.enter(self.check)
        begun = time.monotonic()
        try:
            answer = self.connection.send(call)
            self.seconds = time.monotonic() - begun  # Before another request may be sent.
        except HopsworksError as error:
            if is_overload(error):
                self.limit.overloaded()
            raise
        finally:
            self.limit.leave()
        self.limit.answered(self.seconds)
        return answer


def is_overload(error: HopsworksError) -> bool:
    """
    Return whether an error shows that a deployment gets more requests than it can answer.

    :param error: the error of a request
    """
    if isinstance(error, NoResponseError):
        return error.sent and error.transient
    if isinstance(error, InferenceError):
        return error.status in (408, 429, 503, 504)
    return isinstance(error, RequestRefusedError) and (error.status in (408, 429, 503, 504) or error.not_ready)
