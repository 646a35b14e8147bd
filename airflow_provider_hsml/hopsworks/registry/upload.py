"""Uploads into the project: a file is split into parts, each with the form fields that describe it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Upload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_hsml.hopsworks.api import Project

CHUNK = 10 * 1024 * 1024
"""Bytes per part."""


async def upload_bytes(project: Project, path: str, content: bytes) -> None:
    """
    Upload a small file, in one part.

    :param path: relative to the project's folder
    :param content: the file's content
    """
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
