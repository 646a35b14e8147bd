"""The fields of a gate that decides by comparisons: ``Gate.measured`` and those that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from . import arguments
from .arguments import Arguments
from .comparison import Comparison
from .plain import from_text

if TYPE_CHECKING:
    from datetime import timedelta

CONFIDENCE = 0.95
BETTER, NOT_WORSE = "better", "not_worse"


@dataclass(frozen=True, slots=True)
class Measurement:
    """Comparisons, and what they have to show. Numbers are absolute, or shares if the gate is relative."""

    comparisons: tuple[Comparison, ...] = ()
    confidence: float = CONFIDENCE
    margin: float | None = None
    """The loss that is accepted; None: the challenger has to be better."""
    worst_slice: float | None = None
    max_age: float | None = None
    """Seconds."""

    @property
    def level(self) -> float:
        """The chance of a wrong promotion that is accepted."""
        return 1 - self.confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredGate(Arguments):
    """The fields of ``Gate`` with which comparisons decide."""

    measured: Any = None
    """Results of ``CompareModelsOperator``, one or a list: these numbers decide, and not those in the registry."""
    confidence: float | str = CONFIDENCE
    """With ``measured``: the confidence with which the difference has to be shown; 0.95 by default."""
    require: str = BETTER
    """With ``measured``: ``better``, the default, or ``not_worse`` than the champion by more than ``margin``."""
    margin: float | str | None = None
    """The loss that ``not_worse`` accepts, in the metric's unit; with ``relative``, a share of the champion's absolute
    value."""
    worst_slice: float | str | None = None
    """With ``measured``: the loss that each slice may have, in the unit of ``margin``."""
    max_age: float | timedelta | str | None = None
    """With ``measured``: seconds, or a ``timedelta``, after which a comparison is too old."""

    def literal_measurement(self) -> Measurement:
        """
        Parse and check the fields one by one, without ``measured``, which comes from another task.

        :raises InvalidInputError: a field is wrong; the message names it
        """
        margin, slices, age = self.margin, self.worst_slice, self.max_age
        arguments.choice("gate.require", self.require, (BETTER, NOT_WORSE))
        confidence = arguments.number("gate.confidence", self.confidence)
        if not 0.5 <= confidence < 1:
            arguments.refuse("gate.confidence", "a share of at least 0.5 and under 1, as in 0.95", self.confidence)
        return Measurement(
            confidence=confidence,
            margin=None if margin is None else arguments.number("gate.margin", margin, least=0),
            worst_slice=None if slices is None else arguments.number("gate.worst_slice", slices, least=0),
            max_age=None if age is None else arguments.seconds("gate.max_age", age),
        )

    def measurement(self) -> Measurement | None:
        """
        Parse and check the fields; None when nothing was measured and none of the other fields is given.

        :raises InvalidInputError: a field is wrong, or is missing, or needs ``measured``
        """
        fields = self.literal_measurement()
        if self.measured is None:
            self._check_not_given(fields)
            return None
        if self.require == NOT_WORSE and fields.margin is None:
            message = (
                "gate.margin: expected the loss that require='not_worse' accepts, got none.\nGive it in the metric's "
                "unit, or as a share of the champion's value with relative=True."
            )
            raise InvalidInputError(message)
        if self.require == BETTER and fields.margin is not None:
            message = (
                "gate.margin: it is the loss that require='not_worse' accepts, and require is 'better'.\nLeave it out, "
                "or set require='not_worse'; the least improvement is min_improvement."
            )
            raise InvalidInputError(message)
        return replace(fields, comparisons=_read_comparisons(self.measured))

    def _check_not_given(self, fields: Measurement) -> None:
        given = {
            "confidence": fields.confidence != CONFIDENCE,
            "require": self.require != BETTER,
            **{name: getattr(fields, name) is not None for name in ("margin", "worst_slice", "max_age")},
        }
        if names := [f"gate.{name}" for name, is_given in given.items() if is_given]:
            message = (
                f"{', '.join(names)}: expected gate.measured as well.\nGive it the result of CompareModelsOperator: "
                "the numbers in the registry say nothing about noise."
            )
            raise InvalidInputError(message)


def _read_comparisons(measured: Any) -> tuple[Comparison, ...]:
    """Read one record or several; of each challenger and deployment, the newest comparison is kept."""
    what = "gate.measured"
    given = from_text(what, measured, "the result of CompareModelsOperator")
    records = [given] if isinstance(given, Mapping) else arguments.sequence(what, given)
    if not records or (isinstance(given, Mapping) and not given):
        message = (
            f"{what}: expected the result of CompareModelsOperator, got none.\nCheck why it is empty: a task may have "
            "been skipped or may have failed."
        )
        raise InvalidInputError(message)
    newest: dict[Any, Comparison] = {}
    for at, record in enumerate(records):
        one = Comparison.read(record, what if isinstance(given, Mapping) else f"{what}[{at}]")
        key = one.challenger.key, one.deployment_name
        if key not in newest or newest[key].at < one.at:
            newest[key] = one
    return tuple(newest.values())
