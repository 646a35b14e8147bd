"""
The rollout tracker: from each poll of a deployment it decides the next step of a rollout.

Hopsworks stores a change at once, and the cluster follows later. A GET returns the stored version, revision and model
version, and right after a change a stale status: old instances may still answer under Running or Idle. Some modes
never show Updating, and a change that is lost on the way to the cluster is never reported. So no single observation
proves that a rollout is over. Every poll is evaluated by these rules, in this order:

1. Created, Stopped or Stopping: another client stopped the deployment, which is an error. After our own START, which
   was accepted, they mean "not started yet" for ``START_GRACE`` seconds; then it is sent once more (``START``).
2. Another version or revision than that of our change: another client changed the deployment, which is an error. After
   a START, the first revision that is read is ours, unless it is of another model version.
3. Failed: poll again, since Hopsworks computes the status at each read and one crash may pass. It is an error once it
   has stayed for ``FAILED_STAYS`` seconds, or ``UNSCHEDULABLE_STAYS`` if the cluster has no room.
4. Idle with a minimum of instances: poll again; after ``NEVER_APPLIED`` seconds the change counts as lost, an error.
5. Idle with a minimum of 0: send a request that wakes the deployment (``WAKE``), again every ``WAKE_AGAIN`` seconds.
   If no request can be sent (``can_wake`` is False), Idle is handled as Running.
6. Any other status than Running, or fewer instances than the minimum: poll again. The settle time starts over.
7. Running: wait for the settle time. It is 0 after a START, since no old instance can answer. After a change it is
   ``SETTLE_SEEN`` if a poll saw the rollout in progress, and ``SETTLE_UNSEEN`` if none did; for the serving tool
   DEFAULT it is always ``SETTLE_DEFAULT_TOOL``.
8. During the settle time of a change, once in a rollout: probe the deployment early (``PROBE_EARLY``), if it can be
   known which version answers. It is the time for that at the first stable poll if a poll saw the rollout in progress,
   else after ``SETTLE_SEEN``. Only success counts: anything else is as if these probes had not been sent, and rules 9
   and 10 decide. ``EarlyProbes`` says when success ends the rollout; another status than a stable one takes it back.
9. The settle time has passed, and the names of the previous instances are known: read the current names
   (``READ_NAMES``). Repeat it every ``NAMES_AGAIN`` seconds until no previous name is left, or no names are returned.
10. The settle time has passed, and no previous instance is known to run: probe the deployment (``PROBE``). If the
    previous version answers, the settle time starts over. The time for which it answers (``previous_since``) starts
    over whenever the status is not stable, or previous instances are seen: the rollout explains its answers then.

A success of the early probes is followed by one more poll. If that one is stable too, the rollout is over (``LIVE``).

``RolloutTracker`` gets the time and the deployment as arguments and does no I/O, so a table of polls tests all of it.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from enum import Enum, auto

from airflow_provider_hsml.hopsworks.errors import AmbiguousVerificationError, DeploymentFailedError, SupersededError

from .deployment import Deployment, Signature
from .deployment import DeploymentStatus as Status

log = logging.getLogger(__name__)

POLL_AGAIN = 2.0
"""Seconds between two polls at the beginning of a rollout."""
POLL_SHARE = 0.25
"""Seconds between two polls in a longer rollout, as a share of the time so far."""
START_GRACE = 10.0
"""Seconds after a START for which Created or Stopped means that it has not started yet."""
FAILED_STAYS = 30.0
"""Seconds of Failed that count as a failure: Hopsworks computes the status at each read, and one crash may pass."""
UNSCHEDULABLE_STAYS = 300.0
"""The same when the cluster has no room: a new node may be starting."""
NEVER_APPLIED = 60.0
"""Seconds of Idle despite a minimum of instances, after which the change counts as lost."""
WAKE_AGAIN = 30.0
"""Seconds between two requests that wake an Idle deployment."""
SETTLE_SEEN = 5.0
"""Seconds of stable status that are enough if a poll saw the rollout in progress."""
SETTLE_UNSEEN = 20.0
"""The same if no poll saw it: it may not have begun."""
SETTLE_DEFAULT_TOOL = 10.0
"""The same for the serving tool DEFAULT, that is without KServe, whether or not a poll saw the rollout."""
NAMES_AGAIN = 10.0
"""Seconds between two reads of the names of the instances."""


class FailureTracker:
    """
    Distinguishes a Failed status that stays from one that passes.

    :param unschedulable_grace: seconds for which a cluster without room may find some; None: ``UNSCHEDULABLE_STAYS``
    """

    def __init__(self, unschedulable_grace: float | None = None) -> None:
        self.since: float | None = None
        self.unschedulable_grace = unschedulable_grace

    def stays(self, deployment: Deployment, now: float) -> bool:
        """
        Evaluate one poll, and return whether the deployment has been Failed for too long.

        :param now: seconds since 1970
        """
        if deployment.status is not Status.FAILED:
            self.since = None
            return False
        if self.since is None:
            self.since = now
            log.warning(
                "%s: %s; polling again, since this may pass", deployment, deployment.reason or "no reason given"
            )
        if not deployment.is_unschedulable:
            return now - self.since >= FAILED_STAYS
        grace = self.unschedulable_grace
        return now - self.since >= (UNSCHEDULABLE_STAYS if grace is None else grace)


@dataclass(slots=True)
class IdleTracker:
    """Tracks for how long a deployment has been Idle, and when it was woken."""

    since: float | None = None
    """The first poll of the current Idle, seconds since 1970; None while the deployment is not Idle."""
    woken_at: float | None = None
    can_wake: bool = True
    """Whether there is a request that can wake the deployment."""

    def seconds(self, now: float) -> float:
        """Return for how many seconds the deployment has been Idle, counted from the first call."""
        if self.since is None:
            self.since = now
        return now - self.since

    def wakes(self, now: float) -> bool:
        """Return whether a request to wake the deployment is due, and record that it is sent now."""
        is_due = self.woken_at is None or now - self.woken_at >= WAKE_AGAIN
        if is_due:
            self.woken_at = now
        return is_due


@dataclass(slots=True)
class InstanceTracker:
    """Compares the instances that run now with those before the rollout, by their names."""

    previous: frozenset[str] = frozenset()
    """Names of the instances before the rollout; empty when unknown."""
    all_new: bool = False
    """Whether the last read showed names, and none of the previous ones."""
    read_due: float = -math.inf
    """When the names may be read again, seconds since 1970."""

    @property
    def may_be_previous(self) -> bool:
        """Whether previous instances are known, and may still run."""
        return bool(self.previous) and not self.all_new

    def record(self, current: frozenset[str]) -> bool:
        """
        Record the names of the instances that run now.

        :param current: their names; empty when unknown
        :return: whether all instances are new, as far as known
        """
        self.all_new = bool(current and self.previous) and not current & self.previous
        return self.all_new or not current


class EarlyProbes(Enum):
    """The probes that are sent during the settle time."""

    DUE = auto()
    """They have not been sent yet."""
    SENT = auto()
    """They were sent once, or would have been sent to previous instances, and prove nothing."""
    PASSED = auto()
    """
    Each answer was right, and the new version's: by its fingerprint, or because all instances were new before.

    The settle time goes on, and has to end without another status. Previous instances only go away: one that is left
    then had its part in these answers, as it would have in later ones.
    """
    PROVED = auto()
    """All instances are new, and each answer has the fingerprint: the rest of the settle time can show no more."""

    @property
    def has_passed(self) -> bool:
        """Whether all of them have succeeded."""
        return self in (EarlyProbes.PASSED, EarlyProbes.PROVED)


@dataclass(slots=True)
class SettleTime:
    """The polls in a row that have shown a stable status."""

    since: float | None = None
    """The first of them, in seconds since 1970; None after another status."""
    early: EarlyProbes = EarlyProbes.DUE

    def restart(self) -> None:
        """Start over: probes that were sent before prove nothing any more."""
        self.since = None
        if self.early is not EarlyProbes.DUE:
            self.early = EarlyProbes.SENT


class RolloutCause(Enum):
    """The request that started the rollout."""

    START = auto()
    """Our START of a deployment that was down: no old instance can answer."""
    CHANGE = auto()
    """A PUT, ours or another client's: old instances may answer for a while."""


class NextStep(Enum):
    """The step to take after a poll."""

    POLL = auto()
    """Poll again, within ``RolloutTracker.poll_within`` seconds."""
    WAKE = auto()
    """Send a request that wakes an Idle deployment, then poll again."""
    START = auto()
    """Send the START once more."""
    READ_NAMES = auto()
    """Read the names of the instances, and probe if all are new or unknown."""
    PROBE_EARLY = auto()
    """Probe the deployment during the settle time, set ``RolloutTracker.settle.early`` by it, and poll again."""
    PROBE = auto()
    """Probe the deployment: as far as the polls show, the rollout is over."""
    LIVE = auto()
    """Nothing is left to do: early probes have shown that the new version answers."""


@dataclass(slots=True)
class RolloutTracker:
    """Follows a rollout from poll to poll, by the rules at the top of this module."""

    cause: RolloutCause
    since: float
    """When the rollout was started, seconds since 1970."""
    signature: Signature | None = None
    """The signature of our change; None until it is known, since a START creates a new revision."""
    model_version: int | None = None
    """The model version that our change or START made live; None if unknown."""
    instances: InstanceTracker = field(default_factory=InstanceTracker)
    started_again: bool = False
    """Whether the START was sent a second time."""
    saw_transition: bool = False
    """Whether a poll or a probe saw the rollout in progress."""
    previous_since: float | None = None
    """Since when the previous version has answered although the status is stable, seconds since 1970; else None."""
    settle: SettleTime = field(default_factory=SettleTime)
    poll_within: float = POLL_AGAIN
    """Seconds until the next poll, at the most."""
    idle: IdleTracker = field(default_factory=IdleTracker)
    failure: FailureTracker = field(default_factory=FailureTracker)

    def next(self, deployment: Deployment, now: float) -> NextStep:
        """
        Evaluate a poll and return the next step.

        :param now: seconds since 1970
        :raises SupersededError: another client changed or stopped the deployment
        :raises DeploymentFailedError: the deployment stays Failed
        :raises AmbiguousVerificationError: the change was stored but never reached the cluster, so no instance of it
            has shown anything
        """
        self.poll_within = max(POLL_AGAIN, POLL_SHARE * (now - self.since))
        status = deployment.status
        if status.is_down or status is Status.STOPPING:
            return self._down(deployment, now)
        self._check_signature(deployment)
        if self.failure.stays(deployment, now):
            raise DeploymentFailedError(deployment)
        if status is Status.IDLE:
            return self._while_idle(deployment, now)
        self.idle.since = None
        if status is not Status.RUNNING or deployment.available_instances < max(1, deployment.minimum_instances):
            self.saw_transition = self.saw_transition or status is not Status.RUNNING
            self._restart()
            return NextStep.POLL
        return self._stable(deployment, now)

    def record_names(self, current: frozenset[str]) -> bool:
        """
        Record the names of the instances that run now.

        :param current: their names; empty when unknown
        :return: whether all instances are new, as far as known
        """
        is_over = self.instances.record(current)
        if not is_over:
            self.previous_since = None
        return is_over

    def record_previous_answer(self, now: float) -> None:
        """
        Restart the settle time, since the previous version has answered a probe.

        :param now: seconds since 1970
        """
        self.settle.restart()
        self.saw_transition = True
        self.previous_since = now if self.previous_since is None else self.previous_since

    def _check_signature(self, deployment: Deployment) -> None:
        ours, now = self.model_version, deployment.model_version
        is_another = None not in (ours, now) and now != ours
        if is_another or not deployment.continues(self.signature):
            message = f"{deployment} was changed by another client during the rollout; their change is kept."
            raise SupersededError(message)
        self.signature = deployment.signature

    def _down(self, deployment: Deployment, now: float) -> NextStep:
        is_our_start = self.cause is RolloutCause.START
        if is_our_start and now - self.since < START_GRACE:
            return NextStep.POLL
        if is_our_start and deployment.status.is_down and not self.started_again:
            self.started_again, self.since = True, now
            return NextStep.START
        message = (
            f"{deployment} was stopped by another client during the rollout.\nStart it again if that was a mistake."
        )
        raise SupersededError(message)

    def _while_idle(self, deployment: Deployment, now: float) -> NextStep:
        seconds = self.idle.seconds(now)
        if deployment.minimum_instances > 0:
            self._restart()
            if seconds >= NEVER_APPLIED:
                message = (
                    f"{deployment}: the change was stored, but never applied to the cluster: still Idle after "
                    f"{NEVER_APPLIED:g} s, although its minimum of instances is {deployment.minimum_instances}. "
                    "Restart the deployment."
                )
                raise AmbiguousVerificationError(message)
            return NextStep.POLL
        if not self.idle.can_wake:
            return self._stable(deployment, now)
        return NextStep.WAKE if self.idle.wakes(now) else NextStep.POLL

    def _restart(self) -> None:
        self.settle.restart()
        self.previous_since = None

    def _stable(self, deployment: Deployment, now: float) -> NextStep:
        settle = self.settle
        if settle.since is None:
            settle.since = now
        due = settle.since + self._settle_time(deployment)
        if settle.early is EarlyProbes.PROVED or (settle.early is EarlyProbes.PASSED and now >= due):
            return NextStep.LIVE
        step = NextStep.POLL
        if now < due:
            begins = settle.since if self.saw_transition else settle.since + SETTLE_SEEN
            # The names are of the predictor's instances; an old transformer may still ask the previous version.
            is_conclusive = self.idle.can_wake and not deployment.raw.get("transformer")
            if settle.early is EarlyProbes.DUE and now >= begins and is_conclusive:
                settle.early, step = EarlyProbes.SENT, NextStep.PROBE_EARLY
        elif self.instances.may_be_previous:
            due = self.instances.read_due
            if now >= due:
                self.instances.read_due, self.poll_within = now + NAMES_AGAIN, NAMES_AGAIN
                return NextStep.READ_NAMES
        else:
            return NextStep.PROBE
        # If no poll saw the rollout in progress, it may still begin: do not sleep through that.
        self.poll_within = due - now if self.saw_transition else min(due - now, self.poll_within)
        return step

    def _settle_time(self, deployment: Deployment) -> float:
        if self.cause is RolloutCause.START:
            return 0.0
        if deployment.serving_tool == "DEFAULT":
            return SETTLE_DEFAULT_TOOL
        return SETTLE_SEEN if self.saw_transition else SETTLE_UNSEEN
