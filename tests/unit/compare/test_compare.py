"""A comparison of two versions: which rows count, what is measured, and what is noise."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn import metrics as sk

from airflow_provider_hsml.hopsworks.compare.compare import compare
from airflow_provider_hsml.hopsworks.compare.scored import Rows, Scored
from airflow_provider_hsml.hopsworks.domain.comparison import Comparison
from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY = datetime(2026, 11, 1, tzinfo=UTC)
FUNCTION = f"{__name__}.rows_per_label"


def rows_per_label(labels: list[Any], _predictions: list[Any]) -> float:
    """Measure something that does not exist without rows."""
    return len(labels) / len({str(one) for one in labels})


def served(version: int) -> ServedVersion:
    return ServedVersion("demo", "fraud", version)


def scored(version: int, predictions: Sequence[Any], **more: Any) -> Scored:
    return Scored(served(version), predictions, **more)


def binary(count: int = 400, *, better: float = 0.0, seed: int = 0) -> tuple[Scored, Scored, list[int]]:
    """Two versions that answer classes, of which the second is right more often, and the labels."""
    chance = np.random.default_rng(seed)
    labels = (chance.random(count) < 0.3).astype(int)
    before = np.where(chance.random(count) < 0.85, labels, 1 - labels)
    changed = np.where(before == labels, chance.random(count) < 0.05, chance.random(count) < 0.28 + better)
    after = np.where(changed, 1 - before, before)
    return scored(1, before.tolist()), scored(2, after.tolist()), labels.tolist()


def run(
    champion: Scored | None, challenger: Scored, rows: Rows, metrics: Any = ("accuracy",), **more: Any
) -> Comparison:
    return compare(champion, challenger, rows, metrics, **{"resamples": 500, "at": 1000.0, **more})


class TestTheNumbers:
    def test_are_those_of_scikit_learn_with_the_sign_that_is_better(self) -> None:
        champion, challenger, labels = binary()
        found = run(champion, challenger, Rows(labels), ["accuracy", "f1", "recall:1", "mae"])

        f1 = found.metrics["f1"]
        assert f1.champion == pytest.approx(sk.f1_score(labels, champion.predictions, average="macro"), rel=1e-6)
        assert f1.challenger == pytest.approx(sk.f1_score(labels, challenger.predictions, average="macro"), rel=1e-6)
        recall = sk.recall_score(labels, challenger.predictions)
        assert found.metrics["recall:1"].challenger == pytest.approx(recall, rel=1e-6)
        accuracy, mae = found.metrics["accuracy"], found.metrics["mae"]
        assert accuracy.difference == pytest.approx(mae.difference), "fewer errors are better in both directions"
        assert found.rarer_class == min(sum(labels), len(labels) - sum(labels))

    def test_have_bounds_around_the_difference(self) -> None:
        champion, challenger, labels = binary(1000, better=0.3)
        one = run(champion, challenger, Rows(labels), resamples=2000).metrics["accuracy"]

        low, high = one.bounds.lower_at(0.025), one.bounds.upper_at(0.025)
        assert one.difference is not None
        assert low is not None
        assert high is not None
        assert low < one.bounds.lower_at(0.05) < one.difference < high  # type: ignore[operator]
        assert one.bounds.lower_at(0.05 / 3) < one.bounds.lower_at(0.05)  # type: ignore[operator]
        assert one.share_better == 1.0
        assert one.bounds.level_above(0.0) < 0.005
        assert one.bounds.level_above(one.difference + 1) == 1.0
        # The error of a difference of proportions, by the rows on which the versions differ.
        found = np.array(challenger.predictions) == labels
        error = np.std(found.astype(float) - (np.array(champion.predictions) == labels)) / math.sqrt(1000)
        assert one.smallest_detectable == pytest.approx(error * (1.728 + 1.645), rel=0.1)

    def test_are_the_same_for_the_same_seed(self) -> None:
        champion, challenger, labels = binary()
        first, again, other = (run(champion, challenger, Rows(labels), seed=seed).to_json() for seed in (0, 0, 1))

        assert first == again
        assert first["metrics"]["accuracy"]["lower"] != other["metrics"]["accuracy"]["lower"]

    def test_by_group_are_less_certain_where_rows_of_one_group_err_together(self) -> None:
        chance = np.random.default_rng(0)
        groups = np.repeat(np.arange(40), 25)
        labels = np.ones(1000, dtype=int)
        before = (chance.random(40) < 0.8).astype(int)[groups]
        after = (chance.random(40) < 0.8).astype(int)[groups]
        versions = scored(1, before.tolist()), scored(2, after.tolist())
        labels[:20] = 0
        alone = run(*versions, Rows(labels.tolist())).metrics["accuracy"]
        together = run(*versions, Rows(labels.tolist(), groups=groups.tolist()))

        assert together.groups == 40
        assert "40 groups only" in " ".join(together.warnings)
        assert together.metrics["accuracy"].smallest_detectable > 3 * alone.smallest_detectable  # type: ignore[operator]
        assert together.metrics["accuracy"].difference == alone.difference

    def test_with_too_few_resamples_for_a_level_have_no_bound_there(self) -> None:
        champion, challenger, labels = binary()
        bounds = run(champion, challenger, Rows(labels), resamples=100).metrics["accuracy"].bounds

        assert bounds.lower_at(0.05) is not None
        assert bounds.lower_at(0.005) is None

    def test_count_resamples_without_a_class(self) -> None:
        labels = [0] * 298 + [1] * 2
        versions = scored(1, [0] * 300), scored(2, [0] * 299 + [1])
        found = run(*versions, Rows(labels), ["recall", "accuracy"])

        assert 30 < found.metrics["recall"].degenerate < 130, "e^-2 of the resamples have neither row"
        assert found.metrics["accuracy"].degenerate == 0
        assert found.rarer_class == 2

    @pytest.mark.parametrize(
        ("metric", "labels", "rarer"),
        [
            ("accuracy", [0] * 300, 0),
            ("accuracy", [0] * 297 + [1] * 3, 3),
            (FUNCTION, [0] * 297 + [1] * 3, 3),
            (FUNCTION, [False] * 298 + [True] * 2, 2),
            (FUNCTION, ["no"] * 296 + ["yes"] * 4, 4),
            (FUNCTION, ["no"] * 300, 0),
            (FUNCTION, [1.5] * 150 + [2.0] * 150, None),
            (FUNCTION, list(range(300)), None),
            (FUNCTION, [f"text {row}" for row in range(300)], None),
            (FUNCTION, [[1, 0]] * 300, None),
            ("mae", [0] * 297 + [1] * 3, None),
        ],
    )
    def test_count_the_rows_of_the_rarer_class_where_labels_are_classes(
        self, metric: str, labels: list[Any], rarer: int | None
    ) -> None:
        """Without a row of the rarer class nothing is known of it, and a function needs such rows as well."""
        given = {"metric": metric, "direction": "max"} if metric == FUNCTION else metric
        answers = [1, *labels[1:]] if metric == "accuracy" else labels
        found = run(scored(1, answers), scored(2, answers), Rows(labels), [given], resamples=100)

        assert found.rarer_class == rarer

    @pytest.mark.parametrize(("labels", "rarer"), [([0, 1, 2, 3] * 75, None), ([0] * 297 + [1] * 3, 3)])
    def test_of_counts_are_told_from_classes_by_the_predictions(self, labels: list[int], rarer: int | None) -> None:
        """Two labels are classes also if a version answers with scores."""
        answers = [label + 1.5 for label in labels]
        given = {"metric": FUNCTION, "direction": "max"}

        assert run(scored(1, answers), scored(2, answers), Rows(labels), [given], resamples=100).rarer_class == rarer

    def test_of_the_same_answers_show_no_difference_and_no_smallest_one(self) -> None:
        champion, _, labels = binary()
        one = run(champion, scored(2, champion.predictions), Rows(labels)).metrics["accuracy"]

        assert (one.difference, one.share_better, one.smallest_detectable) == (0, 0, None)
        assert one.bounds.lower_at(0.05) == pytest.approx(-(1 - 0.05 ** (1 / 400)))
        assert one.bounds.upper_at(0.05) == pytest.approx(1 - 0.05 ** (1 / 400))
        assert one.bounds.lower_at(0.02) == pytest.approx(-(1 - 0.02 ** (1 / 400))), "more for more confidence"

    @pytest.mark.parametrize("level", [0.05, 0.01])
    @pytest.mark.parametrize("count", [200, 1000])
    def test_have_bounds_that_are_seldom_wrong_where_few_rows_differ(self, count: int, level: float) -> None:
        """The exact chance of a wrong bound, by the chance of each number of lost rows."""
        labels = [0, 1] * (count // 2)
        bounds: list[float] = []
        for lost in range(30):
            answers = [1 - label if row < lost else label for row, label in enumerate(labels)]
            found = run(scored(1, labels), scored(2, answers), Rows(labels), resamples=2000)
            bounds.append(found.metrics["accuracy"].bounds.lower_at(level) or 0.0)

        for expected in np.arange(0.25, 8, 0.25):
            loss = expected / count
            chances = [math.comb(count, lost) * loss**lost * (1 - loss) ** (count - lost) for lost in range(30)]
            wrong = sum(chance for chance, bound in zip(chances, bounds, strict=True) if bound > -loss)
            assert wrong <= level, expected

    @pytest.mark.parametrize(
        ("metric", "rows", "share"),
        [
            ("accuracy", 300, 1),
            ("recall:a", 200, 1),
            ("recall:b", 60, 1),
            ("precision:b", 90, 1),
            ("f1:b", 60, 1),
            ("recall", 40, 1 / 3),
            ("precision", 10, 1 / 3),
            ("f1", 10, 1 / 3),
        ],
    )
    def test_of_the_same_answers_allow_for_losses_that_no_row_shows(self, metric: str, rows: int, share: float) -> None:
        labels = ["a"] * 200 + ["b"] * 60 + ["c"] * 40
        answers = ["a"] * 200 + ["b"] * 90 + ["c"] * 10
        one = run(scored(1, answers), scored(2, answers), Rows(labels), [metric]).metrics[metric]

        assert one.bounds.lower_at(0.05) == pytest.approx(-share * (1 - 0.05 ** (1 / rows)), rel=1e-6)

    def test_of_the_same_answers_allow_for_groups_that_lose(self) -> None:
        labels = ["a"] * 200 + ["b"] * 100
        groups = [row // 5 for row in range(300)]
        found = run(scored(1, labels), scored(2, labels), Rows(labels, groups=groups), ["accuracy", "recall:b"]).metrics

        assert found["accuracy"].bounds.lower_at(0.05) == pytest.approx(-(1 - 0.05 ** (1 / 60)), rel=1e-6)
        assert found["recall:b"].bounds.lower_at(0.05) == pytest.approx(-(1 - 0.05 ** (1 / 20)), rel=1e-6)

    def test_without_an_answer_of_a_class_have_nothing_to_lose_there(self) -> None:
        labels, answers = ["a"] * 200 + ["b"] * 100, ["a"] * 300
        found = run(scored(1, answers), scored(2, answers), Rows(labels), ["f1:b", "f1"]).metrics

        assert found["f1:b"].bounds.lower_at(0.05) == 0
        assert found["f1"].bounds.lower_at(0.05) == pytest.approx(-(1 - 0.05 ** (1 / 200)) / 2, rel=1e-6)

    def test_by_group_are_those_of_the_bootstrap_where_many_groups_differ(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chance = np.random.default_rng(0)
        labels = (chance.random(1000) < 0.5).astype(int)
        after = np.where(chance.random(1000) < 0.05, 1 - labels, labels)
        versions = scored(1, labels.tolist()), scored(2, after.tolist())
        rows = Rows(labels.tolist(), groups=[row // 25 for row in range(1000)])
        found = run(*versions, rows, ["accuracy", "recall"]).metrics
        monkeypatch.setattr("airflow_provider_hsml.hopsworks.compare.compare.unseen_of", lambda *_: None)

        assert run(*versions, rows, ["accuracy", "recall"]).metrics == found

    def test_of_amounts_have_the_bounds_of_the_bootstrap(self) -> None:
        labels = [float(row) for row in range(300)]
        found = run(scored(1, labels), scored(2, labels), Rows(labels), ["mae"]).metrics["mae"]

        assert found.bounds.lower_at(0.05) == 0

    def test_have_the_bounds_of_the_bootstrap_where_many_rows_differ(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in the nights of docs/guides/compare.md: 9 % of 2,000 rows."""
        chance = np.random.default_rng(0)
        labels = (chance.random(2000) < 0.5).astype(int)
        before = np.where(chance.random(2000) < 0.9, labels, 1 - labels)
        after = np.where(chance.random(2000) < 0.09, 1 - before, before)
        versions = scored(1, before.tolist()), scored(2, after.tolist())
        names = ["accuracy", "recall:1", "precision:1", "f1:1", "recall", "precision", "f1"]
        found = run(*versions, Rows(labels.tolist()), names, resamples=2000).metrics
        monkeypatch.setattr("airflow_provider_hsml.hopsworks.compare.compare.unseen_of", lambda *_: None)

        assert run(*versions, Rows(labels.tolist()), names, resamples=2000).metrics == found

    @pytest.mark.parametrize("metric", ["accuracy", "recall", "recall:b", "f1:b"])
    def test_allow_for_unseen_losses_where_both_versions_are_wrong_in_different_ways(self, metric: str) -> None:
        """Such rows make no difference, so they are no evidence that none is lost."""
        labels = ["a"] * 100 + ["c"] * 60 + ["b"] * 140
        first, second = (labels[:260] + [one] * 40 for one in ("a", "c"))
        bounds = [
            run(scored(1, first), scored(2, after), Rows(labels), [metric]).metrics[metric].bounds
            for after in (second, first)
        ]

        assert bounds[0] == bounds[1]
        assert (bounds[0].lower_at(0.05) or 0) < 0

    def test_of_one_label_that_a_metric_cannot_do_with_do_not_exist(self) -> None:
        probabilities = np.linspace(0.1, 0.9, 300)
        versions = scored(1, probabilities.tolist()), scored(2, probabilities[::-1].tolist())
        found = run(*versions, Rows([1] * 300), ["roc_auc", "log_loss", "r2", "mae"]).to_json()

        assert found["metrics"]["roc_auc"]["challenger"] is None
        assert found["metrics"]["log_loss"]["difference"] is None
        assert found["metrics"]["r2"]["lower_bound"] is None
        assert found["metrics"]["mae"]["difference"] == pytest.approx(0)


class TestProbabilities:
    labels = ("no", "yes", "yes", "no") * 50
    second = tuple(np.random.default_rng(0).uniform(0.05, 0.95, 200).tolist())

    @pytest.mark.parametrize("form", ["numbers", "lists of one", "columns"])
    def test_have_several_forms(self, form: str) -> None:
        given = {
            "numbers": list(self.second),
            "lists of one": [[one] for one in self.second],
            "columns": [[1 - one, one] for one in self.second],
        }[form]
        found = run(scored(1, given[::-1]), scored(2, given), Rows(self.labels), ["roc_auc", "log_loss"])
        true = [one == "yes" for one in self.labels]

        assert found.metrics["roc_auc"].challenger == pytest.approx(sk.roc_auc_score(true, self.second), rel=1e-6)
        assert found.metrics["log_loss"].challenger == pytest.approx(sk.log_loss(true, self.second), rel=1e-6)
        assert found.metrics["log_loss"].direction == "min"

    def test_are_classes_too_where_there_is_one_column_for_each(self) -> None:
        given = [[1 - one, one] for one in self.second]
        found = run(scored(1, given[::-1]), scored(2, given), Rows(self.labels), ["accuracy", "roc_auc"])
        classes = ["yes" if one > 0.5 else "no" for one in self.second]

        assert found.metrics["accuracy"].challenger == sk.accuracy_score(self.labels, classes)
        assert found.details["confusion"]["classes"] == ["no", "yes"]


class TestAnswersThatDoNotFit:
    labels = (0, 1) * 150

    @pytest.mark.parametrize(
        ("labels", "predictions", "metric", "message"),
        [
            (
                labels,
                labels,
                "roc_auc",
                r"version 1 of model 'fraud': expected probabilities of the 2 classes 0, 1, got classes",
            ),
            (labels, labels, "log_loss", "got classes(.|\n)*choose metrics that need none, such as accuracy"),
            (("a", "b") * 150, ("a", "b") * 150, "roc_auc", "got classes"),
            (labels, (0.2, 0.7) * 150, "accuracy", "expected classes, got 0.2 for a row .row 0"),
            (labels, ("0", "1") * 150, "f1", "expected classes, which are numbers in label_column, got '0'"),
            (("0", "1") * 150, labels, "f1", "expected classes, which are text in label_column, got 0"),
            (labels, (1.5, -3.0) * 150, "log_loss", "no probabilities"),
            (labels, ([0.5, 0.6], [0.1, 0.9]) * 150, "log_loss", "no probabilities"),
            (labels, ([0.2, 0.3, 0.5],) * 300, "log_loss", "got 3 numbers a row, and the labels have 2 classes"),
            (labels, ([0.2, 0.8], [1.0]) * 150, "roc_auc", "got other lists"),
            ((0, 1, 2) * 100, (0.5, 0.7, 0.1) * 100, "roc_auc", "one number a row, and there are 3 classes"),
            (("a", "b") * 150, labels, "mae", "label_column: expected numbers, got 'a'"),
            (labels, ("a", "b") * 150, "rmse", "answers of version 1 of model 'fraud': expected numbers, got 'a'"),
            (labels, ([0.2, 0.8],) * 300, "mae", r"expected numbers, got \[0.2, 0.8\]"),
            (labels, ({"class": 1},) * 300, "accuracy", "expected classes"),
            ((0.5, 1.5) * 150, labels, "accuracy", "label_column: expected classes .*got 0.5(.|\n)*mae"),
            (("a", 1) * 150, labels, "accuracy", "classes of one type, got text and numbers"),
            (tuple(range(1001)), tuple(range(1001)), "accuracy", "at most 1000 classes, got 1001"),
            ((0, 1) * 501, tuple(range(1002)), "accuracy", "1002 different answers"),
            (labels, labels, "recall:fraud", "names a class that no label has(.|\n)*0, 1"),
        ],
    )
    def test_are_our_errors(self, labels: Any, predictions: Any, metric: str, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            run(scored(1, list(predictions)), scored(2, list(predictions)), Rows(list(labels)), [metric])

    @pytest.mark.parametrize(
        ("rows", "more", "message"),
        [
            (Rows([1] * 9), {}, "label_column: expected 300 entries, one for each row, got 9"),
            (Rows(labels, groups=["a"]), {}, "group_column: expected 300"),
            (Rows(labels, slices={"country": ["a"]}), {}, "slice_columns 'country': expected 300"),
            (Rows([None] * 300), {}, "no row has one(.|\n)*Leave it out to compare without labels"),
            (
                Rows(labels, groups=[None] * 300),
                {},
                "group_column: expected a text, number or date in each row, got None .row 0",
            ),
            (Rows(labels, times=[5] * 300), {"trained_until": (DAY, DAY)}, "time_column: expected datetimes"),
            (Rows(labels, times=["soon"] * 300), {"trained_until": (DAY, DAY)}, "got 'soon' .row 0"),
            (Rows(labels), {"resamples": 10}, "resamples: expected a whole number of 100"),
            (Rows(labels), {"resamples": 1_000_000}, "resamples: expected at most 100000"),
            (Rows(labels), {"challengers": 0}, "challengers"),
        ],
    )
    def test_rows_that_do_not_fit(self, rows: Rows, more: dict[str, Any], message: str) -> None:
        versions = scored(1, [0] * 300), scored(2, [1] * 300)

        with pytest.raises(InvalidInputError, match=message):
            run(*versions, rows, **more)

    def test_a_version_is_not_compared_with_itself(self) -> None:
        with pytest.raises(InvalidInputError, match="version 2 of model 'fraud' is the champion itself"):
            run(scored(2, [1]), scored(2, [1]), Rows([1]))

    @pytest.mark.parametrize("count", [0, 100_001])
    def test_too_many_rows_or_none(self, count: int) -> None:
        with pytest.raises(InvalidInputError, match="expected 1 to 100,000 rows"):
            run(None, scored(2, [1] * count), Rows([1] * count))


class TestRowsThatAreLeftOut:
    def test_are_counted_for_both_versions(self) -> None:
        champion, challenger, labels = binary(400)
        before, after = list(champion.predictions), list(challenger.predictions)
        before[0], after[1], after[2], before[2] = None, None, None, None
        after[3] = math.nan
        given: list[Any] = list(labels)
        given[4], given[5] = None, math.nan
        found = run(
            scored(1, before, refused={0: "400: too \x1b long" + "x" * 10_000}),
            scored(2, after, refused={1: "no", 2: "no", 3: "no", 6: "no"}),
            Rows(given),
        )

        counts = found.rows
        assert (counts.given, counts.compared) == (400, 400 - 7)
        assert (counts.refused_by_champion, counts.refused_by_challenger, counts.refused_by_both) == (1, 3, 1)
        assert counts.unlabelled == 2
        kept = list(range(7, 400))
        accuracy = sk.accuracy_score([labels[row] for row in kept], [before[row] for row in kept])
        assert found.metrics["accuracy"].champion == pytest.approx(accuracy, rel=1e-6)
        warnings = "\n".join(found.warnings)
        assert (
            "5 rows were refused by a version, such as row 0 by the champion and row 1 by the challenger, and"
            in warnings
        )
        assert "400: too" not in warnings, "a reason may show the row"
        assert "2 rows have no label" in warnings
        assert len(warnings) < 1000

    @pytest.mark.parametrize("form", [lambda one: one, datetime.isoformat, lambda one: one.replace(tzinfo=None)])
    def test_are_those_not_later_than_the_training_data_of_both(self, form: Any) -> None:
        champion, challenger, labels = binary(400)
        times = [form(DAY + timedelta(days=row // 100)) for row in range(400)]
        found = run(champion, challenger, Rows(labels, times=times), trained_until=(DAY, DAY + timedelta(days=1)))

        assert (found.rows.not_later, found.rows.compared) == (200, 200)
        assert any("200 rows are not later than 2026-11-02" in one for one in found.warnings)

    def test_may_be_all_of_them(self) -> None:
        """A night that is run again: the champion knows its rows."""
        champion, challenger, labels = binary(300)
        times = [date(2026, 1, 1)] * 300
        found = run(champion, challenger, Rows(labels, times=times), trained_until=(DAY, DAY))

        assert (found.rows.compared, found.metrics, found.rarer_class) == (0, {}, None)
        assert Comparison.read(json.dumps(found.to_json(), allow_nan=False)).rows.not_later == 300

    @pytest.mark.parametrize(
        ("rows", "until", "warning"),
        [
            (Rows([0, 1] * 200), (DAY, DAY), "No time_column is given"),
            (Rows([0, 1] * 200, times=[DAY] * 400), (None, DAY - timedelta(1)), "The champion has no trained_until"),
            (Rows([0, 1] * 200, times=[DAY] * 400), (None, None), "The challenger has no trained_until"),
        ],
    )
    def test_are_unknown_without_times(self, rows: Rows, until: Any, warning: str) -> None:
        champion, challenger, _ = binary(400)
        found = run(champion, challenger, rows, trained_until=until)

        assert any(warning in one for one in found.warnings)
        assert found.rows.not_later == 0


class TestSlices:
    def test_that_got_worse_have_evidence(self) -> None:
        chance = np.random.default_rng(0)
        labels = (chance.random(3000) < 0.5).astype(int)
        countries = np.array(["AT", "DE", "ES"])[np.arange(3000) % 3]
        before = np.where(chance.random(3000) < 0.9, labels, 1 - labels)
        after = np.where((countries == "ES") & (chance.random(3000) < 0.3), 1 - labels, before)
        rows = Rows(labels.tolist(), slices={"country": countries.tolist(), "all": ["x"] * 3000})
        found = run(
            scored(1, before.tolist()), scored(2, after.tolist()), rows, ["accuracy", "f1", "mae"], resamples=2000
        )

        for name in ("accuracy", "f1", "mae"):
            metric = found.metrics[name]
            assert metric.slices_tested == 4
            worst = metric.slices[0]
            assert (worst.column, worst.value, worst.rows) == ("country", "ES", 1000)
            assert worst.difference is not None
            assert worst.difference < -0.1
            harm = worst.upper[found.slice_levels.index(0.01)]
            assert harm is not None
            assert worst.difference < harm < 0
            assert [one.value for one in metric.slices] == ["ES", "x"], "those that did not get worse show no harm"

    def test_of_ten_thousand_values_are_bounded_and_counted(self) -> None:
        champion, challenger, labels = binary(20_000)
        values = [f"user {row}" if row % 2 else f"group {row % 140}" for row in range(20_000)]
        found = run(champion, challenger, Rows(labels, slices={"user": values}), resamples=200)

        metric = found.metrics["accuracy"]
        assert metric.slices_tested == 50
        assert len(metric.slices) <= 20
        assert any("10020 of 10070 values are not tested" in one for one in found.warnings)
        assert len(json.dumps(found.to_json())) < 40_000

    def test_are_at_most_a_hundred(self) -> None:
        champion, challenger, labels = binary(5000)
        columns = {f"column {one}": [f"{row % 40}" for row in range(5000)] for one in range(3)}
        found = run(champion, challenger, Rows(labels, slices=columns), resamples=200)

        assert found.metrics["accuracy"].slices_tested == 100
        assert any("20 further slices are not tested" in one for one in found.warnings)

    def test_with_one_class_only_are_not_tested_where_the_metric_needs_two(self) -> None:
        labels = [0] * 200 + [0, 1] * 100
        scores = np.random.default_rng(0).random(400)
        rows = Rows(labels, slices={"part": ["first"] * 200 + ["second"] * 200})
        found = run(scored(1, scores.tolist()), scored(2, scores[::-1].tolist()), rows, ["roc_auc"], resamples=100)

        assert found.metrics["roc_auc"].slices_tested == 1

    def test_in_which_a_class_is_rare_show_no_harm(self) -> None:
        """Resamples without the class do not exist; bounds from the others would be wrong."""
        labels = [1] + [0] * 149 + [0, 1] * 100
        before, after = [1] + [0] * 349, [0] + [1] * 349
        rows = Rows(labels, slices={"part": ["first"] * 150 + ["second"] * 200})
        found = run(scored(1, before), scored(2, after), rows, ["recall"])

        (first,) = [one for one in found.metrics["recall"].slices if one.value == "first"]
        assert first.upper == ()


class TestWithoutLabels:
    def test_agreement_and_distributions_are_there_and_no_metric(self) -> None:
        champion, challenger, _ = binary(400)
        found = run(champion, challenger, Rows())

        same = np.mean(np.array(champion.predictions) == challenger.predictions)
        assert (found.metrics, found.rarer_class) == ({}, None)
        assert found.details["agreement"] == {"rows": 400, "same": pytest.approx(same)}
        assert found.details["distributions"]["challenger"]["counts"]["1"] == sum(challenger.predictions)
        assert any("no labels" in one for one in found.warnings)
        assert "worse" not in found.details

    def test_no_metric_is_needed(self) -> None:
        champion, challenger, labels = binary(300)

        assert run(champion, challenger, Rows(), []).metrics == {}
        with pytest.raises(InvalidInputError, match="metrics: expected 1 to 20 metrics"):
            run(champion, challenger, Rows(labels), [])

    def test_of_numbers(self) -> None:
        before = np.random.default_rng(0).normal(0, 1, 500)
        found = run(scored(1, before.tolist()), scored(2, (before * 2).tolist()), Rows())

        agreement, distributions = found.details["agreement"], found.details["distributions"]
        assert agreement["correlation"] == pytest.approx(1)
        assert agreement["same"] == 0
        assert sum(distributions["champion"]["histogram"]) == 500
        assert len(distributions["edges"]) == 21

    def test_of_probabilities(self) -> None:
        before = np.random.default_rng(0).dirichlet([1, 1, 1], 100).tolist()
        found = run(scored(1, before), scored(2, before), Rows())

        assert found.details["agreement"] == {"rows": 100, "same": 1, "mean_absolute_difference": 0}
        assert sum(found.details["distributions"]["champion"]["counts"].values()) == 100

    @pytest.mark.parametrize("after", [[[0.5, 0.5]] * 50, [{"a": 1}] * 50, ["a"] * 50])
    def test_of_other_kinds(self, after: list[Any]) -> None:
        found = run(scored(1, [[0.2, 0.3, 0.5]] * 50), scored(2, after), Rows())

        assert found.details["agreement"]["same"] == 0


def test_without_a_champion_only_the_challenger_is_measured() -> None:
    _, challenger, labels = binary(300)
    found = run(None, challenger, Rows(labels, slices={"part": ["a"] * 300}), ["accuracy", "f1"])

    assert found.champion is None
    one = found.metrics["accuracy"]
    assert one.challenger == pytest.approx(sk.accuracy_score(labels, challenger.predictions))
    assert (one.champion, one.difference, one.bounds.levels) == (None, None, ())
    assert found.details["agreement"] is None
    assert found.details["worse"] == []
    assert Comparison.read(found.to_json()) == Comparison.read(json.dumps(found.to_json()))


def test_the_first_requests_are_left_out_of_the_latency() -> None:
    champion, challenger, labels = binary(300)
    found = run(
        replace(champion, latencies=[9.0] * 20 + [0.01] * 80),
        replace(challenger, latencies=[9.0] * 20),
        Rows(labels),
    )

    latency = found.details["latency_ms"]
    assert latency["champion"] == {"requests": 80, "mean": 10.0, "p50": 10.0, "p95": 10.0, "p99": 10.0}
    assert latency["challenger"] is None


class TestRowsThatGotWorse:
    def test_are_at_most_twenty_with_their_numbers_in_the_input(self) -> None:
        labels: list[Any] = [None] + ["<b>yes</b>" + "y" * 500] * 60
        found = run(scored(1, labels[1:2] * 61), scored(2, ["no"] * 61), Rows(labels))

        worse = found.details["worse"]
        assert [one["row"] for one in worse] == list(range(1, 21))
        assert worse[0]["challenger"] == "no"
        assert len(worse[0]["label"]) < 80

    def test_of_numbers_are_those_with_the_largest_errors(self) -> None:
        before = [0.5, 0.5, 0.5, 0.5]
        found = run(scored(1, before), scored(2, [0.6, 9.0, 0.5, 0.4]), Rows([0.5] * 4), ["mae"])

        assert next(one["row"] for one in found.details["worse"]) == 1
        assert len(found.details["worse"]) == 3


class TestTheRecord:
    def test_is_plain_and_can_be_read_again(self) -> None:
        champion, challenger, labels = binary(600)
        rows = Rows(labels, slices={"part": ["a", "b", "c"] * 200})
        found = run(champion, challenger, rows, ["accuracy", "precision", "recall", "f1", "mae", "rmse", "r2"])
        text = json.dumps(found.to_json(), allow_nan=False)

        read = Comparison.read(text)
        assert read.to_json() == json.loads(text)
        assert read.metrics == found.metrics
        assert len(text) < 40_000

    def test_of_many_classes_stays_small(self) -> None:
        chance = np.random.default_rng(0)
        labels = chance.integers(0, 500, 5000).tolist()
        versions = scored(1, chance.integers(0, 500, 5000).tolist()), scored(2, labels)
        found = run(*versions, Rows(labels), ["f1", "accuracy"], resamples=100)

        assert found.details["confusion"]["classes"][-1] == "other"
        assert len(found.details["classes"]) == 20
        assert len(json.dumps(found.to_json())) < 20_000


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError("No module named 'sklearn'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(
        InvalidInputError, match=r"needs scikit-learn(.|\n)*pip install .airflow-provider-hsml\[metrics\]"
    ):
        run(None, scored(2, [1]), Rows([1]))


def test_nothing_is_imported_before_a_comparison_runs() -> None:
    modules = ("compare.compare", "compare.report", "compare.scored", "domain.comparison", "domain.measured_gate")
    script = "import sys\n" + "\n".join(f"import airflow_provider_hsml.hopsworks.{one}" for one in modules)
    script += "\nprint([one for one in ('numpy', 'sklearn', 'scipy', 'jinja2', 'airflow') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[]"
