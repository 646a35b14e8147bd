"""One change of a deployment in progress: its pauses (seconds, or polls), its holds, and its cancellation."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from .behaviour import Looks

if TYPE_CHECKING:
    from .faults import Faults

_TICK = 0.01
_CATCH_UP = 1.0
"""Seconds that a poll waits for the effect of an earlier poll."""


class CancelledError(Exception):
    """A newer change replaced this one."""


class Change(threading.Event):
    """
    One change of one deployment. The event is set when a newer change replaces this one.

    :param deployment: the deployment's name
    :param faults: its holds may keep the change from a status
    """

    def __init__(self, deployment: str, faults: Faults) -> None:
        super().__init__()
        self._deployment = deployment
        self._faults = faults
        self._lock = threading.Lock()
        self._polls = 0
        self._due = 0.0
        self._is_let_go = False
        """Whether a poll has just ended a pause, and clients do not see the effect yet. ``catch_up`` waits for it."""

    def pause(self, pace: float | Looks) -> None:
        """
        Wait for a part of the change.

        :param pace: seconds, or polls; fractions of polls add up
        :raises CancelledError: a newer change has replaced this one
        """
        if not isinstance(pace, Looks):
            self._wait(max(0.0, pace))
            return
        self._due += pace.number
        while True:
            with self._lock:
                if self._polls >= self._due:
                    return
                self._is_let_go = False
            self._wait(_TICK)

    def reach(self, status: str) -> None:
        """
        Wait while a hold keeps the deployment from a status.

        :raises CancelledError: a newer change has replaced this one
        """
        while self._faults.holds(self._deployment, status):
            self._is_let_go = False
            self._wait(_TICK)

    def end(self) -> None:
        """Mark the change as complete: nothing visible follows."""
        self._is_let_go = False

    def catch_up(self) -> None:
        """Wait for the effect of an earlier poll, so that the next one sees it."""
        deadline = time.monotonic() + _CATCH_UP
        while self._is_let_go and time.monotonic() < deadline:
            time.sleep(0.001)

    def count_poll(self) -> None:
        """Count a poll of the deployment."""
        with self._lock:
            if self._polls < self._due <= self._polls + 1:
                self._is_let_go = True
            self._polls += 1

    def _wait(self, seconds: float) -> None:
        if self.wait(seconds):
            raise CancelledError
