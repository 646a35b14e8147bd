"""The table of decisions by comparisons: what was measured, what the gate asks for, and what comes of it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.compare.resampling import LEVELS, SLICE_LEVELS
from airflow_provider_hsml.hopsworks.domain.comparison import (
    Bounds,
    Comparison,
    MetricComparison,
    RowCounts,
    SliceComparison,
)
from airflow_provider_hsml.hopsworks.domain.gate import Decision, Gate, Metric
from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
from airflow_provider_hsml.hopsworks.domain.measured_gate import decide_measured
from airflow_provider_hsml.hopsworks.domain.model_version import Direction, ModelVersion
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = 10_000.0
PAGE = Path(__file__).parents[3] / "docs" / "guides" / "gate.md"


def served(version: int, name: str = "fraud") -> ServedVersion:
    return ServedVersion("demo", name, version)


def normal(difference: float, error: float) -> Bounds:
    """The bounds of a difference that is normally distributed."""
    deviates = [NormalDist().inv_cdf(level) for level in LEVELS]
    lower = tuple(difference + one * error for one in deviates)
    return Bounds(LEVELS, lower, tuple(difference - one * error for one in deviates))


def metric(difference: float, error: float = 0.005, *, champion: float = 0.8, **more: Any) -> MetricComparison:
    """A metric whose challenger is better by a difference, with a standard error."""
    return MetricComparison(
        **{
            "direction": Direction.MAX,
            "champion": champion,
            "challenger": round(champion + difference, 6),
            "difference": difference,
            "bounds": normal(difference, error),
            "share_better": 0.9,
            "smallest_detectable": 3 * error,
            **more,
        }
    )


def measured(version: int, difference: float = 0.02, **more: Any) -> Comparison:
    """A comparison of a version with version 1: by default, 1,000 rows and a clear difference."""
    rows = more.pop("rows", {})
    return Comparison(
        **{
            "at": NOW - 60,
            "champion": served(1),
            "challenger": served(version),
            "rows": RowCounts(**{"given": 1000, "compared": 1000, **rows}),
            "metrics": {"auc": metric(difference)},
            "resamples": 2000,
            "rarer_class": 100,
            "slice_levels": SLICE_LEVELS,
            **more,
        }
    )


def harmed(difference: float, error: float, *, least_level: float = 0.0, **more: Any) -> MetricComparison:
    """A better metric with one slice that got worse by a difference, of ten tested ones."""
    bounds = [(level, difference - NormalDist().inv_cdf(level) * error) for level in SLICE_LEVELS]
    upper = tuple(bound if level >= least_level else None for level, bound in bounds)
    one = SliceComparison("country", "AT", 150, 0.8, 0.8 + difference, difference, upper)
    return metric(0.02, slices=(one,), slices_tested=10, **more)


@dataclass(frozen=True)
class Case:
    """
    One decision of the gate, with versions 1, 2 and 3 in the registry, of which version 1 serves.

    ``expected`` is the version that is to serve; 1 is the champion that is kept, None nothing at all.
    """

    what: str
    comparisons: list[Comparison]
    expected: int | None
    reason: str
    rules: Mapping[str, Any] = field(default_factory=dict)
    row: str = ""
    """The row of the table in docs/guides/gate.md that says it."""
    champion: int | None = 1
    rejected: Mapping[int, str] = field(default_factory=dict)
    outdated: tuple[int, ...] = ()
    candidates: list[int] | None = None
    direction: str = "max"

    def decide(self) -> Decision:
        versions = [ModelVersion("fraud", number, f"fraud_{number}", "demo", 119, {"auc": 0.5}) for number in (1, 2, 3)]
        champion = next((one for one in versions if one.version == self.champion), None)
        records = [one.to_json() for one in self.comparisons]
        rules = Gate.read({"measured": records, **self.rules}, "gate").rules()
        by = Metric("auc", Direction(self.direction), self.candidates)
        return decide_measured(
            versions, champion, by, rules, self.rejected, outdated=self.outdated, now=NOW, deployment_name="live"
        )


NOT_WORSE = {"require": "not_worse", "margin": 0.01}
GUARD = {"guards": {"recall": {"direction": "max", "max_loss": 0.01}}}
SLICE = {"worst_slice": 0.02}
FIRST: dict[str, Any] = {"champion": None, "metrics": {"auc": MetricComparison(Direction.MAX, 0.82)}}

CASES = [
    # Better.
    Case(
        "better, and no noise",
        [measured(2)],
        2,
        "version 2 beats the served version 1 on the same 1000 rows: auc 0.82 against 0.8, a difference of 0.02, at",
        row="the lower bound of the difference is above `min_improvement`",
    ),
    Case(
        "better, and may be noise",
        [measured(2, 0.005)],
        1,
        "version 2 is not shown to beat the served version 1 .* more than 0 is needed, and such rows show differences "
        "of 0.015 or more",
        row="the lower bound of the difference is not above `min_improvement`",
    ),
    Case("worse", [measured(2, -0.02)], 1, "is not shown to beat"),
    Case("the same answers", [measured(2, metrics={"auc": metric(0.0, 0.0)})], 1, "at least 0 with 95 % confidence"),
    Case("with less confidence", [measured(2, 0.005)], 2, "80 % confidence", {"confidence": 0.8}),
    Case("with more confidence", [measured(2, 0.01)], 1, "99 % confidence", {"confidence": "0.99"}),
    Case("by a least improvement", [measured(2)], 1, "more than 0.015 is needed", {"min_improvement": 0.015}),
    Case("by a smaller one", [measured(2)], 2, "beats", {"min_improvement": 0.01}),
    Case("by a share", [measured(2)], 1, "0.016 is needed", {"min_improvement": 0.02, "relative": True}),
    Case(
        "less is better",
        [measured(2, metrics={"auc": metric(0.02, direction=Direction.MIN, challenger=0.78)})],
        2,
        "0.78 against 0.8",
        direction="min",
    ),
    # Not worse.
    Case(
        "not worse",
        [measured(2, 0.0)],
        2,
        "version 2 is not worse than the served version 1",
        NOT_WORSE,
        row='`require="not_worse"`, and the lower bound is above `-margin`',
    ),
    Case(
        "a little worse", [measured(2, -0.005)], 1, "not shown to be no worse .* more than -0.01 is needed", NOT_WORSE
    ),
    Case("not worse by a share", [measured(2, 0.0)], 2, "not worse", {**NOT_WORSE, "margin": 0.0125, "relative": True}),
    Case("a share that is too small", [measured(2, 0.0)], 1, "-0.008 is", {**NOT_WORSE, "relative": True}),
    # Guards.
    Case(
        "a guard that holds",
        [measured(2, metrics={"auc": metric(0.02), "recall": metric(0.0)})],
        2,
        "beats",
        GUARD,
    ),
    Case(
        "a guard that may be hurt",
        [measured(2, metrics={"auc": metric(0.02), "recall": metric(-0.005)})],
        1,
        "recall is not shown to lose at most 0.01: 0.795 against 0.8",
        GUARD,
        row="a guard's lower bound is not above `-max_loss`",
    ),
    Case(
        "a guard that does not exist for the rows",
        [measured(2, metrics={"auc": metric(0.02), "recall": MetricComparison(Direction.MAX, None)})],
        1,
        "recall, which is guarded, does not exist",
        GUARD,
    ),
    Case(
        "a guard with degenerate resamples",
        [measured(2, metrics={"auc": metric(0.02), "recall": metric(0.0, degenerate=21)})],
        1,
        "recall does not exist for 21 of 2000 resamples, more than 1 %",
        GUARD,
    ),
    # Slices.
    Case(
        "a slice that is harmed",
        [measured(2, metrics={"auc": harmed(-0.1, 0.01)})],
        1,
        "auc is worse by more than 0.02 where country is 'AT': 0.7 against 0.8 on 150 rows",
        SLICE,
        row="a slice is shown to be worse by more than `worst_slice`",
    ),
    Case("a slice that may be harmed", [measured(2, metrics={"auc": harmed(-0.1, 0.04)})], 2, "beats", SLICE),
    Case("a slice that lost what it may", [measured(2, metrics={"auc": harmed(-0.03, 0.01)})], 2, "beats", SLICE),
    Case("a slice that nobody asks about", [measured(2, metrics={"auc": harmed(-0.1, 0.01)})], 2, "beats"),
    Case(
        "a slice's loss as a share",
        [measured(2, metrics={"auc": harmed(-0.1, 0.01)})],
        1,
        "worse by more than 0.016",
        {**SLICE, "relative": True},
    ),
    Case(
        "slices of which none has enough rows",
        [measured(2)],
        1,
        "gate.worst_slice is set, and no slice of its comparison has enough rows to be judged",
        SLICE,
        row="`worst_slice` is set, and no slice has 100 rows",
    ),
    Case(
        "slices that need more resamples",
        [measured(2, metrics={"auc": harmed(-0.1, 0.01, least_level=0.01)})],
        1,
        "its 10 slices need more resamples to be judged with this confidence",
        SLICE,
        row="`worst_slice` is set, and the resamples are too few for its confidence and the number of slices",
    ),
    Case(
        "slices that have enough resamples",
        [measured(2, metrics={"auc": harmed(-0.1, 0.04, least_level=0.005)})],
        2,
        "beats",
        SLICE,
    ),
    Case(
        "slices that need more resamples for more confidence",
        [measured(2, metrics={"auc": harmed(-0.1, 0.01, least_level=0.0005)})],
        1,
        "its 10 slices need more resamples",
        {**SLICE, "confidence": 0.999},
    ),
    Case(
        "slices that have enough resamples for more confidence",
        [measured(2, metrics={"auc": harmed(-0.1, 0.04, least_level=0.0001)})],
        2,
        "beats",
        {**SLICE, "confidence": 0.999},
    ),
    Case(
        "slices for which no resamples are enough",
        [measured(2, metrics={"auc": harmed(-0.1, 0.01)})],
        1,
        "its 10 slices need a lower gate.confidence to be judged",
        {**SLICE, "confidence": 0.99999},
    ),
    Case(
        "slices without evidence of harm at a laxer level",
        [measured(2, metrics={"auc": harmed(-0.1, 0.04, least_level=0.01)})],
        2,
        "beats",
        SLICE,
    ),
    # Several challengers.
    Case("the better of two", [measured(2, 0.02), measured(3, 0.03)], 3, "corrected for 2 challengers"),
    Case("of equals the newest", [measured(2, 0.02), measured(3, 0.02)], 3, "beats"),
    Case("alone it would pass", [measured(2, 0.009)], 2, "beats"),
    Case(
        "of three it may be noise",
        [measured(2, 0.009), measured(3, 0.0), measured(4, 0.0)],
        1,
        r"version 2 is not shown to beat .* \(corrected for 3 challengers\)",
        row="several challengers: the levels are corrected (Holm)",
    ),
    Case("three were measured, one is given", [measured(2, 0.009, challengers=3)], 1, "corrected for 3 challengers"),
    Case("the second is tested at its own level", [measured(2, 0.009), measured(3, 0.03)], 3, "version 3 beats"),
    Case(
        "the newest comparison of a version counts",
        [measured(2, -0.1, at=NOW - 500), measured(2, 0.02), measured(2, -0.1, at=NOW - 400)],
        2,
        "beats",
    ),
    # Left out.
    Case(
        "not measured",
        [measured(2)],
        1,
        "the served version 1 is kept; version 3 is left out: it was not measured: gate.measured has no comparison",
        row="it was not measured",
        candidates=[3],
    ),
    Case(
        "compared with another version",
        [measured(2, champion=served(7))],
        1,
        "it was compared with version 7 of model 'fraud', and version 1 of model 'fraud' is served",
        row="it was compared with another version than the one that serves",
    ),
    Case("compared with no version", [measured(2, **FIRST)], 1, "compared with no version, and version 1"),
    Case(
        "compared for another deployment",
        [measured(2, deployment_name="staging")],
        1,
        "it was compared for deployment 'staging', not for 'live'",
        row="it was compared for another deployment",
    ),
    Case(
        "a first one, compared for another deployment",
        [measured(2, **FIRST, deployment_name="staging")],
        None,
        "it was compared for deployment 'staging', not for 'live'",
        champion=None,
    ),
    Case("compared for this deployment", [measured(2, deployment_name="live")], 2, "beats"),
    Case(
        "compared for both deployments",
        [measured(2, deployment_name="live", at=NOW - 99), measured(2, -0.1, deployment_name="staging")],
        2,
        "beats .* with 95 % confidence$",
    ),
    Case(
        "too old",
        [measured(2, at=NOW - 3601)],
        1,
        "its comparison is 3601 s old, more than the 3600 s of gate.max_age",
        {"max_age": timedelta(hours=1)},
        row="its comparison is older than `max_age`",
    ),
    Case("just young enough", [measured(2, at=NOW - 3600)], 2, "beats", {"max_age": 3600}),
    Case(
        "too few rows",
        [measured(2, rows={"compared": 199})],
        1,
        "it was compared on 199 rows, fewer than 200",
        row="fewer than 200 rows were compared",
    ),
    Case(
        "a backfill",
        [measured(2, metrics={}, rows={"compared": 0, "not_later": 1000})],
        1,
        "compared on 0 rows, fewer than 200 .1000 of 1000 are not later than the training data.",
    ),
    Case("just enough rows", [measured(2, rows={"compared": 200})], 2, "beats"),
    Case(
        "too few of a class",
        [measured(2, rarer_class=19)],
        1,
        "the rarest class has 19 of the compared rows, fewer than 20",
        row="fewer than 20 rows have the rarest class",
    ),
    Case("no classes", [measured(2, rarer_class=None)], 2, "beats"),
    Case(
        "too few groups",
        [measured(2, groups=19)],
        1,
        "the compared rows are of 19 groups, fewer than 20",
        row="the rows are of fewer than 20 groups",
    ),
    Case(
        "without labels",
        [measured(2, metrics={}, rarer_class=None)],
        1,
        "it was compared without labels, so that no metric was measured",
        row="the rows had no labels",
    ),
    Case(
        "degenerate resamples",
        [measured(2, metrics={"auc": metric(0.02, degenerate=21)})],
        1,
        "auc does not exist for 21 of 2000 resamples, more than 1 %",
        row="the metric does not exist for more than 1 % of the resamples",
    ),
    Case("a few degenerate resamples", [measured(2, metrics={"auc": metric(0.02, degenerate=20)})], 2, "beats"),
    Case(
        "a metric that does not exist",
        [measured(2, metrics={"auc": MetricComparison(Direction.MAX, None)})],
        1,
        "auc does not exist for the rows of its comparison",
    ),
    Case(
        "it refuses rows",
        [measured(2, rows={"given": 1020, "refused_by_challenger": 20})],
        1,
        "it refuses 20 of 1020 rows, and the served version 0",
        row="it refuses more rows than the champion, by more than 1 %",
    ),
    Case(
        "both refuse rows",
        [
            measured(
                2, rows={"given": 1040, "refused_by_challenger": 20, "refused_by_champion": 15, "refused_by_both": 5}
            )
        ],
        2,
        "beats",
    ),
    Case(
        "below the floor, by what was measured",
        [measured(2)],
        1,
        "its measured auc 0.82 is below the floor of 0.9",
        {"floor": 0.9},
        row="its measured value is below the floor",
    ),
    Case("above the floor, whatever the registry says", [measured(2)], 2, "beats", {"floor": 0.7}),
    Case("rejected before", [measured(2)], 1, "it was rejected before", rejected={2: "it did not start"}),
    Case("retried", [measured(2)], 2, "beats", {"retry_rejected": True}, rejected={2: "it did not start"}),
    Case("trained on older data", [measured(2)], 1, "older data than the served one", outdated=(2,)),
    Case("nothing newer", [measured(2)], 1, "no candidate is newer", candidates=[1]),
    Case(
        "the resamples are too few",
        [measured(2, metrics={"auc": metric(0.02, bounds=Bounds((0.1,), (0.01,), (0.03,)))})],
        1,
        "of unknown size, since the resamples are too few",
    ),
    # No champion.
    Case(
        "the first one",
        [measured(2, **FIRST)],
        2,
        r"version 2 \(auc 0.82, measured on 1000 rows\) is the best of 1 that were measured, and none is served yet",
        champion=None,
        row="no version serves yet, and the candidate was measured alone",
    ),
    Case(
        "the better of two first ones",
        [measured(2, **FIRST), measured(3, **{**FIRST, "metrics": {"auc": MetricComparison(Direction.MAX, 0.7)}})],
        2,
        "is the best of 2",
        champion=None,
    ),
    Case(
        "the least of two first ones",
        [
            measured(2, **{**FIRST, "metrics": {"auc": MetricComparison(Direction.MIN, 0.8)}}),
            measured(3, **{**FIRST, "metrics": {"auc": MetricComparison(Direction.MIN, 0.7)}}),
        ],
        3,
        "auc 0.7",
        champion=None,
        direction="min",
    ),
    Case("a first one below the floor", [measured(2, **FIRST)], None, "floor of 0.9", {"floor": 0.9}, champion=None),
    Case(
        "a first one that refuses rows",
        [measured(2, **FIRST, rows={"given": 1020, "refused_by_challenger": 20})],
        None,
        "none is served yet; version 2 is left out: it refuses 20 of 1020 rows$",
        champion=None,
        candidates=[2],
        row="no version serves yet, and the candidate refuses more than 1 % of the rows",
    ),
    Case(
        "a first one that refuses a few rows",
        [measured(2, **FIRST, rows={"given": 1010, "refused_by_challenger": 10})],
        2,
        "is the best of 1",
        champion=None,
    ),
    Case("a first one, compared with another", [measured(2)], None, "and none is served", champion=None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_the_table(case: Case) -> None:
    decision = case.decide()

    assert (decision.chosen.version if decision.chosen else None) == case.expected, decision.reason
    assert decision.is_kept == (case.expected in (1, None))
    assert re.search(case.reason, decision.reason), decision.reason
    assert decision.measured is not None


def test_the_docs_have_the_table() -> None:
    """Each row of the table has a case, and each case that names a row finds it."""
    table = PAGE.read_text().partition("| the comparison of a candidate |")[2].partition("\n\n")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]

    assert rows
    assert sorted(rows) == sorted(case.row for case in CASES if case.row)


def test_what_was_measured_is_in_the_decision() -> None:
    comparison = measured(2, report="s3://results/report.html", warnings=("No time_column is given.",))
    shown = dict(Case("", [comparison], 2, "").decide().measured or {})

    assert shown.pop("interval") == pytest.approx([0.0102, 0.0298], abs=1e-4)
    assert shown.pop("lower_bound") == pytest.approx(0.02 - 1.645 * 0.005, abs=1e-4)
    assert shown == {
        "metric": "auc",
        "model_version": 2,
        "champion": 0.8,
        "challenger": 0.82,
        "difference": 0.02,
        "confidence": 0.95,
        "needed": 0.0,
        "share_better": 0.9,
        "smallest_detectable": 0.015,
        "rows": 1000,
        "at": NOW - 60,
        "warnings": ["No time_column is given."],
        "report": "s3://results/report.html",
    }


def test_without_a_usable_comparison_the_registry_is_not_asked() -> None:
    decision = Case("", [measured(2, rows={"compared": 10})], 1, "").decide()

    assert decision.measured == {}


def test_a_reason_names_the_newest_three() -> None:
    versions = [ModelVersion("fraud", number, f"fraud_{number}", "demo", 119, {}) for number in range(1, 8)]
    rules = Gate(measured=measured(9).to_json()).rules()
    reason = decide_measured(versions, versions[0], Metric("auc", Direction.MAX), rules, now=NOW).reason

    assert [int(one) for one in re.findall(r"version (\d) is left out", reason)] == [7, 6, 5]
    assert reason.endswith("and 3 more")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            Case("", [measured(2, metrics={"f1": metric(0.02), "mae": metric(0.1)})], 1, ""),
            r"metric: 'auc' was not measured; the comparison has f1, mae\.\nAdd it to metrics",
        ),
        (Case("", [measured(2)], 1, "", GUARD), "gate.guards: 'recall' was not measured; the comparison has auc"),
        (Case("", [measured(2)], 1, "", direction="min"), "has the direction 'min' here, and 'max' in the comparison"),
        (Case("", [], 1, ""), "gate.measured: expected the result of CompareModelsOperator, got none"),
        (Case("", [measured(2)], 1, "", {"require": "not_worse"}), "gate.margin: expected the loss"),
        (
            Case("", [measured(2)], 1, "", {"margin": 0.1}),
            "gate.margin: it is the loss that require='not_worse' accepts",
        ),
        (Case("", [measured(2)], 1, "", {**NOT_WORSE, "min_improvement": 1}), "gate.min_improvement: expected none"),
        (Case("", [measured(2)], 1, "", {"confidence": 95}), r"gate.confidence: expected a share of at least 0\.5"),
        (Case("", [measured(2)], 1, "", {"require": "same"}), "gate.require: expected one of better, not_worse"),
        (Case("", [measured(2)], 1, "", {"worst_slice": -1}), "gate.worst_slice: expected a finite number of 0"),
        (Case("", [measured(2)], 1, "", {"max_age": "soon"}), "gate.max_age"),
    ],
)
def test_configuration_that_does_not_fit_is_an_error(case: Case, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        case.decide()


def test_a_candidate_that_is_not_in_the_registry() -> None:
    with pytest.raises(NotFoundError, match=r"versions \[9\] are not in the registry"):
        Case("", [measured(2)], 1, "", candidates=[9]).decide()


@pytest.mark.parametrize(
    "fields", [{"confidence": 0.9}, {"require": "not_worse"}, {"margin": 1}, {"worst_slice": 1}, {"max_age": 5}]
)
def test_fields_of_a_measured_gate_need_a_measurement(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=rf"gate\.{next(iter(fields))}: expected gate\.measured as well"):
        Gate.read(fields, "gate").rules()
    Gate.read(fields, "gate").literal_rules()


class TestGivenMeasurements:
    one = measured(2).to_json()

    @pytest.mark.parametrize("given", ["", "none", "[]", "{}", [], {}, "null", 5, [None], [[]]])
    def test_that_are_empty_or_something_else_are_errors(self, given: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"gate\.measured"):
            Gate(measured=given).rules()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": 2}, 'expected the result of CompareModelsOperator, .* with "format" 1'),
            ({"at": None}, r"gate\.measured\.at"),
            ({"at": "NaN"}, r"gate\.measured\.at"),
            ({"challenger": None}, r"gate\.measured\.challenger: expected a mapping"),
            ({"challenger": {"project": "demo", "name": "fraud", "version": 0}}, r"challenger\.version"),
            ({"rows": {}}, r"gate\.measured\.rows\.given"),
            ({"levels": [0.5, 0.1]}, r"gate\.measured\.levels: expected levels between 0 and 1, ascending"),
            ({"levels": [0.5]}, r"metrics\.auc\.lower: expected 1 bounds"),
            ({"metrics": {"auc": {}}}, r"metrics\.auc\.direction: expected one of max, min"),
            ({"metrics": {"auc": {"direction": "max", "degenerate": -1}}}, r"auc\.degenerate"),
            (
                {
                    "metrics": {
                        "auc": {"direction": "max", "degenerate": 0, "slices_tested": 1, "slices": [{"column": 5}]}
                    }
                },
                r"slices\[0\]\.column: expected a text, got 5",
            ),
            ({"warnings": "many"}, r"gate\.measured\.warnings: expected a list"),
            ({"report": 5}, r"gate\.measured\.report: expected a text"),
            ({"deployment_name": 5}, r"gate\.measured\.deployment_name: expected a text"),
        ],
    )
    def test_that_are_broken_name_the_field(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            Gate(measured={**self.one, **change}).rules()

    def test_of_a_list_name_the_place(self) -> None:
        with pytest.raises(InvalidInputError, match=r"gate\.measured\[1\]\.at"):
            Gate(measured=[self.one, {**self.one, "at": None}]).rules()

    def test_with_a_text_from_outside_are_bounded(self) -> None:
        given = {**self.one, "warnings": ["\x1b" + "x" * 10_000] * 1000}
        (comparison,) = Gate(measured=given).rules().measurement.comparisons  # type: ignore[union-attr]

        assert len(comparison.warnings) == 20
        assert all(len(one) < 300 and "\x1b" not in one for one in comparison.warnings)

    def test_stay_the_same_when_they_are_read(self) -> None:
        comparison = replace(measured(2, metrics={"auc": harmed(-0.1, 0.01)}), report="file:///report.html", groups=30)
        comparison = replace(comparison, deployment_name="live")

        assert Comparison.read(comparison.to_json()) == comparison
        assert {one.name for one in dataclasses.fields(comparison)} - set(comparison.to_json()) == {"details"}


class TestAProjectInAnotherCase:
    """Paths name the owner of a model in either case, and both are the same version."""

    @staticmethod
    def shouted(version: int) -> ServedVersion:
        return replace(served(version), project="DEMO")

    @staticmethod
    def decided(*comparisons: Comparison) -> Decision:
        return Case("", list(comparisons), None, "").decide()

    def test_is_the_same_version(self) -> None:
        decision = self.decided(measured(2, champion=self.shouted(1), challenger=self.shouted(2)))

        assert decision.chosen is not None
        assert decision.chosen.version == 2

    def test_of_two_comparisons_the_newer_one_counts(self) -> None:
        older = measured(2, 0.02, at=NOW - 90)
        newer = measured(2, -0.02, challenger=self.shouted(2))

        assert self.decided(older, newer).is_kept

    def test_is_one_challenger_for_the_correction(self) -> None:
        """For two deployments, so that both comparisons are kept."""
        own, other = (measured(2, 0.011, deployment_name=name) for name in ("live", "other"))
        shouted = replace(other, challenger=self.shouted(2))

        assert self.decided(own, other) == self.decided(own, shouted)
