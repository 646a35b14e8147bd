"""Rolling a deployment back by hand: to what it was before the last promotion, or to one of its versions."""

from __future__ import annotations

import dataclasses
import functools
import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments, diff, script_file
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.gate import Decision
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, PreviousState, ServedVersion
from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NotFoundError, SupersededError
from airflow_provider_hsml.hopsworks.flow import Backoff, all_pages
from airflow_provider_hsml.hopsworks.registry import lookup

from . import way_back
from .guarded_change import GuardedChange, OutdatedDecision
from .promote import apply_and_record, roll_back
from .record import EarlierTry, PromotionResult
from .situation import read_situation

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentVersion
    from airflow_provider_hsml.hopsworks.domain.journal_entry import JournalEntry
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.flow import Clock

    from .situation import Situation

log = logging.getLogger(__name__)

PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class PromotionReference:
    """A promotion that is to be undone, as its record tells of it."""

    deployment_name: str
    deployment_id: int | None
    action: str
    served: ServedVersion
    """What it was to have the deployment serve."""

    @classmethod
    def read(cls, value: object) -> Self:
        """
        Read a promotion record.

        :param value: the record, also as JSON text
        :raises InvalidInputError: it is no such thing
        """
        expected = "the record of a promoting task, <task>.output['promotion']"
        given = arguments.json_mapping("promotion", arguments.json_text("promotion", expected, value))
        keys = ("deployment_name", "deployment_id", "action", "model_project", "model_name", "model_version")
        if set(keys) - set(given):
            arguments.refuse("promotion", expected, value)
        name, id_, action, *served = (given[key] for key in keys)
        return cls(name, id_, action, ServedVersion(*served))

    def nothing_left(self, found: Situation, live: Deployment) -> str | None:
        """
        Say why there is nothing of it to undo; None: there is.

        :param found: what there is
        :param live: the deployment
        """
        if self.action not in ("created", "updated", "started", "attached", "failed"):
            return f"the promotion ended with {self.action!r}: it has left nothing to roll back"
        if self.action == "failed" and found.pending is None:
            return "the promotion failed, and has left nothing to roll back"
        if (live.id, PreviousState.of(live).served) != (self.deployment_id, self.served):
            return f"what the promotion has changed was changed again since: {live}"
        return None


@dataclass(frozen=True, slots=True)
class Rollback:
    """A wish to have a deployment be what it was."""

    name: str
    to: int | str
    """``previous``, or the number of a deployment version."""
    timeout: float
    interval: float
    clock: Clock
    wait: bool = True
    run_key: str = ""
    reject: bool = True
    """Whether the model version that it takes away is not to be chosen as the best one again."""
    promotion: PromotionReference | None = None
    """The one that is to be undone; None: whatever was the last."""
    on_decided: Callable[[ModelVersion], object] = lambda _model: None
    """Is given the version that is to serve, before anything is done."""

    async def run(self, project: Project) -> PromotionResult:
        """
        Roll it back, and see that it serves; if it does not, what served before this serves again.

        :param project: the project
        :raises NotFoundError: there is no such deployment, or no such version
        :raises InvalidInputError: nothing is known of what it was
        """
        found = await read_situation(project, [self.name])
        if found.pending is not None and found.pending.state is EntryState.ROLLING_BACK:
            _, now = await roll_back(
                project,
                found,
                found.pending,
                timeout=self.timeout,
                interval=self.interval,
                recreate=False,
                clock=self.clock,
            )
            if self.to == PREVIOUS:
                # An earlier run had begun it.
                model = None if now.deployment.status.is_down else await _served_by(project, now.deployment)
                return self._promoted(found, dataclasses.replace(now, action="rolled_back"), model)
            found = await read_situation(project, [self.name])
        live, journal = found.live, found.journal
        if live is None:
            message = f"Deployment {self.name!r} does not exist in project {project.name!r}."
            raise NotFoundError(message)
        begun = self._begun(found, live)
        nothing = self.promotion.nothing_left(found, live) if self.promotion and not begun else None
        if nothing is not None:
            log.info("%s: nothing is rolled back: %s", live, nothing)
            model = await _served_by(project, live)
            return PromotionResult(
                self.name, Outcome(live, "unchanged"), Decision(model, nothing), None, live, found.former
            )
        back_to, desired, model = await self._target(project, live, found, begun)
        entry = found.pending
        differing = diff.differences(live.raw, script_file.absolute(project, desired))
        adopts = entry is not None and not differing and back_to in (None, live.version)
        promoted = self._promoted(found, None, model)
        transition = GuardedChange(
            project,
            self.name,
            desired,
            id=entry.id if entry and adopts else uuid.uuid4().hex,
            run_key=self.run_key,
            journal=journal,
            decided_on=live,
            timeout=self.timeout,
            interval=self.interval,
            model=model,
            wait=self.wait,
            back_to=back_to,
            is_rollback=True,
            rejects=self.reject,
            is_unverified=found.is_unverified,
            pending=entry,
            adopts=adopts,
            clock=self.clock,
        )
        try:
            return await apply_and_record(transition, promoted, None)
        except OutdatedDecision as error:
            message = f"{live} was changed by somebody else meanwhile. Nothing was rolled back: look, and try again."
            superseded = SupersededError(message)
            superseded.record = dataclasses.replace(promoted, failure=superseded).record(None)
            raise superseded from error

    def _promoted(
        self, found: Situation, arrived: Outcome | None, model: ModelVersion | None = None
    ) -> PromotionResult:
        """Make what is known of it, once that is decided."""
        if model is not None:
            self.on_decided(model)
        place = "what it was before" if self.to == PREVIOUS else f"deployment version {self.to}"
        what = f", with version {model.version} of model {model.name!r}" if model else ""
        decision = Decision(model, f"{place} was asked for{what}")
        entry, done = found.journal.newest, None
        if entry and self.run_key and (entry.run, entry.state) == (self.run_key, EntryState.VERIFIED):
            # An earlier try has done it, and its worker died before it could tell.
            done = EarlierTry("rolled_back", entry.before.served.version if entry.before else None, is_kept=False)
        return PromotionResult(self.name, arrived, decision, None, found.live, found.former, done=done)

    def _begun(self, found: Situation, live: Deployment) -> JournalEntry | None:
        """Give the entry of an earlier run that began it: done once more, it would lead to where it came from."""
        entry = found.journal.newest
        if entry is None:
            return None
        task = self.run_key.partition("@")[0]
        if task and entry.task == task and entry.state in (EntryState.PROMOTING, EntryState.VERIFIED):
            # This task's own earlier try, or it was cleared.
            return entry
        if not entry.is_rollback or entry.state is not EntryState.PROMOTING or self.to not in (PREVIOUS, entry.back_to):
            return None
        is_still = entry is found.pending or (entry.before is not None and entry.before.is_still(live))
        return entry if is_still else None

    async def _target(
        self, project: Project, live: Deployment, found: Situation, begun: JournalEntry | None
    ) -> tuple[int | None, SettingValues, ModelVersion | None]:
        """Give the deployment version to roll back to, the settings to put back, and the model version of it."""
        if begun is not None:
            served = begun.challenger
            model = await _model(project, served.project, served.name, served.version)
            return begun.back_to, diff.from_stored(begun.desired), model
        entry = found.journal.newest
        if self.to == PREVIOUS and entry and entry.before and entry.state is EntryState.ROLLED_BACK:
            if not (entry.is_rollback or found.is_unverified):
                log.info("%s is what it was before the last promotion, which was taken back", live)
                return None, {}, await _served_by(project, live)
        elif self.to == PREVIOUS and entry and entry.before:
            before = entry.before
            is_ours = not diff.differences(live.raw, diff.from_stored(entry.desired))
            if before.deployment_id == live.id and is_ours:
                back_to, desired = await way_back.way_back(
                    project,
                    live,
                    before.version,
                    before.row,
                    Backoff(first=1.0, most=self.interval, deadline=self.clock() + self.timeout, clock=self.clock),
                    also=entry.desired,
                    hides=entry.touches_env_vars,
                )
                served = before.served
                return back_to, desired, await _model(project, served.project, served.name, served.version)
        elif self.to == PREVIOUS and entry and entry.state is EntryState.VERIFIED and not found.is_unverified:
            raise _nothing_before(live)
        version = await self._version(project, live)
        model = await _served_by(project, version)
        return version.version, model_settings(model) if model else {}, model

    async def _version(self, project: Project, live: Deployment) -> DeploymentVersion:
        versions = await all_pages(functools.partial(api.get_versions, project, live))
        if versions is None:
            message = (
                f"{live}: what it was before is not known: this Hopsworks keeps no versions of deployments (5.2 and "
                "later do), and no promotion of this provider has noted it. Give model_version instead."
            )
            raise InvalidInputError(message)
        active = live.version or 0
        earlier = [version for version in versions if version.version < active]
        desired = max((version.version for version in earlier), default=None) if self.to == PREVIOUS else self.to
        if desired is None:
            raise _nothing_before(live)
        found = next((version for version in versions if version.version == desired), None)
        if found is None:
            known = ", ".join(str(version.version) for version in versions)
            message = f"{live} has no deployment version {self.to}: it has {known}; {active} is active."
            raise NotFoundError(message)
        return found


def _nothing_before(live: Deployment) -> NotFoundError:
    message = (
        f"{live}: nothing served before, so there is nothing to roll back to. StopDeploymentOperator takes it down."
    )
    return NotFoundError(message)


async def _served_by(project: Project, row: Deployment | DeploymentVersion) -> ModelVersion | None:
    return await _model(project, row.model_project, row.model_name, row.model_version)


async def _model(project: Project, owner: str | None, name: str | None, version: int | None) -> ModelVersion | None:
    if name is None or version is None:
        return None
    model = await lookup.find_served(project, owner, name, version)
    if model is None:
        message = f"Version {version} of model {name!r}, which is to serve, is not in the registry any more."
        raise NotFoundError(message)
    return model
