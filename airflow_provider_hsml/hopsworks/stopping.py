"""Taking deployments down: stop and delete, whatever state they are in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from . import calls
from .deployments import DeploymentStatus as Status
from .errors import HopsworksError, InvalidInput, NotInTime
from .waiting import Gone, Pace, Pause, Procedure, Wait, ask, patiently, until

if TYPE_CHECKING:
    from .calls import Project
    from .deployments import Deployment

log = logging.getLogger(__name__)


def stop(project: Project, name: str, pace: Pace, *, wait: bool = True) -> Procedure[Deployment | None]:
    """
    Stop a deployment, whatever state it is in. One that is stopped, or not there, is fine as it is.

    :param project: the deployment's project
    :param name: the deployment's name
    :param pace: how often to look, and until when
    :param wait: whether to wait until it is stopped
    :return: as it was seen last; None when there is no such deployment
    """
    look = calls.get_deployment(project, name)
    while True:
        deployment = yield from patiently(look, pace)
        if deployment is None or deployment.status.is_down:
            return deployment
        if deployment.status is not Status.STOPPING:
            log.info("Stopping %s", deployment)
            try:
                yield from ask(calls.stop_deployment(project, deployment))
            except HopsworksError as error:
                if not (error.in_doubt or error.transient):
                    raise
                log.warning("%s; looking again", error)
                pause = pace.pause(at_least=1.0)
                if pause is None:
                    message = f"{deployment} could not be stopped until the timeout: {error}"
                    raise NotInTime(message) from error
                yield Pause(pause)
                continue
        if not wait:
            return (yield from patiently(look, pace))
        down = yield from until(Wait(_Down(name), pace, f"deployment {name!r} to stop", deployment), look)
        return down


class _Down:
    """The goal of being stopped, or gone."""

    def __init__(self, name: str) -> None:
        self.name = name

    def reached(self, deployment: Deployment | None, now: float) -> bool:  # noqa: ARG002 - a goal is asked with the time
        return deployment is None or deployment.status.is_down


def delete(project: Project, name: str, pace: Pace, *, force: bool = False) -> Procedure[Deployment | None]:
    """
    Delete a deployment and wait until it is gone. One that is not there is deleted already.

    :param project: the deployment's project
    :param name: the deployment's name
    :param pace: how often to look, and until when
    :param force: delete it also when it is neither Created nor Stopped
    :return: as it was before; None when there was none
    :raises InvalidInput: it runs, and ``force`` was not given
    """
    look = calls.get_deployment(project, name)
    before = deployment = yield from patiently(look, pace)
    while deployment is not None:
        if not (force or deployment.status.is_down):
            message = f"{deployment} is not stopped. Stop it first, or give force=True to delete it as it is."
            raise InvalidInput(message)
        try:
            yield from ask(calls.delete_deployment(project, deployment))
        except HopsworksError as error:
            if not (error.in_doubt or error.transient):
                raise
            log.warning("%s; looking again", error)
            pause = pace.pause(at_least=1.0)
            if pause is None:
                message = f"{deployment} could not be deleted until the timeout: {error}"
                raise NotInTime(message) from error
            yield Pause(pause)
            deployment = yield from patiently(look, pace)
        else:
            deployment = yield from until(Wait(Gone(), pace, f"deployment {name!r} to be gone", deployment), look)
    return before
