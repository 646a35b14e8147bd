"""
Scripts and configuration files of deployments: which file is meant, and getting a local one into the project.

A local file is uploaded under a name that carries its content's hash, and never overwritten: so the name alone tells
whether the content is the same, a retry uploads nothing, and a rollback finds the old content.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.settings import Script
from airflow_provider_hsml.hopsworks.errors import SCOPE_MISSING, HopsworksError, InvalidInput, Refused
from airflow_provider_hsml.hopsworks.flow import Procedure, ask
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.settings import Wanted

log = logging.getLogger(__name__)

FOLDER = "Resources/airflow-provider-hsml/scripts"
MOST_BYTES = 10 * 1024 * 1024
_IN_THE_PROJECT = re.compile(r"(?:hopsfs:|hdfs:)?(?://[^/]*)?(/Projects/.*)")


def read(what: str, value: object) -> Script:
    """
    Read which file is meant; one of this machine is read and hashed.

    :param what: the argument's name
    :param value: a path of this machine, or ``/Projects/<project>/...``, also with ``hopsfs:`` or ``hdfs://``
    :raises InvalidInput: it cannot be such a file
    """
    text = str(value) if isinstance(value, Path) else arguments.text(what, value).strip()
    suffix = ".py" if what.endswith("script_file") else ""
    if not text.endswith(suffix):
        arguments.refuse(what, f"a file whose name ends in {suffix}", text)
    if "://" in text or text.startswith(("hopsfs:", "hdfs:", "/Projects/")):
        found = _IN_THE_PROJECT.fullmatch(text)
        if not found or any(part in ("", ".", "..") for part in found[1].split("/")[1:]):
            arguments.refuse(what, "a path /Projects/<project>/..., without '..' and empty parts", text)
        return Script(found[1])
    file = Path(text)
    if not file.is_file():
        expected = "a file of the machine where the task runs, or one in the project (/Projects/<project>/...)"
        arguments.refuse(what, expected, text)
    content = file.read_bytes()
    if not content or len(content) > MOST_BYTES:
        arguments.refuse(what, f"a file of 1 to {MOST_BYTES} bytes", f"{text}: {len(content)} bytes")
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", file.stem)
    return Script(f"{FOLDER}/{stem}-{hashlib.sha256(content).hexdigest()[:16]}{file.suffix}", content)


def absolute(project: Project, wanted: Wanted) -> Wanted:
    """
    Give the same settings with each script's whole path.

    :param project: the project that the deployment is in
    :param wanted: what was asked for
    :raises InvalidInput: a script that is in another project
    """
    root = f"/Projects/{project.name}/"
    found = dict(wanted)
    for name, script in wanted.items():
        if not isinstance(script, Script):
            continue
        if script.content is not None and not script.path.startswith(root):
            found[name] = Script(f"{root}{script.path}", script.content)
        elif not script.path.startswith(root):
            message = f"spec.{name}: expected a file in project {project.name!r} ({root}...), got {script.path!r}."
            raise InvalidInput(message)
    return found


def provide(project: Project, name: str, script: Script) -> Procedure[None]:
    """
    See that a script is in the project: look for it, and upload it if it is ours to upload.

    :param project: the project
    :param name: the setting's name, for messages
    :param script: with its whole path
    :raises InvalidInput: it is not there, another file has its name, or the key may not look
    """
    below = script.path.removeprefix(f"/Projects/{project.name}/")
    try:
        if script.content is None:
            if not (yield from ask(api.path_exists(project, below))):
                message = f"spec.{name}: there is no {script.path!r} in project {project.name!r}."
                raise InvalidInput(message)
            return
        yield from _upload(project, name, below, script.content)
    except Refused as error:
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
        raise InvalidInput(message) from error


def _upload(project: Project, name: str, path: str, content: bytes) -> Procedure[None]:
    there = yield from ask(api.download(project, path))
    if there is None:
        yield from _make_folder(project)
        log.info("Uploading %s (%s bytes)", path, len(content))
        try:
            yield from upload_bytes(project, path, content)
        except HopsworksError as error:
            # Another task may have uploaded the same meanwhile.
            there = yield from ask(api.download(project, path))
            if there is None:
                raise
            log.info("%s; it is there", error)
    if there is not None and there != content:
        message = (
            f"spec.{name}: {path!r} in project {project.name!r} is named by the hash of its content, and holds "
            "something else. Delete it, and run the task again."
        )
        raise InvalidInput(message)


def _make_folder(project: Project) -> Procedure[None]:
    if not (yield from ask(api.path_exists(project, FOLDER))):
        yield from ask(api.make_folder(project, FOLDER.rpartition("/")[0]))
        yield from ask(api.make_folder(project, FOLDER))
