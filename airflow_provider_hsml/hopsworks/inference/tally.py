"""What all threads of a scoring have seen of a deployment, and when that is an outage."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .refusals import none_answered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hsml.hopsworks.errors import HopsworksError

ALL_REFUSED = 100
"""Refused rows, without one that was answered, after which a deployment counts as answering none."""


class Tally:
    """
    What all threads together have seen of a deployment.

    :param answered_row: a row that was answered in earlier work, alone in a list; empty if there is none
    :param most_splits: requests that may be cut in two; None: any number
    """

    def __init__(self, answered_row: Sequence[str], most_splits: int | None) -> None:
        self.answered_row: Sequence[str] = answered_row
        """A row that was answered, alone in a list; empty while none was."""
        self._most_splits = most_splits
        self._splits = 0
        self._refused = 0
        self._last: HopsworksError | None = None
        self._lock = threading.Lock()

    def answered(self, row: str) -> None:
        """Remember a row that was answered."""
        if not self.answered_row:
            self.answered_row = [row]

    def refused(self, error: HopsworksError) -> bool:
        """Count a refused row, and return whether there are many of them and no row was answered so far."""
        with self._lock:
            self._refused += 1
            self._last = error
        return self._refused >= ALL_REFUSED and not self.answered_row

    def split(self, error: HopsworksError) -> None:
        """
        Count a request that is cut in two because it was refused.

        :raises Outage: there were too many of them
        """
        with self._lock:
            self._splits += 1
        if self._most_splits is not None and self._splits > self._most_splits:
            line = (
                f"{self._most_splits} requests were cut in two to find the rows at fault, and there are more.\nCorrect "
                "the rows. If each alone is answered, the requests are too large: lower 'chunk_rows'."
            )
            raise Outage(error.extended(line))

    def check_answered(self) -> None:
        """
        Check that some row was answered, if any was refused.

        :raises HopsworksError: none was; the last refusal
        """
        if self._last is not None and not self.answered_row:
            raise none_answered(self._last, self._refused)


class Outage(Exception):
    """An error that is not about the rows of its request."""

    def __init__(self, error: HopsworksError) -> None:
        super().__init__()
        self.error = error
