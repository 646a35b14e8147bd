"""
The metrics, by scikit-learn: of all rows, of a slice, and of many resamples at once.

scikit-learn computes every value; nothing is written anew. For resamples it is called with ``sample_weight``, as few
times as the metric allows:

- A metric that is a mean over rows is computed from scikit-learn's own loss of each row: a resample is then a weighted
  mean, which is a product of two matrices.
- Precision, recall and F1 depend on the counts of (label, prediction) alone. The counts of many resamples become one
  call: each resample gets classes of its own, and scikit-learn's values by class do not depend on other classes.
- ROC AUC, R² and functions of users are called once for each resample.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_hsml.hopsworks.domain.comparison_metrics import MetricSpec, Needs
from airflow_provider_hsml.hopsworks.domain.dotted_path import import_function
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from .answers import Answers
    from .resampling import Units

    Array = NDArray[Any]

_MOST_CELLS = 1_000_000
"""Counts that one call of scikit-learn gets."""
_ROW_MEANS = ("accuracy", "log_loss", "mae", "mape", "rmse")


@dataclass(frozen=True)
class Block:
    """Rows that metrics are computed of: all of them, or those of a slice."""

    rows: Array
    """Their numbers, ascending."""


class Measure(Protocol):
    """A metric of the answers of both versions."""

    @property
    def spec(self) -> MetricSpec:
        """The metric."""
        ...

    def value(self, which: int, block: Block) -> float:
        """
        Return the metric of one version as scikit-learn gives it; NaN where it does not exist.

        :param which: the position of the version in ``Answers.predictions``
        """
        ...

    def of_draws(self, blocks: Sequence[Block], units: Units) -> Callable[[Array], Array]:
        """
        Return a function of the weights of units, (resamples, units), that gives (versions, blocks, resamples).

        A value is NaN where the metric does not exist for a resample.
        """
        ...


def measure_of(spec: MetricSpec, answers: Answers) -> Measure:
    """
    Return the measure of a metric, after a check that the answers fit it.

    :raises InvalidInputError: they do not, or the function of a dotted path cannot be imported
    """
    if spec.needs is Needs.PROBABILITIES and len(answers.classes) < 2:
        return EachResample(spec, answers, lambda _which, _rows, _weights: float("nan"))
    if spec.base in _ROW_MEANS:
        return RowMean(spec, answers, _losses_of(spec, answers))
    if spec.base in ("precision", "recall", "f1"):
        return ByClass(spec, answers, _class_code(spec, answers))
    if spec.base == "roc_auc":
        return _roc_auc(spec, answers)
    if spec.base == "r2":
        return EachResample(spec, answers, _r2_of(answers))
    return EachResample(spec, answers, _function_of(spec, answers))


# ------------------------------------------------------------------------------------------------ means over the rows


@dataclass(frozen=True)
class RowMean:
    """A metric that is the mean of a loss or gain of each row, or the root of one."""

    spec: MetricSpec
    answers: Answers
    losses: list[Array]
    """Of each version, by row."""

    def value(self, which: int, block: Block) -> float:
        """Return the metric of one version, by scikit-learn."""
        from sklearn import metrics

        rows, answers = block.rows, self.answers
        if self.spec.base == "accuracy":
            return float(metrics.accuracy_score(answers.true_codes[rows], answers.predicted_codes[which][rows]))
        if self.spec.base == "log_loss":
            codes, found = answers.true_codes[rows], answers.probabilities[which][rows]
            return float(metrics.log_loss(codes, found, labels=list(range(len(answers.classes)))))
        function = {
            "mae": metrics.mean_absolute_error,
            "mape": metrics.mean_absolute_percentage_error,
            "rmse": metrics.root_mean_squared_error,
        }[self.spec.base]
        return float(function(answers.true_numbers[rows], answers.predicted_numbers[which][rows]))

    def of_draws(self, blocks: Sequence[Block], units: Units) -> Callable[[Array], Array]:
        """Return the weighted means of many resamples at once."""
        import numpy as np
        from scipy import sparse

        versions, count = len(self.losses), len(self.losses[0])
        columns = []
        for block in blocks:
            for values in (*(losses[block.rows] for losses in self.losses), np.ones(len(block.rows))):
                where = (block.rows, np.zeros(len(block.rows), dtype=np.int64))
                columns.append(sparse.csr_matrix((values, where), shape=(count, 1)))
        totals = units.sums(sparse.hstack(columns).tocsr()).T.tocsr()

        def of(weights: Array) -> Array:
            summed = (totals @ weights.T).reshape(len(blocks), versions + 1, len(weights))
            weight = summed[:, -1]
            with np.errstate(invalid="ignore", divide="ignore"):
                means = np.where(weight > 0, summed[:, :-1].transpose(1, 0, 2) / weight, np.nan)
            return np.sqrt(means) if self.spec.base == "rmse" else means

        return of


def _losses_of(spec: MetricSpec, answers: Answers) -> list[Array]:
    """Return the loss or gain of each row and version. For errors of numbers, each row is an output of its own."""
    import numpy as np
    from sklearn import metrics

    if spec.base == "accuracy":
        return [(found == answers.true_codes).astype(np.float64) for found in answers.predicted_codes]
    if spec.base == "log_loss":
        rows = np.arange(len(answers.true_codes))
        # As scikit-learn: probabilities are kept away from 0 and 1.
        least = np.finfo(np.float64).eps
        chosen = [found[rows, answers.true_codes] for found in answers.probabilities]
        return [-np.log(np.clip(each, least, 1 - least)) for each in chosen]
    function = {
        "mae": metrics.mean_absolute_error,
        "mape": metrics.mean_absolute_percentage_error,
        "rmse": metrics.mean_squared_error,
    }[spec.base]
    truth = answers.true_numbers.reshape(1, -1)
    return [function(truth, found.reshape(1, -1), multioutput="raw_values") for found in answers.predicted_numbers]


# ---------------------------------------------------------------------------------------------- precision, recall, F1


@dataclass(frozen=True)
class ByClass:
    """Precision, recall or F1: of one class, or the mean of all classes that the labels of a block have."""

    spec: MetricSpec
    answers: Answers
    code: int | None
    """The class, as its position in ``Answers.all_classes``; None for the mean."""

    def value(self, which: int, block: Block) -> float:
        """Return the metric of one version, by scikit-learn. Without a prediction of a class, its precision is 0."""
        true, found = self.answers.true_codes[block.rows], self.answers.predicted_codes[which][block.rows]
        values, _ = self._by_class(true, found, None, self._classes_of(true))
        return float(values.mean()) if len(values) else float("nan")

    def of_draws(self, blocks: Sequence[Block], units: Units) -> Callable[[Array], Array]:
        """Return the values of many resamples, with one call of scikit-learn for each block and version."""
        import numpy as np

        versions = range(len(self.answers.predictions))
        prepared = [[self._cells(which, block, units) for block in blocks] for which in versions]

        def of(weights: Array) -> Array:
            return np.array([[self._of_cells(cells, weights) for cells in of_version] for of_version in prepared])

        return of

    def _classes_of(self, true: Array) -> Array:
        import numpy as np

        present = np.unique(true)
        return present if self.code is None else present[present == self.code]

    def _cells(self, which: int, block: Block, units: Units) -> tuple[Array, Array, Any, Array]:
        """Return the distinct pairs of label and prediction, and how often each unit has each."""
        import numpy as np
        from scipy import sparse

        true, found = self.answers.true_codes[block.rows], self.answers.predicted_codes[which][block.rows]
        size = len(self.answers.all_classes)
        pairs, of_row = np.unique(true * size + found, return_inverse=True)
        shape = (len(self.answers.true_codes), len(pairs))
        columns = sparse.csr_matrix((np.ones(len(of_row)), (block.rows, of_row.ravel())), shape=shape)
        return pairs // size, pairs % size, units.sums(columns).T.tocsr(), self._classes_of(true)

    def _of_cells(self, cells: tuple[Array, Array, Any, Array], weights: Array) -> Array:
        """Return the metric of each resample; NaN where a class has no row in it."""
        import numpy as np

        true, found, totals, classes = cells
        if not len(classes):
            return np.full(len(weights), np.nan)
        step = max(1, _MOST_CELLS // len(true))
        counts = (totals @ weights.T).T
        parts = [self._of_counts(true, found, counts[at : at + step], classes) for at in range(0, len(counts), step)]
        return np.concatenate(parts)

    def _of_counts(self, true: Array, found: Array, counts: Array, classes: Array) -> Array:
        import numpy as np

        offsets = np.arange(len(counts))[:, None] * len(self.answers.all_classes)
        values, support = self._by_class(
            (true + offsets).ravel(), (found + offsets).ravel(), counts.ravel(), (classes + offsets).ravel()
        )
        shape = (len(counts), len(classes))
        means = values.reshape(shape).mean(axis=1)
        return np.where((support.reshape(shape) > 0).all(axis=1), means, np.nan)

    def _by_class(self, true: Array, found: Array, counts: Array | None, classes: Array) -> tuple[Array, Array]:
        """Return the values and the weights of the classes, by scikit-learn."""
        from sklearn.metrics import precision_recall_fscore_support

        if not len(classes):
            return classes.astype(float), classes.astype(float)
        found_all = precision_recall_fscore_support(
            true, found, sample_weight=counts, labels=classes, average=None, zero_division=0
        )
        return found_all[("precision", "recall", "f1").index(self.spec.base)], found_all[3]


def _class_code(spec: MetricSpec, answers: Answers) -> int | None:
    if spec.of_class is None:
        answers.predicted_codes  # noqa: B018 - checks that the answers are classes
        return None
    answers.predicted_codes  # noqa: B018 - as above
    found = [code for code, one in enumerate(answers.classes) if _class_text(one) == spec.of_class]
    if not found:
        known = ", ".join(_class_text(one) for one in answers.classes[:10])
        message = f"metrics: {spec.name!r} names a class that no label has.\nClasses of the labels: {known}."
        raise InvalidInputError(message)
    return found[0]


def _class_text(value: Any) -> str:
    """Return a class as text: 1.0 and 1 are the same class."""
    if isinstance(value, bool):
        return str(value)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# ------------------------------------------------------------------------------------ one call for each resample


@dataclass(frozen=True)
class EachResample:
    """A metric that is computed anew for each resample."""

    spec: MetricSpec
    answers: Answers
    function: Callable[[int, Array, Array | None], float]
    """Gives the metric of a version for rows, which are weighted or not; NaN where it does not exist."""
    places: Sequence[Array] | None = None
    """The place of each row in the order in which the function is fast, by version; None for any order."""

    def value(self, which: int, block: Block) -> float:
        """Return the metric of one version."""
        return self.function(which, block.rows, None)

    def of_draws(self, blocks: Sequence[Block], units: Units) -> Callable[[Array], Array]:
        """Return the values of each resample. Rows that were not drawn are left out."""
        import numpy as np

        versions = range(len(self.answers.predictions))
        ordered = [[self._ordered(which, block.rows) for block in blocks] for which in versions]

        def of(weights: Array) -> Array:
            result = np.empty((len(versions), len(blocks), len(weights)))
            for at, one in enumerate(weights):
                by_row = units.of_rows(one)
                for which, of_version in enumerate(ordered):
                    for place, rows in enumerate(of_version):
                        own = by_row[rows]
                        drawn = own > 0
                        result[which, place, at] = self.function(which, rows[drawn], own[drawn])
            return result

        return of

    def _ordered(self, which: int, rows: Array) -> Array:
        return rows if self.places is None else rows[self.places[which][rows].argsort()]


def _roc_auc(spec: MetricSpec, answers: Answers) -> EachResample:
    """
    Return the area under the ROC curve; of more than two classes, the mean of each against the rest.

    Of two classes it is ``auc`` of ``roc_curve``, as in ``roc_auc_score``, which checks its input anew in each call.
    Rows are sorted by their score once, so that sorting them in each call takes no time.
    """
    import numpy as np
    from sklearn.metrics import auc, roc_auc_score, roc_curve

    count, codes = len(answers.classes), answers.true_codes

    def of_two(which: int, rows: Array, weights: Array | None) -> float:
        true = codes[rows]
        if not len(true) or true.min() == true.max():
            return float("nan")
        found = answers.scores[which][rows, 1]
        return float(auc(*roc_curve(true, found, sample_weight=weights, drop_intermediate=False)[:2]))

    def of_many(which: int, rows: Array, weights: Array | None) -> float:
        true = codes[rows]
        if len(np.unique(true)) < count:
            return float("nan")
        found = answers.probabilities[which][rows]
        return float(roc_auc_score(true, found, sample_weight=weights, multi_class="ovr", labels=list(range(count))))

    if count > 2:
        answers.probabilities  # noqa: B018 - checks that the answers are probabilities
        return EachResample(spec, answers, of_many)
    orders = [(-found[:, 1]).argsort(kind="stable") for found in answers.scores]
    return EachResample(spec, answers, of_two, [order.argsort(kind="stable") for order in orders])


def _r2_of(answers: Answers) -> Callable[[int, Array, Array | None], float]:
    from sklearn.metrics import r2_score

    true, found = answers.true_numbers, answers.predicted_numbers

    def of(which: int, rows: Array, weights: Array | None) -> float:
        own = true[rows]
        if not len(own) or own.min() == own.max():
            return float("nan")
        return float(r2_score(own, found[which][rows], sample_weight=weights))

    return of


def _function_of(spec: MetricSpec, answers: Answers) -> Callable[[int, Array, Array | None], float]:
    """Return a user's function as a metric. It gets weights if it can take them, else repeated rows."""
    import numpy as np

    function = import_function("metrics", "the dotted path of a function", spec.base)
    takes_weights = _takes_weights(function)
    labels = _objects(answers.labels or ())
    predictions = [_objects(found) for found in answers.predictions]

    def of(which: int, rows: Array, weights: Array | None) -> float:
        if not len(rows):  # A resample of groups may have no row of a slice.
            return float("nan")
        given: dict[str, Any] = {}
        if weights is not None and takes_weights:
            given["sample_weight"] = weights
        elif weights is not None:
            rows = np.repeat(rows, weights.astype(np.int64))
        try:
            value = function(labels[rows].tolist(), predictions[which][rows].tolist(), **given)
            return float(value)
        except Exception as error:
            message = (
                f"metrics: {spec.base!r} failed for {len(rows)} rows: {type(error).__name__}: {error}.\n"
                "It is called with a list of labels and a list of predictions, and returns a number."
            )
            raise InvalidInputError(message) from error

    return of


def _takes_weights(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # A function of C without a signature.
        return False
    return "sample_weight" in parameters


def _objects(values: Sequence[Any]) -> Array:
    import numpy as np

    made = np.empty(len(values), dtype=object)
    for at, value in enumerate(values):
        made[at] = value
    return made
