"""The situation of a deployment: its live state and the journal of earlier runs, the basis of every promotion."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff, preconditions, script_file
from airflow_provider_hsml.hopsworks.domain.deployment import check_model, is_model_clear
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry, ServedVersion
from airflow_provider_hsml.hopsworks.domain.rejection_key import is_same_configuration
from airflow_provider_hsml.hopsworks.domain.settings import setting_of
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NotFoundError
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.rollout.reads import confirmed

from .journal import Journal, open_journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.gate import Decision
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues


@dataclass(frozen=True, slots=True)
class Situation:
    """The live state of a deployment, its journal, and the decision of the gate."""

    name: str
    """The name of the deployment."""
    live: Deployment | None
    """The live deployment; None when there is none."""
    journal: Journal
    pending: JournalEntry | None
    """Our own change that is live but unverified."""
    is_unverified: bool = False
    """Whether the journal does not confirm that the live state was verified: another client or run changed it."""
    decision: Decision | None = None
    """None for a script alone."""
    champion: ModelVersion | None = None
    """The version that candidates are compared with."""

    @property
    def previous(self) -> ServedVersion | None:
        """The serving version, or the one before a pending change; None when there was no deployment."""
        if self.pending is not None:
            return None if self.pending.before is None else self.pending.before.served
        return None if self.live is None else ServedVersion.of_live(self.live)

    @property
    def adopts(self) -> bool:
        """Whether the chosen version is the one that a pending change has already made live."""
        chosen = self.decision.chosen if self.decision else None
        entry = self.pending
        if entry is None or entry.state is EntryState.ROLLING_BACK:
            return False
        return entry.challenger.is_same(ServedVersion.of_model(chosen) if chosen else ServedVersion())

    @property
    def to_compare_with(self) -> ServedVersion | None:
        """
        The version to compare candidates with.

        None if the deployment is down and the version never served or was rejected.
        """
        entry, previous = self.journal.newest, self.previous
        is_down = self.live is not None and self.live.status.is_down
        if entry is not None and is_down:
            is_rejected = any(one.served.is_same(previous) for one in entry.rejected)
            if entry.left_nothing or is_rejected:
                return None
        return previous

    def rejected_versions(self, candidates: Iterable[ModelVersion], settings: SettingValues) -> dict[int, str]:
        """
        Return the candidates that were rejected with the configuration that they would get, version -> reason.

        A version that was rejected with two configurations is rejected with every one.

        :param candidates: versions of one model
        :param settings: the settings that were asked for beside the model
        """
        rejections = self.journal.newest.rejected if self.journal.newest else ()
        rejected: dict[int, str] = {}
        for model in candidates if rejections else ():
            served = ServedVersion.of_model(model)
            own = [one for one in rejections if one.served.is_same(served)]
            raw = {} if self.live is None else diff.update_body(self.live.raw, settings | diff.model_settings(model))
            same = [one for one in own if self.live is None or is_same_configuration(one.key, raw)]
            if same or len({one.key for one in own}) > 1:
                rejected[model.version] = (same or own)[-1].reason
        return rejected

    @property
    def has_to_be_rolled_back(self) -> bool:
        """Whether the pending change has to be rolled back before anything else."""
        if self.pending is None or self.adopts:
            return False
        is_kept = self.decision is not None and self.decision.is_kept
        return self.pending.state is EntryState.ROLLING_BACK or (self.pending.state is EntryState.FAILED and is_kept)

    @property
    def has_to_be_settled(self) -> bool:
        """Whether the pending change has to be verified before the gate may choose another version."""
        return self.pending is not None and self.pending.state is EntryState.PROMOTING and not self.adopts


async def read_situation(project: Project, names: Sequence[str], named_after: str | None = None) -> Situation:
    """
    Read a deployment and its journal, and find out whether an earlier run left a pending change.

    :param names: the possible names of the deployment
    :param named_after: the model that the names were derived from; None if the user gave the name
    """
    name, live = await find_deployment(project, names, named_after)
    journal = await open_journal(project, name)
    pending = _find_pending(project, journal, live)
    is_unverified = pending is None and live is not None and not _is_confirmed(project, journal.newest, live)
    return Situation(name, live, journal, pending, is_unverified)


def _is_confirmed(project: Project, entry: JournalEntry | None, live: Deployment) -> bool:
    """
    Return whether the last entry confirms the live state as verified; True without an entry.

    Two runs may write concurrently, so the newest entry may be of either run.
    """
    if entry is None:
        return True
    if entry.state is EntryState.ROLLED_BACK and entry.before is not None:
        previous = diff.read_settings(project, entry.before.row, also=entry.desired)
        return entry.before.deployment_id == live.id and not diff.differences(live.raw, previous)
    return entry.state is EntryState.VERIFIED and not diff.differences(live.raw, diff.settings_from_json(entry.desired))


def _find_pending(project: Project, journal: Journal, live: Deployment | None) -> JournalEntry | None:
    """
    Return the change of ours that is unverified, and is live or partly rolled back; else None.

    This is the change of the newest entry, or the one under it, if the newest was recorded and not sent.
    """
    entry = journal.newest
    if entry is None or live is None or not entry.is_pending:
        return None
    before, is_begun = entry.before, entry.state is EntryState.ROLLING_BACK
    if is_live(project, entry, live):
        return entry
    if entry.over == live.signature:
        return _earlier(project, entry, live) if entry.state is EntryState.PROMOTING else entry
    if before is None or before.deployment_id != live.id or not (is_begun or entry.is_rollback):
        return None
    if not is_begun and (before.matches(live) or entry.back_to not in (None, live.version)):
        return None
    # A rollback takes two steps: some settings may have the previous value already, and others the changed one.
    changes = diff.settings_from_json(entry.changes)
    not_back = diff.differences(live.raw, diff.read_settings(project, before.row, also=changes))
    still_changed = {name: changes[name] for name in not_back if name in changes}
    is_partly_back = set(still_changed) == set(not_back) and not diff.differences(live.raw, still_changed)
    return entry if is_partly_back else None


def _earlier(project: Project, entry: JournalEntry, live: Deployment) -> JournalEntry | None:
    """Return the unverified change that was live before one that was not sent, if it still is."""
    earlier = entry.earlier
    if earlier is None:
        # Earlier releases did not store it: as far as the settings tell, it is what is live.
        settings = diff.settings_to_json(diff.read_settings(project, live.raw, also=entry.desired))
        desired = {name: settings[name] for name in entry.desired if name in settings}
        challenger = ServedVersion.of_live(live)
        earlier = dataclasses.replace(entry, challenger=challenger, desired=desired, asked=None, over=None)
    earlier = dataclasses.replace(earlier, rejected=entry.rejected, routes=entry.routes)
    return earlier if is_live(project, earlier, live) else None


def is_live(project: Project, entry: JournalEntry, live: Deployment) -> bool:
    """
    Return whether a deployment has the settings of a change, and all others as before.

    The journal stores no environment variables, so they are not compared. If only they changed, a new deployment
    version shows the change. Where Hopsworks keeps versions, a change of ours that is live has made one: without it,
    another client has set the same values.

    :param project: the deployment's project
    :param entry: the entry of the change
    :param live: the live deployment
    """
    before = entry.before
    if not _is_challenger(entry, live):
        return False
    if before is None:
        return True
    changes = diff.settings_from_json(entry.changes)
    differing = diff.differences(before.row, changes)
    makes_version = api.VERSIONS in entry.routes and any(setting_of(name).versioned for name in differing)
    if before.version == live.version and (makes_version or (not changes and entry.touches_env_vars)):
        return False
    changed = diff.update_body(before.row, changes)
    return not diff.differences(live.raw, diff.read_settings(project, changed, also=changes))


def _is_challenger(entry: JournalEntry, live: Deployment) -> bool:
    """
    Return whether a deployment has all settings of a change.

    If Hopsworks keeps no versions, the signature of a stopped deployment does not change with its settings.
    """
    before = entry.before
    if before is not None and (before.deployment_id != live.id or (before.matches(live) and not entry.changes)):
        return False
    return not diff.differences(live.raw, diff.settings_from_json(entry.changes))


def differing(project: Project, found: Situation, desired: SettingValues) -> dict[str, tuple[Any, Any]]:
    """
    Return the settings that would change, setting -> (live, desired).

    :param found: the situation of the deployment
    :raises InvalidInputError: Hopsworks would refuse the change
    """
    desired = script_file.absolute(project, desired)
    if found.live is None:
        return {name: (None, value) for name, value in desired.items() if value is not None}
    found_differences = diff.differences(found.live.raw, desired)
    preconditions.check_live(found.live, found.decision.chosen if found.decision else None, found_differences)
    preconditions.check_changes(diff.update_body(found.live.raw, desired), found_differences)
    return found_differences


async def find_deployment(
    project: Project, names: Sequence[str], named_after: str | None = None
) -> tuple[str, Deployment | None]:
    """
    Find a model's deployment under one of its possible names.

    Names derived from models collide: ``demand_1_12`` and ``demand_11_2`` both become ``demand112``. So a derived name
    never takes over a deployment of another model. The same model name is the same model, whichever project owns it.

    :param names: the first one that exists is used; a new deployment gets the last one
    :param named_after: the model that the names were derived from; None if the user gave the name
    :return: the name to use, and the deployment if there is one
    :raises InvalidInputError: under a derived name there is a deployment of another model, or of a script alone
    :raises UnexpectedResponseError: a deployment does not say clearly which model version it serves
    """
    others: list[Deployment] = []
    for name in names:
        deployment = await _read_clear(project, name, any_case=named_after is not None)
        if deployment is not None and named_after in (None, deployment.model_name):
            return deployment.name, deployment
        others += [deployment] if deployment is not None else []
    if others:
        other = others[-1]
        served = "a script without a model" if other.model_name is None else f"model {other.model_name!r}"
        message = (
            f"Deployment {other.name!r} serves {served}, and the name derived from model {named_after!r} is the same.\n"
            f'Choose another deployment_name; to replace {served} there, set deployment_name="{other.name}".'
        )
        raise InvalidInputError(message)
    return names[-1], None


async def _read_clear(project: Project, name: str, *, any_case: bool) -> Deployment | None:
    """
    Read a deployment, and read it again while it does not say clearly which model version it serves.

    :raises UnexpectedResponseError: it still does not
    """

    async def read() -> Deployment | None:
        return await api.get_deployment(project, name, any_case=any_case)

    found = await confirmed(await read(), lambda now: not is_model_clear(now), read)
    check_model(found)
    return found


async def find_champion(
    project: Project, served: ServedVersion | None, known: Sequence[ModelVersion], deployment_name: str
) -> ModelVersion | None:
    """
    Return the model version that a deployment serves; None when it serves no model.

    :param served: the served version; None when there is no deployment
    :param known: versions that were read already
    :param deployment_name: for the error message
    :raises NotFoundError: the version was deleted from the registry
    """
    if served is None or served.name is None or served.version is None:
        return None
    champion = next((model for model in known if served.is_same(ServedVersion.of_model(model))), None)
    if champion is None:
        champion = await lookup.find_served(project, served.project, served.name, served.version)
    if champion is None:
        message = (
            f"Deployment {deployment_name!r} is set to version {served.version} of model {served.name!r}, which is not "
            "in the registry any more: no version can be compared with it.\nDeploy a version by number with "
            "DeployModelOperator."
        )
        raise NotFoundError(message)
    return champion
