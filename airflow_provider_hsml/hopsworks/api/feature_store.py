"""Endpoints of the feature store, and the provenance of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import wire
from airflow_provider_hsml.hopsworks.domain.feature_view import FeatureView, Provenance

from .call import Call, check_number, check_same, path_of, rows_of
from .registry import model_path

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.project import Project

    from .registry import Registry

_VIEW_NOT_FOUND = frozenset({270181})
_EXPANDED = tuple(("expand", part) for part in ("query", "features", "transformationfunctions"))
"""The parts that registering sends on. The SDK also asks for mandatorytags, to which 3.7 and 4.6 answer a bare 404."""


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """A feature store."""

    id: int
    name: str


def get_feature_store(project: Project) -> Call[FeatureStore]:
    """Get the project's own feature store."""
    name = f"{project.name.lower()}_featurestore"

    def read(data: Any) -> FeatureStore:
        row = wire.resource(data, {"featurestoreId": int, "featurestoreName": str}, {})
        return FeatureStore(row["featurestoreId"], row["featurestoreName"])

    return Call(
        f"get feature store {name!r}",
        "GET",
        path_of("project", project.id, "featurestores", name),
        read,
        repeatable=True,
    )


def _view_path(project: Project, store: FeatureStore, *more: str | int) -> str:
    return path_of("project", project.id, "featurestores", store.id, "featureview", *more)


def get_feature_view(project: Project, store: FeatureStore, name: str, version: int) -> Call[FeatureView | None]:
    """Get one version of a feature view; None when it does not exist."""

    def read(data: Any) -> FeatureView:
        found = FeatureView.from_json(data)
        check_same("Feature view", name, found.name)
        check_number("version", version, found.version)
        return found

    return Call(
        f"get version {version} of feature view {name!r}",
        "GET",
        _view_path(project, store, name, "version", version),
        read,
        query=_EXPANDED,
        repeatable=True,
        absent=_VIEW_NOT_FOUND,
    )


def get_feature_views(project: Project, store: FeatureStore, name: str) -> Call[list[FeatureView]]:
    """List all versions of a feature view; none when it does not exist."""

    def read(data: Any) -> list[FeatureView]:
        found = [FeatureView.from_json(row) for row in rows_of(data)]
        for view in found:
            check_same("Feature view", name, view.name)
        return found

    return Call(
        f"list the versions of feature view {name!r}",
        "GET",
        _view_path(project, store, name),
        read,
        query=_EXPANDED,
        repeatable=True,
        absent=_VIEW_NOT_FOUND,
        absence=[],
    )


def get_feature_view_names(project: Project, store: FeatureStore) -> Call[list[str]]:
    """List the names of all feature views of a store, in alphabetical order."""

    def read(data: Any) -> list[str]:
        return sorted({wire.resource(row, {"name": str}, {})["name"] for row in rows_of(data)})

    return Call("list the feature views", "GET", _view_path(project, store), read, repeatable=True)


def get_training_datasets(project: Project, store: FeatureStore, view: FeatureView) -> Call[list[int]]:
    """List the versions of a view's training datasets, in ascending order."""

    def read(data: Any) -> list[int]:
        return sorted(wire.resource(row, {"version": int}, {})["version"] for row in rows_of(data))

    return Call(
        f"list the training datasets of {view}",
        "GET",
        _view_path(project, store, view.name, "version", view.version, "trainingdatasets"),
        read,
        repeatable=True,
    )


def get_provenance(project: Project, name: str, version: int, *, registry: Registry | None = None) -> Call[Provenance]:
    """
    Read the feature view and the training dataset of a model version.

    :param registry: the registry to read; None for the project's own
    """
    return Call(
        f"read the provenance of version {version} of model {name!r}",
        "GET",
        model_path(project, registry, name, version, "provenance", "links"),
        Provenance.from_json,
        query=(("expand", "provenance_artifacts"), ("upstreamLvls", "2"), ("downstreamLvls", "0")),
        repeatable=True,
    )
