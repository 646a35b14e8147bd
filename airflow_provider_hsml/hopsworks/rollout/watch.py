"""
Watching a rollout until what was asked for is what answers: the part of an arrival that takes long.

It only reads and probes. So it need not hold a worker: ``handover`` writes it down as ids, names and numbers, and a
trigger may see it through.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.judge import Attribution
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import NextStep, RolloutCause, RolloutTracker
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, HopsworksError, SupersededError
from airflow_provider_hsml.hopsworks.flow import Backoff, Defer, Flow, Sleep, read_patiently

from .bake import Bake
from .status import describe_state, log_change

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

    from .probe import Prober

log = logging.getLogger(__name__)

FIRST_PAUSE_START = 0.5
FIRST_PAUSE_UPDATE = 2.0
"""Faster looks after an update buy only stale answers."""


@dataclass(frozen=True, slots=True)
class WatchResult:
    """What was seen at last."""

    deployment: Deployment
    verified_by: str
    """``fingerprint``, ``instances`` or ``status``."""
    downtime: float | None = None
    """Seconds for which it did not answer, where it was stopped for the change."""


@dataclass(slots=True)
class RolloutWatch(Defer[WatchResult]):
    """Follows the rollout of one deployment, asks it, and bakes it. Drive ``run()``."""

    project: Project
    deployment_id: int
    roll: RolloutTracker
    verifier: Prober
    timeout: float
    """Seconds that it may take, for messages."""
    deadline: float
    """When they are over, seconds since 1970."""
    interval: float
    """Seconds between looks."""
    action: str
    """What was done to the deployment before."""
    has_changed: bool
    """Whether that was a change of ours."""
    start: Callable[[Deployment], Flow[None]]
    """Sends the START again that was not seen to do anything."""
    down_since: float | None = None
    """When it was stopped for the change; None: it was not."""
    noted: str | None = None
    """The journal's entry that has what is not written down elsewhere; None: there is none."""
    worker_only: bool = False
    """Whether what may follow needs what only this process knows."""
    told: Mapping[str, Any] | None = None
    """What who goes on afterwards has to know, in plain JSON."""
    said: str = ""
    """The state that the log has said last."""
    seen: Deployment | None = None
    """As it was seen last."""
    _backoff: Backoff = field(init=False)

    async def run(self) -> WatchResult:
        """
        See it through.

        :raises DeploymentFailedError: its instances do not come up
        :raises VerificationError: it serves, but does not answer as it should
        :raises SupersededError: somebody else changed, stopped or deleted it
        :raises DeadlineExceededError: the timeout passed
        """
        moved, clock = self.roll.moved, self.verifier.clock
        first = FIRST_PAUSE_START if moved is RolloutCause.START else FIRST_PAUSE_UPDATE
        self._backoff = Backoff(first=first, most=self.interval, deadline=self.deadline, clock=clock)
        while True:
            deployment = await self._follow()
            await self._prepare(deployment)
            likeness = await self.verifier.ask_in_a_row(deployment, self.roll)
            if likeness is not Attribution.CHAMPION:
                break
            self.roll.not_yet()
        if self.verifier.judge.is_fingerprint(likeness, can_be_old=moved is RolloutCause.CHANGE):
            verified_by = "fingerprint"
        elif self.roll.names_are_new or moved is RolloutCause.START:
            verified_by = "instances"
        else:
            verified_by = "status"
        downtime = None if self.down_since is None else clock() - self.down_since
        stopped = "" if downtime is None else f"; it did not answer for {downtime:.0f} s"
        log.info("%s has arrived, verified by %s%s", deployment, verified_by, stopped)
        self.seen = await Bake(self.verifier, deployment).run()
        return WatchResult(self.seen, verified_by, downtime)

    async def _prepare(self, deployment: Deployment) -> None:
        """Find out what to ask, where that was not done when the change was made: another process sees it through."""
        if not self.verifier.is_prepared:
            await self.verifier.prepare(deployment, {}, None, self._backoff)

    async def _follow(self) -> Deployment:
        """Look until the rollout is through, as far as the states tell."""
        roll = self.roll
        while True:
            deployment = await read_patiently(api.get_deployment_by_id(self.project, self.deployment_id), self._backoff)
            if deployment is None:
                message = f"Deployment {self.verifier.name!r} was deleted by somebody else while it was rolled out."
                raise SupersededError(message)
            now = self.verifier.clock()
            self.said = log_change(self.said or describe_state(self.seen), deployment, now - roll.since)
            self.seen = deployment
            step = roll.next(deployment, now)
            if step is NextStep.PROBE or (
                step is NextStep.NAMES and roll.names(await read_instance_names(self.project, deployment))
            ):
                return deployment
            if step is NextStep.START:
                await self.start(deployment)
            elif step is NextStep.WAKE:
                await self._prepare(deployment)
                await self.verifier.wake()
            pause = self._backoff.next_delay()
            if pause is None:
                raise DeadlineExceededError(self._too_late(deployment))
            await Sleep(min(pause, roll.look_within))

    def _too_late(self, deployment: Deployment) -> str:
        roll, message = self.roll, f"{deployment} has not arrived within {self.timeout:g} s"
        if roll.old_answered or (roll.old_names and roll.stable_since is not None):
            how = "answers are those of the version before" if roll.old_answered else "old instances still run"
            return f"{message}: {how}. The change may never have been applied: restart the deployment."
        reason = deployment.reason or "the server gives no reason"
        return f"{message}: {reason}. Allow more by 'timeout', or look at its log."


async def read_instance_names(project: Project, deployment: Deployment) -> frozenset[str]:
    """
    Read the names of a deployment's instances; none when the server does not tell.

    :param project: the deployment's project
    :param deployment: the deployment
    """
    try:
        logs = await api.get_logs(project, deployment, tail=1)
    except HopsworksError as error:
        log.info("The names of the instances are not known: %s", error)
        return frozenset()
    return frozenset(instance.instance for instance in logs or [])
