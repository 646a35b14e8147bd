"""Every metric of every resample is what scikit-learn gives for it, however it is computed."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from airflow_provider_hsml.hopsworks.compare.answers import Answers
from airflow_provider_hsml.hopsworks.compare.measures import Block, measure_of
from airflow_provider_hsml.hopsworks.compare.resampling import SLICE_LEVELS, Units, bounds, draws, upper_bounds
from airflow_provider_hsml.hopsworks.domain.comparison import Bounds
from airflow_provider_hsml.hopsworks.domain.comparison_metrics import read_metrics
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]

ROWS = 60
NAMES = ("version 1", "version 2")


def classes(chance: np.random.Generator, count: int) -> Answers:
    """Answers of classes: text, of which a model may predict one that no label has."""
    known = [f"class {one}" for one in range(count)]
    labels = chance.choice(known, ROWS).tolist()
    found = [chance.choice([*known, "another"], ROWS).tolist() for _ in range(2)]
    return Answers(labels, tuple(found), NAMES)


def probabilities(chance: np.random.Generator, count: int) -> Answers:
    labels = chance.integers(0, count, ROWS).tolist()
    return Answers(labels, tuple(chance.dirichlet([1.0] * count, ROWS).tolist() for _ in range(2)), NAMES)


def numbers(chance: np.random.Generator, _count: int) -> Answers:
    labels = chance.normal(10, 3, ROWS)
    return Answers(labels.tolist(), tuple((labels + chance.normal(0, 1, ROWS)).tolist() for _ in range(2)), NAMES)


def weighted(name: str, answers: Answers, which: int, rows: Array, weights: Array) -> float:
    """Give a metric as a user would compute it with scikit-learn."""
    if name in ("mae", "rmse", "mape", "r2"):
        function: Callable[..., float] = {
            "mae": sk.mean_absolute_error,
            "rmse": sk.root_mean_squared_error,
            "mape": sk.mean_absolute_percentage_error,
            "r2": sk.r2_score,
        }[name]
        true, found = np.array(answers.labels)[rows], np.array(answers.predictions[which])[rows]
        return float(function(true, found, sample_weight=weights))
    true = np.array(answers.labels)[rows]
    if name in ("log_loss", "roc_auc"):
        found = np.array(answers.predictions[which])[rows]
        if name == "log_loss":
            return float(sk.log_loss(true, found, sample_weight=weights, labels=answers.classes))
        if found.shape[1] == 2:
            return float(sk.roc_auc_score(true, found[:, 1], sample_weight=weights))
        return float(sk.roc_auc_score(true, found, sample_weight=weights, multi_class="ovr"))
    found = np.array(answers.predictions[which])[rows]
    if name == "accuracy":
        return float(sk.accuracy_score(true, found, sample_weight=weights))
    base, _, one = name.partition(":")
    function = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}[base]
    labels = [one] if one else sorted(set(true[weights > 0].tolist()))
    value = function(true, found, sample_weight=weights, labels=labels, average="macro", zero_division=0)
    return float(value)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        *((classes, name) for name in ("accuracy", "precision", "recall", "f1", "recall:class 0", "precision:class 1")),
        *((probabilities, name) for name in ("log_loss", "roc_auc")),
        *((numbers, name) for name in ("mae", "rmse", "mape", "r2")),
    ],
)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 4), grouped=st.booleans(), part=st.booleans())
@settings(max_examples=10, deadline=None)
def test_resamples_are_what_scikit_learn_gives(
    made: Callable[..., Answers], name: str, seed: int, count: int, grouped: bool, part: bool
) -> None:
    chance = np.random.default_rng(seed)
    answers = made(chance, count)
    units = Units(12, chance.integers(0, 12, ROWS)) if grouped else Units(ROWS, None)
    blocks = [Block(np.arange(ROWS)), *([Block(np.flatnonzero(chance.random(ROWS) < 0.7))] if part else [])]
    (spec,) = read_metrics("metrics", [{"metric": name, "direction": "max"} if "." in name else name])
    measure = measure_of(spec, answers)
    (weights,) = draws(units.count, 5, seed)

    found = measure.of_draws(blocks, units)(weights)

    assert found.shape == (2, len(blocks), 5)
    for which in range(2):
        for place, block in enumerate(blocks):
            plain = weighted(name, answers, which, block.rows, np.ones(len(block.rows)))
            assert measure.value(which, block) == pytest.approx(plain)
            for at in range(5):
                by_row = units.of_rows(weights[at])[block.rows]
                if not np.isnan(found[which, place, at]):
                    expected = weighted(name, answers, which, block.rows, by_row)
                    assert found[which, place, at] == pytest.approx(expected, rel=1e-6, abs=1e-9)
                else:
                    missing = set(np.array(answers.labels)[block.rows].tolist()) - set(
                        np.array(answers.labels)[block.rows][by_row > 0].tolist()
                    )
                    assert missing, "only a class that was not drawn makes a resample degenerate"


class TestDraws:
    def test_are_the_same_for_a_seed(self) -> None:
        first, again, other = (np.concatenate(list(draws(50, 30, seed))) for seed in (1, 1, 2))

        assert (first == again).all()
        assert (first != other).any()
        assert (first.sum(axis=1) == 50).all()

    def test_come_in_chunks_that_fit_into_memory(self) -> None:
        chunks = [len(one) for one in draws(100_000, 45, 0)]

        assert sum(chunks) == 45
        assert len(chunks) == 3


class TestBounds:
    @pytest.mark.parametrize("level", [0.05, 0.05 / 3, 0.01])
    def test_allow_for_the_noise_of_the_resampling(self, level: float) -> None:
        """The bound is seldom better than that of endless resamples, and never much worse."""
        chance = np.random.default_rng(0)
        endless = NormalDist().inv_cdf(level)
        found = [bounds(chance.normal(0, 1, 2000)) for _ in range(200)]

        lower = np.array([one.lower_at(level) for one in found])
        upper = np.array([one.upper_at(level) for one in found])
        for too_good in ((lower > endless).mean(), (upper < -endless).mean()):
            assert too_good < 0.1
        assert lower.min() > endless - 0.6

    @pytest.mark.parametrize(
        ("resamples", "slices", "confidence"), [(8000, 40, 0.99), (20_000, 100, 0.99), (100_000, 100, 0.999)]
    )
    def test_of_slices_are_there_with_enough_resamples(self, resamples: int, slices: int, confidence: float) -> None:
        one = Bounds(SLICE_LEVELS, upper=upper_bounds(np.linspace(-1, 1, resamples)))

        assert one.upper_at((1 - confidence) / slices) == pytest.approx(1, abs=0.001)

    def test_of_many_challengers_are_there_with_enough_resamples(self) -> None:
        assert bounds(np.linspace(-1, 1, 100_000)).lower_at((1 - 0.999) / 20) is not None

    def test_that_the_resamples_cannot_give_are_not_there(self) -> None:
        one = bounds(np.arange(100.0))

        assert one.lower_at(0.01) is None
        assert one.lower_at(0.2) == 12
        assert one.upper_at(0.2) == 99 - 12
        assert one.level_above(200) == 1


def profit(labels: list[Any], predictions: list[Any]) -> float:
    return float(np.mean([label == found for label, found in zip(labels, predictions, strict=True)]))


def weighted_profit(labels: list[Any], predictions: list[Any], sample_weight: Any = None) -> float:
    weights = np.ones(len(labels)) if sample_weight is None else sample_weight
    right = [label == found for label, found in zip(labels, predictions, strict=True)]
    return float(np.average(right, weights=weights))


def fails(labels: list[Any], predictions: list[Any]) -> float:
    message = "no prices"
    raise ValueError(message)


NO_FUNCTION = 5


class TestAFunctionOfTheUsersOwn:
    @pytest.mark.parametrize("function", [profit, weighted_profit])
    def test_gets_repeated_rows_or_weights(self, function: Callable[..., float]) -> None:
        answers = classes(np.random.default_rng(0), 3)
        units, blocks = Units(ROWS, None), [Block(np.arange(ROWS))]
        (weights,) = draws(ROWS, 5, 0)
        given_metrics = [{"metric": f"{__name__}.{function.__name__}", "direction": "max"}, "accuracy"]
        own, accuracy = (measure_of(spec, answers) for spec in read_metrics("metrics", given_metrics))

        assert own.value(0, blocks[0]) == pytest.approx(accuracy.value(0, blocks[0]))
        assert own.of_draws(blocks, units)(weights) == pytest.approx(accuracy.of_draws(blocks, units)(weights))

    def test_is_not_called_without_rows(self) -> None:
        """The slice has rows of one group, which a resample may lack."""
        answers = classes(np.random.default_rng(0), 3)
        (spec,) = read_metrics("metrics", [{"metric": f"{__name__}.weighted_profit", "direction": "max"}])
        weights = np.array([[2.0, 0.0], [1.0, 1.0]])
        units = Units(2, np.arange(ROWS) // (ROWS // 2))
        found = measure_of(spec, answers).of_draws([Block(np.arange(ROWS // 2, ROWS))], units)(weights)

        assert np.isfinite(found).tolist() == [[[False, True]], [[False, True]]]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("fails", "failed for 60 rows: ValueError: no prices"),
            ("NO_FUNCTION", "the dotted path of a function .this is a int."),
            ("missing", "AttributeError"),
        ],
    )
    def test_that_cannot_be_used_is_our_error(self, name: str, message: str) -> None:
        answers = classes(np.random.default_rng(0), 3)
        (spec,) = read_metrics("metrics", [{"metric": f"{__name__}.{name}", "direction": "max"}])

        with pytest.raises(InvalidInputError, match=message):
            measure_of(spec, answers).value(0, Block(np.arange(ROWS)))


@pytest.mark.parametrize(
    ("given_metrics", "message"),
    [
        (["auc"], r"metrics\[0\]: expected one of accuracy, precision"),
        (["accuracy", "accuracy"], r"metrics\[1\]: expected each metric once"),
        (["accuracy:fraud"], r"metrics\[0\]: expected one of"),
        (["recall:"], r"metrics\[0\]: expected one of"),
        (["checks.profit"], r'direction of .checks.profit. as well(.|\n)*"direction": "max"'),
        (
            [{"metric": "mae", "direction": "max"}],
            r"metrics\[0\].direction: expected 'min', which is the direction of mae",
        ),
        ([{"metric": "checks.profit", "direction": "up"}], r"metrics\[0\].direction: expected one of max, min"),
        ([{"name": "mae"}], "unknown key 'name'"),
        ([], "expected 1 to 20 metrics"),
        ("accuracy", "expected a list"),
        ([None], r"metrics\[0\]: expected a text"),
    ],
)
def test_metrics_are_read_strictly(given_metrics: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_metrics("metrics", given_metrics)
