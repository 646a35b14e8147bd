"""The files of a project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.errors import InvalidInput

from .wire import PAGE, Call, nothing, path_of

if TYPE_CHECKING:
    from .projects import Project
    from .wire import Upload

_PATH_NOT_FOUND = frozenset({110008, 110011, 110018})
_PATH_EXISTS = frozenset({110012, 110047})


def _dataset(project: Project, path: str, *before: str) -> str:
    if any(part in ("", ".", "..") for part in path.strip("/").split("/")):
        message = f"Path {path!r}: expected one inside the project, without empty parts, '.' or '..'."
        raise InvalidInput(message)
    return path_of("project", project.id, "dataset", *before, path)


def path_exists(project: Project, path: str) -> Call[bool]:
    """
    Ask whether there is a file or folder.

    :param project: whose files
    :param path: from the project's folder on
    """
    return Call(f"look for {path!r}", "GET", _dataset(project, path), bool, repeatable=True, absent=_PATH_NOT_FOUND)


def list_folder(project: Project, path: str, *, offset: int = 0) -> Call[list[str] | None]:
    """
    List the names in a folder, a page at a time; None when there is no such folder.

    :param project: whose files
    :param path: from the project's folder on
    :param offset: how many to leave out
    """
    return Call(
        f"list {path!r}",
        "GET",
        _dataset(project, path),
        lambda data: None if data is None else [str(row["attributes"]["name"]) for row in data.get("items") or []],
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
