"""Wait until a deployment has a status, and explain failures with the end of its log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from airflow_provider_hsml.hopsworks.api import Call, Project, get_deployment, get_logs
from airflow_provider_hsml.hopsworks.domain.deployment import Condition, Deployment, DeploymentStatus
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import FailureTracker
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    DeploymentFailedError,
    HopsworksError,
    SupersededError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Flow, Sleep, T, log, read_patiently

LOG_TAIL = 20
"""Lines of each instance's log that the message of a failure carries."""


class Goal(Protocol):
    """What is waited for."""

    def reached(self, deployment: Deployment | None, now: float) -> bool:
        """
        Judge one look.

        :param deployment: what was seen; None when there is no such deployment
        :param now: seconds since 1970
        :raises DeploymentError: it cannot be reached any more
        """


@dataclass(slots=True)
class StatusGoal:
    """The goal of being in one of some states."""

    name: str
    """The deployment's."""
    statuses: frozenset[DeploymentStatus]
    failed: FailureTracker = field(default_factory=FailureTracker)

    @classmethod
    def of(cls, name: str, *statuses: DeploymentStatus) -> StatusGoal:
        """
        Make the goal, with what counts as the same: Idle as Running, Created as Stopped.

        :param name: the deployment's name
        :param statuses: the states, one of which is enough
        """
        desired = set(statuses)
        desired |= {DeploymentStatus.IDLE} if DeploymentStatus.RUNNING in desired else set()
        desired |= {DeploymentStatus.CREATED} if DeploymentStatus.STOPPED in desired else set()
        return cls(name, frozenset(desired))

    def reached(self, deployment: Deployment | None, now: float) -> bool:
        """
        Judge one look.

        :param deployment: what was seen
        :param now: seconds since 1970
        :raises SupersededError: it was deleted
        :raises DeploymentFailedError: it is Failed and stays so
        """
        if deployment is None:
            message = f"Deployment {self.name!r} was deleted while it was waited for."
            raise SupersededError(message)
        if deployment.status in self.statuses:
            return True
        if self.failed.stays(deployment, now):
            raise DeploymentFailedError(deployment)
        return False


class GoneGoal:
    """The goal of not being there."""

    def reached(self, deployment: Deployment | None, now: float) -> bool:  # noqa: ARG002 - asked of every goal
        """
        Judge one look.

        :param deployment: what was seen
        :param now: not needed
        """
        return deployment is None


@dataclass(slots=True)
class StatusWait:
    """A goal, how often to look for it, and until when."""

    goal: Goal
    backoff: Backoff
    what: str
    """What is waited for, for the message when it does not come: "deployment 'digits' to stop"."""
    seen: Deployment | None = None
    _begun: float | None = None
    _said: str = ""

    def pause_after(self, deployment: Deployment | None) -> float | None:
        """
        Judge a look.

        :param deployment: what was seen; None when there is no such deployment
        :return: seconds before the next look; None when the goal is reached
        :raises DeploymentError: it cannot be reached any more
        :raises DeadlineExceededError: the deadline has passed
        """
        now = self.backoff.clock()
        self._begun = now if self._begun is None else self._begun
        self._said = log_change(self._said or describe_state(self.seen), deployment, now - self._begun)
        self.seen = deployment
        if self.goal.reached(deployment, now):
            return None
        pause = self.backoff.next_delay()
        if pause is None:
            state = f"now: {deployment}, {deployment.reason or 'no reason given'}" if deployment else "it is not there"
            message = f"Waited for {self.what} until the timeout; {state}."
            raise DeadlineExceededError(message)
        return pause


async def wait_until(wait: StatusWait, look: Call[Deployment | None]) -> Deployment | None:
    """
    Look until a goal is reached. The first look is at once.

    :param wait: the goal
    :param look: how to look
    :return: what was seen last
    """
    while True:
        deployment = await read_patiently(look, wait.backoff)
        pause = wait.pause_after(deployment)
        if pause is None:
            return deployment
        await Sleep(pause)


async def poll_failed(project: Project, goal: StatusGoal, backoff: Backoff) -> Deployment | None:
    """
    Look once; at a Failed for as long as it takes to know whether it stays.

    :param project: the deployment's project
    :param goal: the goal
    :param pace: how often to look at a Failed
    :return: the deployment when the goal is reached, else None
    """
    while True:
        deployment = await get_deployment(project, goal.name)
        if goal.reached(deployment, backoff.clock()):
            return deployment
        pause = backoff.next_delay()
        if deployment is None or deployment.status is not DeploymentStatus.FAILED or pause is None:
            return None
        await Sleep(pause)


async def with_log_tail(project: Project, flow: Flow[T]) -> T:
    """
    Run a procedure, and put the end of the log into its error where a deployment failed.

    :param project: the deployment's project
    :param procedure: what to run
    """
    try:
        return await flow
    except DeploymentFailedError as error:
        component = error.deployment.failed_component
        try:
            logs = await get_logs(project, error.deployment, component=component, tail=LOG_TAIL)
        except HopsworksError as unread:
            log.warning("%s", unread)
            raise error from None
        tail = [
            line
            for instance in logs or []
            for line in (f"[{instance.instance}]", *instance.content.splitlines()[-LOG_TAIL:])
        ]
        raise DeploymentFailedError(error.deployment, log_tail=tail) from None


def describe_state(deployment: Deployment | None) -> str:
    """
    Give what is worth a line in the log when it changes; empty where there is nothing.

    :param deployment: what was seen
    """
    if deployment is None:
        return ""
    condition = deployment.condition or Condition("")
    return f"{deployment.status.value} {condition.type} {condition.status}"


def log_change(said: str, now: Deployment | None, seconds: float) -> str:
    """
    Say once in the log what changed between two looks.

    :param said: the state that was said last
    :param now: what is seen
    :param seconds: since the wait began
    :return: the state that is said now
    """
    state = describe_state(now)
    if now is not None and state != said:
        after = f" (after {seconds:.0f} s)" if seconds >= 1 else ""
        log.info("%s%s%s", now, f": {now.reason}" if now.reason else "", after)
    return state or said
