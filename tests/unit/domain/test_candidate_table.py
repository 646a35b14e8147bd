"""The candidates of a decision, for the task's log: every one of them, with what became of it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain import gate
from airflow_provider_hsml.hopsworks.domain.candidate_table import CHOSEN, MOST_ROWS, SERVED, Candidate, candidate_table
from airflow_provider_hsml.hopsworks.domain.gate import Gate, Metric
from airflow_provider_hsml.hopsworks.domain.model_version import Direction
from tests.unit.domain import test_gate, test_measured_gate
from tests.unit.domain.test_gate import both, version


@pytest.mark.parametrize("case", [*test_gate.CASES, *test_measured_gate.CASES], ids=lambda case: case.what)
def test_each_candidate_is_listed_once_with_its_verdict(case: Any) -> None:
    decision = case.decide()
    verdicts = {each.name: each.verdict for each in decision.candidates}

    assert len(verdicts) == len(decision.candidates) > 0
    assert all(verdicts.values())
    chosen = [name for name, verdict in verdicts.items() if verdict == CHOSEN]
    assert chosen == ([] if decision.is_kept else [str(decision.chosen.version)])
    assert list(verdicts.values()).count(SERVED) == (case.champion is not None)
    if not chosen:
        # One of those that stayed out tells why.
        assert all(len(verdict) > len(SERVED) for verdict in verdicts.values() if verdict != SERVED)


def test_the_table() -> None:
    versions = [version(1, both(0.8, 0.7)), version(2, both(0.95, 0.5)), version(3, both(0.9, 0.7)), version(4, None)]
    versions += [version(5, both(0.85, 0.7)), version(6, both(0.99, 0.7))]
    rules = Gate(guards={"recall": {"direction": "max", "max_loss": 0.01}}).rules()
    rejected = {6: "it does\nnot come up"}

    decision = gate.decide(versions, versions[0], Metric("accuracy", Direction.MAX), rules, rejected)

    assert candidate_table(decision.candidates).splitlines() == [
        "  version  accuracy  recall",
        "        6      0.99     0.7  it was rejected before, and gate.retry_rejected is off (it does not come up)",
        "        2      0.95     0.5  its recall 0.5 is worse than the served 0.7 by more than 0.01",
        "        3       0.9     0.7  chosen",
        "        5      0.85     0.7  another candidate is better",
        "        1       0.8     0.7  served",
        "        4         -       -  it has no finite metric 'accuracy'",
    ]


def test_a_candidate_that_does_not_beat_the_served_version_says_so() -> None:
    versions = [version(1, 0.9), version(2, 0.8)]

    decision = gate.decide(versions, versions[0], Metric("accuracy", Direction.MAX, [2]), Gate().rules())

    assert [each.verdict for each in decision.candidates] == [SERVED, decision.reason]


def test_a_champion_of_another_model_has_its_name() -> None:
    champion = version(1, 0.7, "letters")

    decision = gate.decide([version(1, 0.8)], champion, Metric("accuracy", Direction.MAX), Gate().rules())

    assert [(each.name, each.verdict) for each in decision.candidates] == [("1", CHOSEN), ("letters 1", SERVED)]


def test_the_numbers_are_those_that_were_measured() -> None:
    case = test_measured_gate.CASES[0]
    decision = case.decide()

    assert all(list(each.metrics) == [next(iter(each.metrics))] for each in decision.candidates)
    assert next(iter(decision.candidates[0].metrics)).startswith("measured ")


def test_of_many_the_best_are_shown_and_those_that_serve() -> None:
    many = [Candidate(str(number), {"auc": 1 / number}, "x" * 500) for number in range(1, 101)]
    many[60] = Candidate("61", {"auc": None}, SERVED)

    lines = candidate_table(many).splitlines()

    assert len(lines) == 1 + MOST_ROWS + 1 + 1
    assert lines[-2].split() == ["61", "-", "served"]
    assert lines[-1] == "  and 79 more"
    assert max(map(len, lines)) < 300
