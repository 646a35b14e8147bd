"""
Uploads of local scripts and configuration files of deployments into the project.

A local file is uploaded under a name that contains the hash of its content, and is never overwritten. So equal names
mean equal content, a retry uploads nothing, and a rollback finds the previous content.
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
    Upload a script with content; check that any other script exists in the project.

    :param name: the setting's name, for messages
    :param script: the script, with its whole path
    :raises InvalidInputError: the script does not exist, another file has its name, or the key may not upload files
    """
    below = script.path.removeprefix(f"/Projects/{project.name}/")
    try:
        if script.content is None:
            if not await api.path_exists(project, below):
                message = (
                    f"spec.{name}: there is no {script.path!r} in project {project.name!r}.\n"
                    "Upload the file, or correct the path."
                )
                raise InvalidInputError(message)
            return
        await _upload(project, name, below, script.content)
    except RequestRefusedError as error:
        if error.code != SCOPE_MISSING:
            raise
        if script.content is None:
            log.warning("%s; not checked whether %r exists: the server will check it", error, script.path)
            return
        message = (
            f"spec.{name}: the upload needs an API key with the scopes DATASET_VIEW and DATASET_CREATE, which this key "
            "does not have.\nUse a key with these scopes, or upload the file yourself and give its path "
            f"/Projects/{project.name}/..."
        )
        raise InvalidInputError(message) from error


async def _upload(project: Project, name: str, path: str, content: bytes) -> None:
    there = await _content(project, path)
    if there is None:
        await _make_folder(project)
        log.info("Uploading %s (%s bytes)", path, len(content))
        try:
            await upload_bytes(project, path, content)
        except HopsworksError as error:
            # Another task may have uploaded the same file meanwhile.
            there = await _content(project, path)
            if there is None:
                raise
            log.info("%s; the file exists", error)
    if there is not None and there != content:
        message = (
            f"spec.{name}: the name of {path!r} in project {project.name!r} contains the hash of its content, but the "
            "file has another content.\nDelete the file, and run the task again."
        )
        raise InvalidInputError(message)


async def _content(project: Project, path: str) -> bytes | None:
    entry = await api.get_entry(project, path)
    return None if entry is None else await api.download(project, path, size=entry.size)


async def _make_folder(project: Project) -> None:
    if not await api.path_exists(project, FOLDER):
        await api.make_folder(project, FOLDER.rpartition("/")[0])
        await api.make_folder(project, FOLDER)
