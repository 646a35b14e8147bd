"""The state of a deployment's promotions as its journal has it, for people: look it up, and settle it by hand."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, SupersededError

from . import rejections
from .situation import is_live, read_situation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.journal_entry import JournalEntry
    from airflow_provider_hsml.hopsworks.domain.project import Project

    from .situation import Situation

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RejectedVersion:
    """A model version that the gate leaves out, since it failed when it was deployed."""

    model_name: str | None
    version: int | None
    reason: str
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class PromotionState:
    """The last promotion of a deployment, and the versions that were rejected."""

    deployment_name: str
    state: str
    """``promoting``, ``rolling_back``, ``verified``, ``rolled_back``, ``superseded`` or ``failed``; ``none`` without a
    journal."""
    is_pending: bool
    """Whether the last change is live and unverified. The next promotion verifies it first."""
    model_version: int | None
    """The version that the last promotion deployed."""
    previous_model_version: int | None
    """The version that served before it."""
    reason: str
    run: str
    """The task that made the change: ``<dag>/<run>/<task>/<map index>@<round of tries>``."""
    rejected: tuple[RejectedVersion, ...]
    audit: Mapping[str, Any] = field(default_factory=dict)
    """The task's try that made the change, as ``audit`` in its record."""


async def read_state(project: Project, name: str) -> PromotionState:
    """
    Read the state of a deployment's promotions.

    :param name: the deployment's name
    """
    return _state_of(await read_situation(project, [name]))


async def accept_pending(project: Project, name: str) -> PromotionState:
    """
    Record a pending change as verified, as it is: a person has checked that it serves well.

    :param name: the deployment's name
    :raises InvalidInputError: there is no pending change, it is being rolled back, or it does not serve
    :raises SupersededError: another run wrote to the journal meanwhile, or the API key may not write it
    """
    situation = await read_situation(project, [name])
    entry, live = situation.pending, situation.live
    how = ""
    if entry is None or live is None:
        how = "there is none"
    elif entry.state is EntryState.ROLLING_BACK or not is_live(project, entry, live):
        how = "it is being rolled back"
    elif live.status not in (DeploymentStatus.RUNNING, DeploymentStatus.IDLE):
        how = f"it does not serve: {live}"
    if how or entry is None or live is None:
        message = f"Deployment {name!r}: expected a pending change to accept; {how}.\nCheck hook.get_promotion_state()."
        raise InvalidInputError(message)
    accepted = dataclasses.replace(
        entry, state=EntryState.VERIFIED, reason="accepted by hand", rejected=rejections.without(entry, live)
    )
    await _write(situation, accepted)
    log.info("Deployment %r: %s accepted by hand", name, entry.challenger)
    return await read_state(project, name)


async def forget_rejection(project: Project, name: str, version: int) -> PromotionState:
    """
    Remove the rejections of a model version, so that the gate may choose it again.

    :param name: the deployment's name
    :param version: the model version
    :raises InvalidInputError: that version was not rejected
    :raises SupersededError: another run wrote to the journal meanwhile, or the API key may not write it
    """
    situation = await read_situation(project, [name])
    entry = situation.journal.newest
    kept = () if entry is None else tuple(one for one in entry.rejected if one.served.version != version)
    if entry is None or kept == entry.rejected:
        known = ", ".join(str(one.served.version) for one in entry.rejected) if entry and entry.rejected else "none"
        message = f"Deployment {name!r}: version {version} was not rejected; rejected versions: {known}."
        raise InvalidInputError(message)
    await _write(situation, dataclasses.replace(entry, rejected=kept))
    return await read_state(project, name)


async def _write(situation: Situation, entry: JournalEntry) -> None:
    """
    Write an entry unless another run has written one since the situation was read.

    :raises SupersededError: it has, or the API key may not write the journal
    """
    if not await situation.journal.write(entry, begins=False):
        message = (
            f"Deployment {situation.name!r}: nothing was recorded: another run wrote to the journal meanwhile, or the "
            "API key may not write it.\nCheck hook.get_promotion_state(), and call this again."
        )
        raise SupersededError(message)


def _state_of(situation: Situation) -> PromotionState:
    entry = situation.pending or situation.journal.newest
    if entry is None:
        return PromotionState(situation.name, "none", False, None, None, "", "", ())
    return PromotionState(
        situation.name,
        entry.state.value,
        situation.pending is not None,
        entry.challenger.version,
        entry.before.served.version if entry.before else None,
        entry.reason,
        entry.run,
        tuple(RejectedVersion(one.served.name, one.served.version, one.reason, one.at) for one in entry.rejected),
        entry.audit,
    )
