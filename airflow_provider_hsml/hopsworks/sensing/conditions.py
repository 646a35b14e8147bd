"""
What sensors wait for: one look, the same in a worker and in the triggerer, and looking until it is there.

A lookout is made of names and numbers, so that a trigger makes the same one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from airflow_provider_hsml.hopsworks.domain import arguments, criteria
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus, check_deployment_name
from airflow_provider_hsml.hopsworks.domain.model_version import check_model_name
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import UNSCHEDULABLE_STAYS
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, DeploymentError, HopsworksError
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep, steady
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.rollout.status import StatusGoal, poll_failed, with_log_tail

from . import search

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.access import Access
    from airflow_provider_hsml.hopsworks.domain.criteria import Criteria
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion

log = logging.getLogger(__name__)


class SensorCondition(Protocol):
    """What a sensor waits for."""

    async def look(self, access: Access, project: Project) -> dict[str, Any] | None:
        """
        Look once.

        :param access: where Hopsworks is
        :param project: the project
        :return: what the sensor returns, when it is there
        :raises HopsworksError: it is not to be seen now, or never will be
        """


@dataclass(slots=True)
class StatusCondition:
    """A deployment that is in one of some states."""

    goal: StatusGoal

    @classmethod
    def read(cls, name: object, statuses: object) -> Self:
        """
        Read the arguments of ``DeploymentStatusSensor``.

        :param name: the deployment's name
        :param statuses: a state or several; ``Running`` is met by Idle, ``Stopped`` by Created
        :raises InvalidInputError: one is wrong
        """
        known = [status.value for status in DeploymentStatus if status is not DeploymentStatus.UNKNOWN]
        given = [statuses] if isinstance(statuses, str) else arguments.sequence("target_status", statuses)
        targets = [DeploymentStatus(arguments.choice("target_status", status, known)) for status in given]
        return cls(StatusGoal.of(check_deployment_name(name), *targets))

    async def look(self, access: Access, project: Project) -> dict[str, Any] | None:  # noqa: ARG002
        """Look once; at a Failed for as long as it takes to know whether it stays."""
        clock = steady()
        backoff = Backoff(first=1.0, most=5.0, deadline=clock() + 2 * UNSCHEDULABLE_STAYS, clock=clock)
        deployment = await with_log_tail(project, poll_failed(project, self.goal, backoff))
        if deployment is None:
            return None
        return {
            "deployment_name": deployment.name,
            "deployment_id": deployment.id,
            "status": deployment.status.value,
        }


@dataclass(slots=True)
class VersionCondition:
    """A version of a model that meets all that is asked for; of several the newest."""

    name: str
    criteria: Criteria
    owner: str | None = None
    """The project that owns the model; None for the one that asks."""
    _said: str = ""

    @classmethod
    def read(cls, name: object, *, model_project: str | None = None, **desired: Any) -> Self:
        """
        Read the arguments of ``ModelVersionSensor``.

        :param name: the model's name
        :param model_project: another project that owns it
        :param desired: what the version has to meet
        :raises InvalidInputError: one is wrong, or no version can ever meet them
        """
        return cls(check_model_name(name), criteria.Criteria.read(**desired), model_project)

    async def look(self, access: Access, project: Project) -> dict[str, Any] | None:
        """Look once; what is lacking is logged when that has changed."""
        owner = await lookup.find_registry(project, self.owner)
        seen = await search.search(project, self.name, self.criteria, owner)
        if seen.models:
            return describe(access, seen.models[0], with_tags=bool(self.criteria.tags))
        if seen.reason != self._said:
            log.info("%s.", seen.reason)
            self._said = seen.reason
        return None


def describe(access: Access, model: ModelVersion, *, with_tags: bool = False) -> dict[str, Any]:
    """
    Give what tasks return of a model version.

    :param access: where Hopsworks is
    :param model: the version
    :param with_tags: whether its tags were read
    """
    told = {
        "model_name": model.name,
        "model_version": model.version,
        "model_id": model.id,
        "metrics": dict(model.metrics),
        "url": access.ui_url(model.registry_id, "models", model.name, model.version),
    }
    return told | ({"tags": dict(model.tags)} if with_tags else {})


def may_pass(error: HopsworksError) -> bool:
    """
    Tell whether to look again after a failure.

    A deployment that has failed was looked at for as long as was worth it: a retry of the task may find room for it.

    :param error: how a look failed
    """
    return error.transient and not isinstance(error, DeploymentError)


async def wait_until_met(
    lookout: SensorCondition, access: Access, project: Project, backoff: Backoff
) -> dict[str, Any]:
    """
    Look until it is there. The first look is at once.

    :param lookout: what is looked for
    :param access: where Hopsworks is
    :param project: the project
    :param pace: how often, and until when
    :raises DeadlineExceededError: the deadline has passed
    """
    while True:
        wait = 0.0
        try:
            found = await lookout.look(access, project)
            if found is not None:
                return found
        except HopsworksError as error:
            if not may_pass(error):
                raise
            log.warning("%s; reading it again", error)
            wait = error.retry_after or 0.0
        pause = backoff.next_delay(at_least=wait)
        if pause is None:
            raise DeadlineExceededError("It was not there in time.")
        await Sleep(pause)
