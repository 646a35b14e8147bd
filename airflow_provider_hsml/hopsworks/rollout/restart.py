"""Restarts of a deployment, with or without a stop. The same version serves before and after."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus as Status
from airflow_provider_hsml.hopsworks.domain.settings import RESTART
from airflow_provider_hsml.hopsworks.errors import HopsworksError, UnsupportedError, VerificationError
from airflow_provider_hsml.hopsworks.flow import Backoff, Flow, read_patiently

from . import inputs, stop
from .inputs import Desired, ResumePoint, RolloutPolicy
from .reconcile import Reconciler, reconcile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome

    from .inputs import Run

log = logging.getLogger(__name__)

STALE = 3.0
"""Seconds after our STOP during which a read may still return the state before it."""


async def restart(run: Run, *, wait: bool = True) -> Outcome:
    """
    Stop a deployment and start it again. Only start it if it is stopped.

    :param run: the run; its timeout applies to the stop, and again to the start
    :param wait: whether to wait until the deployment serves; the wait for the stop is not optional
    """
    backoff = run.backoff(inputs.FIRST_DELAY_START)
    before = await read_patiently(api.get_deployment(run.project, run.name), backoff)
    await stop.stop(run.project, run.name, backoff)
    context = {} if before is None or before.status.is_down else {"stopped_while": before.status.value}
    return await _restarted(run, Desired({}), context, wait=wait)


async def rolling_restart(run: Run, *, wait: bool = True) -> Outcome:
    """
    Replace a deployment's instances while the old ones still answer. Only start it if it is stopped.

    Hopsworks has no such command, and an update without a change has no effect. So this changes an environment variable
    that no program reads.

    :param wait: whether to wait until the new instances serve
    :raises UnsupportedError: this Hopsworks keeps no environment variables; nothing was changed
    :raises VerificationError: the change was stored, and no rollout followed
    """
    before = await read_patiently(api.get_deployment(run.project, run.name), run.backoff(inputs.FIRST_DELAY_START))
    is_up = before is not None and not before.status.is_down
    now = datetime.fromtimestamp(run.clock(), UTC).isoformat(timespec="microseconds")
    context = {"revision": before.revision} if is_up and before is not None else {}
    try:
        return await _restarted(run, Desired({RESTART.name: now} if is_up else {}), context, wait=wait)
    except UnsupportedError as error:
        message = (
            f"{before}: this Hopsworks cannot restart it without a stop, since it keeps no environment variables (4.8 "
            "and later do). Nothing was changed.\nRestart it with rolling=False."
        )
        raise UnsupportedError(message) from error


async def _restarted(run: Run, desired: Desired, context: Mapping[str, Any], *, wait: bool) -> Outcome:
    resume = ResumePoint(context=context)
    reconciler = Reconciler(run, desired, RolloutPolicy(wait=wait), resume=resume)
    return await check_restarted(reconcile(reconciler), context)


async def check_restarted(flow: Flow[Outcome], context: Mapping[str, Any]) -> Outcome:
    """
    Wait for a start or a restart, and check that a rollout followed.

    :param flow: the start, or the rest of one whose long wait was deferred
    :param context: the state of the deployment before, from ``ResumePoint.context``
    :raises VerificationError: the change was stored, and no rollout followed
    """
    try:
        outcome = await flow
    except HopsworksError as error:
        if "stopped_while" not in context:
            raise
        raise error.extended(f"It was {context['stopped_while']} before this restart stopped it.") from error.__cause__
    if "revision" in context and outcome.deployment.revision == context["revision"]:
        message = f"{outcome.deployment}: no new rollout followed the change.\nRestart it with rolling=False."
        raise VerificationError(message)
    return outcome


async def start_if_left_stopped(project: Project, name: str, backoff: Backoff) -> None:
    """
    Start a deployment that an interrupted restart has left stopped or stopping. Do not wait until it serves.

    :param backoff: the pauses between attempts, and the deadline
    :raises DeadlineExceededError: it could not be started by the deadline
    """
    begun = backoff.clock()
    while True:
        deployment = await read_patiently(api.get_deployment(project, name), backoff)
        if deployment is not None and deployment.status.is_down:
            log.warning("%s was left stopped by an interrupted restart; starting it", deployment)
            if await stop.send_change(api.start_deployment(project, deployment), backoff):
                return
            continue
        is_stopping = deployment is not None and deployment.status is Status.STOPPING
        if not (is_stopping or backoff.clock() - begun < STALE):
            return
        await backoff.wait(f"{deployment} did not stop in time.")
