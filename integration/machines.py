"""
Celery workers as machines of their own: each has its own folders, and sees no file of another worker's.

A worker has its own Airflow home with a copy of the DAG files, its own HOME, temporary folder and working folder. It
runs in a mount namespace of its own, where empty file systems hide the folders of all others, and ``/tmp``.
Common to all are only the database, the broker, Airflow's API, Hopsworks and the bucket.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.real_airflow import Airflow

WORKERS = ("one", "two")
"""The names of the workers. Each takes tasks from the queue of its name, and from the default queue."""
_TMP = Path("/tmp")  # noqa: S108 - hidden, not used
_NEEDED = (Path(__file__), Path(sys.prefix), Path(sys.base_prefix))
"""What a worker must see."""
_HIDE = 'while [ "$1" != -- ]; do mount -t tmpfs none "$1"; shift; done; shift; exec "$@"'
"""Hides the folders before ``--``, and becomes the command after it."""
_WAYS = (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount"))
"""Programs that start a command in a mount namespace of its own: as root, and as another user where Linux allows it."""


def can_hide() -> bool:
    """Whether folders can be hidden from a process: Linux allows it, and what a worker needs is not below ``/tmp``."""
    return _way() is not None


def machine(airflow: Airflow, name: str) -> Airflow:
    """
    Return an Airflow in folders of its own, with a copy of the DAG files.

    :param airflow: the common one; the new folder is beside its home
    :param name: one of ``WORKERS``
    """
    home = _home(airflow, name)
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(airflow.home / "dags", home / "dags")
    (home / "tmp").mkdir()
    own = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
    }
    return dataclasses.replace(airflow, home=home, environment=airflow.environment | own)


def alone(airflow: Airflow, name: str) -> Sequence[str]:
    """
    Return the beginning of a command that runs as a machine: without sight of others, where that is possible.

    :param airflow: the common one
    :param name: the worker's name
    """
    way = _way()
    if way is None:
        return ()
    hidden = [airflow.home, _TMP, *(_home(airflow, other) for other in WORKERS if other != name)]
    return (*way, "sh", "-e", "-c", _HIDE, "sh", *map(str, hidden), "--")


def _home(airflow: Airflow, name: str) -> Path:
    return airflow.home.with_name(f"{airflow.home.name}-{name}")


def _way() -> Sequence[str] | None:
    if shutil.which("unshare") is None or any(path.resolve().is_relative_to(_TMP) for path in _NEEDED):
        return None
    for way in _WAYS:
        command = [*way, "sh", "-e", "-c", _HIDE, "sh", str(_TMP), "--", "true"]
        if not subprocess.run(command, capture_output=True, check=False).returncode:
            return way
    return None
