"""Endpoints of the model registry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments, wire
from airflow_provider_hsml.hopsworks.domain.model_version import Direction, ModelVersion, check_model_name, tags_of

from .call import (
    MODEL_NOT_FOUND,
    TAG_NOT_FOUND,
    Call,
    MissingRoute,
    Page,
    check_number,
    check_same,
    page_of,
    path_of,
    rows_of,
)

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
        lambda data: [_registry(row) for row in rows_of(data)],
        repeatable=True,
    )


def _registry(data: Any) -> Registry:
    row = wire.resource(data, {"id": int, "name": str}, {})
    return Registry(row["id"], row["name"])


def _models(project: Project, registry: Registry | None, *more: str | int) -> str:
    owner = project.id if registry is None else registry.id
    return path_of("project", project.id, "modelregistries", owner, "models", *more)


def _reader(
    project: Project, registry: Registry | None, name: str | None = None, version: int | None = None
) -> Callable[[Any], ModelVersion]:
    """Return the reader of a version, which has this name and number if they are known."""
    owner = registry or project

    def read(data: Any) -> ModelVersion:
        found = ModelVersion.from_json(data, project=owner.name, registry_id=owner.id)
        # The models of a registry belong to the project that owns it, also where the response names the reader's.
        if found.project not in (owner.name, project.name) or found.registry_id not in (owner.id, project.id):
            message = f"it is of project {found.project!r}, registry {found.registry_id}"
            raise wire.FormError(message)
        found = replace(found, project=owner.name, registry_id=owner.id)
        check_same("Model", found.name if name is None else name, found.name)
        check_number("version", found.version if version is None else version, found.version)
        return found

    return read


def _model_id(name: str, version: int) -> str:
    """Return the id of a model version, from a name and a number that are checked."""
    return f"{check_model_name(name)}_{arguments.integer('version', version, least=1)}"


def model_path(project: Project, registry: Registry | None, name: str, version: int, *more: str) -> str:
    """
    Return the path of a model version, or of a part of it.

    :param registry: the registry of the model; None for the project's own
    """
    return _models(project, registry, _model_id(name, version), *more)


def get_model(
    project: Project, name: str, version: int, *, registry: Registry | None = None
) -> Call[ModelVersion | None]:
    """
    Get one version of a model; None when it does not exist.

    :param registry: the registry to read; None for the project's own
    """
    model_id = _model_id(name, version)
    return Call(
        f"get version {version} of model {name!r}",
        "GET",
        _models(project, registry, model_id),
        _reader(project, registry, name, int(version)),
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
    List versions of models. A version that cannot be read is logged and left out.

    :param name: return versions of this model only
    :param sort_by: a metric; versions without it are listed last
    :param direction: the end of the metric that comes first
    :param limit: maximum number of versions
    :param offset: number of rows to skip
    :param registry: the registry to read; None for the project's own
    """
    if name is not None:
        check_model_name(name)
    what = "list models" if name is None else f"list the versions of model {name!r}"
    read = _reader(project, registry, name)
    order = "desc" if direction is Direction.MAX else "asc"
    query = [("expand", "trainingdatasets")]
    query += [("filter_by", f"name_eq:{name}")] if name is not None else []
    query += [("sort_by", f"{check_model_name(sort_by)}:{order}")] if sort_by is not None else []
    query += [("limit", str(limit))] if limit is not None else []
    query += [("offset", str(offset))] if offset else []
    return Call(
        what,
        "GET",
        _models(project, registry),
        lambda data: page_of(what, data, read, offset=offset),
        query=tuple(query),
        repeatable=True,
    )


def put_model(project: Project, name: str, version: int, description: Mapping[str, Any]) -> Call[ModelVersion]:
    """
    Register a version whose files are uploaded already.

    :param description: framework, metrics and other properties, by their keys in the request
    """
    model_id = _model_id(name, version)
    return Call(
        f"register version {version} of model {name!r}",
        "PUT",
        _models(project, None, model_id),
        _reader(project, None, name, int(version)),
        body={"id": model_id, "projectName": project.name, "name": name, "version": version, **description},
        is_write_slow=True,
    )


def delete_model(project: Project, name: str, version: int) -> Call[None]:
    """Delete a version with its files. A missing version counts as deleted."""
    model_id = _model_id(name, version)
    return Call(
        f"delete version {version} of model {name!r}",
        "DELETE",
        _models(project, None, model_id),
        None,
        repeatable=True,
        absent=frozenset({MODEL_NOT_FOUND}),
    )


def get_model_tags(
    project: Project, name: str, version: int, *, registry: Registry | None = None
) -> Call[dict[str, Any] | MissingRoute]:
    """
    Read the tags of a version as name -> value.

    :param registry: the registry to read; None for the project's own
    """
    model_id = _model_id(name, version)
    return Call(
        f"read the tags of version {version} of model {name!r}",
        "GET",
        _models(project, registry, model_id, "tags"),
        lambda data: tags_of(rows_of(data)),
        repeatable=True,
        absent=frozenset({TAG_NOT_FOUND}),
        absence={},
        optional="tags of models",
    )


def put_model_tag(project: Project, name: str, version: int, tag: str, value: Any) -> Call[None]:
    """
    Set a tag of a version, or replace its value.

    :param tag: the tag's name, which must have a schema in Hopsworks
    :param value: any JSON value that the tag's schema allows
    """
    model_id = _model_id(name, version)
    return Call(
        f"set tag {tag!r} of version {version} of model {name!r}",
        "PUT",
        _models(project, None, model_id, "tags", tag),
        None,
        body=value,
        repeatable=True,
    )
