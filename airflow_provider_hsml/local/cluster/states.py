"""The statuses and conditions of a deployment, as they are spelled on the wire."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .engines import Stage


class Status(enum.StrEnum):
    """A deployment's status, as it is spelled on the wire."""

    CREATING = "Creating"
    CREATED = "Created"
    STARTING = "Starting"
    FAILED = "Failed"
    RUNNING = "Running"
    IDLE = "Idle"
    UPDATING = "Updating"
    STOPPING = "Stopping"
    STOPPED = "Stopped"

    @property
    def is_up(self) -> bool:
        """Whether the deployment serves, and no change is in progress."""
        return self in (Status.RUNNING, Status.IDLE)

    @property
    def has_logs(self) -> bool:
        """Whether the logs of instances can be read."""
        return self in (Status.STARTING, Status.RUNNING, Status.UPDATING, Status.FAILED)


@dataclass(frozen=True, slots=True)
class Condition:
    """The reason for a status: a ``status`` of None is in progress, True is done, False has failed."""

    type: Stage | Literal["STOPPED"]
    status: bool | None
    reason: str


PREPARING = Condition("STOPPED", None, "Deployment is being prepared")
NOT_RUNNING = Condition("STOPPED", True, "Deployment is not running")
STOPPING = Condition("STOPPED", None, "Stopping deployment")
UNSCHEDULING = Condition("SCHEDULED", None, "Waiting for being unscheduled")
SCHEDULING = Condition("SCHEDULED", None, "Waiting for being scheduled")
INITIALIZING = Condition("INITIALIZED", None, "Initializing deployment")
STARTING = Condition("STARTED", None, "Deployment is starting")
CONNECTING = Condition("READY", None, "Setting up connectivity")
READY = Condition("READY", True, "Deployment is ready")
UNDER_WAY: dict[Stage, Condition] = {
    "SCHEDULED": SCHEDULING,
    "INITIALIZED": INITIALIZING,
    "STARTED": STARTING,
    "READY": CONNECTING,
}
_FAILED: dict[Stage, str] = {
    "SCHEDULED": "Failed to be scheduled: ",
    "INITIALIZED": "Failed to initialize: ",
    "STARTED": "Failed to run: ",
    "READY": "Failed to setup connectivity: ",
}


def failed(stage: Stage, reason: str) -> Condition:
    """Return the condition of a stage that was not reached."""
    return Condition(stage, False, f"{_FAILED[stage]}{reason}")


@dataclass(frozen=True, slots=True)
class State:
    """The state of a deployment at one moment, as clients see it."""

    status: Status
    condition: Condition
    available: int
