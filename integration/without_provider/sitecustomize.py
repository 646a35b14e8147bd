"""
Make a Python process behave as if the provider were not installed.

Python imports this module at its start if its folder is on ``PYTHONPATH``. ``make integration`` starts the programs of
Airflow so that need no provider.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE, DISTRIBUTION = "airflow_provider_hsml", "airflow-provider-hsml"


class _Absent(MetaPathFinder):
    """Find everything but the provider."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Raise for the provider; leave all other modules to the next finder."""
        if fullname.partition(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def _without(distributions: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    """Leave the provider out of the list in which Airflow looks for providers."""

    def listed(**how: Any) -> Iterator[Any]:
        return (found for found in distributions(**how) if found.metadata["Name"] != DISTRIBUTION)

    return listed


sys.meta_path.insert(0, _Absent())
for _name in ("importlib.metadata", "importlib_metadata"):  # Airflow uses the second before Python 3.12.
    with contextlib.suppress(ModuleNotFoundError):
        _module: Any = importlib.import_module(_name)
        _module.distributions = _without(_module.distributions)
