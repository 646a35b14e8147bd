"""The Hopsworks project that a client works in, and its route to models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping


class ModelRoute(Protocol):
    """A route to models that bypasses Hopsworks' REST API; ``inference.ingress`` has the only one."""

    def predict(
        self,
        project: Project,
        name: str,
        body: Mapping[str, Any] | bytes,
        *,
        seconds: float | None = None,
        request_id: str | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Send a request for predictions, with a timeout in seconds, and the id of one that is sent again."""

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
    """Whether a version's model files are in a folder ``Files``, and not beside its metadata files (Hopsworks 3)."""
    ingress: ModelRoute | None = field(default=None, repr=False, compare=False)
    """The route for predictions where it is not Hopsworks' REST API."""
