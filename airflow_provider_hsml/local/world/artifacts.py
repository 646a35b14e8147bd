"""
Artifacts of model versions: numbered folders of scripts, which deployments serve up to Hopsworks 4.4.

``Models/{model}/{version}/Artifacts/{number}`` holds ``predictor-{name}`` and ``transformer-{name}``. Artifact 0 has no
scripts; -1 requests a new artifact. The scripts of an existing artifact never change.
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
    Resolve the artifact of a PUT, and the paths of its scripts.

    :param config: from the request
    :param old: the configuration of the deployment so far; None for a new deployment
    :param files: of the project
    :return: the configuration, with the artifact's number (-1 for a new one) and the whole paths of its scripts
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
        script = config[kind]
        if script is None:  # The deployment no longer uses the script, but the artifact still has it.
            continue
        if "/" not in script:
            named = _named(kind, script)
            if own != named:
                raise Refusal(240016, f"Artifact {number} has no {kind} script {script}.")
            config[kind] = f"{folder}/{named}"
        elif own is None or script != f"{folder}/{own}":
            raise Refusal(240019, f"The {kind} script of artifact {number} cannot be changed: ask for a new artifact.")
    return config


def _number(config: Mapping[str, Any], old: Mapping[str, Any] | None) -> int:
    """Return the number of the artifact: null keeps the current one, or is a new one for another model version."""
    number = config["artifactVersion"]
    if number is None:
        is_same = old is not None and all(config[key] == old[key] for key in ("modelPath", "modelVersion"))
        number = old["artifactVersion"] if old is not None and is_same else _NEW
    if not isinstance(number, int) or isinstance(number, bool) or number < _NEW:
        raise malformed(f"Artifact version {number!r} is not valid.")
    return number


def made(config: dict[str, Any], files: ProjectFiles) -> dict[str, Any]:
    """
    Create the artifact that a checked configuration requests, if it is a new one.

    :return: the configuration, with the artifact's number and the paths of its scripts
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
    # hsml downloads the archive by this name.
    archive_name = f"{config['modelName']}_{config['modelVersion']}_{number}.zip"
    files.write(f"{above}/{number}/{archive_name}", archive.getvalue())
    return config


def keep(name: str, version: int, config: Mapping[str, Any], files: ProjectFiles) -> None:
    """
    Copy the files of a deployment version to the folder from which newer clients download them.

    The deployment itself runs the original files.

    :param name: of the deployment
    :param version: of the deployment
    """
    for kind in (*_SCRIPTS, "configFile"):
        if path := config[kind]:
            files.write(f"Deployments/{name}/{version}/{path.rpartition('/')[2]}", files.read(path).read_bytes())


def told(kind: str, path: str) -> str:
    """Return the name of a script as shown to clients: without the prefix that it has in an artifact."""
    name = path.rpartition("/")[2]
    return name.removeprefix(f"{kind}-") if f"/{FOLDER}/" in path else name


def _named(kind: str, name: str) -> str:
    return f"{kind}-{name.removeprefix(f'{kind}-')}"
