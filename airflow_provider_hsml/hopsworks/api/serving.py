"""Endpoints for deployments: list, read, change, start, stop and delete them, and read their logs and versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import wire
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentVersion, check_deployment_name
from airflow_provider_hsml.hopsworks.domain.model_version import check_model_name, tags_of
from airflow_provider_hsml.hopsworks.untrusted_text import clean

from .call import (
    INSTANCE_NOT_FOUND,
    PAGE,
    TAG_NOT_FOUND,
    Call,
    MissingRoute,
    Page,
    check_number,
    check_same,
    page_of,
    path_of,
    readable,
    rows_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.project import Project
    from airflow_provider_hsml.hopsworks.errors import FailedDeployment

DUPLICATED_ENTRY = 240011
LOGS_NOT_AVAILABLE = 240027
_MOST_OF_LOG = 1 << 20
"""Characters of an instance's log that are kept."""
KUBERNETES_NOT_INSTALLED = 240014
_SCHEMA_NOT_FOUND = 240037
VERSIONS, TAGS, _SCHEMAS = "versions", "tags", "schemas of deployments"
"""Routes that some servers lack."""


def _serving(project: Project, *more: str | int) -> str:
    return path_of("project", project.id, "serving", *more)


def _with_status(data: Any) -> Deployment:
    """
    Read a deployment whose status decides the next step.

    :raises ValueError: it has no status, which is not one that a newer server may have added
    """
    return Deployment.from_json(wire.resource(data, {"status": str}, {}))


def get_deployments(
    project: Project, *, model_name: str | None = None, status: str | None = None, complete: bool = False
) -> Call[list[Deployment]]:
    """
    List deployments. The server computes the status of each, which is costly in a project with hundreds.

    A deployment that cannot be read is logged and left out.

    :param model_name: return deployments of this model only
    :param status: return deployments in this status only
    :param complete: raise an error for a deployment that cannot be read
    """
    what = "list deployments"
    query = [("model", check_model_name(model_name))] if model_name is not None else []
    query += [("status", status)] if status is not None else []
    return Call(
        what,
        "GET",
        _serving(project),
        lambda data: readable(what, rows_of(data), Deployment.from_json, complete=complete),
        query=tuple(query),
        repeatable=True,
    )


def get_deployment(project: Project, name: str, *, any_case: bool = False) -> Call[Deployment | None]:
    """
    Get a deployment by its name; None when there is none.

    :param any_case: accept one whose name differs only in case: for a name that no user has written
    """
    check_deployment_name(name)

    def read(data: Any) -> Deployment:
        found = _with_status(data)
        if not (any_case and found.name.lower() == name.lower()):
            check_same("Deployment", name, found.name)
        return found

    return Call(
        f"get deployment {name!r}",
        "GET",
        _serving(project),
        read,
        query=(("name", name),),
        repeatable=True,
        absent=frozenset({INSTANCE_NOT_FOUND}),
        looks_at=name,
    )


def get_deployment_schema(
    project: Project, deployment: Deployment, schema_id: str, *, form: str = "schema"
) -> Call[dict[str, Any] | MissingRoute]:
    """
    Read a published schema of a deployment's requests; empty when there is none of this id.

    :param schema_id: from the deployment's variables
    :param form: ``schema``, ``jsonschema`` or ``openapi``
    """
    return Call(
        f"read schema {schema_id!r} of deployment {deployment.name!r}",
        "GET",
        _serving(project, deployment.id, "schema"),
        lambda data: wire.resource(data, {}, {}),
        query=(("format", form), ("schemaId", schema_id)),
        repeatable=True,
        absent=frozenset({_SCHEMA_NOT_FOUND}),
        absence={},
        optional=_SCHEMAS,
    )


def get_deployment_by_id(project: Project, deployment_id: int) -> Call[Deployment | None]:
    """
    Get a deployment by its id; None when there is none.

    :param deployment_id: Hopsworks' number for it
    """

    def read(data: Any) -> Deployment:
        found = _with_status(data)
        check_number("id", int(deployment_id), found.id)
        return found

    return Call(
        f"get deployment {int(deployment_id)}",
        "GET",
        _serving(project, int(deployment_id)),
        read,
        repeatable=True,
        absent=frozenset({INSTANCE_NOT_FOUND}),
        looks_at=int(deployment_id),
    )


def put_deployment(project: Project, body: Mapping[str, Any], *, new_version: bool = False) -> Call[Deployment]:
    """
    Create a deployment (a body without id) or update one.

    The status in the response means nothing: read the deployment afterwards.

    :param body: the whole deployment resource
    :param new_version: keep the previous deployment version, so that a rollback can activate it again
    """
    name, id_ = check_deployment_name(body.get("name")), body.get("id")

    def read(data: Any) -> Deployment:
        found = Deployment.from_json(data)
        check_same("Deployment", name, found.name)
        check_number("id", found.id if id_ is None else id_, found.id)
        return found

    return Call(
        f"{'create' if id_ is None else 'update'} deployment {name!r}",
        "PUT",
        _serving(project),
        read,
        query=(("newVersion", "true"),) if new_version else (),
        body=dict(body),
        is_write_slow=True,
    )


def _action(project: Project, deployment: Deployment, action: str) -> Call[None]:
    return Call(
        f"{action.lower()} deployment {deployment.name!r}",
        "POST",
        _serving(project, deployment.id),
        None,
        query=(("action", action),),
    )


def start_deployment(project: Project, deployment: Deployment) -> Call[None]:
    """Request a start. The response comes before the deployment has started: poll its status."""
    return _action(project, deployment, "START")


def stop_deployment(project: Project, deployment: Deployment) -> Call[None]:
    """Request a stop. The response comes before the deployment has stopped: poll its status."""
    return _action(project, deployment, "STOP")


def delete_deployment(project: Project, deployment: Deployment) -> Call[None]:
    """Delete a deployment, even a running one."""
    return Call(
        f"delete deployment {deployment.name!r}",
        "DELETE",
        _serving(project, deployment.id),
        None,
        absent=frozenset({INSTANCE_NOT_FOUND}),
    )


@dataclass(frozen=True, slots=True)
class InstanceLog:
    """The end of the log of one instance."""

    instance: str
    content: str


def get_logs(
    project: Project, deployment: FailedDeployment, *, component: str = "predictor", tail: int = 10
) -> Call[list[InstanceLog] | None]:
    """
    Read the end of each instance's log; None when no log is available in this status.

    The server locks the deployment while it reads.

    :param component: ``predictor`` or ``transformer``
    :param tail: number of lines
    """
    return Call(
        f"read the {component} log of deployment {deployment.name!r}",
        "GET",
        _serving(project, deployment.id, "logs"),
        lambda data: [_instance_log(row) for row in rows_of(data)],
        query=(("component", component), ("tail", str(tail))),
        repeatable=True,
        absent=frozenset({LOGS_NOT_AVAILABLE, KUBERNETES_NOT_INSTALLED}),
    )


def _instance_log(data: Any) -> InstanceLog:
    row = wire.resource(data, {"instanceName": str}, {"content": str})
    return InstanceLog(clean(row["instanceName"]), clean(row.get("content") or "", _MOST_OF_LOG))


def get_versions(
    project: Project, deployment: Deployment, *, offset: int = 0, complete: bool = False
) -> Call[Page[DeploymentVersion] | MissingRoute]:
    """
    List the current and past configurations of a deployment, newest first. Servers before 5.2 keep none.

    :param offset: number of rows to skip
    :param complete: raise an error for a version that cannot be read; else it is logged and left out
    """
    what = f"list the versions of deployment {deployment.name!r}"
    return Call(
        what,
        "GET",
        _serving(project, deployment.id, "versions"),
        lambda data: page_of(what, data, DeploymentVersion.from_json, offset=offset, complete=complete),
        query=(("offset", str(offset)), ("limit", str(PAGE))),
        repeatable=True,
        optional=VERSIONS,
    )


def get_newest_version(project: Project, deployment: Deployment) -> Call[int | MissingRoute]:
    """
    Return the number of a deployment's newest version.

    Servers before 5.2 keep none, and silently ignore ``new_version``.
    """

    def read(data: Any) -> int:
        # Only the number counts here: a row that holds more than we can read has one as well.
        rows = [wire.resource(row, {"version": int}, {}) for row in rows_of(data, offset=0)]
        newest = max((row["version"] for row in rows), default=0)
        if newest < max(deployment.version or 0, 1):
            message = f"it lacks version {deployment.version or 1}, which is kept for certain"
            raise wire.FormError(message)
        return newest

    return Call(
        f"list the versions of deployment {deployment.name!r}",
        "GET",
        _serving(project, deployment.id, "versions"),
        read,
        query=(("offset", "0"), ("limit", "1")),
        repeatable=True,
        optional=VERSIONS,
    )


def rollback_deployment(project: Project, deployment: Deployment, version: int) -> Call[None]:
    """
    Activate an earlier version of a deployment again (5.2).

    The server accepts this in the status Updating, too, but not in Starting.
    """
    return Call(
        f"roll deployment {deployment.name!r} back to its version {int(version)}",
        "POST",
        _serving(project, deployment.id, "rollback"),
        None,
        body={"version": int(version)},
        is_write_slow=True,
    )


def get_deployment_tags(project: Project, deployment: Deployment) -> Call[dict[str, Any] | MissingRoute]:
    """Read the tags of a deployment as name -> value. Servers before 5.0 have none."""
    return Call(
        f"read the tags of deployment {deployment.name!r}",
        "GET",
        _serving(project, deployment.id, "tags"),
        lambda data: tags_of(rows_of(data)),
        repeatable=True,
        absent=frozenset({TAG_NOT_FOUND}),
        absence={},
        optional=TAGS,
    )


def put_deployment_tag(project: Project, deployment: Deployment, tag: str, value: Any) -> Call[None]:
    """
    Set a tag of a deployment, or replace its value.

    :param tag: the tag's name, which must have a schema in Hopsworks
    :param value: any JSON value that the tag's schema allows
    """
    return Call(
        f"set tag {tag!r} of deployment {deployment.name!r}",
        "PUT",
        _serving(project, deployment.id, "tags", tag),
        None,
        body=value,
        repeatable=True,
    )


def delete_deployment_tag(project: Project, deployment: Deployment, tag: str) -> Call[None]:
    """Remove a tag of a deployment. A missing tag counts as removed."""
    return Call(
        f"remove tag {tag!r} of deployment {deployment.name!r}",
        "DELETE",
        _serving(project, deployment.id, "tags", tag),
        None,
        repeatable=True,
        absent=frozenset({TAG_NOT_FOUND}),
    )
