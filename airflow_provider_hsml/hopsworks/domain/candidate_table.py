"""The candidates of a decision as a table for the task's log: their numbers, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHOSEN, SERVED = "chosen", "served"
MOST_ROWS = 20
_MOST_LETTERS = 240


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row of the table."""

    name: str
    """The number of the version, with the model's name if that is another one."""
    metrics: Mapping[str, float | None]
    """The numbers that decide, the main metric first."""
    verdict: str
    """``chosen``, ``served``, or why the version was not chosen, as a clause."""


def candidate_table(candidates: Sequence[Candidate]) -> str:
    """
    Return the table, in lines that are indented by two: a head, and a line for each candidate in the given order.

    Of more than ``MOST_ROWS`` candidates the first ones are shown, with those that were chosen or are served.

    :param candidates: at least one; all with the same metrics
    """
    shown = [one for place, one in enumerate(candidates) if place < MOST_ROWS or one.verdict in (CHOSEN, SERVED)]
    rows = [["version", *candidates[0].metrics]]
    rows += [[one.name, *("-" if value is None else f"{value:g}" for value in one.metrics.values())] for one in shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    verdicts = ["", *(_in_one_line(one.verdict) for one in shown)]
    lines = [
        "  ".join([*(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)), verdict]).rstrip()
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
    if len(shown) < len(candidates):
        lines.append(f"and {len(candidates) - len(shown)} more")
    return "\n".join(f"  {line}" for line in lines)


def _in_one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_LETTERS else f"{line[: _MOST_LETTERS - 1]}\u2026"
