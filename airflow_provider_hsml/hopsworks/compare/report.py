"""The report of a comparison: one HTML file for people, without scripts and without anything from another host."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks.domain.model_version import Direction
from airflow_provider_hsml.hopsworks.untrusted_text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_hsml.hopsworks.domain.comparison import Comparison, MetricComparison

_TEMPLATE = Path(__file__).with_name("report.html")
_WIDTH, _HEIGHT = 290.0, 30.0
_MARGIN = 10.0
_INTERVAL_LEVEL = 0.025
_LOWER_LEVEL = 0.05
_BAR = 160.0


def report(comparison: Comparison, *, title: str | None = None) -> str:
    """
    Return the report as HTML.

    It holds everything that it shows: styles and drawings are inside, and every text is escaped.

    :param comparison: the comparison
    :param title: the heading; None for the names of the versions
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True)
    environment.filters |= {"figure": _figure, "share": _share, "clean": clean}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    heading = title or f"Version {comparison.challenger.version} of {comparison.challenger.name}"
    return template.render(
        title=clean(heading, 200),
        comparison=comparison,
        details=comparison.details,
        made=datetime.fromtimestamp(comparison.at, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        metrics=[_MetricRow.of(name, one) for name, one in comparison.metrics.items()],
        slices=[(name, one, each) for name, one in comparison.metrics.items() for each in one.slices],
        level=_LOWER_LEVEL,
        bars=_bars(comparison.details.get("distributions") or {}),
        matrices=_matrices(comparison.details.get("confusion") or {}),
    )


@dataclass(frozen=True, slots=True)
class _Interval:
    """An interval around a difference, in the units of the drawing."""

    low: float
    high: float
    point: float
    zero: float
    width: float = _WIDTH
    height: float = _HEIGHT

    @classmethod
    def of(cls, one: MetricComparison) -> Self | None:
        low, high = one.bounds.lower_at(_INTERVAL_LEVEL), one.bounds.upper_at(_INTERVAL_LEVEL)
        if low is None or high is None or one.difference is None:
            return None
        # Symmetric around zero, so that the side of the interval is seen at once.
        reach = max(abs(low), abs(high), abs(one.difference)) or 1.0
        half = _WIDTH / 2 - _MARGIN

        def at(value: float) -> float:
            return round(_WIDTH / 2 + half * value / reach, 1)

        return cls(at(low), at(high), at(one.difference), at(0.0))

    @property
    def kind(self) -> str:
        """Whether the interval is on one side of zero."""
        return "better" if self.low > self.zero else "worse" if self.high < self.zero else "open"


@dataclass(frozen=True, slots=True)
class _MetricRow:
    """A line of the table of metrics."""

    name: str
    metric: MetricComparison
    lower: float | None
    low: float | None
    high: float | None
    interval: _Interval | None
    direction: str

    @classmethod
    def of(cls, name: str, one: MetricComparison) -> Self:
        return cls(
            name,
            one,
            one.bounds.lower_at(_LOWER_LEVEL),
            one.bounds.lower_at(_INTERVAL_LEVEL),
            one.bounds.upper_at(_INTERVAL_LEVEL),
            _Interval.of(one),
            "more is better" if one.direction is Direction.MAX else "less is better",
        )


@dataclass(frozen=True, slots=True)
class _Bars:
    """How often an answer was given, by version."""

    label: str
    counts: tuple[tuple[str, int, float], ...]
    """Version, count, and length of the bar."""


def _bars(distributions: Mapping[str, Any]) -> list[_Bars]:
    """Return the bars of classes, or of the bins of numbers."""
    names = [name for name in ("champion", "challenger") if name in distributions]
    edges: Sequence[Any] = distributions.get("edges") or ()
    rows: list[tuple[str, list[tuple[str, int]]]] = []
    if edges:
        histograms = {name: distributions[name]["histogram"] for name in names}
        rows = [
            (f"{_figure(low)} to {_figure(high)}", [(name, histograms[name][at]) for name in names])
            for at, (low, high) in enumerate(pairwise(edges))
        ]
    else:
        counts = {name: distributions[name]["counts"] for name in names}
        labels = dict.fromkeys(label for of_version in counts.values() for label in of_version)
        rows = [(label, [(name, counts[name].get(label, 0)) for name in names]) for label in labels]
        if any(distributions[name].get("other") for name in names):
            rows.append(("other", [(name, distributions[name].get("other", 0)) for name in names]))
    most = max((count for _, row in rows for _, count in row), default=0) or 1
    return [
        _Bars(label, tuple((name, count, round(_BAR * count / most, 1)) for name, count in row)) for label, row in rows
    ]


def _matrices(confusion: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, list[tuple[int, float]]]]]]:
    """Return the confusion matrices by version: lines of a label, with each count and its share of the line."""
    labels = confusion.get("classes") or []
    return [
        (
            name,
            [
                (label, [(count, count / (sum(line) or 1)) for count in line])
                for label, line in zip(labels, confusion[name], strict=True)
            ],
        )
        for name in ("champion", "challenger")
        if name in confusion
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
