"""
Masking of this provider's log records, and escaping of control characters, before they reach Airflow's handlers.

Airflow masks a task's log when it writes the log file. With the LocalExecutor, its scheduler also prints the lines,
unmasked. A message of Hopsworks about a deployment may contain a secret value from a template. Airflow masks the values
that it knows to be secret; ``connection.mask_key`` adds the API key to them.
"""

from __future__ import annotations

import logging

from airflow.providers.common.compat.sdk import redact

from airflow_provider_hsml.hopsworks.untrusted_text import clean

_MOST = 1 << 16
"""Characters of a log record that are kept."""


class _Masking(logging.Handler):
    """A handler that writes nothing, but masks each record before the root logger's handlers receive it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Replace the record's message, and its exception, by a masked text."""
        try:
            text = record.getMessage()
            if record.exc_info:
                # In the text, since each handler would format the exception again.
                text = f"{text}\n{record.exc_text or _FORMATTER.formatException(record.exc_info)}"
                record.exc_info = record.exc_text = None
            record.msg, record.args = redact(clean(text, _MOST)), ()
        except Exception:  # noqa: BLE001 - as in all handlers
            self.handleError(record)


_FORMATTER = logging.Formatter()
_MASKING = _Masking()
_LOGGERS = (__name__.partition(".")[0], "urllib3", "httpx", "httpcore", "httpx2", "httpcore2")
"""Our own, and the HTTP libraries': they log what a server answers, such as the request's own headers."""


def mask() -> None:
    """Mask all records that this provider and its HTTP libraries log from now on."""
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(_MASKING)
