"""The run of a job by one task, which all parts of the flow share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.flow import Backoff, Clock, steady

from .records import Record, Records, hash_of_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project

UNAVAILABLE = 3600.0
"""Seconds for which Hopsworks may be unavailable during a wait without a timeout."""


@dataclass(slots=True)
class JobRun:
    """The run of a job by one task."""

    project: Project
    job_name: str
    args: str = field(repr=False)
    """One text; empty for the job's default arguments."""
    env_vars: Mapping[str, str] = field(repr=False)
    key: str
    """The key of the task, the same in its retries; empty outside of Airflow."""
    interval: float
    """Seconds between two polls."""
    deadline: float = math.inf
    """The end of the wait in seconds since 1970."""
    clock: Clock = field(default_factory=steady)
    records: Records | None = None
    started: int | None = None
    """The execution of this run, as soon as it is known."""
    sought: Record | None = None
    """The record of a start that was sent, while its execution is not known."""
    start_seconds: float = 300.0
    """Seconds after which a start that is not answered counts as lost: the client's ``write_timeout``."""

    @property
    def variables(self) -> str:
        """The hash of the environment variables."""
        return hash_of_variables(self.env_vars, self.key)

    def reading(self) -> Backoff:
        """Return the retries of one read: until the deadline, or until Hopsworks was unavailable for too long."""
        deadline = min(self.deadline, self.clock() + UNAVAILABLE)
        return Backoff(first=1.0, most=max(self.interval, 1.0), deadline=deadline, clock=self.clock)
