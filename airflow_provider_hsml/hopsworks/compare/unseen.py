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
from airflow_provider_hsml.hopsworks.domain.comparison_metrics import PER_CLASS

from .measures import ByClass, RowMean
from .resampling import rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .measures import Measure
    from .resampling import Units

    Array = NDArray[Any]


FEW = 10
"""With as many rows or groups that differ, the bootstrap alone knows enough."""


@dataclass(frozen=True)
class Unseen:
    """How much a metric may lose, or gain, beyond what its few different rows show."""

    count: int
    """The independent units, rows or groups."""
    different: int = 0
    """How many of them make a difference to the metric."""
    share: float = 1.0
    """The weight of their class in the metric."""

    def losses(self, levels: tuple[float, ...], seen: float = 0.0) -> list[float]:
        """
        Return the largest loss that is compatible with a seen one, by level: the bound of Clopper and Pearson.

        :param seen: a loss of the metric, 0 or more
        """
        from scipy.special import betaincinv

        lost = min(self.different, seen / self.share * self.count)
        if lost >= self.count:
            return [seen for _ in levels]
        more = [float(betaincinv(lost + 1, self.count - lost, 1 - level)) - lost / self.count for level in levels]
        return [seen + self.share * one for one in more]

    def widened(self, bounds: Bounds, difference: float) -> Bounds:
        """Return bounds of a difference that leave room for what was not seen; those that do already stay."""
        if not math.isfinite(difference):
            return bounds
        better, worse = max(difference, 0.0), max(-difference, 0.0)
        least = [better - one for one in self.losses(bounds.levels, worse)]
        most = [one - worse for one in self.losses(bounds.levels, better)]
        return Bounds(
            bounds.levels,
            tuple(None if own is None else min(own, one) for own, one in zip(bounds.lower, _all(least), strict=True)),
            tuple(None if own is None else max(own, one) for own, one in zip(bounds.upper, _all(most), strict=True)),
        )


def unseen_of(measure: Measure, units: Units) -> Unseen | None:
    """
    Return what a metric may lose without a row that shows it; None where the bootstrap or nothing knows it.

    The number of rows n says it for the metrics that are shares of rows, in which each of n rows has the weight 1 / n:

    - ``accuracy``: n is the number of all rows.
    - ``recall`` of a class: the rows with that label.
    - ``precision`` of a class: the rows that a version gives that class, of both versions the fewer. A false alarm more
      makes it lose no more than one of these rows would.
    - ``f1`` of a class: the fewer of both, since missed rows and false alarms make it lose.
    - The mean of K classes loses most if all lost rows are of the class with the fewest: the loss of that class by K. A
      class that a version never gives has no precision and no F1 to lose.

    Where ``FEW`` rows make a difference to a class, the resamples have the noise of that class. Two wrong answers make
    none, nor two answers of other classes, even if they are not the same.

    Errors of numbers and ``log_loss`` are not shares: one row may lose any amount. ``roc_auc`` depends on pairs of
    rows, and a function of a user on anything.

    :param units: with groups, it is the groups with such rows that are counted
    """
    import numpy as np

    base = measure.spec.base
    if not isinstance(measure, ByClass | RowMean) or base not in ("accuracy", *PER_CLASS):
        return None
    answers = measure.answers
    champion, challenger = answers.predicted_codes
    if isinstance(measure, RowMean):
        every = np.ones(len(champion), dtype=bool)
        parts = [(_count(every, units), _count(measure.losses[0] != measure.losses[1], units))]
    else:
        codes = range(len(answers.classes)) if measure.code is None else [measure.code]
        parts = []
        for code in codes:
            is_labelled, before, after = answers.true_codes == code, champion == code, challenger == code
            labelled, given = _count(is_labelled, units), min(_count(before, units), _count(after, units))
            is_different = (before != after) & (is_labelled | (base != "recall"))
            count = {"recall": labelled, "precision": given, "f1": min(labelled, given)}[base]
            parts.append((count, _count(is_different, units)))
    few = [Unseen(count, different, 1 / len(parts)) for count, different in parts if count and different < FEW]
    return min(few, key=lambda one: one.count, default=None)


def _count(rows: Array, units: Units) -> int:
    """Return how many units have one of the rows."""
    return int(rows.sum()) if units.of_row is None else len(set(units.of_row[rows].tolist()))


def _all(values: list[float]) -> list[float]:
    return [rounded(one) or 0.0 for one in values]
