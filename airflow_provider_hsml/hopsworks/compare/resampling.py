"""
The bootstrap: which rows each resample holds, and the bounds of a difference.

A resample is a vector of weights: how often each row was drawn. All metrics of both versions are computed from the same
weights, so that the differences are paired. With groups, a group is drawn as a whole, and its rows have its weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.comparison import Bounds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST_ROWS = 100_000
_CHUNK = 2_000_000
"""Weights that are in memory at a time."""
_DIGITS = 8
_POWER = 0.95
_RESAMPLING = NormalDist().inv_cdf(0.95)
_LEVEL = 0.05
_SHARED = (0.2, 0.1, 0.05, 0.025, 0.02, 0.01, 0.005, 0.001)
"""Levels that people ask for; they are kept also for two to five challengers."""
LEVELS = tuple(
    sorted(
        {round(level / count, 10) for level in _SHARED for count in range(1, 6)}
        | {round(0.0005 * 1.25**step, 10) for step in range(31)}
        | {0.00005, 0.00007, 0.0001, 0.00014}
    )
)
"""The levels at which bounds are kept, from 0.00005 to 0.4: the strictest for which the most resamples are enough."""
SLICE_LEVELS = (
    *(round(start * 10.0**power, 6) for power in (-5, -4, -3, -2) for start in (1, 2, 2.5, 5)),
    0.1,
)
"""The levels at which the upper bounds of slices are kept: 0.001 for each of a hundred slices, and each of less."""


@dataclass(frozen=True)
class Units:
    """What is drawn: rows, or groups of rows."""

    count: int
    of_row: Array | None
    """The unit of each row; None when each row is a unit of its own."""

    def sums(self, columns: Any) -> Any:
        """
        Return the sums of columns by unit.

        :param columns: a sparse matrix with one line a row
        """
        import numpy as np
        from scipy import sparse

        if self.of_row is None:
            return columns
        rows = len(self.of_row)
        ones = np.ones(rows)
        belongs = sparse.csr_matrix((ones, (self.of_row, np.arange(rows))), shape=(self.count, rows))
        return belongs @ columns

    def of_rows(self, weights: Array) -> Array:
        """Return the weights of the rows, from those of the units."""
        return weights if self.of_row is None else weights[..., self.of_row]


def draws(units: int, resamples: int, seed: int) -> Iterator[Array]:
    """
    Yield the weights of the units in chunks of resamples: how often each was drawn with replacement.

    The same arguments yield the same weights.

    :param units: rows or groups
    """
    import numpy as np

    chance = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // units)
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        drawn = chance.integers(0, units, size=(count, units))
        drawn += np.arange(count)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units).astype(np.float64)


def bounds(differences: Array) -> Bounds:
    """
    Return the one-sided percentile bounds of a difference.

    They allow for the noise of the resampling itself: with 95 % confidence, more resamples would give no weaker bound.
    So the error stays below the level, and another seed hardly decides otherwise.

    :param differences: of the resamples, without those that do not exist
    """
    import numpy as np

    ordered = np.sort(differences)
    return Bounds(
        LEVELS,
        tuple(_order_statistic(ordered, level, _RESAMPLING) for level in LEVELS),
        tuple(_negated(_order_statistic(-ordered[::-1], level, _RESAMPLING)) for level in LEVELS),
    )


def upper_bounds(differences: Array) -> tuple[float | None, ...]:
    """
    Return the upper bounds of a slice's difference at ``SLICE_LEVELS``: plain percentiles, of as many slices as may be.

    :param differences: of the resamples, without those that do not exist
    """
    import numpy as np

    ordered = np.sort(-differences)
    return tuple(_negated(_order_statistic(ordered, level)) for level in SLICE_LEVELS)


def smallest_detectable(differences: Array, challengers: int) -> float | None:
    """
    Return the smallest true difference that would be shown with 95 % confidence in at least eight of ten nights.

    The deviate of the power is that of 95 %, since a difference makes more rows differ, and so the error larger.

    :param differences: of the resamples, without those that do not exist
    :param challengers: how many challengers are tested for one decision
    """
    error = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if error == 0:
        return None
    level = _LEVEL / challengers
    reached = level - _RESAMPLING * math.sqrt(level * (1 - level) / len(differences))
    normal = NormalDist()
    return rounded(error * (normal.inv_cdf(_POWER) - normal.inv_cdf(max(reached, 1 / (len(differences) + 1)))))


def rounded(value: float | None) -> float | None:
    """Return a number for the record, with 8 significant digits; None if there is no finite one."""
    if value is None or value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN
        return None
    return float(f"{value:.{_DIGITS}g}")


def _order_statistic(ordered: Array, level: float, deviates: float = 0.0) -> float | None:
    """
    Return the lower bound at a level: rounded to the outside, and None where the resamples are too few.

    :param deviates: standard errors of the number of resamples below the bound that are allowed for
    """
    noise = math.sqrt(len(ordered) * level * (1 - level))
    place = math.floor(level * (len(ordered) + 1) * (1 + 1e-9) - deviates * noise)
    return rounded(float(ordered[place - 1])) if place >= 1 else None


def _negated(value: float | None) -> float | None:
    return None if value is None else -value + 0.0
