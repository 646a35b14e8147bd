"""The requests and waits that a reconciliation is made of; ``reconcile`` decides which of them come in which order."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import script_file
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus as Status
from airflow_provider_hsml.hopsworks.domain.judge import Checks
from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import (
    FailureTracker,
    IdleTracker,
    InstanceTracker,
    RolloutCause,
    RolloutTracker,
)
from airflow_provider_hsml.hopsworks.domain.verification import checks_to_json
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    DeploymentError,
    HopsworksError,
)

from . import inputs
from .inputs import ResumePoint
from .probe import Prober
from .reads import unchanged
from .restore_version import restore_version
from .start import send_start, wait_for_start
from .stop import stop
from .update import Replan, Update
from .watch import RolloutWatch, SentChange, StartNeeded, read_instance_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Backoff

    from .inputs import Desired, RolloutPolicy, Run
    from .schema_carry import CarriedSchema

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """How far a reconciliation has come."""

    has_changed: bool = False
    """Whether a change of ours was carried out, as far as is known."""
    seen: Deployment | None = None
    """The deployment as it was read last."""
    was: Deployment | None = None
    """The deployment as it was read while a change was prepared: later reads have to know as much."""
    action: str = ""
    """The action of the outcome, as far as it is decided."""
    is_recorded: bool = False
    """Whether the journal holds the change."""
    is_stopped: bool = False
    """Whether the deployment was stopped for the change, and not started since."""
    stopped_at: float | None = None
    """When that was, in seconds since 1970."""
    old_names: frozenset[str] = frozenset()
    """Names of the instances before the change; empty if they are not known."""
    concurrent_changes: int = 0
    """How many changes of other clients came in between."""
    resume: ResumePoint = ResumePoint()  # noqa: RUF009 - it is frozen
    """How another process resumes the change."""


@dataclass(slots=True)
class Steps:
    """The steps of one reconciliation, each of which sends one change, or watches one. The timeout counts from here."""

    run: Run
    desired: Desired
    policy: RolloutPolicy
    checks: Checks | None
    """How the deployment is verified; None: by what was registered with the version."""
    progress: Progress
    prober: Prober = field(init=False)
    update: Update = field(init=False)
    deadline: float = field(init=False)
    """Seconds since 1970."""

    def __post_init__(self) -> None:
        """Begin; the timeout counts from here."""
        run, desired = self.run, self.desired
        self.deadline = run.clock() + run.timeout
        self.prober = Prober(run.project, run.name, run.clock, self.checks or Checks(), run.files, run.routes)
        settings = script_file.absolute(run.project, desired.settings)
        self.update = Update(run, settings, desired.model, self.deadline, self._record_sent, desired.template)

    def backoff(self, first: float) -> Backoff:
        """
        Return how often to poll until the deadline.

        :param first: seconds before the second poll
        """
        return self.run.backoff(first, self.deadline)

    def is_stored(self, live: Deployment | None) -> bool:
        """
        Return whether Hopsworks has the desired state, so that no change has to be sent.

        :param live: the deployment; None if there is none
        """
        return live is not None and self.desired.restore in (None, live.version) and not self.update.differs(live)

    def probe_inputs(self) -> dict[str, Any]:
        """Return the inputs of the verification that another process cannot find out by itself, as plain JSON."""
        checks, judge = self.checks, self.prober.judge
        return {
            "body": checks.body if checks else None,
            "checks": checks_to_json(checks) if checks else None,
            "champion": judge.champion,
            "champion_version": judge.champion_version,
            "is_dropped": self.prober.is_dropped,
            "old_names": sorted(self.progress.old_names),
        }

    def recall(self, probe_inputs: Mapping[str, Any]) -> None:
        """
        Take over the inputs of another process. Its answer of the previous version counts for the same request only.

        :param probe_inputs: its ``probe_inputs``; missing ones are unknown
        """
        judge, body = self.prober.judge, self.prober.checks.body
        judge.champion = None
        self.progress.old_names = frozenset(probe_inputs.get("old_names") or ())
        judge.champion_version = probe_inputs.get("champion_version")
        if "body" in probe_inputs and probe_inputs["body"] == body:
            judge.champion = probe_inputs.get("champion")
            self.prober.is_dropped = probe_inputs.get("is_dropped") is True

    async def read_probe(self, live: Deployment) -> None:
        """
        Find out how to probe the new version, once.

        :param live: the deployment
        """
        if not self.policy.wait:
            return
        desired, backoff = self.desired, self.backoff(inputs.FIRST_DELAY_START)
        is_optional = self.policy.is_way_back or self.policy.is_rollback
        model = await self.prober.prepare(live, desired.settings, desired.model, backoff, is_optional=is_optional)
        self.desired = dataclasses.replace(desired, model=model)

    async def check_verification(self, live: Deployment | None) -> None:
        """
        Refuse checks that cannot be made, before anything is changed.

        :param live: the deployment; None if it is to be created
        :raises InvalidInputError: which check, and why
        """
        if self.checks is not None:
            desired, backoff = self.desired, self.backoff(inputs.FIRST_DELAY_START)
            model = await self.prober.check(live, desired.settings, desired.model, backoff)
            self.desired = dataclasses.replace(desired, model=model)

    async def remember_previous(self, live: Deployment) -> None:
        """
        Send the probe to a Running deployment before a change, and record its answer and the names of its instances.

        Nothing is recorded if the deployment is stopped for the change (``recreate``): no old instance can answer then.

        :param live: the deployment
        :raises HopsworksError: the probe is refused before any version sees it, so it would say nothing about the new
            one
        """
        if live.status is not Status.RUNNING:
            return
        is_kept = not self.policy.recreate
        # The names come first: another client's change during the probe would make new instances look old.
        names = await read_instance_names(self.run.project, live) if is_kept else frozenset()
        answer = await self.prober.probe_champion(may_refuse=self.policy.is_way_back)
        if is_kept:
            self.progress.old_names = names
            self.prober.judge.record_champion(live.model_version, answer)

    async def create(self, body: Mapping[str, Any]) -> Deployment:
        """
        Create the deployment.

        :param body: from ``Update.prepare_create``
        """
        live, is_ours = await self.update.create(body)
        self.progress.action = "created" if is_ours else ""
        return live

    async def store(
        self,
        live: Deployment,
        *,
        restore: int | None,
        newest_version: int | None,
        schema: CarriedSchema | None = None,
    ) -> Deployment:
        """
        Have Hopsworks store a configuration; with the policy ``recreate``, stop the deployment first.

        :param live: the deployment that the change was prepared against
        :param restore: the deployment version to activate; None sends the desired settings
        :param newest_version: number of the newest deployment version; None where Hopsworks keeps none
        :param schema: the schema of its requests after an update; None where a deployment version is activated
        :return: the deployment as it was stored
        """
        if self.policy.recreate and not live.status.is_down:
            live = await self.stop(live)
        had_changed = self.progress.has_changed
        try:
            if restore is not None:
                stored = await restore_version(self.update, live, restore, self.backoff(inputs.FIRST_DELAY_UPDATE))
            else:
                stored = await self.update.update(live, newest_version=newest_version, schema=schema)
        except Replan:
            self.progress.has_changed = had_changed
            raise
        self.progress.seen = stored
        return stored

    def _record_sent(self, is_sent: bool) -> None:  # noqa: FBT001 - a callback
        self.progress.has_changed = is_sent

    async def stop(self, live: Deployment) -> Deployment:
        """
        Stop the deployment, to make room for the change.

        :param live: the deployment
        :raises Replan: it was changed or deleted meanwhile
        """
        log.info("Stopping %s to make room: it does not answer until the change is live", live)
        self.progress.is_stopped = True
        self.progress.stopped_at = self.run.clock()
        project, backoff = self.run.project, self.backoff(inputs.FIRST_DELAY_START)
        found = await stop(project, live.name, backoff, known=live)
        stopped = await unchanged(project, found, live, lambda: self.update.read(live))
        if stopped is None:
            raise Replan
        return stopped

    async def start(self, live: Deployment) -> None:
        """
        Send a START.

        :param live: the deployment, which is stopped
        """
        await send_start(self.run, live, self.backoff(inputs.FIRST_DELAY_START))
        self.progress.is_stopped = False

    async def undo_stop(self, why: Exception) -> None:
        """
        Start a deployment that was stopped for a change that has failed, whether or not it was sent.

        :param why: the failure
        :raises DeploymentError: it is left stopped
        """
        log.warning("Starting what was stopped for a change that has failed: %s", str(why) or type(why).__name__)
        self.deadline = self.run.clock() + self.run.timeout
        self.update = dataclasses.replace(self.update, deadline=self.deadline)
        try:
            live = await self.update.read()
            if live is not None and live.status is Status.STOPPING:
                live = await self.update.stable(live)
            while live is not None and live.status.is_down:
                if self.run.clock() >= self.deadline:
                    message = f"{live} could not be started within {self.run.timeout:g} s."
                    raise DeadlineExceededError(message)
                await self.start(live)
                live = await wait_for_start(self.run, live, self.update.backoff())
        except Replan:
            log.warning("Deployment %r was deleted meanwhile", self.run.name)
        except HopsworksError as error:
            what = f"Deployment {self.run.name!r} is left stopped: {error}\nStart it with StartDeploymentOperator."
            raise (why.extended(what) if isinstance(why, HopsworksError) else DeploymentError(what)) from error

    async def watch(self, live: Deployment, cause: RolloutCause, action: str, *, is_fresh: bool = False) -> Outcome:
        """
        Follow the rollout until the desired configuration answers.

        :param live: the deployment
        :param cause: what has set the rollout in motion
        :param action: the action of the outcome, unless an earlier step has decided it
        :param is_fresh: whether ``live`` was read right before, so that it is the first poll
        """
        progress = self.progress
        progress.action = progress.action or action
        if not self.policy.wait:
            return Outcome(live, progress.action)
        await self.read_probe(live)
        watch = RolloutWatch(
            live.id,
            RolloutTracker(
                cause,
                since=self.run.clock(),
                signature=None if cause is RolloutCause.START else live.signature,
                model_version=live.model_version,
                instances=InstanceTracker(progress.old_names),
                idle=IdleTracker(can_wake=self.prober.can_probe),
                failure=FailureTracker(self.policy.unschedulable_grace),
            ),
            self.prober,
            SentChange(progress.action, progress.has_changed, progress.stopped_at, self.policy.is_way_back),
            progress.resume,
            timeout=self.run.timeout,
            deadline=self.deadline,
            interval=self.run.interval,
            seen=progress.seen,
            fresh=live if is_fresh else None,
        )
        while True:
            try:
                result = await watch
            finally:
                progress.seen = watch.seen
            if not isinstance(result, StartNeeded):
                return result.outcome(progress.action)
            await self.start(result.deployment)
