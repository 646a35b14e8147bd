"""Search the registry for model versions that meet criteria."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import RequestRefusedError
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from airflow_provider_hsml.hopsworks.api import Project, Registry
    from airflow_provider_hsml.hopsworks.domain.criteria import Criteria
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of one search of the registry."""

    models: tuple[ModelVersion, ...]
    """Versions that meet the criteria, the newest first, with tags if the criteria have any."""
    reason: str = ""
    """Why no version meets them yet."""
    unread: tuple[int | None, ...] = ()
    """The numbers of versions that cannot be read; None where the number cannot be read either."""


async def search(
    project: Project,
    name: str,
    criteria: Criteria,
    owner: Registry | None = None,
    *,
    but: Container[int] = (),
    is_one_enough: bool = True,
) -> SearchResult:
    """
    Search the registry once. Tags are read only for versions that meet the other criteria, the newest first.

    :param owner: the registry to search; None for the project's own
    :param but: numbers of versions to skip
    :param is_one_enough: whether to return only the newest version, else all of them that can be read
    :raises UnexpectedResponseError: the newest version that meets the criteria may be one that cannot be read
    """
    if criteria.version is None:
        listed = await lookup.list_versions(project, name, owner)
        subject = f"Model {name!r}"
    else:
        model = await api.get_model(project, name, criteria.version, registry=owner)
        listed = lookup.ModelVersions(name, () if model is None else (model,))
        subject = f"Version {criteria.version} of model {name!r}"
    found, reasons, routes = [], [], Routes()
    for version in sorted(listed.models, key=lambda model: model.version, reverse=True):
        if version.version in but:
            continue
        lack, tags = await _judge(project, version, criteria, owner, routes)
        if lack is not None:
            reasons.append(f"version {version.version} {lack}")
            continue
        found.append(replace(version, tags=tags))
        if is_one_enough:
            break
    if is_one_enough:
        least = max([criteria.newer_than or 0, *(version.version for version in found)])
        listed.check_read(lambda number: number > least)
    if found:
        return SearchResult(tuple(found), unread=listed.unread)
    if not reasons:
        reason = f"{subject} is not in the registry of project {(owner or project).name!r} yet"
        return SearchResult((), reason, listed.unread)
    others = f"; the {len(reasons) - 1} before it will not do either" if len(reasons) > 1 else ""
    return SearchResult((), f"Model {name!r}: {reasons[0]}{others}", listed.unread)


async def _judge(
    project: Project, version: ModelVersion, criteria: Criteria, owner: Registry | None, routes: Routes
) -> tuple[str | None, Mapping[str, Any]]:
    """Return the criterion that a version misses, and its tags if the criteria have any."""
    lack, tags = criteria.shortcoming(version), version.tags
    if lack is not None or not criteria.tags:
        return lack, tags
    call = api.get_model_tags(project, version.name, version.version, registry=owner)
    witness = api.get_model(project, version.name, version.version, registry=owner)
    try:
        found = await routes.read(call, witness)
    except RequestRefusedError as error:
        if error.code != api.MODEL_NOT_FOUND:
            raise
        found = None  # The version was deleted after it was listed.
    return criteria.untagged(found or {}), found or {}
