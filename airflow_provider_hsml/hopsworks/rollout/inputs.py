"""The values that a change of a deployment is made from: the run, the desired state, and the policy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.flow import Backoff
from airflow_provider_hsml.hopsworks.registry.version_files import VersionFiles
from airflow_provider_hsml.hopsworks.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.project import Project
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.flow import Clock

FIRST_DELAY_START = 0.5
"""Seconds before the second poll after a START."""
FIRST_DELAY_UPDATE = 2.0
"""The same after an update: the first polls would only show the previous state."""


@dataclass(frozen=True, slots=True)
class Run:
    """The work of one task on one deployment."""

    project: Project
    name: str
    """The deployment's name."""
    timeout: float
    """Seconds for one change: sent, live, first prediction answered. A rollback has the same time again."""
    interval: float
    """The longest seconds between two polls."""
    clock: Clock = time.time
    key: str = ""
    """Which task this is, the same in its retries; empty outside of Airflow."""
    audit: Mapping[str, Any] = field(default_factory=dict)
    """The try of the task, and who approved its plan, for the journal; empty outside of Airflow."""
    routes: Routes = field(default_factory=Routes, compare=False, repr=False)
    """The optional routes of Hopsworks, as far as this run knows them."""
    files: VersionFiles = field(default_factory=VersionFiles, compare=False, repr=False)
    """The metadata files of model versions, as far as this run has listed them."""

    def backoff(self, first: float, deadline: float | None = None) -> Backoff:
        """
        Return how often to poll in this run.

        :param first: seconds before the second poll
        :param deadline: seconds since 1970; None: one timeout from now
        """
        if deadline is None:
            deadline = self.clock() + self.timeout
        return Backoff(first=first, most=self.interval, deadline=deadline, clock=self.clock)


@dataclass(frozen=True, slots=True)
class Desired:
    """The state that a deployment is brought to."""

    settings: SettingValues
    """The settings that were asked for; with none of them the deployment only has to serve."""
    model: ModelVersion | None = None
    """The version to serve: needed to create a deployment, and to know how to probe it."""
    restore: int | None = None
    """A deployment version to activate again first, where Hopsworks keeps them."""
    serve: bool = True
    """Whether the deployment has to serve; if not, one that is stopped stays stopped."""
    restored: SettingValues = field(default_factory=dict)
    """The settings that the version in ``restore`` holds: they come with it, and are never sent."""
    template: Mapping[str, Any] | None = None
    """Keys of the body that creates the deployment, beside the settings; None for Hopsworks' defaults."""


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """How a change is rolled out."""

    wait: bool = True
    """Whether to wait until the last change is live and verified."""
    trust: bool = True
    """Whether a deployment that already matches the desired state counts as verified; if not, it is watched."""
    unschedulable_grace: float | None = None
    """Seconds for which a cluster without room for the instances may find some; None: 300."""
    recreate: bool = False
    """Whether to stop the deployment before a change and start it afterwards, without room for old and new at once."""
    sends: bool = True
    """Whether a deployment that differs from the desired state is changed; if not, it was changed by another client."""
    is_way_back: bool = False
    """Whether the desired state served before: an example that is missing or refused does not keep it from serving."""
    is_rollback: bool = False
    """Whether a person asked for it: as on a way back, nothing that cannot be read for the probe holds it up."""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """How another process resumes a change whose long wait was deferred."""

    journal_id: str | None = None
    """The id of the journal entry with the inputs of the probe, which no trigger stores; None if there is none."""
    worker_only: bool = False
    """Whether the rest needs something that only this process knows."""
    context: Mapping[str, Any] | None = None
    """The state that the resuming task needs, such as the decision of a promotion, in plain JSON."""
