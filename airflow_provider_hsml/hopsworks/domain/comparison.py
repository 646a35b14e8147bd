"""
The comparison of two versions on the same rows: the record in XCom and in ``comparison.json``, as the gate reads it.

``hopsworks.compare`` makes it with numpy and scikit-learn; this module needs neither. A difference is positive when the
challenger is better, whichever direction the metric has. ``docs/guides/compare.md`` explains each number.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.untrusted_text import beginning

from . import arguments
from .journal_entry import ServedVersion
from .model_version import Direction

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
_WHAT = "the result of CompareModelsOperator, or of compare_models of the hook"
_LONGEST_TEXT = 200
_LONGEST_PLACE = 2000
_MOST_WARNINGS = 20
_ROUNDING = 1e-9
"""Relative tolerance of levels: 1 - 0.95 is a little more than 0.05."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    One-sided bounds of a difference, each with the chance that the bound is wrong.

    The confidence is the gate's, and it is higher where several challengers or slices are tested: so a comparison keeps
    the bounds of many levels. Where the resamples were too few for a level, its bound is None.
    """

    levels: tuple[float, ...] = ()
    """Ascending: 0.05 is the level of a bound with 95 % confidence."""
    lower: tuple[float | None, ...] = ()
    upper: tuple[float | None, ...] = ()

    def lower_at(self, level: float) -> float | None:
        """Return the lower bound of the next stricter level that is there; None if there is none."""
        return self._at(self.lower, level)

    def upper_at(self, level: float) -> float | None:
        """Return the upper bound of the next stricter level that is there; None if there is none."""
        return self._at(self.upper, level)

    def level_above(self, threshold: float) -> float:
        """Return the strictest level at which the lower bound is above a threshold; 1 if there is none."""
        found = (level for level, bound in zip(self.levels, self.lower, strict=True) if _is_above(bound, threshold))
        return min(found, default=1.0)

    def _at(self, bounds: tuple[float | None, ...], level: float) -> float | None:
        found = [
            bound
            for known, bound in zip(self.levels, bounds, strict=True)
            if known <= level * (1 + _ROUNDING) and bound is not None
        ]
        return found[-1] if found else None


def _is_above(bound: float | None, threshold: float) -> bool:
    return bound is not None and bound > threshold and not math.isclose(bound, threshold, rel_tol=_ROUNDING)


@dataclass(frozen=True, slots=True)
class SliceComparison:
    """A metric on the rows of one slice, such as ``country`` = ``"AT"``."""

    column: str
    value: str
    rows: int
    champion: float | None
    challenger: float | None
    difference: float | None
    """Positive when the challenger is better."""
    upper: tuple[float | None, ...] = ()
    """Upper bounds of the difference at ``Comparison.slice_levels``: the evidence of harm."""


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of both versions on the same rows."""

    direction: Direction
    challenger: float | None
    """None when the metric does not exist for these rows: R² of rows with one label."""
    champion: float | None = None
    difference: float | None = None
    """Positive when the challenger is better; None without a champion."""
    bounds: Bounds = Bounds()
    share_better: float | None = None
    """The share of resamples in which the challenger is better. This is no probability that it is."""
    smallest_detectable: float | None = None
    """The smallest true difference that such rows show in at least eight of ten nights."""
    degenerate: int = 0
    """Resamples for which the metric does not exist, for example since a class is missing in them."""
    slices: tuple[SliceComparison, ...] = ()
    """The slices with the strongest evidence of harm, at most 20."""
    slices_tested: int = 0


@dataclass(frozen=True, slots=True)
class RowCounts:
    """The rows of a comparison, and why some were left out. Every row is in exactly one of the counts but ``given``."""

    given: int
    compared: int
    not_later: int = 0
    """Rows not later than the training data of both versions."""
    unlabelled: int = 0
    refused_by_champion: int = 0
    """Rows that the champion alone refused."""
    refused_by_challenger: int = 0
    """Rows that the challenger alone refused."""
    refused_by_both: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two versions answered to the same rows. With ``to_json`` it is a small record of plain JSON values."""

    at: float
    """When it was made, in seconds since 1970."""
    champion: ServedVersion | None
    """The live version; None when there is none, and only the challenger was measured."""
    challenger: ServedVersion
    rows: RowCounts
    metrics: Mapping[str, MetricComparison] = field(default_factory=dict)
    """Empty when the rows have no labels, or none is left to compare."""
    resamples: int = 0
    seed: int = 0
    challengers: int = 1
    """How many challengers were measured for the same decision, for the correction by Holm."""
    groups: int | None = None
    """The number of groups that were resampled as a whole; None without a ``group_column``."""
    rarer_class: int | None = None
    """The rows of the class with the fewest rows; None when labels are no classes."""
    slice_levels: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    report: str | None = None
    """Where ``report.html`` is."""
    deployment_name: str | None = None
    """The deployment that it was made for; None where that is not recorded."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """For people: agreement, distributions, latency, confusion matrices, classes, rows that got worse."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        bounds = next((one.bounds for one in self.metrics.values() if one.bounds.levels), Bounds())
        return {
            "format": FORMAT,
            "at": self.at,
            "champion": None if self.champion is None else asdict(self.champion),
            "challenger": asdict(self.challenger),
            "rows": asdict(self.rows),
            "resamples": self.resamples,
            "seed": self.seed,
            "challengers": self.challengers,
            "groups": self.groups,
            "rarer_class": self.rarer_class,
            "levels": list(bounds.levels),
            "slice_levels": list(self.slice_levels),
            "metrics": {name: _metric_json(one) for name, one in self.metrics.items()},
            **self.details,
            "warnings": list(self.warnings),
            "report": self.report,
            "deployment_name": self.deployment_name,
        }

    @classmethod
    def read(cls, plain: object, what: str = "comparison") -> Self:
        """
        Read a record, or ``comparison.json``.

        :param plain: a mapping, or JSON text of one
        :param what: the argument's name, for messages
        :raises InvalidInputError: it is no such record; the message names the field
        """
        record = arguments.json_mapping(what, plain, _WHAT)
        if record.get("format") != FORMAT or isinstance(record["format"], bool):
            arguments.refuse(what, f'{_WHAT}, with "format" {FORMAT}', sorted(record)[:10])
        reader = _Reader(what, record)
        levels, slice_levels = reader.levels("levels"), reader.levels("slice_levels")
        counts = reader.below("rows")
        return cls(
            at=reader.number("at"),
            champion=None if record.get("champion") is None else reader.below("champion").version(),
            challenger=reader.below("challenger").version(),
            rows=RowCounts(**{name: counts.count(name) for name in RowCounts.__dataclass_fields__}),
            metrics={
                name: _read_metric(one, levels, slice_levels) for name, one in reader.below("metrics").each_below()
            },
            resamples=reader.count("resamples"),
            seed=reader.count("seed"),
            challengers=max(1, reader.count("challengers")),
            groups=None if record.get("groups") is None else reader.count("groups"),
            rarer_class=None if record.get("rarer_class") is None else reader.count("rarer_class"),
            slice_levels=slice_levels,
            warnings=tuple(beginning(str(one)) for one in reader.items("warnings")[:_MOST_WARNINGS]),
            report=None if record.get("report") is None else reader.text("report", _LONGEST_PLACE),
            deployment_name=None if record.get("deployment_name") is None else reader.text("deployment_name"),
            details={name: record[name] for name in DETAILS if name in record},
        )


DETAILS = ("agreement", "distributions", "latency_ms", "classes", "confusion", "worse")
"""The keys of a record that are for people only."""
_MEASURES = ("champion", "challenger", "difference")


def _metric_json(one: MetricComparison) -> dict[str, Any]:
    return {
        "direction": one.direction.value,
        **{name: getattr(one, name) for name in _MEASURES},
        "lower_bound": one.bounds.lower_at(0.05),
        "interval": [one.bounds.lower_at(0.025), one.bounds.upper_at(0.025)],
        "share_better": one.share_better,
        "smallest_detectable": one.smallest_detectable,
        "degenerate": one.degenerate,
        "lower": list(one.bounds.lower),
        "upper": list(one.bounds.upper),
        "slices_tested": one.slices_tested,
        "slices": [asdict(each) | {"upper": list(each.upper)} for each in one.slices],
    }


def _read_metric(reader: _Reader, levels: tuple[float, ...], slice_levels: tuple[float, ...]) -> MetricComparison:
    lower, upper = reader.numbers("lower"), reader.numbers("upper")
    if len(lower) != len(upper) or len(lower) not in (0, len(levels)):
        arguments.refuse(f"{reader.what}.lower", f"{len(levels)} bounds, as many as levels", len(lower))
    return MetricComparison(
        Direction(arguments.choice(f"{reader.what}.direction", reader.data.get("direction"), ["max", "min"])),
        **{name: reader.optional(name) for name in (*_MEASURES, "share_better", "smallest_detectable")},
        bounds=Bounds(levels, lower, upper) if lower else Bounds(),
        degenerate=reader.count("degenerate"),
        slices_tested=reader.count("slices_tested"),
        slices=tuple(_read_slice(one, slice_levels) for one in reader.items_below("slices")),
    )


def _read_slice(reader: _Reader, levels: tuple[float, ...]) -> SliceComparison:
    upper = reader.numbers("upper")
    if len(upper) not in (0, len(levels)):
        arguments.refuse(f"{reader.what}.upper", f"{len(levels)} bounds, as many as slice_levels", len(upper))
    return SliceComparison(
        reader.text("column"),
        reader.text("value"),
        reader.count("rows"),
        **{name: reader.optional(name) for name in _MEASURES},
        upper=upper,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the fields of a mapping from outside; an error names the field."""

    what: str
    data: Mapping[str, Any]

    def below(self, name: str) -> _Reader:
        where = f"{self.what}.{name}"
        return _Reader(where, arguments.mapping(where, self.data.get(name)))

    def each_below(self) -> list[tuple[str, _Reader]]:
        return [(name, self.below(name)) for name in self.data]

    def items(self, name: str) -> list[Any]:
        return list(arguments.sequence(f"{self.what}.{name}", self.data.get(name, [])))

    def items_below(self, name: str) -> list[_Reader]:
        where = f"{self.what}.{name}"
        return [
            _Reader(f"{where}[{at}]", arguments.mapping(f"{where}[{at}]", item))
            for at, item in enumerate(self.items(name))
        ]

    def number(self, name: str) -> float:
        return arguments.number(f"{self.what}.{name}", self.data.get(name))

    def optional(self, name: str) -> float | None:
        return None if self.data.get(name) is None else self.number(name)

    def count(self, name: str) -> int:
        return arguments.integer(f"{self.what}.{name}", self.data.get(name), least=0)

    def text(self, name: str, most: int = _LONGEST_TEXT) -> str:
        value = self.data.get(name)
        if not isinstance(value, str):
            arguments.refuse(f"{self.what}.{name}", "a text", value)
        return beginning(value, most)

    def numbers(self, name: str) -> tuple[float | None, ...]:
        where = f"{self.what}.{name}"
        return tuple(None if one is None else arguments.number(where, one) for one in self.items(name))

    def levels(self, name: str) -> tuple[float, ...]:
        found = [one for one in self.numbers(name) if one is not None]
        if found != sorted(found) or any(not 0 < one < 1 for one in found):
            arguments.refuse(f"{self.what}.{name}", "levels between 0 and 1, ascending", found)
        return tuple(found)

    def version(self) -> ServedVersion:
        version = arguments.integer(f"{self.what}.version", self.data.get("version"), least=1)
        return ServedVersion(self.text("project"), self.text("name"), version)


def check_not_the_same(champion: ServedVersion | None, challenger: ServedVersion) -> None:
    """
    Raise an error if a version is to be compared with itself.

    :raises InvalidInputError: champion and challenger are the same version
    """
    if challenger.is_same(champion):
        message = (
            f"challenger: {challenger} is the champion itself, so there is nothing to compare.\n"
            "Name another version, or skip the comparison when the newest version serves already."
        )
        raise InvalidInputError(message)
