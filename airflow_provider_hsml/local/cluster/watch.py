"""The thread that watches running instances: it detects crashes, and stops idle ones."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from . import states
from .states import Status

if TYPE_CHECKING:
    from .behaviour import Behaviour
    from .change_runner import ChangeRunner
    from .changes import Change
    from .rollout_controller import RolloutController
    from .rollouts import Rollout, Wanted
    from .slots import Slot, Slots

_TICK = 0.05
"""Seconds between two checks of all instances."""


class Watch:
    """
    Watches the running instances of all deployments, until the cluster closes.

    :param closing: set when the cluster closes
    """

    def __init__(
        self,
        slots: Slots,
        behaviour: Behaviour,
        runner: ChangeRunner,
        controller: RolloutController,
        closing: threading.Event,
    ) -> None:
        self._slots = slots
        self._behaviour = behaviour
        self._runner = runner
        self._controller = controller
        self._closing = closing
        self._thread = threading.Thread(target=self._run, name="hsml-local-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(_TICK):
            with self._slots.lock:
                running = [(slot, slot.current) for slot in self._slots.all() if slot.current is not None]
            for slot, rollout in running:
                if rollout.instance is None:
                    continue
                if failure := rollout.failure():
                    self._handle_crash(slot, rollout, failure)
                elif rollout.wanted.minimum == 0 and slot.status is Status.RUNNING:
                    self._stop_when_idle(slot, rollout)

    def _handle_crash(self, slot: Slot, rollout: Rollout, failure: str) -> None:
        """Show a crashed deployment as Failed, and restart it where its fault says so."""
        with self._slots.lock:
            if slot.current is not rollout:
                return
            slot.current = None
            is_seen = slot.status.is_up
            if is_seen:
                slot.incoming = rollout  # Keeps its logs readable: they hold the reason.
                slot.status, slot.condition = Status.FAILED, states.failed("STARTED", failure)
        self._controller.end(rollout)
        if is_seen and rollout.fault is not None and rollout.fault.lasts is not None:
            self._restart(slot, rollout.wanted, rollout.fault.lasts)

    def _restart(self, slot: Slot, wanted: Wanted, seconds: float) -> None:
        """Start a crashed deployment again, after some seconds."""

        def work(change: Change) -> None:
            change.pause(seconds)
            self._controller.roll_out(slot, wanted, change, Status.STARTING, self._behaviour.speeds.starting)

        with self._slots.lock:
            if slot.status is Status.FAILED and slot in self._slots.all():
                self._runner.begin(slot, work)

    def _stop_when_idle(self, slot: Slot, rollout: Rollout) -> None:
        """Stop the instance of a deployment without recent requests; the deployment is Idle then."""
        with self._slots.lock:
            idle_after = self._behaviour.speeds.idle_after
            is_busy = rollout.in_flight or time.monotonic() - rollout.last_asked < idle_after
            if is_busy or slot.current is not rollout or slot.status is not Status.RUNNING:
                return
            slot.status, instance, rollout.instance = Status.IDLE, rollout.instance, None
            rollout.is_scheduled = False
        if instance is not None:
            instance.stop()
