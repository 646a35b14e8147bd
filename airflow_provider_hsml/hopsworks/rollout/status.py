"""Wait until a deployment has a status, and explain failures with the end of its log."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Protocol

from airflow_provider_hsml.hopsworks.api import Call, Project, get_deployment, get_logs
from airflow_provider_hsml.hopsworks.domain.deployment import Condition, Deployment, DeploymentStatus
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import FailureTracker
from airflow_provider_hsml.hopsworks.errors import (
    DeploymentFailedError,
    HopsworksError,
    SupersededError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Flow, Sleep, T

from .reads import read_again

log = logging.getLogger(__name__)

LOG_TAIL = 20
"""Lines of each instance's log that the message of a failure carries."""


class Goal(Protocol):
    """The goal of a wait."""

    def reached(self, deployment: Deployment | None, now: float) -> bool:
        """
        Evaluate one poll, and return whether the goal is reached.

        :param deployment: None when the deployment does not exist
        :param now: seconds since 1970
        :raises DeploymentError: the goal cannot be reached any more
        """


@dataclass(slots=True)
class StatusGoal:
    """The goal that a deployment has one of several statuses."""

    name: str
    """The deployment's name."""
    statuses: frozenset[DeploymentStatus]
    failed: FailureTracker = field(default_factory=FailureTracker)

    @classmethod
    def of(cls, name: str, *statuses: DeploymentStatus) -> StatusGoal:
        """
        Build the goal. Idle counts as Running, and Created as Stopped.

        :param statuses: one of these is enough
        """
        desired = set(statuses)
        desired |= {DeploymentStatus.IDLE} if DeploymentStatus.RUNNING in desired else set()
        desired |= {DeploymentStatus.CREATED} if DeploymentStatus.STOPPED in desired else set()
        return cls(name, frozenset(desired))

    def reached(self, deployment: Deployment | None, now: float) -> bool:
        """
        Evaluate one poll, and return whether the goal is reached.

        :param now: seconds since 1970
        :raises SupersededError: the deployment was deleted
        :raises DeploymentFailedError: the deployment stays Failed
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
    """The goal that a deployment does not exist."""

    def reached(self, deployment: Deployment | None, now: float) -> bool:  # noqa: ARG002 - part of the protocol
        """Return whether the deployment is gone."""
        return deployment is None


@dataclass(slots=True)
class StatusWait:
    """A wait for a goal, with the backoff of its polls. Run it with ``wait_until``."""

    goal: Goal
    backoff: Backoff
    what: str
    """The goal, for the message at the timeout: "deployment 'digits' to stop"."""
    seen: Deployment | None = None
    """The deployment as it was read last."""
    _begun: float | None = None
    _last_logged: str = ""

    def evaluate(self, deployment: Deployment | None) -> bool:
        """
        Evaluate one poll, and return whether the goal is reached.

        :param deployment: None when the deployment does not exist
        :raises DeploymentError: the goal cannot be reached any more
        """
        now = self.backoff.clock()
        self._begun = now if self._begun is None else self._begun
        self._last_logged = log_change(self._last_logged or describe_state(self.seen), deployment, now - self._begun)
        self.seen = deployment
        return self.goal.reached(deployment, now)

    @property
    def too_late(self) -> str:
        """The message for the timeout."""
        seen = self.seen
        state = f"now: {seen}, {seen.reason or 'no reason given'}" if seen else "the deployment does not exist"
        return f"Waited for {self.what} until the timeout; {state}."


async def wait_until(wait: StatusWait, read: Call[Deployment | None]) -> Deployment | None:
    """
    Poll until a goal is reached, first at once.

    :param read: the call that reads the deployment
    :return: the deployment as it was read last
    :raises DeploymentError: the goal cannot be reached any more
    :raises DeadlineExceededError: the deadline has passed
    """
    while True:
        deployment = await read_again(read, wait.backoff, wait.seen)
        if wait.evaluate(deployment):
            return deployment
        await wait.backoff.wait(wait.too_late, about=deployment or wait.what)


async def check_goal(
    project: Project, goal: StatusGoal, deployment: Deployment | None, backoff: Backoff
) -> tuple[bool, Deployment | None]:
    """
    Check a goal after one poll; poll a Failed deployment again until it is known whether it stays Failed.

    :param deployment: the deployment as it was just read
    :param backoff: how often to poll a Failed deployment, and until when
    :return: whether the goal is reached, and the deployment as it was read last
    """
    while True:
        if goal.reached(deployment, backoff.clock()):
            return True, deployment
        delay = backoff.next_delay()
        if deployment is None or deployment.status is not DeploymentStatus.FAILED or delay is None:
            return False, deployment
        await Sleep(delay)
        deployment = await get_deployment(project, goal.name)


async def with_log_tail(project: Project, flow: Flow[T]) -> T:
    """
    Run a flow, and add the end of the deployment's log to a ``DeploymentFailedError``.

    :param flow: the flow; its result is returned
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
        raise error.with_log_tail(tail) from None


def describe_state(deployment: Deployment | None) -> str:
    """Return the part of a deployment's state whose changes are logged; empty if there is no deployment."""
    if deployment is None:
        return ""
    condition = deployment.condition or Condition("")
    return f"{deployment.status.value} {condition.type} {condition.status}"


def log_change(last_logged: str, deployment: Deployment | None, seconds: float) -> str:
    """
    Log a deployment's state if it has changed since it was logged last.

    :param last_logged: the state that was logged last
    :param seconds: since the wait began
    :return: the state that is logged now
    """
    state = describe_state(deployment)
    if deployment is not None and state != last_logged:
        after = f" (after {seconds:.0f} s)" if seconds >= 1 else ""
        log.info("%s%s%s", deployment, f": {deployment.reason}" if deployment.reason else "", after)
    return state or last_logged
