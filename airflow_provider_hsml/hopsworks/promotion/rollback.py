"""
The manual rollback that a person asks for: to the state before the last promotion, or to a deployment version.

``way_back.py`` is the automatic way back of a failed change. ``rollout/restore_version.py`` is the one request that
activates an earlier deployment version.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from airflow_provider_hsml.hopsworks.domain import arguments, diff, script_file
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.gate import Decision
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, ServedVersion
from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NotFoundError, SupersededError
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, RolloutPolicy

from .change_record import ChangeRecord, ManualRollback
from .guarded_change import GuardedChange
from .journal import OutdatedDecision
from .preflight import tidy
from .promote import apply_and_record
from .record import ACTIONS, EarlierTry, PromotionResult
from .settle import roll_back
from .situation import read_situation
from .way_back import find_way_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentVersion
    from airflow_provider_hsml.hopsworks.domain.journal_entry import JournalEntry
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.rollout.inputs import Run

    from .situation import Situation

log = logging.getLogger(__name__)

PREVIOUS = "previous"
_LEAVE_A_CHANGE = ("created", "updated", "started", "attached", "failed", "unverified")
"""The actions of promotions whose change may be live."""
_TYPES = {
    "deployment_name": str,
    "deployment_id": int,
    "action": str,
    "model_project": str,
    "model_name": str,
    "model_version": int,
}
"""The keys of a promotion record that are read, with the types of their values."""


@dataclass(frozen=True, slots=True)
class PromotionReference:
    """A promotion to undo, as read from its record."""

    deployment_name: str
    deployment_id: int | None
    action: str
    served: ServedVersion
    """The model version that the promotion was to deploy."""

    @classmethod
    def read(cls, value: object) -> Self:
        """
        Read a promotion record.

        :param value: the record, also as JSON text
        :raises InvalidInputError: the value is not a promotion record
        """
        expected = "the record of a promoting task, <task>.output['promotion']"
        given = arguments.json_mapping("promotion", value, expected)
        if set(_TYPES) - set(given):
            arguments.refuse("promotion", expected, sorted(given))
        for key, kind in _TYPES.items():
            if given[key] is not None and (not isinstance(given[key], kind) or isinstance(given[key], bool)):
                arguments.refuse(f"promotion.{key}", expected, given[key])
        arguments.choice("promotion.action", given["action"], ACTIONS)
        name, id_, action, *served = (given[key] for key in _TYPES)
        return cls(name, id_, action, ServedVersion(*served))

    def nothing_left(self, found: Situation, live: Deployment) -> str | None:
        """Return the reason why the promotion has left nothing to undo; None if there is something to undo."""
        if self.action not in _LEAVE_A_CHANGE:
            return f"the promotion ended with {self.action!r}: it has left nothing to roll back"
        if self.action in ("failed", "unverified") and found.pending is None:
            return "the promotion failed, and has left nothing to roll back"
        if live.id != self.deployment_id or not self.served.is_same(ServedVersion.of_live(live)):
            return f"what the promotion has changed was changed again since: {live}"
        return None


@dataclass(frozen=True, slots=True)
class Rollback:
    """A rollback of a deployment that a person asked for."""

    run: Run
    to: int | str = PREVIOUS
    """``previous``, or the number of a deployment version."""
    wait: bool = True
    reject: bool = True
    """Whether the gate leaves out the replaced model version from now on."""
    promotion: PromotionReference | None = None
    """The promotion to undo; None: whichever was the last."""
    on_decided: Callable[[ModelVersion], object] = lambda _model: None
    """Is called with the version that is to serve, before anything is changed."""

    async def roll_back(self) -> PromotionResult:
        """
        Roll the deployment back and verify it; if it does not serve then, what served before is restored.

        :raises NotFoundError: there is no such deployment, or no such version
        :raises InvalidInputError: its previous state is unknown
        """
        run = self.run
        situation = await read_situation(run.project, [run.name])
        run.routes.recall(situation.journal.used_routes)
        await tidy(run, situation)
        pending = situation.pending
        if pending is not None and pending.state is EntryState.ROLLING_BACK:
            _, now = await roll_back(run, situation, pending)
            if self.to == PREVIOUS:
                # An earlier run had begun this very rollback.
                model = None if now.deployment.status.is_down else await self._served_by(now.deployment)
                return self._result(situation, dataclasses.replace(now, action="rolled_back"), model)
            situation = await read_situation(run.project, [run.name])
        return await self._decide(situation)

    async def _decide(self, situation: Situation, *, again: bool = False) -> PromotionResult:
        """
        Decide what serves then, and roll the deployment back to it.

        :param again: whether this decision replaces one that was outdated although the deployment is the same
        """
        run, live = self.run, situation.live
        if live is None:
            message = f"Deployment {run.name!r} does not exist in project {run.project.name!r}."
            raise NotFoundError(message)
        begun = self._begun(situation, live)
        nothing = self.promotion.nothing_left(situation, live) if self.promotion and not begun else None
        if nothing is not None:
            log.info("%s: nothing is rolled back: %s", live, nothing)
            decision = Decision(await self._served_by(live), nothing)
            return PromotionResult(run.name, Outcome(live, "unchanged"), decision, None, live, situation.previous)
        desired = await self._desired(live, situation, begun)
        result = self._result(situation, None, desired.model)
        try:
            return await self._carry_out(situation, live, desired, result)
        except OutdatedDecision as error:
            now = await read_situation(run.project, [run.name])
            if not again and _is_same_state(run.project, now, situation):
                log.info("%s: a read of it lacked something, or its rejections were changed; deciding again", live)
                return await self._decide(now, again=True)
            message = (
                f"{live} was changed by another client meanwhile. Nothing was rolled back.\n"
                "Check the deployment, and run the task again."
            )
            superseded = SupersededError(message)
            superseded.record = dataclasses.replace(result, failure=superseded).record(None)
            raise superseded from error

    async def _carry_out(
        self, situation: Situation, live: Deployment, desired: Desired, result: PromotionResult
    ) -> PromotionResult:
        """
        Roll the deployment back.

        :raises OutdatedDecision: the deployment or its journal is not as it was read for the decision
        """
        differing = diff.differences(live.raw, script_file.absolute(self.run.project, desired.settings))
        is_live = not differing and desired.restore in (None, live.version)
        record = ChangeRecord(
            self.run,
            desired,
            situation.journal,
            live,
            situation.pending,
            adopts=situation.pending is not None and is_live,
            is_unverified=situation.is_unverified,
            rollback=ManualRollback(self.reject),
        )
        return await apply_and_record(
            GuardedChange(record, RolloutPolicy(wait=self.wait, is_rollback=True)), result, None
        )

    def _result(
        self, situation: Situation, outcome: Outcome | None, model: ModelVersion | None = None
    ) -> PromotionResult:
        """Return what is known of the rollback once it is decided."""
        if model is not None:
            self.on_decided(model)
        place = "what it was before" if self.to == PREVIOUS else f"deployment version {self.to}"
        what = f", with version {model.version} of model {model.name!r}" if model else ""
        decision = Decision(model, f"{place} was asked for{what}")
        entry, done = situation.journal.newest, None
        if entry and self.run.key and (entry.run, entry.state) == (self.run.key, EntryState.VERIFIED):
            # An earlier try has done it, and its worker died before it could report.
            done = EarlierTry("rolled_back", entry.before.served.version if entry.before else None, is_kept=False)
        return PromotionResult(
            self.run.name, outcome, decision, None, situation.live, situation.previous, earlier_try=done
        )

    def _begun(self, situation: Situation, live: Deployment) -> JournalEntry | None:
        """Return the entry of an earlier run that began this rollback: repeated, it would lead back again."""
        entry = situation.journal.newest
        if entry is None:
            return None
        task = self.run.key.partition("@")[0]
        if task and entry.task == task and entry.state in (EntryState.PROMOTING, EntryState.VERIFIED):
            # This task's own earlier try, or it was cleared.
            return entry
        if entry.is_rollback and entry.state is EntryState.SUPERSEDED and self.to in (PREVIOUS, entry.back_to):
            return self._superseded(entry, live)
        if not entry.is_rollback or entry.state is not EntryState.PROMOTING or self.to not in (PREVIOUS, entry.back_to):
            return None
        is_still = entry is situation.pending or (entry.before is not None and entry.before.matches(live))
        return entry if is_still else None

    @staticmethod
    def _superseded(entry: JournalEntry, live: Deployment) -> JournalEntry:
        """
        Resume a rollback that ended because another client changed the deployment.

        :raises SupersededError: another version serves meanwhile: "previous" would be the one that was rolled back
        """
        if ServedVersion.of_live(live).is_same(entry.challenger):
            return entry
        message = (
            f"{live}: the last rollback ended because another client changed the deployment, and another version "
            "serves meanwhile. Nothing was changed.\nName the target: 'to' as a deployment version, or 'model_version'."
        )
        raise SupersededError(message)

    async def _desired(self, live: Deployment, situation: Situation, begun: JournalEntry | None) -> Desired:
        """Return the state to restore: a deployment version, settings, and the model version that serves then."""
        if begun is not None:
            model = await self._model(begun.challenger)
            settings, restored = map(diff.settings_from_json, (begun.desired, begun.restored))
            return Desired(settings, model, begun.back_to, restored=restored)
        entry = situation.journal.newest
        if self.to == PREVIOUS and entry and entry.before and entry.state is EntryState.ROLLED_BACK:
            if not (entry.is_rollback or situation.is_unverified):
                log.info("%s is as it was before the last promotion, which was rolled back", live)
                return Desired({}, await self._served_by(live))
        elif self.to == PREVIOUS and entry and entry.before:
            before = entry.before
            is_ours = not diff.differences(live.raw, diff.settings_from_json(entry.desired))
            if before.deployment_id == live.id and is_ours:
                version, settings = await find_way_back(
                    self.run,
                    live,
                    before.version,
                    {**before.row, **(before.env_vars or {})},
                    also=entry.desired,
                    hides_env_vars=entry.touches_env_vars and before.had_env_vars,
                )
                return Desired(settings, await self._model(before.served), version)
        elif self.to == PREVIOUS and entry and entry.state is EntryState.VERIFIED and not situation.is_unverified:
            raise _nothing_before(live)
        kept = await self._kept_version(live)
        model = await self._served_by(kept)
        restored = diff.versioned_settings(self.run.project, kept.raw)
        return Desired(model_settings(model) if model else {}, model, kept.version, restored=restored)

    async def _kept_version(self, live: Deployment) -> DeploymentVersion:
        """Return the deployment version to activate."""
        versions = await self.run.routes.versions(self.run.project, live, complete=True)
        if versions is None:
            message = (
                f"{live}: its previous state is unknown: this Hopsworks keeps no versions of deployments (5.2 and "
                "later do), and no promotion of this provider has recorded it.\nGive model_version instead."
            )
            raise InvalidInputError(message)
        # One read of the deployment may lack the number, which the list has as well.
        active = live.version or max((version.version for version in versions if version.is_active), default=0)
        earlier = [version.version for version in versions if version.version < active]
        number = max(earlier, default=None) if self.to == PREVIOUS else self.to
        if number is None:
            raise _nothing_before(live)
        kept = next((version for version in versions if version.version == number), None)
        if kept is None:
            known = ", ".join(str(version.version) for version in versions)
            message = f"{live} has no deployment version {self.to}: it has {known}; {active} is active."
            raise NotFoundError(message)
        return kept

    async def _served_by(self, resource: Deployment | DeploymentVersion) -> ModelVersion | None:
        return await self._model(ServedVersion.of_live(resource))

    async def _model(self, served: ServedVersion) -> ModelVersion | None:
        if served.name is None or served.version is None:
            return None
        model = await lookup.find_served(self.run.project, served.project, served.name, served.version)
        if model is None:
            message = f"Version {served.version} of model {served.name!r}, which is to serve, is not in the registry."
            raise NotFoundError(message)
        return model


def _is_same_state(project: Project, now: Situation, was: Situation) -> bool:
    """
    Whether no other client has changed a deployment between two reads, although they or the rejections differ.

    A change of a stopped deployment leaves its signature where Hopsworks keeps no versions.
    """
    if now.live is None or was.live is None or _but_rejections(now) != _but_rejections(was):
        return False
    if now.live.id != was.live.id or not now.live.continues(was.live.signature):
        return False
    different = diff.differences(now.live.raw, diff.read_settings(project, was.live.raw))
    return all(None in values for values in different.values())


def _but_rejections(situation: Situation) -> JournalEntry | None:
    """Return the newest entry without its rejections, which another run's preflight or a person may have changed."""
    newest = situation.journal.newest
    return None if newest is None else dataclasses.replace(newest, rejected=())


def _nothing_before(live: Deployment) -> NotFoundError:
    return NotFoundError(
        f"{live}: nothing served before, so there is nothing to roll back to.\nStopDeploymentOperator stops it."
    )
