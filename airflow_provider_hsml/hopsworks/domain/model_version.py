"""Versions of models in the Hopsworks Model Registry, and the best of several by a metric."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from . import arguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Framework(StrEnum):
    """What a model was made with; decides which model server runs it."""

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
    """Which end of a metric is the good one."""

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
    """As registered. Read one with ``metric``, which knows what is a number."""
    framework: Framework | None = None
    description: str | None = None
    environment: str | None = None
    training_dataset_version: int | None = None
    feature_view: str | None = None
    """Name of the feature view it was trained on."""
    created: int | None = None
    """Milliseconds since 1970."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Those that the answer carries: many servers give them only when they are asked for (``get_model_tags``)."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, project: str, registry_id: int) -> ModelVersion:
        """
        Read a model as the registry's REST endpoints give it.

        :param data: a ModelDTO
        :param project: the project to assume where the answer does not name one
        :param registry_id: the registry that was asked
        :raises KeyError, TypeError, ValueError: ``data`` is not a model
        """
        framework = data.get("framework")
        return cls(
            name=str(data["name"]),
            version=int(data["version"]),
            id=str(data["id"]),
            project=data.get("projectName") or project,
            registry_id=data.get("modelRegistryId") or registry_id,
            metrics=_metrics(data.get("metrics")),
            framework=Framework(framework) if framework in set(Framework) else None,
            description=data.get("description"),
            environment=data.get("environment"),
            training_dataset_version=data.get("trainingDatasetVersion") or None,
            feature_view=view.get("name") if isinstance(view := data.get("featureView"), dict) else None,
            created=data.get("created"),
            tags=tags_of(data.get("tags")),
        )

    @property
    def path(self) -> str:
        """Where the model lies in the project's files; its versions are the folders in it."""
        return f"/Projects/{self.project}/Models/{self.name}"

    def metric(self, name: str) -> float | None:
        """
        Give one metric as a number; None when this version has not got it, or it is not a finite number.

        :param name: the metric's name
        """
        value = self.metrics.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value)


def _metrics(data: Any) -> Mapping[str, Any]:
    """Read metrics, which some backends wrap into ``attributes``."""
    if not isinstance(data, dict):
        return {}
    attributes = data.get("attributes")
    return attributes if isinstance(attributes, dict) else data


def tags_of(data: Any) -> dict[str, Any]:
    """
    Read tags: name -> value, where the value is JSON as text on the wire.

    :param data: ``{"items": [{"name", "value"}]}``, or nothing
    """
    rows = data.get("items") or [] if isinstance(data, dict) else []
    return {str(row["name"]): tag_value(row.get("value")) for row in rows}


def tag_value(value: Any) -> Any:
    """
    Read the value of a tag.

    :param value: JSON as text, or a text that is none
    """
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def check_model_name(name: object) -> str:
    """
    Give a model's name back when the registry can have such a name.

    :param name: what was given as a name
    :raises InvalidInputError: otherwise
    """
    return arguments.model_name("Model name", name)


def best_of(models: Iterable[ModelVersion], metric: str, direction: Direction) -> ModelVersion | None:
    """
    Choose the version with the best value of a metric; of several equal ones the newest.

    Versions without the metric, or with one that is no finite number, do not take part: the server's own sorting
    returns them all the same.

    :param models: the versions to choose from
    :param metric: name of the metric
    :param direction: which end is the good one
    :return: None when no version has the metric
    """
    sign = 1 if direction is Direction.MAX else -1
    ranked = [(sign * value, model.version, model) for model in models if (value := model.metric(metric)) is not None]
    return max(ranked, key=lambda row: row[:2])[2] if ranked else None


INPUT_EXAMPLE = "input_example.json"


EXPECTED = "expected.json"
