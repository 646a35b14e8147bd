"""What a deployment serves while a table is scored, as far as Hopsworks says it: an answer names no version."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus, check_model
from airflow_provider_hsml.hopsworks.domain.rejection_key import rejection_key
from airflow_provider_hsml.hopsworks.errors import DeploymentError, NotFoundError
from airflow_provider_hsml.hopsworks.flow import read_patiently
from airflow_provider_hsml.hopsworks.promotion.situation import read_situation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Backoff
    from airflow_provider_hsml.hopsworks.promotion.situation import Situation
    from airflow_provider_hsml.hopsworks.rollout.inputs import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """What a deployment serves."""

    model_name: str | None
    model_version: int | None
    version: int | None
    """The deployment version; None on servers without them (before 4.6)."""
    configuration: str
    """A hash of the scripts and environments."""
    rollout: tuple[Any, ...]
    """The id of the deployment and its last rollout, which changes with a restart too."""

    @classmethod
    def of(cls, deployment: Deployment) -> Self:
        """Return what a deployment serves."""
        key = rejection_key(deployment.raw, with_resources=False)
        rollout = (deployment.id, deployment.revision)
        return cls(deployment.model_name, deployment.model_version, deployment.version, key, rollout)

    @property
    def key(self) -> list[Any]:
        """What answers depend on, as plain JSON: the same after a restart."""
        return [self.model_name, self.model_version, self.version, self.configuration]

    @property
    def is_certain(self) -> bool:
        """Whether every change of the deployment shows in it."""
        return self.version is not None or self.rollout[1] is not None

    def __str__(self) -> str:
        """Return the versions, for messages."""
        version = "" if self.version is None else f" (deployment version {self.version})"
        return f"version {self.model_version} of model {self.model_name!r}{version}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "model_name": self.model_name,
            "model_version": self.model_version,
            "deployment_version": self.version,
            "configuration": self.configuration,
        }

    @staticmethod
    def key_from_json(data: Mapping[str, Any]) -> list[Any]:
        """Return the key of what ``to_json`` returned."""
        return [data[name] for name in ("model_name", "model_version", "deployment_version", "configuration")]


async def settled(run: Run, backoff: Backoff) -> Deployment:
    """
    Wait until a deployment runs, and no change of it is in progress or pending.

    :raises NotFoundError: there is no such deployment
    :raises DeploymentError: it is stopped, or it has failed
    :raises DeadlineExceededError: a change of it has not ended in time
    """
    while True:
        situation = await read_situation(run.project, [run.name])
        live = situation.live
        if live is None:
            message = f"Deployment {run.name!r} does not exist in project {run.project.name!r}.\nCheck its name."
            raise NotFoundError(message)
        why = _why_not_settled(situation, live)
        if not why:
            return live
        log.info("%s: %s; waiting", live, why)
        await backoff.wait(
            f"{live}: {why}, and it has not ended in time.\nRun the task again once the change is verified or rolled "
            "back.",
            about=live,
        )


def _why_not_settled(situation: Situation, live: Deployment) -> str:
    """Return why rows cannot be scored yet; empty if they can."""
    newest = situation.journal.newest
    if newest is not None and newest.is_in_progress(time.time()):
        return "a change of it is in progress"
    if situation.pending is not None:
        return "a change of it is not verified"
    if live.status.is_down:
        message = f"{live} answers no requests.\nStart it with StartDeploymentOperator before this task."
        error = DeploymentError(message)
        error.transient = True
        raise error
    if live.status is DeploymentStatus.FAILED:
        message = f"{live}: it has failed{f' ({live.reason})' if live.reason else ''}.\nCheck its log in Hopsworks."
        error = DeploymentError(message)
        error.transient = True
        raise error
    return "" if live.status in (DeploymentStatus.RUNNING, DeploymentStatus.IDLE) else "its state is changing"


async def read_served(run: Run, backoff: Backoff) -> Served:
    """
    Read what a deployment serves now. While Hopsworks is unavailable, the read is repeated.

    :raises NotFoundError: the deployment was deleted
    """
    deployment = await read_patiently(api.get_deployment(run.project, run.name), backoff, check_model)
    if deployment is None:
        message = f"Deployment {run.name!r} was deleted while the rows were scored."
        raise NotFoundError(message)
    return Served.of(deployment)
