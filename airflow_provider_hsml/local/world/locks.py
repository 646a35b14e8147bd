"""
The lock of a deployment: Hopsworks takes it for each change, and while it reads logs.

A change that finds it taken is refused, 500/240004. Reading takes it from changes, not from other readers.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from airflow_provider_hsml.local.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator


class Locks:
    """The locks of all deployments of a project, by their ids. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed: set[int] = set()
        self._readers: dict[int, int] = {}
        self._left: dict[int, float] = {}

    @contextlib.contextmanager
    def changing(self, deployment: int) -> Iterator[None]:
        """
        Hold it for a change.

        :raises Refusal: it is taken
        """
        with self._lock:
            reasons = {
                "it is being changed": deployment in self._changed,
                "its logs are being read": self._readers.get(deployment, 0) > 0,
                "a lock was left behind": self._left.get(deployment, 0) > time.monotonic(),
            }
            if reason := next((reason for reason, holds in reasons.items() if holds), None):
                raise Refusal(240004, f"Deployment {deployment} is busy: {reason}. Try again.")
            self._changed.add(deployment)
        try:
            yield
        finally:
            with self._lock:
                self._changed.discard(deployment)

    @contextlib.contextmanager
    def reading(self, deployment: int) -> Iterator[None]:
        """Hold it for reading logs."""
        with self._lock:
            self._readers[deployment] = self._readers.get(deployment, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._readers[deployment] -= 1

    def leave(self, deployment: int, seconds: float) -> None:
        """Leave it behind for so long, as a server does that dies in a change."""
        with self._lock:
            self._left[deployment] = time.monotonic() + seconds

    def forget(self) -> None:
        """End those that were left behind."""
        with self._lock:
            self._left.clear()
