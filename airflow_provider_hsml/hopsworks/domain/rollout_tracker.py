"""
Following a rollout from look to look: what one look says, and what is to be done next.

``Roll`` is given the time and the deployment as it was seen, and does nothing itself: a table of looks tests all of it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import Enum, auto

from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentStatus
from airflow_provider_hsml.hopsworks.errors import DeploymentFailedError, SupersededError, VerificationError

from .deployment import DeploymentStatus as Status

log = logging.getLogger(__name__)

FAILED_STAYS = 30.0
"""Seconds after which a Failed is believed: it is computed anew at each look, and one crash may pass."""


UNSCHEDULABLE_STAYS = 300.0
"""The same when the cluster had no room: a node may be on its way."""


class FailureTracker:
    """Tells a Failed that stays from one that passes."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.since: float | None = None

    def stays(self, deployment: Deployment, now: float) -> bool:
        """
        Judge one look.

        :param deployment: what was seen
        :param now: seconds since 1970
        :return: whether it is Failed, and has been for too long
        """
        if deployment.status is not DeploymentStatus.FAILED:
            self.since = None
            return False
        if self.since is None:
            self.since = now
            log.warning(
                "%s: %s; reading it again, since this may pass", deployment, deployment.reason or "no reason given"
            )
        return now - self.since >= (UNSCHEDULABLE_STAYS if deployment.is_unschedulable else FAILED_STAYS)


SETTLE_SEEN = 5.0
"""Seconds of being stable that are enough when the rollout was seen to happen."""
SETTLE_UNSEEN = 20.0
"""The same when it was not: it may not have begun."""
SETTLE_DEFAULT_TOOL = 10.0
START_GRACE = 10.0
"""Seconds after a START for which 'Created' or 'Stopped' means 'not yet'."""
NEVER_APPLIED = 60.0
"""Seconds of Idle, though instances are to be kept, after which the change is lost."""
WAKE_AGAIN = 30.0
NAMES_AGAIN = 10.0
LOOK_AGAIN = 2.0
"""Seconds between two looks at a rollout that has begun a short while ago."""
LATE = 0.25
"""Share of the time so far by which the next look may come late, in a rollout that takes longer."""


class RolloutCause(Enum):
    """What set the rollout in motion."""

    START = auto()
    """Our START of a deployment that was down: nothing old can answer."""
    CHANGE = auto()
    """Our PUT, or somebody's: old instances may answer for a while."""


class NextStep(Enum):
    """What to do after a look."""

    LOOK = auto()
    WAKE = auto()
    START = auto()
    NAMES = auto()
    PROBE = auto()


@dataclass(slots=True)
class RolloutTracker:
    """
    Follows a rollout from look to look.

    Time is given, not taken, so that a table of looks is a whole test of it.
    """

    cause: RolloutCause
    since: float
    """When it was set in motion, seconds since 1970."""
    signature: tuple[int | None, str | None] | None = None
    """The row that is ours; None until it is known: a START makes a new revision."""
    old_names: frozenset[str] = frozenset()
    """Names of the instances before; empty when they are not known."""
    can_wake: bool = True
    """Whether there is a request with which to wake an Idle deployment."""
    started_again: bool = False
    """Whether the START was sent twice already."""
    saw_transition: bool = False
    names_are_new: bool = False
    old_answered: bool = False
    stable_since: float | None = None
    look_within: float = LOOK_AGAIN
    """Seconds after which to look again at the latest."""
    _idle_since: float | None = None
    _woken_at: float | None = None
    _names_at: float | None = None
    _failed: FailureTracker = field(default_factory=FailureTracker)

    def next(self, deployment: Deployment, now: float) -> NextStep:
        """
        Judge a look.

        :param deployment: what was seen
        :param now: seconds since 1970
        :raises SupersededError: somebody else changed or stopped it
        :raises DeploymentFailedError: it is Failed and stays so
        :raises VerificationError: the change was stored but never reached the cluster
        """
        self.look_within = max(LOOK_AGAIN, LATE * (now - self.since))
        status = deployment.status
        if status.is_down or status is Status.STOPPING:
            return self._down(deployment, now)
        self._check_signature(deployment)
        if self._failed.stays(deployment, now):
            raise DeploymentFailedError(deployment)
        if status is Status.IDLE:
            return self._idle(deployment, now)
        self._idle_since = None
        if status is not Status.RUNNING or deployment.available_instances < max(1, deployment.minimum_instances):
            self.saw_transition = self.saw_transition or status is not Status.RUNNING
            self.stable_since = None
            return NextStep.LOOK
        return self._stable(deployment, now)

    def names(self, current: frozenset[str]) -> bool:
        """
        Take the names of the instances that run now.

        :param current: their names; empty when they are not known
        :return: whether all are new, as far as can be known
        """
        self.names_are_new = bool(current and self.old_names) and not current & self.old_names
        return self.names_are_new or not current

    def not_yet(self) -> None:
        """Begin to settle anew: an old instance was seen to answer."""
        self.stable_since = None
        self.saw_transition = self.old_answered = True

    def _check_signature(self, deployment: Deployment) -> None:
        if self.signature is None:
            self.signature = deployment.signature
        elif deployment.signature != self.signature:
            message = f"{deployment} was changed by another client during the rollout; their change is kept."
            raise SupersededError(message)

    def _down(self, deployment: Deployment, now: float) -> NextStep:
        ours = self.cause is RolloutCause.START
        if ours and now - self.since < START_GRACE:
            return NextStep.LOOK
        if ours and deployment.status.is_down and not self.started_again:
            self.started_again, self.since = True, now
            return NextStep.START
        message = (
            f"{deployment} was stopped by another client while it was rolled out. Start it again if that was a mistake."
        )
        raise SupersededError(message)

    def _idle(self, deployment: Deployment, now: float) -> NextStep:
        if self._idle_since is None:
            self._idle_since = now
        if deployment.minimum_instances > 0:
            self.stable_since = None
            if now - self._idle_since >= NEVER_APPLIED:
                message = (
                    f"{deployment}: the change was stored, but never applied to the cluster: still Idle after "
                    f"{NEVER_APPLIED:g} s, with {deployment.minimum_instances} instances asked for. Restart the "
                    "deployment."
                )
                raise VerificationError(message)
            return NextStep.LOOK
        if not self.can_wake:
            return self._stable(deployment, now)
        if self._woken_at is None or now - self._woken_at >= WAKE_AGAIN:
            self._woken_at = now
            return NextStep.WAKE
        return NextStep.LOOK

    def _stable(self, deployment: Deployment, now: float) -> NextStep:
        if self.stable_since is None:
            self.stable_since = now
        due = self.stable_since + self._settle(deployment)
        if now >= due and self.old_names and not self.names_are_new:
            if self._names_at is None or now >= self._names_at + NAMES_AGAIN:
                self._names_at, self.look_within = now, NAMES_AGAIN
                return NextStep.NAMES
            due = self._names_at + NAMES_AGAIN
        if now < due:
            # Where nothing was seen to move yet, it may still begin to.
            self.look_within = due - now if self.saw_transition else min(due - now, self.look_within)
            return NextStep.LOOK
        return NextStep.PROBE

    def _settle(self, deployment: Deployment) -> float:
        if self.cause is RolloutCause.START:
            return 0.0
        if deployment.serving_tool == "DEFAULT":
            return SETTLE_DEFAULT_TOOL
        return SETTLE_SEEN if self.saw_transition else SETTLE_UNSEEN
