"""The fields of a gate that decides by comparisons: ``Gate.measured`` and those that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from . import arguments
from .comparison import Comparison
from .plain import from_text

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


def read_fields(
    confidence: object, require: object, margin: object, worst_slice: object, max_age: object
) -> Measurement:
    """
    Read the fields one by one, without those that one needs beside another.

    :raises InvalidInputError: a field is wrong; the message names it
    """
    arguments.choice("gate.require", require, (BETTER, NOT_WORSE))
    read = arguments.number("gate.confidence", confidence)
    if not 0.5 <= read < 1:
        arguments.refuse("gate.confidence", "a share of at least 0.5 and under 1, as in 0.95", confidence)
    return Measurement(
        confidence=read,
        margin=None if margin is None else arguments.number("gate.margin", margin, least=0),
        worst_slice=None if worst_slice is None else arguments.number("gate.worst_slice", worst_slice, least=0),
        max_age=None if max_age is None else arguments.seconds("gate.max_age", max_age),
    )


def read_measurement(
    measured: Any, *, confidence: object, require: object, margin: object, worst_slice: object, max_age: object
) -> Measurement | None:
    """
    Read ``Gate.measured`` with the fields that belong to it; None when nothing was measured and none of them is given.

    :param measured: one record of a comparison or several, also as JSON text
    :raises InvalidInputError: a field is wrong, or is missing, or needs ``measured``
    """
    fields = read_fields(confidence, require, margin, worst_slice, max_age)
    if measured is None:
        given = {
            "confidence": fields.confidence != CONFIDENCE,
            "require": require != BETTER,
            **{name: getattr(fields, name) is not None for name in ("margin", "worst_slice", "max_age")},
        }
        if names := [f"gate.{name}" for name, is_given in given.items() if is_given]:
            message = (
                f"{', '.join(names)}: expected gate.measured as well.\nGive it the result of CompareModelsOperator: "
                "the numbers in the registry say nothing about noise."
            )
            raise InvalidInputError(message)
        return None
    if require == NOT_WORSE and fields.margin is None:
        message = (
            "gate.margin: expected the loss that require='not_worse' accepts, got none.\nGive it in the metric's unit, "
            "or as a share of the champion's value with relative=True."
        )
        raise InvalidInputError(message)
    if require == BETTER and fields.margin is not None:
        message = (
            "gate.margin: it is the loss that require='not_worse' accepts, and require is 'better'.\nLeave it out, "
            "or set require='not_worse'; the least improvement is min_improvement."
        )
        raise InvalidInputError(message)
    return Measurement(
        _read_comparisons(measured), fields.confidence, fields.margin, fields.worst_slice, fields.max_age
    )


def _read_comparisons(measured: Any) -> tuple[Comparison, ...]:
    """Read one record or several; of each challenger, the newest comparison is kept."""
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
        if one.challenger not in newest or newest[one.challenger].at < one.at:
            newest[one.challenger] = one
    return tuple(newest.values())
