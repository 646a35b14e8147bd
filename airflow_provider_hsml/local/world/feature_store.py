"""The feature store of a project: feature views with their training datasets, as tests declare them."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_hsml.local.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .accounts import Project

_FIRST_ID = 67 - 119
"""The feature store of the first project has the id 67, as in the SDK's own samples."""
_CREATED = "2024-01-01T00:00:00.000Z"
_NAME = re.compile(r"(?=.*[a-z])[a-z0-9_]+")
Columns: TypeAlias = "Mapping[str, str]"
"""Types by column name, in the words of the feature store: ``{"amount": "double"}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureView:
    """
    A feature view that exists on the server. Declare it with ``serving.world.declare``.

    :param features: the types of its features, without the labels
    :param labels: the types of its labels
    :param serving_keys: the types of the keys by which an online request finds an entity
    :param training_datasets: the versions of its training datasets
    :param entities: the rows of the online store, each with the serving keys and all features
    """

    name: str
    version: int = 1
    description: str = ""
    features: Columns = field(default_factory=dict)
    labels: Columns = field(default_factory=dict)
    serving_keys: Columns = field(default_factory=dict)
    training_datasets: Sequence[int] = ()
    entities: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"feature view {self.name!r}: expected lower case letters, digits and underscores.")

    def entity(self, keys: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the row of the online store with these serving keys; None if there is none."""
        wanted = {name: str(value) for name, value in keys.items()}
        return next((row for row in self.entities if {name: str(row.get(name)) for name in keys} == wanted), None)


class FeatureStore:
    """
    The feature views of one project. Thread-safe, since a change replaces the whole mapping.

    :param project: the owner
    :param file: keeps the views for the next server of this root
    """

    def __init__(self, project: Project, file: Path) -> None:
        self.id = project.id + _FIRST_ID
        self._project = project
        self._file = file
        rows = json.loads(file.read_text()) if file.exists() else []
        self._views = {(row["name"], row["version"]): FeatureView(**row) for row in rows}

    @property
    def name(self) -> str:
        """The name of the store: that of its project in lower case."""
        return f"{self._project.name.lower()}_featurestore"

    def declare(self, view: FeatureView) -> None:
        """Add a view, or replace the one of its name and version."""
        self._keep({**self._views, (view.name, view.version): view})

    def remove(self, name: str, version: int = 1) -> None:
        """Delete a view with its training datasets; models keep their link to it."""
        self._keep({key: view for key, view in self._views.items() if key != (name, version)})

    def clear(self) -> None:
        """Delete all views."""
        self._keep({})

    def _keep(self, views: dict[tuple[str, int], FeatureView]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps([dataclasses.asdict(view) for view in views.values()]))
        self._views = views

    def find(self, name: str, version: int) -> FeatureView | None:
        """Return a view; None if there is none."""
        return self._views.get((name, version))

    def get(self, name: str, version: int) -> FeatureView:
        """Return a view; refuse an unknown one with 270181."""
        view = self.find(name, version)
        if view is None:
            raise Refusal(270181, f"Feature view {name} version {version} not found.")
        return view

    def named(self, name: str | None = None) -> list[FeatureView]:
        """Return all versions of a view, or of all views; refuse an unknown name with 270181."""
        views = [view for view in self._views.values() if name in (None, view.name)]
        if name is not None and not views:
            raise Refusal(270181, f"Feature view {name} not found.")
        return sorted(views, key=lambda view: (view.name, view.version))

    # --- In the format of the REST API

    def on_the_wire(self) -> dict[str, Any]:
        """Return the store itself."""
        return {
            "featurestoreId": self.id,
            "featurestoreName": self.name,
            "created": _CREATED,
            "projectName": self._project.name,
            "projectId": self._project.id,
            "offlineFeaturestoreName": self.name,
            "onlineEnabled": True,
        }

    def view_on_the_wire(self, view: FeatureView) -> dict[str, Any]:
        """Return a view with its query, features and serving keys."""
        group = self._group(view)
        named = {key: group[key] for key in ("id", "name", "version", "featurestoreId", "type")}
        columns = {**view.features, **view.labels}
        return {
            "type": "featureViewDTO",
            "id": 1000 + view.version,
            "featurestoreId": self.id,
            "featurestoreName": self.name,
            "name": view.name,
            "version": view.version,
            "description": view.description,
            "created": _CREATED,
            "query": {
                "featureStoreName": self.name,
                "featureStoreId": self.id,
                "leftFeatureGroup": group,
                "leftFeatures": [_feature(name, kind) for name, kind in columns.items()],
                "joins": [],
                "hiveEngine": True,
            },
            "features": [
                {
                    "name": name,
                    "type": kind,
                    "index": index,
                    "label": name in view.labels,
                    "inferenceHelperColumn": False,
                    "trainingHelperColumn": False,
                    "featureGroupFeatureName": name,
                    "featuregroup": named,
                }
                for index, (name, kind) in enumerate(columns.items())
            ],
            "servingKeys": [
                {"featureName": name, "required": True, "prefix": "", "joinOn": None, "joinIndex": 0}
                | {"featureGroup": group}
                for name in view.serving_keys
            ],
            "loggingEnabled": False,
            "transformationFunctions": [],
        }

    def _group(self, view: FeatureView) -> dict[str, Any]:
        """Return the one feature group of a view: with its keys and its columns."""
        columns = {**view.serving_keys, **view.features, **view.labels}
        return {
            "type": "cachedFeaturegroupDTO",
            "id": 13,
            "featurestoreId": self.id,
            "featurestoreName": self.name,
            "name": f"{view.name}_group",
            "version": 1,
            "description": "",
            "onlineEnabled": True,
            "timeTravelFormat": "DELTA",
            "features": [
                {**_feature(name, kind), "primary": name in view.serving_keys} for name, kind in columns.items()
            ],
            "deprecated": False,
        }

    def dataset_on_the_wire(self, view: FeatureView, version: int) -> dict[str, Any]:
        """Return a training dataset."""
        return {
            "type": "trainingDatasetDTO",
            "id": 2000 + version,
            "name": f"{view.name}_{view.version}",
            "version": version,
            "featurestoreId": self.id,
            "featurestoreName": self.name,
            "created": _CREATED,
            "dataFormat": "parquet",
            "storageConnector": {
                "type": "featurestoreHopsfsConnectorDTO",
                "id": 1,
                "name": f"{self._project.name}_Training_Datasets",
                "featurestoreId": self.id,
                "storageConnectorType": "HOPSFS",
                "datasetName": f"{self._project.name}_Training_Datasets",
            },
            "splits": [],
            "statisticsConfig": {},
        }

    def links(self, model: Mapping[str, Any], levels: int) -> dict[str, Any]:
        """
        Return the provenance of a model: its training dataset, and above that the feature view.

        As in Hopsworks, a model without a training dataset has no link.

        :param model: as registered
        :param levels: how many levels to go up
        """
        recorded, dataset = model.get("featureView") or {}, model.get("trainingDatasetVersion")
        name, version = recorded.get("name"), recorded.get("version")
        identity = {"project": self._project.name, "name": model["name"], "version": model["version"]}
        itself = self._node("MODEL", identity)
        if not (name and version and dataset) or levels < 1:
            return itself
        view = self.find(name, version)
        above = self._node("FEATURE_VIEW", view and self.view_on_the_wire(view), name, version)
        is_there = view is not None and dataset in view.training_datasets
        below = self._node(
            "TRAINING_DATASET",
            self.dataset_on_the_wire(view, dataset) if view is not None and is_there else None,
            f"{name}_{version}",
            dataset,
        )
        return {**itself, "upstream": [{**below, "upstream": [above] if levels > 1 else []}]}

    def _node(self, kind: str, artifact: Any, name: str = "", version: int = 0) -> dict[str, Any]:
        """Return a node; one without an artifact was deleted, and is told by its name and version."""
        gone = {"project": self._project.name, "name": name, "version": version, "href": ""}
        node = {
            "artifact_type": kind,
            "accessible": artifact is not None,
            "deleted": artifact is None,
            "shared": False,
            "traversed": False,
            "artifact": gone if artifact is None else artifact,
        }
        return {"node": node, "upstream": [], "downstream": []}


def _feature(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "type": kind, "onlineType": kind, "primary": False, "partition": False, "featureGroupId": 13}
