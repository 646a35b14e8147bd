"""What the cluster knows of a deployment: its ``Slot``, with the ``Rollout`` of each revision that is about."""

from __future__ import annotations

import secrets
import string
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .engines import InstanceLog

if TYPE_CHECKING:
    from .changes import Change
    from .engines import Component, Instance, ModelFiles
    from .faults import StartFault
    from .states import Condition, Status

CUT_OFF = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"


class UnreachedError(Exception):
    """
    A request did not get to an instance.

    :param status: what the ingress answers to it
    :param text: its body, in the words of Envoy; empty where there is no route
    """

    def __init__(self, status: int, text: str = "") -> None:
        self.status = status
        self.text = text
        super().__init__(f"{status}: {text}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a rollout is to run."""

    revision: str
    model: ModelFiles
    minimum: int
    """Instances at the least; 0: none while nobody asks."""
    gpus: int = 0
    """How many an instance needs."""


@dataclass(slots=True, eq=False)
class Rollout:
    """The instances of one revision. ``instance`` is None before it is ready, and while it is idle."""

    wanted: Wanted
    logs: dict[Component, InstanceLog]
    instance: Instance | None = None
    in_flight: int = 0
    last_asked: float = field(default_factory=time.monotonic)
    waking: threading.Lock = field(default_factory=threading.Lock)
    is_scheduled: bool = False
    """Whether it has the GPUs that it needs."""
    fault: StartFault | None = None
    crashes_at: float | None = None
    """When the fault strikes (monotonic)."""

    def failure(self) -> str | None:
        """Say why its instance crashed, by itself or on command; None while it is alive, or where there is none."""
        if self.fault is None or self.crashes_at is None or time.monotonic() < self.crashes_at:
            return self.instance.failure() if self.instance is not None else None
        self.logs["predictor"].write(self.fault.reason)
        return self.fault.reason


@dataclass(slots=True, eq=False)
class Slot:
    """All that the cluster knows of one deployment."""

    name: str
    status: Status
    condition: Condition
    current: Rollout | None = None
    incoming: Rollout | None = None
    sharing: Rollout | None = None
    """Answers in turn with ``current``, while one hands over to the other."""
    turns: int = 0
    routed_at: float | None = None
    """When the ingress knows the way (monotonic); None before the first Running since a START."""
    draining: list[Rollout] = field(default_factory=list)
    cancelled: Change | None = None
    """The change that is under way, or was the last: set when a newer one replaces it."""
    pretends_idle: bool = False
    """Whether the status is Idle only because a change has not arrived yet."""

    @property
    def all(self) -> list[Rollout]:
        """Those that run, or did, oldest first."""
        return [rollout for rollout in (*self.draining, self.current, self.incoming) if rollout is not None]

    def whose_turn(self, *, unreached_every: int) -> Rollout:
        """
        Take the instances that answer next: while the one hands over to the other, either in turn.

        :param unreached_every: of the requests in a hand-over, every how many-th reaches none; 0: each reaches one
        :raises UnreachedError: none answers
        """
        answering = [rollout for rollout in (self.current, self.sharing) if rollout is not None]
        if not answering:
            raise UnreachedError(503, "no healthy upstream")
        if len(answering) > 1:
            self.turns += 1
            if unreached_every and self.turns % unreached_every == 0:
                raise UnreachedError(503, CUT_OFF)
        return answering[self.turns % len(answering)]


def new_logs(wanted: Wanted) -> dict[Component, InstanceLog]:
    """Make the logs of new instances, one a component."""
    return {component: InstanceLog(_instance_name(wanted, component)) for component in wanted.model.components}


def _instance_name(wanted: Wanted, component: Component) -> str:
    """Name an instance as Kubernetes names a pod: deployment, component, revision, and two parts that are random."""
    letters = string.ascii_lowercase + string.digits
    tails = ("".join(secrets.choice(letters) for _ in range(length)) for length in (9, 5))
    return f"{wanted.model.deployment}-{component}-{wanted.revision}-deployment-{'-'.join(tails)}"
