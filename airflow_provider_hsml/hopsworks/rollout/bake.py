"""
The bake: after a rollout is live and verified, the deployment is probed for a while longer.

A probe counts once it may have reached the deployment. Requests that say nothing about the deployment are not counted:
those to an unavailable server, and the one that wakes an Idle deployment.

Failed probes say as much as the same failure says right after a rollout: a deployment that is unreachable, or answers
of the previous version from instances that are not known to be new, are not by themselves evidence against the version.
"""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus as Status
from airflow_provider_hsml.hopsworks.domain.judge import Attribution
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import FailureTracker
from airflow_provider_hsml.hopsworks.errors import (
    AmbiguousVerificationError,
    DeadlineExceededError,
    DeploymentFailedError,
    HopsworksError,
    SupersededError,
    UnreachableError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Heartbeat, Sleep, timed
from airflow_provider_hsml.hopsworks.inference import predict

from .probe import is_deployments_fault
from .reads import confirm_model, read_again

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

    from .probe import Prober

log = logging.getLogger(__name__)

_ROUNDING = 1e-9


class Failure(Enum):
    """The kinds of failed probes."""

    UNREACHED = auto()
    """The deployment did not answer."""
    PREVIOUS = auto()
    """The previous version answered, perhaps from an instance of its own."""
    WRONG = auto()
    """The model refused the request, or its answer was wrong or late."""


@dataclass(slots=True)
class Bake:
    """Watches one deployment after its rollout. Drive ``run()``."""

    prober: Prober
    deployment: Deployment
    """The deployment as it was read last."""
    failure: FailureTracker = field(default_factory=FailureTracker)
    """Tells a Failed status that stays from one that passes."""
    all_new: bool = False
    """Whether all instances are known to be new, so that no previous one can answer."""
    sent: int = 0
    """Probes that count."""
    failures: Counter[Failure] = field(default_factory=Counter)
    """Of these, the kinds of those that failed."""
    slowest: float = 0.0
    """The longest latency in seconds."""

    @property
    def failed(self) -> int:
        """Probes that failed."""
        return self.failures.total()

    async def run(self) -> Deployment:
        """
        Probe at the interval until the time is over, then check that the deployment is still the same.

        :return: the deployment as it was read last
        :raises VerificationError: a larger share of the probes failed than is allowed
        :raises UnreachableError: the same, and none of those that failed reached the model
        :raises AmbiguousVerificationError: the same, and some were answered by the previous version, perhaps by one of
            its own instances
        :raises DeploymentFailedError: the deployment stays Failed
        :raises SupersededError: another client changed, stopped or deleted the deployment
        :raises DeadlineExceededError: the server was unavailable for too long
        """
        checks, clock = self.prober.checks, self.prober.clock
        if not checks.bake_seconds:
            await self._poll()
            return self.deployment
        interval = min(checks.probe_interval, checks.bake_seconds)
        planned = int(checks.bake_seconds / interval + _ROUNDING)
        log.info(
            "%s: watching it for %g s, probing every %g s",
            self.deployment,
            checks.bake_seconds,
            checks.probe_interval,
        )
        begun, slot, heartbeat = clock(), 0, Heartbeat(clock)
        while True:
            # A probe that takes longer than the interval skips slots: they are not made up for in a burst.
            slot = max(slot + 1, math.ceil((clock() - begun) / interval))
            is_failed = self.deployment.status is Status.FAILED
            if slot > planned and (self.sent or not self.prober.can_probe) and not is_failed:
                break
            if not is_failed and clock() > begun + checks.bake_seconds + predict.ROUTE_BUDGET:
                message = f"{self.deployment} could not be probed once while it was watched."
                raise DeadlineExceededError(message)
            await Sleep(max(0.0, begun + slot * interval - clock()))
            await self._poll()
            wrong = await self._probe()
            heartbeat.log(f"{self.deployment}, {self.sent} probes, {self.failed} failed", begun + checks.bake_seconds)
            if self.failed > checks.max_error_rate * planned + _ROUNDING:
                raise self._failure(wrong)
        if self.failed > checks.max_error_rate * self.sent + _ROUNDING:
            raise self._failure("was not probed often enough in that time")
        await self._poll()
        log.info(
            "%s: watched for %g s; %d probes, %d failed, the slowest took %.0f ms",
            *(self.deployment, checks.bake_seconds, self.sent, self.failed, self.slowest * 1000),
        )
        return self.deployment

    async def _poll(self) -> None:
        """Read the deployment, and check that it is still our change and still up."""
        clock = self.prober.clock
        backoff = Backoff(first=1.0, most=10.0, deadline=clock() + predict.ROUTE_BUDGET, clock=clock)
        was = self.deployment
        read = functools.partial(read_again, api.get_deployment_by_id(self.prober.project, was.id), backoff, was)
        seen = await confirm_model(await read(), was.model_version, read)
        if seen is None or seen.status.is_down or seen.status is Status.STOPPING:
            message = f"{seen or self.deployment} was stopped or deleted by another client while it was watched."
            raise SupersededError(message)
        if not seen.continues(self.deployment.signature):
            message = f"{seen} was changed by another client while it was watched; their change is kept."
            raise SupersededError(message)
        self.deployment = seen
        if self.failure.stays(seen, clock()):
            raise DeploymentFailedError(seen)

    async def _probe(self) -> str:
        """Send one probe and count it; return the fault of its answer, or an empty text."""
        if not self.prober.can_probe:
            return ""
        if self.deployment.status is Status.IDLE:
            await self.prober.wake()
            return ""
        try:
            answer, seconds = await timed(self.prober.send(), self.prober.clock)
        except HopsworksError as error:
            is_answer = error.is_from_deployment and (predict.is_model_refusal(error) or predict.is_unreached(error))
            is_answer = is_answer and not predict.is_without_features(error)
            if not is_answer or not await is_deployments_fault(self.prober.project, self.deployment, error):
                log.warning("%s; not counted", error)
                return ""
            kind = Failure.UNREACHED if predict.is_unreached(error) else Failure.WRONG
            wrong = f"is unreachable, or refuses the request: {error}"
        else:
            self.slowest = max(self.slowest, seconds)
            result = self.prober.judge.judge(answer, seconds)
            is_previous = result.attribution is Attribution.CHAMPION
            kind = Failure.PREVIOUS if is_previous else Failure.WRONG
            wrong = "answers as the previous version" if is_previous else result.wrong
        self.sent += 1
        if wrong:
            self.failures[kind] += 1
            log.warning("%s %s", self.deployment, wrong)
        return wrong

    def _failure(self, last: str) -> VerificationError:
        checks = self.prober.checks
        message = (
            f"{self.deployment}: {self.failed} of {self.sent} probes failed while it was watched for "
            f"{checks.bake_seconds:g} s; the allowed share is {checks.max_error_rate:g}. The last: it {last}"
        )
        error = self._kind()(message)
        error.failed_probes = self.failed
        return error

    def _kind(self) -> type[VerificationError]:
        """Return the kind of error that the failed probes amount to."""
        if self.failures[Failure.PREVIOUS] and not self.all_new:
            return AmbiguousVerificationError
        return UnreachableError if self.failures[Failure.UNREACHED] == self.failed else VerificationError
