"""Labels and predictions as arrays: which kind of answers a model gives, and whether they fit a metric."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_hsml.hopsworks.domain.arguments import shown
from airflow_provider_hsml.hopsworks.domain.comparison_metrics import Needs
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST_CLASSES = 1000
_MOST_INTEGER_CLASSES = 20
"""Whole numbers of more distinct values than this are numbers, where there are no labels that say more."""
_SUM_TOLERANCE = 1e-3
_MAX_FLOAT = sys.float_info.max


@dataclass(frozen=True)
class Answers:
    """
    The labels of some rows and the predictions of both versions for them, none of which is missing.

    Each form that a metric needs is made once, on first use.
    """

    labels: Sequence[Any] | None
    predictions: tuple[Sequence[Any], ...]
    """Of the champion, if there is one, and the challenger, which is the last."""
    names: tuple[str, ...]
    """The names of the versions, for messages."""

    @functools.cached_property
    def classes(self) -> list[Any]:
        """
        The classes of the labels, in ascending order.

        :raises InvalidInputError: labels are no classes
        """
        return _distinct_classes("label_column", self._labels)

    @functools.cached_property
    def true_codes(self) -> Array:
        """The position in ``classes`` of each label."""
        return _codes(self.classes, self._labels)

    @property
    def rarer_class(self) -> int:
        """The rows of the class that the fewest labels have; 0 where all labels are the same."""
        counts = Counter(self._labels).values()
        return min(counts) if len(counts) > 1 else 0

    @property
    def has_classes(self) -> bool:
        """
        Whether the labels look like classes: few distinct whole numbers, or booleans or texts that occur again.

        More than two are none if a version predicts a number that is neither whole nor a probability.
        """
        if not self._has_hashable_labels:
            return False
        distinct = set(self._labels)
        if len(distinct) > 2 and any(_is_measure(one) for found in self.predictions for one in found):
            return False
        if all(isinstance(one, str | bool) for one in distinct):
            return 2 * len(distinct) <= len(self._labels)
        return len(distinct) <= _MOST_INTEGER_CLASSES and all(
            isinstance(one, int) or (isinstance(one, float) and one.is_integer()) for one in distinct
        )

    @functools.cached_property
    def all_classes(self) -> list[Any]:
        """The classes of the labels, and after them those that a model predicts and no label has."""
        known = dict.fromkeys(self.classes)
        for predicted in self.predicted_classes:
            known.update(dict.fromkeys(predicted))
        return list(known)

    @functools.cached_property
    def predicted_codes(self) -> list[Array]:
        """The position in ``all_classes`` of each version's predictions."""
        return [_codes(self.all_classes, predicted) for predicted in self.predicted_classes]

    @functools.cached_property
    def predicted_classes(self) -> list[list[Any]]:
        """
        The class that each version predicts for each row; of probabilities the most probable.

        :raises InvalidInputError: a model's answers are no classes of the labels' type
        """
        return [self._as_classes(name, found) for name, found in zip(self.names, self.predictions, strict=True)]

    @functools.cached_property
    def probabilities(self) -> list[Array]:
        """
        The probabilities that each version gives: a column for each class.

        :raises InvalidInputError: a model gives classes, or numbers that are no probabilities
        """
        scores = self.scores
        for name, found in zip(self.names, scores, strict=True):
            if (found < 0).any() or (found > 1).any() or (abs(found.sum(axis=1) - 1) > _SUM_TOLERANCE).any():
                self._refuse_probabilities(name, "numbers that are no probabilities (0 to 1, of sum 1)")
        return [found / found.sum(axis=1, keepdims=True) for found in scores]

    @functools.cached_property
    def scores(self) -> list[Array]:
        """
        The scores of the classes by row, which are not necessarily probabilities.

        :raises InvalidInputError: a model gives classes
        """
        return [self._as_scores(name, found) for name, found in zip(self.names, self.predictions, strict=True)]

    @functools.cached_property
    def true_numbers(self) -> Array:
        """
        The labels as numbers.

        :raises InvalidInputError: a label is no number
        """
        return _numbers("label_column", self._labels, "Choose metrics of classes, such as accuracy.")

    @functools.cached_property
    def predicted_numbers(self) -> list[Array]:
        """
        Each version's predictions as numbers.

        :raises InvalidInputError: a prediction is no number
        """
        advice = "Choose metrics that fit the model's answers."
        return [
            _numbers(f"The answers of {name}", found, advice)
            for name, found in zip(self.names, self.predictions, strict=True)
        ]

    @functools.cached_property
    def kind(self) -> Needs:
        """The kind of the answers, as far as they tell: classes, probabilities of classes, or numbers."""
        kinds = {self._kind_of(found) for found in self.predictions}
        if len(kinds) != 1:
            return Needs.ANY
        return kinds.pop()

    @property
    def _labels(self) -> Sequence[Any]:
        if self.labels is None:  # Callers measure nothing without labels.
            raise AssertionError
        return self.labels

    def _kind_of(self, found: Sequence[Any]) -> Needs:
        if all(isinstance(one, list | tuple) for one in found):
            return Needs.PROBABILITIES if _width(found) is not None else Needs.ANY
        if all(isinstance(one, str | bool) for one in found):
            return Needs.CLASSES
        if not all(_is_number(one) for one in found):
            return Needs.ANY
        are_whole = all(isinstance(one, int) or one.is_integer() for one in found)
        known = set(self.labels or ()) if self._has_hashable_labels else set()
        is_label = bool(known) and len(known) <= MOST_CLASSES and set(found) <= known
        few = are_whole and len(set(found)) <= _MOST_INTEGER_CLASSES
        return Needs.CLASSES if are_whole and (is_label or few) else Needs.NUMBERS

    @functools.cached_property
    def _has_hashable_labels(self) -> bool:
        return self.labels is not None and all(_is_class(one) for one in self.labels)

    def _as_classes(self, name: str, found: Sequence[Any]) -> list[Any]:
        if found and isinstance(found[0], list | tuple):
            best = self._as_scores(name, found).argmax(axis=1)
            return [self.classes[code] for code in best.tolist()]
        expected = "text" if isinstance(self.classes[0], str) else "numbers"
        for row, one in enumerate(found):
            if not _is_class(one) or isinstance(one, str) != (expected == "text"):
                self._refuse_classes(name, f"{shown(one)} for a row", f"classes, which are {expected} in label_column")
            if isinstance(one, float) and not one.is_integer():
                self._refuse_classes(name, f"{shown(one)} for a row", "classes", f" (row {row} of those compared)")
        distinct = list(dict.fromkeys(found))
        if len(distinct) > MOST_CLASSES:
            self._refuse_classes(name, f"{len(distinct)} different answers", f"at most {MOST_CLASSES} classes")
        return list(found)

    def _as_scores(self, name: str, found: Sequence[Any]) -> Array:
        import numpy as np

        count = len(self.classes)
        if all(_is_number(one) for one in found):
            if set(found) <= set(self.classes):
                self._refuse_probabilities(name, "classes")
            if count > 2:
                self._refuse_probabilities(name, f"one number a row, and there are {count} classes")
            second = np.asarray(found, dtype=np.float64)
            return np.column_stack([1 - second, second])
        width = _width(found)
        if width is None:
            self._refuse_probabilities(name, "classes" if not isinstance(found[0], list | tuple) else "other lists")
        if width != count:
            self._refuse_probabilities(name, f"{width} numbers a row, and the labels have {count} classes")
        return np.asarray(found, dtype=np.float64)

    def _refuse_probabilities(self, name: str, got: str) -> NoReturn:
        message = (
            f"The answers of {name}: expected probabilities of the {len(self.classes)} classes {_some(self.classes)}, "
            f"got {got}.\nLet the model's predictor return probabilities, in the order of the sorted classes, or "
            "choose metrics that need none, such as accuracy."
        )
        raise InvalidInputError(message)

    def _refuse_classes(self, name: str, got: str, expected: str, where: str = "") -> NoReturn:
        message = (
            f"The answers of {name}: expected {expected}, got {got}{where}.\nThe labels are {_some(self.classes)}. "
            "Give labels of the type that the model answers with, or choose metrics that fit: log_loss and roc_auc for "
            "probabilities, mae and rmse for numbers."
        )
        raise InvalidInputError(message)


def unwrapped(predictions: Sequence[Any]) -> list[Any]:
    """
    Return predictions, with lists of a single item as that item: some model servers answer ``[[0.7], [0.2]]``.

    :param predictions: None for rows without an answer
    """
    found = predictions.tolist() if hasattr(predictions, "tolist") else list(predictions)
    answered = [one for one in found if one is not None]
    if answered and all(isinstance(one, list | tuple) and len(one) == 1 for one in answered):
        return [None if one is None else one[0] for one in found]
    return found


def _is_measure(predicted: Any) -> bool:
    return isinstance(predicted, float) and not predicted.is_integer() and not 0 <= predicted <= 1


def _distinct_classes(what: str, labels: Sequence[Any]) -> list[Any]:
    wrong = next(
        (one for one in labels if not _is_class(one) or (isinstance(one, float) and not one.is_integer())), None
    )
    if wrong is not None:
        message = (
            f"{what}: expected classes (text, whole numbers or booleans), got {shown(wrong)}.\n"
            "For numbers, choose metrics such as mae, rmse or r2."
        )
        raise InvalidInputError(message)
    found = list(dict.fromkeys(labels))
    are_text = [isinstance(one, str) for one in found]
    if any(are_text) and not all(are_text):
        message = f"{what}: expected classes of one type, got text and numbers: {_some(found)}."
        raise InvalidInputError(message)
    if len(found) > MOST_CLASSES:
        message = (
            f"{what}: expected at most {MOST_CLASSES} classes, got {len(found)} different labels.\n"
            "For numbers, choose metrics such as mae, rmse or r2."
        )
        raise InvalidInputError(message)
    return sorted(found)


def _codes(known: list[Any], values: Sequence[Any]) -> Array:
    """Return the position of each value."""
    import numpy as np

    positions = {one: code for code, one in enumerate(known)}
    return np.fromiter((positions[one] for one in values), dtype=np.int64, count=len(values))


def _numbers(what: str, values: Sequence[Any], advice: str) -> Array:
    import numpy as np

    wrong = next((one for one in values if not _is_number(one)), None)
    if wrong is not None:
        message = f"{what}: expected numbers, got {shown(wrong)}.\n{advice}"
        raise InvalidInputError(message)
    return np.asarray(values, dtype=np.float64)


def _width(found: Sequence[Any]) -> int | None:
    """Return the length of the lists of numbers; None if these are other values, or differ in length."""
    widths = {len(one) if isinstance(one, list | tuple) and all(map(_is_number, one)) else None for one in found}
    return widths.pop() if len(widths) == 1 else None


def _is_class(one: Any) -> bool:
    return isinstance(one, str | bool | int | float)


def _is_number(one: Any) -> bool:
    """Return whether a value is a number that float can hold; NaN and infinity are in no predictions."""
    is_known = isinstance(one, int | float) and not isinstance(one, bool)
    return is_known and (isinstance(one, float) or -_MAX_FLOAT <= one <= _MAX_FLOAT)


def _some(values: list[Any]) -> str:
    listed = ", ".join(shown(one) for one in values[:5])
    return listed if len(values) <= 5 else f"{listed}, ..."
