"""Rejections of model versions: which failure rejects a version, and what takes its rejection back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import diff
from airflow_provider_hsml.hopsworks.domain.journal_entry import Rejection
from airflow_provider_hsml.hopsworks.domain.rejection_key import is_same_configuration, rejection_key
from airflow_provider_hsml.hopsworks.domain.settings import SCRIPT, setting_of
from airflow_provider_hsml.hopsworks.errors import (
    AmbiguousVerificationError,
    DeploymentFailedError,
    HopsworksError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.journal_entry import JournalEntry, PreviousState


def of_failure(
    why: HopsworksError,
    entry: JournalEntry | None,
    previous: PreviousState | None,
    ours: Deployment | None,
    *,
    at: float,
) -> Rejection | None:
    """
    Return the rejection of a change's new version; None if the failure is no evidence against it.

    :param why: the failure
    :param entry: the entry of the change; None if it was not recorded
    :param previous: the deployment before the change; None if there was none
    :param ours: the deployment as the change left it; None if that is not known
    :param at: seconds since 1970
    """
    has_room = not (isinstance(why, DeploymentFailedError) and why.transient)
    challenger = entry.challenger if entry else None
    is_new = previous is None or not previous.was_up or not previous.served.is_same(challenger)
    if challenger is None or challenger.version is None or not is_new or not has_room:
        return None
    if not isinstance(why, DeploymentFailedError | VerificationError) or isinstance(why, AmbiguousVerificationError):
        return None
    has_failed = isinstance(why, DeploymentFailedError)
    key = None
    if ours is not None and entry is not None:
        key = rejection_key(_with_scripts(ours.raw, entry.desired), with_resources=has_failed)
    return Rejection(challenger, why.kept_text.splitlines()[0], at, key)


def without(entry: JournalEntry, live: Deployment) -> tuple[Rejection, ...]:
    """
    Return the rejections of an entry that remain once its version is verified: those with another configuration.

    :param entry: the entry
    :param live: the deployment that was verified
    """
    raw = _with_scripts(live.raw, entry.desired)
    return tuple(
        one
        for one in entry.rejected
        if not one.served.is_same(entry.challenger) or not is_same_configuration(one.key, raw)
    )


def _with_scripts(raw: Mapping[str, Any], desired: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a deployment resource with the paths of the scripts that a change has set: some servers return names only.

    :param raw: the deployment resource
    :param desired: the settings of the change, as the journal has them
    """
    found = dict(raw)
    for name, value in diff.settings_from_json(desired).items():
        if setting_of(name).kind is SCRIPT:
            setting_of(name).write(found, value)
    return found
