"""The key stores of a project's user, which Hopsworks' SDK opens when it logs in inside a script of the project."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC, _VERSION = 0xFEEDFEED, 2
_SALT = b"Mighty Aphrodite"
_PASSWORD = ""


def user_of(project: str) -> str:
    """Return the name of the user as whom the scripts of a project run."""
    return f"{project}__local000"


def keep_key_stores(folder: Path, project: str) -> None:
    """
    Write the password and the two stores in Java's format JKS. They are empty: nothing here takes a certificate.

    :param folder: the ``MATERIAL_DIRECTORY`` of the scripts
    """
    head = struct.pack(">III", _MAGIC, _VERSION, 0)
    digest = hashlib.sha1(_PASSWORD.encode("utf-16-be") + _SALT + head, usedforsecurity=False).digest()
    path = folder / user_of(project)
    path.with_name(f"{path.name}__cert.key").write_text(_PASSWORD)
    for kind in ("kstore", "tstore"):
        path.with_name(f"{path.name}__{kind}.jks").write_bytes(head + digest)
