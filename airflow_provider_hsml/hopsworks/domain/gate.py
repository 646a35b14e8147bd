"""
The gate: a pure function that decides whether a challenger replaces the champion, and gives the reason.

The champion is the version being served. The challenger is the best *admissible* candidate by the metric. ``decide``
leaves candidates out one by one, each with its reason, and compares the best of the rest with the champion. The table
of all cases is in ``docs/promotion.md``. It compares the numbers in the registry; ``measured_gate`` compares what was
measured on the same rows.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NotFoundError

from . import arguments
from .candidate_table import CHOSEN, SERVED, Candidate
from .measurement import MeasuredGate, Measurement
from .model_version import Direction, ModelVersion, best_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

_MISSING = ("fail", "challenger", "champion")
OUTDATED = "it was trained on older data than the served one"
_ROUNDING = 1e-9
"""Relative tolerance: 0.81 - 0.80 is a little more than 0.01, and 0.57 - 0.56 a little less; both count as equal."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A metric that must not get worse by more than ``max_loss`` (absolute), whatever the main metric says."""

    direction: Direction
    max_loss: float


@dataclass(frozen=True, slots=True)
class Gate(MeasuredGate):
    """
    The conditions under which a challenger replaces the champion. By default, any improvement is enough.

    A mapping with the same keys works as well. Use one where Airflow maps or templates the argument.
    """

    min_improvement: float | str = 0
    """The least improvement of the metric over the champion's; a tie is never enough."""
    relative: bool | str = False
    """Whether ``min_improvement`` is a share of the champion's absolute value: 0.01 is one percent."""
    floor: float | str | None = None
    """The least value of the metric that is admissible; for the direction ``min``, the greatest."""
    guards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Other metrics that must not get worse: ``{"recall": {"direction": "max", "max_loss": 0.01}}``, absolute."""
    missing: str = "fail"
    """The result when the champion lacks a metric: ``fail``, or the winner, ``challenger`` or ``champion``."""
    allow_downgrade: bool | str = False
    """Whether a version older than the champion may replace it."""
    retry_rejected: bool | str = False
    """Whether a version that was deployed before and failed may be retried."""

    def rules(self) -> Rules:
        """
        Parse and check the fields.

        :raises InvalidInputError: a field is wrong, or one is missing that another needs; the message names it
        """
        rules = self.literal_rules()
        measurement = self.measurement()
        if measurement is not None and measurement.margin is not None and rules.min_improvement:
            arguments.refuse(
                "gate.min_improvement",
                "none with require='not_worse', which needs no improvement",
                self.min_improvement,
            )
        return dataclasses.replace(rules, measurement=measurement)

    def literal_rules(self) -> Rules:
        """
        Parse and check the fields one by one, without ``measured``, which comes from another task.

        :raises InvalidInputError: a field is wrong; the message names it
        """
        self.literal_measurement()
        guards = {}
        for metric, given in arguments.mapping("gate.guards", self.guards).items():
            what = f"gate.guards[{metric!r}]"
            guard = arguments.mapping(what, given, ("direction", "max_loss"))
            if missing := {"direction", "max_loss"} - set(guard):
                arguments.refuse(what, f"a mapping with {' and '.join(sorted(missing))} as well", given)
            direction = arguments.choice(f"{what}.direction", guard["direction"], [one.value for one in Direction])
            guards[metric] = Guard(
                Direction(direction), arguments.number(f"{what}.max_loss", guard["max_loss"], least=0)
            )
        return Rules(
            min_improvement=arguments.number("gate.min_improvement", self.min_improvement, least=0),
            is_relative=arguments.boolean("gate.relative", self.relative),
            floor=None if self.floor is None else arguments.number("gate.floor", self.floor),
            guards=guards,
            missing=arguments.choice("gate.missing", self.missing, _MISSING),
            allow_downgrade=arguments.boolean("gate.allow_downgrade", self.allow_downgrade),
            retry_rejected=arguments.boolean("gate.retry_rejected", self.retry_rejected),
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """A ``Gate`` that has been read. The default is the default gate."""

    min_improvement: float = 0
    is_relative: bool = False
    floor: float | None = None
    guards: Mapping[str, Guard] = field(default_factory=dict)
    missing: str = "fail"
    allow_downgrade: bool = False
    retry_rejected: bool = False
    measurement: Measurement | None = None
    """The comparisons to decide by; None: the numbers in the registry decide."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The metric that versions are compared by, and the candidates."""

    name: str
    direction: Direction
    candidates: Sequence[int] | None = None
    """Numbers of versions; None for all."""

    @property
    def limit(self) -> str:
        """Where a value is that ``Gate.floor`` of this metric refuses, in messages."""
        return "below the floor" if self.direction is Direction.MAX else "above the ceiling"

    def is_better(self, value: float, mark: float) -> bool:
        """Return whether a value is better than another."""
        return value > mark if self.direction is Direction.MAX else value < mark


@dataclass(frozen=True, slots=True)
class Decision:
    """The version to serve, and the reason."""

    chosen: ModelVersion | None
    """None if there is no champion and no candidate is good enough to be the first."""
    reason: str
    """One sentence, without its full stop."""
    is_kept: bool = False
    """Whether nothing changes because no candidate replaces the champion."""
    measured: Mapping[str, Any] | None = None
    """What was measured of the candidate that decided, empty if none was usable; None: the registry's numbers did."""
    candidates: Sequence[Candidate] = field(default=(), compare=False)
    """All candidates with what became of them, for the task's log; empty if none were compared."""


def decide(
    versions: Sequence[ModelVersion],
    champion: ModelVersion | None,
    by: Metric,
    rules: Rules,
    rejected: Mapping[int, str] | None = None,
    *,
    outdated: Collection[int] = (),
) -> Decision:
    """
    Decide which version to serve.

    :param versions: all versions of the model; at least one
    :param champion: the version being served; None at a first deployment, where only the floor counts
    :param rejected: versions that were deployed before and failed, with the reason
    :param outdated: versions that were trained on older data than the champion
    :raises NotFoundError: a candidate does not exist
    :raises InvalidInputError: no candidate has the metric; or the champion lacks one, and ``missing`` is ``fail``
    """
    rows = candidates_of(versions, by.candidates)
    best = best_candidate(rows, by)
    failed = {} if rules.retry_rejected or rejected is None else rejected
    left_out = {row.version: why for row in rows if (why := _why_not(row, champion, by, rules, failed))}
    left_out |= dict.fromkeys(outdated, OUTDATED)
    challenger = best_of([row for row in rows if row.version not in left_out], by.name, by.direction)
    if challenger is None:
        decision = _none_admissible(best, champion, by, left_out)
    elif champion is None:
        of = f"{len(rows)}" if not left_out else f"{len(rows) - len(left_out)} admissible"
        shown = f"version {challenger.version} ({by.name} {challenger.metric(by.name):g})"
        decision = Decision(challenger, f"{shown} is the best of {of}, and none is served yet")
    elif champion.metric(by.name) is None:
        decision = _unmarked(challenger, champion, by, rules)
    else:
        decision = _compare(challenger, champion, by, rules)
        if best.version in failed and best.version in left_out and best.version != champion.version:
            # Users see the better metric in the registry: a reason that omits it would look like an error.
            out = f"version {best.version} ({by.name} {best.metric(by.name):g}) is left out: {left_out[best.version]}"
            decision = dataclasses.replace(decision, reason=f"{decision.reason}; {out}")
    verdicts = left_out if challenger is None else {challenger.version: decision.reason} | left_out
    names = (by.name, *(name for name in rules.guards if name != by.name))
    return with_candidates(
        decision,
        rows,
        champion,
        by,
        verdicts=verdicts,
        numbers=lambda row: {name: row.metric(name) for name in names},
    )


def with_candidates(
    decision: Decision,
    rows: Sequence[ModelVersion],
    champion: ModelVersion | None,
    by: Metric,
    *,
    verdicts: Mapping[int, str],
    numbers: Callable[[ModelVersion], Mapping[str, float | None]],
) -> Decision:
    """
    Return a decision with its candidates for the task's log, the best first, and the champion among them.

    :param rows: the candidates
    :param verdicts: why versions were not chosen; the others are not the best of those that could be
    :param numbers: returns the numbers of a version that decide, the main metric first
    """

    def is_champion(row: ModelVersion) -> bool:
        return champion is not None and (row.path, row.version) == (champion.path, champion.version)

    def rank(row: ModelVersion) -> tuple[bool, float, int]:
        value = next(iter(numbers(row).values()))
        better = 0.0 if value is None else -value if by.direction is Direction.MAX else value
        return value is None, better, -row.version

    def verdict(row: ModelVersion) -> str:
        if is_champion(row):
            return SERVED
        is_chosen = decision.chosen is not None and not decision.is_kept and decision.chosen.version == row.version
        return CHOSEN if is_chosen else verdicts.get(row.version, "another candidate is better")

    shown = list(rows) if champion is None or any(map(is_champion, rows)) else [*rows, champion]
    listed = [
        Candidate(
            str(row.version) if row.name == rows[0].name else f"{row.name} {row.version}", numbers(row), verdict(row)
        )
        for row in sorted(shown, key=rank)
    ]
    return dataclasses.replace(decision, candidates=tuple(listed))


def best_candidate(rows: Sequence[ModelVersion], by: Metric) -> ModelVersion:
    """
    Return the best of some versions, whichever version is served.

    :param rows: at least one
    :param by: the metric; its candidates are ignored
    :raises InvalidInputError: no version has the metric
    """
    best = best_of(rows, by.name, by.direction)
    if best is None:
        known = sorted({name for row in rows for name in row.metrics if row.metric(name) is not None})
        message = (
            f"No candidate version of model {rows[0].name!r} has a finite metric {by.name!r}; metrics there: "
            f"{', '.join(known) or 'none'}."
        )
        raise InvalidInputError(message)
    return best


def _unmarked(challenger: ModelVersion, champion: ModelVersion, by: Metric, rules: Rules) -> Decision:
    """Decide when the champion lacks the metric."""
    lacks = f"the served version {champion.version} of model {champion.name!r} has no finite metric {by.name!r}"
    if rules.missing == "challenger":
        return Decision(challenger, f"{lacks}, and then the gate prefers the challenger, version {challenger.version}")
    if rules.missing == "champion":
        return Decision(champion, f"{lacks}, and then the gate keeps it", is_kept=True)
    message = (
        f"{lacks[0].upper()}{lacks[1:]}, so no candidate can be compared with it.\nCompare by a metric that it has, "
        "choose the winner with gate.missing, or deploy a version by number with DeployModelOperator."
    )
    raise InvalidInputError(message)


def _why_not(
    row: ModelVersion, champion: ModelVersion | None, by: Metric, rules: Rules, failed: Mapping[int, str]
) -> str | None:
    """Return why a candidate is not admissible; None when it is."""
    value = row.metric(by.name)
    if value is None:
        return f"it has no finite metric {by.name!r}"
    if rules.floor is not None and by.is_better(rules.floor, value):
        return f"its {by.name} {value:g} is {by.limit} of {rules.floor:g}"
    if champion is not None and (why := not_newer(row, champion, rules) or _guarded(row, champion, rules)):
        return why
    if row.version in failed:
        return was_rejected(failed[row.version])
    return None


def was_rejected(reason: str) -> str:
    """
    Return why a candidate that was rejected is left out.

    :param reason: of its rejection
    """
    return f"it was rejected before, and gate.retry_rejected is off ({reason})"


def not_newer(row: ModelVersion, champion: ModelVersion, rules: Rules) -> str | None:
    """Return why a candidate may not replace this champion by its number; None when it may."""
    if row.path == champion.path and row.version == champion.version:
        return "it is the served one"
    if row.path == champion.path and row.version < champion.version and not rules.allow_downgrade:
        return "it is older than the served one, and gate.allow_downgrade is off"
    return None


def _guarded(row: ModelVersion, champion: ModelVersion, rules: Rules) -> str | None:
    """Return the first guard that a candidate violates; None when there is none."""
    for metric, guard in rules.guards.items():
        value, mark = row.metric(metric), champion.metric(metric)
        if value is None:
            return f"it has no finite metric {metric!r}, which is guarded"
        if mark is None and rules.missing == "fail":
            message = (
                f"The served version {champion.version} of model {champion.name!r} has no finite metric {metric!r}, "
                "which the gate guards.\nRemove it from gate.guards, or choose the winner with gate.missing."
            )
            raise InvalidInputError(message)
        if mark is None:
            if rules.missing == "champion":
                return f"the served version has no finite metric {metric!r}, which is guarded"
            continue
        loss = mark - value if guard.direction is Direction.MAX else value - mark
        if loss > guard.max_loss and not math.isclose(loss, guard.max_loss, rel_tol=_ROUNDING):
            return f"its {metric} {value:g} is worse than the served {mark:g} by more than {guard.max_loss:g}"
    return None


def _none_admissible(
    best: ModelVersion, champion: ModelVersion | None, by: Metric, left_out: Mapping[int, str]
) -> Decision:
    """Decide when no candidate is admissible; the reason names the best one left out."""
    out = f"the best one, version {best.version} ({by.name} {best.metric(by.name):g}), is left out: "
    if champion is None:
        return Decision(None, f"none is served yet, and {out}{left_out[best.version]}", is_kept=True)
    mark = champion.metric(by.name)
    served = f"the served version {champion.version}" + ("" if mark is None else f" ({by.name} {mark:g})")
    if (best.path, best.version) == (champion.path, champion.version):
        return Decision(champion, f"{served} is the best already", is_kept=True)
    return Decision(champion, f"{served} is kept; {out}{left_out[best.version]}", is_kept=True)


def _compare(challenger: ModelVersion, champion: ModelVersion, by: Metric, rules: Rules) -> Decision:
    """Decide between two versions that both have the metric."""
    value, mark = challenger.metric(by.name), champion.metric(by.name)
    if value is None or mark is None:  # Callers have checked both.
        raise AssertionError
    needed = rules.min_improvement * abs(mark) if rules.is_relative else rules.min_improvement
    gain = value - mark if by.direction is Direction.MAX else mark - value
    shown = f"version {challenger.version} ({by.name} {value:g})"
    served = f"the served version {champion.version} ({by.name} {mark:g})"
    if gain > 0 and (gain >= needed or math.isclose(gain, needed, rel_tol=_ROUNDING)):
        return Decision(challenger, f"{shown} beats {served}")
    if gain > 0:
        return Decision(
            champion, f"{shown} beats {served} by less than the {needed:g} that the gate asks for", is_kept=True
        )
    word = "equals" if gain == 0 else "does not beat"
    return Decision(champion, f"{shown} {word} {served}, which is kept", is_kept=True)


def candidates_of(versions: Sequence[ModelVersion], numbers: Sequence[int] | None) -> list[ModelVersion]:
    """
    Return the candidates.

    :param versions: all versions of the model
    :param numbers: the numbers of the candidates; None for all versions
    :raises NotFoundError: a candidate does not exist
    :raises InvalidInputError: there are no numbers
    """
    known = {model.version: model for model in versions}
    if numbers is None:
        return list(versions)
    if not numbers:
        message = (
            "candidates: expected at least one version.\nAn empty list often means that no training task before this "
            "one succeeded."
        )
        raise InvalidInputError(message)
    if missing := sorted(set(numbers) - set(known)):
        message = f"candidates: versions {missing} are not in the registry; those there: {sorted(known)}."
        raise NotFoundError(message)
    return [known[number] for number in dict.fromkeys(numbers)]
