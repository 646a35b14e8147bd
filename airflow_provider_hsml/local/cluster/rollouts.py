"""The ``Rollout`` of one revision of a deployment: its desired settings, instance and logs. Data, without steps."""

from __future__ import annotations

import secrets
import string
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_hsml.local.logs import logger

from .engines import InstanceLog

if TYPE_CHECKING:
    from pathlib import Path

    from .engines import Component, Instance, ModelFiles
    from .faults import StartFault

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The desired state of a rollout."""

    revision: str
    model: ModelFiles
    minimum: int
    """The least number of instances; 0: none without requests."""
    gpus: int = 0
    """The GPUs that an instance needs."""
    archive: Path | None = None
    """The folder that keeps the logs of a failed deployment after its stop, on this machine."""


@dataclass(slots=True, eq=False)
class Rollout:
    """The instances of one revision. ``instance`` is None before it is ready, and while it is idle."""

    wanted: Wanted
    logs: dict[Component, InstanceLog]
    instance: Instance | None = None
    in_flight: int = 0
    last_asked: float = field(default_factory=time.monotonic)
    waking: threading.Lock = field(default_factory=threading.Lock)
    is_scheduled: bool = False
    """Whether it holds the GPUs that it needs."""
    fault: StartFault | None = None
    crashes_at: float | None = None
    """When the fault strikes (monotonic)."""

    def failure(self) -> str | None:
        """Return why its instance crashed, by itself or on command; None while it is alive or where there is none."""
        if self.fault is None or self.crashes_at is None or time.monotonic() < self.crashes_at:
            return self.instance.failure() if self.instance is not None else None
        self.logs["predictor"].write(self.fault.reason)
        return self.fault.reason

    def archive_logs(self) -> None:
        """Keep the last lines of each component in a file. A full disk must not prevent a stop."""
        texts = {each.instance: each.tail(InstanceLog.LINES) for each in self.logs.values()}
        try:
            for instance, text in texts.items():
                if text and self.wanted.archive is not None:
                    self.wanted.archive.mkdir(parents=True, exist_ok=True)
                    (self.wanted.archive / f"{instance}.log").write_text(f"{text}\n", "utf-8", "replace")
        except OSError as error:
            log.warning("The logs of %s could not be archived: %s", self.wanted.model.deployment, error)


def new_logs(wanted: Wanted) -> dict[Component, InstanceLog]:
    """Build empty logs for new instances, one for each component."""
    return {component: InstanceLog(_instance_name(wanted, component)) for component in wanted.model.components}


def _instance_name(wanted: Wanted, component: Component) -> str:
    """Return an instance name as Kubernetes names pods: deployment, component, revision, and two random parts."""
    letters = string.ascii_lowercase + string.digits
    tails = ("".join(secrets.choice(letters) for _ in range(length)) for length in (9, 5))
    return f"{wanted.model.deployment}-{component}-{wanted.revision}-deployment-{'-'.join(tails)}"
