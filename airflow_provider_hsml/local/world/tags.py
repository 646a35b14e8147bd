"""Tags of models and deployments: a name, and a value that is sent as JSON text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import jsonschema

from airflow_provider_hsml.local.errors import Refusal, malformed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Tags: TypeAlias = "Sequence[Mapping[str, str]]"
Schemas: TypeAlias = "Mapping[str, Mapping[str, Any]] | None"


def read(listed: Any, schemas: Schemas) -> list[dict[str, str]]:
    """
    Read the tags of a new model or deployment.

    :param listed: ``{count, items}``, or None
    :param schemas: by the name of the tag; None if every tag may have any value
    """
    if listed is None:
        return []
    items = listed.get("items") if isinstance(listed, dict) else listed
    items = [] if items is None else items
    if not isinstance(listed, dict) or not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise malformed("tags: expected an object with items, each with name and value.")
    tags: list[dict[str, str]] = []
    for item in items:
        value = item.get("value")
        tags = put(tags, item.get("name"), value if isinstance(value, str) else json.dumps(value), schemas)
    return tags


def put(tags: Tags, name: Any, text: str, schemas: Schemas) -> list[dict[str, str]]:
    """
    Set a tag.

    :param tags: the existing tags
    :param text: the value: JSON, or otherwise plain text
    :param schemas: by the name of the tag; None if every tag may have any value
    :return: all tags, with the new one
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
    """Return the tag of this name, in a list; refuse an unknown name."""
    matching = [tag for tag in tags if tag["name"] == name]
    if not matching:
        raise Refusal(370002, f"Tag {name} not found.")
    return matching


def without(tags: Tags, name: str) -> list[dict[str, str]]:
    """Return the tags without the tag of this name; refuse an unknown name."""
    named(tags, name)
    return [dict(tag) for tag in tags if tag["name"] != name]


def on_the_wire(tags: Tags) -> dict[str, Any]:
    """Return tags in the format of the REST API."""
    return {"count": len(tags)} | ({"items": list(tags)} if tags else {})
