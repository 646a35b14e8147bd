"""Traffic: which instance answers a request, whether the ingress has a route, and how an idle deployment wakes up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from . import states
from .engines import StartError
from .rollouts import new_logs
from .states import Status

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator

    from .behaviour import Behaviour
    from .engines import Engine, Instance
    from .rollouts import Rollout
    from .slots import Slot, Slots

CUT_OFF = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"


class UnreachedError(Exception):
    """
    A request did not reach an instance.

    :param status: the status that the ingress answers
    :param text: the body, in the words of Envoy; empty where there is no route
    """

    def __init__(self, status: int, text: str = "") -> None:
        self.status = status
        self.text = text
        super().__init__(f"{status}: {text}")


class Traffic:
    """
    Leads requests to instances, and wakes idle deployments.

    :param closing: set when the cluster closes; a deployment that is waking up gives up then
    """

    def __init__(self, engine: Engine, slots: Slots, behaviour: Behaviour, closing: threading.Event) -> None:
        self._engine = engine
        self._slots = slots
        self._behaviour = behaviour
        self._closing = closing

    def is_routed(self, deployment: int) -> bool:
        """Whether the ingress has a route to a deployment."""
        with self._slots.lock:
            slot = self._slots.get(deployment)
            return slot is not None and slot.routed_at is not None and slot.routed_at <= time.monotonic()

    @contextlib.asynccontextmanager
    async def instance(self, deployment: int) -> AsyncIterator[Instance]:
        """
        Return the instance that answers one request. An idle deployment wakes up first, which takes a while.

        :raises UnreachedError: no instance answers
        """
        with self._slots.lock:
            slot = self._slots.get(deployment)
            if slot is None:
                raise UnreachedError(404)
            rollout = _next_in_turn(slot, unreached_every=self._behaviour.profile.hand_over_503_every)
            rollout.in_flight += 1
        try:
            instance = rollout.instance
            yield instance if instance is not None else await asyncio.to_thread(self._wake, slot, rollout)
        finally:
            with self._slots.lock:
                rollout.in_flight -= 1
                rollout.last_asked = time.monotonic()

    def _wake(self, slot: Slot, rollout: Rollout) -> Instance:
        """Start the instance of an idle deployment. Of several requests the first does it, the others wait."""
        with rollout.waking:
            if rollout.instance is not None:
                return rollout.instance
            rollout.logs = new_logs(rollout.wanted)
            try:
                if not self._slots.schedule(rollout, self._behaviour.profile.gpus):
                    raise StartError("SCHEDULED", "all GPUs are taken")
                instance = self._engine.start(
                    rollout.wanted.model, rollout.logs, self._closing, self._behaviour.speeds.load_timeout
                )
            except StartError as error:
                raise UnreachedError(504, "upstream request timeout") from error
            with self._slots.lock:
                rollout.instance = instance
                if slot.current is rollout and slot.status is Status.IDLE and not slot.pretends_idle:
                    slot.status, slot.condition = Status.RUNNING, states.READY
            return instance


def _next_in_turn(slot: Slot, *, unreached_every: int) -> Rollout:
    """
    Return the rollout whose instance answers the next request: during a hand-over the old and the new one in turn.

    :param unreached_every: during a hand-over every n-th request reaches no instance; 0: each reaches one
    :raises UnreachedError: no instance answers
    """
    answering = [rollout for rollout in (slot.current, slot.sharing) if rollout is not None]
    if not answering:
        raise UnreachedError(503, "no healthy upstream")
    if len(answering) > 1:
        slot.turns += 1
        if unreached_every and slot.turns % unreached_every == 0:
            raise UnreachedError(503, CUT_OFF)
    return answering[slot.turns % len(answering)]
