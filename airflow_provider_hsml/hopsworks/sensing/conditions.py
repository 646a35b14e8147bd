"""
Conditions of sensors: one poll, the same in a worker and in the triggerer, and polling until the condition is met.

A condition is built from names and numbers, so that a trigger can build the same one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from airflow_provider_hsml.hopsworks.api import get_deployment
from airflow_provider_hsml.hopsworks.domain.criteria import read_wanted
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name, read_statuses
from airflow_provider_hsml.hopsworks.domain.plain import finite
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import UNSCHEDULABLE_STAYS
from airflow_provider_hsml.hopsworks.errors import DeploymentError, HopsworksError
from airflow_provider_hsml.hopsworks.flow import Backoff, PollAgain, Sleep, steady, within
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.rollout.status import StatusGoal, check_goal, with_log_tail

from . import search

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.access import Access
    from airflow_provider_hsml.hopsworks.domain.criteria import Criteria
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.flow import Flow, Pause

log = logging.getLogger(__name__)


class SensorCondition(Protocol):
    """A condition that a sensor waits for."""

    def look(self, access: Access, project: Project, pause: Pause | None = None) -> Flow[dict[str, Any] | None]:
        """
        Poll once, with reads only.

        :param pause: the pause before it; None for the first poll, and after an error
        :return: the sensor's result; None while the condition is not met
        :raises HopsworksError: the poll failed, or the condition can never be met
        """


@dataclass(slots=True)
class StatusCondition:
    """A deployment that has one of some statuses."""

    goal: StatusGoal
    _seen: Deployment | None = None
    """The deployment at the last poll. It was not Failed, so only a change of it can meet or fail the goal."""

    @classmethod
    def read(cls, name: object, statuses: object) -> Self:
        """
        Read the arguments of ``DeploymentStatusSensor``.

        :param statuses: one status or several; Idle also meets ``Running``, and Created meets ``Stopped``
        :raises InvalidInputError: an argument is wrong
        """
        return cls(StatusGoal.of(check_deployment_name(name), *read_statuses("target_status", statuses)))

    async def look(
        self,
        access: Access,  # noqa: ARG002 - part of the protocol
        project: Project,
        pause: Pause | None = None,
    ) -> dict[str, Any] | None:
        """Poll once; in the status Failed, poll until it is known whether the failure stays."""
        read = get_deployment(project, self.goal.name)
        if pause is not None and self._seen is not None:
            deployment = await PollAgain(read, pause, self._seen)
        else:
            if pause is not None:
                await Sleep(pause.seconds)
            deployment = await read
        clock = steady()
        backoff = Backoff(first=1.0, most=5.0, deadline=clock() + 2 * UNSCHEDULABLE_STAYS, clock=clock)
        is_reached, deployment = await with_log_tail(project, check_goal(project, self.goal, deployment, backoff))
        if deployment is None or not is_reached:
            # Without ``raw``, which takes several kB.
            self._seen = None if deployment is None else deployment.public
            return None
        return {
            "deployment_name": deployment.name,
            "deployment_id": deployment.id,
            "status": deployment.status.value,
        }


@dataclass(slots=True)
class VersionCondition:
    """The newest version of a model that meets all criteria."""

    name: str
    criteria: Criteria
    owner: str | None = None
    """The project that owns the model; None for the connection's project."""
    _last_logged: str = ""

    @classmethod
    def read(cls, name: object, **desired: Any) -> Self:
        """
        Read the arguments of ``ModelVersionSensor``.

        :param desired: the arguments of ``read_wanted``
        :raises InvalidInputError: an argument is wrong, or no version can ever meet the criteria
        """
        return cls(*read_wanted(name, **desired))

    async def look(self, access: Access, project: Project, pause: Pause | None = None) -> dict[str, Any] | None:
        """Poll once; the missing criterion is logged when it has changed."""
        if pause is not None:
            await Sleep(pause.seconds)
        owner = await lookup.find_registry(project, self.owner)
        seen = await search.search(project, self.name, self.criteria, owner)
        if seen.models:
            return describe(access, seen.models[0], with_tags=bool(self.criteria.tags))
        if seen.reason != self._last_logged:
            log.info("%s.", seen.reason)
            self._last_logged = seen.reason
        return None


def describe(access: Access, model: ModelVersion, *, with_tags: bool = False) -> dict[str, Any]:
    """
    Return the description of a model version that tasks push to XCom.

    :param with_tags: whether its tags were read
    """
    description = {
        "model_name": model.name,
        "model_version": model.version,
        "model_id": model.id,
        "metrics": dict(model.metrics),
        "url": access.ui_url(model.registry_id, "models", model.name, model.version),
    }
    found, replaced = finite(description | ({"tags": dict(model.tags)} if with_tags else {}))
    if replaced:
        log.warning(
            "Version %s of model %r: %s values of NaN or infinity become null", model.version, model.name, replaced
        )
    return found  # type: ignore[no-any-return]


def may_pass(error: HopsworksError) -> bool:
    """
    Return whether to poll again after an error.

    A failed deployment was already polled for long enough: only a retry of the task may find room for it.
    """
    return error.transient and not isinstance(error, DeploymentError)


async def wait_until_met(
    condition: SensorCondition, access: Access, project: Project, backoff: Backoff
) -> dict[str, Any]:
    """
    Poll until the condition is met. The first poll is immediate.

    :param condition: the condition to poll
    :param backoff: the intervals and the deadline
    :raises DeadlineExceededError: the deadline has passed
    """
    too_late, about = "The condition was not met before the deadline.", "The condition"
    pause: Pause | None = None
    while True:
        try:
            found = await within(condition.look(access, project, pause), backoff.deadline, backoff.clock)
        except HopsworksError as error:
            if not may_pass(error):
                raise
            log.warning("%s; polling again", error)
            await backoff.wait(too_late, at_least=error.retry_after or 0.0, about=about)
            pause = None
        else:
            if found is not None:
                return found
            pause = backoff.pause(too_late, about=about)
