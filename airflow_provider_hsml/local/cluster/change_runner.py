"""Runs each change of a deployment in a thread of its own; a newer change cancels the older one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from airflow_provider_hsml.local.logs import logger

from .changes import CancelledError, Change
from .states import Condition, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from .faults import Faults
    from .slots import Slot, Slots

log = logger(__name__)


class ChangeRunner:
    """
    Runs changes of deployments, one at a time for each deployment.

    :param closing: set when the cluster closes; no change begins after that
    """

    def __init__(self, slots: Slots, faults: Faults, closing: threading.Event) -> None:
        self._slots = slots
        self._faults = faults
        self._closing = closing
        self._threads: set[threading.Thread] = set()

    @property
    def is_busy(self) -> bool:
        """Whether a change is in progress."""
        return any(thread.is_alive() for thread in tuple(self._threads))

    def begin(self, slot: Slot, work: Callable[[Change], None]) -> None:
        """Cancel the deployment's change in progress, and begin another one in a thread."""
        with self._slots.lock:
            if slot.change is not None:
                slot.change.set()
            change = slot.change = Change(slot.name, self._faults)
            if self._closing.is_set():
                return
            thread = threading.Thread(
                target=self._run, args=[slot, change, work], name=f"hsml-local-{slot.name}", daemon=True
            )
            self._threads.add(thread)
        thread.start()

    def close(self) -> None:
        """Cancel all changes in progress, and return when their threads have ended."""
        with self._slots.lock:
            for slot in self._slots.all():
                if slot.change is not None:
                    slot.change.set()
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def _run(self, slot: Slot, change: Change, work: Callable[[Change], None]) -> None:
        try:
            work(change)
        except CancelledError:
            pass
        except Exception as error:
            log.exception("The change of deployment %s failed", slot.name)
            with self._slots.lock:
                slot.status, slot.condition = Status.FAILED, Condition("INITIALIZED", False, f"{error!r}")
        finally:
            change.end()
            with self._slots.lock:
                self._threads.discard(threading.current_thread())
