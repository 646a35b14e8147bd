"""Latencies and the distribution of predictions, in constant memory, and in a form that a later try can add to."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from dataclasses import dataclass, field
from operator import mul
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_STEPS = 40
"""Steps of the histogram for a factor of ten: a percentile is known to 6 %."""
_BOUNDS = [10 ** (step / _STEPS - 4) for step in range(_STEPS * 8)]
"""Seconds: 0.1 ms to 10,000 s."""
_MOST_VALUES = 20
"""Different predictions that are counted apart."""
_COUNTED: frozenset[type] = frozenset((bool, str, int, float))


@dataclass(slots=True)
class Latencies:
    """A histogram of latencies."""

    counts: dict[int, int] = field(default_factory=dict)
    """The number of requests by the step of the histogram."""

    def add(self, seconds: Iterable[float]) -> None:
        """Count latencies."""
        for one in seconds:
            step = bisect.bisect_left(_BOUNDS, one)
            self.counts[step] = self.counts.get(step, 0) + 1

    def percentiles(self) -> dict[str, float] | None:
        """Return the percentiles in milliseconds; None without any request."""
        total = sum(self.counts.values())
        return None if not total else {f"p{share}": self._percentile(share / 100 * total) for share in (50, 95, 99)}

    def _percentile(self, rank: float) -> float:
        seen = 0
        for step in sorted(self.counts):
            seen += self.counts[step]
            if seen >= rank:
                return round(_BOUNDS[min(step, len(_BOUNDS) - 1)] * 1000, 3)
        raise AssertionError  # The counts sum up to at least the rank.

    def to_json(self) -> dict[str, int]:
        """Return the counts as plain JSON."""
        return {str(step): count for step, count in sorted(self.counts.items())}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` returned."""
        return cls({int(step): int(count) for step, count in data.items()})


@dataclass(slots=True)
class Distribution:
    """The distribution of the predictions that are numbers, and how often each of a few different ones occurs."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """The sum of the squared differences from the mean."""
    least: float | None = None
    most: float | None = None
    values: dict[str, int] | None = field(default_factory=dict)
    """How often each prediction occurs; None once there are too many different ones."""

    def add(self, predictions: Sequence[Any]) -> None:
        """
        Count the predictions of a chunk.

        The last digits depend on where a table is cut into chunks, which is the same in each try.
        """
        kinds = set(map(type, predictions))
        if self.values is not None:
            self._add_values(kinds, predictions)
        numbers = predictions
        if not kinds <= {int, float}:
            numbers = [one for one in predictions if isinstance(one, int | float) and not isinstance(one, bool)]
        if not math.isfinite(sum(numbers)):
            numbers = [one for one in numbers if math.isfinite(one)]
        if numbers:
            self._add_numbers(numbers)

    def _add_values(self, kinds: set[type], predictions: Sequence[Any]) -> None:
        values = self.values or {}
        if len(kinds) > 1 or not kinds <= _COUNTED:  # True and 1.0 are the same as 1 to a Counter.
            predictions = [str(one) for one in predictions if type(one) in _COUNTED]
        for value, count in Counter(predictions).items():
            key = str(value)[:100]
            values[key] = values.get(key, 0) + count
            if len(values) > _MOST_VALUES:
                self.values = None
                return
        self.values = values

    def _add_numbers(self, numbers: Sequence[float]) -> None:
        count, total = len(numbers), sum(numbers)
        mean = total / count if math.isfinite(total) else sum(one / count for one in numbers)
        apart = [one - mean for one in numbers]
        shift, before = mean - self.mean, self.count
        self.count = before + count
        self.mean += shift * (count / self.count)
        self.squares += sum(map(mul, apart, apart)) + shift * shift * before * count / self.count
        least, most = float(min(numbers)), float(max(numbers))
        self.least = least if self.least is None else min(self.least, least)
        self.most = most if self.most is None else max(self.most, most)

    def summary(self) -> dict[str, Any] | None:
        """Return the distribution for people; None without predictions that are numbers or few different values."""
        found: dict[str, Any] = {}
        if self.count:
            deviation = math.sqrt(self.squares / self.count)
            std = deviation if math.isfinite(deviation) else None
            found = {"count": self.count, "mean": self.mean, "std": std, "min": self.least, "max": self.most}
        if self.values:
            found["values"] = dict(sorted(self.values.items()))
        return found or None

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain JSON."""
        return {
            "count": self.count,
            "mean": self.mean,
            "squares": self.squares,
            "least": self.least,
            "most": self.most,
            "values": self.values,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` returned."""
        return cls(**data)
