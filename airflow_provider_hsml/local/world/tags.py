"""Tags of models and deployments: a name, and a value that is JSON as text on the wire."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import jsonschema

from airflow_provider_hsml.local.errors import Refusal, malformed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Tags: TypeAlias = "Sequence[Mapping[str, str]]"
Schemas: TypeAlias = "Mapping[str, Mapping[str, Any]] | None"


def read(given: Any, schemas: Schemas) -> list[dict[str, str]]:
    """
    Read the tags of something that is created.

    :param given: ``{count, items}``, or None
    :param schemas: by the name of the tag; None: every tag may have any value
    """
    if given is None:
        return []
    items = given.get("items") or [] if isinstance(given, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise malformed("tags: expected an object with items, each with name and value.")
    tags: list[dict[str, str]] = []
    for item in items:
        value = item.get("value")
        tags = put(tags, item.get("name"), value if isinstance(value, str) else json.dumps(value), schemas)
    return tags


def put(tags: Tags, name: Any, text: str, schemas: Schemas) -> list[dict[str, str]]:
    """
    Set a tag.

    :param tags: as they are
    :param name: the tag's
    :param text: its value: JSON, or else taken as a text
    :param schemas: by the name of the tag; None: every tag may have any value
    :return: as they are then
    """
    if not isinstance(name, str) or not name.strip():
        raise Refusal(370004, f"{name!r} is not the name of a tag.")
    if schemas is not None and name not in schemas:
        raise Refusal(370000, f"Tag {name} has no schema: an administrator has to define it first.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if schemas is not None:
        try:
            jsonschema.validate(value, schemas[name])
        except jsonschema.ValidationError as error:
            raise Refusal(370005, f"Tag {name}: {error.message}.") from None
    tag = {"name": name, "value": json.dumps(value)}
    return [*(dict(other) for other in tags if other["name"] != name), tag]


def named(tags: Tags, name: str) -> Tags:
    """Give the tag of this name; refused when there is none."""
    found = [tag for tag in tags if tag["name"] == name]
    if not found:
        raise Refusal(370002, f"Tag {name} not found.")
    return found


def without(tags: Tags, name: str) -> list[dict[str, str]]:
    """Take a tag away."""
    named(tags, name)
    return [dict(tag) for tag in tags if tag["name"] != name]


def on_the_wire(tags: Tags) -> dict[str, Any]:
    """Give tags as they are listed."""
    return {"count": len(tags)} | ({"items": list(tags)} if tags else {})
