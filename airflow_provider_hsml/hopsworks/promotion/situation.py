"""What there is of a deployment, and what an earlier run may have left of it: what a promotion decides on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff, preconditions, script_file
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry, PreviousState, ServedVersion
from airflow_provider_hsml.hopsworks.errors import NotFoundError
from airflow_provider_hsml.hopsworks.registry import lookup

from .journal import Journal, open_journal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.gate import Decision
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is, and what is to become of it."""

    name: str
    """The deployment's."""
    live: Deployment | None
    """As it is."""
    journal: Journal
    pending: JournalEntry | None
    """A change of ours that is live, and that nobody has verified."""
    is_unverified: bool = False
    """Whether the journal does not say that what is live was verified: somebody else has changed it, or two at once."""
    decision: Decision | None = None
    """None for a script alone."""
    champion: ModelVersion | None = None
    """The version to compare with."""

    @property
    def former(self) -> ServedVersion | None:
        """What was verified last: what is served, or was before an unfinished change; None: nothing."""
        if self.pending is not None:
            before = self.pending.before
        else:
            before = None if self.live is None else PreviousState.of(self.live)
        return None if before is None else before.served

    @property
    def adopts(self) -> bool:
        """Whether what is to serve is what an unfinished change has put there."""
        chosen = self.decision.chosen if self.decision else None
        entry = self.pending
        if entry is None or entry.state is EntryState.ROLLING_BACK:
            return False
        return entry.challenger == (
            ServedVersion(chosen.project, chosen.name, chosen.version) if chosen else ServedVersion()
        )

    @property
    def to_compare_with(self) -> ServedVersion | None:
        """The version that candidates are compared with: none that never served, or was rejected."""
        entry, former = self.journal.newest, self.former
        is_down = self.live is not None and self.live.status.is_down
        if entry is not None and is_down and (entry.left_nothing or former in [one.served for one in entry.rejected]):
            return None
        return former

    def rejected_versions(self, owner: str, model_name: str) -> dict[int, str]:
        """
        Return the versions of a model that were rejected, with the reason.

        :param owner: the project that owns the model
        :param model_name: the model's name
        """
        rejections = self.journal.newest.rejected if self.journal.newest else ()
        return {
            one.served.version: one.reason
            for one in rejections
            if (one.served.project, one.served.name) == (owner, model_name) and one.served.version is not None
        }

    @property
    def has_to_be_rolled_back(self) -> bool:
        """Whether the pending change has to be rolled back before anything else."""
        if self.pending is None or self.adopts:
            return False
        return self.pending.state is EntryState.ROLLING_BACK or (self.decision is not None and self.decision.is_kept)


async def read_situation(project: Project, names: Sequence[str]) -> Situation:
    """
    Find a deployment, and what an earlier run may have left of it.

    :param project: the project
    :param names: the names that it may have
    """
    name, live = await find_deployment(project, names)
    journal = await open_journal(project, name)
    pending = _unfinished(project, journal, live)
    is_unverified = pending is None and live is not None and not _is_vouched_for(project, journal.newest, live)
    is_broken = journal.newest is None and bool(journal.names)
    return Situation(name, live, journal, pending, is_unverified or is_broken)


def _is_vouched_for(project: Project, entry: JournalEntry | None, live: Deployment) -> bool:
    """
    Tell whether the last entry says of what is live that it was verified; of what nobody noted, nothing is to be said.

    Two runs may write at once, and then the entry of either may be the newest.
    """
    if entry is None:
        return True
    if entry.state is EntryState.ROLLED_BACK and entry.before is not None:
        former = diff.configuration(project, entry.before.row, also=entry.desired)
        return entry.before.deployment_id == live.id and not diff.differences(live.raw, former)
    return entry.state is EntryState.VERIFIED and not diff.differences(live.raw, diff.from_stored(entry.desired))


def _unfinished(project: Project, journal: Journal, live: Deployment | None) -> JournalEntry | None:
    """Give the last entry where it tells of a change that is live, or half taken back, and not verified."""
    entry = journal.newest
    if entry is None or live is None or not entry.is_pending:
        return None
    before, desired, is_begun = entry.before, diff.from_stored(entry.desired), entry.state is EntryState.ROLLING_BACK
    if entry.over == live.signature or _is_live(project, entry, live):
        return entry
    if before is None or before.deployment_id != live.id or not (is_begun or entry.is_rollback):
        return None
    if before.is_still(live) and not is_begun:
        return None
    # Going back takes two steps: some settings may be as they are to be, and others as they were.
    away = diff.differences(live.raw, diff.configuration(project, before.row, also=desired))
    half = {name: desired[name] for name in away if name in desired}
    return entry if set(half) == set(away) and not diff.differences(live.raw, half) else None


def _is_live(project: Project, entry: JournalEntry, live: Deployment) -> bool:
    """
    Tell whether a deployment is what a change has made of it, and that alone.

    Environment variables are stored nowhere, and compared by nobody; where nothing but those changed, a new deployment
    version tells.
    """
    before = entry.before
    if not _is_challenger(entry, live):
        return False
    if before is None:
        return True
    if not entry.desired and entry.touches_env_vars and before.version == live.version:
        return False
    made = diff.changed(before.row, diff.from_stored(entry.desired))
    return not diff.differences(live.raw, diff.configuration(project, made, also=entry.desired))


def _is_challenger(entry: JournalEntry, live: Deployment) -> bool:
    """
    Tell whether a deployment has all that a change was to give it.

    One that is stopped has the same signature after a change, where Hopsworks keeps no versions.
    """
    before = entry.before
    if before is not None and (before.deployment_id != live.id or (before.is_still(live) and not entry.desired)):
        return False
    return not diff.differences(live.raw, diff.from_stored(entry.desired))


def differing(project: Project, found: Situation, desired: SettingValues) -> dict[str, tuple[Any, Any]]:
    """
    Tell what would change: setting -> (live, wanted).

    :param project: the project
    :param found: what there is
    :param desired: what is asked for
    :raises InvalidInputError: it would be refused
    """
    desired = script_file.absolute(project, desired)
    if found.live is None:
        return {name: (None, value) for name, value in desired.items() if value is not None}
    found_differences = diff.differences(found.live.raw, desired)
    preconditions.check_live(found.live, found.decision.chosen if found.decision else None, found_differences)
    preconditions.check_combination(diff.changed(found.live.raw, desired), found_differences)
    return found_differences


async def find_deployment(project: Project, names: Sequence[str]) -> tuple[str, Deployment | None]:
    """
    Find a model's deployment under one of the names that it may have.

    :param project: the project
    :param names: the first that exists counts; the last is the one to create
    :return: the name to use, and the deployment where there is one
    """
    for name in names:
        deployment = await api.get_deployment(project, name)
        if deployment is not None:
            return name, deployment
    return names[-1], None


async def find_champion(
    project: Project, served: ServedVersion | None, known: Sequence[ModelVersion], deployment_name: str
) -> ModelVersion | None:
    """
    Find the version that a deployment serves; None when there is no deployment, or it serves no model.

    :param project: the project
    :param served: what it serves
    :param known: versions that were read already
    :param deployment_name: the deployment's name
    :raises NotFoundError: the registry does not have it any more
    """
    if served is None or served.name is None or served.version is None:
        return None
    champion = next(
        (model for model in known if ServedVersion(model.project, model.name, model.version) == served), None
    )
    if champion is None:
        champion = await lookup.find_served(project, served.project, served.name, served.version)
    if champion is None:
        message = (
            f"Deployment {deployment_name!r} is set to version {served.version} of model {served.name!r}, which is not "
            "in the registry any more, so nothing can be compared with it. Deploy a version by number with "
            "DeployModelOperator."
        )
        raise NotFoundError(message)
    return champion
