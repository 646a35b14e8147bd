"""Endpoints for projects, and for the server's version and settings."""

from __future__ import annotations

from typing import Any

from airflow_provider_hsml.hopsworks.domain import wire
from airflow_provider_hsml.hopsworks.domain.project import Project

from .call import Call, MissingRoute, check_same, path_of, rows_of

VARIABLE_NOT_FOUND = 100050


def get_project(name: str) -> Call[Project]:
    """Find a project by its name."""

    def read(data: Any) -> Project:
        row = wire.resource(data, {"projectId": int, "projectName": str}, {})
        check_same("Project", name, row["projectName"])
        # Only servers after Hopsworks 3 return a Kubernetes namespace.
        return Project(row["projectId"], row["projectName"], has_files_folder="namespace" in row)

    return Call(f"find project {name!r}", "GET", path_of("project", "getProjectInfo", name), read, repeatable=True)


def get_server_version() -> Call[str | MissingRoute | None]:
    """Read the Hopsworks version; None if the server does not say. Features are detected by their endpoints."""

    def read(data: Any) -> str | None:
        rows = [wire.resource(row, {"software": str}, {"version": str}) for row in rows_of(data)]
        return next((row.get("version") for row in rows if row["software"] == "hopsworks"), None)

    return Call(
        "ask for the Hopsworks version",
        "GET",
        path_of("variables", "versions"),
        read,
        repeatable=True,
        optional="versions of the software",
    )


def get_variable(name: str) -> Call[str | MissingRoute | None]:
    """
    Read a setting of the cluster; None when it is not set.

    :param name: the variable's id
    """

    def read(data: Any) -> str | None:
        value: str | None = wire.resource(data, {}, {"successMessage": str}).get("successMessage")
        if value is None:
            message = "successMessage is missing"
            raise wire.FormError(message)
        return value or None

    return Call(
        f"ask for the cluster's setting {name!r}",
        "GET",
        path_of("variables", name),
        read,
        repeatable=True,
        absent=frozenset({VARIABLE_NOT_FOUND}),
        optional="variables",
    )
