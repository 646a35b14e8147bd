"""The rows of a part that is not written yet."""

from __future__ import annotations

import weakref
from typing import Any

from airflow_provider_hsml.hopsworks.batch.held import Held
from airflow_provider_hsml.hopsworks.batch.progress import Progress, ResultRows
from airflow_provider_hsml.hopsworks.batch.rows import BadRow
from airflow_provider_hsml.hopsworks.batch.statistics import Distribution


class Encoded:
    """A part that keeps bytes only."""

    ending, size = "jsonl", 0

    def begin(self, _remembered: dict[str, Any]) -> Encoded:
        return self

    def add(self, rows: ResultRows) -> None:
        self.size += len(rows.predictions)

    def finish(self) -> bytes:
        return b""


class Folder(dict[str, bytes]):
    is_local = True

    def write(self, name: str, content: bytes) -> None:
        self[name] = content


class Predictions(list[Any]):
    """A list that can be referred to weakly."""


def test_predictions_are_counted_and_not_kept() -> None:
    """A part is bounded in bytes as the format encodes them, and each Python list would be many times that."""
    progress, folder = Progress("key", {}), Folder()
    held = Held(Encoded(), progress)
    kept = []
    for first in range(0, 40, 4):
        predictions = Predictions([0.5, 1.5, 2.5, 3.5])
        kept.append(weakref.ref(predictions))
        held.add((ResultRows(first, {}, predictions), {}), [0.01])
        del predictions

    assert all(one() is None for one in kept)
    assert progress.distribution == Distribution()

    held = held.write(folder, Encoded(), "try")  # type: ignore[arg-type]
    assert progress.distribution.count == 40
    assert sum(progress.latencies.counts.values()) == 10
    held.add((ResultRows(40, {}, [9.5, None]), {1: BadRow(None, "refused")}), [0.01])
    assert progress.distribution.count == 40  # These rows may be dropped.
    held.write(folder, Encoded(), "try")  # type: ignore[arg-type]
    assert (progress.rows, progress.errors, progress.distribution.count) == (42, 1, 41)
    assert progress.distribution.most == 9.5
