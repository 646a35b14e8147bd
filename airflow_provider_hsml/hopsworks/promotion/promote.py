"""
The promotion of a model version: decide which one is to serve, make that change, and return its record.

The decision is a pure function of the candidates, the champion (the version being served) and the journal; the change
is ``guarded_change``'s.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import diff, gate, measured_gate, script_file
from airflow_provider_hsml.hopsworks.domain.candidate_table import candidate_table
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name, default_deployment_names
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.gate import Decision, Metric, Rules
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, ServedVersion
from airflow_provider_hsml.hopsworks.domain.model_version import Direction, check_model_name
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InvalidInputError,
    RolledBackError,
    SupersededError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.registry.trained_until import read_trained_until
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, ResumePoint, RolloutPolicy, Run
from airflow_provider_hsml.hopsworks.rollout.probe import Prober
from airflow_provider_hsml.hopsworks.rollout.reconcile import CONCURRENT_CHANGES

from . import promotion_tag
from .change_record import ChangeRecord
from .guarded_change import GuardedChange
from .journal import Journal, OutdatedDecision, open_journal
from .plan import Plan
from .preflight import FAILED, UNFINISHED, Preflight, PreflightMode, tidy
from .record import EarlierTry, PromotionResult, Record
from .settle import find_model, settle
from .situation import Situation, differing, find_champion, find_deployment, read_situation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_hsml.hopsworks.domain.judge import Checks
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues

    from .resume import Resumption

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which version of a model is to serve."""

    model_name: str | None
    """None: no model, but the script in the settings."""
    version: int | None = None
    """The number of the version; None: the newest, or the best one if ``by`` is there."""
    by: Metric | None = None
    """Choose the best version by this metric."""
    rules: Rules = Rules()  # noqa: RUF009 - it is frozen
    """What the best version has to show."""
    model_project: str | None = None
    """The project that owns the model and shares its registry; None: the deployment's own."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A model version, or a script without one, that is to go to production."""

    run: Run
    """Without a name, the deployment is named after the model."""
    selection: Selection
    settings: SettingValues
    """The settings that were asked for beside the model."""
    policy: RolloutPolicy = RolloutPolicy()  # noqa: RUF009 - it is frozen
    checks: Checks | None = None
    """How the change is verified; None: by what was registered with the version."""
    plan_only: bool = False
    """Whether to decide only, and say what would change."""
    plan: Plan | None = None
    """The plan to carry out: that change and no other."""
    stop_when_killed: bool = False
    """Whether a deployment that is being created is stopped when the task is killed."""
    on_decided: Callable[[ModelVersion], object] = lambda _model: None
    """Is called with the version that is to serve, before anything is changed."""
    preflight: PreflightMode = PreflightMode.OFF
    """Whether the change is tried in a temporary deployment first."""

    async def promote(self) -> PromotionResult:
        """
        Decide, and make the change.

        :raises HopsworksError: with the record of the promotion, if a decision was made
        """
        result: PromotionResult | None = None
        rolled_back: Record | None = None
        for number in range(CONCURRENT_CHANGES + 1):
            situation, result = await self._decided()
            if number == 0:
                await tidy(self.run, situation)
            try:
                self._check_not_rolled_back(situation)
                ended = None if self.plan_only else await self._settle(situation)
                if ended is not None:
                    situation, result = await self._decided()
                    rolled_back = ended.record(self.selection.by) if ended.failure else rolled_back
                result = dataclasses.replace(result, rolled_back=rolled_back)
                return await self._carry_out(situation, result)
            except OutdatedDecision:
                log.info("The deployment or its journal was changed after the decision; deciding again")
            except HopsworksError as error:
                error.record = error.record or dataclasses.replace(result, failure=error).record(self.selection.by)
                raise
        name = self.run.name or self.selection.model_name
        message = (
            f"{name!r}: its deployment or its journal was changed after each decision.\n"
            "Run the task again when they are done; a pool with one slot keeps tasks of one Airflow apart."
        )
        superseded = SupersededError(message)
        if result is not None:
            superseded.record = dataclasses.replace(result, failure=superseded).record(self.selection.by)
        raise superseded

    async def read_journal(self) -> tuple[str, Journal]:
        """Return the name of the deployment, and its journal."""
        names, named_after = self._names()
        name = names[0]
        if named_after is not None:  # Else it was given, and needs no read, which may fail.
            name, _ = await find_deployment(self.run.project, names, named_after)
        return name, await open_journal(self.run.project, name)

    def _absolute_settings(self) -> SettingValues:
        """Return the settings beside the model, with the whole path of each script."""
        return script_file.absolute(self.run.project, self.settings)

    def _names(self) -> tuple[list[str], str | None]:
        """Return the names that the deployment may have, and the model that they were derived from."""
        model_name = self.selection.model_name
        if self.run.name:
            return [check_deployment_name(self.run.name)], None
        if model_name is None:
            message = "deployment_name: expected one, since there is no model to name the deployment after."
            raise InvalidInputError(message)
        return default_deployment_names(check_model_name(model_name)), model_name

    async def _carry_out(self, situation: Situation, result: PromotionResult) -> PromotionResult:
        decision = situation.decision
        chosen = decision.chosen if decision else None
        if decision is not None:
            if decision.candidates:
                what = f"candidates of model {self.selection.model_name!r}"
                log.info("Deployment %r, %s:\n%s", situation.name, what, candidate_table(decision.candidates))
            log.info("Deployment %r: %s.", situation.name, decision.reason)
            if chosen is None:
                return result
        run = dataclasses.replace(self.run, name=situation.name)
        settings = self.settings | (model_settings(chosen) if chosen else {})
        differs = differing(run.project, situation, settings)
        if self.plan is not None:
            self.plan.check(situation, differs)
        if self.plan_only:
            await self._check_plan(run, situation, Desired(settings, chosen), differs)
            return dataclasses.replace(result, plan=Plan.of(situation, chosen, differs))
        desired = Desired(settings, chosen)
        if self.preflight is not PreflightMode.OFF and not situation.adopts and (differs or situation.live is None):
            situation, result = await self._try_out(run, situation, result, desired, differs)
        record = ChangeRecord(
            run,
            desired,
            situation.journal,
            situation.live,
            situation.pending,
            adopts=situation.adopts,
            is_unverified=situation.is_unverified,
        )
        return await apply_and_record(GuardedChange(record, self.policy, self.checks), result, self.selection.by)

    async def _try_out(
        self,
        run: Run,
        situation: Situation,
        result: PromotionResult,
        desired: Desired,
        differs: Mapping[str, tuple[Any, Any]],
    ) -> tuple[Situation, PromotionResult]:
        """Try the change in a temporary deployment, and note in the result how that has ended."""
        preflight = Preflight(run, self.preflight, self.checks, self.policy.unschedulable_grace)
        try:
            situation, tried = await preflight.try_out(situation, desired, differs)
        except HopsworksError as error:
            ended = FAILED if isinstance(error, VerificationError) else UNFINISHED
            failed = dataclasses.replace(result, preflight=ended, failure=error)
            error.record = failed.record(self.selection.by)
            raise
        return situation, dataclasses.replace(result, preflight=tried)

    async def _check_plan(
        self, run: Run, situation: Situation, desired: Desired, differs: Mapping[str, tuple[Any, Any]]
    ) -> None:
        """Refuse checks that cannot be made, and log what the plan would change."""
        live = situation.live
        if self.checks is not None:
            prober = Prober(run.project, run.name, run.clock, self.checks, run.files, run.routes)
            await prober.check(live, desired.settings, desired.model, run.backoff(1.0))
        what = diff.describe_changes(differs) or "no setting would change"
        if live is not None and live.status.is_down:
            what += "; it would be started"
        elif live is not None and self.policy.recreate and differs:
            what += "; it would be stopped for the change"
        log.info("Deployment %r: planned, nothing is sent: %s.", run.name, what)

    def _check_not_rolled_back(self, situation: Situation) -> None:
        """
        Refuse to repeat a change that an earlier try of this task has rolled back before its worker died.

        :raises RolledBackError: the version would only be deployed and rolled back once more
        """
        entry = situation.journal.newest
        if entry is None or entry.state is not EntryState.ROLLED_BACK or entry.passes:
            return
        if self.run.key and entry.run == self.run.key:
            what = "It was rolled back by an earlier try of this task, which has failed with that for good."
            raise entry.failure().followed_by(RolledBackError, what)

    async def _settle(self, situation: Situation) -> PromotionResult | None:
        """
        End the pending change of an earlier run, and return its result; None if there was none to end.

        :raises HopsworksError: with the record of that change: it could not be verified, so that no other version may
            replace it; or an earlier try of the same task had made it, and it was rolled back
        """
        entry, by = situation.pending, self.selection.by
        is_due = situation.has_to_be_rolled_back or (by is not None and situation.has_to_be_settled)
        if entry is None or not is_due:
            return None
        ended = await settle(self.run, situation, entry, policy=self.policy, checks=self.checks, by=by)
        is_ours = self.run.key and entry.run == self.run.key and entry.state is not EntryState.FAILED
        if ended.failure is not None and is_ours:
            ended.failure.record = ended.record(by)
            raise ended.failure
        return ended

    async def _decided(self) -> tuple[Situation, PromotionResult]:
        """Decide, and announce the decision."""
        situation = await self._decide()
        if situation.decision is not None and situation.decision.chosen is not None:
            self.on_decided(situation.decision.chosen)
        return situation, _result_before(situation, self.run.key)

    async def _decide(self) -> Situation:
        """Read the situation, and choose the version that is to serve."""
        project, selection, names = self.run.project, self.selection, self._names()
        if selection.model_name is None:
            situation = await read_situation(project, *names)
            if situation.live is not None and situation.live.model_name is not None:
                message = (
                    f"model_name: {situation.live} serves a model and cannot be made to serve a script alone: name one."
                )
                raise InvalidInputError(message)
            return situation
        model_name = check_model_name(selection.model_name)
        source = await lookup.find_registry(project, selection.model_project)
        if selection.by is None:
            model = await lookup.find_version(project, model_name, selection.version, source)
            situation = await read_situation(project, *names)
            why = "is the newest" if selection.version is None else "was asked for"
            decision = Decision(model, f"version {model.version} of model {model.name!r} {why}")
            return dataclasses.replace(situation, decision=decision)
        listed = await lookup.list_versions(project, model_name, source)
        listed.check_candidates(selection.by.candidates)
        versions = listed.models
        situation = await read_situation(project, *names)
        owner = source.name if source else project.name
        if not versions:
            raise lookup.no_version(model_name, owner)
        champion = await find_champion(project, situation.to_compare_with, versions, situation.name)
        rejected = situation.rejected_versions(versions, self._absolute_settings())
        outdated: set[int] = set()
        decide = gate.decide
        if selection.rules.measurement is not None:
            decide = functools.partial(
                measured_gate.decide_measured, now=self.run.clock(), deployment_name=situation.name
            )
        while True:
            decision = decide(versions, champion, selection.by, selection.rules, rejected, outdated=outdated)
            chosen = decision.chosen
            if chosen is None or champion is None or decision.is_kept or selection.rules.allow_downgrade:
                break
            if not await self._is_older(chosen, champion):
                break
            outdated.add(chosen.version)
        return dataclasses.replace(situation, decision=decision, champion=champion)

    async def _is_older(self, candidate: ModelVersion, champion: ModelVersion) -> bool:
        """Return whether a candidate was trained on older data than the champion, as far as both say."""
        if (candidate.path, candidate.version) == (champion.path, champion.version):
            return False
        # The candidate's files are listed anyway, to find its probe.
        own = await read_trained_until(self.run.project, candidate, self.run.files)
        if own is None:
            return False
        newest = await read_trained_until(self.run.project, champion, self.run.files)
        return newest is not None and own < newest


def _result_before(situation: Situation, run_key: str) -> PromotionResult:
    """Return what is known of a promotion before anything is changed."""
    return PromotionResult(
        situation.name,
        None,
        situation.decision,
        situation.champion,
        situation.live,
        situation.previous,
        earlier_try=_done_by_earlier_try(situation, run_key),
    )


def _done_by_earlier_try(situation: Situation, run_key: str) -> EarlierTry | None:
    """Return what an earlier try of the same task has done, if the same version is to serve now."""
    entry, decision = situation.journal.newest, situation.decision
    chosen = decision.chosen if decision else None
    desired = ServedVersion.of_model(chosen) if chosen else ServedVersion()
    if entry is None or not run_key or (entry.run, entry.state) != (run_key, EntryState.VERIFIED):
        return None
    if situation.is_unverified or not entry.challenger.is_same(desired):
        return None
    before = entry.before
    if before is None:
        return EarlierTry("created", None, is_kept=False)
    action = "updated" if entry.desired or before.was_up else "started"
    is_kept = before.served.is_same(desired) and decision is not None and decision.is_kept
    return EarlierTry(action, before.served.version, is_kept=is_kept)


async def apply_and_record(
    change: GuardedChange, result: PromotionResult, by: Metric | None, resumption: Resumption | None = None
) -> PromotionResult:
    """
    Make a change, and make its record however it ends.

    :param change: the change
    :param result: what is known of it before
    :param by: the metric that versions were compared by
    :param resumption: the end of the change's long wait, if that was deferred
    :raises HopsworksError: it failed; with the record
    """
    run, model = change.record.run, result.decision.chosen if result.decision else None
    tag = functools.partial(promotion_tag.tag_promotion, run.project, model, run_key=run.key)
    context = result.resume_context(by) | {"recreate": change.policy.recreate, "run_key": run.key}
    change.resume_point = ResumePoint(context=context)
    try:
        outcome = await (change.resume(resumption) if resumption else change.apply())
    except HopsworksError as error:
        now = change.restored.deployment if change.restored else change.seen
        script = change.record.changed_script
        error.record = dataclasses.replace(result, failure=error, seen=now or result.seen, script=script).record(by)
        await tag(error.record, at=run.clock())
        raise
    done = dataclasses.replace(result, outcome=outcome)
    await tag(done.record(by), at=run.clock())
    return done


async def resume_promotion(resumption: Resumption, context: Mapping[str, Any]) -> PromotionResult:
    """
    Resume a promotion, or a manual rollback, after its long wait was deferred.

    :param resumption: the end of that wait
    :param context: what the task that deferred it knew, from ``ResumePoint.context``
    :raises HopsworksError: with the record of the promotion
    """
    watch = resumption.watch
    prober = watch.prober
    name, project = context["deployment_name"], prober.project
    decision = context["decision"]
    if decision is not None:
        chosen = await find_model(project, _served(decision["chosen"]))
        decision = Decision(chosen, decision["reason"], decision["is_kept"], measured=decision.get("measured"))
    champion, former = await find_model(project, _served(context["champion"])), _served(context["former"])
    done = None if context["done"] is None else EarlierTry(**context["done"])
    first = Record(**context["rolled_back"]) if context.get("rolled_back") else None
    result = PromotionResult(
        name,
        None,
        decision,
        champion,
        None,
        former,
        earlier_try=done,
        rolled_back=first,
        preflight=context.get("preflight"),
    )
    run = Run(project, name, watch.timeout, watch.interval, prober.clock, context["run_key"])
    desired = Desired({}, decision.chosen if decision else None)
    record = ChangeRecord(run, desired, await open_journal(project, name), None)
    grace = watch.tracker.failure.unschedulable_grace
    policy = RolloutPolicy(recreate=context["recreate"], unschedulable_grace=grace)
    change = GuardedChange(record, policy, prober.checks)
    return await apply_and_record(change, result, metric_of(context), resumption)


def _served(stored: Mapping[str, Any] | None) -> ServedVersion | None:
    return None if stored is None else ServedVersion(**stored)


def metric_of(context: Mapping[str, Any]) -> Metric | None:
    """
    Return the metric that a promotion compared versions by.

    :param context: from ``ResumePoint.context``
    """
    return None if context["metric"] is None else Metric(context["metric"], Direction.MAX, None)
