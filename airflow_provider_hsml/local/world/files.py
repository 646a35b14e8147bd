"""
The files of the projects, as HopsFS holds them: ``/Projects/{project}/Models/...``, ``Resources/...``.

Whatever is written is staged, synced and renamed into its place, so that a path either holds all of a file or is not
there; what was acknowledged survives the end of the process.
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
"""The datasets that a new project has."""
_UPLOADS = "uploads"
_UNUSABLE = re.compile(r"[\x00-\x1f\\\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder, as it is listed."""

    id: int
    """The inode's number."""
    path: str
    """Absolute in HopsFS: ``/Projects/demo/Models/digits/1``."""
    name: str
    is_folder: bool
    size: int
    modified: float
    """Seconds since the epoch."""


class ProjectFiles:
    """
    The files of one project.

    :param project: the project's name
    :param folder: where its files lie on this machine
    :param staging: a folder on the same disk, for what is not complete
    """

    def __init__(self, project: str, folder: Path, staging: Path) -> None:
        self.project = project
        self.shared: dict[str, ProjectFiles] = {}
        """The files of projects that let this one read their ``Models``, by name."""
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
        Read a path of the REST API: relative to the project, or absolute from ``/Projects`` or ``hdfs://`` on.

        :return: what is below the project, which may be one that shares its ``Models`` (``{owner}::Models`` as well)
        :raises Refusal: it leads out of the project, or holds what no path may
        """
        return self._whose(path)[1]

    def _whose(self, path: str) -> tuple[ProjectFiles, tuple[str, ...]]:
        text = re.sub(r"^hdfs://[^/]*", "", path)
        parts = [part for part in text.split("/") if part]
        if _UNUSABLE.search(text) or any(part in (".", "..") for part in parts):
            raise malformed(f"Path {path!r} is not valid: expected names without '.', '..' or control characters.")
        # A name may have 255 bytes on this machine's disk, a path about 4000 with what is above it.
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
        """Refuse to write to what is shared: it is shared to be read."""
        if self._whose(path)[0] is not self:
            raise Refusal(110050, f"{path} is shared with project {self.project} to be read, not to be written.")

    def here(self, path: str) -> Path:
        """Give the place of a path on this machine, whether or not there is something."""
        owner, parts = self._whose(path)
        return owner._folder.joinpath(*parts)  # noqa: SLF001 - one of the same class

    def hopsfs(self, *parts: str) -> str:
        """Give the absolute path in HopsFS."""
        return "/".join(["", "Projects", self.project, *parts])

    def exists(self, path: str) -> bool:
        """Say whether there is a file or folder."""
        return self.here(path).exists()

    def stat(self, path: str) -> Entry:
        """Look a path up; refused when nothing is there."""
        return self._whose(path)[0]._entry(self._found(path))  # noqa: SLF001 - one of the same class

    def listing(self, path: str, *, order: str = "NAME:asc") -> list[Entry]:
        """
        List a folder.

        :param path: the folder
        :param order: ``ID``, ``NAME``, ``SIZE`` or ``MODIFICATION_TIME``, with ``:asc`` or ``:desc``
        """
        folder = self._found(path)
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
        """Make a folder in one that exists. Only one of many callers makes it; the others are refused."""
        place = self._new(path)
        try:
            place.mkdir()
        except FileExistsError:
            raise self._taken(path) from None
        _sync(place.parent)
        return self._entry(place)

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file; the folders above it are made, and one that is there is replaced."""
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
        Write one part of a file. The file appears when all parts are there; a part may come again.

        :param path: the file
        :param upload: what tells this upload from others of the same path
        :param part: the content
        :param number: of the part, from 1
        :param parts: how many there are
        :param part_bytes: size of all parts but the last
        """
        self._uploads.write_part(self._new(path), upload, part, number=number, parts=parts, part_bytes=part_bytes)

    def copy(self, path: str, destination: str) -> None:
        """Copy a file or folder to a path where nothing is."""
        source, place = self._found(path), self._new(destination, absent=True)
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
        """Move a file or folder to a path where nothing is."""
        self._check_own(path)
        source, place = self._found(path), self._new(destination, absent=True)
        if len(self.parts(path)) < 2 or place.is_relative_to(source):
            raise malformed(f"{path} cannot be moved to {destination}: expected something in a dataset, to elsewhere.")
        source.rename(place)
        _sync(place.parent)
        _sync(source.parent)

    def delete(self, path: str) -> None:
        """Delete a file, or a folder with all that is in it."""
        self._check_own(path)
        if len(self.parts(path)) < 2:
            raise malformed(f"{path!r} is a dataset of the project: only what is inside it can be deleted.")
        place, gone = self._found(path), self._staged()
        place.rename(gone)
        _sync(place.parent)
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()

    def file(self, path: str) -> Path | None:
        """Give the place of a file on this machine; None when it is not there, or no path of this project."""
        try:
            place = self.here(path)
        except Refusal:
            return None
        return place if place.is_file() else None

    def folder(self, path: str) -> Path | None:
        """Do the same for a folder."""
        try:
            place = self.here(path)
        except Refusal:
            return None
        return place if place.is_dir() else None

    def read(self, path: str) -> Path:
        """Give the place of a file on this machine; refused when it is none."""
        place = self._found(path)
        if not place.is_file():
            raise Refusal(110018, f"{path} is a folder, not a file.")
        return place

    def _staged(self) -> Path:
        return self._staging / uuid.uuid4().hex

    def _found(self, path: str) -> Path:
        place = self.here(path)
        if not place.exists():
            raise Refusal(110011 if len(self.parts(path)) == 1 else 110018, f"{path} not found.")
        return place

    def _new(self, path: str, *, absent: bool = False) -> Path:
        """Give the place of something to be written: inside a dataset, in a folder that exists."""
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
    """Make what was renamed into or out of a folder (or a file's content) last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
