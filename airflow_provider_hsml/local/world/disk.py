"""Errors of the disk, as refusals with Hopsworks' codes: a full disk, a concurrent change, an invalid name."""

from __future__ import annotations

import errno
import sqlite3

from airflow_provider_hsml.local.errors import Refusal, malformed

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_ROOM_FOR_ROWS = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_FULL = "The disk of the local Model Serving is full: nothing was changed. Make room, and try again."


def refusal_of(error: Exception) -> Refusal | None:
    """Return the refusal for an error of the disk; None for other errors."""
    if isinstance(error, sqlite3.OperationalError):
        # The lower byte is SQLite's primary code; the upper ones hold details, for example of a write past a limit.
        return Refusal(110055, _FULL) if (error.sqlite_errorcode & 0xFF) in _NO_ROOM_FOR_ROWS else None
    if not isinstance(error, OSError):
        return None
    if error.errno in _NO_ROOM:
        return Refusal(110055, _FULL)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Refusal(110018, "The path was deleted or moved meanwhile.")
    if isinstance(error, FileExistsError) or error.errno == errno.ENOTEMPTY:
        return Refusal(110012, "The path was made meanwhile.")
    return malformed("A path is too long.") if error.errno == errno.ENAMETOOLONG else None
