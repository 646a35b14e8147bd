"""
Result sets: what one model version has answered to some rows, stored for later comparisons.

A result set is a folder with ``results.json`` and files of JSON lines. ``results.json`` names the version and is
written last: without it, the set is incomplete. Each line is ``{"row": {...}, "prediction": ...}``, or has ``refused``,
the reason, in place of ``prediction``. Other programs, such as a Spark job, can write one too: of ``results.json`` they
need ``model_name`` and ``model_version`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.untrusted_text import beginning

from . import arguments
from .journal_entry import ServedVersion
from .plain import finite
from .records import MOST_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .records import Record

HEADER = "results.json"
"""The file that describes the set."""
LINES = "rows.jsonl.gz"
"""The file that we write the rows into."""


@dataclass(frozen=True, slots=True)
class ResultSet:
    """What one model version has answered to some rows, in their order."""

    served: ServedVersion
    records: Sequence[Record]
    predictions: Sequence[Any]
    """One for each row; None where there is none."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """The number of each row without a prediction, and the reason."""
    latencies: Sequence[float] = ()
    """Seconds of each request, in the order of the rows."""
    trained_until: str | None = None
    """ISO 8601: until when the version's training data goes; None if that is unknown."""
    fingerprint: str = ""
    """What the answers depend on: the rows, the version, its configuration; empty if it is unknown."""

    def header(self) -> dict[str, Any]:
        """Return the content of ``results.json``."""
        return {
            "model_project": self.served.project,
            "model_name": self.served.name,
            "model_version": self.served.version,
            "rows": len(self.records),
            "refused": len(self.refused),
            "trained_until": self.trained_until,
            "fingerprint": self.fingerprint,
            "latencies": list(self.latencies),
        }

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines with the rows."""
        for number, (record, prediction) in enumerate(zip(self.records, self.predictions, strict=True)):
            if number in self.refused:
                yield {"row": record, "refused": self.refused[number]}
            else:
                yield {"row": record, "prediction": prediction}

    @classmethod
    def read(cls, what: str, header: object, lines: Iterable[object], *, most: int = MOST_ROWS) -> Self:
        """
        Read a result set.

        :param what: the argument's name, for messages
        :param header: the content of ``results.json``
        :param most: the number of rows that are accepted
        :raises InvalidInputError: it is none, or lacks rows
        """
        given = arguments.mapping(f"{what} ({HEADER})", header)
        owner = given.get("model_project")
        served = ServedVersion(
            None if owner is None else arguments.text(f"{what}.model_project", owner),
            arguments.model_name(f"{what}.model_name", given.get("model_name")),
            arguments.integer(f"{what}.model_version", given.get("model_version"), least=1),
        )
        records: list[Record] = []
        predictions: list[Any] = []
        refused: dict[int, str] = {}
        for number, line in enumerate(lines):
            if number >= most:
                message = f"{what}: expected at most {most:,} rows, got more.\nTake a sample of them."
                raise InvalidInputError(message)
            if not isinstance(line, Mapping) or not isinstance(line.get("row"), Mapping):
                # The message has types alone, since rows may hold personal data.
                keys = {key: type(value).__name__ for key, value in line.items()} if isinstance(line, Mapping) else None
                expected = 'an object {"row": {...}, "prediction": ...}'
                arguments.refuse(f"{what}, row {number}", expected, keys or type(line).__name__)
            records.append(line["row"])
            prediction, replaced = finite(line.get("prediction"))
            predictions.append(None if replaced else prediction)
            if predictions[-1] is None:
                refused[number] = beginning(_text(line.get("refused")) or "there is no prediction")
        count = given.get("rows")
        count = None if count is None else arguments.integer(f"{what}.rows", count)
        if not records or (count is not None and count != len(records)):
            message = (
                f"{what}: expected {'rows' if count is None else f'{count} rows'}, got {len(records)}.\nCheck whether "
                "the set is complete."
            )
            raise InvalidInputError(message)
        until = given.get("trained_until")
        return cls(
            served,
            records,
            predictions,
            refused,
            _latencies(f"{what}.latencies", given.get("latencies")),
            None if until is None else arguments.text(f"{what}.trained_until", until),
            _text(given.get("fingerprint")),
        )


def _text(value: object) -> str:
    """Return text, and nothing for any other value."""
    return value if isinstance(value, str) else ""


def _latencies(what: str, value: object) -> list[float]:
    return [arguments.number(what, one) for one in arguments.sequence(what, [] if value is None else value)]
