"""The chart of a metric: its range, its labels, and which of them have room."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_provider_hsml.local.console.chart import HEIGHT, WIDTH, Chart


def chart_of(values: dict[int, Any], marks: dict[int, str] | None = None) -> Chart:
    chart = Chart.of("accuracy", values, marks or {})
    assert chart is not None
    return chart


@pytest.mark.parametrize("values", [{1: 0.5}, {1: math.nan, 2: 0.5}, {1: None, 2: 0.5}])
def test_one_value_makes_no_chart(values: dict[int, Any]) -> None:
    assert Chart.of("accuracy", values, {}) is None


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ({1: 0.5, 3: 1.0}, [(54.5, 138), (504, 28)]),
        ({1: 0.5, 2: 0.5}, [(54.5, 83), (504, 83)]),
        ({1: 1.0, 2: 0.5, 5: 0.0}, [(35.5, 28), (152.6, 83), (504, 138)]),
        ({1: -1e308, 2: 1e308}, [(92.5, 83), (504, 83)]),
    ],
)
def test_points_keep_their_proportions(values: dict[int, float], drawn: list[tuple[float, float]]) -> None:
    points = chart_of(values).points

    assert [(point.x, point.y) for point in points] == drawn


@pytest.mark.parametrize(
    ("values", "shown", "beyond"),
    [
        ([0.90, 0.91, 0.92, 1000.0], (0.90, 0.92), {4: "above"}),
        ([0.01, 0.90, 0.91, 0.92, 0.91], (0.90, 0.92), {1: "below"}),
        ([-1e6, 0.90, 0.91, 0.92, 0.91, 1e6], (0.90, 0.92), {1: "below", 6: "above"}),
        ([1e6, 100.0, 0.90, 0.91, 0.92, 0.91], (0.90, 0.92), {1: "above", 2: "above"}),
        # Too few values to say which one is far from the others; two groups; the rest a line in any case.
        ([0.90, 0.91, 1000.0], (0.90, 1000.0), {}),
        ([0.5, 0.51, 0.52, 0.97, 0.98, 0.99], (0.5, 0.99), {}),
        ([0.9, 0.9, 0.9, 0.1], (0.1, 0.9), {}),
        ([0.85, 0.90, 0.91, 0.92], (0.85, 0.92), {}),
    ],
)
def test_an_outlier_does_not_flatten_the_rest(
    values: list[float], shown: tuple[float, float], beyond: dict[int, str]
) -> None:
    chart = chart_of(dict(enumerate(values, start=1)))

    assert (chart.least, chart.most) == shown
    assert {point.version: point.beyond for point in chart.points if point.beyond} == beyond
    assert all(chart.top <= point.y <= chart.bottom for point in chart.points)
    assert sorted(label.text for label in chart.labels) == sorted(f"{values[number - 1]:g}" for number in beyond)


@pytest.mark.parametrize("value", [0.5, -1.23457e-100, 123456.0])
@pytest.mark.parametrize("count", [2, 12, 30, 1000])
@pytest.mark.parametrize("first", [1, 123_456])
def test_labels_are_whole_and_apart(value: float, count: int, first: int) -> None:
    values = {first + number: value * (1 + number % 7) for number in range(count)}
    marks = dict.fromkeys(list(values)[-3:], "rolled back") | {first: "served"}
    chart = chart_of(values, marks)

    assert 9.5 * max(len(f"{chart.least:.6g}"), len(f"{chart.most:.6g}")) <= chart.left - 6
    for labels in (chart.labels, chart.versions):
        assert labels
        for place, label in enumerate(labels):
            left, right = label._ends()
            assert left >= 0
            assert right <= WIDTH
            assert 14 <= label.y <= HEIGHT
            assert all(map(label.is_clear_of, labels[:place]))
    assert "served" in [label.text for label in chart.labels]
    assert str(first) in [label.text for label in chart.versions]
