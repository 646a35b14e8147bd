"""The result of a rollout that succeeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: what serves now, and how that is known."""

    deployment: Deployment
    action: str
    """created, updated, started, attached or unchanged."""
    verified_by: str | None = None
    """``fingerprint``, ``instances``, ``status``; None when nothing was waited for."""
    downtime: float | None = None
    """Seconds for which it did not answer, where it was stopped for the change."""
