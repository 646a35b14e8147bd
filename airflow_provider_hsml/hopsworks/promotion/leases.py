"""
The files of leases: read, write and end the leases of temporary deployments, and with them what they hold.

``side_deployment`` says why there are leases, and what the next task does with those of one that died.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.side_deployment import Lease, newest_files
from airflow_provider_hsml.hopsworks.errors import HopsworksError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep, all_pages, read_patiently
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes
from airflow_provider_hsml.hopsworks.rollout.inputs import FIRST_DELAY_START
from airflow_provider_hsml.hopsworks.rollout.status import GoneGoal, StatusWait, wait_until
from airflow_provider_hsml.hopsworks.rollout.stop import send_change

from .journal import FOLDER, list_files

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.flow import Clock
    from airflow_provider_hsml.hopsworks.rollout.inputs import Run

log = logging.getLogger(__name__)

REMOVAL_SECONDS = 300.0
"""Seconds for which the removal of an expired deployment is retried: some servers delete none that is starting."""
_REMOVAL_INTERVAL = 5.0
_READ_AGAIN = 2.0
"""Seconds after which a lease that is not whole is read once more: its task may be writing it."""
_DELETIONS = 3
"""How often the files of a lease are listed and deleted: a deletion may be answered and not carried out."""


async def make_folder(project: Project, live_name: str) -> None:
    """
    Make the folder of leases beside a live deployment, unless it exists.

    :param live_name: the name of the live deployment
    """
    parts = f"{FOLDER}/{live_name}".split("/")
    if not await api.path_exists(project, "/".join(parts)):
        for depth in range(2, len(parts) + 1):
            await api.make_folder(project, "/".join(parts[:depth]))


async def write_file(project: Project, lease: Lease) -> None:
    """Write a state of a lease to a new file."""
    await upload_bytes(project, _path(lease, lease.file_name), json.dumps(lease.to_json()).encode())


async def delete_file(project: Project, lease: Lease) -> None:
    """Delete the file of one state of a lease."""
    await api.delete_path(project, _path(lease, lease.file_name))


def _path(lease: Lease, file_name: str) -> str:
    return f"{FOLDER}/{lease.live_name}/{file_name}"


async def remove_expired(project: Project, live_name: str, clock: Clock) -> list[str]:
    """
    Delete the temporary deployments beside a live one whose leases have expired: their tasks were killed.

    :param live_name: the name of the live deployment
    :param clock: returns the seconds since 1970
    :return: the names of those that were deleted, or were gone already
    :raises HopsworksError: one could not be deleted
    """
    removed = []
    for lease in await read_leases(project, live_name):
        if lease.is_expired(clock()):
            deadline = clock() + REMOVAL_SECONDS
            backoff = Backoff(first=FIRST_DELAY_START, most=_REMOVAL_INTERVAL, deadline=deadline, clock=clock)
            await end_lease(project, lease, backoff)
            removed.append(lease.name)
    return removed


async def remove_of(run: Run, seconds: float) -> None:
    """
    Delete the temporary deployments of a task that is being killed, or of its earlier tries.

    :param run: the run of the task on the live deployment
    :param seconds: how long to retry
    """
    for lease in await read_leases(run.project, run.name):
        if lease.is_of(run.key):
            await end_lease(run.project, lease, run.backoff(FIRST_DELAY_START, run.clock() + seconds), keeps=True)


async def remove_all_expired(project: Project, clock: Clock) -> list[str]:
    """
    Delete the temporary deployments of all deployments of a project whose leases have expired.

    :param clock: returns the seconds since 1970
    :return: the names of those that were deleted, or were gone already
    """
    folders = await all_pages(lambda offset: api.list_folder(project, FOLDER, offset=offset)) or []
    return [
        name for folder in folders if folder.is_folder for name in await remove_expired(project, folder.name, clock)
    ]


async def read_leases(project: Project, live_name: str) -> list[Lease]:
    """
    Read the leases of temporary deployments beside a live one.

    :raises UnexpectedResponseError: a lease cannot be read; it may be in use
    """
    try:
        return await _read_whole_leases(project, live_name)
    except UnexpectedResponseError as error:
        log.warning("%s; reading it again", error)
        await Sleep(_READ_AGAIN)
        return await _read_whole_leases(project, live_name)


async def _read_whole_leases(project: Project, live_name: str) -> list[Lease]:
    leases = []
    for files in newest_files(await list_files(project, live_name) or ()).values():
        path = f"{FOLDER}/{live_name}/{files[0]}"
        try:
            lease = await api.read_json(project, path, Lease.from_json, size=None)
        except UnexpectedResponseError as error:
            hint = f"If this remains, delete the file {path!r}, and the temporary deployment if there is one."
            raise error.extended(hint) from error
        if lease is not None:  # Else its task has ended it meanwhile, or renewed it.
            leases.append(lease)
    return leases


async def end_lease(project: Project, lease: Lease, backoff: Backoff, *, keeps: bool = False) -> bool:
    """
    Delete the deployment of a lease, the documents that were published for it, and the files of the lease.

    :param backoff: how often to retry, and until when
    :param keeps: whether to keep a lease that knows no id if there is no deployment: it may still be created
    :return: whether the lease was ended
    """
    is_deleted = await _delete(project, lease, backoff)
    if keeps and not is_deleted and lease.deployment_id is None:
        log.warning("Deployment %r may still be created; its lease is kept until it expires", lease.name)
        return False
    has_documents = True
    for _ in range(_DELETIONS):
        leases = newest_files(await list_files(project, lease.live_name) or ())
        files = leases.pop(lease.id, [])
        if has_documents and not any(lease.is_beside(other[0]) for other in leases.values()):
            await _delete_documents(project, lease.name, backoff)
            has_documents = False
        if not files:
            break
        # The newest last: as long as a file is left, the lease is known as it was.
        for name in reversed(files):
            await api.delete_path(project, _path(lease, name))
    return True


async def _delete_documents(project: Project, name: str, backoff: Backoff) -> None:
    """Delete the folder of a deployment that is gone. Some servers have done so with the deployment."""
    if await read_patiently(api.get_deployment(project, name, any_case=True), backoff) is not None:
        return
    try:
        await api.delete_path(project, f"Deployments/{name}")
    except HopsworksError as error:
        log.info("The folder of a temporary deployment was not deleted: %s", error)


async def _delete(project: Project, lease: Lease, backoff: Backoff) -> bool:
    """Delete the deployment of a lease, and return whether there was one."""
    while True:
        number, found = lease.deployment_id, None
        if number is not None:
            found = await read_patiently(api.get_deployment_by_id(project, number), backoff)
        if found is None:  # The lease is ended if it is gone, so one answer is not enough.
            found = await read_patiently(api.get_deployment(project, lease.name), backoff)
        if found is None:
            return False
        if not lease.holds(found):
            log.warning("%s is not the temporary deployment of lease %s, and is left as it is", found, lease.id)
            return False
        log.info("Deleting %s, a temporary deployment", found)
        if await send_change(api.delete_deployment(project, found), backoff):
            gone = api.get_deployment_by_id(project, found.id)
            await wait_until(StatusWait(GoneGoal(), backoff, f"deployment {lease.name!r} to be gone", found), gone)
            return True
