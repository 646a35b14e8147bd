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
    folder = f"{before.get('modelPath')}/{before.get('modelVersion')}/Artifacts/{number}"
    paths = {
        key: f"{folder}/{key}-{name}"
        for key in ("predictor", "transformer")
        if (name := body.get(key)) and "/" not in name
    }
    return {**body, **paths, "artifactVersion": NEW}
