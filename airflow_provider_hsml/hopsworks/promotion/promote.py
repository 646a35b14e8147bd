"""
The promotion of a model version: which one is to serve, and the record of what was done.

The decision is a pure function of the candidates, the champion (the version being served) and what the journal says of
earlier ones; bringing it about is ``transition``'s.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import diff, gate
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name, default_deployment_names
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.gate import Decision, Metric, Rules
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, ServedVersion
from airflow_provider_hsml.hopsworks.domain.model_version import Direction, check_model_name
from airflow_provider_hsml.hopsworks.errors import (
    DeploymentError,
    HopsworksError,
    InvalidInputError,
    RolledBackError,
    SupersededError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.rollout.probe import Prober
from airflow_provider_hsml.hopsworks.rollout.reconcile import STRANGERS

from . import promotion_tag
from .guarded_change import GuardedChange, OutdatedDecision
from .journal import Journal, open_journal
from .plan import Plan
from .record import EarlierTry, PromotionResult
from .resume import Resumption
from .situation import Situation, differing, find_champion, find_deployment, read_situation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.journal_entry import JournalEntry
    from airflow_provider_hsml.hopsworks.domain.judge import Checks
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.flow import Clock
    from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Promotion:
    """A wish to have a version of a model, or a script without one, in production."""

    model_name: str | None
    """None: a script alone."""
    desired: SettingValues
    """Settings asked for beside the model."""
    timeout: float
    """Seconds for one change."""
    interval: float
    """Seconds between looks."""
    clock: Clock
    deployment_name: str | None = None
    """None: the model's own."""
    by: Metric | None = None
    """Choose the best version by this; None: the one that ``version`` names."""
    rules: Rules = Rules()  # noqa: RUF009 - it is frozen
    """What the best one has to show."""
    version: int | None = None
    """None: the newest."""
    model_project: str | None = None
    """The project that owns the model and shares its registry; None: the deployment's own."""
    wait: bool = True
    checks: Checks | None = None
    """How it is verified; None: by the registered answers or example."""
    recreate: bool = False
    """Whether to stop the deployment for the change, where there is no room for old and new at once."""
    plan_only: bool = False
    """Whether to decide only, and say what would change."""
    plan: Plan | None = None
    """What was planned, and is now to be done: that and nothing else."""
    run_key: str = ""
    """Which task this is, the same in its retries; empty outside of Airflow."""
    stop_when_killed: bool = False
    """Whether what it was creating is to be stopped when its task is killed."""
    on_decided: Callable[[ModelVersion], object] = lambda _model: None
    """Is given the version that is to serve, before anything is done."""

    async def run(self, project: Project) -> PromotionResult:
        """
        Decide, and bring it about.

        :param project: the project
        :raises HopsworksError: with the record of what was decided and done, where it came to that
        """
        promoted: PromotionResult | None = None
        for _ in range(STRANGERS + 1):
            found, promoted = await self._decided(project)
            try:
                self._check_not_rolled_back(found)
                if found.pending is not None and not self.plan_only and found.is_to_be_taken_back:
                    await self._roll_back(project, found)
                    found, promoted = await self._decided(project)
                return await self._bring_about(project, found, promoted)
            except OutdatedDecision:
                log.info("The deployment was changed since this was decided on; deciding anew")
            except HopsworksError as error:
                error.record = error.record or dataclasses.replace(promoted, failure=error).record(self.by)
                raise
        message = (
            f"{self.deployment_name or self.model_name!r}: its deployment was changed each time it was decided on. Run "
            "the task again when they are done; a pool with one slot keeps tasks of one Airflow apart."
        )
        superseded = SupersededError(message)
        if promoted is not None:
            superseded.record = dataclasses.replace(promoted, failure=superseded).record(self.by)
        raise superseded

    async def look(self, project: Project) -> tuple[str, Journal]:
        """
        Give the deployment's name and its journal.

        :param project: the project
        """
        name, _ = await find_deployment(project, self._names())
        return name, await open_journal(project, name)

    def _names(self) -> list[str]:
        """Give the names that the deployment may have."""
        if self.deployment_name:
            return [check_deployment_name(self.deployment_name)]
        if self.model_name is None:
            message = "deployment_name: expected one, since there is no model to name the deployment after."
            raise InvalidInputError(message)
        return default_deployment_names(check_model_name(self.model_name))

    async def _bring_about(self, project: Project, found: Situation, promoted: PromotionResult) -> PromotionResult:
        chosen = found.decision.chosen if found.decision else None
        if found.decision is not None:
            log.info("Deployment %r: %s.", found.name, found.decision.reason)
        if found.decision is not None and chosen is None:
            return promoted
        desired = self.desired | (model_settings(chosen) if chosen else {})
        differs = differing(project, found, desired)
        if self.plan is not None:
            self.plan.check(found, differs)
        if self.plan_only:
            if self.checks is not None:
                backoff = Backoff(first=1.0, most=self.interval, deadline=self.clock() + self.timeout, clock=self.clock)
                verifier = Prober(project, found.name, self.clock, self.checks)
                await verifier.check(found.live, desired, chosen, backoff)
            what = diff.described(differs) or "no setting would change"
            if found.live is not None and found.live.status.is_down:
                what += "; it would be started"
            elif found.live is not None and self.recreate and differs:
                what += "; it would be stopped for the change"
            log.info("Deployment %r: planned, nothing is sent: %s.", found.name, what)
            return dataclasses.replace(promoted, plan=Plan.of(found, chosen, differs))
        transition = GuardedChange(
            project,
            found.name,
            desired,
            id=found.pending.id if found.pending and found.adopts else uuid.uuid4().hex,
            run_key=self.run_key,
            journal=found.journal,
            decided_on=found.live,
            is_unverified=found.is_unverified,
            timeout=self.timeout,
            interval=self.interval,
            model=chosen,
            checks=self.checks,
            wait=self.wait,
            recreate=self.recreate,
            pending=found.pending,
            adopts=found.adopts,
            clock=self.clock,
        )
        return await apply_and_record(transition, promoted, self.by)

    def _check_not_rolled_back(self, found: Situation) -> None:
        """
        See that no earlier try of this task has ended with a rollback, after which its worker died.

        :raises RolledBackError: one has: tried again, the task would deploy the same version once more
        """
        entry = found.journal.newest
        if entry is None or entry.state is not EntryState.ROLLED_BACK or entry.passes:
            return
        if self.run_key and entry.run == self.run_key:
            what = "It was taken back by an earlier try of this task, which has failed with that for good."
            raise entry.failure().followed_by(RolledBackError, what)

    async def _roll_back(self, project: Project, found: Situation) -> None:
        """
        Take back what an earlier run has left unverified.

        :raises RolledBackError: an earlier try of the same task had begun the rollback
        """
        entry = found.pending
        if entry is None:
            return
        error, now = await roll_back(
            project,
            found,
            entry,
            timeout=self.timeout,
            interval=self.interval,
            recreate=self.recreate,
            clock=self.clock,
        )
        if entry.state is EntryState.ROLLING_BACK and self.run_key and entry.run == self.run_key:
            error.record = dataclasses.replace(
                _promoted(found, self.run_key), failure=error, now=now.deployment
            ).record(self.by)
            raise error

    async def _decided(self, project: Project) -> tuple[Situation, PromotionResult]:
        """Decide, and say so."""
        found = await self._decide(project)
        if found.decision is not None and found.decision.chosen is not None:
            self.on_decided(found.decision.chosen)
        return found, _promoted(found, self.run_key)

    async def _decide(self, project: Project) -> Situation:
        """Find the deployment as it is, and what is to serve."""
        names = self._names()
        if self.model_name is None:
            found = await read_situation(project, names)
            if found.live is not None and found.live.model_name is not None:
                message = (
                    f"model_name: {found.live} serves a model and cannot be made to serve a script alone: name one."
                )
                raise InvalidInputError(message)
            return found
        source = await lookup.find_registry(project, self.model_project)
        if self.by is None:
            model = await lookup.find_version(project, check_model_name(self.model_name), self.version, source)
            found = await read_situation(project, names)
            why = "is the newest" if self.version is None else "was asked for"
            decision = Decision(model, f"version {model.version} of model {model.name!r} {why}")
            return dataclasses.replace(found, decision=decision)
        versions = await lookup.list_versions(project, check_model_name(self.model_name), source)
        found = await read_situation(project, names)
        owner = source.name if source else project.name
        if not versions:
            raise lookup.no_version(self.model_name, owner)
        failed = found.journal.newest.rejected if found.journal.newest else ()
        rejected = {
            one.served.version: one.reason
            for one in failed
            if (one.served.project, one.served.name) == (owner, self.model_name) and one.served.version is not None
        }
        entry, former = found.journal.newest, found.former
        is_down = found.live is not None and found.live.status.is_down
        if entry is not None and is_down and (entry.left_nothing or former in [one.served for one in entry.rejected]):
            # One that never served, or was rejected, is nothing to compare with.
            former = None
        champion = await find_champion(project, former, versions, found.name)
        decision = gate.decide(versions, champion, self.by, self.rules, rejected)
        return dataclasses.replace(found, decision=decision, champion=champion)


def _promoted(found: Situation, run_key: str) -> PromotionResult:
    """Make what is known before anything is done."""
    done = _done(found, run_key)
    return PromotionResult(found.name, None, found.decision, found.champion, found.live, found.former, done=done)


def _done(found: Situation, run_key: str) -> EarlierTry | None:
    """Tell what an earlier try of the same task has brought about, where that is what is to serve."""
    entry, decision = found.journal.newest, found.decision
    chosen = decision.chosen if decision else None
    desired = ServedVersion(chosen.project, chosen.name, chosen.version) if chosen else ServedVersion()
    if entry is None or not run_key or (entry.run, entry.state) != (run_key, EntryState.VERIFIED):
        return None
    if found.is_unverified or entry.challenger != desired:
        return None
    before = entry.before
    if before is None:
        return EarlierTry("created", None, is_kept=False)
    action = "updated" if entry.desired or before.was_up else "started"
    return EarlierTry(
        action, before.served.version, is_kept=before.served == desired and decision is not None and decision.is_kept
    )


async def apply_and_record(
    transition: GuardedChange, promoted: PromotionResult, by: Metric | None, resumption: Resumption | None = None
) -> PromotionResult:
    """
    See a change through, and have its record made however it ends.

    :param transition: the change
    :param promoted: what is known of it before
    :param by: what was compared by
    :param resumption: how what takes long in it has ended, where that was left to somebody else
    :raises HopsworksError: it failed; with the record
    """
    model = promoted.decision.chosen if promoted.decision else None
    note = functools.partial(promotion_tag.tag_promotion, transition.project, model, run_key=transition.run_key)
    transition.told = promoted.told(by) | {"recreate": transition.recreate, "run_key": transition.run_key}
    try:
        arrived = await (transition.resume(resumption) if resumption else transition.run())
    except HopsworksError as error:
        failed = dataclasses.replace(
            promoted, failure=error, now=transition.returned.deployment if transition.returned else transition.seen
        )
        error.record = failed.record(by)
        await note(error.record, at=transition.clock())
        raise
    done = dataclasses.replace(promoted, arrived=arrived)
    await note(done.record(by), at=transition.clock())
    return done


async def roll_back(
    project: Project,
    found: Situation,
    entry: JournalEntry,
    *,
    timeout: float,
    interval: float,
    recreate: bool,
    clock: Clock,
) -> tuple[RolledBackError, Outcome]:
    """
    Take back what an earlier run has left unverified.

    :param project: the project
    :param found: what there is
    :param entry: the change
    :param timeout: seconds for it
    :param interval: seconds between looks
    :param recreate: whether the deployment is to be stopped for it
    :param clock: tells the seconds since 1970
    :return: what it failed with, and what serves again
    :raises HopsworksError: it could not be taken back
    """
    left = DeploymentError("An earlier run has left it unverified; what was there before is to serve")
    why = entry.failure() if entry.state is EntryState.ROLLING_BACK else left
    transition = GuardedChange(
        project,
        found.name,
        {},
        id=entry.id,
        run_key=entry.run,
        journal=found.journal,
        decided_on=found.live,
        timeout=timeout,
        interval=interval,
        recreate=recreate,
        pending=entry,
        adopts=True,
        worker_only=True,
        clock=clock,
    )
    try:
        await transition.roll_back(why, found.live)
    except RolledBackError as error:
        if transition.returned is not None:
            log.warning("%s", error)
            return error, transition.returned
        raise
    raise AssertionError  # Taking back always raises.


async def resume_promotion(
    project: Project,
    watch: RolloutWatch,
    event: Mapping[str, Any],
    told: Mapping[str, Any],
    clock: Clock,
) -> PromotionResult:
    """
    Go on with a promotion, or a rollback by hand, after what takes long in it was left to somebody else.

    :param project: the project
    :param watch: what was left
    :param event: how that ended
    :param told: what was known of it before
    :param clock: tells the seconds since 1970
    :raises HopsworksError: with the record of what was decided and done
    """
    decision = told["decision"]
    if decision is not None:
        chosen = await _find(project, decision["chosen"])
        decision = Decision(chosen, decision["reason"], decision["is_kept"])
    champion = await _find(project, told["champion"])
    former = None if told["former"] is None else ServedVersion(**told["former"])
    done = None if told["done"] is None else EarlierTry(**told["done"])
    promoted = PromotionResult(told["deployment_name"], None, decision, champion, None, former, done=done)
    transition = GuardedChange(
        project,
        promoted.name,
        {},
        id=watch.noted or "",
        run_key=told["run_key"],
        journal=await open_journal(project, promoted.name),
        decided_on=None,
        timeout=watch.timeout,
        interval=watch.interval,
        model=decision.chosen if decision else None,
        checks=watch.verifier.checks,
        recreate=told["recreate"],
        clock=clock,
    )
    return await apply_and_record(transition, promoted, metric_of(told), Resumption(project, watch, event))


def metric_of(told: Mapping[str, Any]) -> Metric | None:
    """
    Give the metric that a promotion compared by.

    :param told: what was known of it
    """
    return None if told["metric"] is None else Metric(told["metric"], Direction.MAX, None)


async def _find(project: Project, served: Mapping[str, Any] | None) -> ModelVersion | None:
    if served is None:
        return None
    return await lookup.find_served(project, served["project"], served["name"], served["version"])
