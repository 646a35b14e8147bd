"""The files of a project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .call import PAGE, Call, nothing, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    Ask whether there is a file or folder.

    :param project: whose files
    :param path: from the project's folder on
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
    """When it was changed last, as the server writes it."""


def _file_entry(data: Mapping[str, Any]) -> FileEntry:
    row = data["attributes"]
    is_folder = bool(row.get("dir"))
    name = str(row.get("name") or row["path"].rpartition("/")[2])
    return FileEntry(name, is_folder, int(row.get("size") or 0), str(row.get("modificationTime")))


def get_entry(project: Project, path: str) -> Call[FileEntry | None]:
    """
    Look at a file or folder; None when there is none.

    :param project: whose files
    :param path: from the project's folder on, or ``/Projects/...``
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
    List a folder, a page at a time; nothing when there is no such folder.

    :param project: whose files
    :param path: from the project's folder on, or ``/Projects/...``
    :param offset: how many to leave out
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
    Copy a file or folder inside the cluster. Done when the copy is there, not when this is answered.

    :param project: whose files
    :param path: from the project's folder on, or ``/Projects/...``
    :param destination: where nothing may be yet: ``/Projects/...``
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
    List the names in a folder, a page at a time; None when there is no such folder.

    :param project: whose files
    :param path: from the project's folder on
    :param offset: how many to leave out
    """
    return _listing(
        project,
        path,
        offset,
        lambda data: None if data is None else [str(row["attributes"]["name"]) for row in data.get("items") or []],
    )


def make_folder(project: Project, path: str) -> Call[bool]:
    """
    Make a folder. Only one caller is told that it made it: this is how a version's number is claimed.

    :param project: whose files
    :param path: from the project's folder on
    :return: False when it was there already
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
    Send one part of a file. The same part may be sent again.

    :param project: whose files
    :param folder: where the file goes
    :param upload: the part
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


def download(project: Project, path: str) -> Call[bytes | None]:
    """
    Read a small file; None when there is none.

    :param project: whose files
    :param path: from the project's folder on
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
    )


def delete_path(project: Project, path: str) -> Call[None]:
    """
    Delete a file, or a folder with all that is in it. One that is not there is deleted already.

    :param project: whose files
    :param path: from the project's folder on
    """
    return Call(f"delete {path!r}", "DELETE", _dataset(project, path), nothing, repeatable=True, absent=_PATH_NOT_FOUND)
