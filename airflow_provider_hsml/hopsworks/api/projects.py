"""Endpoints for projects, and for the server's version and settings."""

from __future__ import annotations

from airflow_provider_hsml.hopsworks.domain.project import Project

from .call import Call, path_of

VARIABLE_NOT_FOUND = 100050


def get_project(name: str) -> Call[Project]:
    """Find a project by its name."""
    return Call(
        f"find project {name!r}",
        "GET",
        path_of("project", "getProjectInfo", name),
        # Only servers after Hopsworks 3 return a Kubernetes namespace.
        lambda data: Project(int(data["projectId"]), str(data["projectName"]), has_files_folder="namespace" in data),
        repeatable=True,
    )


def get_server_version() -> Call[str | None]:
    """Read the Hopsworks version, for messages only: features are detected by the responses of their endpoints."""
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
    Read a setting of the cluster; None when it is not set.

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
