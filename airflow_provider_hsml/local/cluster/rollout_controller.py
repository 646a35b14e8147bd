"""The steps of a change, in its thread: bring up the instance of a new rollout, let it answer, drain the old one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import states
from .changes import CancelledError
from .engines import StartError
from .rollouts import Rollout, new_logs
from .states import Status

if TYPE_CHECKING:
    import threading

    from .behaviour import Behaviour, Looks
    from .changes import Change
    from .engines import Engine, Stage
    from .faults import Faults
    from .rollouts import Wanted
    from .slots import Slot, Slots

_TICK = 0.05
"""Seconds between two checks for free GPUs."""


class RolloutController:
    """
    Replaces the instances of a deployment, step by step, as KServe does.

    Each step may raise ``CancelledError``: then a newer change has replaced this one.

    :param closing: set when the cluster closes; instances are not drained after that
    """

    def __init__(
        self, engine: Engine, slots: Slots, behaviour: Behaviour, faults: Faults, closing: threading.Event
    ) -> None:
        self._engine = engine
        self._slots = slots
        self._behaviour = behaviour
        self._faults = faults
        self._closing = closing

    def roll_out(self, slot: Slot, wanted: Wanted, change: Change, status: Status | None, pace: float | Looks) -> None:
        """
        Bring up new instances, let them answer, and drain the old ones.

        :param status: the status that clients see until Running; None: it stays as it is
        :param pace: of the whole rollout; each of its four phases takes a quarter
        """
        self._slots.show(slot, change, status, states.SCHEDULING)
        change.pause(pace / 4)
        rollout = Rollout(wanted, new_logs(wanted), fault=self._faults.for_start(slot.name))
        with self._slots.lock:
            if change.is_set():
                raise CancelledError
            # A cancelled rollout that was incoming before is ended by the thread that brought it up.
            slot.incoming = rollout
        try:
            self._bring_up(slot, rollout, change, status, pace)
        except StartError as error:
            self._slots.show(slot, change, Status.FAILED, states.failed(error.stage, error.reason))
            return
        try:
            replaced = self._go_live(slot, rollout, change, status, pace)
        except StartError as error:
            self.end(rollout)
            self._slots.show(slot, change, Status.FAILED, states.failed(error.stage, error.reason))
            return
        except CancelledError:
            with self._slots.lock:
                if slot.sharing is rollout:
                    slot.sharing = None
            self.end(rollout)
            raise
        if replaced is not None:
            self._hand_over(slot, change, replaced)

    def end(self, rollout: Rollout) -> None:
        """Let an instance finish its requests, then stop it."""
        deadline = time.monotonic() + self._behaviour.speeds.drain_timeout
        while rollout.in_flight and time.monotonic() < deadline and not self._closing.is_set():
            time.sleep(0.005)
        with rollout.waking:
            instance, rollout.instance = rollout.instance, None
        if instance is not None:
            instance.stop()

    def _bring_up(
        self, slot: Slot, rollout: Rollout, change: Change, status: Status | None, pace: float | Looks
    ) -> None:
        """
        Schedule, initialize and start the new instance.

        :raises StartError: it does not come up
        """
        self._apply_fault(slot, rollout, change, status, "SCHEDULED")
        self._wait_for_gpus(slot, rollout, change, status)
        self._slots.show(slot, change, status, states.INITIALIZING)
        change.pause(pace / 4)
        self._apply_fault(slot, rollout, change, status, "INITIALIZED")
        self._slots.show(slot, change, status, states.STARTING)
        self._apply_fault(slot, rollout, change, status, "STARTED")
        rollout.instance = self._engine.start(
            rollout.wanted.model, rollout.logs, change, self._behaviour.speeds.load_timeout
        )

    def _go_live(
        self, slot: Slot, rollout: Rollout, change: Change, status: Status | None, pace: float | Looks
    ) -> Rollout | None:
        """
        Make the new instance the one that answers, and return the rollout that it replaces.

        :raises StartError: its connectivity fails on command
        """
        change.pause(pace / 4)
        self._slots.show(slot, change, status, states.CONNECTING)
        self._apply_fault(slot, rollout, change, status, "READY")
        self._share(slot, change, rollout)
        change.pause(pace / 4)
        change.reach(Status.RUNNING)
        with self._slots.lock:
            self._slots.show(slot, change, Status.RUNNING, states.READY)
            rollout.last_asked = time.monotonic()
            if rollout.fault is not None and rollout.fault.crash_after is not None:
                rollout.crashes_at = time.monotonic() + rollout.fault.crash_after
            replaced, slot.current, slot.incoming, slot.sharing = slot.current, rollout, None, None
            if slot.routed_at is None:
                delay = self._behaviour.speeds.routing if self._behaviour.profile.late_route else 0
                slot.routed_at = time.monotonic() + delay
            if replaced is not None:
                slot.draining.append(replaced)
        return replaced

    def _share(self, slot: Slot, change: Change, other: Rollout) -> None:
        """Let another instance answer in turn with the current one, if there is one and the profile shares."""
        with self._slots.lock:
            is_awake = slot.current is not None and slot.current.instance is not None and other.instance is not None
            if is_awake and self._behaviour.profile.shared_hand_over and not change.is_set():
                slot.sharing = other

    def _hand_over(self, slot: Slot, change: Change, replaced: Rollout) -> None:
        """Let the replaced instance answer a little longer, then end it."""
        change.end()
        self._share(slot, change, replaced)
        if slot.sharing is replaced:
            change.wait(self._behaviour.speeds.handing_over)
        with self._slots.lock:
            if slot.sharing is replaced:
                slot.sharing = None
        self.end(replaced)
        with self._slots.lock:
            slot.draining = [rollout for rollout in slot.draining if rollout is not replaced]

    def _apply_fault(self, slot: Slot, rollout: Rollout, change: Change, status: Status | None, stage: Stage) -> None:
        """Apply the fault of a rollout if it belongs to this stage: for good, or for as long as the fault lasts."""
        fault = rollout.fault
        if fault is None or fault.stage != stage or fault.crash_after is not None:
            return
        if stage == "STARTED":
            rollout.logs["predictor"].write(fault.reason)
        if fault.lasts is None:
            raise StartError(stage, fault.reason)
        self._slots.show(slot, change, Status.FAILED, states.failed(stage, fault.reason))
        change.pause(fault.lasts)
        self._slots.show(slot, change, status or Status.RUNNING, states.UNDER_WAY[stage])

    def _wait_for_gpus(self, slot: Slot, rollout: Rollout, change: Change, status: Status | None) -> None:
        """Wait until the GPUs that a rollout needs are free; the deployment is unschedulable meanwhile."""
        gpus = self._behaviour.profile.gpus
        if self._slots.schedule(rollout, gpus):
            return
        reason = f"0/1 nodes are available: 1 Insufficient nvidia.com/gpu ({gpus} in all)."
        self._slots.show(slot, change, Status.FAILED, states.failed("SCHEDULED", reason))
        while not self._slots.schedule(rollout, self._behaviour.profile.gpus):
            change.pause(_TICK)
        self._slots.show(slot, change, status or Status.RUNNING, states.SCHEDULING)
