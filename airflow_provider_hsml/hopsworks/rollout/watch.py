"""
Watch a rollout until the desired configuration answers: the long part of a change.

A watch only reads and probes, so it need not hold a worker: ``promotion.resume`` stores it as ids, names and numbers,
and a trigger runs it.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import check_kept
from airflow_provider_hsml.hopsworks.domain.judge import Attribution
from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import (
    EarlyProbes,
    FailureTracker,
    NextStep,
    RolloutCause,
    RolloutTracker,
)
from airflow_provider_hsml.hopsworks.errors import (
    AmbiguousVerificationError,
    DeadlineExceededError,
    HopsworksError,
    SupersededError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Defer, Sleep, read_patiently, within
from airflow_provider_hsml.hopsworks.inference import predict

from . import inputs
from .bake import Bake
from .reads import confirm_model, read_again
from .rollout_probes import probe_early, probe_rollout
from .status import describe_state, log_change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

    from .inputs import ResumePoint
    from .probe import Prober

log = logging.getLogger(__name__)

STALE_PROBES = 5
"""Answers of the previous version in a row, from instances known to be new, that are evidence of its files."""
BETWEEN_STALE_PROBES = 2.5
"""Seconds between them."""
AMBIGUOUS_SECONDS = 60.0
"""Seconds after a rollout for which the previous version may answer from instances that are not known."""


@dataclass(frozen=True, slots=True)
class WatchResult:
    """The end of a rollout that is live and verified."""

    deployment: Deployment
    """The deployment as it was read last."""
    verified_by: str
    """``fingerprint``, ``instances`` or ``status``."""
    downtime: float | None = None
    """Seconds without answers, if the deployment was stopped for the change."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """The durations of the phases: ``rollout``, ``verification`` and ``bake``."""
    failed_probes: int = 0
    """Probes that failed during the bake."""

    def outcome(self, action: str) -> Outcome:
        """Return the outcome of the change: its action, and this result."""
        return Outcome(self.deployment, action, self.verified_by, self.downtime, self.seconds, self.failed_probes)


@dataclass(frozen=True, slots=True)
class StartNeeded:
    """The watch ends because a START has shown no effect and has to be sent again, which a trigger may not do."""

    deployment: Deployment


@dataclass(frozen=True, slots=True)
class SentChange:
    """The change before a rollout."""

    action: str
    """The action of the outcome, as in the promotion record."""
    has_changed: bool
    """Whether a change of ours was carried out, as far as is known."""
    stopped_at: float | None = None
    """When the deployment was stopped for it, in seconds since 1970; None if it was not."""
    is_way_back: bool = False
    """Whether it restores what served before: then no doubt about its answers ends the wait."""


@dataclass(slots=True)
class RolloutWatch(Defer[WatchResult | StartNeeded]):
    """The wait for a rollout: polls, probes and bakes one deployment. A trigger may run it, from ids and numbers."""

    deployment_id: int
    tracker: RolloutTracker
    prober: Prober
    change: SentChange
    resume: ResumePoint
    timeout: float
    """Seconds that the whole change may take, for messages."""
    deadline: float
    """The end of the timeout, in seconds since 1970."""
    interval: float
    """The longest delay between two polls, in seconds."""
    last_logged: str = ""
    """The state that was logged last."""
    seen: Deployment | None = None
    """The deployment as it was read last."""
    fresh: Deployment | None = None
    """The deployment as it was read right before: the first poll of the process that sent the change."""
    _first_read: float | None = field(init=False, default=None)
    """When this process read the deployment first, in seconds since 1970."""

    async def run(self) -> WatchResult | StartNeeded:
        """
        Poll until the rollout is over, probe the deployment, and bake it.

        :return: the result; ``StartNeeded`` if only another START helps
        :raises DeploymentFailedError: the deployment's instances do not come up
        :raises VerificationError: the deployment serves, but its answers are wrong
        :raises SupersededError: another client changed, stopped or deleted the deployment
        :raises DeadlineExceededError: the timeout passed
        """
        cause, clock = self.tracker.cause, self.prober.clock
        first = inputs.FIRST_DELAY_START if cause is RolloutCause.START else inputs.FIRST_DELAY_UPDATE
        backoff = Backoff(first=first, most=self.interval, deadline=self.deadline, clock=clock)
        try:
            return await self._verified(backoff)
        except VerificationError as error:
            error.failed_probes = error.failed_probes or 1
            await self._check_ours()
            raise

    async def _verified(self, backoff: Backoff) -> WatchResult | StartNeeded:
        tracker, cause, clock = self.tracker, self.tracker.cause, self.prober.clock
        ready: float | None = None
        attribution = Attribution.UNKNOWN
        while True:
            deployment = await self._poll(backoff)
            if isinstance(deployment, StartNeeded):
                return deployment
            ready = clock() if ready is None else ready
            early = tracker.settle.early
            if early.has_passed:
                # Each answer has the fingerprint, unless they count because all instances are new.
                is_fingerprint = early is EarlyProbes.PROVED or not tracker.instances.all_new
                attribution = Attribution.CHALLENGER if is_fingerprint else Attribution.UNKNOWN
                break
            await self._prepare(deployment, backoff)
            try:
                attribution = await probe_rollout(self.prober, deployment, tracker)
                if attribution is not Attribution.CHAMPION:
                    break
                tracker.record_previous_answer(clock())
                await self._check_previous_answers(deployment)
            except HopsworksError as error:
                await self._pass_over(error, deployment, backoff)
        if self.prober.judge.is_fingerprint(attribution, can_be_old=cause is RolloutCause.CHANGE):
            verified_by = "fingerprint"
        elif tracker.instances.all_new or cause is RolloutCause.START:
            verified_by = "instances"
        else:
            verified_by = "status"
        live = clock()
        downtime = None if self.change.stopped_at is None else live - self.change.stopped_at
        stopped = "" if downtime is None else f"; it was down for {downtime:.0f} s"
        log.info("%s is live, verified by %s%s", deployment, verified_by, stopped)
        failed = 0
        if self.prober.checks.bake_seconds or not early.has_passed:  # Else this poll came after the probes.
            all_new = cause is RolloutCause.START or self._are_all_new(deployment)
            bake = Bake(self.prober, deployment, FailureTracker(tracker.failure.unschedulable_grace), all_new=all_new)
            deployment = self.seen = await bake.run()
            failed = bake.failed
        seconds = {"rollout": ready - tracker.since, "verification": live - ready, "bake": clock() - live}
        return WatchResult(deployment, verified_by, downtime, seconds, failed)

    async def _pass_over(self, error: HopsworksError, deployment: Deployment, backoff: Backoff) -> None:
        """Drop the probe, or wait, after an error that says nothing about the version; raise any other."""
        if self._drops(error):
            return
        if not predict.is_without_features(error):
            raise error
        log.warning("%s; this says nothing about the model version, waiting", error)
        late = f"{deployment} is live, and could not be verified within {self.timeout:g} s: {error}"
        await backoff.wait(late, about=deployment)

    def _drops(self, error: HopsworksError) -> bool:
        """Drop a probe that reaches no version, if other evidence can prove the rollout; return whether it was."""
        if self.change.is_way_back:
            can_drop = predict.is_without_features(error) or predict.is_refused_before_the_model(error)
        else:
            # Features may come back. An example that the previous version was asked with was not too large then.
            is_new = self.prober.judge.champion_version is None
            can_drop = is_new and predict.is_too_large(error) and self.prober.can_drop(error)
        if can_drop:
            self.prober.drop_probe(error)
            self.tracker.idle.can_wake = False  # The request that wakes is the same.
        return can_drop

    async def _check_ours(self) -> None:
        """
        Check that wrong answers came from the change that is watched.

        :raises SupersededError: another client has changed the deployment: it is unknown which configuration answered
        :raises DeadlineExceededError: the deployment cannot be read
        """
        clock = self.prober.clock
        backoff = Backoff(first=1.0, most=10.0, deadline=clock() + predict.ROUTE_BUDGET, clock=clock)
        now = await read_again(api.get_deployment_by_id(self.prober.project, self.deployment_id), backoff, self.seen)
        if now is None or self.seen is None or not now.continues(self.seen.signature):
            message = f"{now or self.seen} was changed by another client while it was probed; their change is kept."
            raise SupersededError(message)

    def _are_all_new(self, deployment: Deployment) -> bool:
        """Return whether no instance of the previous version can answer, as far as the names of the instances show."""
        # The names are of the predictor's instances; an old transformer may still ask the previous version.
        return self.tracker.instances.all_new and not deployment.raw.get("transformer")

    async def _check_previous_answers(self, deployment: Deployment) -> None:
        """
        Check that the previous version's answers may come from its own instances.

        :raises VerificationError: all instances are new and answer so: the new version has the previous one's files
        :raises AmbiguousVerificationError: which instances answer so is unknown, and the rollout was over a minute ago
        """
        if self._are_all_new(deployment):
            for _ in range(STALE_PROBES - 1):
                await Sleep(BETWEEN_STALE_PROBES)
                if (await self.prober.probe_once(deployment)).attribution is not Attribution.CHAMPION:
                    return
            message = (
                f"{deployment}: all its instances are new, and answer as the previous version, not as recorded for "
                "this version.\nCheck the files that were registered with it: 'model_path' may be stale."
            )
            raise VerificationError(message)
        since = self.tracker.previous_since
        is_late = since is not None and self.prober.clock() - since >= AMBIGUOUS_SECONDS
        if is_late and not self.change.is_way_back:
            message = (
                f"{deployment} still answers as the previous version, a minute after its rollout: either old "
                "instances still answer, or the new version has the previous one's files.\n"
                "Check 'model_path' of the version, and deploy it again."
            )
            raise AmbiguousVerificationError(message)

    async def _prepare(self, deployment: Deployment, backoff: Backoff) -> None:
        """Find the request to send, unless this process made the change and has found it before."""
        if not self.prober.is_prepared:
            is_optional = self.change.is_way_back
            await self.prober.prepare(deployment, {}, None, backoff, is_optional=is_optional)

    async def _poll(self, backoff: Backoff) -> Deployment | StartNeeded:
        """Poll until the rollout is over, as far as the statuses, the instance names and early probes show."""
        tracker = self.tracker
        while True:
            deployment, self.fresh = self.fresh or await self._read(backoff), None
            if deployment is None:
                message = f"Deployment {self.prober.name!r} was deleted by another client during the rollout."
                raise SupersededError(message)
            now = self.prober.clock()
            self._first_read = now if self._first_read is None else self._first_read
            self.last_logged = log_change(
                self.last_logged or describe_state(self.seen), deployment, now - tracker.since
            )
            self.seen = deployment
            step = tracker.next(deployment, now)
            if step in (NextStep.PROBE, NextStep.LIVE) or (
                step is NextStep.READ_NAMES and tracker.record_names(await self._read_instance_names(deployment))
            ):
                return deployment
            if step is NextStep.PROBE_EARLY:
                tracker.settle.early = await self._probe_early(deployment, backoff)
                if tracker.settle.early is EarlyProbes.PROVED:
                    continue
            if step is NextStep.START:
                return StartNeeded(deployment)
            if step is NextStep.WAKE:
                await self._prepare(deployment, backoff)
                error = await self.prober.wake()
                if error is not None and self._drops(error):
                    continue
            delay = backoff.next_delay(about=deployment)
            if delay is None:
                raise DeadlineExceededError(self._too_late(deployment))
            await Sleep(max(0.0, min(delay, tracker.poll_within) - (self.prober.clock() - now)))

    async def _read(self, backoff: Backoff) -> Deployment | None:
        """Read the deployment for a poll."""
        call = api.get_deployment_by_id(self.prober.project, self.deployment_id)
        read = functools.partial(read_patiently, call, backoff, self._check_kept)
        return await confirm_model(await read(), self.tracker.model_version, read)

    def _check_kept(self, found: Deployment | None) -> None:
        """Raise the error of a poll that lacks the version or the revision that an earlier one had."""
        known = self.tracker.signature if self.seen is None else self.seen.signature
        check_kept(self.deployment_id, known or (None, None), found)

    async def _probe_early(self, deployment: Deployment, backoff: Backoff) -> EarlyProbes:
        """Probe the deployment during the settle time, unless it is known that previous instances may answer."""
        instances = self.tracker.instances
        try:
            await self._prepare(deployment, backoff)
        except HopsworksError as error:
            log.info("It is too early to probe %s: %s", deployment, error)
            return EarlyProbes.SENT
        if instances.may_be_previous:
            self.tracker.record_names(await self._read_instance_names(deployment))
        if instances.may_be_previous or not self.prober.can_probe:
            return EarlyProbes.SENT
        return await probe_early(self.prober, all_new=instances.all_new)

    async def _read_instance_names(self, deployment: Deployment) -> frozenset[str]:
        reading = read_instance_names(self.prober.project, deployment)
        return await within(reading, self.deadline, self.prober.clock)

    def _too_late(self, deployment: Deployment) -> str:
        late = (self._first_read or 0.0) - self.deadline
        if late > 0:
            return (
                f"{deployment}: the deployment was not read once before the timeout of {self.timeout:g} s, but first "
                f"{max(late, 1):.0f} s after it, so it is unknown whether the change is live.\nIf the task was "
                "deferred, check that the triggerer runs and is not overloaded. A retry of the task attaches to the "
                "change."
            )
        tracker, message = self.tracker, f"{deployment} is not live within {self.timeout:g} s"
        if tracker.previous_since is not None and self.prober.fault:
            return (
                f"{message}: it {self.prober.fault}.\nIt is unknown whether this version or the previous one answers."
            )
        if tracker.previous_since is not None or (
            tracker.instances.may_be_previous and tracker.settle.since is not None
        ):
            is_answer = tracker.previous_since is not None
            why = "the previous version still answers" if is_answer else "old instances still run"
            return f"{message}: {why}.\nThe change may never have been applied: restart the deployment."
        reason = deployment.reason or "the server gives no reason"
        return f"{message}: {reason}.\nAllow more time with 'timeout', or read the deployment's log."


async def read_instance_names(project: Project, deployment: Deployment) -> frozenset[str]:
    """Read the names of a deployment's instances; an empty set when the server does not return them."""
    try:
        logs = await api.get_logs(project, deployment, tail=1)
    except HopsworksError as error:
        log.info("The names of the instances are unknown: %s", error)
        return frozenset()
    return frozenset(instance.instance for instance in logs or [])
