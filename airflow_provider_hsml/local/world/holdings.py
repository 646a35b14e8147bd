"""A project with everything that it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .accounts import Project
    from .deployments import Deployments
    from .feature_store import FeatureStore
    from .files import ProjectFiles
    from .jobs import Jobs
    from .registry import Registry


@dataclass(frozen=True, slots=True)
class Holdings:
    """A project with its files, models, deployments, feature store and jobs."""

    project: Project
    files: ProjectFiles
    registry: Registry
    deployments: Deployments
    features: FeatureStore
    jobs: Jobs
