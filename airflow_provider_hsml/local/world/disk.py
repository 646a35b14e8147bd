"""What the disk says no with, in Hopsworks' codes: no room, gone meanwhile, a name that it does not take."""

from __future__ import annotations

import errno
import sqlite3

from airflow_provider_hsml.local.errors import Refusal, malformed

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_ROOM_FOR_ROWS = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_FULL = "The disk of the local Model Serving is full: nothing was changed. Make room, and try again."


def refusal_of(error: Exception) -> Refusal | None:
    """Give what a failure of the disk means to a client; None for other failures."""
    if isinstance(error, sqlite3.OperationalError):
        # The code's lower byte is the primary one: writing past a limit is an I/O error with details above it.
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
