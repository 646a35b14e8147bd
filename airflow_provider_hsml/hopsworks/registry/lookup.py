"""Lookup of model versions, in the project's registry or a shared one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import NotFoundError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.flow import all_pages, read_patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_provider_hsml.hopsworks.api import Page, Project, Registry
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.flow import Backoff


@dataclass(frozen=True, slots=True)
class ModelVersions:
    """
    The versions of a model that the registry lists.

    A row that cannot be read is still a version: whoever asks for a version that it may be gets an error, and never
    another version.
    """

    name: str
    models: tuple[ModelVersion, ...]
    """Those that can be read."""
    unread: tuple[int | None, ...] = ()
    """The numbers of the others; None where the number cannot be read either."""

    @property
    def numbers(self) -> set[int]:
        """The numbers of all versions, as far as they can be read."""
        return {model.version for model in self.models} | {number for number in self.unread if number is not None}

    def newest(self) -> ModelVersion | None:
        """
        Return the newest version; None if there is none.

        :raises UnexpectedResponseError: it may be one that cannot be read
        """
        newest = max(self.models, key=lambda model: model.version, default=None)
        self.check_read(lambda number: newest is None or number > newest.version)
        return newest

    def check_candidates(self, numbers: Sequence[int] | None) -> None:
        """
        Check that none of these versions is one that cannot be read.

        :param numbers: None for whichever can be read
        :raises UnexpectedResponseError: one is, or may be
        """
        missing = set(numbers or ()) - {model.version for model in self.models}
        if missing:
            self.check_read(missing.__contains__)

    def check_read(self, may_be: Callable[[int], bool]) -> None:
        """
        Check that no version which cannot be read may be the one that is asked for.

        :param may_be: whether the version of a number may be the one
        :raises UnexpectedResponseError: one may be
        """
        for number in self.unread:
            if number is None or may_be(number):
                which = "a version whose number cannot be read" if number is None else f"version {number}"
                message = (
                    f"list the versions of model {self.name!r}: {which} cannot be read, and may be the one that is "
                    "asked for; the log names the odd key.\nRun the task again. If this remains, correct or delete it."
                )
                raise UnexpectedResponseError(message, status=200)


async def find_registry(project: Project, owner: str | None) -> Registry | None:
    """
    Find the registry of another project, which must be shared with this one.

    :param owner: the project that owns the models, in any case: the path of a model that is served may have another;
        None for this project
    :return: None for the project's own registry
    :raises NotFoundError: the registry is not shared; the message names the shared ones
    """
    if owner is None or owner == project.name:
        return None
    shared = await api.get_registries(project)
    for registry in shared:
        if registry.name == owner:
            return registry
    if owner.lower() == project.name.lower():
        return None
    for registry in shared:
        if registry.name.lower() == owner.lower():
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


async def list_versions(project: Project, name: str, registry: Registry | None = None) -> ModelVersions:
    """
    List all versions of a model, page by page.

    :param registry: the registry to read; None for the project's own
    :raises UnexpectedResponseError: there are versions, none of which can be read; or one is listed twice, so that
        others may be missing
    """
    unread: list[int | None] = []

    async def page(offset: int) -> Page[ModelVersion]:
        rows = await api.get_models(project, name, limit=api.PAGE, offset=offset, registry=registry)
        unread.extend(rows.unread_versions)
        return rows

    found = await all_pages(page) or []
    if unread and not found:
        message = (
            f"list the versions of model {name!r}: none of the {len(unread)} rows can be read.\nCheck whether another "
            "program answers for Hopsworks."
        )
        raise UnexpectedResponseError(message, status=200)
    listed = ModelVersions(name, tuple(found), tuple(unread))
    if len(listed.numbers) < len(found) + len(unread) - unread.count(None):
        message = f"list the versions of model {name!r}: a version is listed twice.\nRun the task again."
        raise UnexpectedResponseError(message, status=200)
    return listed


async def find_version(
    project: Project, name: str, version: int | None, registry: Registry | None = None
) -> ModelVersion:
    """
    Find a version of a model.

    :param version: its number; None for the newest
    :param registry: the registry to read; None for the project's own
    :raises NotFoundError: the version does not exist; the message names the existing ones
    :raises UnexpectedResponseError: the newest version may be one that cannot be read
    """
    if version is not None:
        model = await api.get_model(project, name, version, registry=registry)
        if model is not None:
            return model
    listed = await list_versions(project, name, registry)
    newest = listed.newest() if version is None else None
    if newest is not None:
        return newest
    raise no_version(name, registry.name if registry else project.name, version, known=listed.numbers)


def model_folder(project: Project, model: ModelVersion) -> str:
    """
    Return the folder of a model version, as seen from a project.

    :param project: the project that reads the folder
    :param model: a version of this project, or of a registry that is shared with it
    """
    owner = "" if model.project == project.name else f"{model.project}::"
    return f"{owner}Models/{model.name}/{model.version}"


def no_version(name: str, project_name: str, version: int | None = None, *, known: Iterable[int] = ()) -> NotFoundError:
    """
    Build the error for a model, or a version of it, that does not exist.

    :param project_name: the project whose registry was searched
    :param known: numbers of versions that exist
    """
    numbers = ", ".join(str(number) for number in sorted(known)) or "none"
    subject = f"Version {version} of model {name!r}" if version is not None else f"Model {name!r}"
    place = f"the registry of project {project_name!r}"
    hint = "" if known else f" Is the name spelled as in the registry, and is {project_name!r} the project it is in?"
    return NotFoundError(f"{subject} is not in {place}; versions there: {numbers}.\nRegister it first.{hint}")
