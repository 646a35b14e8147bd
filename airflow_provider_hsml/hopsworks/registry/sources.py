"""Sources of a model's files: this machine, or HopsFS; and their upload or copy into the version's folder."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep, all_pages

from . import upload as upload_

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from io import BufferedReader

    from airflow_provider_hsml.hopsworks.api import FileEntry, Project
    from airflow_provider_hsml.hopsworks.flow import Clock

log = logging.getLogger(__name__)

COPY_SECONDS = 3600.0
"""Timeout of a copy, in seconds."""
MOST_FOLDERS, MOST_LEVELS = 10_000, 100
"""Folders of a model, and folders in each other, after which a listing counts as endless."""
IN_DOUBT = 120.0
"""Seconds within which a copy must have begun if the response to its request was lost."""
_HOPSFS = re.compile(r"hopsfs:/{0,2}(?P<path>/Projects/.+)")


class Source(Protocol):
    """A source of a model's files."""

    async def fingerprint(self, project: Project) -> str:
        """Return a hash that changes whenever the files change."""

    async def fill(self, project: Project, folder: str, *, leave_out: Collection[str] = ()) -> None:
        """
        Copy the files into a folder that exists and is empty.

        :param folder: relative to the project's folder
        :param leave_out: names of files at the top that are not copied
        """


def read_source(what: str, value: object) -> Source:
    """
    Read a path of this machine, or ``hopsfs:/Projects/...``.

    :raises InvalidInputError: the file or folder does not exist or is empty, or holds what cannot be uploaded
    """
    text = arguments.text(what, os.fspath(value) if isinstance(value, os.PathLike) else value)
    if text.startswith("hopsfs:"):
        match = _HOPSFS.fullmatch(text.rstrip("/"))
        if match is None:
            arguments.refuse(what, "a path such as 'hopsfs:/Projects/<project>/Resources/model'", value)
        return HopsfsFiles(match["path"])
    path = Path(text)
    if not _exists(path):
        message = (
            f"{what} {text!r}: no such file or folder on this machine.\nTasks may run on different machines: train and "
            "register in one place, share the folder, or give a URL of object storage."
        )
        raise InvalidInputError(message)
    source = LocalFiles(path)
    if not source.files():
        message = f"{what} {text!r}: the folder is empty.\nSave the model into it before it is registered."
        raise InvalidInputError(message)
    return source


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # The text is too long for a path, or holds a NUL.
        return False


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A file of this machine, or a folder with all files of the model."""

    path: Path

    def files(self) -> list[tuple[str, Path]]:
        """
        Return the files, each with its path relative to the model's folder. Links are followed.

        :raises InvalidInputError: the folder holds what cannot be uploaded; the message names it
        """
        if not self.path.is_dir():
            _check_file(self.path)
            return [(self.path.name, self.path)]
        return sorted((path.relative_to(self.path).as_posix(), path) for path in _files_below(self.path))

    async def fingerprint(self, project: Project) -> str:  # noqa: ARG002 - asked of every source
        """Compute the SHA-256 of all files, names and contents."""
        total = hashlib.sha256()
        for name, path in self.files():
            with _opened(path) as file:
                total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()

    async def fill(self, project: Project, folder: str, *, leave_out: Collection[str] = ()) -> None:
        """
        Upload the files.

        :param folder: relative to the project's folder
        :param leave_out: names of files at the top that are not uploaded
        """
        made: set[str] = set()
        sizes: dict[str, int] = {}
        for name, path in self.files():
            if name in leave_out:
                continue
            sizes[name] = path.stat().st_size
            for parent in reversed(Path(name).parents):
                below = parent.as_posix()
                if below != "." and below not in made:
                    await api.make_folder(project, f"{folder}/{below}")
                    made.add(below)
            target = f"{folder}/{name}"
            log.info("Uploading %s (%s bytes)", target, path.stat().st_size)
            for upload in upload_.parts(path.name, path.stat().st_size, path):
                await api.upload_part(project, target.rpartition("/")[0], upload)
        check_uploaded(project, folder, sizes, await walk(project, folder))


def _files_below(top: Path) -> Iterator[Path]:
    """Yield the files below a folder, also below folders that are links."""
    folders: list[tuple[Path, frozenset[Path]]] = [(top, frozenset())]
    while folders:
        folder, above = folders.pop()
        real = folder.resolve()
        if real in above:
            _refuse(folder, "it is a link to a folder that holds it")
        try:
            entries = list(folder.iterdir())
        except OSError as error:
            _refuse(folder, f"the folder cannot be read ({error.strerror})")
        for path in entries:
            _check_name(path)
            if path.is_dir():
                folders.append((path, above | {real}))
            else:
                _check_file(path)
                yield path


def _check_name(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        _refuse(path, f"its name {os.fsencode(path.name)!r} is not UTF-8")


def _check_file(path: Path) -> None:
    _check_name(path)
    if not path.is_file():
        _refuse(path, "it is a link to nothing" if path.is_symlink() else "it is no file and no folder")


def _opened(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        _refuse(path, f"the file cannot be read ({error.strerror})")


def _refuse(path: Path, why: str) -> NoReturn:
    shown = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    message = f"model_path: '{shown}' cannot be uploaded: {why}.\nRemove it from the model's folder, or repair it."
    raise InvalidInputError(message)


@dataclass(frozen=True, slots=True)
class HopsfsFiles:
    """A file or folder in HopsFS, the cluster's own file system."""

    path: str
    """``/Projects/<project>/...``."""
    clock: Clock = field(default=time.time, repr=False)

    async def fingerprint(self, project: Project) -> str:
        """
        Return the SHA-256 of names, sizes and times: the content stays in the cluster.

        :raises InvalidInputError: the file or folder does not exist or is empty
        """
        found = await self._files(project)
        rows = sorted(f"{name}\0{entry.size}\0{entry.modified}\n" for name, entry in found.items())
        return hashlib.sha256("".join(rows).encode()).hexdigest()

    async def fill(self, project: Project, folder: str, *, leave_out: Collection[str] = ()) -> None:
        """
        Copy the files inside the cluster, and wait until the copy is complete.

        :param folder: relative to the project's folder
        :param leave_out: names of files at the top that are not copied
        :raises DeadlineExceededError: the copy was not complete within an hour
        """
        target = f"/Projects/{project.name}/{folder}"
        if f"{target}/".startswith(f"{self.path}/"):
            message = (
                f"model_path 'hopsfs:{self.path}': the model's own folder {target!r} is inside it.\nSet the path of "
                "the model's files themselves."
            )
            raise InvalidInputError(message)
        found = await self._files(project)
        expected = {name: entry.size for name, entry in found.items() if name not in leave_out}
        top = await api.get_entry(project, self.path)
        if top is not None and not top.is_folder and expected:
            await self._copy(project, self.path, f"{target}/{top.name}")
        else:
            for name in sorted({name.partition("/")[0] for name in expected}):
                await self._copy(project, f"{self.path}/{name}", f"{target}/{name}")
        await self._complete(project, target, expected)

    async def _files(self, project: Project) -> dict[str, FileEntry]:
        top = await api.get_entry(project, self.path)
        if top is None:
            message = f"model_path 'hopsfs:{self.path}': no such file or folder in HopsFS, or not one of this project."
            raise InvalidInputError(message)
        if not top.is_folder:
            return {top.name: top}
        found = await walk(project, self.path)
        if not found:
            message = f"model_path 'hopsfs:{self.path}': the folder is empty."
            raise InvalidInputError(message)
        return found

    async def _copy(self, project: Project, source: str, target: str) -> None:
        log.info("Copying %s to %s", source, target)
        try:
            await api.copy_path(project, source, target)
        except HopsworksError as error:
            if not error.outcome_unknown:
                raise
            log.warning("%s; checking whether the copy exists", error)
            backoff = Backoff(first=1.0, most=10.0, deadline=self.clock() + IN_DOUBT, clock=self.clock)
            while await api.get_entry(project, target) is None:
                delay = backoff.next_delay()
                if delay is None:
                    raise
                await Sleep(delay)

    async def _complete(self, project: Project, target: str, expected: dict[str, int | None]) -> None:
        backoff = Backoff(first=0.5, most=10.0, deadline=self.clock() + COPY_SECONDS, clock=self.clock)
        while True:
            there = {name: entry.size for name, entry in (await walk(project, target)).items()}
            if expected.items() <= there.items():  # Before 4.2, the mark of the task is in the same folder.
                return
            late = f"The copy of hopsfs:{self.path} to {target} is not complete after {COPY_SECONDS:g} s."
            await backoff.wait(late, about=f"The copy of hopsfs:{self.path}")


def check_uploaded(project: Project, folder: str, sizes: Mapping[str, int], there: Mapping[str, FileEntry]) -> None:
    """
    Check that uploaded files are there as a whole: a proxy may have answered for Hopsworks.

    :param sizes: of the uploaded files, by their path in the folder
    :param there: the listed files
    :raises UnexpectedResponseError: a file is missing, or has another size
    """
    for name, size in sizes.items():
        entry = there.get(name)
        if entry is None or entry.size not in (None, size):
            state = "does not exist" if entry is None else f"has {entry.size} bytes and not {size}"
            message = (
                f"{folder}/{name}: the upload was answered, and the file {state} in project {project.name!r}.\n"
                "Run the task again. If this repeats, check whether a proxy answers for Hopsworks."
            )
            raise UnexpectedResponseError(message, status=200)


async def list_all(project: Project, folder: str) -> list[FileEntry]:
    """
    List all files and folders in a folder; empty when there is no such folder.

    :param folder: from the project's folder on, or ``/Projects/...``
    """
    return await all_pages(lambda offset: api.list_folder(project, folder, offset=offset)) or []


async def walk(project: Project, folder: str) -> dict[str, FileEntry]:
    """
    List all files below a folder, by their path in it; empty when there is no such folder.

    :param folder: from the project's folder on, or ``/Projects/...``
    :raises UnexpectedResponseError: the folders do not end
    """
    found: dict[str, FileEntry] = {}
    below, folders = [""], 0
    while below:
        inner = below.pop()
        folders += 1
        if folders > MOST_FOLDERS or inner.count("/") > MOST_LEVELS:
            message = f"list {folder!r}: its folders do not end after {folders}.\nCheck the folder in Hopsworks."
            raise UnexpectedResponseError(message, status=200)
        for entry in await list_all(project, f"{folder}/{inner}".rstrip("/")):
            name = f"{inner}{entry.name}"
            if entry.is_folder:
                below.append(f"{name}/")
            else:
                found[name] = entry
    return found
