"""The metrics that a comparison measures: their names, directions, and the answers that they need. No library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from . import arguments
from .dotted_path import is_dotted_path
from .model_version import Direction

MOST_METRICS = 20


class Needs(StrEnum):
    """The answers of a model that a metric can be computed from."""

    CLASSES = "classes"
    PROBABILITIES = "probabilities"
    NUMBERS = "numbers"
    ANY = "any"
    """A function of the user's own gets labels and predictions as they are."""


_BUILT_IN = {
    "accuracy": (Direction.MAX, Needs.CLASSES),
    "precision": (Direction.MAX, Needs.CLASSES),
    "recall": (Direction.MAX, Needs.CLASSES),
    "f1": (Direction.MAX, Needs.CLASSES),
    "log_loss": (Direction.MIN, Needs.PROBABILITIES),
    "roc_auc": (Direction.MAX, Needs.PROBABILITIES),
    "mae": (Direction.MIN, Needs.NUMBERS),
    "rmse": (Direction.MIN, Needs.NUMBERS),
    "mape": (Direction.MIN, Needs.NUMBERS),
    "r2": (Direction.MAX, Needs.NUMBERS),
}
PER_CLASS = ("precision", "recall", "f1")
"""The metrics that exist for each class. Without a class, they are the mean of the classes."""
_EXPECTED = (
    f"one of {', '.join(_BUILT_IN)}, one of {', '.join(PER_CLASS)} of one class as in 'recall:fraud', or the dotted "
    "path of a function with its direction"
)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric of a comparison."""

    name: str
    """As the user wrote it: the key in the record."""
    direction: Direction
    needs: Needs
    base: str
    """The name without the class; for a function, its dotted path."""
    of_class: str | None = None
    """The class that ``precision``, ``recall`` or ``f1`` is measured for, as text."""

    @property
    def sign(self) -> int:
        """1 if more is better, else -1."""
        return 1 if self.direction is Direction.MAX else -1


def read_metrics(what: str, value: object) -> tuple[MetricSpec, ...]:
    """
    Read a list of metrics. Nothing is imported, so that a DAG file can be checked with it.

    :param what: the argument's name, for messages
    :param value: names, or mappings with the keys ``metric`` and ``direction``; a dotted path needs its direction
    :raises InvalidInputError: a name is unknown or given twice, or a direction is missing or wrong
    """
    specs = [_read_metric(f"{what}[{at}]", item) for at, item in enumerate(arguments.sequence(what, value))]
    if not 1 <= len(specs) <= MOST_METRICS:
        arguments.refuse(what, f"1 to {MOST_METRICS} metrics", f"{len(specs)} metrics")
    for at, spec in enumerate(specs):
        if spec.name in [earlier.name for earlier in specs[:at]]:
            arguments.refuse(f"{what}[{at}]", "each metric once", spec.name)
    return tuple(specs)


def _read_metric(what: str, value: object) -> MetricSpec:
    given: str | None = None
    if isinstance(value, Mapping):
        arguments.mapping(what, value, ("metric", "direction"))
        name = arguments.text(f"{what}.metric", value.get("metric"))
        if value.get("direction") is not None:
            given = arguments.choice(f"{what}.direction", value["direction"], [one.value for one in Direction])
    else:
        name = arguments.text(what, value)
    base, colon, of_class = name.partition(":")
    if base in _BUILT_IN and (not colon or (base in PER_CLASS and of_class)):
        direction, needs = _BUILT_IN[base]
        if given is not None and given != direction:
            arguments.refuse(f"{what}.direction", f"{direction.value!r}, which is the direction of {base}", given)
        return MetricSpec(name, direction, needs, base, of_class or None)
    if not is_dotted_path(name):
        arguments.refuse(what, _EXPECTED, name)
    if given is None:
        message = (
            f"{what}: expected the direction of {name!r} as well.\n"
            f'Write {{"metric": "{name}", "direction": "max"}}, or "min" if less is better.'
        )
        raise InvalidInputError(message)
    return MetricSpec(name, Direction(given), Needs.ANY, name)
