"""The tags of a deployment: values by name, each with a schema in Hopsworks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.model_version import tag_value
from airflow_provider_hsml.hopsworks.domain.settings import tag_text
from airflow_provider_hsml.hopsworks.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.routes import Routes

log = logging.getLogger(__name__)


async def set_tags(project: Project, deployment: Deployment, desired: Mapping[str, Any], routes: Routes) -> bool:
    """
    Set exactly these tags on a deployment, and remove all others. No instance restarts.

    :param desired: the values by name
    :param routes: the optional routes of Hopsworks
    :return: whether a tag was set or removed
    :raises UnsupportedError: this Hopsworks has no tags of deployments (before 5.0)
    :raises RequestRefusedError: a tag has no schema, or its schema does not allow the value
    """
    witness = api.get_deployment_by_id(project, deployment.id)
    live = await routes.read(api.get_deployment_tags(project, deployment), witness)
    if live is None:
        if not desired:
            return False
        message = f"spec.tags: this Hopsworks has no tags of deployments ({deployment}).\nLeave them out of spec."
        raise UnsupportedError(message)
    added = {
        name: value for name, value in desired.items() if name not in live or live[name] != tag_value(tag_text(value))
    }
    for name, value in added.items():
        log.info("Setting tag %r of %s", name, deployment)
        await api.put_deployment_tag(project, deployment, name, value)
    removed = sorted(set(live) - set(desired))
    for name in removed:
        log.info("Removing tag %r of %s", name, deployment)
        await api.delete_deployment_tag(project, deployment, name)
    return bool(added or removed)
