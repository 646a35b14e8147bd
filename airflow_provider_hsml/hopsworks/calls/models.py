"""The model registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_provider_hsml.hopsworks.models import Direction, ModelVersion, check_model_name

from .wire import Call, nothing, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .projects import Project

T = TypeVar("T")

MODEL_NOT_FOUND = 360000


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a list, and how many there are in all."""

    items: list[T]
    count: int


def _models(project: Project, *more: str | int) -> str:
    return path_of("project", project.id, "modelregistries", project.id, "models", *more)


def get_model(project: Project, name: str, version: int) -> Call[ModelVersion | None]:
    """
    Get one version of a model; None when it is not there.

    :param project: the project that owns it
    :param name: the model's name
    :param version: the version's number
    """
    return Call(
        f"get version {version} of model {name!r}",
        "GET",
        _models(project, f"{check_model_name(name)}_{int(version)}"),
        lambda data: data and ModelVersion.from_json(data, project=project.name, registry_id=project.id),
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
) -> Call[Page[ModelVersion]]:
    """
    List versions of models.

    :param project: the project that owns them
    :param name: of one model only
    :param sort_by: a metric; versions without it come last, but they come
    :param direction: which end of the metric comes first
    :param limit: how many at the most
    :param offset: how many to leave out
    """
    order = "desc" if direction is Direction.MAX else "asc"
    query = [("expand", "trainingdatasets")]
    query += [("filter_by", f"name_eq:{check_model_name(name)}")] if name is not None else []
    query += [("sort_by", f"{check_model_name(sort_by)}:{order}")] if sort_by is not None else []
    query += [("limit", str(limit))] if limit is not None else []
    query += [("offset", str(offset))] if offset else []
    return Call(
        "list models" if name is None else f"list the versions of model {name!r}",
        "GET",
        _models(project),
        lambda data: Page(
            [
                ModelVersion.from_json(row, project=project.name, registry_id=project.id)
                for row in data.get("items") or []
            ],
            int(data.get("count") or 0),
        ),
        query=tuple(query),
        repeatable=True,
    )


def put_model(project: Project, name: str, version: int, description: Mapping[str, Any]) -> Call[ModelVersion]:
    """
    Put a version, whose files lie there already, into the registry.

    :param project: the project that owns it
    :param name: the model's name
    :param version: its number
    :param description: framework, metrics, and what else is known of it, by their keys on the wire
    """
    model_id = f"{check_model_name(name)}_{int(version)}"
    return Call(
        f"register version {version} of model {name!r}",
        "PUT",
        _models(project, model_id),
        lambda data: ModelVersion.from_json(data, project=project.name, registry_id=project.id),
        body={"id": model_id, "projectName": project.name, "name": name, "version": version, **description},
        is_write_slow=True,
    )


def delete_model(project: Project, name: str, version: int) -> Call[None]:
    """
    Delete a version with its files. One that is not there is deleted already.

    :param project: the project that owns it
    :param name: the model's name
    :param version: its number
    """
    return Call(
        f"delete version {version} of model {name!r}",
        "DELETE",
        _models(project, f"{check_model_name(name)}_{int(version)}"),
        nothing,
        repeatable=True,
        absent=frozenset({MODEL_NOT_FOUND}),
    )
