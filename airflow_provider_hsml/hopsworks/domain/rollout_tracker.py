"""
The rollout tracker: from each poll of a deployment it decides the next step of a rollout.

``RolloutTracker`` gets the time and the deployment as arguments and does no I/O. A table of polls can test all of it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import Enum, auto

from airflow_provider_hsml.hopsworks.errors import DeploymentFailedError, SupersededError, VerificationError

from .deployment import Deployment, DeploymentStatus
from .deployment import DeploymentStatus as Status

log = logging.getLogger(__name__)

FAILED_STAYS = 30.0
"""Seconds of Failed that count as a failure: Hopsworks computes the status at each read, and one crash may pass."""


UNSCHEDULABLE_STAYS = 300.0
"""The same when the cluster has no room: a new node may be starting."""


class FailureTracker:
    """Distinguishes a Failed status that stays from one that passes."""

    def __init__(self) -> None:
        """Begin without a Failed status."""
        self.since: float | None = None

    def stays(self, deployment: Deployment, now: float) -> bool:
        """
        Evaluate one poll.

        :param now: seconds since 1970
        :return: whether the deployment has been Failed for too long
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
"""Seconds of stable status that are enough if a poll saw the rollout in progress."""
SETTLE_UNSEEN = 20.0
"""The same if no poll saw it: it may not have begun."""
SETTLE_DEFAULT_TOOL = 10.0
START_GRACE = 10.0
"""Seconds after a START for which 'Created' or 'Stopped' means 'not yet'."""
NEVER_APPLIED = 60.0
"""Seconds of Idle despite a minimum of instances, after which the change counts as lost."""
WAKE_AGAIN = 30.0
NAMES_AGAIN = 10.0
LOOK_AGAIN = 2.0
"""Seconds between two polls at the beginning of a rollout."""
LATE = 0.25
"""Seconds between two polls in a longer rollout, as a share of the time so far."""


class RolloutCause(Enum):
    """The request that started the rollout."""

    START = auto()
    """Our START of a deployment that was down: no old instance can answer."""
    CHANGE = auto()
    """A PUT, ours or another client's: old instances may answer for a while."""


class NextStep(Enum):
    """The step to take after a poll."""

    LOOK = auto()
    WAKE = auto()
    START = auto()
    NAMES = auto()
    PROBE = auto()


@dataclass(slots=True)
class RolloutTracker:
    """
    Follows a rollout from poll to poll.

    The time is an argument, so that a table of polls is a complete test.
    """

    cause: RolloutCause
    since: float
    """When the rollout was started, seconds since 1970."""
    signature: tuple[int | None, str | None] | None = None
    """The signature of our change; None until it is known, since a START creates a new revision."""
    old_names: frozenset[str] = frozenset()
    """Names of the instances before the rollout; empty when unknown."""
    can_wake: bool = True
    """Whether there is a request that can wake an Idle deployment."""
    started_again: bool = False
    """Whether the START was sent a second time."""
    saw_transition: bool = False
    names_are_new: bool = False
    old_answered: bool = False
    stable_since: float | None = None
    look_within: float = LOOK_AGAIN
    """Seconds until the next poll, at the most."""
    _idle_since: float | None = None
    _woken_at: float | None = None
    _names_at: float | None = None
    _failed: FailureTracker = field(default_factory=FailureTracker)

    def next(self, deployment: Deployment, now: float) -> NextStep:
        """
        Evaluate a poll and return the next step.

        :param now: seconds since 1970
        :raises SupersededError: another client changed or stopped the deployment
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
        Record the names of the instances that run now.

        :param current: their names; empty when unknown
        :return: whether all instances are new, as far as known
        """
        self.names_are_new = bool(current and self.old_names) and not current & self.old_names
        return self.names_are_new or not current

    def not_yet(self) -> None:
        """Restart the settle time, since an old instance has answered."""
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
