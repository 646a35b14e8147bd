"""Shorter waits for the provider in the processes of an Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hsml.testing import SHORT_WAITS

if TYPE_CHECKING:
    from pathlib import Path

_SETTINGS = """
from pkgutil import resolve_name

__all__ = []
for _name, _seconds in {waits}.items():
    _module, _, _constant = _name.rpartition(".")
    setattr(resolve_name(_module), _constant, _seconds)
"""


def hurry(home: Path) -> None:
    """Shorten the waits in all processes of an Airflow: each of them imports this file of its home."""
    settings = home / "config" / "airflow_local_settings.py"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(_SETTINGS.format(waits=SHORT_WAITS))
