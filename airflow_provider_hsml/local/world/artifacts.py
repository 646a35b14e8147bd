"""
Artifacts, which deployments serve up to Hopsworks 4.4: numbered folders of scripts, below a version of a model.

``Models/{model}/{version}/Artifacts/{number}`` holds ``predictor-{name}`` and ``transformer-{name}``. Number 0 has no
script, -1 asks for a new one. A script of an artifact that is there is never changed.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import Refusal, malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .files import ProjectFiles

FOLDER = "Artifacts"
_NEW = -1
_MODEL_ONLY = 0
_SCRIPTS = ("predictor", "transformer")


def located(config: dict[str, Any], old: Mapping[str, Any] | None, files: ProjectFiles) -> dict[str, Any]:
    """
    Find the artifact that a PUT means, and where the scripts are that it names.

    :param config: as it was given
    :param old: what the deployment has; None when it is created
    :param files: the project's
    :return: the configuration, with the number (-1 for a new one) and with the whole paths of an artifact's scripts
    """
    number = _number(config, old)
    config = {**config, "artifactVersion": number}
    if number == _NEW:
        return config
    if number == _MODEL_ONLY:
        if any(config[kind] for kind in _SCRIPTS):
            raise Refusal(240019, "Artifact 0 is the model only: it takes no scripts.")
        return config
    folder = f"{config['modelPath']}/{config['modelVersion']}/{FOLDER}/{number}"
    place = files.folder(folder)
    if place is None:
        raise malformed(f"Artifact with version {number} does not exist.")
    for kind in _SCRIPTS:
        own = next((file.name for file in place.glob(f"{kind}-*")), None)
        given = config[kind]
        if given is None:  # It is not used any more; the artifact has it still.
            continue
        if "/" not in given:
            named = _named(kind, given)
            if own != named:
                raise Refusal(240016, f"Artifact {number} has no {kind} script {given}.")
            config[kind] = f"{folder}/{named}"
        elif own is None or given != f"{folder}/{own}":
            raise Refusal(240019, f"The {kind} script of artifact {number} cannot be changed: ask for a new artifact.")
    return config


def _number(config: Mapping[str, Any], old: Mapping[str, Any] | None) -> int:
    """Give the number that is meant: null keeps what there is, and is a new one for another model version."""
    given = config["artifactVersion"]
    if given is None:
        is_same = old is not None and all(config[key] == old[key] for key in ("modelPath", "modelVersion"))
        given = old["artifactVersion"] if old is not None and is_same else _NEW
    if not isinstance(given, int) or isinstance(given, bool) or given < _NEW:
        raise malformed(f"Artifact version {given!r} is not valid.")
    return given


def made(config: dict[str, Any], files: ProjectFiles) -> dict[str, Any]:
    """
    Make the artifact that a checked configuration asks for.

    :return: the configuration, with the artifact's number and the places of its scripts
    """
    if config["artifactVersion"] != _NEW:
        return config
    above = f"{config['modelPath']}/{config['modelVersion']}/{FOLDER}"
    if not any(config[kind] for kind in _SCRIPTS):
        files.here(f"{above}/{_MODEL_ONLY}").mkdir(parents=True, exist_ok=True)
        return {**config, "artifactVersion": _MODEL_ONLY}
    place = files.folder(above)
    numbers = [int(folder.name) for folder in place.iterdir() if folder.name.isdecimal()] if place else []
    number = max(numbers, default=0) + 1
    config = {**config, "artifactVersion": number}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as archived:
        for kind in _SCRIPTS:
            if script := config[kind]:
                content = files.read(script).read_bytes()
                name = _named(kind, script.rpartition("/")[2])
                config[kind] = f"{above}/{number}/{name}"
                files.write(config[kind], content)
                archived.writestr(name, content)
    # The name by which hsml downloads it.
    archive_name = f"{config['modelName']}_{config['modelVersion']}_{number}.zip"
    files.write(f"{above}/{number}/{archive_name}", archive.getvalue())
    return config


def keep(name: str, version: int, config: Mapping[str, Any], files: ProjectFiles) -> None:
    """
    Keep what a version of a deployment is made of where newer clients download it. It runs from where it was given.

    :param name: the deployment's
    :param version: the deployment's
    :param config: its configuration
    """
    for kind in (*_SCRIPTS, "configFile"):
        if path := config[kind]:
            files.write(f"Deployments/{name}/{version}/{path.rpartition('/')[2]}", files.read(path).read_bytes())


def told(kind: str, path: str) -> str:
    """Give the name by which a script is told: without what an artifact puts before it."""
    name = path.rpartition("/")[2]
    return name.removeprefix(f"{kind}-") if f"/{FOLDER}/" in path else name


def _named(kind: str, name: str) -> str:
    return f"{kind}-{name.removeprefix(f'{kind}-')}"
