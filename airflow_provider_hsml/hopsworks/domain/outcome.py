"""The result of a rollout that succeeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .deployment import Deployment


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a rollout: the deployment that serves now, and how that was verified."""

    deployment: Deployment
    action: str
    """created, updated, started, attached or unchanged."""
    verified_by: str | None = None
    """``fingerprint``, ``instances`` or ``status``; None when the rollout was not waited for."""
    downtime: float | None = None
    """Seconds without answers, where the deployment was stopped for the change."""
