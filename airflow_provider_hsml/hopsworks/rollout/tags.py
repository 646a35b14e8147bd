"""Tags: values by name, whose schemas Hopsworks knows; those of a deployment, and the note on a model version."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.model_version import tag_value
from airflow_provider_hsml.hopsworks.domain.settings import tag_text
from airflow_provider_hsml.hopsworks.errors import RequestRefusedError, UnexpectedResponseError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

log = logging.getLogger(__name__)


async def set_tags(project: Project, deployment: Deployment, desired: Mapping[str, Any]) -> bool:
    """
    Give a deployment these tags, and no others. They are no part of what runs: nothing restarts.

    :param project: the project
    :param deployment: the deployment
    :param desired: the values by name
    :return: whether anything had to be changed
    :raises UnsupportedError: this Hopsworks has no tags of deployments (before 5.0)
    :raises RequestRefusedError: a tag has no schema, or not this value
    """
    try:
        live = await api.get_deployment_tags(project, deployment)
    except (UnexpectedResponseError, RequestRefusedError) as error:
        if error.status != 404 or (isinstance(error, RequestRefusedError) and error.code == api.INSTANCE_NOT_FOUND):
            raise
        if not desired:
            return False
        message = f"spec.tags: this Hopsworks has no tags of deployments. Leave them out of spec. ({deployment})"
        raise UnsupportedError(message) from error
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
