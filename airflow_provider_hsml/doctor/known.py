"""The cluster as far as it is known: the requests of later checks are made from it, and expectations chosen by it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project

Line: TypeAlias = tuple[int, int]
"""Major and minor version of a Hopsworks."""
NAMESPACE, TAGS, VERSIONS = "namespaces of projects", "tags of deployments", "versions of deployments"
_BY_FEATURE: tuple[tuple[str, Line], ...] = ((VERSIONS, (5, 2)), (TAGS, (5, 0)), (NAMESPACE, (4, 0)))
"""Features that are seen without a deployment, newest first, with the line that introduced each."""
_OLDEST: Line = (3, 0)


@dataclass(slots=True)
class Known:
    """The cluster as far as it is known."""

    project: Project
    version: str | None = None
    """As Hopsworks says it."""
    features: dict[str, bool] = field(default_factory=dict)
    """Which of ``NAMESPACE``, ``TAGS`` and ``VERSIONS`` it has."""
    ingress: str | None = None
    """``scheme://host:port``; None if the API key is not sent to it."""
    no_ingress: str = ""
    """The reason for that."""
    namespace: str | None = None
    """The Kubernetes namespace of the project."""
    domain: str | None = None
    """Knative's domain."""
    deployment: Mapping[str, Any] | None = None
    """Some deployment of the project."""
    model: Mapping[str, Any] | None = None
    """Some model version of the project."""
    feature_store: int | None = None
    """The id of the project's feature store."""

    @property
    def line(self) -> Line:
        """The line by which expectations are chosen: that of the version, else that of the features."""
        found = re.match(r"(\d{1,4})\.(\d{1,4})", self.version or "")
        return (int(found[1]), int(found[2])) if found else self.resembled

    @property
    def resembled(self) -> Line:
        """The newest line whose features are there."""
        return next((line for feature, line in _BY_FEATURE if self.features.get(feature)), _OLDEST)

    @property
    def contradiction(self) -> str:
        """The features that the line of the version does not have, or has and that are missing; empty if none."""
        odd = [
            f"{'has' if self.features[feature] else 'has no'} {feature}"
            for feature, line in _BY_FEATURE
            if feature in self.features and self.features[feature] is not (self.line >= line)
        ]
        return ", ".join(odd)

    @property
    def sdk(self) -> str:
        """The line of the official SDK that the contract describes for such a Hopsworks."""
        rows = (((5, 1), "5.1 to 5.2"), ((4, 8), "4.8 to 5.0"), ((4, 6), "4.6"), ((4, 0), "4.0 to 4.4"))
        return next((name for line, name in rows if self.line >= line), "hsml 3.x")
