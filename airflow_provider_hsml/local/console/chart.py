"""The layout of a chart of one metric over the versions of a model. The template draws it as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 520, 170
_TOP, _BOTTOM, _SIDE = 28, 32, 16
_LETTER = 9.5
"""The width of a letter: a little more than that of a bold digit in a wide font of the size in console.css."""
_EDGE = 2
"""The space that texts leave at both sides, since browsers round."""
_LABEL_ABOVE, _LABEL_BELOW = -11, 21
_FAR = 4
"""A value is out of range if its distance from the others is larger than this multiple of their range."""
_MOST_FAR = 0.2
"""The share of the values that may be out of range, rounded up."""
SERVED = "served"


class Label(NamedTuple):
    """A text in the chart, in one line."""

    text: str
    x: float
    y: float
    anchor: str
    """``start``, ``middle`` or ``end``: the part of the text that is at ``x``."""

    def is_clear_of(self, other: Label) -> bool:
        """Whether the two do not touch."""
        (left, right), (other_left, other_right) = self._ends(), other._ends()
        return abs(self.y - other.y) > 14 or right < other_left or other_right < left

    def _ends(self) -> tuple[float, float]:
        width = _LETTER * len(self.text)
        left = self.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor] * width
        return left, left + width

    @classmethod
    def within(cls, text: str, x: float, y: float) -> Self:
        """Place a text around a point, but inside the chart."""
        half = _LETTER * len(text) / 2
        if x + half > WIDTH - _EDGE:
            return cls(text, WIDTH - _EDGE, y, "end")
        return cls(text, x, y, "middle") if x >= half + _EDGE else cls(text, _EDGE, y, "start")


@dataclass(frozen=True, slots=True)
class Point:
    """The value of a version, and its position in the chart."""

    version: int
    value: float
    x: float
    y: float
    mark: str = ""
    """``served``, or how the version failed; empty for the others."""
    beyond: str = ""
    """``above`` or ``below`` for a value out of the chart's range, which is drawn at its edge."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One metric over the versions, oldest first."""

    metric: str
    points: tuple[Point, ...]
    least: float
    most: float
    left: float
    """The position of the axis."""
    labels: tuple[Label, ...]
    """Of marked points, and of those out of range."""
    versions: tuple[Label, ...]
    """The numbers of the versions, as many as have room."""
    width: ClassVar[int] = WIDTH
    height: ClassVar[int] = HEIGHT
    top: ClassVar[int] = _TOP
    bottom: ClassVar[int] = HEIGHT - _BOTTOM

    @classmethod
    def of(cls, metric: str, values: Mapping[int, float | None], marks: Mapping[int, str]) -> Self | None:
        """
        Lay out the points; return None for fewer than two.

        :param values: by version; versions without a finite value are left out
        :param marks: the versions to highlight, with a word for each
        """
        known = {
            number: value for number, value in sorted(values.items()) if value is not None and math.isfinite(value)
        }
        if len(known) < 2:
            return None
        least, most = _range(sorted(known.values()))
        spread, first, last = most - least, min(known), max(known)
        left = 10 + _LETTER * max(len(number(least)), len(number(most)))
        across, down = WIDTH - left - 2 * _SIDE, HEIGHT - _TOP - _BOTTOM
        points = []
        for version, value in known.items():
            share = (most - min(max(value, least), most)) / spread if 0 < spread < math.inf else 0.5
            points.append(
                Point(
                    version,
                    value,
                    x=round(left + _SIDE + across * (version - first) / (last - first), 1),
                    y=round(_TOP + down * share, 1),
                    mark=marks.get(version, ""),
                    beyond="above" if value > most else "below" if value < least else "",
                )
            )
        return cls(metric, tuple(points), least, most, left, _labels(points), _versions(points))

    @property
    def line(self) -> str:
        """The points in the format of an SVG polyline."""
        return " ".join(f"{point.x},{point.y}" for point in self.points)


def number(value: float | None) -> str:
    """Format a metric for people; None becomes an empty text."""
    return "" if value is None else f"{value:.6g}"


def _range(ordered: Sequence[float]) -> tuple[float, float]:
    """
    Return the least and the greatest value to show: without the few that would flatten the rest to a line.

    :param ordered: at least two values, the least first
    """
    few = math.ceil(_MOST_FAR * len(ordered)) if len(ordered) > 3 else 0
    for left_out in range(few, 0, -1):
        for low in range(left_out + 1):
            high = len(ordered) - 1 - (left_out - low)
            least, most = ordered[low], ordered[high]
            far = _FAR * (most - least)
            below = math.inf if low == 0 else least - ordered[low - 1]
            above = math.inf if high == len(ordered) - 1 else ordered[high + 1] - most
            if 0 < far < min(below, above):
                return least, most
    return ordered[0], ordered[-1]


def _labels(points: Sequence[Point]) -> tuple[Label, ...]:
    """Return the labels of points: above them, or below where there is no room; else the tooltip has to do."""
    placed: list[Label] = []
    for point in sorted(points, key=lambda point: (point.mark != SERVED, not point.beyond, -point.version)):
        text = ", ".join(part for part in (number(point.value) if point.beyond else "", point.mark) if part)
        for shift in (_LABEL_ABOVE, _LABEL_BELOW):
            label = Label.within(text, point.x, point.y + shift)
            if text and all(map(label.is_clear_of, placed)):
                placed.append(label)
                break
    return tuple(placed)


def _versions(points: Sequence[Point]) -> tuple[Label, ...]:
    """Return the numbers below the chart: of marked points first, then of the newest and the oldest."""
    placed: list[Label] = []
    wanted = [*(point for point in points if point.mark), points[-1], *points]
    for point in {point.version: point for point in wanted}.values():
        label = Label.within(str(point.version), point.x, HEIGHT - 8)
        if all(map(label.is_clear_of, placed)):
            placed.append(label)
    return tuple(placed)
