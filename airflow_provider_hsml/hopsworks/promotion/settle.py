"""
End the pending change of an earlier run, before another version is considered.

Only a change that is live is settled: it is verified with the checks that it was made with, and no configuration is
sent. The exception is a manual rollback of two steps, whose second step may be missing.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.domain import diff
from airflow_provider_hsml.hopsworks.domain.gate import Decision
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry, ServedVersion
from airflow_provider_hsml.hopsworks.domain.judge import Checks
from airflow_provider_hsml.hopsworks.domain.verification import checks_from_json
from airflow_provider_hsml.hopsworks.errors import DeploymentError, HopsworksError, InvalidInputError, RolledBackError
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, RolloutPolicy, Run

from .change_record import ChangeRecord
from .guarded_change import GuardedChange
from .record import PromotionResult

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.gate import Metric
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
    from airflow_provider_hsml.hopsworks.domain.project import Project

    from .situation import Situation

log = logging.getLogger(__name__)


async def settle(
    run: Run,
    situation: Situation,
    entry: JournalEntry,
    *,
    policy: RolloutPolicy,
    checks: Checks | None,
    by: Metric | None,
) -> PromotionResult:
    """
    Verify or roll back a pending change, and return its result; after a rollback, with the failure.

    :param run: the run that settles it
    :param situation: the deployment and its journal
    :param entry: the pending change
    :param policy: how this run rolls out its own change
    :param checks: the checks of this run: they may have the function that the change is verified with
    :param by: the metric that versions are compared by
    :raises HopsworksError: it could be neither verified nor rolled back, so that no other version may replace it; with
        the record of that change
    """
    model = await find_model(run.project, entry.challenger)
    decision = Decision(model, f"{entry.challenger} was deployed by an earlier run, which did not verify it")
    result = PromotionResult(situation.name, None, decision, None, situation.live, situation.previous)
    change: GuardedChange | None = None
    try:
        if situation.has_to_be_rolled_back:
            failure, now = await roll_back(run, situation, entry, policy)
            return dataclasses.replace(result, failure=failure, seen=now.deployment)
        log.info("Deployment %r: verifying the pending change to %s first", situation.name, entry.challenger)
        record = _record(run, situation, entry, model)
        policy = dataclasses.replace(policy, wait=True, sends=entry.is_rollback)
        change = GuardedChange(record, policy, _checks_of(situation.name, entry, checks))
        return dataclasses.replace(result, outcome=await change.apply())
    except HopsworksError as error:
        restored = change.restored if change else None
        now_live = restored.deployment if restored else change.seen if change else None
        failed = dataclasses.replace(result, failure=error, seen=now_live or result.seen)
        if restored is None or not isinstance(error, RolledBackError):
            error.record = failed.record(by)
            raise
        log.warning("%s", error)
        return failed


def _record(run: Run, situation: Situation, entry: JournalEntry, model: ModelVersion | None) -> ChangeRecord:
    """Return the record of a pending change, to be continued by this run."""
    settings, restored = map(diff.settings_from_json, (entry.desired, entry.restored))
    desired = Desired(settings, model, entry.back_to, restored=restored)
    run = dataclasses.replace(run, name=situation.name, key=entry.run, audit=entry.audit)
    return ChangeRecord(run, desired, situation.journal, situation.live, entry, adopts=True)


def _checks_of(name: str, entry: JournalEntry, own: Checks | None) -> Checks | None:
    """
    Return the checks that a change was made with.

    :param name: the deployment's name
    :param own: the checks of this run
    :raises InvalidInputError: they need a function or rows that this run does not have; the change stays pending
    """
    asked = entry.asked or {}
    body = asked.get("body")
    if asked.get("checks") is None:
        return None if body is None else Checks(body=body)
    why = "the rows of its verification are too large for the journal"
    if "body" in asked:
        try:
            return dataclasses.replace(checks_from_json(asked["checks"], own.expect if own else None), body=body)
        except InvalidInputError:
            why = f"its verification calls {asked['checks']['expect']}, and that of this task does not"
    message = (
        f"Deployment {name!r}: {entry.challenger} is live but unverified, and cannot be verified here: {why}.\n"
        f"Run the task again that deployed it ({entry.run or 'a call of the hook'}), or accept it as it is: "
        f"HsmlHook(...).accept_pending({name!r})."
    )
    pending = InvalidInputError(message)
    pending.is_unverified = True
    raise pending


async def roll_back(
    run: Run,
    situation: Situation,
    entry: JournalEntry,
    policy: RolloutPolicy = RolloutPolicy(),  # noqa: B008 - it is frozen
) -> tuple[RolledBackError, Outcome]:
    """
    Roll back what an earlier run has left unverified.

    :param run: the run
    :param situation: the deployment and its journal
    :param entry: the change
    :param policy: how the rollback is rolled out
    :return: the error that the change ends with, and the outcome of the rollback
    :raises HopsworksError: the rollback failed
    """
    why = DeploymentError("An earlier run has left it unverified; the previous state is restored.")
    if entry.state is EntryState.ROLLING_BACK:
        why = entry.failure()
    change = GuardedChange(_record(run, situation, entry, None), policy)
    error = await change.roll_back(why, situation.live)
    if isinstance(error, RolledBackError) and change.restored is not None:
        log.warning("%s", error)
        return error, change.restored
    raise error from why


async def find_model(project: Project, served: ServedVersion | None) -> ModelVersion | None:
    """
    Return a model version that is or was served; None for a script, or if it is not in the registry any more.

    :param served: the served version
    """
    if served is None or served.name is None or served.version is None:
        return None
    return await lookup.find_served(project, served.project, served.name, served.version)
