"""
What runs: rollouts of deployments, and the status and condition that come of them, as Kubernetes would tell.

A deployment's row (``deployments``) says what is wanted, and changes at once. The cluster follows, later, in a thread
for each change; a newer change cancels an older one. The rules:

- ``current`` answers predictions. It is replaced only by instances that are ready, and drained after that.
- ``incoming`` is on its way; when it fails, ``current`` goes on answering, and the status is Failed.
- While the one hands over to the other, requests go to either: the new one beside the old before Running is shown,
  the old one beside the new for a while after it.
- The route from the ingress is there some time after the first Running since a START, and goes with a STOP.
- The status is what this module last saw, never what a row says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from airflow_provider_hsml.local.errors import Refusal

from . import states
from .changes import CancelledError, Change
from .engines import StartError
from .rollouts import Rollout, Slot, UnreachedError, new_logs
from .states import Condition, State, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .behaviour import Looks, Profile, Speeds
    from .engines import Component, Engine, Instance, ModelFiles, Stage
    from .faults import Faults
    from .rollouts import Wanted

log = logging.getLogger(__name__)

_TICK = 0.05
"""Seconds between two looks for instances that crashed or were not asked for a while."""


class Cluster:
    """
    Runs the deployments' instances.

    :param engine: how models are run
    :param speeds: how long transitions last; may be replaced at any time, for what comes after
    :param profile: which of a cluster's ways it has
    :param faults: what goes wrong on command
    """

    def __init__(self, engine: Engine, speeds: Speeds, profile: Profile, faults: Faults) -> None:
        self.speeds = speeds
        self.profile = profile
        self._faults = faults
        self._engine = engine
        self._lock = threading.RLock()
        self._slots: dict[int, Slot] = {}
        self._threads: set[threading.Thread] = set()
        self._is_closing = threading.Event()
        self._watch = threading.Thread(target=self._keep_watch, name="hsml-local-watch", daemon=True)
        self._watch.start()

    # --- What is seen

    def state(self, deployment: int) -> State:
        """Look at a deployment."""
        with self._lock:
            slot = self._slots[deployment]
            has_instance = slot.current is not None and slot.current.instance is not None
            if slot.pretends_idle or not has_instance or slot.current is None:
                return State(slot.status, slot.condition, 0)
            return State(slot.status, slot.condition, max(1, slot.current.wanted.minimum))

    def look(self, deployment: int) -> State:
        """Look at a deployment as a client does: transitions that are paced by looks go by these."""
        with self._lock:
            change = self._slots[deployment].cancelled
        if change is None:
            return self.state(deployment)
        change.catch_up()
        with self._lock:
            seen = self.state(deployment)
            change.count_look()
            return seen

    def answering(self, deployment: int) -> ModelFiles | None:
        """Give what really answers, whatever the row says; None when nothing does."""
        with self._lock:
            current = self._slots[deployment].current
            return None if current is None else current.wanted.model

    def logs(self, deployment: int, component: Component, tail: int) -> list[tuple[str, str]]:
        """
        Give (instance, last lines) of each of a component's instances, during a hand-over of the old and the new ones.

        :raises Refusal: there are none in this status
        """
        with self._lock:
            slot = self._slots[deployment]
            if not slot.status.has_logs:
                raise Refusal(240027, f"Deployment {slot.name} is {slot.status}: it has no logs.")
            logs = [rollout.logs[component] for rollout in slot.all if component in rollout.logs]
            return [(log.instance, log.tail(tail)) for log in logs]

    def is_routed(self, deployment: int) -> bool:
        """Say whether the ingress knows the way to a deployment."""
        with self._lock:
            slot = self._slots.get(deployment)
            return slot is not None and slot.routed_at is not None and slot.routed_at <= time.monotonic()

    @contextlib.asynccontextmanager
    async def asked(self, deployment: int) -> AsyncIterator[Instance]:
        """
        Take an instance that answers, for one request. An idle deployment is woken, which takes a while.

        :raises UnreachedError: nothing answers
        """
        with self._lock:
            slot = self._slots.get(deployment)
            if slot is None:
                raise UnreachedError(404)
            rollout = slot.whose_turn(unreached_every=self.profile.hand_over_503_every)
            rollout.in_flight += 1
        try:
            instance = rollout.instance
            yield instance if instance is not None else await asyncio.to_thread(self._woken, slot, rollout)
        finally:
            with self._lock:
                rollout.in_flight -= 1
                rollout.last_asked = time.monotonic()

    # --- What is commanded

    def prepare(self, deployment: int, name: str) -> None:
        """Take a new deployment in: Creating, then Created."""
        slot = Slot(name, Status.CREATING, states.PREPARING)

        def work(cancelled: Change) -> None:
            cancelled.pause(self.speeds.creating)
            cancelled.reach(Status.CREATED)
            self._see(slot, cancelled, Status.CREATED, states.NOT_RUNNING)

        with self._lock:
            self._slots[deployment] = slot
            self._change(slot, work)

    def adopt(self, deployment: int, name: str, *, has_run: bool) -> None:
        """Take a deployment in as it was before a restart, with nothing running."""
        with self._lock:
            status = Status.STOPPED if has_run else Status.CREATED
            self._slots[deployment] = Slot(name, status, states.NOT_RUNNING)

    def start(self, deployment: int, wanted: Wanted) -> None:
        """Start a deployment: Starting, then Running or Failed."""
        slot = self._slots[deployment]

        def work(cancelled: Change) -> None:
            self._roll_out(slot, wanted, cancelled, Status.STARTING, self.speeds.starting)

        with self._lock:
            slot.status, slot.condition = Status.STARTING, states.SCHEDULING
            self._change(slot, work)

    def update(self, deployment: int, wanted: Wanted) -> None:
        """Replace what runs: Running for a while yet, Updating, then Running or Failed; what ran answers meanwhile."""
        slot, profile = self._slots[deployment], self.profile
        shown = Status.UPDATING if profile.shows_updating else None

        def work(cancelled: Change) -> None:
            if profile.row_first:
                cancelled.pause(self.speeds.stale)
            cancelled.reach(Status.UPDATING)
            self._roll_out(slot, wanted, cancelled, shown, self.speeds.updating)

        with self._lock:
            is_lost = self._faults.for_change(slot.name) is not None
            if not profile.row_first and shown and not is_lost:
                slot.status, slot.condition = shown, states.SCHEDULING
            elif profile.stale_status == "Idle" and slot.status.is_up:
                slot.status, slot.pretends_idle = Status.IDLE, True
            if not is_lost:
                self._change(slot, work)

    def stop(self, deployment: int) -> None:
        """Stop a deployment: Stopping, then Stopped."""
        slot = self._slots[deployment]

        def work(cancelled: Change) -> None:
            with self._lock:
                gone = slot.all
                slot.current = slot.incoming = slot.sharing = None
                slot.draining = gone
            cancelled.pause(self.speeds.stopping / 2)
            self._see(slot, cancelled, Status.STOPPING, states.STOPPING)
            for rollout in gone:
                self._end(rollout)
            cancelled.pause(self.speeds.stopping / 2)
            cancelled.reach(Status.STOPPED)
            with self._lock:
                slot.draining = []
            self._see(slot, cancelled, Status.STOPPED, states.NOT_RUNNING)

        with self._lock:
            slot.status, slot.condition, slot.pretends_idle = Status.STOPPING, states.UNSCHEDULING, False
            slot.routed_at = None
            self._change(slot, work)

    def remove(self, deployment: int) -> None:
        """Forget a deployment; what it ran ends in the background."""
        with self._lock:
            slot = self._slots.pop(deployment)
            gone = slot.all

        def work(_cancelled: Change) -> None:
            for rollout in gone:
                self._end(rollout)

        self._change(slot, work)

    def close(self) -> None:
        """End all that runs, and return when it has ended."""
        self._is_closing.set()
        with self._lock:
            slots = list(self._slots.values())
            for slot in slots:
                if slot.cancelled is not None:
                    slot.cancelled.set()
            threads = list(self._threads)
        for thread in [*threads, self._watch]:
            thread.join()
        rollouts = [rollout for slot in slots for rollout in slot.all]
        enders = [threading.Thread(target=r.instance.stop) for r in rollouts if r.instance is not None]
        for thread in enders:
            thread.start()
        for thread in enders:
            thread.join()

    # --- How it is done

    def _change(self, slot: Slot, work: Callable[[Change], None]) -> None:
        """Do something to a deployment in a thread, instead of what is under way."""

        def run() -> None:
            try:
                work(cancelled)
            except CancelledError:
                pass
            except Exception as error:
                log.exception("The change of deployment %s failed", slot.name)
                with self._lock:
                    slot.status, slot.condition = Status.FAILED, Condition("INITIALIZED", False, f"{error!r}")
            finally:
                cancelled.end()
                with self._lock:
                    self._threads.discard(threading.current_thread())

        with self._lock:
            if slot.cancelled is not None:
                slot.cancelled.set()
            cancelled = slot.cancelled = Change(slot.name, self._faults)
            if self._is_closing.is_set():
                return
            thread = threading.Thread(target=run, name=f"hsml-local-{slot.name}", daemon=True)
            self._threads.add(thread)
        thread.start()

    def _see(self, slot: Slot, cancelled: Change, status: Status | None, condition: Condition) -> None:
        """Set what is seen of a deployment (None: it does not show), unless a newer change is at it."""
        with self._lock:
            if cancelled.is_set():
                raise CancelledError
            if status is not None:
                slot.status, slot.condition, slot.pretends_idle = status, condition, False

    def _roll_out(
        self, slot: Slot, wanted: Wanted, cancelled: Change, status: Status | None, pace: float | Looks
    ) -> None:
        """Bring new instances up, let them answer, and drain the old ones."""
        self._see(slot, cancelled, status, states.SCHEDULING)
        cancelled.pause(pace / 4)
        rollout = Rollout(wanted, new_logs(wanted), fault=self._faults.for_start(slot.name))
        with self._lock:
            if cancelled.is_set():
                raise CancelledError
            # What is left of a rollout that was cancelled has been ended by the thread that brought it up.
            slot.incoming = rollout
        try:
            self._suffer(slot, rollout, cancelled, status, "SCHEDULED")
            self._await_gpus(slot, rollout, cancelled, status)
            self._see(slot, cancelled, status, states.INITIALIZING)
            cancelled.pause(pace / 4)
            self._suffer(slot, rollout, cancelled, status, "INITIALIZED")
            self._see(slot, cancelled, status, states.STARTING)
            self._suffer(slot, rollout, cancelled, status, "STARTED")
            instance = self._engine.start(wanted.model, rollout.logs, cancelled, self.speeds.load_timeout)
        except StartError as error:
            self._see(slot, cancelled, Status.FAILED, states.failed(error.stage, error.reason))
            return
        rollout.instance = instance
        try:
            cancelled.pause(pace / 4)
            self._see(slot, cancelled, status, states.CONNECTING)
            self._suffer(slot, rollout, cancelled, status, "READY")
            self._share(slot, cancelled, rollout)
            cancelled.pause(pace / 4)
            cancelled.reach(Status.RUNNING)
            with self._lock:
                self._see(slot, cancelled, Status.RUNNING, states.READY)
                rollout.last_asked = time.monotonic()
                if rollout.fault is not None and rollout.fault.crash_after is not None:
                    rollout.crashes_at = time.monotonic() + rollout.fault.crash_after
                replaced, slot.current, slot.incoming, slot.sharing = slot.current, rollout, None, None
                if slot.routed_at is None:
                    slot.routed_at = time.monotonic() + (self.speeds.routing if self.profile.late_route else 0)
                if replaced is not None:
                    slot.draining.append(replaced)
        except StartError as error:
            self._end(rollout)
            self._see(slot, cancelled, Status.FAILED, states.failed(error.stage, error.reason))
            return
        except CancelledError:
            with self._lock:
                if slot.sharing is rollout:
                    slot.sharing = None
            self._end(rollout)
            raise
        if replaced is not None:
            self._hand_over(slot, cancelled, replaced)

    def _share(self, slot: Slot, cancelled: Change, other: Rollout) -> None:
        """Let another instance answer in turn with the current one, where there is one and the profile says so."""
        with self._lock:
            is_awake = slot.current is not None and slot.current.instance is not None and other.instance is not None
            if is_awake and self.profile.shared_hand_over and not cancelled.is_set():
                slot.sharing = other

    def _hand_over(self, slot: Slot, cancelled: Change, replaced: Rollout) -> None:
        """Let what was replaced answer for a while yet, and end it."""
        cancelled.end()
        self._share(slot, cancelled, replaced)
        if slot.sharing is replaced:
            cancelled.wait(self.speeds.handing_over)
        with self._lock:
            if slot.sharing is replaced:
                slot.sharing = None
        self._end(replaced)
        with self._lock:
            slot.draining = [rollout for rollout in slot.draining if rollout is not replaced]

    def _suffer(self, slot: Slot, rollout: Rollout, cancelled: Change, status: Status | None, stage: Stage) -> None:
        """Let the fault of a rollout strike, if this is its stage: for good, or until it has lasted long enough."""
        fault = rollout.fault
        if fault is None or fault.stage != stage or fault.crash_after is not None:
            return
        if stage == "STARTED":
            rollout.logs["predictor"].write(fault.reason)
        if fault.lasts is None:
            raise StartError(stage, fault.reason)
        self._see(slot, cancelled, Status.FAILED, states.failed(stage, fault.reason))
        cancelled.pause(fault.lasts)
        self._see(slot, cancelled, status or Status.RUNNING, states.UNDER_WAY[stage])

    def _await_gpus(self, slot: Slot, rollout: Rollout, cancelled: Change, status: Status | None) -> None:
        """Wait until the cluster has the GPUs that a rollout needs, unschedulable for as long as it takes."""
        if self._take_gpus(rollout):
            return
        reason = f"0/1 nodes are available: 1 Insufficient nvidia.com/gpu ({self.profile.gpus} in all)."
        self._see(slot, cancelled, Status.FAILED, states.failed("SCHEDULED", reason))
        while not self._take_gpus(rollout):
            cancelled.pause(_TICK)
        self._see(slot, cancelled, status or Status.RUNNING, states.SCHEDULING)

    def _take_gpus(self, rollout: Rollout) -> bool:
        with self._lock:
            held = (rollout for slot in self._slots.values() for rollout in slot.all)
            taken = sum(each.wanted.gpus for each in held if each.is_scheduled)
            total, needed = self.profile.gpus, rollout.wanted.gpus
            rollout.is_scheduled = not needed or total is None or taken + needed <= total
            return rollout.is_scheduled

    def _end(self, rollout: Rollout) -> None:
        """Let an instance finish its requests, then end it."""
        deadline = time.monotonic() + self.speeds.drain_timeout
        while rollout.in_flight and time.monotonic() < deadline and not self._is_closing.is_set():
            time.sleep(0.005)
        with rollout.waking:
            instance, rollout.instance = rollout.instance, None
        if instance is not None:
            instance.stop()

    def _woken(self, slot: Slot, rollout: Rollout) -> Instance:
        """Bring the instance of an idle deployment up again; of several requests, one does it and the others wait."""
        with rollout.waking:
            if rollout.instance is not None:
                return rollout.instance
            rollout.logs = new_logs(rollout.wanted)
            try:
                if not self._take_gpus(rollout):
                    raise StartError("SCHEDULED", "all GPUs are taken")
                instance = self._engine.start(
                    rollout.wanted.model, rollout.logs, self._is_closing, self.speeds.load_timeout
                )
            except StartError as error:
                raise UnreachedError(504, "upstream request timeout") from error
            with self._lock:
                rollout.instance = instance
                if slot.current is rollout and slot.status is Status.IDLE and not slot.pretends_idle:
                    slot.status, slot.condition = Status.RUNNING, states.READY
            return instance

    def _keep_watch(self) -> None:
        """See instances that crash, and put those to sleep that nobody asks."""
        while not self._is_closing.wait(_TICK):
            with self._lock:
                running = [(slot, slot.current) for slot in self._slots.values() if slot.current is not None]
            for slot, rollout in running:
                if rollout.instance is None:
                    continue
                if failure := rollout.failure():
                    self._see_crash(slot, rollout, failure)
                elif rollout.wanted.minimum == 0 and slot.status is Status.RUNNING:
                    self._sleep_when_idle(slot, rollout)

    def _see_crash(self, slot: Slot, rollout: Rollout, failure: str) -> None:
        with self._lock:
            if slot.current is not rollout:
                return
            slot.current = None
            is_seen = slot.status.is_up
            if is_seen:
                slot.incoming = rollout  # Its logs say why.
                slot.status, slot.condition = Status.FAILED, states.failed("STARTED", failure)
        self._end(rollout)
        if is_seen and rollout.fault is not None and rollout.fault.lasts is not None:
            self._restart(slot, rollout.wanted, rollout.fault.lasts)

    def _restart(self, slot: Slot, wanted: Wanted, seconds: float) -> None:
        """Start what crashed again, after a while."""

        def work(cancelled: Change) -> None:
            cancelled.pause(seconds)
            self._roll_out(slot, wanted, cancelled, Status.STARTING, self.speeds.starting)

        with self._lock:
            if slot.status is Status.FAILED and slot in self._slots.values():
                self._change(slot, work)

    def _sleep_when_idle(self, slot: Slot, rollout: Rollout) -> None:
        with self._lock:
            is_asked = rollout.in_flight or time.monotonic() - rollout.last_asked < self.speeds.idle_after
            if is_asked or slot.current is not rollout or slot.status is not Status.RUNNING:
                return
            slot.status, instance, rollout.instance = Status.IDLE, rollout.instance, None
            rollout.is_scheduled = False
        if instance is not None:
            instance.stop()
