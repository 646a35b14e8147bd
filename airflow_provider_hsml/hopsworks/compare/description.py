"""What a comparison shows to people beside the metrics: agreement, distributions, latency, and rows that got worse."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.comparison_metrics import Needs
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.untrusted_text import beginning

from .resampling import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .answers import Answers
    from .scored import Scored

    Array = NDArray[Any]

WARM_UP = 20
"""The first requests, which are left out of the latency: connections are opened and caches are filled."""
MOST_WORSE = 20
_MOST_SHOWN_CLASSES = 10
_MOST_VALUES = 20
_BINS = 20
_LONGEST_TEXT = 60
_SAME = 1e-6
"""Numbers that differ by less, relatively, are the same answer."""


def latency(scored: Scored) -> dict[str, Any] | None:
    """Return the percentiles of a version's requests in milliseconds, without the first ones; None without any."""
    import numpy as np

    milliseconds = np.asarray(scored.latencies[WARM_UP:], dtype=np.float64) * 1000
    if not len(milliseconds):
        return None
    percentiles = {f"p{one}": rounded(float(np.percentile(milliseconds, one))) for one in (50, 95, 99)}
    return {"requests": len(milliseconds), "mean": rounded(float(milliseconds.mean())), **percentiles}


def agreement(answers: Answers) -> dict[str, Any] | None:
    """Return how often both versions gave the same answer; None without a champion."""
    import numpy as np

    if len(answers.predictions) < 2:
        return None
    first, second = answers.predictions
    if not len(first):
        return {"rows": 0, "same": None}
    if answers.kind is Needs.NUMBERS:
        before, after = (np.asarray(one, dtype=np.float64) for one in (first, second))
        same = np.isclose(after, before, rtol=_SAME, atol=_SAME)
        apart: dict[str, Any] = {"mean_absolute_difference": rounded(float(np.abs(after - before).mean()))}
        if before.std() > 0 and after.std() > 0:
            apart["correlation"] = rounded(float(np.corrcoef(before, after)[0, 1]))
    elif answers.kind is Needs.PROBABILITIES:
        before, after = (np.asarray(one, dtype=np.float64) for one in (first, second))
        if before.shape != after.shape:
            return {"rows": len(first), "same": 0.0}
        same = before.argmax(axis=1) == after.argmax(axis=1)
        apart = {"mean_absolute_difference": rounded(float(np.abs(after - before).mean()))}
    else:
        same, apart = np.array([one == other for one, other in zip(first, second, strict=True)]), {}
    return {"rows": len(first), "same": rounded(float(same.mean())), **apart}


def distributions(answers: Answers) -> dict[str, Any]:
    """Return the answers of each version: how often each class, or a histogram of the numbers on common edges."""
    import numpy as np

    if not len(answers.predictions[-1]):
        return {}
    names = ("champion", "challenger")[-len(answers.predictions) :]
    if answers.kind is Needs.NUMBERS:
        columns = [np.asarray(one, dtype=np.float64) for one in answers.predictions]
        edges = np.histogram_bin_edges(np.concatenate(columns), bins=_BINS)
        return {
            "edges": [rounded(float(one)) for one in edges],
            **{name: _of_numbers(column, edges) for name, column in zip(names, columns, strict=True)},
        }
    if answers.kind is Needs.PROBABILITIES:
        chosen = [np.asarray(one, dtype=np.float64).argmax(axis=1).tolist() for one in answers.predictions]
        return {name: _of_classes(one) for name, one in zip(names, chosen, strict=True)}
    return {name: _of_classes(one) for name, one in zip(names, answers.predictions, strict=True)}


def _of_numbers(column: Array, edges: Array) -> dict[str, Any]:
    import numpy as np

    percentiles = {f"p{one}": rounded(float(np.percentile(column, one))) for one in (5, 50, 95)}
    extremes = {"min": rounded(float(column.min())), "max": rounded(float(column.max()))}
    spread = {"mean": rounded(float(column.mean())), "std": rounded(float(column.std()))}
    return {**spread, **extremes, **percentiles, "histogram": np.histogram(column, edges)[0].tolist()}


def _of_classes(found: Sequence[Any]) -> dict[str, Any]:
    listed = sorted(Counter(map(as_text, found)).items(), key=lambda pair: (-pair[1], pair[0]))
    counts: dict[str, int] = {}
    for one, count in listed[:_MOST_VALUES]:
        text = short(one)
        counts[text] = counts.get(text, 0) + count
    return {"counts": counts, "other": sum(count for _, count in listed[_MOST_VALUES:])}


def classes(answers: Answers) -> list[dict[str, Any]]:
    """Return precision, recall and F1 of each class, by scikit-learn; of the classes with most rows."""
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    names = ("champion", "challenger")[-len(answers.predictions) :]
    codes = list(range(len(answers.classes)))
    found = [
        precision_recall_fscore_support(answers.true_codes, one, labels=codes, average=None, zero_division=0)
        for one in answers.predicted_codes
    ]
    support = np.bincount(answers.true_codes, minlength=len(codes))
    return [
        {
            "class": short(answers.classes[code]),
            "rows": int(support[code]),
            **{
                name: {key: rounded(float(by[at][code])) for at, key in enumerate(("precision", "recall", "f1"))}
                for name, by in zip(names, found, strict=True)
            },
        }
        for code in _most_frequent(support, _MOST_VALUES)
    ]


def confusion(answers: Answers) -> dict[str, Any]:
    """Return the confusion matrices, by scikit-learn: the labels are the lines, the predictions the columns."""
    import numpy as np
    from sklearn.metrics import confusion_matrix

    names = ("champion", "challenger")[-len(answers.predictions) :]
    size = len(answers.all_classes)
    support = np.bincount(answers.true_codes, minlength=size)
    shown = _most_frequent(support, _MOST_SHOWN_CLASSES)
    other = len(shown)
    place = np.full(size, other)
    place[shown] = np.arange(other)
    labels = [short(answers.all_classes[code]) for code in shown]
    if other < size:
        labels.append("other")
    kept = list(range(len(labels)))
    true = place[answers.true_codes]
    return {
        "classes": labels,
        **{
            name: confusion_matrix(true, place[found], labels=kept).tolist()
            for name, found in zip(names, answers.predicted_codes, strict=True)
        },
    }


def _most_frequent(support: Array, most: int) -> list[int]:
    import numpy as np

    order = np.argsort(-support, kind="stable")[:most]
    return sorted(int(code) for code in order)


def worse(answers: Answers, numbers: Array) -> list[dict[str, Any]]:
    """
    Return the rows that got worse the most.

    :param numbers: the number of each row in the input
    """
    import numpy as np

    if len(answers.predictions) < 2 or answers.labels is None:
        return []
    loss = _losses(answers)
    if loss is None:
        return []
    change = loss[1] - loss[0]
    order = [int(at) for at in np.argsort(-change, kind="stable")[:MOST_WORSE] if change[at] > 0]
    return [
        {
            "row": int(numbers[at]),
            "label": short(answers.labels[at]),
            "champion": short(answers.predictions[0][at]),
            "challenger": short(answers.predictions[1][at]),
        }
        for at in order
    ]


def _losses(answers: Answers) -> list[Array] | None:
    """Return the loss of each row and version: a wrong class, or the error of a number; None where neither fits."""
    kinds = [_wrong_classes, _errors]
    for losses in kinds[::-1] if answers.kind is Needs.NUMBERS else kinds:
        try:
            return losses(answers)
        except InvalidInputError:
            continue
    return None


def _wrong_classes(answers: Answers) -> list[Array]:
    import numpy as np

    return [(found != answers.true_codes).astype(np.float64) for found in answers.predicted_codes]


def _errors(answers: Answers) -> list[Array]:
    import numpy as np

    return [np.abs(found - answers.true_numbers) for found in answers.predicted_numbers]


def short(value: Any) -> str:
    """Return a value from outside as bounded text: numbers with six digits, lists item by item."""
    if isinstance(value, list | tuple):
        return beginning(
            f"[{', '.join(short(one) for one in value[:10])}{', ...' if len(value) > 10 else ''}]", _LONGEST_TEXT
        )
    return beginning(as_text(value), _LONGEST_TEXT)


def as_text(value: Any) -> str:
    """Return a value as text, not bounded: 1 and 1.0 are the same."""
    return f"{value:g}" if isinstance(value, float) else str(value)
