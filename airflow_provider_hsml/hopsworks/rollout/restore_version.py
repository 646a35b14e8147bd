"""
The one request that activates an earlier deployment version, where Hopsworks keeps versions (5.2 and later).

``promotion/rollback.py`` is the manual rollback that a person asks for, and ``promotion/way_back.py`` the automatic way
back of a failed change. Both may send this request.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import HopsworksError, SupersededError

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Backoff

    from .update import Update

log = logging.getLogger(__name__)


async def restore_version(update: Update, live: Deployment, version: int, backoff: Backoff) -> Deployment:
    """
    Send a rollback until the version is the active one; Hopsworks accepts it also while a rollout is in progress.

    :param update: reads the deployment
    :param live: the deployment
    :param version: the deployment version to activate
    :param backoff: how often to retry, and until when
    :return: the deployment, with that version active
    :raises SupersededError: another client changed or deleted the deployment meanwhile
    :raises DeadlineExceededError: the version was not active by the deadline
    """
    run = update.run
    while True:
        log.info("Rolling %s back to deployment version %s", live, version)
        try:
            await api.rollback_deployment(run.project, live, version)
        except HopsworksError as error:
            if not (error.outcome_unknown or error.transient):
                raise
            log.warning("%s; checking whether it was carried out", error)
            if error.outcome_unknown:
                update.on_sent(True)
        else:
            update.on_sent(True)
        now = await update.read(live)
        if now is None:
            message = f"{live} was deleted by another client while it was rolled back."
            raise SupersededError(message)
        if now.version == version:
            return now
        if not now.continues(live.signature):
            message = f"{now} was changed by another client while it was rolled back; their change is kept."
            raise SupersededError(message)
        too_late = f"{live} could not be rolled back to deployment version {version} within {run.timeout:g} s."
        await backoff.wait(too_late, at_least=1.0)
