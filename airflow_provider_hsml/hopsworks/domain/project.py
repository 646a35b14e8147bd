"""A Hopsworks project and what its API key may do in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping


class ModelRoute(Protocol):
    """A way to models other than through Hopsworks' REST API; ``inference.ingress`` has the one there is."""

    def predict(
        self, project: Project, name: str, body: Mapping[str, Any], *, seconds: float | None = None
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """Send a request for predictions, with a timeout in seconds."""

    def get(
        self, project: Project, name: str, path: str, *, seconds: float | None = None
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """Read a health route of a deployment, with a timeout in seconds."""

    def prediction_url(self, project: Project, name: str) -> Coroutine[Any, Any, str]:
        """Return the address that answers predictions."""


@dataclass(frozen=True, slots=True)
class Project:
    """The project that a client works in."""

    id: int
    name: str
    has_files_folder: bool = field(default=True, compare=False)
    """Whether a model's files lie in ``Files`` below its version, and not beside what describes it (Hopsworks 3)."""
    ingress: ModelRoute | None = field(default=None, repr=False, compare=False)
    """How models are asked, where that is not through Hopsworks' REST API."""
