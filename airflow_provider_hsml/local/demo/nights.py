"""The nights of the demo: what each is to show, and the checks that it did."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CANDIDATES = 3
CERTAIN = ("fingerprint", "instances")
"""How a deployment can be verified by more than its status."""


class DemoFailedError(Exception):
    """The demo did not show what it is there to show; the message says why."""


@dataclass(frozen=True, slots=True)
class Night:
    """
    A night, and what is to come of it.

    :param number: which one
    :param conf: the run's parameters, where they are not the DAG's own
    :param kind: how good its candidates are
    :param action: what the deploying task is to do
    :param outcome: the same in words
    """

    number: int
    conf: Mapping[str, Any]
    kind: str
    action: str
    outcome: str

    @property
    def date(self) -> str:
        """The day that it belongs to."""
        return f"2026-11-{self.number:02}"

    @property
    def is_to_fail(self) -> bool:
        """Whether the deploying task is to fail, and the run with it."""
        return self.action == "rolled_back"


NIGHTS = (
    Night(1, {"training_images": 30}, "weak candidates", "created", "the deployment is created"),
    Night(2, {}, "better candidates", "updated", "the deployment is updated while it answers"),
    Night(3, {"training_images": 100}, "worse candidates", "kept", "production is kept"),
    Night(
        4,
        {"scaling": "forgotten", "gamma": 0.3},
        "better numbers, of files that lack a step",
        "rolled_back",
        "the best number fails verification, and production is what it was",
    ),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that a night registered."""

    version: int
    algorithm: str
    accuracy: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What came of a night.

    :param promotion: the promotion record, as the deploying task returned it
    :param served_accuracy: of the predictions that the deployment gave on held-out rows; None when the run failed
    :param candidates: what was registered
    :param deployments: ids of all deployments there are afterwards
    :param answered_by: the version of the model in the process that answers afterwards
    :param is_as_recorded: whether it answers what was recorded for that version when it was registered
    :param seconds: how long Airflow took
    """

    night: Night
    promotion: Mapping[str, Any]
    served_accuracy: float | None
    candidates: Sequence[Candidate]
    deployments: Sequence[int]
    answered_by: int
    is_as_recorded: bool
    seconds: float

    @property
    def rejected(self) -> int | None:
        """The version that was deployed and taken back, says the record."""
        return int(self.promotion["model_version"]) if self.promotion["action"] == "rolled_back" else None

    @property
    def version(self) -> int:
        """The version that is served, says the record."""
        return int(self.promotion["model_version" if self.rejected is None else "previous_model_version"])


def read_result(line: str) -> Mapping[str, Any] | None:
    """
    Find the DAG's result in a line of its output: the promotion record, and the accuracy served where it was measured.

    :param line: what Airflow printed
    """
    start = line.find('{"promotion": ')
    if start < 0:
        return None
    try:
        result, _ = json.JSONDecoder().raw_decode(line, start)
    except ValueError:
        return None
    return result if isinstance(result, dict) and result["promotion"] else None


def check_night(outcome: Outcome, earlier: Sequence[Outcome]) -> None:
    """
    Check that a night did what it is there to show.

    :param outcome: the night
    :param earlier: the nights before it
    :raises DemoFailedError: it did not
    """
    promotion, number = outcome.promotion, outcome.night.number

    def expect(fact: object, what: str, wanted: object) -> None:
        if fact != wanted:
            raise DemoFailedError(f"night {number}: {what} is {fact!r}, expected {wanted!r}.")

    best = max((candidate.accuracy for candidate in outcome.candidates), default=None)
    expect(len(outcome.candidates), "the number of versions registered", CANDIDATES)
    expect(promotion["action"], "what the deploying task did", outcome.night.action)
    expect(outcome.answered_by, "the version in the process that answers", outcome.version)
    expect(outcome.is_as_recorded, "that it answers what was recorded for it", wanted=True)
    expect(outcome.deployments, "the list of deployments", [promotion["deployment_id"]])
    if outcome.rejected is None:
        verified_by = promotion["verified_by"]
        expect(verified_by in CERTAIN, f"verified_by={verified_by!r} in {CERTAIN}", wanted=True)
        expect(_rounded(outcome.served_accuracy), "the accuracy served", _rounded(promotion["metric_value"]))
    else:
        served = promotion["previous_metric_value"]
        expect(outcome.version, "the version rolled back to", earlier[-1].version)
        expect(best is not None and best > served, "that the best candidate has a better number", wanted=True)
        expect("answers otherwise than recorded" in promotion["reason"], "that the record says why", wanted=True)
        expect(f"version {outcome.version} of" in promotion["reason"], "that it says what serves now", wanted=True)
    if outcome.night.action == "kept":
        expect(outcome.version, "the version kept", earlier[-1].version)
        served = promotion["metric_value"]
        expect(best is not None and best < served, "that all candidates are worse", wanted=True)
    else:
        deployed = promotion["model_version"]
        expect(best, "the best accuracy of the night", promotion["metric_value"])
        expect(
            deployed in [candidate.version for candidate in outcome.candidates],
            "that one of the night's candidates is deployed",
            wanted=True,
        )
    if earlier:
        expect(outcome.deployments, "the list of deployments", earlier[-1].deployments)


def _rounded(accuracy: float | None) -> float | None:
    return None if accuracy is None else round(accuracy, 6)


def check_prober(answered: Mapping[int, int], failures: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """
    Check that requests were answered all the while, by the versions that were deployed.

    :param answered: version -> how many requests it answered
    :param failures: what was said to those that were not
    :param outcomes: the nights
    :raises DemoFailedError: they were not
    """
    if failures:
        raise DemoFailedError(f"{len(failures)} of the prober's requests failed, the first with: {failures[0]}")
    deployed = sorted({version for outcome in outcomes for version in (outcome.version, outcome.rejected) if version})
    if sorted(answered) != deployed:
        raise DemoFailedError(f"the prober was answered by versions {sorted(answered)}, expected {deployed}.")


def table(outcomes: Sequence[Outcome]) -> str:
    """
    Show the nights.

    :param outcomes: the nights
    """
    head = ("night", "candidates, accuracy", "action", "serves", "verified by", "accuracy served", "seconds")
    rows: list[Sequence[str]] = [head]
    for outcome in outcomes:
        facts = (
            outcome.promotion["action"],
            f"version {outcome.version}",
            outcome.promotion["verified_by"] or "-",
            "as before" if outcome.served_accuracy is None else f"{outcome.served_accuracy:.3f}",
            f"{outcome.seconds:.0f}",
        )
        for row, candidate in enumerate(outcome.candidates):
            shown = f"version {candidate.version}, {candidate.algorithm}: {candidate.accuracy:.3f}"
            rows.append((str(outcome.night.number), shown, *facts) if row == 0 else ("", shown))
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(len(head))]
    lines = ["  ".join(f"{cell:<{widths[column]}}" for column, cell in enumerate(row)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
