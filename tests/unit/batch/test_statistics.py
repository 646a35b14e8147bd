"""Latencies and distributions: right, and the same when a later try adds to them."""

from __future__ import annotations

import json
import random
import statistics

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
    whole, first = Distribution(), Distribution()
    whole.add(numbers)
    first.add(numbers[:300])
    second = Distribution.from_json(json.loads(json.dumps(first.to_json())))
    second.add(numbers[300:])

    assert second == whole
    found = whole.summary()
    assert found is not None
    assert found["count"] == 1000
    assert found["mean"] == pytest.approx(statistics.fmean(numbers))
    assert found["std"] == pytest.approx(statistics.pstdev(numbers))
    assert (found["min"], found["max"]) == (min(numbers), max(numbers))
    assert "values" not in found


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
