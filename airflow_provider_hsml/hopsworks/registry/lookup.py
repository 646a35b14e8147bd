"""Finding versions of models in the registry."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import NotFoundError
from airflow_provider_hsml.hopsworks.flow import all_pages, read_patiently

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hsml.hopsworks.api import Project, Registry
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.flow import Backoff


async def find_registry(project: Project, owner: str | None) -> Registry | None:
    """
    Find the registry of another project, which has to be shared with this one.

    :param project: the project that asks
    :param owner: the project that owns the models; None for the one that asks
    :return: None for the project's own
    :raises NotFoundError: it is not shared; the message names those that are
    """
    if owner in (None, project.name):
        return None
    shared = await api.get_registries(project)
    for registry in shared:
        if registry.name == owner:
            return registry
    names = ", ".join(sorted(other.name for other in shared if other.name != project.name)) or "none"
    message = (
        f"The model registry of project {owner!r} is not shared with project {project.name!r}; shared with it are: "
        f"{names}. Its owner shares the dataset 'Models', and this project accepts it."
    )
    raise NotFoundError(message)


async def served_model(project: Project, deployment: Deployment, backoff: Backoff | None = None) -> ModelVersion | None:
    """
    Find the version that a deployment is set to serve; None when it serves no model, or the registry has it no more.

    :param project: the deployment's project
    :param deployment: the deployment
    :param pace: how often to ask while the server is away, and until when; None: it has to answer
    """
    if deployment.model_name is None or deployment.model_version is None:
        return None
    return await find_served(
        project, deployment.model_project, deployment.model_name, deployment.model_version, backoff
    )


async def find_served(
    project: Project, owner: str | None, name: str, version: int, backoff: Backoff | None = None
) -> ModelVersion | None:
    """
    Find a version that is or was served; None when the registry has it no more, or is not shared any more.

    :param project: the deployment's project
    :param owner: the project that owns the model; None for the deployment's
    :param name: the model's name
    :param version: its number
    :param pace: how often to ask while the server is away, and until when; None: it has to answer
    """
    try:
        registry = await find_registry(project, owner)
    except NotFoundError:
        return None
    call = api.get_model(project, name, version, registry=registry)
    return await (read_patiently(call, backoff) if backoff else call)


async def list_versions(project: Project, name: str, registry: Registry | None = None) -> list[ModelVersion]:
    """
    List all versions of a model, page by page.

    :param project: the project that asks
    :param name: the model's name
    :param registry: where they are; None for the project's own
    """
    page = functools.partial(api.get_models, project, name, limit=api.PAGE, registry=registry)
    return await all_pages(page) or []


async def find_version(
    project: Project, name: str, version: int | None, registry: Registry | None = None
) -> ModelVersion:
    """
    Find a version of a model.

    :param project: the project that asks
    :param name: the model's name
    :param version: its number; None for the newest
    :param registry: where it is; None for the project's own
    :raises NotFoundError: there is none; the message names those that are
    """
    if version is not None:
        model = await api.get_model(project, name, version, registry=registry)
        if model is not None:
            return model
    versions = await list_versions(project, name, registry)
    if version is None and versions:
        return max(versions, key=lambda model: model.version)
    raise no_version(name, registry.name if registry else project.name, version, known=versions)


def model_folder(project: Project, model: ModelVersion) -> str:
    """
    Give the folder of a model version, as the project that asks has to name it.

    :param project: the project that asks
    :param model: the version, its own or one of a registry that is shared with it
    """
    owner = "" if model.project == project.name else f"{model.project}::"
    return f"{owner}Models/{model.name}/{model.version}"


def no_version(
    name: str, project_name: str, version: int | None = None, *, known: Sequence[ModelVersion] = ()
) -> NotFoundError:
    """
    Make the error for a model, or a version of it, that does not exist.

    :param name: the model's name
    :param project_name: where it was looked for
    :param version: its number
    :param known: versions that do exist
    """
    numbers = ", ".join(str(number) for number in sorted(model.version for model in known)) or "none"
    subject = f"Version {version} of model {name!r}" if version is not None else f"Model {name!r}"
    place = f"the registry of project {project_name!r}"
    hint = "" if known else f" Is the name spelled as in the registry, and is {project_name!r} the project it is in?"
    return NotFoundError(f"{subject} is not in {place}; versions there: {numbers}. Register it first.{hint}")
