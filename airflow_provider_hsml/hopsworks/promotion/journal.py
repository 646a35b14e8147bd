"""
The journal of a deployment's promotions, which carries their state from task to task, in files of the project.

Three cases need it. A worker that is killed between a change and its verification leaves an unverified version. A
rejected version is the best by its metric again the next day. And Hopsworks before 5.2 does not keep the previous
configuration. So each promotion records its intention and its result, each in a new file; the newest file counts.
Values of environment variables are never written.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry
from airflow_provider_hsml.hopsworks.domain.side_deployment import is_lease_file
from airflow_provider_hsml.hopsworks.errors import (
    SCOPE_MISSING,
    HopsworksError,
    RequestRefusedError,
    SupersededError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep, all_pages, read_patiently
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project

log = logging.getLogger(__name__)

FOLDER = "Resources/airflow-provider-hsml/journal"
KEPT = 20
"""The number of files of a deployment that are kept when a promotion ends."""
_DELETED_AT_ONCE = 3
_READ_AGAIN = 2.0
"""Seconds after which a newest file that is not whole is read once more: another run may be writing it."""


class OutdatedDecision(Exception):
    """The deployment or its journal is not as it was for the decision, so decide again. Not an error."""


@dataclass(slots=True)
class Journal:
    """The journal of one deployment, as read when it was opened. Use ``open_journal`` to get one."""

    project: Project
    deployment_name: str
    names: list[str] = field(default_factory=list)
    """The names of its files, newest first."""
    newest: JournalEntry | None = None
    is_kept: bool = True
    """Whether the API key may read and write the journal. Without a journal, no state is carried from run to run."""
    has_folder: bool = False
    """Whether the deployment's folder exists."""
    has_leases: bool = False
    """Whether the folder holds leases of temporary deployments beside this one."""

    @property
    def used_routes(self) -> tuple[str, ...]:
        """The optional routes of Hopsworks that were used for this deployment."""
        entry = self.newest
        if entry is None:
            return ()
        return entry.routes if entry.back_to is None else (*entry.routes, api.VERSIONS)

    async def write(self, entry: JournalEntry, backoff: Backoff | None = None, *, begins: bool | None = None) -> bool:
        """
        Write a new entry, and return whether it was written. An entry that ends a promotion also deletes old files.

        If another run has written the newest entry meanwhile, none is written: the change of that run may be
        unverified, so its entry stays the newest.

        :param backoff: how long to retry; None to write at once or fail
        :param begins: whether it begins a change; None: if it is PROMOTING
        :raises OutdatedDecision: it begins a change, and another run has written meanwhile
        :raises HopsworksError: the entry cannot be written; with a backoff this is only a warning
        """
        begins = entry.state is EntryState.PROMOTING if begins is None else begins
        is_written = False
        if self.is_kept:
            try:
                is_written = await self._write(entry, begins=begins)
            except HopsworksError as error:
                if isinstance(error, RequestRefusedError) and error.code == SCOPE_MISSING:
                    self._disable(error)
                elif backoff is None:
                    raise
                else:
                    is_written = await self._retry(entry, error, backoff, begins=begins)
        self.newest = entry
        return is_written

    async def _retry(self, entry: JournalEntry, error: HopsworksError, backoff: Backoff, *, begins: bool) -> bool:
        call = api.path_exists(self.project, "Resources")
        try:
            if not error.transient:
                raise error
            await read_patiently(call, backoff)
            return await self._write(entry, begins=begins)
        except HopsworksError as last:
            log.warning("%s; the next run verifies deployment %r again", last, self.deployment_name)
            return False

    async def _write(self, entry: JournalEntry, *, begins: bool) -> bool:
        folder = f"{FOLDER}/{self.deployment_name}"
        if not self.has_folder:
            for path in (FOLDER.rpartition("/")[0], FOLDER, folder):
                await api.make_folder(self.project, path)
            self.has_folder = True
        there = _entries(await list_files(self.project, self.deployment_name) or {})
        # A name of ours that is not there was not stored, or has been deleted: it hides no entry of another run.
        is_outdated = next(iter(there), "") not in ("", *self.names)
        if is_outdated and begins:
            raise OutdatedDecision
        if is_outdated:
            log.warning("Deployment %r: another run wrote to the journal; its entry is kept", self.deployment_name)
            return False
        # Two concurrent runs may choose the same number. Then the letter decides: "b", for an entry that begins a
        # change, sorts as newer than "a", for any other entry.
        number = 1 + max((int(name[:8]) for name in (*self.names, *there)), default=0)
        name = f"{number:08d}-{'b' if begins else 'a'}{uuid.uuid4().hex[:8]}.json"
        self.names.insert(0, name)
        content = json.dumps(entry.to_json()).encode()
        await upload_bytes(self.project, f"{folder}/{name}", content, kind=api.ResponseKind.JOURNAL)
        if entry.state not in (EntryState.PROMOTING, EntryState.ROLLING_BACK):
            for old in self.names[KEPT:][:_DELETED_AT_ONCE]:
                try:
                    await api.delete_path(self.project, f"{folder}/{old}")
                except HopsworksError as error:
                    log.info("An old file of the journal was not deleted: %s", error)
                    break
        return True

    def _disable(self, error: HopsworksError) -> None:
        self.is_kept = False
        log.warning(
            "%s Without it the journal is not kept from one run to the next: each run verifies the deployment again, "
            "cannot continue an interrupted change, and may deploy a rejected version again.",
            error,
        )


async def open_journal(project: Project, deployment_name: str) -> Journal:
    """
    Open a deployment's journal and read its newest entry, with two requests.

    If the API key may not read files, the journal is empty and is not written.

    :raises UnexpectedResponseError: the newest entry cannot be read; it may hold an unverified change or a rejection
    """
    journal = Journal(project, deployment_name)
    try:
        try:
            await _read(journal)
        except UnexpectedResponseError:
            log.warning("The journal of deployment %r is not whole; reading it again", deployment_name)
            await Sleep(_READ_AGAIN)
            await _read(journal)
    except RequestRefusedError as error:
        if error.code != SCOPE_MISSING:
            raise
        journal._disable(error)  # noqa: SLF001 - its own module
    return journal


async def read_probe_inputs(project: Project, deployment_name: str, entry_id: str) -> Mapping[str, Any]:
    """
    Read the probe inputs of a change that another process has sent, from its journal entry.

    :param entry_id: the id of the promotion
    :raises SupersededError: another change has been recorded since
    """
    journal = await open_journal(project, deployment_name)
    if journal.newest is None or journal.newest.id != entry_id:
        message = f"Deployment {deployment_name!r}: the journal holds a newer change of another run, which is kept."
        raise SupersededError(message)
    return journal.newest.asked or {}


async def list_files(project: Project, deployment_name: str) -> dict[str, int | None] | None:
    """Return the names of all files in a journal's folder with their sizes; None when there is no folder."""
    folder = f"{FOLDER}/{deployment_name}"
    entries = await all_pages(lambda offset: api.list_folder(project, folder, offset=offset))
    return None if entries is None else {entry.name: entry.size for entry in entries}


def _entries(files: Mapping[str, int | None]) -> dict[str, int | None]:
    """Return the files that hold entries of the journal with their sizes, newest first."""
    return {name: files[name] for name in sorted(files, reverse=True) if _is_ours(name)}


def _is_ours(name: str) -> bool:
    return name.endswith(".json") and name[:8].isdecimal() and name[8:9] == "-"


async def _read(journal: Journal) -> None:
    """Read the list of files and the newest entry."""
    folder = f"{FOLDER}/{journal.deployment_name}"
    files = await list_files(journal.project, journal.deployment_name)
    sizes = _entries(files or {})
    journal.has_folder = files is not None
    journal.has_leases = any(map(is_lease_file, files or ()))
    journal.names = list(sizes)
    if not sizes:
        return
    name, size = next(iter(sizes.items()))
    path = f"{folder}/{name}"
    try:
        journal.newest = await api.read_json(
            journal.project, path, JournalEntry.from_json, size=size, kind=api.ResponseKind.JOURNAL
        )
    except UnexpectedResponseError as error:
        hint = f"If this remains, delete the file {path!r}: the entry before it counts then, and may be out of date."
        raise error.extended(hint) from error
    if journal.newest is None:
        message = f"read {path!r}: the file is listed, and does not exist."
        raise UnexpectedResponseError(message, status=404)
