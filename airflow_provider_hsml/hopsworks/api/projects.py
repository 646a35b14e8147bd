"""The project, and what the server says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .call import Call, path_of

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.inference.ingress import Ingress

VARIABLE_NOT_FOUND = 100050


@dataclass(frozen=True, slots=True)
class Project:
    """The project that a client works in."""

    id: int
    name: str
    has_files_folder: bool = field(default=True, compare=False)
    """Whether a model's files lie in ``Files`` below its version, and not beside what describes it (Hopsworks 3)."""
    ingress: Ingress | None = field(default=None, repr=False, compare=False)
    """How models are asked, where that is not through Hopsworks' REST API."""


def get_project(name: str) -> Call[Project]:
    """
    Look a project up by its name.

    :param name: the project's name
    """
    return Call(
        f"find project {name!r}",
        "GET",
        path_of("project", "getProjectInfo", name),
        # A Kubernetes namespace is told by those that came after Hopsworks 3.
        lambda data: Project(int(data["projectId"]), str(data["projectName"]), has_files_folder="namespace" in data),
        repeatable=True,
    )


def get_server_version() -> Call[str | None]:
    """Ask for the Hopsworks version, for messages only: features are told by what is answered."""
    return Call(
        "ask for the Hopsworks version",
        "GET",
        path_of("variables", "versions"),
        lambda data: next((row.get("version") for row in data or [] if row.get("software") == "hopsworks"), None),
        repeatable=True,
        optional=True,
    )


def get_variable(name: str) -> Call[str | None]:
    """
    Ask for a setting of the cluster; None when it is not set.

    :param name: the variable's id
    """
    return Call(
        f"ask for the cluster's setting {name!r}",
        "GET",
        path_of("variables", name),
        lambda data: data and data.get("successMessage"),
        repeatable=True,
        absent=frozenset({VARIABLE_NOT_FOUND}),
        optional=True,
    )
