"""
The cluster: commands to deployments, carried out as Kubernetes would.

The stored settings of a deployment (``world.deployments``) change at once. The cluster follows later, in a thread for
each change; a newer change cancels an older one. The rules:

- ``Slot.current`` answers predictions. It is replaced only by instances that are ready, and drained after that.
- ``Slot.incoming`` is starting. When it fails, ``current`` keeps answering, and the status is Failed.
- During a hand-over requests go to either: the new instance beside the old one before Running is shown, the old one
  beside the new one for a while after it.
- The ingress gets its route some time after the first Running since a START, and loses it with a STOP.
- The status is the last one that the cluster has shown, never one that the stored settings imply.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from . import states
from .behaviour import Behaviour
from .change_runner import ChangeRunner
from .rollout_controller import RolloutController
from .slots import Slot, Slots
from .states import Status
from .traffic import Traffic
from .watch import Watch

if TYPE_CHECKING:
    from .behaviour import Profile, Speeds
    from .changes import Change
    from .engines import Engine
    from .faults import Faults
    from .rollouts import Wanted


class Cluster:
    """
    Runs the instances of deployments: the commands to it; ``slots`` answers reads, ``traffic`` leads requests.

    :param engine: runs the models
    :param speeds: durations of transitions
    :param profile: the ways of a cluster to imitate
    :param faults: failures on command
    """

    def __init__(self, engine: Engine, speeds: Speeds, profile: Profile, faults: Faults) -> None:
        closing = threading.Event()
        self._closing = closing
        self._behaviour = Behaviour(speeds, profile)
        self._faults = faults
        self.slots = Slots()
        """The state of each deployment."""
        self.runner = ChangeRunner(self.slots, faults, closing)
        """The changes in progress."""
        self.traffic = Traffic(engine, self.slots, self._behaviour, closing)
        """Requests to instances."""
        self._controller = RolloutController(engine, self.slots, self._behaviour, faults, closing)
        self._watch = Watch(self.slots, self._behaviour, self.runner, self._controller, closing)
        self._watch.start()

    @property
    def speeds(self) -> Speeds:
        """The durations of transitions; may be replaced at any time, for later changes."""
        return self._behaviour.speeds

    @speeds.setter
    def speeds(self, speeds: Speeds) -> None:
        self._behaviour.speeds = speeds

    @property
    def profile(self) -> Profile:
        """The ways of a cluster that are imitated; may be replaced at any time, for later changes."""
        return self._behaviour.profile

    @profile.setter
    def profile(self, profile: Profile) -> None:
        self._behaviour.profile = profile

    def prepare(self, deployment: int, name: str) -> None:
        """Add a new deployment: Creating, then Created."""
        slot = Slot(name, Status.CREATING, states.PREPARING)

        def work(change: Change) -> None:
            change.pause(self.speeds.creating)
            change.reach(Status.CREATED)
            self.slots.show(slot, change, Status.CREATED, states.NOT_RUNNING)

        with self.slots.lock:
            self.slots.add(deployment, slot)
            self.runner.begin(slot, work)

    def adopt(self, deployment: int, name: str, *, has_run: bool) -> None:
        """Add a deployment of an earlier server, with nothing running."""
        self.slots.add(deployment, Slot(name, Status.STOPPED if has_run else Status.CREATED, states.NOT_RUNNING))

    def start(self, deployment: int, wanted: Wanted) -> None:
        """Start a deployment: Starting, then Running or Failed."""
        slot = self.slots[deployment]

        def work(change: Change) -> None:
            self._controller.roll_out(slot, wanted, change, Status.STARTING, self.speeds.starting)

        with self.slots.lock:
            slot.status, slot.condition = Status.STARTING, states.SCHEDULING
            self.runner.begin(slot, work)

    def update(self, deployment: int, wanted: Wanted) -> None:
        """
        Replace the running instances; the old ones answer meanwhile.

        The status stays Running for a while, then is Updating, then Running or Failed.
        """
        slot, profile = self.slots[deployment], self.profile
        shown = Status.UPDATING if profile.shows_updating else None

        def work(change: Change) -> None:
            if profile.row_first:
                change.pause(self.speeds.stale)
            change.reach(Status.UPDATING)
            self._controller.roll_out(slot, wanted, change, shown, self.speeds.updating)

        with self.slots.lock:
            is_lost = self._faults.for_change(slot.name) is not None
            if not profile.row_first and shown and not is_lost:
                slot.status, slot.condition = shown, states.SCHEDULING
            elif profile.stale_status == "Idle" and slot.status.is_up:
                slot.status, slot.pretends_idle = Status.IDLE, True
            if not is_lost:
                self.runner.begin(slot, work)

    def stop(self, deployment: int) -> None:
        """Stop a deployment: Stopping, then Stopped. The logs of one that is Failed are archived first."""
        slot = self.slots[deployment]
        with self.slots.lock:
            failed = slot.rollouts if slot.status is Status.FAILED else []
        for rollout in failed:
            rollout.archive_logs()

        def work(change: Change) -> None:
            with self.slots.lock:
                ending = slot.rollouts
                slot.current = slot.incoming = slot.sharing = None
                slot.draining = ending
            change.pause(self.speeds.stopping / 2)
            self.slots.show(slot, change, Status.STOPPING, states.STOPPING)
            for rollout in ending:
                self._controller.end(rollout)
            change.pause(self.speeds.stopping / 2)
            change.reach(Status.STOPPED)
            with self.slots.lock:
                slot.draining = []
            self.slots.show(slot, change, Status.STOPPED, states.NOT_RUNNING)

        with self.slots.lock:
            slot.status, slot.condition, slot.pretends_idle = Status.STOPPING, states.UNSCHEDULING, False
            slot.routed_at = None
            self.runner.begin(slot, work)

    def remove(self, deployment: int) -> None:
        """Delete a deployment; its instances end in the background."""
        with self.slots.lock:
            slot = self.slots.remove(deployment)
            ending = slot.rollouts

        def work(_change: Change) -> None:
            for rollout in ending:
                self._controller.end(rollout)

        self.runner.begin(slot, work)

    def close(self) -> None:
        """End all instances, and return when they have ended."""
        self._closing.set()
        slots = self.slots.all()
        self.runner.close()
        self._watch.join()
        rollouts = [rollout for slot in slots for rollout in slot.rollouts]
        enders = [threading.Thread(target=r.instance.stop) for r in rollouts if r.instance is not None]
        for thread in enders:
            thread.start()
        for thread in enders:
            thread.join()
