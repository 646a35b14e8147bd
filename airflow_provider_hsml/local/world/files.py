"""
The files of the projects, as HopsFS holds them: ``/Projects/{project}/Models/...``, ``Resources/...``.

Files are staged, synced and renamed into place, so a path holds either the whole file or nothing. Acknowledged changes
survive the end of the process.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_hsml.local.errors import Refusal, malformed

from .uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATASETS = ("Models", "Resources", "Deployments", "Logs")
"""The datasets of a new project."""
_UPLOADS = "uploads"
_UNUSABLE = re.compile(r"[\x00-\x1f\\\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder, as shown in a listing."""

    id: int
    """The number of the inode."""
    path: str
    """Absolute in HopsFS: ``/Projects/example/Models/digits/1``."""
    name: str
    is_folder: bool
    size: int
    modified: float
    """Seconds since the epoch."""


class ProjectFiles:
    """
    The files of one project.

    :param project: the project's name
    :param folder: the folder of its files on this machine
    :param staging: a folder on the same disk, for incomplete files
    """

    def __init__(self, project: str, folder: Path, staging: Path) -> None:
        self.project = project
        self.shared: dict[str, ProjectFiles] = {}
        """The files of other projects that share their ``Models`` with this one, by name."""
        self._folder = folder
        self._staging = staging
        for dataset in DATASETS:
            (folder / dataset).mkdir(parents=True, exist_ok=True)
        staging.mkdir(parents=True, exist_ok=True)
        for leftover in (place for place in staging.iterdir() if place.name != _UPLOADS):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self._uploads = Uploads(staging / _UPLOADS)

    def parts(self, path: str) -> tuple[str, ...]:
        """
        Parse a path of the REST API: relative to the project, or absolute with ``/Projects`` or ``hdfs://``.

        :return: the parts below the project, which may be one that shares its ``Models`` (``{owner}::Models`` as well)
        :raises Refusal: the path leads out of the project, or is not valid
        """
        return self._whose(path)[1]

    def _whose(self, path: str) -> tuple[ProjectFiles, tuple[str, ...]]:
        text = re.sub(r"^hdfs://[^/]*", "", path)
        parts = [part for part in text.split("/") if part]
        if _UNUSABLE.search(text) or any(part in (".", "..") for part in parts):
            raise malformed(f"Path {path!r} is not valid: expected names without '.', '..' or control characters.")
        # This machine's disk allows names of 255 bytes, and whole paths of about 4000, including the root folder.
        if any(len(part.encode()) > 255 for part in parts) or len(text.encode()) > 2000:
            raise malformed(f"Path {path[:100]!r}... is too long: a name may have 255 bytes, a path 2000.")
        project = self.project
        if parts and parts[0] == "Projects":
            project, parts = "".join(parts[1:2]), parts[2:]
        elif parts and "::" in parts[0]:
            project, _, dataset = parts[0].partition("::")
            parts = [dataset, *parts[1:]]
        if project == self.project:
            return self, tuple(parts)
        if project in self.shared and parts[:1] == ["Models"]:
            return self.shared[project], tuple(parts)
        raise Refusal(110011, f"Path {path!r} is not in project {self.project}.")

    def _check_own(self, path: str) -> None:
        """Refuse to write to the files of another project, which are shared for reading only."""
        if self._whose(path)[0] is not self:
            raise Refusal(110050, f"{path} is shared with project {self.project} to be read, not to be written.")

    def here(self, path: str) -> Path:
        """Return the location of a path on this machine, whether or not it exists."""
        owner, parts = self._whose(path)
        return owner._folder.joinpath(*parts)  # noqa: SLF001 - one of the same class

    def hopsfs(self, *parts: str) -> str:
        """Return the absolute path in HopsFS."""
        return "/".join(["", "Projects", self.project, *parts])

    def exists(self, path: str) -> bool:
        """Return whether a file or folder exists."""
        return self.here(path).exists()

    def stat(self, path: str) -> Entry:
        """Return the entry of a path; refuse one that does not exist."""
        return self._whose(path)[0]._entry(self._existing(path))  # noqa: SLF001 - one of the same class

    def listing(self, path: str, *, order: str = "NAME:asc") -> list[Entry]:
        """
        Return the entries of a folder.

        :param order: ``ID``, ``NAME``, ``SIZE`` or ``MODIFICATION_TIME``, with ``:asc`` or ``:desc``
        """
        folder = self._existing(path)
        if not folder.is_dir():
            raise Refusal(110018, f"{path} is a file, not a folder.")
        key, _, direction = order.partition(":")
        keys: dict[str, Callable[[Entry], str | float]] = {
            "ID": lambda entry: entry.id,
            "NAME": lambda entry: entry.name,
            "SIZE": lambda entry: entry.size,
            "MODIFICATION_TIME": lambda entry: entry.modified,
        }
        if key.upper() not in keys or direction.lower() not in ("", "asc", "desc"):
            raise malformed(f"sort_by {order!r} is not known: expected one of {', '.join(keys)}, with :asc or :desc.")
        owner = self._whose(path)[0]
        entries = [owner._entry(child) for child in folder.iterdir()]  # noqa: SLF001 - one of the same class
        return sorted(entries, key=keys[key.upper()], reverse=direction.lower() == "desc")

    def make_folder(self, path: str) -> Entry:
        """Create a folder in an existing one. Of several concurrent callers one succeeds; the others are refused."""
        place = self._new(path)
        try:
            place.mkdir()
        except FileExistsError:
            raise self._taken(path) from None
        _sync(place.parent)
        return self._entry(place)

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file; replace an existing one, and create the folders above it."""
        place = self.here(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        staged = self._staged()
        with staged.open("wb") as stream:
            stream.write(content)
            _flush(stream)
        staged.replace(place)
        _sync(place.parent)

    def write_part(self, path: str, upload: str, part: BinaryIO, *, number: int, parts: int, part_bytes: int) -> None:
        """
        Write one part of a file. The file appears once all parts are written; a part may be sent again.

        :param upload: the identifier of this upload, which differs from other uploads to the same path
        :param number: of the part, from 1
        :param parts: the number of parts
        :param part_bytes: size of all parts but the last
        """
        self._uploads.write_part(self._new(path), upload, part, number=number, parts=parts, part_bytes=part_bytes)

    def copy(self, path: str, destination: str) -> None:
        """Copy a file or folder to a path that does not exist yet."""
        source, place = self._existing(path), self._new(destination, absent=True)
        staged = self._staged()
        if source.is_dir():
            shutil.copytree(source, staged)
        else:
            shutil.copyfile(source, staged)
        for file in [staged, *staged.rglob("*")] if staged.is_dir() else [staged]:
            _sync(file)
        staged.rename(place)
        _sync(place.parent)

    def move(self, path: str, destination: str) -> None:
        """Move a file or folder to a path that does not exist yet."""
        self._check_own(path)
        source, place = self._existing(path), self._new(destination, absent=True)
        if len(self.parts(path)) < 2 or place.is_relative_to(source):
            raise malformed(f"{path} cannot be moved to {destination}: expected something in a dataset, to elsewhere.")
        source.rename(place)
        _sync(place.parent)
        _sync(source.parent)

    def delete(self, path: str) -> None:
        """Delete a file, or a folder with its content."""
        self._check_own(path)
        if len(self.parts(path)) < 2:
            raise malformed(f"{path!r} is a dataset of the project: only what is inside it can be deleted.")
        place, removed = self._existing(path), self._staged()
        place.rename(removed)
        _sync(place.parent)
        shutil.rmtree(removed) if removed.is_dir() else removed.unlink()

    def file(self, path: str) -> Path | None:
        """Return the location of a file on this machine; None if it does not exist, or the path is not accessible."""
        try:
            place = self.here(path)
        except Refusal:
            return None
        return place if place.is_file() else None

    def folder(self, path: str) -> Path | None:
        """Return the location of a folder on this machine; None as for ``file``."""
        try:
            place = self.here(path)
        except Refusal:
            return None
        return place if place.is_dir() else None

    def read(self, path: str) -> Path:
        """Return the location of a file on this machine; refuse a path that is not a file."""
        place = self._existing(path)
        if not place.is_file():
            raise Refusal(110018, f"{path} is a folder, not a file.")
        return place

    def _staged(self) -> Path:
        return self._staging / uuid.uuid4().hex

    def _existing(self, path: str) -> Path:
        place = self.here(path)
        if not place.exists():
            raise Refusal(110011 if len(self.parts(path)) == 1 else 110018, f"{path} not found.")
        return place

    def _new(self, path: str, *, absent: bool = False) -> Path:
        """Return the location for a new file or folder: inside a dataset, in an existing folder."""
        self._check_own(path)
        place = self.here(path)
        if place == self._folder:
            raise malformed("A path is missing: expected one inside the project.")
        if not place.parent.is_dir():
            above = "/".join(self.parts(path)[:-1])
            raise Refusal(110011 if "/" not in above else 110018, f"Folder {above} not found: make it first.")
        if absent and place.exists():
            raise Refusal(110012, f"{path} exists already.")
        return place

    def _taken(self, path: str) -> Refusal:
        return Refusal(110012 if len(self.parts(path)) == 1 else 110047, f"{path} exists already.")

    def _entry(self, place: Path) -> Entry:
        status = place.stat()
        path = self.hopsfs(*place.relative_to(self._folder).parts)
        size = 0 if place.is_dir() else status.st_size
        return Entry(status.st_ino, path, place.name, place.is_dir(), size, status.st_mtime)


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _sync(path: Path) -> None:
    """Flush a file, or the renames in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
