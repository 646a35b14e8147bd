"""
The gate by comparisons: decide by what was measured of both versions on the same rows.

The numbers in the registry have no part in it. A candidate that was not measured, or not well enough, is left out with
the reason. Of several challengers, the levels are corrected by Holm: the chance that any wrong one is promoted stays
what one challenger has. ``docs/guides/gate.md`` has the table of cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .comparison import Bounds
from .gate import OUTDATED, Decision, Metric, Rules, candidates_of, not_newer, was_rejected, with_candidates
from .journal_entry import ServedVersion
from .measurement import Measurement
from .model_version import Direction

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .comparison import Comparison, MetricComparison
    from .model_version import ModelVersion

LEAST_ROWS = 200
LEAST_OF_A_CLASS = 20
LEAST_GROUPS = 20
MOST_DEGENERATE = 0.01
"""The share of resamples for which a metric may not exist."""
MOST_REFUSED = 0.01
"""The share of rows that the challenger may refuse more than the champion."""
_MOST_REASONS = 3
_INTERVAL = 0.025
_SAME = 1 + 1e-9
"""The rounding of levels: 1 - 0.95 is a little more than 0.05."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """A candidate with a usable comparison."""

    version: ModelVersion
    comparison: Comparison
    metric: MetricComparison
    needed: float | None = None
    """The difference that the lower bound has to be above; None without a champion."""
    level: float = 0.0
    """The strictest level at which the metric and all guards pass; 1 if they never do."""
    fails: str | None = None
    """The guard that fails at the gate's own confidence, in words."""

    @property
    def rank(self) -> tuple[float, int]:
        """The key by which the best candidate is the greatest: the difference, else the own value; then the number."""
        value = self.metric.difference
        if value is None:
            own = self.metric.challenger or 0.0
            value = own if self.metric.direction is Direction.MAX else -own
        return value, self.version.version


@dataclass(frozen=True, slots=True)
class _Question:
    """Whether a candidate may replace the champion, by its comparison."""

    champion: ModelVersion | None
    by: Metric
    rules: Rules
    measurement: Measurement
    now: float
    deployment_name: str | None = None

    def answer(self, row: ModelVersion) -> _Measured | str:
        """
        Return a candidate with its comparison, or why it is left out.

        :raises InvalidInputError: the comparison has not the metric, or in another direction
        """
        found = [one for one in self.measurement.comparisons if one.challenger.is_same(ServedVersion.of_model(row))]
        if not found:
            return "it was not measured: gate.measured has no comparison of it"
        comparison = next((one for one in found if self._is_of_deployment(one)), found[0])
        if why := self._not_comparable(comparison) or _too_few(comparison):
            return why
        metric = _metric(comparison, self.by.name, self.by.direction, "metric")
        if why := self._below_floor(metric):
            return why
        if self.champion is None:
            return _Measured(row, comparison, metric)
        if why := _degenerate(comparison, metric, self.by.name) or self._harmed(comparison, metric):
            return why
        return self._with_guards(row, comparison, metric)

    def _not_comparable(self, comparison: Comparison) -> str | None:
        """Return why a comparison says nothing about the champion of now."""
        if not self._is_of_deployment(comparison):
            return f"it was compared for deployment {comparison.deployment_name!r}, not for {self.deployment_name!r}"
        served = None if self.champion is None else ServedVersion.of_model(self.champion)
        is_champion = served is None if comparison.champion is None else comparison.champion.is_same(served)
        if not is_champion:
            compared = "no version" if comparison.champion is None else str(comparison.champion)
            return f"it was compared with {compared}, and {'none' if served is None else served} is served"
        age, most = self.now - comparison.at, self.measurement.max_age
        if most is not None and age > most:
            return f"its comparison is {age:.0f} s old, more than the {most:.0f} s of gate.max_age"
        rows = comparison.rows
        more = rows.refused_by_challenger - rows.refused_by_champion
        answered = rows.compared + rows.refused_by_champion + rows.refused_by_challenger
        if more > MOST_REFUSED * answered:
            than = "" if served is None else f", and the served version {rows.refused_by_champion}"
            return f"it refuses {rows.refused_by_challenger} of {answered} rows{than}"
        return None

    def _is_of_deployment(self, comparison: Comparison) -> bool:
        """Whether a comparison was made for the deployment of the gate, as far as it says."""
        return self.deployment_name is None or comparison.deployment_name in (None, self.deployment_name)

    def _below_floor(self, metric: MetricComparison) -> str | None:
        """Return why the challenger's own value is not good enough: it does not exist, or is below the floor."""
        value, floor = metric.challenger, self.rules.floor
        if value is None or (self.champion is not None and None in (metric.champion, metric.difference)):
            return f"{self.by.name} does not exist for the rows of its comparison"
        if floor is not None and self.by.is_better(floor, value):
            return f"its measured {self.by.name} {value:g} is {self.by.limit} of {floor:g}"
        return None

    def _unit(self, metric: MetricComparison) -> float:
        """Return what the numbers of the gate are multiplied with."""
        return abs(metric.champion or 0.0) if self.rules.is_relative else 1.0

    def _harmed(self, comparison: Comparison, metric: MetricComparison) -> str | None:
        """
        Return the slice that is shown to have lost too much, or why none can be judged.

        The level holds for all tested slices together.
        """
        if self.measurement.worst_slice is None:
            return None
        if not metric.slices_tested:
            return "gate.worst_slice is set, and no slice of its comparison has enough rows to be judged"
        most = self.measurement.worst_slice * self._unit(metric)
        level = self.measurement.level / max(1, metric.slices_tested)
        for one in metric.slices:
            upper = Bounds(comparison.slice_levels, upper=one.upper).upper_at(level) if one.upper else None
            # The bounds of laxer levels are the lower ones: without evidence of harm there, there is none here.
            known = next((bound for bound in one.upper if bound is not None), None)
            if upper is None and known is not None and known < -most:
                need = "more resamples" if level * _SAME >= comparison.slice_levels[0] else "a lower gate.confidence"
                return f"its {metric.slices_tested} slices need {need} to be judged with this confidence"
            if upper is not None and upper < -most and one.champion is not None and one.challenger is not None:
                return (
                    f"{self.by.name} is worse by more than {most:g} where {one.column} is {one.value!r}: "
                    f"{one.challenger:g} against {one.champion:g} on {one.rows} rows"
                )
        return None

    def _with_guards(self, row: ModelVersion, comparison: Comparison, metric: MetricComparison) -> _Measured | str:
        """Return a candidate with the strictest level at which the metric and all guards pass."""
        unit, margin = self._unit(metric), self.measurement.margin
        needed = self.rules.min_improvement * unit if margin is None else -margin * unit
        level, fails = metric.bounds.level_above(needed), None
        for name, guard in self.rules.guards.items():
            guarded = _metric(comparison, name, guard.direction, "gate.guards")
            if guarded.challenger is None or guarded.champion is None:
                return f"{name}, which is guarded, does not exist for the rows of its comparison"
            if why := _degenerate(comparison, guarded, name):
                return why
            own = guarded.bounds.level_above(-guard.max_loss)
            if own > self.measurement.level * _SAME and fails is None:
                fails = (
                    f"{name} is not shown to lose at most {guard.max_loss:g}: {guarded.challenger:g} against "
                    f"{guarded.champion:g}"
                )
            level = max(level, own)
        return _Measured(row, comparison, metric, needed, level, fails)


def decide_measured(
    versions: Sequence[ModelVersion],
    champion: ModelVersion | None,
    by: Metric,
    rules: Rules,
    rejected: Mapping[int, str] | None = None,
    *,
    outdated: Collection[int] = (),
    now: float,
    deployment_name: str | None = None,
) -> Decision:
    """
    Decide which version to serve, by comparisons.

    :param versions: all versions of the model; at least one
    :param champion: the version being served; None at a first deployment, where only the floor counts
    :param rules: with a measurement
    :param rejected: versions that were deployed before and failed, with the reason
    :param outdated: versions that were trained on older data than the champion
    :param now: seconds since 1970
    :param deployment_name: a comparison that was made for another deployment is not used; None: any is used
    :raises NotFoundError: a candidate does not exist
    :raises InvalidInputError: a comparison has not the metric, or in another direction
    """
    measurement = rules.measurement or Measurement()
    question = _Question(champion, by, rules, measurement, now, deployment_name)
    failed = {} if rules.retry_rejected or rejected is None else rejected
    rows = sorted(candidates_of(versions, by.candidates), key=lambda row: -row.version)
    newer = [row for row in rows if champion is None or not_newer(row, champion, rules) is None]
    left_out: dict[int, str] = {
        row.version: was_rejected(failed[row.version]) for row in newer if row.version in failed
    }
    left_out |= dict.fromkeys(outdated, OUTDATED)
    usable: list[_Measured] = []
    for row in newer:
        if row.version in left_out:
            continue
        found = question.answer(row)
        if isinstance(found, str):
            left_out[row.version] = found
        else:
            usable.append(found)
    verdicts = {row.version: not_newer(row, champion, rules) or "" for row in rows if champion and row not in newer}
    if not usable:
        decision = _none_usable(newer, champion, left_out)
    elif champion is None:
        decision = _first(usable, by)
    else:
        tests = _holm(usable, measurement)
        decision = _tested(tests, champion, by)
        verdicts |= {test.one.version.version: test.reason(by, champion) for test in tests if not test.passes}
    measured = {one.version.version: one.metric.challenger for one in usable}

    def numbers(row: ModelVersion) -> dict[str, float | None]:
        value = measured.get(row.version)
        is_champion = champion is not None and ServedVersion.of_model(row).is_same(ServedVersion.of_model(champion))
        if row.version not in measured and usable and is_champion:
            value = usable[0].metric.champion
        return {f"measured {by.name}": value}

    return with_candidates(decision, rows, champion, by, verdicts=verdicts | left_out, numbers=numbers)


def _tested(tests: Sequence[_Test], champion: ModelVersion, by: Metric) -> Decision:
    """Decide by the tests of candidates, the strongest first."""
    if passed := [test for test in tests if test.passes]:
        best = max(passed, key=lambda test: test.one.rank)
        return Decision(best.one.version, best.reason(by, champion), measured=best.record(by))
    return Decision(champion, tests[0].reason(by, champion), is_kept=True, measured=tests[0].record(by))


def _too_few(comparison: Comparison) -> str | None:
    """Return why a comparison cannot decide, whatever it shows: it has too little to show anything."""
    rows = comparison.rows
    if rows.compared < LEAST_ROWS:
        more = f" ({rows.not_later} of {rows.given} are not later than the training data)" if rows.not_later else ""
        return f"it was compared on {rows.compared} rows, fewer than {LEAST_ROWS}{more}"
    if not comparison.metrics:
        return "it was compared without labels, so that no metric was measured"
    if comparison.rarer_class is not None and comparison.rarer_class < LEAST_OF_A_CLASS:
        return f"the rarest class has {comparison.rarer_class} of the compared rows, fewer than {LEAST_OF_A_CLASS}"
    if comparison.groups is not None and comparison.groups < LEAST_GROUPS:
        return f"the compared rows are of {comparison.groups} groups, fewer than {LEAST_GROUPS}"
    return None


def _metric(comparison: Comparison, name: str, direction: Direction, what: str) -> MetricComparison:
    """
    Return a measured metric.

    :raises InvalidInputError: it was not measured, or in another direction
    """
    metric = comparison.metrics.get(name)
    if metric is None:
        message = (
            f"{what}: {name!r} was not measured; the comparison has {', '.join(sorted(comparison.metrics))}.\n"
            "Add it to metrics of CompareModelsOperator, or use one that was measured."
        )
        raise InvalidInputError(message)
    if metric.direction is not direction:
        message = (
            f"{what}: {name!r} has the direction {direction.value!r} here, and {metric.direction.value!r} in the "
            "comparison.\nUse the same direction."
        )
        raise InvalidInputError(message)
    return metric


def _degenerate(comparison: Comparison, metric: MetricComparison, name: str) -> str | None:
    """Return why a metric cannot be used: it does not exist for too many resamples."""
    if metric.degenerate <= MOST_DEGENERATE * comparison.resamples:
        return None
    return (
        f"{name} does not exist for {metric.degenerate} of {comparison.resamples} resamples, more than "
        f"{100 * MOST_DEGENERATE:g} %"
    )


# ------------------------------------------------------------------------------------------------------- the decision


@dataclass(frozen=True, slots=True)
class _Test:
    """The test of one candidate, at its level by Holm."""

    one: _Measured
    measurement: Measurement
    level: float
    passes: bool = False

    @property
    def _lower(self) -> float | None:
        return self.one.metric.bounds.lower_at(self.level)

    def reason(self, by: Metric, champion: ModelVersion) -> str:
        """Return what the comparison shows, in one sentence without its full stop."""
        one, metric, is_better = self.one, self.one.metric, self.measurement.margin is None
        if self.passes:
            verdict = "beats" if is_better else "is not worse than"
        else:
            verdict = "is not shown to beat" if is_better else "is not shown to be no worse than"
        numbers = f"{by.name} {metric.challenger:g} against {metric.champion:g}"
        at_least = "of unknown size, since the resamples are too few," if self._lower is None else f"{self._lower:g}"
        corrected = round(self.measurement.level / self.level)
        shown = (
            f"version {one.version.version} {verdict} the served version {champion.version} on the same "
            f"{one.comparison.rows.compared} rows: {numbers}, a difference of {metric.difference:g}, at least "
            f"{at_least} with {100 * self.measurement.confidence:g} % confidence"
        )
        shown += f" (corrected for {corrected} challengers)" if corrected > 1 else ""
        if self.passes:
            return shown
        if one.fails is not None:
            return f"{shown}; {one.fails}"
        shown += f"; more than {one.needed:g} is needed"
        smallest = metric.smallest_detectable
        return shown if smallest is None else f"{shown}, and such rows show differences of {smallest:g} or more"

    def record(self, by: Metric) -> dict[str, Any]:
        """Return what was measured, as plain JSON for the record of the promotion."""
        metric, comparison = self.one.metric, self.one.comparison
        return {
            "metric": by.name,
            "model_version": self.one.version.version,
            "champion": metric.champion,
            "challenger": metric.challenger,
            "difference": metric.difference,
            "lower_bound": self._lower,
            "interval": [metric.bounds.lower_at(_INTERVAL), metric.bounds.upper_at(_INTERVAL)],
            "confidence": self.measurement.confidence,
            "needed": self.one.needed,
            "share_better": metric.share_better,
            "smallest_detectable": metric.smallest_detectable,
            "rows": comparison.rows.compared,
            "at": comparison.at,
            "warnings": list(comparison.warnings),
            "report": comparison.report,
        }


def _holm(usable: list[_Measured], measurement: Measurement) -> list[_Test]:
    """Return the tests, the strongest first; each level is corrected for the challengers that are left."""
    given = {one.challenger.key for one in measurement.comparisons}
    count = max(len(given), *(one.comparison.challengers for one in usable))
    tests: list[_Test] = []
    passes = True
    for place, one in enumerate(sorted(usable, key=lambda each: (each.level, *(-part for part in each.rank)))):
        level = measurement.level / max(1, count - place)
        passes = passes and one.level <= level * _SAME
        tests.append(_Test(one, measurement, level, passes))
    return tests


def _first(usable: list[_Measured], by: Metric) -> Decision:
    """Decide when no version serves: the best measured value."""
    best = max(usable, key=lambda one: one.rank)
    reason = (
        f"version {best.version.version} ({by.name} {best.metric.challenger:g}, measured on "
        f"{best.comparison.rows.compared} rows) is the best of {len(usable)} that were measured, and none is served yet"
    )
    return Decision(best.version, reason, measured=_Test(best, Measurement(), _INTERVAL).record(by))


def _none_usable(newer: Sequence[ModelVersion], champion: ModelVersion | None, left_out: Mapping[int, str]) -> Decision:
    """Decide when no candidate can be used; the reason says why for the newest ones."""
    served = "none is served yet" if champion is None else f"the served version {champion.version} is kept"
    if not newer:
        return Decision(champion, f"{served}: no candidate is newer", is_kept=True, measured={})
    listed = [f"version {row.version} is left out: {left_out[row.version]}" for row in newer[:_MOST_REASONS]]
    more = [f"and {len(newer) - _MOST_REASONS} more"] if len(newer) > _MOST_REASONS else []
    return Decision(champion, "; ".join([served, *listed, *more]), is_kept=True, measured={})
