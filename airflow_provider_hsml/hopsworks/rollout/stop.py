"""Taking deployments down: stop and delete, whatever state they are in."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus as Status
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.flow import Backoff, Defer, read_patiently

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
        """Wait; one that is gone is stopped."""
        wait = StatusWait(_Down(), self.backoff, f"deployment {self.name!r} to stop", self.seen)
        return await wait_until(wait, api.get_deployment(self.project, self.name))


async def stop(project: Project, name: str, backoff: Backoff, *, wait: bool = True) -> Deployment | None:
    """
    Stop a deployment, whatever state it is in. One that is stopped, or not there, is fine as it is.

    :param project: the deployment's project
    :param name: the deployment's name
    :param pace: how often to look, and until when
    :param wait: whether to wait until it is stopped
    :return: as it was seen last; None when there is no such deployment
    """
    look = api.get_deployment(project, name)
    while True:
        deployment = await read_patiently(look, backoff)
        if deployment is None or deployment.status.is_down:
            return deployment
        if deployment.status is not Status.STOPPING:
            log.info("Stopping %s", deployment)
            if not await _taken(api.stop_deployment(project, deployment), backoff):
                continue
        if not wait:
            return await read_patiently(look, backoff)
        return await StopWait(project, name, backoff, deployment)


async def delete(project: Project, name: str, backoff: Backoff, *, force: bool = False) -> Deployment | None:
    """
    Delete a deployment and wait until it is gone. One that is not there is deleted already.

    :param project: the deployment's project
    :param name: the deployment's name
    :param pace: how often to look, and until when
    :param force: delete it also when it is neither Created nor Stopped
    :return: as it was before; None when there was none
    :raises InvalidInputError: it runs, and ``force`` was not given
    """
    look = api.get_deployment(project, name)
    before = deployment = await read_patiently(look, backoff)
    while deployment is not None:
        if not (force or deployment.status.is_down):
            message = f"{deployment} is not stopped. Stop it first, or give force=True to delete it as it is."
            raise InvalidInputError(message)
        log.info("Deleting %s", deployment)
        if await _taken(api.delete_deployment(project, deployment), backoff):
            await wait_until(StatusWait(GoneGoal(), backoff, f"deployment {name!r} to be gone", deployment), look)
            break
        deployment = await read_patiently(look, backoff)
    return before


async def _taken(call: Call[None], backoff: Backoff) -> bool:
    """
    Send a change; tell whether it was taken. When it was not, or may not have been, pause: then it is time to look.

    :raises DeadlineExceededError: the deadline has passed
    """
    try:
        await call
    except HopsworksError as error:
        if not (error.in_doubt or error.transient):
            raise
        log.warning("%s; checking the deployment again", error)
        await backoff.wait(f"Gave up at the timeout: {error}", at_least=1.0)
        return False
    return True


class _Down:
    """The goal of being stopped, or gone."""

    def reached(self, deployment: Deployment | None, now: float) -> bool:  # noqa: ARG002 - asked of every goal
        return deployment is None or deployment.status.is_down
