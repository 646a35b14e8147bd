"""
Compare two versions by their answers to the same rows.

``compare`` leaves rows out that cannot be compared, and counts each; measures both versions by scikit-learn; and asks
with a paired bootstrap whether the difference is noise. It does no I/O. ``report`` draws the result.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.comparison import (
    Comparison,
    MetricComparison,
    RowCounts,
    SliceComparison,
    check_not_the_same,
)
from airflow_provider_hsml.hopsworks.domain.comparison_metrics import MetricSpec, Needs, read_metrics
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from . import description
from .answers import Answers, unwrapped
from .measures import Block, Measure, measure_of
from .packages import check_installed
from .resampling import (
    MOST_ROWS,
    SLICE_LEVELS,
    Units,
    bounds,
    draws,
    rounded,
    smallest_detectable,
    upper_bounds,
)
from .unseen import Unseen, unseen_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .scored import Rows, Scored

    Array = NDArray[Any]

SLICE_ROWS = 100
"""The rows that a slice needs."""
MOST_SLICES = 100
_MOST_OF_A_COLUMN = 50
_MOST_RECORDED = 20
_MOST_RESAMPLES = 100_000
_MOST_DEGENERATE = 0.01
_FEW_GROUPS = 50


def compare(
    champion: Scored | None,
    challenger: Scored,
    rows: Rows,
    metrics: Sequence[str | Mapping[str, str]],
    *,
    resamples: int = 2000,
    seed: int = 0,
    trained_until: tuple[datetime | None, datetime | None] = (None, None),
    challengers: int = 1,
    at: float | None = None,
) -> Comparison:
    """
    Compare the answers of two versions to the same rows.

    Without labels, only agreement, distributions and latency are compared. Without a champion, only the challenger is
    measured.

    :param champion: the live version's answers; None when there is none
    :param challenger: the answers of the version that may replace it
    :param rows: labels, groups, times and slices, one entry a row
    :param metrics: names, or mappings with ``metric`` and ``direction``; a dotted path needs its direction. Without
        labels there may be none
    :param resamples: how many resamples are drawn
    :param seed: the seed of the resamples: the same answers give the same comparison
    :param trained_until: until when the training data of the champion and of the challenger goes; None where unknown
    :param challengers: how many challengers are measured for the same decision
    :param at: the time of the comparison, in seconds since 1970; None for now
    :raises InvalidInputError: an argument is wrong, the answers do not fit a metric, or a package is missing
    """
    check_installed()
    specs = read_metrics("metrics", metrics) if metrics or rows.labels is not None else ()
    check_not_the_same(None if champion is None else champion.version, challenger.version)
    count = len(challenger.predictions)
    _check_lengths(champion, rows, count)
    scored = [challenger] if champion is None else [champion, challenger]
    work = _Work(
        specs,
        arguments.integer("resamples", resamples, least=100),
        arguments.integer("seed", seed, least=0),
        arguments.integer("challengers", challengers, least=1),
    )
    if work.resamples > _MOST_RESAMPLES:
        arguments.refuse("resamples", f"at most {_MOST_RESAMPLES}", resamples)
    kept, counts = _rows_to_compare(champion, challenger, rows, trained_until, work.warnings)
    answers = _answers(scored, rows, kept)
    groups = None
    found: dict[str, MetricComparison] = {}
    details: dict[str, Any] = {}
    rarer: int | None = None
    if rows.labels is None:
        work.warnings.append("The rows have no labels: only agreement, distributions and latency are compared.")
    elif len(kept):
        units = _units(rows, kept)
        groups = None if rows.groups is None else units.count
        if groups is not None and groups < _FEW_GROUPS:
            work.warnings.append(f"The rows are of {groups} groups only, so that the bounds are not reliable.")
        blocks = _slices(rows, kept, work.warnings) if champion is not None else []
        found = work.measure(answers, units, blocks)
        needs = {spec.needs for spec in specs}
        # A function of the user's own does not say whether labels are classes; another metric of the list may.
        if needs & {Needs.CLASSES, Needs.PROBABILITIES} or (Needs.NUMBERS not in needs and answers.has_classes):
            rarer = answers.rarer_class
        if any(spec.needs is Needs.CLASSES for spec in specs):
            details = {"classes": description.classes(answers), "confusion": description.confusion(answers)}
        details["worse"] = description.worse(answers, kept)
    latencies = {name: description.latency(one) for name, one in _named(scored).items()}
    return Comparison(
        time.time() if at is None else at,
        None if champion is None else champion.version,
        challenger.version,
        counts,
        found,
        resamples=work.resamples,
        seed=work.seed,
        challengers=work.challengers,
        groups=groups,
        rarer_class=rarer,
        slice_levels=SLICE_LEVELS,
        warnings=tuple(work.warnings),
        details={
            "agreement": description.agreement(answers),
            "distributions": description.distributions(answers),
            "latency_ms": latencies,
            **details,
        },
    )


@dataclass(frozen=True)
class _Slice:
    """The rows with one value in a column."""

    column: str
    value: str
    block: Block


@dataclass(frozen=True)
class _Work:
    """The measuring of all metrics on the same resamples."""

    specs: tuple[MetricSpec, ...]
    resamples: int
    seed: int
    challengers: int
    warnings: list[str] = field(default_factory=list)

    def measure(self, answers: Answers, units: Units, slices: list[_Slice]) -> dict[str, MetricComparison]:
        """Measure both versions, on all rows and on the slices."""
        import numpy as np

        everything = Block(np.arange(len(answers.predictions[-1])))
        measures = [measure_of(spec, answers) for spec in self.specs]
        if len(answers.predictions) == 1:
            return {
                one.spec.name: MetricComparison(one.spec.direction, rounded(one.value(0, everything)))
                for one in measures
            }
        works = [_Measured.of(one, everything, slices, unseen_of(one, units)) for one in measures]
        functions = [one.measure.of_draws([everything, *one.harmed_blocks], units) for one in works]
        parts: list[list[Array]] = [[] for _ in works]
        for weights in draws(units.count, self.resamples, self.seed):
            for kept, function in zip(parts, functions, strict=True):
                kept.append(function(weights))
        return {
            one.measure.spec.name: one.compared(np.concatenate(kept, axis=2), self.challengers)
            for one, kept in zip(works, parts, strict=True)
        }


@dataclass(frozen=True)
class _Measured:
    """A metric of both versions, on all rows and on each slice."""

    measure: Measure
    champion: float
    challenger: float
    harmed: list[tuple[_Slice, float, float]]
    """The slices that got worse, with both values: only these can show harm, so only these are resampled."""
    slices_tested: int
    unseen: Unseen | None
    """What the metric may lose on all rows although no row shows it."""

    @classmethod
    def of(cls, measure: Measure, everything: Block, slices: list[_Slice], unseen: Unseen | None) -> Self:
        points = [(each, measure.value(0, each.block), measure.value(1, each.block)) for each in slices]
        tested = [one for one in points if math.isfinite(one[1]) and math.isfinite(one[2])]
        harmed = [one for one in tested if measure.spec.sign * (one[2] - one[1]) < 0]
        return cls(measure, measure.value(0, everything), measure.value(1, everything), harmed, len(tested), unseen)

    @property
    def harmed_blocks(self) -> list[Block]:
        """The rows of the slices that got worse."""
        return [one.block for one, _, _ in self.harmed]

    def compared(self, values: Array, challengers: int) -> MetricComparison:
        """
        Return the comparison.

        :param values: of the resamples, (versions, blocks, resamples)
        :param challengers: how many challengers are tested for one decision
        """
        spec = self.measure.spec
        differences = spec.sign * (values[1] - values[0])
        whole = differences[0][_exists(differences[0])]
        slices = [
            _compared_slice(one, (before, after), spec.sign, own)
            for (one, before, after), own in zip(self.harmed, differences[1:], strict=True)
        ]
        slices.sort(key=lambda one: _at_level(one, 0.05 / max(1, self.slices_tested)))
        difference, found = spec.sign * (self.challenger - self.champion), bounds(whole)
        return MetricComparison(
            spec.direction,
            rounded(self.challenger),
            rounded(self.champion),
            rounded(difference),
            found if self.unseen is None else self.unseen.widened(found, difference),
            share_better=rounded(float((whole > 0).mean())) if len(whole) else None,
            smallest_detectable=smallest_detectable(whole, challengers),
            degenerate=len(differences[0]) - len(whole),
            slices=tuple(slices[:_MOST_RECORDED]),
            slices_tested=self.slices_tested,
        )


def _named(scored: list[Scored]) -> dict[str, Scored]:
    return dict(zip(("champion", "challenger")[-len(scored) :], scored, strict=True))


def _exists(values: Array) -> Array:
    import numpy as np

    exists: Array = np.isfinite(values)
    return exists


def _compared_slice(one: _Slice, points: tuple[float, float], sign: int, differences: Array) -> SliceComparison:
    """Return a slice that got worse. Where too many resamples do not exist, it has no bounds: no evidence of harm."""
    valid = differences[_exists(differences)]
    is_sound = len(valid) >= (1 - _MOST_DEGENERATE) * len(differences)
    before, after = points
    return SliceComparison(
        one.column,
        one.value,
        len(one.block.rows),
        rounded(before),
        rounded(after),
        rounded(sign * (after - before)),
        upper_bounds(valid) if is_sound else (),
    )


def _at_level(one: SliceComparison, level: float) -> float:
    """Return the upper bound of a slice at a level, to sort by; the strictest where the level is stricter."""
    known = [bound for own, bound in zip(SLICE_LEVELS, one.upper, strict=False) if own <= level and bound is not None]
    first = next((bound for bound in one.upper if bound is not None), None)
    return known[-1] if known else float("inf") if first is None else first


# ---------------------------------------------------------------------------------------------------------- the rows


def _check_lengths(champion: Scored | None, rows: Rows, count: int) -> None:
    if not 0 < count <= MOST_ROWS:
        message = (
            f"input: expected 1 to {MOST_ROWS:,} rows, got {count:,}.\n"
            "Compare on a random sample: more rows show smaller differences than are worth a deployment."
        )
        raise InvalidInputError(message)
    columns = {
        "The champion's results": None if champion is None else champion.predictions,
        "label_column": rows.labels,
        "group_column": rows.groups,
        "time_column": rows.times,
        **{f"slice_columns {name!r}": values for name, values in rows.slices.items()},
    }
    for what, values in columns.items():
        if values is not None and len(values) != count:
            message = (
                f"{what}: expected {count} entries, one for each row, got {len(values)}.\n"
                "Both versions have to be compared on the same rows, in the same order."
            )
            raise InvalidInputError(message)


def _rows_to_compare(
    champion: Scored | None,
    challenger: Scored,
    rows: Rows,
    trained_until: tuple[datetime | None, datetime | None],
    warnings: list[str],
) -> tuple[Array, RowCounts]:
    """Return the numbers of the rows that can be compared, and why others cannot."""
    import numpy as np

    count = len(challenger.predictions)
    is_later = _later_rows(rows, count, trained_until, warnings, has_champion=champion is not None)
    is_labelled = np.ones(count, dtype=bool)
    if rows.labels is not None:
        is_labelled = np.fromiter((not _is_missing(one) for one in rows.labels), dtype=bool, count=count)
        if not is_labelled.any():
            message = "label_column: expected labels, but no row has one.\nLeave it out to compare without labels."
            raise InvalidInputError(message)
    is_answered = is_later & is_labelled
    after = _refused(challenger)
    before = np.zeros(count, dtype=bool) if champion is None else _refused(champion)
    counts = RowCounts(
        given=count,
        compared=int((is_answered & ~before & ~after).sum()),
        not_later=int((~is_later).sum()),
        unlabelled=int((is_later & ~is_labelled).sum()),
        refused_by_champion=int((is_answered & before & ~after).sum()),
        refused_by_challenger=int((is_answered & after & ~before).sum()),
        refused_by_both=int((is_answered & before & after).sum()),
    )
    if counts.unlabelled:
        warnings.append(f"{counts.unlabelled} rows have no label and are left out for both versions.")
    if refused := counts.refused_by_champion + counts.refused_by_challenger + counts.refused_by_both:
        warnings.append(
            f"{refused} rows were refused by a version{_first_refused(champion, challenger)} and are left out for "
            "both. The stored answers have the reasons."
        )
    return np.flatnonzero(is_answered & ~before & ~after), counts


def _first_refused(champion: Scored | None, challenger: Scored) -> str:
    """Return the first row that each version refused. A reason may show the row, so it stays in the stored answers."""
    named = {"champion": champion, "challenger": challenger}
    first = [f"row {min(one.refused)} by the {name}" for name, one in named.items() if one and one.refused]
    return f", such as {' and '.join(first)}," if first else ""


def _refused(scored: Scored) -> Array:
    import numpy as np

    refused = np.fromiter((_is_missing(one) for one in scored.predictions), dtype=bool, count=len(scored.predictions))
    for row in scored.refused:
        if 0 <= row < len(refused):
            refused[row] = True
    return refused


def _is_missing(value: Any) -> bool:
    """Whether a label or an answer is missing: None, or a number that is not finite."""
    if isinstance(value, list | tuple):
        return any(map(_is_missing, value))
    return value is None or (isinstance(value, float) and not -float("inf") < value < float("inf"))


def _later_rows(
    rows: Rows,
    count: int,
    trained_until: tuple[datetime | None, datetime | None],
    warnings: list[str],
    *,
    has_champion: bool,
) -> Array:
    """Return which rows are later than the training data of both versions, as far as that is known."""
    import numpy as np

    everything = np.ones(count, dtype=bool)
    if rows.times is None:
        warnings.append("No time_column is given, so it is unknown whether a version was trained on these rows.")
        return everything
    versions = {"challenger": trained_until[1]} | ({"champion": trained_until[0]} if has_champion else {})
    for name, until in versions.items():
        if until is None:
            warnings.append(
                f"The {name} has no trained_until, so it is unknown whether it was trained on these rows. "
                "RegisterModelOperator(trained_until=...) records it."
            )
    known = [_in_utc(until) for until in versions.values() if until is not None]
    moments = [_moment(row, one) for row, one in enumerate(rows.times)]
    if not known:
        return everything
    is_later = np.fromiter((one > max(known) for one in moments), dtype=bool, count=count)
    if not is_later.all():
        warnings.append(
            f"{int((~is_later).sum())} rows are not later than {max(known).isoformat()}, until when a version was "
            "trained, and are left out."
        )
    return is_later


def _moment(row: int, value: Any) -> datetime:
    try:
        if isinstance(value, datetime):
            return _in_utc(value)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, str):
            return _in_utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        pass
    message = (
        f"time_column: expected datetimes or ISO 8601 text, got {arguments.shown(value)} (row {row}, the first is row "
        "0).\nConvert the column."
    )
    raise InvalidInputError(message)


def _in_utc(moment: datetime) -> datetime:
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)


def _answers(scored: list[Scored], rows: Rows, kept: Array) -> Answers:
    numbers = kept.tolist()
    labels = None
    if rows.labels is not None:
        given = rows.labels.tolist() if hasattr(rows.labels, "tolist") else list(rows.labels)
        labels = [given[row] for row in numbers]
    predictions = [unwrapped(one.predictions) for one in scored]
    return Answers(
        labels,
        tuple([found[row] for row in numbers] for found in predictions),
        tuple(str(one.version) for one in scored),
    )


def _units(rows: Rows, kept: Array) -> Units:
    if rows.groups is None:
        return Units(len(kept), None)
    import numpy as np

    of_value: dict[Any, int] = {}
    numbers = [of_value.setdefault(_key("group_column", row, rows.groups[row]), len(of_value)) for row in kept.tolist()]
    return Units(len(of_value), np.asarray(numbers))


def _key(what: str, row: int, value: Any) -> Any:
    if value is None or not isinstance(value, str | int | float | date):
        message = (
            f"{what}: expected a text, number or date in each row, got {arguments.shown(value)} (row {row}, the first "
            "is row 0).\nFill the column, or leave it out."
        )
        raise InvalidInputError(message)
    return value


def _slices(rows: Rows, kept: Array, warnings: list[str]) -> list[_Slice]:
    """Return the slices with enough rows; of a column with very many values the largest."""
    import numpy as np

    found: list[_Slice] = []
    for column, values in rows.slices.items():
        members: dict[str, list[int]] = {}
        for place, row in enumerate(kept.tolist()):
            members.setdefault(description.as_text(values[row]), []).append(place)
        large = [(value, places) for value, places in members.items() if len(places) >= SLICE_ROWS]
        large.sort(key=lambda one: (-len(one[1]), one[0]))
        if left_out := len(members) - len(large[:_MOST_OF_A_COLUMN]):
            warnings.append(
                f"Slices of {description.short(column)!r}: {left_out} of {len(members)} values are not tested, since "
                f"they have under {SLICE_ROWS} rows, or {_MOST_OF_A_COLUMN} values have more."
            )
        found += [
            _Slice(description.short(column), description.short(value), Block(np.asarray(places)))
            for value, places in large[:_MOST_OF_A_COLUMN]
        ]
    if len(found) > MOST_SLICES:
        found.sort(key=lambda one: -len(one.block.rows))
        warnings.append(f"{len(found) - MOST_SLICES} further slices are not tested: at most {MOST_SLICES} are.")
    return found[:MOST_SLICES]
