"""
Records of the executions that tasks have started, in files of the project.

Hopsworks has no key that makes a repeated start harmless, and nothing may be added to the arguments of a job. So a task
writes what it is about to start, before it starts it, together with the executions that there are. Its retry looks
through the newer ones for its own. Each record is a new file, whose name tells the task, the state and the
execution; the newest file of a task counts. Arguments are stored as a hash, since they may hold secrets.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass, field
from datetime import datetime
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
from airflow_provider_hsml.hopsworks.flow import Sleep, all_pages, read_patiently
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import FileEntry, Project
    from airflow_provider_hsml.hopsworks.domain.execution import Execution
    from airflow_provider_hsml.hopsworks.flow import Backoff

log = logging.getLogger(__name__)

FOLDER = "Resources/airflow-provider-hsml/jobs"
KEPT = 100
"""Records of ended executions of a job that are kept."""
_DELETED_AT_ONCE = 3
_READ_AGAIN = 2.0
"""Seconds after which a record that is not whole is read once more: its writer may still be writing it."""
CLOCKS_DIFFER = 300.0
"""Seconds by which the clocks of Airflow and Hopsworks may differ."""
_NAME = re.compile(r"(\d{8})-([0-9a-f]{16})-(starting|started|stopping|ended)(?:-(\d+))?\.json")


class RecordState(Enum):
    """How far an execution has come, as far as its task knows."""

    STARTING = "starting"
    """It is about to be started: among the executions that ``Record.is_older`` does not name, if it exists."""
    STARTED = "started"
    STOPPING = "stopping"
    """Its task was killed, and has asked to stop it; it may run on."""
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
    """When it was written, right before the last attempt to start, in seconds since 1970."""
    execution: int | None = None
    succeeded: bool | None = None
    """Whether an ended one succeeded; None if it was not waited for."""
    seen: tuple[int, ...] = ()
    """The newest executions of the job before the start; empty if there were none."""
    begun: float | None = None
    """When the first attempt to start was recorded; None: ``at``."""
    variables: str = ""
    """The hash of the environment variables, from ``hash_of_variables``; empty if it is not known."""
    takes_defaults: bool = False
    """Whether it is started without arguments. Then the execution shows the job's default ones, or none."""

    def is_older(self, execution: int) -> bool:
        """
        Return whether an execution was there before the start.

        :param execution: its id, which need not rise with time
        """
        return execution in self.seen

    def may_own(self, execution: Execution) -> bool:
        """Return whether an execution may be the one of this start, by its id and arguments."""
        hashes = {self.arguments, *([hash_of("")] if self.takes_defaults else [])}
        return not self.is_older(execution.id) and hash_of(execution.args) in hashes

    def is_in_time(self, execution: Execution, start_seconds: float) -> bool:
        """
        Return whether an execution was submitted while this start was sent; also if it tells no time.

        :param start_seconds: seconds for which a start may go on
        """
        try:
            moment = datetime.fromisoformat(execution.submitted or "")
        except ValueError:
            return True
        if moment.tzinfo is None:
            return True
        begun = self.at if self.begun is None else self.begun
        return begun - CLOCKS_DIFFER <= moment.timestamp() <= self.at + start_seconds + CLOCKS_DIFFER

    def is_over(self, now: float, start_seconds: float) -> bool:
        """
        Return whether this start cannot go on any more.

        :param now: seconds since 1970
        :param start_seconds: seconds for which a start may go on
        """
        return now > self.at + start_seconds + CLOCKS_DIFFER

    def to_json(self) -> dict[str, Any]:
        """Return the content of the record's file."""
        content = {"run": self.run, "arguments": self.arguments, "at": self.at}
        more = {"seen": list(self.seen), "begun": self.begun, "takes_defaults": self.takes_defaults}
        of_state = {"state": self.state.value, "execution": self.execution, "succeeded": self.succeeded}
        return {**content, **of_state, **more, "variables": self.variables}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """
        Read the content of a record's file. Keys of newer versions of this package are ignored.

        :raises ValueError: ``data`` is no record
        """
        required = {"state": str, "run": str, "arguments": str, "at": float}
        optional: dict[str, wire.Shape] = {"execution": int, "begun": float, "seen": [int]}
        optional |= {"succeeded": bool, "variables": str, "takes_defaults": bool}
        row = wire.resource(data, required, optional)
        state = RecordState(row["state"])
        if state in (RecordState.STARTED, RecordState.STOPPING) and row.get("execution") is None:
            message = "execution is missing"
            raise wire.FormError(message)
        return cls(
            state,
            row["run"],
            row["arguments"],
            row["at"],
            execution=row.get("execution"),
            succeeded=row.get("succeeded"),
            seen=tuple(row.get("seen") or ()),
            begun=row.get("begun"),
            variables=row.get("variables") or "",
            takes_defaults=bool(row.get("takes_defaults")),
        )


def hash_of(args: str) -> str:
    """
    Return the hash by which arguments are recognised.

    :param args: the arguments as one text
    """
    return hashlib.sha256(args.strip().encode("utf-8", "replace")).hexdigest()


def hash_of_variables(env_vars: Mapping[str, str], run_key: str) -> str:
    """
    Return the hash by which environment variables are recognised.

    :param run_key: of the task: equal variables of two tasks have different hashes
    """
    text = json.dumps([task_of(run_key), sorted(env_vars.items())])
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


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
    others: dict[str, Record] = field(default_factory=dict)
    """The records of other tasks that were read, by file: a file never changes."""

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

    async def starting_elsewhere(self, backoff: Backoff) -> list[Record | None]:
        """
        List the files again, and return the newest records of other tasks that are about to start an execution.

        One that cannot be read is None.

        :param backoff: how often and until when to try
        """
        if not self.is_kept:
            return []
        folder = self.folder
        entries = await all_pages(
            lambda offset: read_patiently(api.list_folder(self.project, folder, offset=offset), backoff)
        )
        sizes = self._take(entries)
        tasks, own = set(), set(self._own())
        found: list[Record | None] = []
        for name in self.names:
            match = _NAME.fullmatch(name)
            if match is None or name in own or match[2] in tasks:
                continue
            tasks.add(match[2])
            if match[3] == RecordState.STARTING.value:
                try:
                    record = self.others.get(name) or await api.read_json(
                        self.project, f"{folder}/{name}", Record.from_json, size=sizes.get(name)
                    )
                except UnexpectedResponseError as error:
                    log.warning("A record of another task: %s", error)
                    found.append(None)
                    continue
                if record is not None:
                    self.others[name] = record
                    found.append(record)
        return found

    def _take(self, entries: list[FileEntry] | None) -> dict[str, int | None]:
        """Keep the names of the files that are records, and return their sizes."""
        self.has_folder = entries is not None
        sizes = {entry.name: entry.size for entry in entries or () if _NAME.fullmatch(entry.name)}
        self.names = sorted(sizes, reverse=True)
        return sizes

    async def read(self) -> None:
        """
        Read the names of all files, and the newest record of this task.

        :raises UnexpectedResponseError: the record cannot be read; its execution may run
        """
        sizes = self._take(await all_pages(lambda offset: api.list_folder(self.project, self.folder, offset=offset)))
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
