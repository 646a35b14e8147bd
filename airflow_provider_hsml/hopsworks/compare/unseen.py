"""
The loss that no compared row has shown, and that is there all the same.

Where few rows differ, the bootstrap underrates what it does not know: resamples of rows that do not differ are all
alike. With no loss among n independent rows, the share of rows that lose may still be ``1 - level ** (1 / n)``: if it
were larger, none would be seen in less than ``level`` of the nights. At 95 % confidence that is nearly 3 / n, the "rule
of three" (Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249, 1983).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.comparison import Bounds

from .measures import ByClass
from .resampling import rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .measures import Measure
    from .resampling import Units

    Array = NDArray[Any]


@dataclass(frozen=True)
class Unseen:
    """How much a metric may lose, or gain, by rows of which none was seen."""

    count: int
    """The independent units, rows or groups, of which none was seen to lose."""
    share: float = 1.0
    """The weight of their class in the metric."""

    def at(self, level: float) -> float:
        """Return the largest loss that is seen in no row with a chance of at least ``level``."""
        return self.share * (1 - level ** (1 / self.count))

    def widened(self, bounds: Bounds, difference: float) -> Bounds:
        """
        Return bounds of a difference that leave room for what was not seen.

        They are at least this far from the difference. Where more than a few rows differ, they are further already.
        """
        if not math.isfinite(difference):
            return bounds
        rooms = [self.at(level) for level in bounds.levels]
        lower = zip(bounds.lower, rooms, strict=True)
        upper = zip(bounds.upper, rooms, strict=True)
        return Bounds(
            bounds.levels,
            tuple(None if one is None else min(one, rounded(difference - room) or 0.0) for one, room in lower),
            tuple(None if one is None else max(one, rounded(difference + room) or 0.0) for one, room in upper),
        )


def unseen_of(measure: Measure, units: Units) -> Unseen | None:
    """
    Return what a metric may lose without a row that shows it; None where the number of rows says nothing about it.

    It does for the metrics that are shares of rows, in which each of n rows has the weight 1 / n:

    - ``accuracy``: n is the number of all rows.
    - ``recall`` of a class: the rows with that label.
    - ``precision`` of a class: the rows that a version gives that class, of both versions the fewer. A false alarm more
      makes it lose no more than one of these rows would.
    - ``f1`` of a class: the fewer of both, since missed rows and false alarms make it lose.
    - The mean of K classes loses most if all lost rows are of the class with the fewest: the loss of that class by K. A
      class that a version never gives has no precision and no F1 to lose.

    Errors of numbers and ``log_loss`` are not shares: one row may lose any amount. ``roc_auc`` depends on pairs of
    rows, and a function of a user on anything.

    :param units: with groups, it is the groups with such rows that are counted
    """
    if measure.spec.base == "accuracy":
        return Unseen(units.count)
    if not isinstance(measure, ByClass):
        return None
    answers, base = measure.answers, measure.spec.base
    codes = range(len(answers.classes)) if measure.code is None else [measure.code]
    counts = []
    for code in codes:
        labelled = _count(answers.true_codes == code, units)
        given = min(_count(found == code, units) for found in answers.predicted_codes)
        counts.append({"recall": labelled, "precision": given, "f1": min(labelled, given)}[base])
    known = [count for count in counts if count]
    return Unseen(min(known), 1 / len(counts)) if known else None


def _count(rows: Array, units: Units) -> int:
    """Return how many units have one of the rows."""
    return int(rows.sum()) if units.of_row is None else len(set(units.of_row[rows].tolist()))
