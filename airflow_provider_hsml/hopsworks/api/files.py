"""Endpoints for the files of a project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .call import PAGE, Call, nothing, path_of
from .response import ResponseKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from airflow_provider_hsml.hopsworks.domain.project import Project

    from .call import Upload

T = TypeVar("T")

_PATH_NOT_FOUND = frozenset({110008, 110011, 110018})
_PATH_EXISTS = frozenset({110012, 110047})


def _dataset(project: Project, path: str, *before: str) -> str:
    if any(part in ("", ".", "..") for part in path.strip("/").split("/")):
        message = f"Path {path!r}: expected one inside the project, without empty parts, '.' or '..'."
        raise InvalidInputError(message)
    return path_of("project", project.id, "dataset", *before, path)


def path_exists(project: Project, path: str) -> Call[bool]:
    """
    Return whether a file or folder exists.

    :param path: relative to the project's folder
    """
    return Call(f"look for {path!r}", "GET", _dataset(project, path), bool, repeatable=True, absent=_PATH_NOT_FOUND)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file or folder."""

    name: str
    is_folder: bool
    size: int
    """Bytes."""
    modified: str
    """Time of the last change, in the server's format."""


def _file_entry(data: Mapping[str, Any]) -> FileEntry:
    row = data["attributes"]
    is_folder = bool(row.get("dir"))
    name = str(row.get("name") or row["path"].rpartition("/")[2])
    return FileEntry(name, is_folder, int(row.get("size") or 0), str(row.get("modificationTime")))


def get_entry(project: Project, path: str) -> Call[FileEntry | None]:
    """
    Read the metadata of a file or folder; None when there is none.

    :param path: relative to the project's folder, or ``/Projects/...``
    """
    return Call(
        f"look at {path!r}",
        "GET",
        _dataset(project, path),
        lambda data: data and _file_entry(data),
        repeatable=True,
        absent=_PATH_NOT_FOUND,
    )


def list_entries(project: Project, path: str, *, offset: int = 0) -> Call[list[FileEntry]]:
    """
    List one page of a folder; empty when there is no such folder.

    :param path: relative to the project's folder, or ``/Projects/...``
    :param offset: number of rows to skip
    """
    return _listing(project, path, offset, lambda data: [_file_entry(row) for row in (data or {}).get("items") or []])


def _listing(project: Project, path: str, offset: int, read: Callable[[Any], T]) -> Call[T]:
    return Call(
        f"list {path!r}",
        "GET",
        _dataset(project, path),
        read,
        query=(
            ("action", "listing"),
            ("offset", str(offset)),
            ("limit", str(PAGE)),
            ("sort_by", "NAME:desc"),
            ("expand", "inodes"),
        ),
        repeatable=True,
        absent=_PATH_NOT_FOUND,
    )


def copy_path(project: Project, path: str, destination: str) -> Call[None]:
    """
    Copy a file or folder inside the cluster. The copy continues after the response: poll until it is complete.

    :param path: relative to the project's folder, or ``/Projects/...``
    :param destination: an absolute path that does not exist yet: ``/Projects/...``
    """
    return Call(
        f"copy {path!r} to {destination!r}",
        "POST",
        _dataset(project, path),
        nothing,
        query=(("action", "copy"), ("destination_path", destination)),
        is_write_slow=True,
    )


def list_folder(project: Project, path: str, *, offset: int = 0) -> Call[list[str] | None]:
    """
    List one page of the names in a folder; None when there is no such folder.

    :param path: relative to the project's folder
    :param offset: number of rows to skip
    """
    return _listing(
        project,
        path,
        offset,
        lambda data: None if data is None else [str(row["attributes"]["name"]) for row in data.get("items") or []],
    )


def make_folder(project: Project, path: str) -> Call[bool]:
    """
    Create a folder. The server confirms this to one caller only, so a folder can claim a version's number.

    :param path: relative to the project's folder
    :return: False when the folder existed already
    """
    query = (("action", "create"), ("searchable", "true"), ("generate_readme", "false"), ("type", "DATASET"))
    return Call(
        f"make folder {path!r}",
        "POST",
        _dataset(project, path),
        lambda data: data is not None,
        query=query,
        absent=_PATH_EXISTS,
    )


def upload_part(project: Project, folder: str, upload: Upload) -> Call[None]:
    """
    Upload one part of a file. The same part may be sent again.

    :param folder: the file's folder
    """
    return Call(
        f"upload {upload.filename!r} to {folder!r}",
        "POST",
        _dataset(project, folder, "upload"),
        nothing,
        upload=upload,
        repeatable=True,
        is_write_slow=True,
    )


def download(project: Project, path: str, *, kind: ResponseKind = ResponseKind.RESOURCE) -> Call[bytes | None]:
    """
    Read a small file; None when there is none.

    :param path: relative to the project's folder
    :param kind: decides the largest size
    """
    return Call(
        f"read {path!r}",
        "GET",
        _dataset(project, path, "download", "with_auth"),
        lambda data: data,
        query=(("type", "DATASET"),),
        repeatable=True,
        raw=True,
        absent=_PATH_NOT_FOUND,
        kind=kind,
    )


def download_to(project: Project, path: str, target: Path, *, size: int | None = None) -> Call[bool]:
    """
    Download a file of any size to a file of this machine, without holding it in memory.

    :param path: relative to the project's folder
    :param target: written when the whole file has arrived; its folder exists
    :param size: the listed size in bytes, which the file has to have; None or 0 if it is unknown
    :return: False when there is no such file
    """
    return Call(
        f"download {path!r}",
        "GET",
        _dataset(project, path, "download", "with_auth"),
        lambda data: data is not None,
        query=(("type", "DATASET"),),
        repeatable=True,
        raw=True,
        absent=_PATH_NOT_FOUND,
        kind=ResponseKind.MODEL_FILE,
        into=target,
        size=size,
    )


def delete_path(project: Project, path: str) -> Call[None]:
    """
    Delete a file, or a folder with its content. A missing path counts as deleted.

    :param path: relative to the project's folder
    """
    return Call(f"delete {path!r}", "DELETE", _dataset(project, path), nothing, repeatable=True, absent=_PATH_NOT_FOUND)
