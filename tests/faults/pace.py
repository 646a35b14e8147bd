"""
The seconds of a cell: the provider's waits are shorter, in the same order as they are, and so are the server's.

A cluster takes minutes for a rollout and the provider waits for it with intervals of seconds. Here both take fractions
of a second. The order of the lengths is kept: a fault ends before the waits that are to survive it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import airflow_provider_hsml
from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.local import Speeds
from airflow_provider_hsml.testing import SHORT_WAITS

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEEDS = Speeds(creating=0.1, starting=0.6, stale=0.2, updating=0.4, stopping=0.4, routing=0.05, handing_over=0.1)
POLL = 0.3
TIMEOUT = 15.0
"""Of an operation, in seconds."""
REQUEST_TIMEOUT = 2
"""Of a request; also of one that writes."""
_HOPSWORKS = "airflow_provider_hsml.hopsworks"
_WAITS = SHORT_WAITS | {
    f"{_HOPSWORKS}.errors.LONGEST_RETRY_AFTER": 1.5,
    f"{_HOPSWORKS}.transport.request._LONGEST_PAUSE": 1.5,
    f"{_HOPSWORKS}.transport.batching.LONGEST_RETRY": 1.5,
    f"{_HOPSWORKS}.flow.LAST_READ": 2.0,
    f"{_HOPSWORKS}.routes.BETWEEN_TRIES": 0.2,
    f"{_HOPSWORKS}.rollout.update.IN_DOUBT": 5.0,
    f"{_HOPSWORKS}.rollout.update.FIRST_PAUSE": 0.1,
    f"{_HOPSWORKS}.rollout.watch.BETWEEN_STALE_PROBES": 0.2,
    f"{_HOPSWORKS}.rollout.watch.AMBIGUOUS_SECONDS": 4.0,
    f"{_HOPSWORKS}.domain.rollout_tracker.POLL_AGAIN": 0.3,
    f"{_HOPSWORKS}.domain.rollout_tracker.START_GRACE": 2.0,
    f"{_HOPSWORKS}.domain.rollout_tracker.NEVER_APPLIED": 5.0,
    f"{_HOPSWORKS}.domain.rollout_tracker.WAKE_AGAIN": 3.0,
    f"{_HOPSWORKS}.inference.predict.ROUTE_BUDGET": 5.0,
    f"{_HOPSWORKS}.inference.predict.STOPPED_SECONDS": 2.0,
    f"{_HOPSWORKS}.registry.register.AWAIT_REGISTRATION": 6.0,
    f"{_HOPSWORKS}.registry.sources.IN_DOUBT": 6.0,
    f"{_HOPSWORKS}.promotion.change_record.JOURNAL_SECONDS": 4.0,
    f"{_HOPSWORKS}.promotion.journal._READ_AGAIN": 0.3,
    f"{_HOPSWORKS}.jobs.records._READ_AGAIN": 0.3,
    "airflow_provider_hsml.hooks.base._START_BEFORE_EXIT_SECONDS": 6.0,
}


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """Have the provider wait for less long: in each module that has one of the constants."""
    for package in ("hooks", "hopsworks", "operators", "sensors", "triggers"):
        root = importlib.import_module(f"{airflow_provider_hsml.__name__}.{package}")
        for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            importlib.import_module(found.name)
    modules = [module for name, module in sys.modules.items() if name.startswith(airflow_provider_hsml.__name__)]
    with contextlib.ExitStack() as stack:
        for path, seconds in _WAITS.items():
            home, _, constant = path.rpartition(".")
            usual: Any = getattr(sys.modules[home], constant)
            for module in modules:
                if getattr(module, constant, None) == usual:
                    stack.enter_context(mock.patch.object(module, constant, seconds))
        # The operator that deletes has no argument for it.
        defaults: Any = inspect.unwrap(HsmlHook.delete_deployment).__kwdefaults__
        stack.enter_context(mock.patch.dict(defaults, timeout=TIMEOUT))
        yield
