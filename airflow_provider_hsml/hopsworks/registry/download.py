"""Download of a model version's files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import NotFoundError, UnexpectedResponseError

from . import lookup, sources
from .register import BESIDE

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion

log = logging.getLogger(__name__)


async def download_model(project: Project, model: ModelVersion, folder: Path) -> None:
    """
    Download a version's files into a folder of this machine, one after another.

    :param folder: created if missing; files of the same names are replaced
    :raises NotFoundError: the version has no files
    """
    place = lookup.model_folder(project, model)
    root = f"{place}/Files"
    found = await sources.walk(project, root)
    if not found:
        # Before 4.2, the files are beside the version's metadata files.
        root, found = place, await sources.walk(project, place)
        found = {name: entry for name, entry in found.items() if name not in BESIDE}
    if not found:
        message = f"Version {model.version} of model {model.name!r} has no files in {place!r}."
        raise NotFoundError(message)
    for name in sorted(found):
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            message = f"list {root!r}: a file named {name!r}, which would be written outside of {str(folder)!r}"
            raise UnexpectedResponseError(message, status=200)
        size = found[name].size
        log.info("Downloading %s (%s bytes)", target, size)
        if not await api.download_to(project, f"{root}/{name}", target, size=size):
            message = f"{root}/{name} was deleted while the model was downloaded."
            raise NotFoundError(message)
