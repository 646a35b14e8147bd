"""
The bake: after it has arrived, a deployment is asked for a while longer, as production will ask it.

A probe counts once it may have reached the deployment. What says nothing of it, a server that is away or the request
that wakes an Idle one, is counted nowhere.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus as Status
from airflow_provider_hsml.hopsworks.domain.judge import Attribution
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import FailureTracker
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    DeploymentFailedError,
    HopsworksError,
    SupersededError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep, read_patiently, timed
from airflow_provider_hsml.hopsworks.inference import predict

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

    from .probe import Prober

log = logging.getLogger(__name__)

_ROUNDING = 1e-9


@dataclass(slots=True)
class Bake:
    """Watches one deployment that has arrived. Drive ``run()``."""

    prober: Prober
    deployment: Deployment
    """As it arrived, later as it was seen last."""
    asked: int = 0
    failed: int = 0
    slowest: float = 0.0
    """Seconds."""
    _failed: FailureTracker = field(default_factory=FailureTracker)

    async def run(self) -> Deployment:
        """
        Ask it now and then until the time is over, and see at the end that it is still the one that was asked.

        :return: the deployment as it was seen last
        :raises VerificationError: more probes failed than may
        :raises DeploymentFailedError: it is Failed and stays so
        :raises SupersededError: somebody else changed, stopped or deleted it
        :raises DeadlineExceededError: the server has been away for too long
        """
        checks, clock = self.prober.checks, self.prober.clock
        if not checks.bake_seconds:
            await self._look()
            return self.deployment
        interval = min(checks.probe_interval, checks.bake_seconds)
        planned = int(checks.bake_seconds / interval + _ROUNDING)
        log.info(
            "%s: watching it for %g s, asking it every %g s",
            self.deployment,
            checks.bake_seconds,
            checks.probe_interval,
        )
        begun, slot = clock(), 0
        while True:
            # What takes longer than the interval leaves turns out, instead of making them up all at once.
            slot = max(slot + 1, math.ceil((clock() - begun) / interval))
            is_failed = self.deployment.status is Status.FAILED
            if slot > planned and (self.asked or not self.prober.can_ask) and not is_failed:
                break
            if not is_failed and clock() > begun + checks.bake_seconds + predict.ROUTE_BUDGET:
                message = f"{self.deployment} could not be asked once while it was watched."
                raise DeadlineExceededError(message)
            await Sleep(max(0.0, begun + slot * interval - clock()))
            await self._look()
            wrong = await self._probe()
            if self.failed > checks.max_error_rate * planned + _ROUNDING:
                raise self._not_verified(wrong)
        if self.failed > checks.max_error_rate * self.asked + _ROUNDING:
            raise self._not_verified("too few of the rest were asked in that time")
        await self._look()
        log.info(
            "%s: watched for %g s; %d probes, %d failed, the slowest took %.0f ms",
            *(self.deployment, checks.bake_seconds, self.asked, self.failed, self.slowest * 1000),
        )
        return self.deployment

    async def _look(self) -> None:
        """See that it is still ours, and still up."""
        clock = self.prober.clock
        backoff = Backoff(first=1.0, most=10.0, deadline=clock() + predict.ROUTE_BUDGET, clock=clock)
        seen = await read_patiently(api.get_deployment_by_id(self.prober.project, self.deployment.id), backoff)
        if seen is None or seen.status.is_down or seen.status is Status.STOPPING:
            message = f"{seen or self.deployment} was stopped or deleted by another client while it was watched."
            raise SupersededError(message)
        if seen.signature != self.deployment.signature:
            message = f"{seen} was changed by another client while it was watched; their change is kept."
            raise SupersededError(message)
        self.deployment = seen
        if self._failed.stays(seen, clock()):
            raise DeploymentFailedError(seen)

    async def _probe(self) -> str:
        """Ask once, count it, and say what was wrong."""
        if not self.prober.can_ask:
            return ""
        if self.deployment.status is Status.IDLE:
            await self.prober.wake()
            return ""
        try:
            answer, seconds = await timed(self.prober.send(), self.prober.clock)
        except HopsworksError as error:
            if not await self.prober.is_its_fault(self.deployment, error):
                log.warning("%s; not counted", error)
                return ""
            wrong = f"is not reached, or refuses: {error}"
        else:
            self.slowest = max(self.slowest, seconds)
            result = self.prober.judge.judge(answer, seconds)
            wrong = "answers as the previous version" if result.attribution is Attribution.CHAMPION else result.wrong
        self.asked += 1
        if wrong:
            self.failed += 1
            log.warning("%s %s", self.deployment, wrong)
        return wrong

    def _not_verified(self, last: str) -> VerificationError:
        checks = self.prober.checks
        message = (
            f"{self.deployment}: {self.failed} of {self.asked} probes failed while it was watched for "
            f"{checks.bake_seconds:g} s, and a share of {checks.max_error_rate:g} may. The last: it {last}"
        )
        return VerificationError(message)
