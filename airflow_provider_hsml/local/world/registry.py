"""The Model Registry: versions of models, with their metrics. Their files are in the project's ``Models`` dataset."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import Refusal, malformed

from . import tags
from .shapes import check_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hsml.local.lines import Line
    from airflow_provider_hsml.local.store import Store

    from .accounts import Project
    from .files import ProjectFiles

_NAME = re.compile(r"[a-zA-Z0-9_]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|NaN|Infinity)")
_KEPT = ("description", "environment", "program", "experimentId", "experimentProjectName", "featureView")
FIELDS = frozenset(
    {*_KEPT, "id", "name", "version", "projectName", "framework", "metrics", "trainingDatasetVersion", "tags"}
    # Fields that the server sets, or that clients send without effect: accepted without a warning.
    | {"modelSchema", "inputExample", "trainingDataset", "created", "creator", "userFullName", "type", "href", "items"}
    | {"count", "expand", "modelRegistryId", "sharedRegistryProjectName"},
)


class Registry:
    """
    The model registry of one project.

    :param line: the Hopsworks line to emulate
    :param schemas: of tags
    """

    def __init__(self, project: Project, store: Store, files: ProjectFiles, line: Line, schemas: tags.Schemas) -> None:
        self.project = project
        self._store = store
        self._files = files
        self._line = line
        self._schemas = schemas

    def put(self, model_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """
        Register a version whose files have been uploaded, or replace its metadata.

        :param model_id: ``{name}_{version}``
        :param body: in the format of the REST API
        :return: the model, in the format of the REST API
        """
        name, version = split_id(model_id)
        if not _NAME.fullmatch(name):
            raise malformed("Model name must conform to regex: [a-zA-Z0-9_]+")
        check_model(body)
        if body.get("name", name) != name or body.get("version", version) != version:
            raise malformed(f"The body is of model {body.get('name')}_{body.get('version')}, the path of {model_id}.")
        framework = self._framework(body.get("framework"))
        folder = f"Models/{name}/{version}"
        if not self._files.exists(folder):
            raise Refusal(110018, f"{folder} not found: upload the model's files before registering it.")
        document = {
            **{key: body[key] for key in _KEPT if body.get(key) is not None},
            "name": name,
            "version": version,
            "framework": framework,
            "metrics": _metrics(body.get("metrics")),
            "trainingDatasetVersion": body.get("trainingDatasetVersion") or 0,
            "tags": tags.read(body.get("tags"), self._schemas),
        }
        with self._store.transaction():
            known = self._store.model(self.project.id, name, version) or {}
            if "tags" not in body:
                document["tags"] = known.get("tags", [])
            document["created"] = known.get("created", int(time.time() * 1000))
            self._store.put_model(self.project.id, name, version, document)
        return self._on_the_wire(document)

    def get(self, model_id: str) -> dict[str, Any]:
        """Return one version, in the format of the REST API; refuse an unknown one with 360000."""
        return self._on_the_wire(self._document(model_id))

    def tags_of(self, model_id: str) -> tags.Tags:
        """Return the tags of one version."""
        existing: tags.Tags = self._document(model_id)["tags"]
        return existing

    def set_tags(self, model_id: str, now: tags.Tags) -> None:
        """Replace the tags of one version."""
        self._change(model_id, tags=list(now))

    def change_framework(self, model_id: str, framework: Any) -> dict[str, Any]:
        """Change the framework of one version."""
        if framework is None:
            raise malformed("framework is missing.")
        return self._on_the_wire(self._change(model_id, framework=self._framework(framework)))

    def _document(self, model_id: str) -> dict[str, Any]:
        document = self._store.model(self.project.id, *split_id(model_id))
        if document is None:
            raise Refusal(360000, f"Model {model_id} not found.")
        return document

    def _change(self, model_id: str, **fields: Any) -> dict[str, Any]:
        with self._store.transaction():
            document = self._document(model_id) | fields
            self._store.put_model(self.project.id, *split_id(model_id), document)
        return document

    def _framework(self, name: Any) -> Any:
        known = self._line.frameworks
        if name is not None and name not in known:
            raise malformed(f"Framework {name!r} is not known: expected one of {', '.join(known)}.")
        return name

    def find(
        self, filters: Sequence[str] = (), sort_by: str | None = None, limit: int = 0, offset: int = 0
    ) -> dict[str, Any]:
        """
        Return versions, in the format of the REST API.

        :param filters: ``name_eq:X``, ``name_like:X``, ``version:N``, ``latest_version``; all must match
        :param sort_by: ``name`` or a metric, with ``:asc`` or ``:desc``; versions without the metric come last
        :param limit: the maximum number of versions; 0 for all
        :param offset: the number of versions to skip
        :return: ``count`` is the number of all matching versions; ``items`` is missing if there are none
        """
        rows = self._store.models(self.project.id)
        newest = {row["name"]: row["version"] for row in rows}
        for text in filters:
            key, _, value = text.partition(":")
            match key.lower():
                case "name_eq":
                    rows = [row for row in rows if row["name"] == value]
                case "name_like":
                    rows = [row for row in rows if value in row["name"]]
                case "version":
                    rows = [row for row in rows if str(row["version"]) == value]
                case "latest_version":
                    rows = [row for row in rows if row["version"] == newest[row["name"]]]
                case _:
                    raise malformed(f"Filter {text!r} is not known.")
        if sort_by:
            rows = _sorted(rows, sort_by)
        href = f"/hopsworks-api/api/project/{self.project.id}/modelregistries/{self.project.id}/models"
        shown = rows[max(offset, 0) :][: limit if limit > 0 else None]
        items = {"items": [self._on_the_wire(row) for row in shown]} if shown else {}
        return {"href": href, "count": len(rows), **items}

    def delete(self, model_id: str) -> None:
        """Delete a version and its files. An unknown version of a known model is no error; an unknown model is."""
        name, version = split_id(model_id)
        if not any(row["name"] == name for row in self._store.models(self.project.id)):
            raise Refusal(360000, f"Model {name} not found.")
        self._store.delete_model(self.project.id, name, version)
        if self._files.exists(f"Models/{name}/{version}"):
            self._files.delete(f"Models/{name}/{version}")

    def _on_the_wire(self, document: dict[str, Any]) -> dict[str, Any]:
        model_id = f"{document['name']}_{document['version']}"
        href = f"/hopsworks-api/api/project/{self.project.id}/modelregistries/{self.project.id}/models/{model_id}"
        folder = f"Models/{document['name']}/{document['version']}"
        known_files = {
            key: {"href": f"/hopsworks-api/api/project/{self.project.id}/dataset/{folder}/{file}"}
            for key, file in (("inputExample", "input_example.json"), ("modelSchema", "model_schema.json"))
            if self._files.exists(f"{folder}/{file}")
        }
        shown = {
            **document,
            **known_files,
            "href": href,
            "id": model_id,
            "type": "modelDTO",
            "projectName": self.project.name,
            "modelRegistryId": self.project.id,
            "creator": {"firstname": "Local", "lastname": "User"},
            "userFullName": "Local User",
            "tags": {"href": f"{href}/tags", **tags.on_the_wire(document["tags"])},
            "missingMandatoryTags": [] if self._line.knows("missingMandatoryTags") else None,
        }
        return {key: value for key, value in shown.items() if value is not None}


def split_id(model_id: str) -> tuple[str, int]:
    """Split ``{name}_{version}`` at the last underscore."""
    name, underscore, version = model_id.rpartition("_")
    if not underscore or not (version.isascii() and version.isdecimal()) or len(version) > 9:
        raise malformed(f"Model id {model_id!r} is not valid: expected <name>_<version>.")
    return name, int(version)


def _metrics(value: Any) -> dict[str, float] | None:
    """Parse metrics: an object of numbers, or of texts that are numbers."""
    if value is None:
        return None
    attributes = value.get("attributes", value) if isinstance(value, dict) else None
    if not isinstance(attributes, dict):
        raise malformed(f"metrics: expected an object of numbers, got {json.dumps(value)[:100]}.")
    if not all(_is_number(number) for number in attributes.values()):
        raise Refusal(360002, f"metrics: expected numbers, got {json.dumps(value)[:100]}.")
    metrics = {name: float(number) for name, number in attributes.items()}
    return metrics or None


def _is_number(value: Any) -> bool:
    """Whether a metric is a number, or a text that is one; an integer beyond a double's range is none."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return isinstance(value, float) or (type(value) is int and abs(value) <= sys.float_info.max)


def _sorted(rows: list[dict[str, Any]], sort_by: str) -> list[dict[str, Any]]:
    key, _, direction = sort_by.partition(":")
    if direction.lower() not in ("", "asc", "desc"):
        raise Refusal(360000, f"sort_by {sort_by!r}: expected :asc or :desc.")
    descending = direction.lower() == "desc"
    if key.lower() == "name":
        return sorted(rows, key=lambda row: str(row["name"]), reverse=descending)
    having = [row for row in rows if key in (row["metrics"] or {})]
    lacking = [row for row in rows if key not in (row["metrics"] or {})]
    return sorted(having, key=lambda row: _rank(row["metrics"][key]), reverse=descending) + lacking


def _rank(value: float) -> float:
    """Return the sort key of a metric: NaN sorts as infinity, the worst case for clients."""
    return math.inf if math.isnan(value) else value
