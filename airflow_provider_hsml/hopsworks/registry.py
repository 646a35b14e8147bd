"""Finding versions of models in the registry."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from . import calls
from .errors import NotFound
from .waiting import Procedure, all_pages, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .calls import Project
    from .models import ModelVersion


def list_versions(project: Project, name: str) -> Procedure[list[ModelVersion]]:
    """
    List all versions of a model, page by page.

    :param project: the project that owns it
    :param name: the model's name
    """
    return (yield from all_pages(functools.partial(calls.get_models, project, name, limit=calls.PAGE))) or []


def find_version(project: Project, name: str, version: int | None) -> Procedure[ModelVersion]:
    """
    Find a version of a model.

    :param project: the project that owns it
    :param name: the model's name
    :param version: its number; None for the newest
    :raises NotFound: there is none; the message names those that are
    """
    if version is not None:
        model = yield from ask(calls.get_model(project, name, version))
        if model is not None:
            return model
    versions = yield from list_versions(project, name)
    if version is None and versions:
        return max(versions, key=lambda model: model.version)
    raise no_version(name, project.name, version, known=versions)


def no_version(
    name: str, project_name: str, version: int | None = None, *, known: Sequence[ModelVersion] = ()
) -> NotFound:
    """
    Make the error for a model, or a version of it, that does not exist.

    :param name: the model's name
    :param project_name: where it was looked for
    :param version: its number
    :param known: versions that do exist
    """
    numbers = ", ".join(str(number) for number in sorted(model.version for model in known)) or "none"
    wanted = f"Version {version} of model {name!r}" if version is not None else f"Model {name!r}"
    place = f"the registry of project {project_name!r}"
    return NotFound(f"{wanted} is not in {place}; versions there: {numbers}. Register it first.")
