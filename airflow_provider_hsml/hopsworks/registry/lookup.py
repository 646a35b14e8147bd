"""Lookup of model versions, in the project's registry or a shared one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import NotFoundError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.flow import all_pages, read_patiently

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hsml.hopsworks.api import Page, Project, Registry
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.flow import Backoff


async def find_registry(project: Project, owner: str | None) -> Registry | None:
    """
    Find the registry of another project, which must be shared with this one.

    :param owner: the project that owns the models; None for this project
    :return: None for the project's own registry
    :raises NotFoundError: the registry is not shared; the message names the shared ones
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
        f"{names}.\nIts owner shares the dataset 'Models', and this project accepts it."
    )
    raise NotFoundError(message)


async def served_model(project: Project, deployment: Deployment, backoff: Backoff | None = None) -> ModelVersion | None:
    """
    Find the model version that a deployment is configured to serve.

    None when it serves no model, or the registry no longer has the version.

    :param backoff: how to retry while the server is unavailable; None for no retry beyond the client's own
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
    Find a version that is or was served; None when the registry no longer has it, or is no longer shared.

    :param owner: the project that owns the model; None for the deployment's project
    :param backoff: how to retry while the server is unavailable; None for no retry beyond the client's own
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

    :param registry: the registry to read; None for the project's own
    :raises UnexpectedResponseError: there are versions, none of which can be read; or one is listed twice, so that
        others may be missing
    """
    unreadable = 0

    async def page(offset: int) -> Page[ModelVersion]:
        nonlocal unreadable
        rows = await api.get_models(project, name, limit=api.PAGE, offset=offset, registry=registry)
        unreadable += rows.unreadable
        return rows

    found = await all_pages(page) or []
    if unreadable and not found:
        message = (
            f"list the versions of model {name!r}: none of the {unreadable} rows can be read.\nCheck whether another "
            "program answers for Hopsworks."
        )
        raise UnexpectedResponseError(message, status=200)
    if len({model.version for model in found}) < len(found):
        message = f"list the versions of model {name!r}: a version is listed twice.\nRun the task again."
        raise UnexpectedResponseError(message, status=200)
    return found


async def find_version(
    project: Project, name: str, version: int | None, registry: Registry | None = None
) -> ModelVersion:
    """
    Find a version of a model.

    :param version: its number; None for the newest
    :param registry: the registry to read; None for the project's own
    :raises NotFoundError: the version does not exist; the message names the existing ones
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
    Return the folder of a model version, as seen from a project.

    :param project: the project that reads the folder
    :param model: a version of this project, or of a registry that is shared with it
    """
    owner = "" if model.project == project.name else f"{model.project}::"
    return f"{owner}Models/{model.name}/{model.version}"


def no_version(
    name: str, project_name: str, version: int | None = None, *, known: Sequence[ModelVersion] = ()
) -> NotFoundError:
    """
    Build the error for a model, or a version of it, that does not exist.

    :param project_name: the project whose registry was searched
    :param known: versions that exist
    """
    numbers = ", ".join(str(number) for number in sorted(model.version for model in known)) or "none"
    subject = f"Version {version} of model {name!r}" if version is not None else f"Model {name!r}"
    place = f"the registry of project {project_name!r}"
    hint = "" if known else f" Is the name spelled as in the registry, and is {project_name!r} the project it is in?"
    return NotFoundError(f"{subject} is not in {place}; versions there: {numbers}.\nRegister it first.{hint}")
