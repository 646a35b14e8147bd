"""
Artifacts of Hopsworks up to 4.4, where a deployment serves a numbered copy of model and scripts.

Deployments of such a server have an ``artifactVersion`` and no ``version``. The server refuses a new model version
with the old artifact's number, and finds a new artifact's scripts only by their absolute path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

NEW = -1
"""The artifact number that requests a new artifact."""
_SCRIPTS = ("predictor", "transformer")
_REASONS = frozenset({"model_name", "model_version", "script_file", "transformer.script_file"})


def for_creating(body: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the body that creates a deployment on any Hopsworks version; later servers ignore the artifact number.

    :param body: the body for later servers
    """
    return {**body, "artifactVersion": NEW}


def for_changing(before: Mapping[str, Any], body: dict[str, Any], changes: Collection[str]) -> dict[str, Any]:
    """
    Return the body that updates a deployment, with a new artifact number if model or scripts change.

    :param before: the deployment as the server gave it
    :param body: the body for later servers
    :param changes: names of the settings that change
    """
    number = before.get("artifactVersion")
    if number is None or before.get("version") is not None or not _REASONS & set(changes):
        return body
    known = dict(before)
    if body.get("modelName") == before.get("modelName"):
        # The versions of a model have one folder, so the update names the folder that the server left out.
        known["modelPath"] = before.get("modelPath") or body.get("modelPath")
    bare = {key: str(name) for key in _SCRIPTS if (name := body.get(key)) and "/" not in name}
    return {**body, **{key: path_of(known, key, name) for key, name in bare.items()}, "artifactVersion": NEW}


def path_of(raw: Mapping[str, Any], key: str, name: str) -> str:
    """
    Return the absolute path of a script in a deployment's artifact.

    :param raw: the deployment resource
    :param key: ``predictor`` or ``transformer``
    :param name: the script's name, which is returned alone if the resource does not tell the model's folder or version
    """
    path, version = raw.get("modelPath"), raw.get("modelVersion")
    if path is None or version is None:
        return name
    return f"{path}/{version}/Artifacts/{raw.get('artifactVersion')}/{key}-{name}"
