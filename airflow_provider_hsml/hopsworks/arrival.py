"""
Has the change arrived? Bring a deployment to a wanted configuration, and know that it really serves.

What a GET says of version, revision and model is the row that our own PUT wrote; the cluster follows later, and a first
'Running' may still be the old instances. So an arrival is only believed when the state has been stable for a while, the
instances are new where their names are known, and the answers are right where answers were recorded.

``Roll`` judges one look after another and says what to do next; ``Arrival`` is the whole procedure around it. Neither
does any I/O.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import calls, scripts, stopping
from .deployments import Deployment
from .deployments import DeploymentStatus as Status
from .errors import BUSY_CODES, DeploymentFailed, HopsworksError, NotInTime, NotVerified, Refused, Superseded
from .predicting import Likeness
from .rollout import Moved, Next, Roll
from .sending import Change, PlanAnew
from .verifying import Verifier
from .waiting import Pace, Pause, Procedure, ask, explained, note_change, patiently

if TYPE_CHECKING:
    from .calls import Project
    from .models import ModelVersion
    from .settings import Wanted
    from .waiting import Clock

log = logging.getLogger(__name__)

STRANGERS = 2
"""How often somebody else may change it before a change of ours is given up."""
FIRST_PAUSE_START = 0.5
FIRST_PAUSE_UPDATE = 2.0
"""Faster looks after an update buy only stale answers."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """How it ended: what serves now, and how that is known."""

    deployment: Deployment
    action: str
    """created, updated, started, attached or unchanged."""
    verified_by: str | None = None
    """``fingerprint``, ``instances``, ``status``; None when nothing was waited for."""


@dataclass
class Arrival:
    """
    Brings one deployment to a wanted configuration: creates, updates, starts, attaches, or does nothing.

    Drive ``run()``. It reads first, and sends a change only against the state that it read.
    """

    project: Project
    name: str
    wanted: Wanted
    """Settings asked for; none given: only that it serves."""
    timeout: float
    """Seconds for one change: sent, arrived, first prediction answered."""
    interval: float
    """Seconds between looks, once it takes longer."""
    model: ModelVersion | None = None
    """The version to serve; needed to create, and to find what to ask it."""
    wait: bool = True
    """Whether to wait for the last change to arrive."""
    clock: Clock = time.time
    _change: Change = field(init=False)
    _verifier: Verifier = field(init=False)
    _old_names: frozenset[str] = frozenset()
    _seen: Deployment | None = None
    _action: str = ""
    _deadline: float = 0.0

    def run(self) -> Procedure[Arrived]:
        """
        Bring it about.

        :raises DeploymentFailed: its instances do not come up; with the end of the log
        :raises NotVerified: it serves, but answers otherwise than recorded
        :raises Superseded: somebody else is changing it
        :raises NotInTime: the timeout passed; asking again attaches to what is under way
        """
        self._deadline = self.clock() + self.timeout
        self._verifier = Verifier(self.project, self.name, self.clock)
        wanted = scripts.absolute(self.project, self.wanted)
        self._change = Change(self.project, self.name, wanted, self.model, self.interval, self._deadline, self.clock)
        return (yield from explained(self.project, self._converge()))

    def _converge(self) -> Procedure[Arrived]:
        pace = self._pace(FIRST_PAUSE_UPDATE)
        disturbed = 0
        while disturbed < STRANGERS:
            live = yield from self._change.look()
            if live is None:
                live, is_ours = yield from self._change.create()
                self._action = "created" if is_ours else ""
            try:
                return (yield from self._from(live))
            except PlanAnew as again:
                disturbed += not again.is_busy
                pause = pace.pause()
                if pause is None:
                    message = f"{live} was busy with something else until the timeout of {self.timeout:g} s."
                    raise NotInTime(message) from again
                yield Pause(pause)
        message = (
            f"Deployment {self.name!r} was changed by somebody else each time before a change of ours could be sent."
        )
        raise Superseded(message)

    def _from(self, live: Deployment) -> Procedure[Arrived]:
        """Go on from what is there."""
        if live.status in (Status.CREATING, Status.STOPPING):
            live = yield from self._change.stable(live)
        if self._change.differs(live):
            return (yield from self._update(live))
        if (yield from self._change.bring_tags(live)):
            self._action = self._action or "updated"
        if live.status.is_down:
            return (yield from self._start(live))
        if live.status in (Status.RUNNING, Status.IDLE):
            return (yield from self._unchanged(live))
        if live.status is Status.FAILED:
            return (yield from self._revive(live))
        log.info("%s: a rollout is under way; waiting for it", live)
        return (yield from self._arrive(live, Moved.CHANGE, "attached"))

    # --- Steps, each a change or none ---------------------------------------------------------------------------------

    def _unchanged(self, live: Deployment) -> Procedure[Arrived]:
        self._action = self._action or "unchanged"
        if live.status is Status.IDLE or not self.wait:
            return Arrived(live, self._action, "status" if self.wait else None)
        yield from self._read_probe(live)
        likeness = yield from self._verifier.ask_once(live)
        if likeness is Likeness.NEITHER:
            log.warning("%s: its answers are not those of the version; a rollout may be under way", live)
            self._action = "attached"
            return (yield from self._arrive(live, Moved.CHANGE, self._action))
        return Arrived(live, self._action, "fingerprint" if likeness is Likeness.CHALLENGER else "status")

    def _update(self, live: Deployment) -> Procedure[Arrived]:
        """Change what is there, against the state that was read."""
        yield from self._change.prepare_update(live)
        yield from self._read_probe(live)
        settled = yield from self._change.stable(live)
        if settled.signature != live.signature:
            raise PlanAnew
        live = settled
        newest = yield from patiently(calls.get_newest_version(self.project, live), self._pace(FIRST_PAUSE_UPDATE))
        if live.status is Status.RUNNING:
            self._old_names = yield from self._names(live)
            yield from self._verifier.remember_champion()
        row = yield from self._change.update(live, newest_version=newest)
        yield from self._change.bring_tags(row)
        if live.status.is_down:
            return (yield from self._start(row, "updated"))
        return (yield from self._arrive(row, Moved.CHANGE, "updated"))

    def _start(self, live: Deployment, action: str = "started") -> Procedure[Arrived]:
        """Start what is down."""
        self._action = self._action or action
        yield from self._read_probe(live)
        yield from self._send_start(live)
        return (yield from self._arrive(live, Moved.START, self._action))

    def _send_start(self, live: Deployment) -> Procedure[None]:
        log.info("Starting %s", live)
        pace = self._pace(FIRST_PAUSE_START)
        while True:
            try:
                yield from ask(calls.start_deployment(self.project, live))
            except HopsworksError as error:
                if not (error.in_doubt or error.transient):
                    raise
                if not (isinstance(error, Refused) and error.code in BUSY_CODES):
                    # Whether it was carried out is seen in the looks that follow; they ask again if it was not.
                    log.warning("%s; looking at what became of it", error)
                    return
                log.warning("%s; sending it again", error)
                pause = pace.pause(at_least=1.0)
                if pause is None:
                    message = f"{live} could not be started within {self.timeout:g} s: {error}"
                    raise NotInTime(message) from error
                yield Pause(pause)
            else:
                return

    def _revive(self, live: Deployment) -> Procedure[Arrived]:
        """Bring a Failed deployment back without taking down what may still answer."""
        yield from self._read_probe(live)
        action = self._action
        try:
            return (yield from self._arrive(live, Moved.CHANGE, "attached"))
        except DeploymentFailed as failed:
            self._action = action
            if (yield from self._verifier.answers()):
                message = (
                    f"{failed.deployment}: the last change does not come up ({failed.deployment.reason}), but the "
                    "revision before it still serves. Nothing was changed, since a restart would take that one down "
                    "too. Deploy another version."
                )
                raise NotVerified(message) from failed
        log.info("%s: nothing answers; stopping it to start it anew", live)
        yield from stopping.stop(self.project, live.name, self._pace(FIRST_PAUSE_START))
        stopped = yield from self._change.look()
        if stopped is None:
            raise PlanAnew
        return (yield from self._start(stopped))

    # --- Arriving -----------------------------------------------------------------------------------------------------

    def _arrive(self, live: Deployment, moved: Moved, action: str) -> Procedure[Arrived]:
        """Follow the rollout until the wanted configuration is what answers."""
        self._action = self._action or action
        if not self.wait:
            return Arrived(live, self._action)
        yield from self._read_probe(live)
        roll = Roll(
            moved,
            since=self.clock(),
            signature=None if moved is Moved.START else live.signature,
            old_names=self._old_names,
            can_wake=self._verifier.probe is not None,
        )
        pace = self._pace(FIRST_PAUSE_START if moved is Moved.START else FIRST_PAUSE_UPDATE)
        while True:
            deployment = yield from self._roll(live, roll, pace)
            likeness = yield from self._verifier.ask_in_a_row(deployment, roll)
            if likeness is not Likeness.CHAMPION:
                break
            roll.not_yet()
        if likeness is Likeness.CHALLENGER and (self._verifier.champion is not None or moved is Moved.START):
            verified_by = "fingerprint"
        elif roll.names_are_new or moved is Moved.START:
            verified_by = "instances"
        else:
            verified_by = "status"
        log.info("%s has arrived, verified by %s", deployment, verified_by)
        return Arrived(deployment, self._action, verified_by)

    def _roll(self, live: Deployment, roll: Roll, pace: Pace) -> Procedure[Deployment]:
        """Look until the rollout is through, as far as the states tell."""
        look = calls.get_deployment_by_id(self.project, live.id)
        while True:
            deployment = yield from patiently(look, pace)
            if deployment is None:
                message = f"{live} was deleted by somebody else while it was rolled out."
                raise Superseded(message)
            note_change(self._seen, deployment)
            self._seen = deployment
            step = roll.next(deployment, self.clock())
            if step is Next.PROBE or (step is Next.NAMES and roll.names((yield from self._names(deployment)))):
                return deployment
            if step is Next.START:
                yield from self._send_start(deployment)
            elif step is Next.WAKE:
                yield from self._verifier.wake()
            pause = pace.pause()
            if pause is None:
                raise NotInTime(self._too_late(deployment, roll))
            yield Pause(pause if roll.look_within is None else min(pause, roll.look_within))

    def _too_late(self, deployment: Deployment, roll: Roll) -> str:
        message = f"{deployment} has not arrived within {self.timeout:g} s"
        if roll.old_answered or (roll.old_names and roll.stable_since is not None):
            how = "answers are those of the version before" if roll.old_answered else "old instances still run"
            return f"{message}: {how}. The change may never have been applied: restart the deployment."
        reason = deployment.reason or "the server gives no reason"
        return f"{message}: {reason}. Allow more by 'timeout', or look at its log."

    # --- Looks --------------------------------------------------------------------------------------------------------

    def _pace(self, first: float) -> Pace:
        return Pace(first=first, most=self.interval, deadline=self._deadline, clock=self.clock)

    def _names(self, deployment: Deployment) -> Procedure[frozenset[str]]:
        """Read the names of the instances; none when the server does not tell."""
        try:
            logs = yield from ask(calls.get_logs(self.project, deployment, tail=1))
        except HopsworksError as error:
            log.info("The names of the instances are not known: %s", error)
            return frozenset()
        return frozenset(instance.instance for instance in logs or [])

    def _read_probe(self, live: Deployment) -> Procedure[None]:
        """Find out what to ask of the version to come, once."""
        if self.wait:
            self.model = yield from self._verifier.prepare(live, self.model, self._pace(FIRST_PAUSE_START))
