"""What a call expects of its response: its kind, which decides how many bytes a client accepts, and its pace."""

from __future__ import annotations

import email.utils
import time
from datetime import UTC
from enum import Enum

MB = 1 << 20


class ResponseKind(Enum):
    """The kind of a response. Clients accept ``LIMITS`` bytes of each, after unpacking, errors included."""

    RESOURCE = "resource"
    """JSON of the management API, or a small file of the project."""
    JOURNAL = "journal"
    """A file of a deployment's journal."""
    PREDICTION = "prediction"
    """The answer of a model: the connection sets the limit."""
    MODEL_FILE = "model file"
    """A file of a model, streamed to disk. It may take any time, but must not stall."""


LIMITS = {ResponseKind.RESOURCE: 16 * MB, ResponseKind.JOURNAL: 4 * MB}
_LIST_COST, _OBJECT_COST = 96, 200
"""Bytes of memory for a JSON list and object, with their share of the container that holds them."""
_CONTAINERS_COST = 14
"""Memory for lists and objects, as a multiple of the limit. With their content, the parsed JSON stays below 30."""


def is_within(limit: int, content: bytes) -> bool:
    """
    Whether a content is within a limit of bytes, and takes no more than 30 times as much memory once it is parsed.

    :param limit: in bytes
    :param content: JSON, or anything else
    """
    cost = content.count(b"[") * _LIST_COST + content.count(b"{") * _OBJECT_COST
    return len(content) <= limit and cost <= limit * _CONTAINERS_COST


def retry_after(value: str) -> float | None:
    """
    Read a Retry-After header: seconds, or an HTTP date.

    :param value: the header; empty without one
    :return: seconds from now; None without a header that can be read
    """
    if value.strip().isdecimal():
        seconds = float(value)
    else:
        try:
            moment = email.utils.parsedate_to_datetime(value)
            # A date without a zone is one in UTC.
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError, IndexError):
            return None
    return max(seconds, 0.0)
