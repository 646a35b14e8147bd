"""Endpoints for the files of a project."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from airflow_provider_hsml.hopsworks.domain import wire
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .call import PAGE, Call, Page, page_of, path_of
from .response import ResponseKind

if TYPE_CHECKING:
    from collections.abc import Callable
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


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file or folder."""

    name: str
    is_folder: bool
    size: int | None
    """Bytes; None if the server does not say."""
    modified: str
    """Time of the last change, in the server's format."""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """
        Build an entry from a response of the dataset endpoints.

        :raises ValueError: ``data`` is not an entry
        """
        row = wire.resource(data, {"attributes": dict}, {})["attributes"]
        wire.check(row, {"name": str, "path": str, "dir": bool, "size": int})
        name = row.get("name") or (row.get("path") or "").rpartition("/")[2]
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            message = "it has no name, or one that leads to another path"
            raise wire.FormError(message)
        return cls(name, bool(row.get("dir")), row.get("size"), str(row.get("modificationTime")))


def path_exists(project: Project, path: str) -> Call[bool]:
    """
    Return whether a file or folder exists.

    :param path: relative to the project's folder
    """
    return Call(
        f"look for {path!r}",
        "GET",
        _dataset(project, path),
        lambda data: bool(FileEntry.from_json(data).name),
        repeatable=True,
        absent=_PATH_NOT_FOUND,
        absence=False,
    )


def get_entry(project: Project, path: str) -> Call[FileEntry | None]:
    """
    Read the metadata of a file or folder; None when there is none.

    :param path: relative to the project's folder, or ``/Projects/...``
    """
    return Call(
        f"look at {path!r}",
        "GET",
        _dataset(project, path),
        FileEntry.from_json,
        repeatable=True,
        absent=_PATH_NOT_FOUND,
    )


def list_folder(project: Project, path: str, *, offset: int = 0) -> Call[Page[FileEntry] | None]:
    """
    List one page of a folder, by name in descending order; None when there is no such folder.

    :param path: relative to the project's folder, or ``/Projects/...``
    :param offset: number of rows to skip
    """
    what = f"list {path!r}"

    def read(data: Any) -> Page[FileEntry]:
        page = page_of(what, data, FileEntry.from_json, offset=offset, complete=True)
        # Whether the number is that of the folder or that of the page shows only where the page is not full.
        return replace(page, count=None) if len(page.items) >= PAGE else page

    return Call(
        what,
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
        None,
        query=(("action", "copy"), ("destination_path", destination)),
        is_write_slow=True,
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
        lambda data: bool(FileEntry.from_json(data).name),
        query=query,
        absent=_PATH_EXISTS,
        absence=False,
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
        None,
        upload=upload,
        repeatable=True,
        is_write_slow=True,
    )


def download(project: Project, path: str, *, size: int | None = None) -> Call[bytes | None]:
    """
    Read a small file; None when there is none.

    :param path: relative to the project's folder
    :param size: its size in a listing: content of another size is an unexpected response
    """
    return _download(project, path, lambda content: content, size=size)


def read_json(
    project: Project,
    path: str,
    read: Callable[[Any], T],
    *,
    size: int | None,
    kind: ResponseKind = ResponseKind.RESOURCE,
) -> Call[T | None]:
    """
    Read a file that holds JSON; None when there is none.

    :param path: relative to the project's folder
    :param read: parses the JSON; a ValueError from it makes the response an unexpected one
    :param size: its size in a listing: content of another size is an unexpected response
    :param kind: decides the largest size
    """
    return replace(_download(project, path, lambda content: read(wire.load(content)), size=size), kind=kind)


def _download(project: Project, path: str, read: Callable[[bytes], T], *, size: int | None) -> Call[T | None]:
    def checked(content: bytes) -> T:
        if size is not None and len(content) != size:
            message = f"got {len(content)} bytes of a file that was listed with {size}"
            raise wire.FormError(message)
        return read(content)

    return Call(
        f"read {path!r}",
        "GET",
        _dataset(project, path, "download", "with_auth"),
        checked,
        query=(("type", "DATASET"),),
        repeatable=True,
        raw=True,
        absent=_PATH_NOT_FOUND,
    )


def download_end(project: Project, path: str, last: int) -> Call[bytes | None]:
    """
    Read the end of a file of any size; None when there is none.

    Hopsworks has no request for a part of a file: the whole file arrives, and only its end is kept in memory.

    :param path: relative to the project's folder
    :param last: how many bytes
    """
    return replace(download(project, path), last=last)


def download_to(project: Project, path: str, target: Path, *, size: int | None = None) -> Call[bool]:
    """
    Download a file of any size to a file of this machine, without holding it in memory.

    :param path: relative to the project's folder
    :param target: written when the whole file has arrived; its folder is created if missing
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
        absence=False,
        kind=ResponseKind.MODEL_FILE,
        into=target,
        size=size,
    )


def delete_path(project: Project, path: str) -> Call[None]:
    """
    Delete a file, or a folder with its content. A missing path counts as deleted.

    :param path: relative to the project's folder
    """
    return Call(f"delete {path!r}", "DELETE", _dataset(project, path), None, repeatable=True, absent=_PATH_NOT_FOUND)
