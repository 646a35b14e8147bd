"""The result of a rollout that succeeded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    seconds: Mapping[str, float] = field(default_factory=dict)
    """The durations of the phases ``rollout``, ``verification`` and ``bake``; empty when none was waited for."""
    failed_probes: int = 0
    """Probes that failed during the bake, which allows some."""
