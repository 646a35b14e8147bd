"""
An earlier configuration as something to want again, from a row that was read before it was changed.

Where Hopsworks keeps versions of deployments it brings back what is in them itself; what is not in them, and all of it
before 5.2, is put back by an update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff
from airflow_provider_hsml.hopsworks.domain.diff import configuration
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.flow import read_patiently

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.settings import (
        SettingValues,
    )
    from airflow_provider_hsml.hopsworks.flow import Backoff


async def way_back(
    project: Project,
    live: Deployment,
    version: int | None,
    former: Mapping[str, Any],
    backoff: Backoff,
    *,
    also: Collection[str] = (),
    hides: bool = False,
) -> tuple[int | None, SettingValues]:
    """
    Tell how a deployment becomes again what it was: the version to roll back to, where it is kept, and what to update.

    :param project: the deployment's project
    :param live: the deployment as it is
    :param version: the deployment version that was the active one
    :param former: the deployment as it was
    :param pace: how often to ask, and until when
    :param also: settings beside those that have a name
    :param hides: whether environment variables have changed and ``former`` does not have their values
    :raises InvalidInputError: then, where Hopsworks keeps no versions
    """
    desired = configuration(project, former, also=also)
    differing = diff.differences(live.raw, desired)
    page = await read_patiently(api.get_versions(project, live), backoff)
    is_kept = page is not None and version in [kept.version for kept in page.items]
    if hides and not is_kept:
        message = (
            f"{live} cannot be put back: the change touched environment variables, whose former values are stored "
            "nowhere. Deploy the former version with its environment variables in spec."
        )
        raise InvalidInputError(message)
    return version if is_kept else None, {name: desired[name] for name in differing}
