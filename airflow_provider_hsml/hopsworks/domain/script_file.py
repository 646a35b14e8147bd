"""Predictor and transformer scripts as values: the file, and its place in the project."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from . import arguments
from .settings import Script

if TYPE_CHECKING:
    from .project import Project
    from .settings import SettingValues

FOLDER = "Resources/airflow-provider-hsml/scripts"
"""Where scripts are uploaded to, relative to the project's folder."""
MOST_BYTES = 10 * 1024 * 1024
_HASH = re.compile(r"-[0-9a-f]{16}(?=\.)")
_IN_THE_PROJECT = re.compile(r"(?:hopsfs:|hdfs:)?(?://[^/]*)?(/Projects/.*)")


def read(what: str, value: object) -> Script:
    """
    Read the argument that names a script. A file of this machine is read and hashed.

    :param value: a path of this machine, or ``/Projects/<project>/...``, also with ``hopsfs:`` or ``hdfs://``
    :raises InvalidInputError: there is no such file, or it cannot be a script
    """
    text = str(value) if isinstance(value, Path) else arguments.text(what, value).strip()
    suffix = ".py" if what.endswith("script_file") else ""
    if not text.endswith(suffix):
        arguments.refuse(what, f"a file whose name ends in {suffix}", text)
    if "://" in text or text.startswith(("hopsfs:", "hdfs:", "/Projects/")):
        found = _IN_THE_PROJECT.fullmatch(text)
        if not found or any(part in ("", ".", "..") for part in found[1].split("/")[1:]):
            arguments.refuse(what, "a path /Projects/<project>/..., without '..' and empty parts", text)
        return Script(found[1])
    file = Path(text)
    content = _content(file)
    if content is None:
        expected = "a file of the machine where the task runs, or one in the project (/Projects/<project>/...)"
        arguments.refuse(what, expected, text)
    if not content or len(content) > MOST_BYTES:
        arguments.refuse(what, f"a file of 1 to {MOST_BYTES} bytes", f"{text}: {len(content)} bytes")
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", file.stem)
    return Script(f"{FOLDER}/{stem}-{hashlib.sha256(content).hexdigest()[:16]}{file.suffix}", content)


def _content(file: Path) -> bytes | None:
    """Return the content of a file; None if there is none that can be read."""
    try:
        return file.read_bytes() if file.is_file() else None
    except (OSError, ValueError):  # The path is too long, holds a NUL, or may not be read.
        return None


def describe_change(old: object, new: object) -> str:
    """
    Return a change of scripts by their names: with the hashes of uploaded ones only if the names are the same.

    :param old: the path of the script before; None if there was none
    :param new: the path of the script after the change
    """
    names = [str(path or "none").rpartition("/")[2] for path in (old, new)]
    plain = [_HASH.sub("", name) for name in names]
    return " -> ".join(names if plain[0] == plain[1] else plain)


def absolute(project: Project, desired: SettingValues) -> SettingValues:
    """
    Return the same settings with the absolute path of each script.

    :param project: the deployment's project
    :raises InvalidInputError: a script is in another project
    """
    root = f"/Projects/{project.name}/"
    found = dict(desired)
    for name, script in desired.items():
        if not isinstance(script, Script):
            continue
        if script.content is not None and not script.path.startswith(root):
            found[name] = Script(f"{root}{script.path}", script.content)
        elif not script.path.startswith(root):
            message = f"spec.{name}: expected a file in project {project.name!r} ({root}...), got {script.path!r}."
            raise InvalidInputError(message)
    return found
