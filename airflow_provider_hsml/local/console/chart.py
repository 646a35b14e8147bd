"""The layout of a chart of one metric over the versions of a model. The template draws it as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

WIDTH, HEIGHT = 520, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 28, 22, 28


@dataclass(frozen=True, slots=True)
class Point:
    """The value of a version, and its position in the chart."""

    version: int
    value: float
    x: float
    y: float
    is_served: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """One metric over the versions, oldest first."""

    metric: str
    points: tuple[Point, ...]
    least: float
    most: float
    width: int = WIDTH
    height: int = HEIGHT

    @classmethod
    def of(cls, metric: str, values: Mapping[int, float | None], served: Collection[int | None]) -> Self | None:
        """
        Lay out the points; return None for fewer than two.

        :param values: by version; versions without a finite value are left out
        :param served: the versions to highlight
        """
        known = {
            number: value for number, value in sorted(values.items()) if value is not None and math.isfinite(value)
        }
        if len(known) < 2:
            return None
        least, most = min(known.values()), max(known.values())
        first, last = min(known), max(known)
        across, down = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        points = tuple(
            Point(
                number,
                value,
                x=round(_LEFT + across * (number - first) / (last - first), 1),
                y=round(_TOP + down * (0.5 if most == least else (most - value) / (most - least)), 1),
                is_served=number in served,
            )
            for number, value in known.items()
        )
        return cls(metric, points, least, most)

    @property
    def line(self) -> str:
        """The points in the format of an SVG polyline."""
        return " ".join(f"{point.x},{point.y}" for point in self.points)
