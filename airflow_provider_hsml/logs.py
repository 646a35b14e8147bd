"""
What this provider logs, masked before any of Airflow's handlers has it.

Airflow masks a task's log where it writes it down. With the LocalExecutor its scheduler prints the same lines, and
masks nothing there; what Hopsworks says of a deployment may have a value in it that a template brought.
"""

from __future__ import annotations

import logging

from airflow.providers.common.compat.sdk import redact


class _Masking(logging.Handler):
    """Writes nothing: it takes out of a record what Airflow masks, before the root logger's handlers have it."""

    def emit(self, record: logging.LogRecord) -> None:
        """
        Change a record.

        :param record: what was logged
        """
        try:
            record.msg, record.args = redact(record.getMessage()), ()
        except Exception:  # noqa: BLE001 - as all handlers do
            self.handleError(record)


_MASKING = _Masking()


def mask() -> None:
    """Have all that this provider logs from now on masked."""
    logging.getLogger(__name__.partition(".")[0]).addHandler(_MASKING)
