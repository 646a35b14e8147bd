"""
What this provider logs, masked before any of Airflow's handlers has it.

Airflow masks a task's log where it writes it down. With the LocalExecutor its scheduler prints the same lines, and
masks nothing there; what Hopsworks says of a deployment may have a value in it that a template brought.
"""

from __future__ import annotations

import logging

from airflow.providers.common.compat.sdk import redact

_ROOT = logging.getLogger(__name__.partition(".")[0])


class _Masking(logging.Handler):
    """Gives records to the root logger's handlers, without what Airflow masks."""

    def emit(self, record: logging.LogRecord) -> None:
        """
        Pass on a record.

        :param record: what was logged
        """
        record.msg, record.args = redact(record.getMessage()), ()
        logging.getLogger().handle(record)


def mask() -> None:
    """Have all that is logged from now on masked; what is logged already is left as it is."""
    if _ROOT.propagate:
        _ROOT.addHandler(_Masking())
        _ROOT.propagate = False
