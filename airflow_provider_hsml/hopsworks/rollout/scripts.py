"""
Scripts and configuration files of deployments: which file is meant, and getting a local one into the project.

A local file is uploaded under a name that carries its content's hash, and never overwritten: so the name alone tells
whether the content is the same, a retry uploads nothing, and a rollback finds the old content.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.script_file import FOLDER
from airflow_provider_hsml.hopsworks.errors import SCOPE_MISSING, HopsworksError, InvalidInputError, RequestRefusedError
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.settings import Script

log = logging.getLogger(__name__)


async def provide(project: Project, name: str, script: Script) -> None:
    """
    See that a script is in the project: look for it, and upload it if it is ours to upload.

    :param project: the project
    :param name: the setting's name, for messages
    :param script: with its whole path
    :raises InvalidInputError: it is not there, another file has its name, or the key may not look
    """
    below = script.path.removeprefix(f"/Projects/{project.name}/")
    try:
        if script.content is None:
            if not await api.path_exists(project, below):
                message = f"spec.{name}: there is no {script.path!r} in project {project.name!r}."
                raise InvalidInputError(message)
            return
        await _upload(project, name, below, script.content)
    except RequestRefusedError as error:
        if error.code != SCOPE_MISSING:
            raise
        if script.content is None:
            log.warning("%s; whether %r exists is left to the server to say", error, script.path)
            return
        message = (
            f"spec.{name}: uploading it needs an API key with the scopes DATASET_VIEW and DATASET_CREATE, and this one "
            "has not got them. Use one that has, or put the file into the project and name it as "
            f"/Projects/{project.name}/..."
        )
        raise InvalidInputError(message) from error


async def _upload(project: Project, name: str, path: str, content: bytes) -> None:
    there = await api.download(project, path)
    if there is None:
        await _make_folder(project)
        log.info("Uploading %s (%s bytes)", path, len(content))
        try:
            await upload_bytes(project, path, content)
        except HopsworksError as error:
            # Another task may have uploaded the same meanwhile.
            there = await api.download(project, path)
            if there is None:
                raise
            log.info("%s; it is there", error)
    if there is not None and there != content:
        message = (
            f"spec.{name}: {path!r} in project {project.name!r} is named by the hash of its content, and holds "
            "something else. Delete it, and run the task again."
        )
        raise InvalidInputError(message)


async def _make_folder(project: Project) -> None:
    if not await api.path_exists(project, FOLDER):
        await api.make_folder(project, FOLDER.rpartition("/")[0])
        await api.make_folder(project, FOLDER)
