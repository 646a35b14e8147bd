"""
Records of the executions that tasks have started, in files of the project.

Hopsworks has no key that makes a repeated start harmless, and nothing may be added to the arguments of a job. So a task
writes what it is about to start, before it starts it, together with the newest execution until then. Its retry looks
through the newer executions for its own. Each record is a new file, whose name tells the task, the state and the
execution; the newest file of a task counts. Arguments are stored as a hash, since they may hold secrets.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import wire
from airflow_provider_hsml.hopsworks.errors import (
    SCOPE_MISSING,
    HopsworksError,
    RequestRefusedError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.flow import Sleep, all_pages
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project

log = logging.getLogger(__name__)

FOLDER = "Resources/airflow-provider-hsml/jobs"
KEPT = 100
"""Records of ended executions of a job that are kept."""
_DELETED_AT_ONCE = 3
_READ_AGAIN = 2.0
"""Seconds after which a record that is not whole is read once more: its writer may still be writing it."""
_NAME = re.compile(r"(\d{8})-([0-9a-f]{16})-(starting|started|ended)(?:-(\d+))?\.json")


class RecordState(Enum):
    """How far an execution has come, as far as its task knows."""

    STARTING = "starting"
    """It is about to be started: among the executions newer than ``Record.newest``, if it exists."""
    STARTED = "started"
    ENDED = "ended"
    """Its end was reported, or none was started."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a task has recorded of its execution."""

    state: RecordState
    run: str
    """The key of the task that has written it: a retry has the same one, a cleared task another."""
    arguments: str
    """The hash of the arguments, from ``hash_of``."""
    at: float
    """When it was written, in seconds since 1970."""
    newest: int = 0
    """The newest execution of the job before the start."""
    execution: int | None = None
    succeeded: bool | None = None
    """Whether an ended one succeeded; None if it was not waited for."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of the record's file."""
        content = {"run": self.run, "arguments": self.arguments, "at": self.at, "newest": self.newest}
        return {**content, "state": self.state.value, "execution": self.execution, "succeeded": self.succeeded}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """
        Read the content of a record's file. Keys of newer versions of this package are ignored.

        :raises ValueError: ``data`` is no record
        """
        required = {"state": str, "run": str, "arguments": str, "at": float}
        row = wire.resource(data, required, {"newest": int, "execution": int, "succeeded": bool})
        state = RecordState(row["state"])
        if state is RecordState.STARTED and row.get("execution") is None:
            message = "execution is missing"
            raise wire.FormError(message)
        more = (row.get("newest") or 0, row.get("execution"), row.get("succeeded"))
        return cls(state, row["run"], row["arguments"], row["at"], *more)


def hash_of(args: str) -> str:
    """
    Return the hash by which arguments are recognised.

    :param args: the arguments as one text
    """
    return hashlib.sha256(args.strip().encode("utf-8", "replace")).hexdigest()


def task_of(run_key: str) -> str:
    """
    Return the task instance in a run key, which also a cleared task has.

    :param run_key: as ``dag/run/task/map index@tries``
    """
    return run_key.rpartition("@")[0] or run_key


@dataclass(slots=True)
class Records:
    """The records of one job's executions, as one task reads and writes them. ``open_records`` makes one."""

    project: Project
    job_name: str
    run_key: str
    """Empty outside of Airflow: nothing is recorded."""
    names: list[str] = field(default_factory=list)
    """The names of all files, newest first."""
    newest: Record | None = None
    """The newest record of this task."""
    is_kept: bool = True
    """Whether there are records, and the API key may read and write them."""
    has_folder: bool = False

    @property
    def folder(self) -> str:
        """The folder of the files, relative to the project."""
        return f"{FOLDER}/{self.job_name}"

    @property
    def path(self) -> str:
        """The file of the newest record of this task."""
        return f"{self.folder}/{self._own()[0]}"

    @property
    def claimed(self) -> set[int]:
        """The executions that records of other tasks name."""
        own = set(self._own())
        named = (_NAME.fullmatch(name) for name in self.names if name not in own)
        return {int(match[4]) for match in named if match and match[4]}

    def _own(self) -> list[str]:
        task = f"-{_hash_of_task(self.run_key)}-"
        return [name for name in self.names if task in name]

    async def write(self, record: Record, *, is_needed: bool = False) -> None:
        """
        Write a record. One that ends an execution also deletes old ones.

        :param is_needed: raise the error of one that cannot be written; else it is logged
        :raises HopsworksError: it is needed, and cannot be written
        """
        if not self.is_kept:
            return
        try:
            await self._write(record)
        except HopsworksError as error:
            if isinstance(error, RequestRefusedError) and error.code == SCOPE_MISSING:
                self._disable(error)
            elif is_needed:
                raise
            else:
                log.warning("%s; a retry of the task looks for its execution again", error)
        self.newest = record

    async def _write(self, record: Record) -> None:
        if not self.has_folder:
            for path in (FOLDER.rpartition("/")[0], FOLDER, self.folder):
                await api.make_folder(self.project, path)
            self.has_folder = True
        number = 1 + max((int(name[:8]) for name in self.names), default=0)
        of_execution = "" if record.execution is None else f"-{record.execution}"
        name = f"{number:08d}-{_hash_of_task(self.run_key)}-{record.state.value}{of_execution}.json"
        content = json.dumps(record.to_json()).encode()
        await upload_bytes(self.project, f"{self.folder}/{name}", content)
        outdated = self._own()
        self.names.insert(0, name)
        if record.state is RecordState.ENDED:
            ended = [old for old in self.names if f"-{RecordState.ENDED.value}" in old]
            await self._delete([*outdated, *ended[KEPT:][:_DELETED_AT_ONCE]])

    async def _delete(self, names: list[str]) -> None:
        for name in names:
            try:
                await api.delete_path(self.project, f"{self.folder}/{name}")
            except HopsworksError as error:
                log.info("An old record of %r was not deleted: %s", self.job_name, error)
                return
            if name in self.names:
                self.names.remove(name)

    async def read(self) -> None:
        """
        Read the names of all files, and the newest record of this task.

        :raises UnexpectedResponseError: the record cannot be read; its execution may run
        """
        entries = await all_pages(lambda offset: api.list_folder(self.project, self.folder, offset=offset))
        self.has_folder = entries is not None
        sizes = {entry.name: entry.size for entry in entries or () if _NAME.fullmatch(entry.name)}
        self.names = sorted(sizes, reverse=True)
        if not (own := self._own()):
            return
        path = self.path
        try:
            self.newest = await api.read_json(self.project, path, Record.from_json, size=sizes[own[0]])
        except UnexpectedResponseError as error:
            raise error.extended(
                f"If this remains, look in Hopsworks whether an execution of job {self.job_name!r} runs for this task, "
                f"and delete the file {path!r}: then the task starts one."
            ) from error
        if self.newest is None:
            message = f"read {path!r}: the file is listed, and does not exist."
            raise UnexpectedResponseError(message, status=404)

    def _disable(self, error: HopsworksError) -> None:
        self.is_kept = False
        log.warning(
            "%s Without it this task does not record the execution that it starts: a retry after a killed worker "
            "starts the job again.",
            error,
        )


async def open_records(project: Project, job_name: str, run_key: str) -> Records:
    """
    Open the records of a job for one task.

    If the API key may not read files, there are no records, and a warning tells so.

    :param run_key: the key of the task; empty outside of Airflow
    :raises UnexpectedResponseError: the newest record of this task cannot be read
    """
    records = Records(project, job_name, run_key, is_kept=bool(run_key))
    if not records.is_kept:
        return records
    try:
        try:
            await records.read()
        except UnexpectedResponseError:
            log.warning("The records of %r are not whole; reading them again", job_name)
            await Sleep(_READ_AGAIN)
            await records.read()
    except RequestRefusedError as error:
        if error.code != SCOPE_MISSING:
            raise
        records._disable(error)  # noqa: SLF001 - its own module
    return records


def _hash_of_task(run_key: str) -> str:
    return hashlib.sha256(task_of(run_key).encode("utf-8", "replace")).hexdigest()[:16]
