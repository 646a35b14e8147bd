"""
The loggers of this package, and the one function for text of others: no request can forge a line or command a terminal.

Every module gets its logger here. Paths, names and exceptions come from requests, scripts and models.
"""

from __future__ import annotations

import logging
import traceback

LONGEST = 2000
"""The longest line of a log, in characters."""

LINES = 200
"""The longest traceback: its last lines."""


def escaped(text: str) -> str:
    """
    Return a text on one line, of bounded length, with all characters escaped that are not printed as themselves.

    Escaped are control characters (line breaks, terminal sequences), marks of writing direction, and halves of
    surrogate pairs.
    """
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)


def logger(name: str) -> logging.Logger:
    """
    Return the logger of a module. Messages are escaped, as are the lines of tracebacks, which are indented.

    :param name: the module's ``__name__``
    """
    log = logging.getLogger(name)
    log.addFilter(_escape)
    return log


def _escape(record: logging.LogRecord) -> bool:
    record.msg, record.args = escaped(record.getMessage()), ()
    if record.exc_info and record.exc_info[0] is not None:
        lines = "".join(traceback.format_exception(*record.exc_info)).splitlines()[-LINES:]
        # Formatters take this text, if there is one, in place of the exception.
        record.exc_text = "\n".join(f"  {escaped(line)}" for line in lines)
    return True
