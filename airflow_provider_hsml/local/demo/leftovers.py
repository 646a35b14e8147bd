"""What the demo leaves on the machine, and how to remove it."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path


def leftovers(folder: Path) -> str:
    """
    Return what is left on this machine after a demo, with sizes, and the command that removes it.

    :param folder: the folder of the demo's own files
    """
    # Imported only after the demo has checked that its requirements are installed.
    from airflow_provider_hsml.local.cluster.environments import cache_folder  # noqa: PLC0415

    cache = cache_folder()
    return f"""\
The demo leaves on this machine:
  {folder}: {_megabytes(folder)} MB of logs, Airflow's database and models; the next demo begins by removing them
  {cache}: {_megabytes(cache)} MB, environments of model servers; later demos and hsml-local start faster with them
To remove both, once no local Model Serving is running: rm -rf {shlex.quote(str(folder))} {shlex.quote(str(cache))}
The installer's own download cache also stays. With uv, remove it with: uv cache clean"""


def _megabytes(folder: Path) -> int:
    """Return the size of a folder's files in MB, rounded up."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # A server that keeps running removes files meanwhile.
                size += (Path(place) / name).lstat().st_size
    return -(-size // 1_000_000)
