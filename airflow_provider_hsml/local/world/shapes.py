"""The types of the fields in registrations of models and in configurations, checked when a request arrives."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_hsml.local.errors import malformed


class _Amount:
    """A number from 0, with or without a fraction."""


_RESOURCES = {"cores": _Amount, "memory": _Amount, "gpus": int}
_ENVIRONMENT = {"name": str}
_SCALING = {"minInstances": int, "maxInstances": int}
_SHAPES: dict[str, dict[str, Any]] = {
    "predictorResources": {"requests": _RESOURCES, "limits": _RESOURCES},
    "transformerResources": {"requests": _RESOURCES, "limits": _RESOURCES},
    "predictorScalingConfig": _SCALING,
    "transformerScalingConfig": _SCALING,
    "environmentDTO": _ENVIRONMENT,
    "predictorEnvironment": _ENVIRONMENT,
    "transformerEnvironment": _ENVIRONMENT,
    "kafkaTopicDTO": {"name": str},
    "batchingConfiguration": {"batchingEnabled": bool, "maxBatchSize": int, "maxLatency": int, "timeout": int},
}
_MODEL: dict[str, Any] = {
    **dict.fromkeys(("id", "name", "projectName", "description", "framework", "environment", "program"), str),
    **dict.fromkeys(("experimentId", "experimentProjectName", "userFullName", "type", "href"), str),
    **dict.fromkeys(("version", "trainingDatasetVersion", "created", "modelRegistryId"), int),
    **{key: {} for key in ("modelSchema", "inputExample", "trainingDataset", "creator")},
    "featureView": {"name": str, "version": int, "featurestoreId": int},
}
_WORDS = {bool: "true or false", str: "a text", int: "a whole number from 0", _Amount: "a number from 0"}


def check_shapes(config: dict[str, Any]) -> None:
    """Check the nested objects in a configuration; null and unknown fields are ignored."""
    for name, shape in _SHAPES.items():
        _check(name, config[name], shape)


def check_model(body: dict[str, Any]) -> None:
    """Check the fields of a registration; null and unknown fields are ignored."""
    for name, shape in _MODEL.items():
        _check(name, body.get(name), shape)


def _check(name: str, value: Any, shape: Any) -> None:
    if value is None:
        return
    if not isinstance(shape, dict):
        if not _is(value, shape):
            raise malformed(f"{name} {json.dumps(value)[:100]} is not {_WORDS[shape]}.")
        return
    if not isinstance(value, dict):
        raise malformed(f"{name} {json.dumps(value)[:100]} is not an object.")
    for key, inner in shape.items():
        _check(f"{name}.{key}", value.get(key), inner)


def _is(value: Any, kind: type) -> bool:
    if kind in (bool, str):
        return isinstance(value, kind)
    numbers = int if kind is int else int | float
    return isinstance(value, numbers) and not isinstance(value, bool) and 0 <= value < 2**53
