"""Time limits of waits in the triggerer, for operators and sensors."""

from __future__ import annotations

import time
from datetime import timedelta

DEFER_MARGIN = 600.0
"""Seconds after the end of a deferred wait, probes and bake included, at which Airflow ends it for the triggerer."""
EXECUTION_TIMEOUT_MARGIN = 5.0
"""Seconds before the task's execution_timeout at which a deferred wait ends: Airflow 2 kills it at the timeout."""


def defer_timeout(ends: float) -> timedelta:
    """
    Return the time after which Airflow ends a deferral, some way after the trigger should have ended it.

    :param ends: the end of the wait in the triggerer, in seconds since 1970
    """
    return timedelta(seconds=max(ends - time.time(), 0.0) + DEFER_MARGIN)
