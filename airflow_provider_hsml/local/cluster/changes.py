"""A change of a deployment that is under way: its pace (seconds, or looks at it), its holds, its end before time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from .behaviour import Looks

if TYPE_CHECKING:
    from .faults import Faults

_TICK = 0.01
_CATCH_UP = 1.0
"""Seconds for which a look waits for what an earlier look has set going."""


class CancelledError(Exception):
    """A newer change replaced this one."""


class Change(threading.Event):
    """
    One change of one deployment. It is set when a newer one replaces it.

    :param deployment: the deployment's name
    :param faults: where it may be held
    """

    def __init__(self, deployment: str, faults: Faults) -> None:
        super().__init__()
        self._deployment = deployment
        self._faults = faults
        self._lock = threading.Lock()
        self._looks = 0
        self._due = 0.0
        self._is_let_go = False
        """Whether a look has ended a pause, and what comes after it is not seen yet."""

    def pause(self, pace: float | Looks) -> None:
        """
        Let time go by.

        :param pace: seconds, or looks; fractions of looks add up
        :raises CancelledError: a newer change has come
        """
        if not isinstance(pace, Looks):
            self._wait(max(0.0, pace))
            return
        self._due += pace.number
        while True:
            with self._lock:
                if self._looks >= self._due:
                    return
                self._is_let_go = False
            self._wait(_TICK)

    def reach(self, status: str) -> None:
        """
        Wait while the deployment is held from a status.

        :raises CancelledError: a newer change has come
        """
        while self._faults.holds(self._deployment, status):
            self._is_let_go = False
            self._wait(_TICK)

    def end(self) -> None:
        """Say that nothing more will change."""
        self._is_let_go = False

    def catch_up(self) -> None:
        """Wait for what an earlier look has set going, so that the next one sees it."""
        deadline = time.monotonic() + _CATCH_UP
        while self._is_let_go and time.monotonic() < deadline:
            time.sleep(0.001)

    def count_poll(self) -> None:
        """Count a look at the deployment."""
        with self._lock:
            if self._looks < self._due <= self._looks + 1:
                self._is_let_go = True
            self._looks += 1

    def _wait(self, seconds: float) -> None:
        if self.wait(seconds):
            raise CancelledError
