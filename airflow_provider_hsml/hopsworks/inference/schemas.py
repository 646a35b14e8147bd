"""Read the schema of a deployment's requests, from its own route or from the project's files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import wire
from airflow_provider_hsml.hopsworks.domain.deployment_schema import FORMATS, DeploymentSchema, schema_id_of
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.flow import read_patiently

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Backoff
    from airflow_provider_hsml.hopsworks.routes import Routes

log = logging.getLogger(__name__)


def folder_of(name: str) -> str:
    """
    Return the folder with the published schemas of a deployment, relative to the project's folder.

    :param name: the deployment's name
    """
    return f"Deployments/{name}/resources/schema"


async def read_document(
    project: Project, deployment: Deployment, routes: Routes, form: str = "schema", backoff: Backoff | None = None
) -> dict[str, Any] | None:
    """
    Read the published schema of a deployment; None if it has none, or not in this format.

    :param routes: the optional routes, as far as the task knows them
    :param form: one of ``FORMATS``
    :param backoff: how to retry while the server is unavailable; None for no retry beyond the client's own
    """
    schema_id = schema_id_of(deployment)
    if schema_id is None:
        return None
    call = api.get_deployment_schema(project, deployment, schema_id, form=form)
    found = await routes.read(call, api.get_deployment_by_id(project, deployment.id), backoff)
    if found is None:
        path = f"{folder_of(deployment.name)}/{schema_id}{FORMATS[form]}"
        file = api.read_json(project, path, lambda data: wire.resource(data, {}, {}), size=None)
        found = await (read_patiently(file, backoff) if backoff else file)
    return dict(found) if isinstance(found, dict) and found else None


async def read_for_checks(
    project: Project, deployment: Deployment, routes: Routes, backoff: Backoff | None = None
) -> DeploymentSchema | None:
    """
    Read the schema that a deployment checks requests against.

    None if it has none, or one that this package does not understand: Hopsworks checks the rows then.

    :param routes: the optional routes, as far as the task knows them
    :param backoff: how to retry while the server is unavailable; None for no retry beyond the client's own
    """
    document = await read_document(project, deployment, routes, backoff=backoff)
    if document is None:
        return None
    try:
        return DeploymentSchema.read(document, str(deployment))
    except InvalidInputError as error:
        log.warning("%s\nRows are not checked before they are sent", f"{error}".partition("\n")[0])
        return None
