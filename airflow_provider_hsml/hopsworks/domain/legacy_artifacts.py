"""
Hopsworks up to 4.4, where a deployment serves an artifact: a numbered copy of model and scripts.

Such a server is known by its deployments having an ``artifactVersion`` and no ``version``. It refuses a new model
version with the old artifact's number, and finds a new artifact's scripts only by their whole path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

NEW = -1
"""The number that asks for a new artifact."""
_SCRIPTS = ("predictor", "transformer")
_REASONS = frozenset({"model_name", "model_version", "script_file", "transformer.script_file"})


def for_creating(body: Mapping[str, Any]) -> dict[str, Any]:
    """
    Give the body that creates a deployment on any Hopsworks; later ones leave the number out unread.

    :param body: the body, as later ones take it
    """
    return {**body, "artifactVersion": NEW}


def for_changing(before: Mapping[str, Any], body: dict[str, Any], changes: Collection[str]) -> dict[str, Any]:
    """
    Give the body that changes a deployment: with a new artifact where model or scripts change, else with the same.

    :param before: the deployment as the server gave it
    :param body: as it is to be sent otherwise
    :param changes: the settings that change
    """
    number = before.get("artifactVersion")
    if number is None or before.get("version") is not None or not _REASONS & set(changes):
        return body
    paths = {key: path_of(before, key, name) for key in _SCRIPTS if (name := body.get(key)) and "/" not in name}
    return {**body, **paths, "artifactVersion": NEW}


def path_of(raw: Mapping[str, Any], key: str, name: str | None = None) -> str:
    """
    Give the whole path of a script in a deployment's artifact.

    :param raw: the deployment as the server gave it
    :param key: ``predictor`` or ``transformer``
    :param name: the script's name; None for the one that is told
    """
    folder = f"{raw.get('modelPath')}/{raw.get('modelVersion')}/Artifacts/{raw.get('artifactVersion')}"
    return f"{folder}/{key}-{name or raw[key]}"
