"""The nights of the demo, with their expected results and the checks of the actual ones."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CANDIDATES = 3
CERTAIN = ("fingerprint", "instances")
"""The values of ``verified_by`` that prove more than the status of a deployment."""

_TASK = re.compile(r"\[DAG TEST\] starting task_id=(?P<task>\S+) map_index=(?P<index>-?\d+)")


class DemoFailedError(Exception):
    """A result differs from the expected one, or the demo cannot run; the message says why."""


@dataclass(frozen=True, slots=True)
class Night:
    """
    A night and its expected result.

    :param number: from 1
    :param conf: the parameters of the run that differ from the DAG's defaults
    :param kind: a description of its candidates
    :param action: the expected action of the deploying task
    :param outcome: a description of that action
    """

    number: int
    conf: Mapping[str, Any]
    kind: str
    action: str
    outcome: str

    @property
    def date(self) -> str:
        """The logical date of the run."""
        return f"2026-11-{self.number:02}"

    @property
    def is_to_fail(self) -> bool:
        """Whether the deploying task is expected to fail, and the run with it."""
        return self.action == "failed"


NIGHTS = (
    Night(1, {"training_images": 30}, "weak candidates", "created", "the deployment is created"),
    Night(2, {}, "better candidates", "updated", "the deployment is updated while it answers"),
    Night(3, {"training_images": 100}, "worse candidates", "kept", "production is kept"),
    Night(
        4,
        {"scaling": "forgotten", "gamma": 0.3, "preflight": True},
        "better metrics, but files without a preprocessing step",
        "failed",
        "the candidate with the best metric fails its preflight, and production is kept",
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
    The actual result of a night.

    :param promotion: the promotion record, as returned by the deploying task
    :param served_accuracy: the accuracy of the deployment's predictions on held-out rows; None if the run failed
    :param candidates: the registered versions
    :param deployments: the ids of all deployments afterwards
    :param answered_by: the model version of the process that answers afterwards
    :param is_as_recorded: whether its predictions equal those recorded when that version was registered
    :param seconds: the duration of the Airflow run
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
        """The version that failed its preflight, according to the record."""
        return int(self.promotion["model_version"]) if self.promotion["action"] == "failed" else None

    @property
    def version(self) -> int:
        """The serving version, according to the record."""
        return int(self.promotion["model_version" if self.rejected is None else "previous_model_version"])


def read_result(line: str) -> Mapping[str, Any] | None:
    """
    Return the DAG's result in a line of Airflow's output: the promotion record, and the served accuracy if measured.

    None if the line holds no result.
    """
    start = line.find('{"promotion": ')
    if start < 0:
        return None
    try:
        result, _ = json.JSONDecoder().raw_decode(line, start)
    except ValueError:
        return None
    return result if isinstance(result, dict) and result["promotion"] else None


def read_task(line: str) -> str | None:
    """Return the task that begins in a line of Airflow's output, for people; None if none does."""
    found = _TASK.search(line)
    if found is None:
        return None
    index = int(found["index"])
    return f"task {found['task']}" + (f", candidate {index + 1} of {CANDIDATES}" if index >= 0 else "")


def check_night(outcome: Outcome, earlier: Sequence[Outcome]) -> None:
    """
    Check that a night had the expected result.

    :param outcome: the result of the night
    :param earlier: the results of the nights before it
    :raises DemoFailedError: a fact differs from the expected one
    """
    promotion, number = outcome.promotion, outcome.night.number

    def expect(actual: object, subject: str, expected: object) -> None:
        if actual != expected:
            raise DemoFailedError(f"night {number}: {subject} is {actual!r}, expected {expected!r}.")

    def require(is_so: object, otherwise: str) -> None:
        if not is_so:
            raise DemoFailedError(f"night {number}: {otherwise}.")

    best = max((candidate.accuracy for candidate in outcome.candidates), default=None)
    expect(len(outcome.candidates), "the number of versions registered", CANDIDATES)
    expect(promotion["action"], "the action of the deploying task", outcome.night.action)
    expect(outcome.answered_by, "the version in the process that answers", outcome.version)
    require(outcome.is_as_recorded, f"version {outcome.answered_by} does not answer as recorded")
    expect(outcome.deployments, "the list of deployments", [promotion["deployment_id"]])
    if outcome.rejected is None:
        verified_by = promotion["verified_by"]
        require(verified_by in CERTAIN, f"verified_by is {verified_by!r}, expected one of {CERTAIN}")
        expect(_rounded(outcome.served_accuracy), "the accuracy served", _rounded(promotion["metric_value"]))
    else:
        served, reason = promotion["previous_metric_value"], promotion["reason"]
        expect(promotion["preflight"], "the end of the preflight", "failed")
        expect(outcome.version, "the version kept", earlier[-1].version)
        require(best is not None and best > served, f"no candidate is better than the served version ({served})")
        require("answers otherwise than recorded" in reason, f"the record does not give the reason: {reason}")
        require("which was not changed" in reason, f"the record does not say that production was kept: {reason}")
    if outcome.night.action == "kept":
        expect(outcome.version, "the version kept", earlier[-1].version)
        served = promotion["metric_value"]
        require(best is not None and best < served, f"a candidate is as good as the served version ({served})")
    else:
        deployed = promotion["model_version"]
        expect(best, "the best accuracy of the night", promotion["metric_value"])
        is_candidate = deployed in [candidate.version for candidate in outcome.candidates]
        require(is_candidate, f"version {deployed} is none of the night's candidates")
    if earlier:
        expect(outcome.deployments, "the list of deployments", earlier[-1].deployments)


def _rounded(accuracy: float | None) -> float | None:
    return None if accuracy is None else round(accuracy, 6)


def check_prober(answered: Mapping[int, int], failures: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """
    Check that all requests were answered, by exactly the versions that were deployed.

    :param answered: the number of answered requests by version
    :param failures: the errors of the other requests
    :param outcomes: the results of the nights
    :raises DemoFailedError: a request failed, or other versions answered
    """
    if failures:
        raise DemoFailedError(f"{len(failures)} of the prober's requests failed, the first with: {failures[0]}")
    deployed = sorted({outcome.version for outcome in outcomes})
    if sorted(answered) != deployed:
        raise DemoFailedError(f"the prober was answered by versions {sorted(answered)}, expected {deployed}.")


def rejected_answers(rejected: int, answered: Mapping[int, int]) -> str:
    """
    Return, in a sentence, how many answers came from a version that failed its preflight. None may.

    :param rejected: the version
    :param answered: the number of answered requests of the night by version
    """
    total, its = sum(answered.values()), answered.get(rejected, 0)
    return f"{its} of the {total} answers to the prober came from the rejected version {rejected}"


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the results of the nights as a table."""
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
