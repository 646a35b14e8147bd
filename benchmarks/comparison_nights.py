"""
Play nights of a nightly retrain against two gates: one reads comparisons, the other one the registry.

Run: python benchmarks/comparison_nights.py [NIGHTS]. The table is Markdown, for docs/compare.md. Everything is drawn
from a seed. It needs the extra ``[metrics]`` and no server: a model is two numbers, how often it mends an answer of the
champion and how often it breaks one.

A night has 2,000 labelled rows, a champion that is right on 90 % of them, and three challengers that answer 9 % of the
rows otherwise than the champion. The plain gate compares the accuracies that training registers: that of a challenger
on the night's rows, that of the champion on the rows of the night on which it was trained. Its champion stays the same,
so that each night asks the same question anew.

- *no difference*: the challengers are as good as the champion. Each promotion is wrong.
- *one is better*: one of them is better by the smallest difference that the comparison states for such rows. Its
  promotion is right, each other one is wrong.
- *worse by the margin*: the challengers are worse by the margin of ``require="not_worse"``. Each promotion is wrong.
- *as good, not worse*: the challengers are as good as the champion, and ``not_worse`` accepts them. Each promotion is
  right: fresh data is reason enough.
- *backfill*: a quarter of as many nights are run again, with rows from before the champion's training data ends. Each
  promotion is wrong.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_hsml.hopsworks.compare.compare import compare
from airflow_provider_hsml.hopsworks.compare.scored import Rows, Scored
from airflow_provider_hsml.hopsworks.domain import gate
from airflow_provider_hsml.hopsworks.domain.gate import Decision, Gate, Metric
from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
from airflow_provider_hsml.hopsworks.domain.measured_gate import decide_measured
from airflow_provider_hsml.hopsworks.domain.model_version import Direction, ModelVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_hsml.hopsworks.domain.comparison import Comparison

    Chance = np.random.Generator

NIGHTS = 365
ROWS = 2000
CHALLENGERS = 3
RIGHT = 0.9
"""How often the champion is right."""
BROKEN = 0.05
"""How often a challenger is wrong where the champion is right."""
MARGIN = 0.02
DAY = datetime(2026, 1, 1, tzinfo=UTC)
ACCURACY = Metric("accuracy", Direction.MAX)


@dataclass(frozen=True)
class Night:
    """What both gates are asked in one night."""

    comparisons: list[Comparison]
    registered: list[float]
    """The accuracies in the registry: of the champion, then of the challengers."""


@dataclass(frozen=True)
class Result:
    """How often each gate promoted, in some nights."""

    title: str
    nights: int
    measured: list[int | None]
    """The challenger that was promoted, 0 being the first; None where the champion was kept."""
    plain: list[int | None]


def challenger_of(chance: Chance, champion: np.ndarray[Any, Any], better: float) -> np.ndarray[Any, Any]:
    """Return which rows a challenger answers rightly, whose true accuracy is better than the champion's by a number."""
    mended = (RIGHT * BROKEN + better) / (1 - RIGHT)
    flips = chance.random(len(champion)) < np.where(champion, BROKEN, mended)
    return champion ^ flips


def night(
    chance: Chance, better: list[float], *, seed: int, rows: int = ROWS, until: datetime = DAY - timedelta(days=1)
) -> Night:
    """
    Play one night.

    :param better: how much better than the champion each challenger is, in truth
    :param seed: of the resamples
    :param rows: labelled rows
    :param until: until when the champion's training data goes; the rows are of ``DAY`` and after it
    """
    labels = (chance.random(rows) < 0.5).astype(int)
    right = chance.random(rows) < RIGHT
    times = [DAY + timedelta(seconds=at) for at in range(rows)]
    champion = Scored(ServedVersion("example", "model", 1), np.where(right, labels, 1 - labels).tolist())
    comparisons, registered = [], [float((chance.random(rows) < RIGHT).mean())]
    for number, by in enumerate(better):
        own = challenger_of(chance, right, by)
        challenger = Scored(ServedVersion("example", "model", number + 2), np.where(own, labels, 1 - labels).tolist())
        registered.append(float(own.mean()))
        comparisons.append(
            compare(
                champion,
                challenger,
                Rows(labels.tolist(), times=times),
                ["accuracy"],
                seed=seed,
                trained_until=(until, DAY - timedelta(days=1)),
                challengers=len(better),
                at=0.0,
            )
        )
    return Night(comparisons, registered)


def decide(played: Night, **fields: Any) -> tuple[int | None, int | None]:
    """
    Ask both gates, and return the challenger that each promotes.

    :param played: the night
    :param fields: of the gate that reads comparisons
    """
    versions = [
        ModelVersion("model", number, f"model_{number}", "example", 1, {"accuracy": accuracy})
        for number, accuracy in enumerate(played.registered, 1)
    ]
    rules = Gate(measured=[one.to_json() for one in played.comparisons], **fields).rules()
    measured = decide_measured(versions, versions[0], ACCURACY, rules, now=0.0)
    return _promoted(measured), _promoted(gate.decide(versions, versions[0], ACCURACY, Gate().rules()))


def _promoted(decision: Decision) -> int | None:
    return None if decision.is_kept or decision.chosen is None else decision.chosen.version - 2


def play(title: str, nights: int, better: list[float], seed: int, **fields: Any) -> Result:
    """Play some nights with the same truth."""
    chance = np.random.default_rng(seed)
    until = DAY + timedelta(days=30) if fields.pop("backfill", False) else DAY - timedelta(days=1)
    decisions = [decide(night(chance, better, seed=at, until=until), **fields) for at in range(nights)]
    return Result(title, nights, [one for one, _ in decisions], [other for _, other in decisions])


def stated_difference(seed: int = 0) -> float:
    """Return the smallest difference that the comparison of a night without a difference states."""
    chance = np.random.default_rng(seed)
    stated = [
        one.metrics["accuracy"].smallest_detectable or 0.0
        for at in range(10)
        for one in night(chance, [0.0] * CHALLENGERS, seed=at).comparisons
    ]
    return float(np.median(stated))


def results(nights: int = NIGHTS) -> Iterator[Result]:
    """Play all scenarios."""
    none = [0.0] * CHALLENGERS
    yield play("no difference", nights, none, 1)
    stated = stated_difference()
    yield play(f"one is better by {stated:.3f}", nights, [stated, *none[1:]], 2)
    worse = [-MARGIN] * CHALLENGERS
    yield play(f"worse by the margin of {MARGIN:g}", nights, worse, 3, require="not_worse", margin=MARGIN)
    yield play("as good, not worse", nights, none, 4, require="not_worse", margin=MARGIN)
    yield play("backfill", max(1, nights * 90 // 365), none, 5, backfill=True)


def row(result: Result) -> str:
    """Return a line of the table."""

    def cell(promoted: list[int | None]) -> str:
        best = sum(one == 0 for one in promoted)
        others = sum(one not in (0, None) for one in promoted)
        if result.title.startswith("one is better"):
            return f"{best / result.nights:.1%} right, {others / result.nights:.1%} wrong"
        return f"{(best + others) / result.nights:.1%}"

    return f"| {result.title} | {result.nights} | {cell(result.measured)} | {cell(result.plain)} |"


def main() -> None:
    """Play, and print the table."""
    nights = int(sys.argv[1]) if len(sys.argv) > 1 else NIGHTS
    print("| nights | number | promoted by the gate with `measured` | promoted by the plain gate |")
    print("| --- | --- | --- | --- |")
    for result in results(nights):
        print(row(result), flush=True)


if __name__ == "__main__":
    main()
