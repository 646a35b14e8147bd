"""Feature views, by which models are trained, and the provenance of a model. Values, without I/O."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.untrusted_text import clean

from . import arguments, wire
from .plain import from_text

_NAME = re.compile(r"(?=.*[a-z])[a-z0-9_]+")
_AS_REGISTERED = (
    *("featurestoreId", "name", "version", "description", "query", "features", "loggingEnabled"),
    *("transformationFunctions", "type", "extraLogColumns"),
)
"""
The keys of a view that Hopsworks' SDK sends with a model; those of ``_WHEN_SET``, and ``tags``, only if they have a
value.
"""
_WHEN_SET = ("maxFeatureAgeSecs",)


@dataclass(frozen=True, slots=True)
class ViewName:
    """The name of a feature view, and the version if one is named."""

    name: str
    version: int | None = None

    @classmethod
    def read(cls, view: object, version: object = None) -> Self:
        """
        Read the arguments ``feature_view`` and ``feature_view_version``.

        :param view: a name, or a mapping of ``name`` and ``version``, also as JSON text
        :param version: a whole number of 1 or more; None if the mapping has it, or the view has one version only
        :raises InvalidInputError: an argument is wrong, or both name a version, and not the same
        """
        if isinstance(view, str) and view.lstrip().startswith("{"):
            view = from_text("feature_view", view, '"transactions_view"')
        number = None if version is None else arguments.integer("feature_view_version", version, least=1)
        if isinstance(view, Mapping):
            given = arguments.mapping("feature_view", view, ("name", "version"))
            view = given.get("name")
            if given.get("version") is not None:
                inner = arguments.integer("feature_view.version", given["version"], least=1)
                if number not in (None, inner):
                    arguments.refuse("feature_view_version", f"the version in feature_view, {inner}", version)
                number = inner
        if not isinstance(view, str) or not _NAME.fullmatch(view):
            arguments.refuse("feature_view", "a name of lower case letters, digits and underscores", view)
        return cls(view, number)

    def __str__(self) -> str:
        """Return name and version, for messages."""
        return f"feature view {self.name!r}" + ("" if self.version is None else f" version {self.version}")


def read_arguments(given: dict[str, Any]) -> ViewName | None:
    """
    Take the arguments of a feature view out of the arguments of a registration.

    :param given: the arguments by name; ``feature_view_version`` is removed
    :return: None without a feature view
    :raises InvalidInputError: an argument is wrong, or there is a version without a view
    """
    version, view = given.pop("feature_view_version", None), given.pop("feature_view", None)
    if view is None and version is not None:
        message = "feature_view_version: it needs a feature_view.\nName the feature view, or leave the version out."
        raise InvalidInputError(message)
    return None if view is None else ViewName.read(view, version)


@dataclass(frozen=True, slots=True)
class FeatureView:
    """One version of a feature view, as the feature store describes it."""

    name: str
    version: int
    serving_keys: tuple[str, ...] = ()
    """The names that a request gives these keys."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The whole response."""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """
        Build a view from a response of the feature store.

        :raises ValueError: ``data`` is not a feature view, or a key that our code reads has a wrong type
        """
        wire.resource(data, {"name": str, "version": int, "featurestoreId": int}, _OPTIONAL)
        wire.sendable(data)
        keys = [_required_key(key) for key in data.get("servingKeys") or []]
        return cls(data["name"], data["version"], tuple(dict.fromkeys(key for key in keys if key)), data)

    def as_registered(self) -> dict[str, Any]:
        """Return the view in the form in which Hopsworks' SDK sends it with a model."""
        always = {key: self.raw.get(key) for key in _AS_REGISTERED}
        tags = _tags_as_sent(self.raw.get("tags"))
        return (
            always
            | {key: self.raw[key] for key in _WHEN_SET if self.raw.get(key) is not None}
            | ({"tags": {"count": len(tags), "items": tags}} if tags else {})
        )

    def model_schema(self) -> dict[str, Any] | None:
        """
        Return the columns of its training datasets as a model schema, as the SDK infers it.

        None for a view with transformation functions, whose output columns only the SDK computes.
        """
        if self.raw.get("transformationFunctions"):
            return None
        columns = self.raw.get("features") or []
        parts = {
            "input_schema": [_column(one) for one in columns if not one.get("label")],
            "output_schema": [_column(one) for one in columns if one.get("label")],
        }
        return {name: {"columnar_schema": found} for name, found in parts.items() if found} or None

    def __str__(self) -> str:
        """Return name and version, for messages."""
        return str(ViewName(self.name, self.version))


_OPTIONAL: dict[str, wire.Shape] = {
    "features": [{"name": str, "type": str, "label": bool}],
    "servingKeys": [{"featureName": str, "prefix": str, "joinOn": str, "required": bool}],
    "transformationFunctions": [dict],
    "query": dict,
}


def _required_key(key: Mapping[str, Any]) -> str | None:
    """Return the name of a serving key in a request: its own with the prefix, or that of the key it is joined on."""
    if key.get("required") is False:
        return key.get("joinOn")
    return f"{key.get('prefix') or ''}{key.get('featureName') or ''}"


def _tags_as_sent(data: Any) -> list[dict[str, Any]]:
    """
    Return the tags of a view in the form in which the SDK sends them: name and value, a mapping as JSON text.

    :param data: ``{"count", "items"}``, a single tag, or anything else, in which the SDK finds no tags
    """
    if not isinstance(data, Mapping):
        return []
    items = data.get("items") if data.get("count") else [] if "count" in data else [data]
    known = [one for one in items if isinstance(one, Mapping)] if isinstance(items, list) else []
    return [
        {"name": one["name"], "value": _tag_value(one["value"])}
        for one in known
        if one.get("name") is not None and one.get("value") is not None
    ]


def _tag_value(value: Any) -> Any:
    """Read a value that is JSON as text, and write a mapping as such text again."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            parsed = wire.load(value)
            wire.sendable(parsed)
            value = value if parsed is None else parsed
    return json.dumps(value) if isinstance(value, Mapping) else value


def _column(feature: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": feature.get("name"), "type": feature.get("type") or "None"}


@dataclass(frozen=True, slots=True)
class Origin:
    """A feature view or a training dataset from which a model was made."""

    name: str
    version: int
    state: str = "accessible"
    """``accessible``, ``deleted``, ``inaccessible`` to the key's user, or ``faulty``."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """The origin of a model version, as far as Hopsworks has recorded it."""

    feature_view: Origin | None = None
    training_dataset: Origin | None = None

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """
        Build the provenance from the links of a model.

        :raises ValueError: ``data`` holds no links, or more than one view or training dataset
        """
        if isinstance(data, dict) and data.get("count") == 0 and not data.get("items"):
            return cls()
        wire.resource(data, {"node": dict}, {"upstream": [dict]})
        nodes = data.get("upstream") or []
        return cls(
            feature_view=_only("FEATURE_VIEW", list(_below(nodes))),
            training_dataset=_only("TRAINING_DATASET", nodes),
        )


_DEEPEST = 10
"""Levels of links: a view is two levels above a model."""


def _below(nodes: list[Any], deepest: int = _DEEPEST) -> list[Any]:
    """Return the nodes above a model at every level."""
    found = list(nodes)
    for node in nodes if deepest else ():
        wire.check(node, {"upstream": [dict]})
        found += _below(node.get("upstream") or [], deepest - 1)
    return found


def _only(kind: str, links: list[Any]) -> Origin | None:
    """Return the one origin of a kind among links."""
    found = []
    for link in links:
        node = wire.resource(link, {"node": dict}, {})["node"]
        wire.check(node, {"artifact_type": str, "artifactType": str, "accessible": bool, "deleted": bool})
        if (node.get("artifact_type") or node.get("artifactType")) == kind:
            artifact = wire.resource(node.get("artifact"), {"name": str, "version": int}, {})
            found.append(Origin(clean(artifact["name"]), artifact["version"], _state(node)))
    if len(set(found)) > 1:
        message = f"it has {len(found)} links of the type {kind}"
        raise wire.FormError(message)
    return found[0] if found else None


def _state(node: Mapping[str, Any]) -> str:
    if (node.get("exception_cause") or node.get("exceptionCause")) is not None:
        return "faulty"
    if node.get("accessible"):
        return "accessible"
    return "deleted" if node.get("deleted") else "inaccessible"
