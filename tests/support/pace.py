"""Shorter waits for the provider: a local Model Serving changes in a fraction of a second, a cluster in minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGE = "airflow_provider_hsml.hopsworks"
WAITS = {
    f"{_PACKAGE}.inference.predict.BETWEEN_PROBES": 0.01,
    f"{_PACKAGE}.jobs.logs.PATIENCE": 1.0,
    f"{_PACKAGE}.jobs.search.AGAIN": 0.1,
    f"{_PACKAGE}.jobs.search.GRACE": 1.0,
    f"{_PACKAGE}.rollout.inputs.FIRST_DELAY_START": 0.05,
    f"{_PACKAGE}.rollout.inputs.FIRST_DELAY_UPDATE": 0.05,
    f"{_PACKAGE}.domain.rollout_tracker.SETTLE_SEEN": 0.2,
    f"{_PACKAGE}.domain.rollout_tracker.SETTLE_UNSEEN": 1.0,
    f"{_PACKAGE}.domain.rollout_tracker.NAMES_AGAIN": 0.1,
    f"{_PACKAGE}.domain.rollout_tracker.FAILED_STAYS": 2.0,
}
"""Constant -> its seconds in tests."""

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
    settings.write_text(_SETTINGS.format(waits=WAITS))
