"""The rows of a part until it is written, and the log of the progress."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_hsml.hopsworks.inference.concurrency import Limit

    from .progress import Format, Part, Progress, ResultRows, Results
    from .rows import BadRow

log = logging.getLogger(__name__)

LOGGED_EVERY = 5.0
"""Seconds between two log lines about the progress."""


class Held:
    """
    Rows of a part that is not written yet, with their counts.

    The progress changes only once all files of the part are written. After a failure, the part is not written again.
    """

    def __init__(self, form: Format, progress: Progress) -> None:
        self._progress = progress
        self._remembered = copy.deepcopy(progress.remembered)
        """What the parts share: these rows may be dropped, so their part of it is not the progress's yet."""
        self._part: Part = form.begin(self._remembered)
        self._errors: list[bytes] = []
        self._latencies = copy.deepcopy(progress.latencies)
        self._distribution = copy.deepcopy(progress.distribution)
        self._answered: int | None = None
        self.rows = 0
        self.errors = 0
        self.first_error = ""

    @property
    def size(self) -> int:
        """Bytes that are held."""
        return self._part.size

    def add(self, found: tuple[ResultRows, Mapping[int, BadRow]], latencies: Sequence[float]) -> None:
        """
        Add the rows of a chunk.

        :param found: the rows, and those that failed by their places
        :param latencies: seconds of its requests
        """
        rows, bad = found
        self._part.add(rows)
        self.rows += len(rows.predictions)
        self.errors += len(bad)
        self._latencies.add(latencies)
        answered = rows.predictions
        if bad:
            answered = [one for place, one in enumerate(answered) if place not in bad]
        self._distribution.add(answered)
        if answered and self._answered is None:
            self._answered = rows.first + next(place for place in itertools.count() if place not in bad)
        for place, fault in sorted(bad.items()):
            number = rows.first + place
            keys = {name: values[place] for name, values in rows.keys.items()}
            line = {"row": number, **keys, "field": fault.field, "reason": fault.reason}
            self._errors.append(json.dumps(line).encode() + b"\n")
            self.first_error = self.first_error or f"; row {number}: {fault}"

    def write(self, results: Results, form: Format, try_name: str) -> Held:
        """
        Write the part and the progress, and return the next one.

        :param try_name: for the names of the files
        """
        progress = copy.deepcopy(self._progress)
        progress.remembered = self._remembered
        first = progress.rows
        part: dict[str, Any] = {
            "file": f"part-{first:012d}-{try_name}.{form.ending}",
            "first": first,
            "rows": self.rows,
            "errors": self.errors,
        }
        results.write(part["file"], self._part.finish())
        if self._errors:
            part["errors_file"] = f"_errors-{first:012d}-{try_name}.jsonl"
            results.write(part["errors_file"], b"".join(self._errors))
        progress.parts.append(part)
        progress.answered = self._answered if progress.answered is None else progress.answered
        progress.rows += self.rows
        progress.errors += self.errors
        progress.latencies, progress.distribution = self._latencies, self._distribution
        results.write(f"_progress-{try_name}.json", json.dumps(progress.to_json()).encode())
        self._progress.adopt(progress)
        return Held(form, self._progress)


class Report:
    """Logs the progress every few seconds."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._first = progress.rows
        self._begun = self._logged = time.monotonic()

    def log(self, held: Held, limit: Limit) -> None:
        """
        Log the progress, if nothing was logged for some seconds.

        :param held: the rows that are not written yet
        :param limit: the number of requests at a time
        """
        now = time.monotonic()
        if now - self._logged < LOGGED_EVERY:
            return
        self._logged = now
        done = self._progress.rows + held.rows
        rate = (done - self._first) / (now - self._begun)
        left = "unknown" if not rate else f"{(self._total - done) / rate:.0f} s"
        errors = self._progress.errors + held.errors
        log.info(
            "%d of %d rows, %.0f rows a second, time left: %s, concurrency %d, errors %d",
            done,
            self._total,
            rate,
            left,
            limit.now,
            errors,
        )
