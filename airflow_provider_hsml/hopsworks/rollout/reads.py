"""
Reads of a deployment that was read before.

Every change of a deployment is noticed by comparing two reads, so a single read that lacks something would look like
another client's change. Two rules keep it from that:

1. A version or a revision that was known never becomes null: such a read is unreadable, and is retried like one. So is
   any read without a status (``api.get_deployment``).
2. Settings may become null. A read that is surprising is confirmed by up to two more, a second apart.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.domain import diff
from airflow_provider_hsml.hopsworks.domain.deployment import check_kept
from airflow_provider_hsml.hopsworks.flow import Sleep, read_patiently

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.api import Call
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.project import Project
    from airflow_provider_hsml.hopsworks.flow import Backoff, Flow

MORE_READS = 2
"""Reads that confirm a surprising one."""
BETWEEN_READS = 1.0
"""Seconds before each of them."""


async def read_again(call: Call[Deployment | None], backoff: Backoff, was: Deployment | None) -> Deployment | None:
    """
    Read a deployment, and retry until the deadline while the server is unavailable or leaves out what was known.

    :param call: the read
    :param backoff: how often and until when
    :param was: the deployment as it was read before; None if it was not
    """
    check = None if was is None else functools.partial(check_kept, was.id, was.signature)
    return await read_patiently(call, backoff, check)


async def confirmed(
    found: Deployment | None,
    is_surprising: Callable[[Deployment], bool],
    read: Callable[[], Flow[Deployment | None]],
) -> Deployment | None:
    """
    Read a surprising deployment again, and return the first read that is not; else the last one.

    :param found: the deployment as it was just read
    :param is_surprising: whether a read says something that one read alone does not prove
    :param read: reads the deployment
    """
    for _ in range(MORE_READS):
        if found is None or not is_surprising(found):
            break
        await Sleep(BETWEEN_READS)
        found = await read()
    return found


async def confirm_model(
    found: Deployment | None, model_version: int | None, read: Callable[[], Flow[Deployment | None]]
) -> Deployment | None:
    """
    Read a deployment again if it lacks the model version that it had.

    :param found: the deployment as it was just read
    :param model_version: of an earlier read; None if it had none, or if that is not known
    :param read: reads the deployment
    """
    return await confirmed(found, lambda now: model_version is not None and now.model_version is None, read)


async def unchanged(
    project: Project, found: Deployment | None, was: Deployment, read: Callable[[], Flow[Deployment | None]]
) -> Deployment | None:
    """
    Return a deployment as it was read last if it is unchanged since an earlier read; None if it is not, or is gone.

    It is read again if its settings differ from the earlier read, and its version and revision do not.

    :param project: the deployment's project
    :param found: the deployment as it was just read; None if it does not exist
    :param was: the deployment as it was read before
    :param read: reads the deployment
    """

    def is_surprising(now: Deployment) -> bool:
        is_same = (now.id, now.signature) == (was.id, was.signature)
        return is_same and not diff.is_unchanged(project, now, was)

    now = await confirmed(found, is_surprising, read)
    return now if now is not None and diff.is_unchanged(project, now, was) else None
