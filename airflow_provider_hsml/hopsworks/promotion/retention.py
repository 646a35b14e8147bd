"""Deletion of old versions of a model, except those that are served or that a rollback may need."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import is_model_clear
from airflow_provider_hsml.hopsworks.domain.model_version import (
    Direction,
    ModelVersion,
    best_of,
    check_model_name,
    model_of_path,
)
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, RequestRefusedError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.routes import Routes

from .journal import open_journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentVersion
    from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
    from airflow_provider_hsml.hopsworks.flow import Clock

log = logging.getLogger(__name__)

AWAIT_DELETION = 30.0
"""Seconds within which the registry must stop listing a version that it deleted."""
_MODEL_IN_USE = 360009
_KEEPS_VERSIONS = (5, 2)
"""The first Hopsworks that keeps versions of deployments."""


@dataclass(frozen=True, slots=True)
class Retained:
    """The deleted and the kept versions of a model."""

    deleted: tuple[int, ...]
    kept: Mapping[int, str]
    """Version -> the reason for keeping it."""


async def delete_versions(
    project: Project,
    name: str,
    *,
    keep: int,
    best_by: tuple[str, Direction] | None = None,
    clock: Clock = time.time,
) -> Retained:
    """
    Delete the versions of a model except the newest, the best, and those that the project's deployments use.

    Whatever a rollback may need counts as used: the model versions of kept deployment versions, and those in the newest
    entry of each deployment's journal. Before 5.2, the journal alone has them.

    :param keep: number of newest versions to keep
    :param best_by: a metric and its direction, to keep the best version as well
    :param clock: returns the seconds since 1970
    :raises UnexpectedResponseError: a deletion was answered, and was not carried out
    :raises InvalidInputError: no version has that metric, or the API key may not read a journal that alone has the
        previous versions; no version was deleted
    """
    listed = await lookup.list_versions(project, check_model_name(name))
    # A version that cannot be read is never deleted, and does not count as one of the newest.
    versions = sorted(listed.models, key=_number, reverse=True)
    if not versions:
        log.warning("Model %r has no version in project %r: there is nothing to delete", name, project.name)
        return Retained((), {})
    kept = {model.version: f"among the newest {keep}" for model in versions[:keep]}
    if best_by is not None:
        best = _best(versions, *best_by)
        kept.setdefault(best.version, f"the best by {best_by[0]}")
    for version, user in (await _in_use(project, name)).items():
        kept[version] = f"{kept[version]}, {user}" if version in kept else user
    deleted = []
    for number in sorted(model.version for model in versions if model.version not in kept):
        log.info("Deleting version %s of model %r", number, name)
        try:
            await api.delete_model(project, name, number)
        except RequestRefusedError as error:
            if error.code != _MODEL_IN_USE:
                raise
            kept[number] = "in use, as Hopsworks says"
        else:
            deleted.append(number)
    await _await_deleted(project, name, deleted, clock)
    known = {model.version for model in versions}
    kept = {number: why for number, why in sorted(kept.items()) if number in known}
    for number, why in kept.items():
        log.info("Version %s of model %r is kept: %s", number, name, why)
    return Retained(tuple(deleted), kept)


async def _await_deleted(project: Project, name: str, deleted: Sequence[int], clock: Clock) -> None:
    """
    Wait until the registry lists none of the deleted versions: a proxy may have answered for it.

    :raises UnexpectedResponseError: it still lists one
    """
    if not deleted:
        return
    backoff = Backoff(first=0.5, most=5.0, deadline=clock() + AWAIT_DELETION, clock=clock)
    while True:
        left = sorted((await lookup.list_versions(project, name)).numbers & set(deleted))
        if not left:
            return
        delay = backoff.next_delay(about=f"Model {name!r}")
        if delay is None:
            message = (
                f"Model {name!r}: the deletion of its versions {left} was answered, and the registry still lists them "
                f"after {AWAIT_DELETION:g} s.\nRun the task again."
            )
            raise UnexpectedResponseError(message, status=200)
        await Sleep(delay)


def _number(model: ModelVersion) -> int:
    return model.version


def _best(versions: list[ModelVersion], metric: str, direction: Direction) -> ModelVersion:
    best = best_of(versions, metric, direction)
    if best is None:
        known = sorted({name for model in versions for name in model.metrics if model.metric(name) is not None})
        message = (
            f"keep_best: no version of model {versions[0].name!r} has a finite metric {metric!r}, so nothing was "
            f"deleted; metrics there: {', '.join(known) or 'none'}."
        )
        raise InvalidInputError(message)
    return best


async def _in_use(project: Project, name: str) -> dict[int, str]:
    """Return the versions that deployments use, each with its use."""
    found: dict[int, str] = {}

    def note(owner: str | None, model_name: str | None, version: int | None, user: str) -> None:
        # Names are compared in any case: to keep a version needlessly does no harm.
        is_ours = (owner or project.name).lower() == project.name.lower()
        if is_ours and (model_name or "").lower() == name.lower() and version is not None:
            found.setdefault(version, user)

    def note_row(row: Deployment | DeploymentVersion, user: str) -> None:
        _check_whole(row, user)
        note(row.model_project, row.model_name, row.model_version, user)

    # All deployments, not only the model's: one that now serves another model may roll back to this one.
    deployments = await api.get_deployments(project, complete=True)
    routes = Routes()
    for deployment in deployments:
        note_row(deployment, f"set in deployment {deployment.name!r}")
    keeps_versions = True
    for deployment in deployments:
        versions = await routes.versions(project, deployment, complete=True)
        if versions is None:
            await _check_keeps_none(project, routes)
            keeps_versions = False
            break
        for version in versions:
            note_row(version, f"named by version {version.version} of deployment {deployment.name!r}")
    for deployment in deployments:
        for served in await _recorded(project, deployment, is_alone=not keeps_versions):
            user = f"named by the journal of deployment {deployment.name!r}"
            note(served.project, served.name, served.version, user)
    return found


async def _recorded(project: Project, deployment: Deployment, *, is_alone: bool) -> list[ServedVersion]:
    """
    Return the versions that a rollback of a deployment may need, pending changes included, as far as the journal tells.

    :param is_alone: whether nothing but the journal has them
    :raises UnexpectedResponseError: the newest entry cannot be read
    :raises InvalidInputError: the API key may not read the journal, which alone has them
    """
    journal = await open_journal(project, deployment.name)
    if is_alone and not journal.is_kept:
        message = (
            f"{deployment}: the API key may not read the journal, which alone has the versions that a rollback needs: "
            "this Hopsworks keeps no versions of deployments. Nothing was deleted.\n"
            "Add the scope DATASET_VIEW to the key."
        )
        raise InvalidInputError(message)
    found, entry = [], journal.newest
    while entry is not None:
        # Also of a change that has ended: a manual rollback leads back from it.
        found += [entry.challenger, *([entry.before.served] if entry.before else [])]
        entry = entry.earlier
    return found


def _check_whole(row: Deployment | DeploymentVersion, user: str) -> None:
    """
    Raise an error for a row that does not say clearly which model version it uses, or that it serves a script alone.

    :param user: the use of the model version, for the message
    :raises UnexpectedResponseError: it does not; the version that it uses might be deleted
    """
    path = row.raw.get("modelPath")
    if row.model_name is None:
        is_whole = bool(row.raw.get("predictor"))
    else:
        of_path = model_of_path(path) or ("", (path or "").rpartition("/")[2])
        is_whole = path is None or of_path[1] == row.model_name
    if is_whole and is_model_clear(row):
        return
    message = (
        f"The model version {user} is unclear: modelName is {row.model_name!r}, modelVersion is {row.model_version!r}, "
        f"modelPath is {path!r}. Nothing was deleted.\nRun the task again."
    )
    raise UnexpectedResponseError(message, status=200)


async def _check_keeps_none(project: Project, routes: Routes) -> None:
    """
    Raise an error unless Hopsworks is of a version that keeps no versions of deployments.

    :raises UnexpectedResponseError: it is newer, or does not say its version
    """
    version = await routes.read(api.get_server_version(), api.get_project(project.name))
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})(?!\d)", version or "", re.ASCII)
    if numbers is None or (int(numbers[1]), int(numbers[2])) >= _KEEPS_VERSIONS:
        message = (
            f"The versions of deployments cannot be listed, and Hopsworks {(version or 'of unknown version')[:50]} may "
            "keep some: a rollback may need the model versions that they name. Nothing was deleted.\n"
            "Run the task again."
        )
        raise UnexpectedResponseError(message, status=404)
