"""Restarting a deployment, so that what served before serves afterwards."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus as Status
from airflow_provider_hsml.hopsworks.domain.settings import RESTART
from airflow_provider_hsml.hopsworks.errors import HopsworksError, UnsupportedError, VerificationError
from airflow_provider_hsml.hopsworks.flow import Backoff, Flow, Sleep, read_patiently

from . import stop
from .reconcile import Reconciler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
    from airflow_provider_hsml.hopsworks.flow import Clock

log = logging.getLogger(__name__)

STALE = 3.0
"""Seconds for which a state may still be that of before our STOP."""


async def restart(
    project: Project, name: str, *, timeout: float, interval: float, wait: bool = True, clock: Clock = time.time
) -> Outcome:
    """
    Stop a deployment and start it; one that is down is only started.

    :param project: the deployment's project
    :param name: the deployment's name
    :param timeout: seconds for the stop, and again for the start
    :param interval: seconds between looks
    :param wait: whether to wait until it serves; the stop is waited for in any case
    :param clock: tells the seconds since 1970
    """
    backoff = Backoff(first=0.5, most=interval, deadline=clock() + timeout, clock=clock)
    before = await read_patiently(api.get_deployment(project, name), backoff)
    await stop.stop(project, name, backoff)
    told = {} if before is None or before.status.is_down else {"stopped_while": before.status.value}
    arrival = Reconciler(project, name, {}, timeout=timeout, interval=interval, wait=wait, told=told, clock=clock)
    return await completed(arrival.run(), told)


async def rolling_restart(
    project: Project, name: str, *, timeout: float, interval: float, wait: bool = True, clock: Clock = time.time
) -> Outcome:
    """
    Replace a deployment's instances while the old ones answer; one that is down is only started.

    Hopsworks has no such command, and an update that changes nothing does nothing: so an environment variable is
    changed that nobody reads.

    :param project: the deployment's project
    :param name: the deployment's name
    :param timeout: seconds until the new instances must serve
    :param interval: seconds between looks
    :param wait: whether to wait until they do
    :param clock: tells the seconds since 1970
    :raises UnsupportedError: this Hopsworks keeps no environment variables; nothing was changed
    :raises VerificationError: the change was stored, and no rollout followed
    """
    backoff = Backoff(first=0.5, most=interval, deadline=clock() + timeout, clock=clock)
    before = await read_patiently(api.get_deployment(project, name), backoff)
    is_up = before is not None and not before.status.is_down
    now = datetime.fromtimestamp(clock(), UTC).isoformat(timespec="microseconds")
    desired = {RESTART.name: now} if is_up else {}
    told = {"revision": before.revision} if is_up and before is not None else {}
    arrival = Reconciler(project, name, desired, timeout=timeout, interval=interval, wait=wait, told=told, clock=clock)
    try:
        return await completed(arrival.run(), told)
    except UnsupportedError as error:
        message = (
            f"{before}: this Hopsworks cannot restart it without a stop, since it keeps no environment variables (4.8 "
            "and later do). Nothing was changed. Restart it with rolling=False."
        )
        raise UnsupportedError(message) from error


async def completed(arriving: Flow[Outcome], told: Mapping[str, Any]) -> Outcome:
    """
    See a start or a restart to its end.

    :param arriving: how the deployment arrives
    :param told: what was known of it before
    :raises VerificationError: the change was stored, and no rollout followed
    """
    try:
        arrived = await arriving
    except HopsworksError as error:
        if "stopped_while" in told:
            # Its kind, and what hangs on it, stay as they are: only its words grow.
            error.args = (f"{error}\nIt was {told['stopped_while']} before this restart stopped it.",)
        raise
    if "revision" in told and arrived.deployment.revision == told["revision"]:
        message = f"{arrived.deployment}: no new rollout followed. Restart it with rolling=False."
        raise VerificationError(message)
    return arrived


async def start_again(project: Project, name: str, backoff: Backoff) -> None:
    """
    Start what a restart has left stopped or stopping, without waiting until it serves.

    :param project: the deployment's project
    :param name: the deployment's name
    :param pace: how often to look, and until when
    """
    begun = backoff.clock()
    while True:
        deployment = await api.get_deployment(project, name)
        if deployment is not None and deployment.status.is_down:
            log.warning("%s was left down by a restart that did not end; starting it", deployment)
            await api.start_deployment(project, deployment)
            return
        pause = backoff.next_delay()
        is_stopping = deployment is not None and deployment.status is Status.STOPPING
        if pause is None or not (is_stopping or backoff.clock() - begun < STALE):
            return
        await Sleep(pause)
