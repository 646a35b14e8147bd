"""
What has to be remembered of a deployment's promotions from task to task: a small journal in the project's own files.

A worker that is killed between a change and its verification leaves a version that nobody has verified; a rejected one
is the best by its metric again tomorrow; and before Hopsworks 5.2 nobody else remembers what was there before. So each
promotion notes what it is about to do, and how it ended: each time in a new file, of which the newest counts. Values of
environment variables are never written down.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry
from airflow_provider_hsml.hopsworks.errors import SCOPE_MISSING, HopsworksError, RequestRefusedError, SupersededError
from airflow_provider_hsml.hopsworks.flow import Backoff, read_patiently
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project

log = logging.getLogger(__name__)

FOLDER = "Resources/airflow-provider-hsml/journal"
KEPT = 20
"""Files of a deployment that are not deleted when a promotion ends."""
_DELETED_AT_ONCE = 3
_READ_AT_MOST = 5
"""Files that cannot be read before the journal is taken for an empty one."""


@dataclass(slots=True)
class Journal:
    """The journal of one deployment, as it was when it was opened."""

    project: Project
    deployment_name: str
    names: list[str] = field(default_factory=list)
    """Its files, newest first."""
    newest: JournalEntry | None = None
    is_kept: bool = True
    """Whether the key may write it; without, nothing is remembered."""
    has_folder: bool = False

    async def write(self, entry: JournalEntry, backoff: Backoff | None = None) -> None:
        """
        Write a new entry. One with which a promotion ends also has old ones deleted.

        One that does not begin a change is left out when another run has written since this was opened: what that
        one has begun, and not verified, is to stay the newest.

        :param entry: the entry
        :param pace: how long to try; None: it has to be written now
        :raises HopsworksError: it cannot be written; with a pace it is only warned about
        """
        if self.is_kept:
            try:
                await self._write(entry)
            except HopsworksError as error:
                if isinstance(error, RequestRefusedError) and error.code == SCOPE_MISSING:
                    self._give_up(error)
                elif backoff is None:
                    raise
                else:
                    await self._try_again(entry, error, backoff)
        self.newest = entry

    async def _try_again(self, entry: JournalEntry, error: HopsworksError, backoff: Backoff) -> None:
        call = api.path_exists(self.project, "Resources")
        try:
            if not error.transient:
                raise error
            await read_patiently(call, backoff)
            await self._write(entry)
        except HopsworksError as last:
            log.warning("%s; the next run verifies deployment %r again", last, self.deployment_name)

    async def _write(self, entry: JournalEntry) -> None:
        folder = f"{FOLDER}/{self.deployment_name}"
        if not self.has_folder:
            for path in (FOLDER.rpartition("/")[0], FOLDER, folder):
                await api.make_folder(self.project, path)
            self.has_folder = True
        begins = entry.state is EntryState.PROMOTING
        there = await _list(self.project, folder)
        if not begins and set(there or ()) - set(self.names):
            log.warning("Deployment %r: another run has noted something meanwhile, which counts", self.deployment_name)
            return
        # Two runs at once may take the same number: then a change that begins is newer than one that ends.
        number = 1 + max((int(name[:8]) for name in (*self.names, *(there or ()))), default=0)
        name = f"{number:08d}-{'b' if begins else 'a'}{uuid.uuid4().hex[:8]}.json"
        self.names.insert(0, name)
        await upload_bytes(self.project, f"{folder}/{name}", json.dumps(entry.to_json()).encode())
        if entry.state not in (EntryState.PROMOTING, EntryState.ROLLING_BACK):
            for old in self.names[KEPT:][:_DELETED_AT_ONCE]:
                try:
                    await api.delete_path(self.project, f"{folder}/{old}")
                except HopsworksError as error:
                    log.info("An old file of the journal stays: %s", error)
                    return

    def _give_up(self, error: HopsworksError) -> None:
        self.is_kept = False
        log.warning(
            "%s Without it, what is verified, rejected or half done is not remembered from one run to the next: it is "
            "verified each time, and a version that failed is tried again.",
            error,
        )


async def open_journal(project: Project, deployment_name: str) -> Journal:
    """
    Read the newest entry of a deployment's journal: two requests, unless files in it are broken.

    :param project: the deployment's project
    :param deployment_name: the deployment's name
    """
    journal = Journal(project, deployment_name)
    folder = f"{FOLDER}/{deployment_name}"
    try:
        names = await _list(project, folder)
        journal.has_folder = names is not None
        journal.names = names or []
        for name in journal.names[:_READ_AT_MOST]:
            content = await api.download(project, f"{folder}/{name}")
            journal.newest = _read(content, name)
            if journal.newest is not None:
                break
    except RequestRefusedError as error:
        if error.code != SCOPE_MISSING:
            raise
        journal._give_up(error)  # noqa: SLF001 - its own module
    return journal


async def read_probe_inputs(project: Project, deployment_name: str, entry_id: str) -> Mapping[str, Any]:
    """
    Read what verifies a change that another process has made.

    :param project: the deployment's project
    :param deployment_name: the deployment's name
    :param entry_id: the change
    :raises SupersededError: another change has been noted since
    """
    journal = await open_journal(project, deployment_name)
    if journal.newest is None or journal.newest.id != entry_id:
        message = f"Deployment {deployment_name!r}: the journal holds another change meanwhile, which is kept."
        raise SupersededError(message)
    return journal.newest.asked or {}


async def _list(project: Project, folder: str) -> list[str] | None:
    """Give the journal's files, newest first; None: there is no such folder."""
    names = await api.list_folder(project, folder)
    return None if names is None else sorted(filter(_is_ours, names), reverse=True)


def _is_ours(name: str) -> bool:
    return name.endswith(".json") and name[:8].isdecimal() and name[8:9] == "-"


def _read(content: bytes | None, name: str) -> JournalEntry | None:
    try:
        return JournalEntry.from_json(json.loads(content or b""))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.warning("The journal's file %r cannot be read, and the one before it is taken: %r", name, error)
        return None
