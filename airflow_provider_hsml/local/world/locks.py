"""
The locks of deployments: Hopsworks takes a deployment's lock for each change, and while it reads logs.

A change to a locked deployment is refused with 500/240004. Readers exclude changes, but not each other.
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
        Hold the lock of a deployment for a change.

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
        """Hold the lock of a deployment while its logs are read."""
        with self._lock:
            self._readers[deployment] = self._readers.get(deployment, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._readers[deployment] -= 1

    def leave(self, deployment: int, seconds: float) -> None:
        """Leave a stale lock behind for some seconds, like a server that crashes during a change."""
        with self._lock:
            self._left[deployment] = time.monotonic() + seconds

    def forget(self) -> None:
        """Remove all stale locks."""
        with self._lock:
            self._left.clear()
