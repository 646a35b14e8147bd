"""Model versions of the Hopsworks Model Registry, and the choice of the best one by a metric."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.untrusted_text import clean_json

from . import arguments, wire

if TYPE_CHECKING:
    from collections.abc import Iterable

INPUT_EXAMPLE = "input_example.json"
"""A version's file with a request to send, beside the model's own files."""
EXPECTED = "expected.json"
"""A version's file with recorded requests and predictions, beside the model's own files."""
_PATH = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:(?://[^/]*)?)?/Projects/([^/]+)/Models/([^/]+)(?:/[0-9]+)?/?")
RECORDED = "the keys instances and predictions, lists of the same length and not empty"
"""The form of recorded answers, for messages."""


class Framework(StrEnum):
    """The framework that a model was made with. It decides which model server runs the model."""

    TENSORFLOW = "TENSORFLOW"
    TORCH = "TORCH"
    PYTHON = "PYTHON"
    SKLEARN = "SKLEARN"
    LLM = "LLM"

    @property
    def model_server(self) -> str:
        """The model server that Hopsworks runs such a model on."""
        return {"TENSORFLOW": "TENSORFLOW_SERVING", "LLM": "VLLM"}.get(self.value, "PYTHON")


class Direction(StrEnum):
    """The direction in which a metric gets better."""

    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model in the registry, as Hopsworks describes it."""

    name: str
    version: int
    id: str
    """Hopsworks' id: ``<name>_<version>``."""
    project: str
    """The project that owns the model."""
    registry_id: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """As registered. Read one with ``metric``, which rejects values that are no finite number."""
    framework: Framework | None = None
    description: str | None = None
    environment: str | None = None
    training_dataset_version: int | None = None
    feature_view: str | None = None
    """Name of the feature view it was trained on."""
    feature_view_version: int | None = None
    created: int | None = None
    """Milliseconds since 1970."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    """The tags in the response. Many servers return tags only from their own endpoint (``get_model_tags``)."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, project: str, registry_id: int) -> ModelVersion:
        """
        Build a model version from a response of the registry's endpoints.

        :param data: a ModelDTO
        :param project: the owner to assume if the response names none
        :param registry_id: the registry that was read
        :raises ValueError: ``data`` is not a model, or a key that our code reads has a wrong type
        """
        wire.resource(data, {"name": str, "version": int, "id": str}, _OPTIONAL)
        shown = clean_json({key: data.get(key) for key in ("metrics", "description", "environment", "featureView")})
        framework = data.get("framework")
        return cls(
            name=data["name"],
            version=data["version"],
            id=data["id"],
            project=data.get("projectName") or project,
            registry_id=data.get("modelRegistryId") or registry_id,
            metrics=_metrics(shown["metrics"]),
            framework=Framework(framework) if framework in set(Framework) else None,
            description=shown["description"],
            environment=shown["environment"],
            training_dataset_version=data.get("trainingDatasetVersion") or None,
            feature_view=(shown["featureView"] or {}).get("name"),
            feature_view_version=(shown["featureView"] or {}).get("version"),
            created=data.get("created"),
            tags=tags_of((data.get("tags") or {}).get("items") or []),
        )

    @property
    def path(self) -> str:
        """The model's folder in the project's files, which has one folder per version."""
        return f"/Projects/{self.project}/Models/{self.name}"

    def metric(self, name: str) -> float | None:
        """Return a metric as a number; None when it is missing or no finite number."""
        value = self.metrics.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            number = float(value)
        except OverflowError:  # A whole number of more than 308 digits.
            return None
        return number if math.isfinite(number) else None


_OPTIONAL: dict[str, wire.Shape] = {
    **dict.fromkeys(("projectName", "framework", "description", "environment"), str),
    **dict.fromkeys(("modelRegistryId", "trainingDatasetVersion", "created"), int),
    "metrics": dict,
    "featureView": {"name": str, "version": int},
    "tags": {"items": [dict]},
}
"""Types of the keys that our code reads in a model version, beside those that identify it."""


def _metrics(data: dict[str, Any] | None) -> Mapping[str, Any]:
    """Read metrics, which some servers wrap into ``attributes``."""
    attributes = (data or {}).get("attributes")
    return attributes if isinstance(attributes, dict) else data or {}


def tags_of(rows: Iterable[Any]) -> dict[str, Any]:
    """
    Read tags as name -> value. In the response, each value is JSON text.

    :param rows: ``{"name", "value"}`` of each
    :raises ValueError: a row is not a tag
    """
    tags = {row["name"]: tag_value(row.get("value")) for row in rows if wire.resource(row, {"name": str}, {})}
    return clean_json(tags)  # type: ignore[no-any-return]


def tag_value(value: Any) -> Any:
    """
    Parse the value of a tag.

    :param value: JSON text; any other string is returned unchanged
    """
    try:
        return wire.load(value) if isinstance(value, str) else value
    except ValueError:
        return value


def check_model_name(name: object) -> str:
    """
    Return the name of a model if it is valid in the registry.

    :raises InvalidInputError: the name is invalid
    """
    return arguments.model_name("Model name", name)


def best_of(models: Iterable[ModelVersion], metric: str, direction: Direction) -> ModelVersion | None:
    """
    Return the version with the best value of a metric; of equal values, the newest version.

    Versions without a finite value do not take part. The server's own sorting would return them, too.

    :param models: the versions to choose from
    :return: None when no version has the metric
    """
    sign = 1 if direction is Direction.MAX else -1
    ranked = [(sign * value, model.version, model) for model in models if (value := model.metric(metric)) is not None]
    return max(ranked, key=lambda row: row[:2])[2] if ranked else None


def model_of_path(path: object) -> tuple[str, str] | None:
    """
    Return project and name of a model from the path of its folder, in any form that servers return it in.

    :param path: with or without a scheme, the folder of a version, and a slash at the end
    :return: None for any other path
    """
    found = _PATH.fullmatch(path) if isinstance(path, str) else None
    return None if found is None else (found[1], found[2])


def is_recorded(data: object) -> bool:
    """Return whether a value has the form of recorded answers: rows, and one prediction for each."""
    if not isinstance(data, Mapping):
        return False
    rows, answers = data.get("instances"), data.get("predictions")
    return isinstance(rows, list) and isinstance(answers, list) and 0 < len(rows) == len(answers)
