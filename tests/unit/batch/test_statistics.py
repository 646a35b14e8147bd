"""Latencies and distributions: right, and the same when a later try adds to them."""

from __future__ import annotations

import json
import math
import random
import statistics
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.batch.statistics import Distribution, Latencies


def test_percentiles() -> None:
    source = random.Random(7)  # noqa: S311 - no secret
    seconds = [source.lognormvariate(-4, 1) for _ in range(10_000)]
    latencies = Latencies()
    latencies.add(seconds)

    found = latencies.percentiles()

    assert found is not None
    exact = statistics.quantiles(seconds, n=100)
    for share in (50, 95, 99):
        assert found[f"p{share}"] == pytest.approx(1000 * exact[share - 1], rel=0.07)
    assert Latencies().percentiles() is None
    assert Latencies.from_json(json.loads(json.dumps(latencies.to_json()))) == latencies


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e9])
def test_latencies_beyond_the_histogram(seconds: float) -> None:
    latencies = Latencies()
    latencies.add([seconds])
    assert latencies.percentiles() is not None


def test_numbers() -> None:
    source = random.Random(7)  # noqa: S311 - no secret
    numbers = [source.gauss(5, 2) for _ in range(1000)]
    chunks = [numbers[begin : begin + 100] for begin in range(0, 1000, 100)]
    whole, first = Distribution(), Distribution()
    for chunk in chunks:
        whole.add(chunk)
    for chunk in chunks[:3]:
        first.add(chunk)
    second = Distribution.from_json(json.loads(json.dumps(first.to_json())))
    for chunk in chunks[3:]:
        second.add(chunk)

    assert second == whole
    found = whole.summary()
    assert found is not None
    assert found["count"] == 1000
    assert found["mean"] == pytest.approx(statistics.fmean(numbers))
    assert found["std"] == pytest.approx(statistics.pstdev(numbers))
    assert (found["min"], found["max"]) == (min(numbers), max(numbers))
    assert "values" not in found


@pytest.mark.parametrize("given", [[1e308, 1e308, -1e308], [2**63, -(2**63), 1], [0.5, float("nan"), float("inf")], []])
def test_numbers_beyond_a_sum(given: list[Any]) -> None:
    distribution = Distribution()
    distribution.add(given)

    found = distribution.summary()
    json.dumps(found, allow_nan=False)
    finite = [one for one in given if math.isfinite(one)]
    assert (found or {"count": 0})["count"] == len(finite)
    if found:
        assert found["mean"] == pytest.approx(statistics.fmean([one / 8 for one in finite]) * 8)


def test_values() -> None:
    distribution = Distribution()
    distribution.add(["cat", "dog", "cat", True, 1, None, [1], {"a": 1}])

    assert distribution.summary() == {
        "count": 1,
        "mean": 1.0,
        "std": 0.0,
        "min": 1.0,
        "max": 1.0,
        "values": {"1": 1, "True": 1, "cat": 2, "dog": 1},
    }
    assert Distribution().summary() is None
