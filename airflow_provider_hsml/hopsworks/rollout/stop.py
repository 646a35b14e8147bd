"""Stopping and deleting deployments, in whatever state they are."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus as Status
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.flow import Backoff, Defer, read_patiently

from .reads import read_again
from .status import GoneGoal, StatusWait, wait_until

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Call, Project

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StopWait(Defer[Deployment | None]):
    """The wait for a deployment to stop."""

    project: Project
    name: str
    backoff: Backoff
    seen: Deployment

    async def run(self) -> Deployment | None:
        """Wait until the deployment is stopped or gone."""
        wait = StatusWait(_Down(), self.backoff, f"deployment {self.name!r} to stop", self.seen)
        return await wait_until(wait, api.get_deployment(self.project, self.name))


async def stop(
    project: Project, name: str, backoff: Backoff, *, wait: bool = True, known: Deployment | None = None
) -> Deployment | None:
    """
    Stop a deployment, in whatever state it is. Do nothing if it is stopped or does not exist.

    :param backoff: the pauses between reads, and the deadline
    :param wait: whether to wait until the deployment is stopped
    :param known: the deployment as it was read before, if it was
    :return: the state that was read last; None when there is no such deployment
    """
    read = api.get_deployment(project, name)
    while True:
        deployment = known = await read_again(read, backoff, known)
        if deployment is None or deployment.status.is_down:
            return deployment
        if deployment.status is not Status.STOPPING:
            log.info("Stopping %s", deployment)
            if not await send_change(api.stop_deployment(project, deployment), backoff):
                continue
        if not wait:
            return await read_again(read, backoff, known)
        return await StopWait(project, name, backoff, deployment)


async def delete(project: Project, name: str, backoff: Backoff, *, force: bool = False) -> Deployment | None:
    """
    Delete a deployment and wait until it is gone. Do nothing if it does not exist.

    :param backoff: the pauses between reads, and the deadline
    :param force: also delete a deployment that is neither Created nor Stopped
    :return: the state before; None when there was no deployment
    :raises InvalidInputError: the deployment runs, and ``force`` is not set
    """
    read = api.get_deployment(project, name)
    before = deployment = await read_patiently(read, backoff)
    while deployment is not None:
        if not (force or deployment.status.is_down):
            message = f"{deployment} is not stopped.\nStop it first, or set force=True to delete it while it runs."
            raise InvalidInputError(message)
        log.info("Deleting %s", deployment)
        if await send_change(api.delete_deployment(project, deployment), backoff):
            await wait_until(StatusWait(GoneGoal(), backoff, f"deployment {name!r} to be gone", deployment), read)
            break
        deployment = await read_patiently(read, backoff)
    return before


async def send_change(call: Call[None], backoff: Backoff) -> bool:
    """
    Send a change, and return whether the server accepted it. If not, or if this is unknown, pause before returning.

    After False, read the deployment before sending anything again.

    :raises DeadlineExceededError: the deadline has passed
    """
    try:
        await call
    except HopsworksError as error:
        if not (error.outcome_unknown or error.transient):
            raise
        log.warning("%s; checking the deployment again", error)
        await backoff.wait(f"Gave up at the timeout: {error}", at_least=max(1.0, error.retry_after or 0.0))
        return False
    return True


class _Down:
    """The goal of a deployment that is stopped or gone."""

    def reached(self, deployment: Deployment | None, now: float) -> bool:  # noqa: ARG002 - asked of every goal
        return deployment is None or deployment.status.is_down
