"""The state of each deployment on the cluster: a ``Slot``, and ``Slots``, the table that clients' reads go to."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_hsml.local.errors import Refusal

from .changes import CancelledError
from .states import State

if TYPE_CHECKING:
    from .changes import Change
    from .engines import Component, ModelFiles
    from .rollouts import Rollout
    from .states import Condition, Status


@dataclass(slots=True, eq=False)
class Slot:
    """The state of one deployment on the cluster. Guarded by ``Slots.lock``."""

    name: str
    status: Status
    condition: Condition
    current: Rollout | None = None
    incoming: Rollout | None = None
    sharing: Rollout | None = None
    """Answers in turn with ``current`` during a hand-over."""
    turns: int = 0
    """Requests so far that were answered during a hand-over."""
    routed_at: float | None = None
    """When the ingress gets its route (monotonic); None before the first Running since a START."""
    draining: list[Rollout] = field(default_factory=list)
    change: Change | None = None
    """The change in progress, or the last one. A newer one cancels it by setting this event, and replaces it."""
    pretends_idle: bool = False
    """Whether the status is Idle only because a change has not reached the status yet."""

    @property
    def rollouts(self) -> list[Rollout]:
        """All rollouts that hold or held instances, oldest first."""
        return [rollout for rollout in (*self.draining, self.current, self.incoming) if rollout is not None]


class Slots:
    """The slots by deployment id, and the state that clients see. Thread-safe: ``lock`` guards every slot."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._by_id: dict[int, Slot] = {}

    def __getitem__(self, deployment: int) -> Slot:
        with self.lock:
            return self._by_id[deployment]

    def get(self, deployment: int) -> Slot | None:
        """Return the slot of a deployment, or None."""
        with self.lock:
            return self._by_id.get(deployment)

    def all(self) -> list[Slot]:
        """Return the slots of all deployments."""
        with self.lock:
            return list(self._by_id.values())

    def add(self, deployment: int, slot: Slot) -> None:
        """Add the slot of a new deployment."""
        with self.lock:
            self._by_id[deployment] = slot

    def remove(self, deployment: int) -> Slot:
        """Remove and return the slot of a deleted deployment."""
        with self.lock:
            return self._by_id.pop(deployment)

    # --- Reads

    def state(self, deployment: int) -> State:
        """Return the state of a deployment, without counting as a client's poll."""
        with self.lock:
            slot = self._by_id[deployment]
            has_instance = slot.current is not None and slot.current.instance is not None
            if slot.pretends_idle or not has_instance or slot.current is None:
                return State(slot.status, slot.condition, 0)
            return State(slot.status, slot.condition, max(1, slot.current.wanted.minimum))

    def poll(self, deployment: int) -> State:
        """Return the state of a deployment to a client. Transitions that are paced by ``Looks`` count these polls."""
        change = self[deployment].change
        if change is None:
            return self.state(deployment)
        change.catch_up()
        with self.lock:
            seen = self.state(deployment)
            change.count_poll()
            return seen

    def answering(self, deployment: int) -> ModelFiles | None:
        """Return the model that answers now, independent of the stored settings; None when none does."""
        with self.lock:
            current = self._by_id[deployment].current
            return None if current is None else current.wanted.model

    def logs(self, deployment: int, component: Component, tail: int) -> list[tuple[str, str]]:
        """
        Return (instance, last lines) of each instance of a component; old and new ones during a hand-over.

        :raises Refusal: a deployment in this status has no logs
        """
        with self.lock:
            slot = self._by_id[deployment]
            if not slot.status.has_logs:
                raise Refusal(240027, f"Deployment {slot.name} is {slot.status}: it has no logs.")
            logs = [rollout.logs[component] for rollout in slot.rollouts if component in rollout.logs]
            return [(log.instance, log.tail(tail)) for log in logs]

    # --- Updates

    def show(self, slot: Slot, change: Change, status: Status | None, condition: Condition) -> None:
        """
        Set the status and condition that clients see.

        :param status: None leaves status and condition as they are
        :raises CancelledError: a newer change has replaced this one
        """
        with self.lock:
            if change.is_set():
                raise CancelledError
            if status is not None:
                slot.status, slot.condition, slot.pretends_idle = status, condition, False

    def schedule(self, rollout: Rollout, gpus: int | None) -> bool:
        """
        Reserve the GPUs that a rollout needs, and return whether they were free.

        :param gpus: the number of GPUs of the cluster; None: unlimited
        """
        with self.lock:
            held = (rollout for slot in self._by_id.values() for rollout in slot.rollouts)
            taken = sum(each.wanted.gpus for each in held if each.is_scheduled)
            needed = rollout.wanted.gpus
            rollout.is_scheduled = not needed or gpus is None or taken + needed <= gpus
            return rollout.is_scheduled
