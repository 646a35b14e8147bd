"""The table of decisions: what is served, which candidates there are, what the gate asks for, and what comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.domain import gate
from airflow_provider_hsml.hopsworks.domain.gate import Gate
from airflow_provider_hsml.hopsworks.domain.model_version import Direction, ModelVersion
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAN, INFINITE = float("nan"), math.inf


@dataclass(frozen=True)
class Case:
    """
    One decision. Versions are numbered from 1; a number stands for ``{"accuracy": number}``, None for no metric.

    ``expected`` is the version that is to serve, with a minus sign where it is the champion that is kept; None where
    nothing is deployed at all.
    """

    what: str
    versions: list[Any]
    champion: int | None
    expected: int | None
    reason: str
    rules: Mapping[str, Any] = field(default_factory=dict)
    direction: str = "max"
    candidates: list[int] | None = None
    rejected: Mapping[int, str] = field(default_factory=dict)

    def decide(self) -> gate.Decision:
        known = [version(number, metrics) for number, metrics in enumerate(self.versions, 1)]
        champion = None if self.champion is None else known[self.champion - 1]
        by = gate.Metric("accuracy", Direction(self.direction), self.candidates)
        return gate.decide(known, champion, by, Gate.read(self.rules, "gate").rules(), self.rejected)


def version(number: int, metrics: Any, name: str = "digits") -> ModelVersion:
    given = metrics if isinstance(metrics, dict) else {} if metrics is None else {"accuracy": metrics}
    return ModelVersion(name, number, f"{name}_{number}", "demo", 119, {"loss": 1.0, **given})


def both(accuracy: float, recall: Any) -> dict[str, Any]:
    return {"accuracy": accuracy} | ({} if recall is None else {"recall": recall})


RECALL = {"guards": {"recall": {"direction": "max", "max_loss": 0.01}}}
LATENCY = {"guards": {"recall": {"direction": "min", "max_loss": 5}}}

CASES = [
    # A first deployment: only the floor counts.
    Case("one version", [0.8], None, 1, "is the best of 1, and none is served yet"),
    Case("the best of all", [0.8, 0.9, 0.7], None, 2, "is the best of 3"),
    Case("the least of all", [0.8, 0.9, 0.7], None, 3, "is the best of 3", direction="min"),
    Case("of the candidates only", [0.8, 0.9, 0.7], None, 1, "the best of 2", candidates=[1, 3]),
    Case("of equals the newest", [0.8, 0.8], None, 2, "the best of 2"),
    Case("without those that lack the metric", [0.8, None], None, 1, "the best of 1 admissible"),
    Case("NaN is no metric", [0.8, NAN], None, 1, "the best of 1 admissible"),
    Case("infinite is no metric", [0.8, INFINITE], None, 1, "the best of 1 admissible"),
    Case("text is no metric", [0.8, "0.9"], None, 1, "the best of 1 admissible"),
    Case("true is no metric", [0.8, True], None, 1, "the best of 1 admissible"),
    Case("above the floor", [0.8], None, 1, "none is served yet", {"floor": 0.7}),
    Case("at the floor", [0.8], None, 1, "none is served yet", {"floor": 0.8}),
    Case("below the floor", [0.8], None, None, "its accuracy 0.8 is below the floor of 0.9", {"floor": 0.9}),
    Case("below the ceiling", [0.8], None, 1, "none is served yet", {"floor": 0.9}, "min"),
    Case("above the ceiling", [0.8], None, None, "above the ceiling of 0.7", {"floor": 0.7}, "min"),
    Case("the best one below the floor is named", [0.6, 0.8], None, None, "the best one, version 2", {"floor": 0.9}),
    Case("improvement is of nothing", [0.8], None, 1, "none is served yet", {"min_improvement": 5}),
    Case("guards have nothing to compare with", [both(0.8, 0.1)], None, 1, "none is served yet", RECALL),
    # A challenger and a champion.
    Case("better", [0.8, 0.9], 1, 2, "version 2 (accuracy 0.9) beats the served version 1 (accuracy 0.8)"),
    Case("better by a hair", [0.8, 0.8000001], 1, 2, "beats"),
    Case("a tie", [0.8, 0.8], 1, -1, "equals the served version 1"),
    Case("worse", [0.8, 0.7], 1, -1, "does not beat the served version 1"),
    Case("less is better", [0.8, 0.7], 1, 2, "beats", direction="min"),
    Case("less is better, a tie", [0.8, 0.8], 1, -1, "equals", direction="min"),
    Case("less is better, worse", [0.8, 0.9], 1, -1, "does not beat", direction="min"),
    Case("negative values", [-0.5, -0.4], 1, 2, "beats"),
    Case("negative values, less is better", [-0.5, -0.4], 1, -1, "does not beat", direction="min"),
    Case("zero is a value", [0, 0.1], 1, 2, "beats"),
    Case("nothing but the champion", [0.8], 1, -1, "is the best already"),
    Case("the champion is the best", [0.7, 0.9, 0.8], 2, -2, "version 3 (accuracy 0.8) does not beat"),
    Case("the champion is the only candidate", [0.8, 0.9], 1, -1, "is the best already", candidates=[1]),
    Case("the best of several newer ones", [0.8, 0.85, 0.9], 1, 3, "version 3 (accuracy 0.9) beats"),
    Case("newer ones without the metric", [0.8, None, 0.9, NAN], 1, 3, "beats"),
    Case("the newer one has no metric", [0.8, None], 1, -1, "is the best already"),
    Case("the best one is no candidate", [0.8, 0.9, 0.7], 1, -1, "does not beat", candidates=[3]),
    # Downgrades.
    Case("an older one is better", [0.9, 0.8], 2, -2, "version 1 (accuracy 0.9), is left out: it is older"),
    Case("and may be taken", [0.9, 0.8], 2, 1, "version 1 (accuracy 0.9) beats", {"allow_downgrade": True}),
    Case("said by a template", [0.9, 0.8], 2, 1, "beats", {"allow_downgrade": "True"}),
    Case("forbidden by a template", [0.9, 0.8], 2, -2, "is older", {"allow_downgrade": "False"}),
    Case("an older one that is worse", [0.7, 0.8], 2, -2, "does not beat", {"allow_downgrade": True}),
    Case("an older one that is equal", [0.8, 0.8], 2, -2, "equals", {"allow_downgrade": True}),
    Case("a newer one beats, an older one more", [0.95, 0.8, 0.9], 2, 3, "version 3 (accuracy 0.9) beats"),
    # The least improvement.
    Case("enough", [0.8, 0.9], 1, 2, "beats", {"min_improvement": 0.05}),
    Case("not enough", [0.8, 0.82], 1, -1, "by less than the 0.05 that the gate asks for", {"min_improvement": 0.05}),
    Case("just enough, rounded up", [0.80, 0.81], 1, 2, "beats", {"min_improvement": 0.01}),
    Case("just enough, rounded down", [0.56, 0.57], 1, 2, "beats", {"min_improvement": 0.01}),
    Case("worse, with an improvement asked for", [0.8, 0.7], 1, -1, "does not beat", {"min_improvement": 0.05}),
    Case("less is better: enough", [0.8, 0.7], 1, 2, "beats", {"min_improvement": 0.1}, "min"),
    Case("less is better: not enough", [0.8, 0.75], 1, -1, "by less than", {"min_improvement": 0.1}, "min"),
    Case("by a template", [0.8, 0.82], 1, -1, "by less than", {"min_improvement": "0.05"}),
    Case("a share: enough", [0.8, 0.88], 1, 2, "beats", {"min_improvement": 0.1, "relative": True}),
    Case("a share: not enough", [0.8, 0.87], 1, -1, "less than the 0.08", {"min_improvement": 0.1, "relative": True}),
    Case("a share of a negative", [-10, -9.5], 1, -1, "by less than the 1", {"min_improvement": 0.1, "relative": True}),
    Case("a share of zero", [0, 0.001], 1, 2, "beats", {"min_improvement": 0.1, "relative": True}),
    # The floor, with a champion.
    Case("better, but below the floor", [0.5, 0.6], 1, -1, "below the floor of 0.7", {"floor": 0.7}),
    Case("better, and above the floor", [0.5, 0.8], 1, 2, "beats", {"floor": 0.7}),
    Case("the champion itself is below the floor", [0.5], 1, -1, "is the best already", {"floor": 0.7}),
    Case("less is better, but above the ceiling", [0.9, 0.8], 1, -1, "the ceiling of 0.7", {"floor": 0.7}, "min"),
    # Guards.
    Case("a guard holds", [both(0.8, 0.7), both(0.9, 0.7)], 1, 2, "beats", RECALL),
    Case("a loss that is allowed", [both(0.8, 0.57), both(0.9, 0.56)], 1, 2, "beats", RECALL),
    Case("a loss that is not", [both(0.8, 0.7), both(0.9, 0.6)], 1, -1, "its recall 0.6 is worse than", RECALL),
    Case("a gain is no loss", [both(0.8, 0.7), both(0.9, 0.9)], 1, 2, "beats", RECALL),
    Case("less is better: allowed", [both(0.8, 30), both(0.9, 35)], 1, 2, "beats", LATENCY),
    Case("less is better: not allowed", [both(0.8, 30), both(0.9, 36)], 1, -1, "by more than 5", LATENCY),
    Case("the challenger lacks it", [both(0.8, 0.7), 0.9], 1, -1, "no finite metric 'recall', which is gu", RECALL),
    Case("the next best holds it", [both(0.8, 0.7), both(0.95, 0.1), both(0.9, 0.7)], 1, 3, "version 3", RECALL),
    Case(
        "the champion lacks it: challenger",
        [0.8, both(0.9, 0.1)],
        1,
        2,
        "beats",
        {**RECALL, "missing": "challenger"},
    ),
    Case(
        "the champion lacks it: champion",
        [0.8, both(0.9, 0.9)],
        1,
        -1,
        "the served version has no finite metric 'recall'",
        {**RECALL, "missing": "champion"},
    ),
    # The champion lacks the metric.
    Case("the challenger wins then", [None, 0.1], 1, 2, "prefers the challenger", {"missing": "challenger"}),
    Case("the champion stays then", [None, 0.9], 1, -1, "the gate keeps it", {"missing": "champion"}),
    Case("below the floor even then", [None, 0.1], 1, -1, "the floor", {"missing": "challenger", "floor": 0.5}),
    # What failed when it was deployed.
    Case("rejected before", [0.8, 0.9], 1, -1, "it was rejected before, and gate", rejected={2: "it lied"}),
    Case("why it was rejected", [0.8, 0.9], 1, -1, "(it lied)", rejected={2: "it lied"}),
    Case("the best of the rest", [0.8, 0.95, 0.9], 1, 3, "version 3", rejected={2: "it lied"}),
    Case("rejected, and tried again", [0.8, 0.9], 1, 2, "beats", {"retry_rejected": True}, rejected={2: "it lied"}),
    Case("rejected before there was a champion", [0.9], None, None, "it was rejected", rejected={1: "it lied"}),
    Case("another one is the first", [0.9, 0.7], None, 2, "the best of 1 admissible", rejected={1: "it lied"}),
    Case("beyond the floor is said first", [0.4, 0.45], 1, -1, "the floor", {"floor": 0.5}, rejected={2: "it lied"}),
    Case("a champion that failed once stays", [0.8, 0.7], 1, -1, "does not beat", rejected={1: "it lied"}),
    Case("NaN is no metric of a champion", [NAN, 0.1], 1, 2, "prefers", {"missing": "challenger"}),
]


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_decision(case: Case) -> None:
    decision = case.decide()

    kept = case.expected is None or case.expected < 0
    assert decision.is_kept == kept
    assert (decision.chosen and decision.chosen.version) == (case.expected and abs(case.expected))
    assert case.reason in decision.reason


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("", [None, 0.9], 1, 0, ""), r"The served version 1 of model 'digits' has no finite metric 'accuracy'"),
        (Case("", [0.8, both(0.9, 0.9)], 1, 0, "", RECALL), r"no finite metric 'recall', which the gate guards"),
        (Case("", [None, NAN], None, 0, ""), r"No candidate version .* has a finite metric 'accuracy'; .* loss"),
        (Case("", [0.8], None, 0, "", candidates=[]), "candidates: expected at least one version"),
        (Case("", [0.8], 1, 0, "", {"floor": "high"}), r"gate\.floor: expected a finite number"),
        (Case("", [0.8], 1, 0, "", {"floor": NAN}), r"gate\.floor: expected a finite number"),
        (Case("", [0.8], 1, 0, "", {"min_improvement": -1}), r"gate\.min_improvement: .* of 0 or more"),
        (Case("", [0.8], 1, 0, "", {"relative": "yes"}), r"gate\.relative: expected true or false"),
        (Case("", [0.8], 1, 0, "", {"missing": "skip"}), r"gate\.missing: expected one of fail"),
        (Case("", [0.8], 1, 0, "", {"flor": 1}), "did you mean 'floor'"),
        (Case("", [0.8], 1, 0, "", {"guards": {"recall": 0.1}}), r"gate\.guards\['recall'\]: expected a mapping"),
        (Case("", [0.8], 1, 0, "", {"guards": {"recall": {"max_loss": 1}}}), "a mapping with direction as well"),
        (Case("", [0.8], 1, 0, "", {"guards": {"recall": {"max_los": 1}}}), "did you mean 'max_loss'"),
        (
            Case("", [0.8], 1, 0, "", {"guards": {"recall": {"direction": "up", "max_loss": 1}}}),
            r"gate\.guards\['recall'\]\.direction: expected one of max, min",
        ),
    ],
)
def test_what_cannot_be_decided_is_an_error(case: Case, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        case.decide()


def test_a_candidate_that_is_not_there() -> None:
    with pytest.raises(NotFoundError, match=r"versions \[7\] are not in the registry; those there: \[1\]"):
        Case("", [0.8], None, 0, "", candidates=[7]).decide()


def test_a_champion_of_another_model() -> None:
    """A deployment may serve another model: its numbers mean nothing then."""
    champion = version(9, 0.8, "letters")

    decision = gate.decide([version(1, 0.9)], champion, gate.Metric("accuracy", Direction.MAX), gate.Rules())

    assert decision.chosen is not None
    assert decision.chosen.name == "digits"


def test_a_rejected_version_with_the_best_metric_is_named_with_its_reason_when_another_is_compared() -> None:
    known = [version(number, accuracy) for number, accuracy in enumerate([0.9, 0.7, 0.95], 1)]
    by = gate.Metric("accuracy", Direction.MAX, None)
    decision = gate.decide(known, known[0], by, Gate().rules(), {3: "wrong answers"})
    assert (decision.chosen, decision.is_kept) == (known[0], True)
    assert decision.reason == (
        "version 2 (accuracy 0.7) does not beat the served version 1 (accuracy 0.9), which is kept; version 3 "
        "(accuracy 0.95) is left out: it was rejected before, and gate.retry_rejected is off (wrong answers)"
    )
    assert gate.decide(known, known[0], by, Gate(retry_rejected=True).rules(), {3: "wrong answers"}).chosen is known[2]
