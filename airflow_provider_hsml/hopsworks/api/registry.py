"""Endpoints of the model registry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.model_version import Direction, ModelVersion, check_model_name, tags_of

from .call import MODEL_NOT_FOUND, TAG_NOT_FOUND, Call, Page, nothing, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_hsml.hopsworks.domain.project import Project


@dataclass(frozen=True, slots=True)
class Registry:
    """A model registry: the project's own, or one that another project shares with it."""

    id: int
    name: str
    """The name of the project that owns it."""


def get_registries(project: Project) -> Call[list[Registry]]:
    """List the registries that a project can read: its own and those shared with it."""
    return Call(
        "list the model registries",
        "GET",
        path_of("project", project.id, "modelregistries"),
        lambda data: [Registry(int(row["id"]), str(row["name"])) for row in data.get("items") or []],
        repeatable=True,
    )


def _models(project: Project, registry: Registry | None, *more: str | int) -> str:
    owner = project.id if registry is None else registry.id
    return path_of("project", project.id, "modelregistries", owner, "models", *more)


def _reader(project: Project, registry: Registry | None) -> Callable[[Mapping[str, Any]], ModelVersion]:
    if registry is None:
        return lambda data: ModelVersion.from_json(data, project=project.name, registry_id=project.id)
    # Whichever project the response names: the models of a registry belong to the project that owns the registry.
    return lambda data: replace(
        ModelVersion.from_json(data, project=registry.name, registry_id=registry.id), project=registry.name
    )


def get_model(
    project: Project, name: str, version: int, *, registry: Registry | None = None
) -> Call[ModelVersion | None]:
    """
    Get one version of a model; None when it does not exist.

    :param registry: the registry to read; None for the project's own
    """
    read = _reader(project, registry)
    return Call(
        f"get version {version} of model {name!r}",
        "GET",
        _models(project, registry, f"{check_model_name(name)}_{int(version)}"),
        lambda data: data and read(data),
        query=(("expand", "trainingdatasets"), ("expand", "mandatorytags")),
        repeatable=True,
        absent=frozenset({MODEL_NOT_FOUND}),
    )


def get_models(
    project: Project,
    name: str | None = None,
    *,
    sort_by: str | None = None,
    direction: Direction = Direction.MAX,
    limit: int | None = None,
    offset: int = 0,
    registry: Registry | None = None,
) -> Call[Page[ModelVersion]]:
    """
    List versions of models.

    :param name: return versions of this model only
    :param sort_by: a metric; versions without it are listed last
    :param direction: the end of the metric that comes first
    :param limit: maximum number of versions
    :param offset: number of rows to skip
    :param registry: the registry to read; None for the project's own
    """
    read = _reader(project, registry)
    order = "desc" if direction is Direction.MAX else "asc"
    query = [("expand", "trainingdatasets")]
    query += [("filter_by", f"name_eq:{check_model_name(name)}")] if name is not None else []
    query += [("sort_by", f"{check_model_name(sort_by)}:{order}")] if sort_by is not None else []
    query += [("limit", str(limit))] if limit is not None else []
    query += [("offset", str(offset))] if offset else []
    return Call(
        "list models" if name is None else f"list the versions of model {name!r}",
        "GET",
        _models(project, registry),
        lambda data: Page([read(row) for row in data.get("items") or []], int(data.get("count") or 0)),
        query=tuple(query),
        repeatable=True,
    )


def put_model(project: Project, name: str, version: int, description: Mapping[str, Any]) -> Call[ModelVersion]:
    """
    Register a version whose files are uploaded already.

    :param description: framework, metrics and other properties, by their keys in the request
    """
    model_id = f"{check_model_name(name)}_{int(version)}"
    return Call(
        f"register version {version} of model {name!r}",
        "PUT",
        _models(project, None, model_id),
        _reader(project, None),
        body={"id": model_id, "projectName": project.name, "name": name, "version": version, **description},
        is_write_slow=True,
    )


def delete_model(project: Project, name: str, version: int) -> Call[None]:
    """Delete a version with its files. A missing version counts as deleted."""
    return Call(
        f"delete version {version} of model {name!r}",
        "DELETE",
        _models(project, None, f"{check_model_name(name)}_{int(version)}"),
        nothing,
        repeatable=True,
        absent=frozenset({MODEL_NOT_FOUND}),
    )


def get_model_tags(
    project: Project, name: str, version: int, *, registry: Registry | None = None
) -> Call[dict[str, Any]]:
    """
    Read the tags of a version as name -> value; empty on a server without tags, too.

    :param registry: the registry to read; None for the project's own
    """
    return Call(
        f"read the tags of version {version} of model {name!r}",
        "GET",
        _models(project, registry, f"{check_model_name(name)}_{int(version)}", "tags"),
        tags_of,
        repeatable=True,
        absent=frozenset({TAG_NOT_FOUND}),
        optional=True,
    )


def put_model_tag(project: Project, name: str, version: int, tag: str, value: Any) -> Call[None]:
    """
    Set a tag of a version, or replace its value.

    :param tag: the tag's name, which must have a schema in Hopsworks
    :param value: any JSON value that the tag's schema allows
    """
    return Call(
        f"set tag {tag!r} of version {version} of model {name!r}",
        "PUT",
        _models(project, None, f"{check_model_name(name)}_{int(version)}", "tags", tag),
        nothing,
        body=value,
        repeatable=True,
    )
