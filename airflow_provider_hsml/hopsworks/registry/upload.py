"""Uploads into the project: a file is split into parts, each with the form fields that describe it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import ResponseKind, Upload
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_hsml.hopsworks.api import Project

CHUNK = 10 * 1024 * 1024
"""Bytes per part."""


async def upload_bytes(
    project: Project, path: str, content: bytes, *, kind: ResponseKind = ResponseKind.RESOURCE
) -> None:
    """
    Upload a small file, in one part.

    :param path: relative to the project's folder
    :param content: the file's content
    :param kind: decides the largest size, with which the file can be read again
    :raises InvalidInputError: the file is too large
    """
    limit = api.LIMITS[kind]
    if not api.is_within(limit, content):
        message = (
            f"{path!r}: {len(content)} bytes are too many to be read again, of which at most {limit // api.MB} MB are "
            "accepted.\nUse fewer rows as example."
        )
        raise InvalidInputError(message)
    folder, _, name = path.rpartition("/")
    upload = Upload(name, content, _fields(name, len(content), 1, len(content)))
    await api.upload_part(project, folder, upload)


def parts(name: str, size: int, path: Path) -> Iterator[Upload]:
    """
    Split a file into parts; an empty file is one empty part.

    :param name: the file's name in the project
    :param size: in bytes
    :param path: the file on this machine
    """
    with path.open("rb") as file:
        for number in range(1, max(1, math.ceil(size / CHUNK)) + 1):
            content = file.read(CHUNK)
            yield Upload(name, content, _fields(name, size, number, len(content)))


def _fields(name: str, size: int, number: int, length: int) -> dict[str, str]:
    """Return the form fields that describe a part."""
    return {
        "templateId": "-1",
        "flowChunkSize": str(CHUNK),
        "flowCurrentChunkSize": str(length),
        "flowTotalSize": str(size),
        "flowIdentifier": f"{size}_{name}",
        "flowFilename": name,
        "flowRelativePath": name,
        "flowTotalChunks": str(math.ceil(size / CHUNK)),
        "flowChunkNumber": str(number),
    }
