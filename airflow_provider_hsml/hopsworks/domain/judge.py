"""The judge of answers: which model version gave an answer, and whether the answer is as expected. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from airflow_provider_hsml.hopsworks.untrusted_text import beginning

TOLERANCE = 1e-6
"""The default tolerance for numbers, relative and absolute."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that every instance of a model version must answer."""

    body: Mapping[str, Any]
    predictions: list[Any] | None = None
    """The recorded predictions, where there are some."""


class Attribution(Enum):
    """The version that gave an answer."""

    CHALLENGER = "as recorded for this version"
    CHAMPION = "as the previous version answered"
    NEITHER = "neither as recorded nor as the previous version answered"
    UNKNOWN = "not attributable to a version"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The verdict on one answer."""

    attribution: Attribution
    wrong: str = ""
    """The fault of the answer, worded to follow the deployment's name; empty when the answer is as expected."""


@dataclass(slots=True)
class Judge:
    """Judges answers: which version gave them, and whether they are as expected. Does no I/O."""

    checks: Checks
    probe: Probe | None = None
    """None for deployments without predictions, whose health route is probed."""
    version: int | None = None
    """The model version that should answer."""
    champion: Any = None
    """The previous version's answer to the probe; None when unknown."""
    champion_version: int | None = None
    """The previous model version; None when unknown."""

    def judge(self, answer: Any, seconds: float) -> ProbeResult:
        """
        Judge an answer.

        :param seconds: the answer's latency
        """
        path = self.checks.version_path
        if path is not None and _at(answer, path) is None:
            # The previous version's script may answer like this, but so may a new one with a wrong path.
            return ProbeResult(Attribution.UNKNOWN, f"answers without a model version at {path!r}")
        by_version = Attribution.UNKNOWN if path is None else self._by_version(answer, path)
        by_record = self._by_record(answer)
        both = (by_version, by_record)
        if Attribution.CHAMPION in both and Attribution.CHALLENGER not in both:
            return ProbeResult(Attribution.CHAMPION)
        if by_version is Attribution.NEITHER or both == (Attribution.CHAMPION, Attribution.CHALLENGER):
            found = _at(answer, path or "")
            wrong = f"answers as version {found}, not as version {self.version} (at {path!r})"
            return ProbeResult(Attribution.NEITHER, wrong)
        attribution = by_record if by_version is Attribution.UNKNOWN else by_version
        if by_record in (Attribution.NEITHER, Attribution.CHAMPION):
            recorded = None if self.probe is None else self.probe.predictions
            where = _difference(predictions_of(answer), recorded, self.checks.tolerance)
            return ProbeResult(attribution, f"answers otherwise than recorded for this version: {where}")
        return ProbeResult(attribution, self._not_as_expected(answer) or self._too_slow(seconds))

    def record_champion(self, version: int | None, answer: Any) -> None:
        """
        Record the previous version, and the parts of its answer that answers are compared with.

        :param version: the model version
        :param answer: its answer to the probe; None when unknown
        """
        self.champion_version, path = version, self.checks.version_path
        compared = {} if path is None else _nested(path, _at(answer, path))
        if self.probe is not None and self.probe.predictions is not None:
            compared["predictions"] = predictions_of(answer)
        self.champion = None if answer is None or not compared else compared

    def is_fingerprint(self, attribution: Attribution, *, can_be_old: bool) -> bool:
        """
        Return whether an answer with this attribution proves that the challenger gave it.

        :param can_be_old: whether instances of the previous version may still answer
        """
        is_conclusive = self.checks.version_path is not None or self.champion is not None or not can_be_old
        return attribution is Attribution.CHALLENGER and is_conclusive

    def _by_version(self, answer: Any, path: str) -> Attribution:
        """Attribute the answer by the version in it."""
        found, wanted = _at(answer, path), str(self.version)
        # The previous version's script may answer with another version than the registry's, or without one.
        if self.champion is not None:
            is_old = found == _at(self.champion, path)
        else:
            is_old = self.champion_version is not None and found == str(self.champion_version)
        if found == wanted:
            return Attribution.UNKNOWN if is_old else Attribution.CHALLENGER
        return Attribution.CHAMPION if is_old else Attribution.NEITHER

    def _by_record(self, answer: Any) -> Attribution:
        """Attribute the answer by its predictions, where the expected ones are recorded."""
        if self.probe is None or self.probe.predictions is None:
            return Attribution.UNKNOWN
        found, recorded, tolerance = predictions_of(answer), self.probe.predictions, self.checks.tolerance
        previous = predictions_of(self.champion)
        are_alike = self.champion is not None and same(previous, recorded, tolerance)
        if same(found, recorded, tolerance):
            return Attribution.UNKNOWN if are_alike else Attribution.CHALLENGER
        is_old = self.champion is not None and not are_alike and same(found, previous, tolerance)
        return Attribution.CHAMPION if is_old else Attribution.NEITHER

    def _not_as_expected(self, answer: Any) -> str:
        """Apply ``expect`` to the predictions, and return the fault; empty when there is none."""
        expect = self.checks.expect
        if self.probe is None or expect is None or expect.holds is None:
            return ""
        predictions = predictions_of(answer)
        rows = self.probe.body.get("instances", self.probe.body.get("inputs"))
        try:
            result = expect.holds(predictions, rows)
            fault = "" if result is None or result else f"returned {result!r}"
        except Exception as error:  # noqa: BLE001 - the user's function may raise anything, or return an array
            fault = f"raised {type(error).__name__}: {error}"
        return fault and f"answers otherwise than expected: {expect.name} {fault} for {_shown(predictions)}"

    def _too_slow(self, seconds: float) -> str:
        """Compare the latency with ``max_latency_ms``, and return the fault; empty when there is none."""
        limit, latency = self.checks.max_latency_ms, seconds * 1000
        return "" if limit is None or latency <= limit else f"answered in {latency:.0f} ms; {limit:g} ms are allowed"


def predictions_of(answer: Any) -> Any:
    """Return the predictions of an answer: those of an object by its keys, else the answer itself, such as a list."""
    return answer.get("predictions", answer.get("outputs")) if isinstance(answer, Mapping) else answer


def _at(answer: Any, path: str) -> str | None:
    """Return the value at a dotted path of an answer, as text; None when there is none."""
    found = answer
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return None if found is None else str(found)


def _nested(path: str, value: Any) -> dict[str, Any]:
    """Return an answer that has nothing but a value at a dotted path."""
    first, _, rest = path.partition(".")
    return {first: _nested(rest, value) if rest else value}


def same(one: Any, other: Any, tolerance: float = TOLERANCE) -> bool:
    """
    Return whether two JSON values are the same: numbers within a tolerance, anything else exactly.

    Values that cannot be compared, since a whole number is beyond the range of float or lists nest too deeply, differ.

    :param tolerance: for numbers that are not both whole, relative or absolute
    """
    try:
        return _same(one, other, tolerance)
    except (OverflowError, RecursionError):
        return False


def _same(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_same(left, right, tolerance) for left, right in pairs)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key], tolerance) for key in one)
    if isinstance(one, float) or isinstance(other, float):
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
        return numbers and (
            math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(one) and math.isnan(other))
        )
    return type(one) is type(other) and bool(one == other)


def _shown(value: Any) -> str:
    """Return the beginning of a JSON value, for a message."""
    try:
        return beginning(repr(value))
    except RecursionError:
        return f"a {type(value).__name__} that nests too deeply"


def _difference(found: Any, recorded: Any, tolerance: float) -> str:
    """Return where predictions differ: the first row, with the expected and the actual value."""
    if not isinstance(found, list) or not isinstance(recorded, list):
        return f"expected {_shown(recorded)}, got {_shown(found)}"
    for number, (one, other) in enumerate(zip(found, recorded, strict=False), 1):
        if not same(one, other, tolerance):
            return f"row {number} of {len(recorded)}: expected {_shown(other)}, got {_shown(one)}"
    return f"expected {len(recorded)} predictions, got {len(found)}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """A check of predictions."""

    name: str
    holds: Callable[[Any, Any], Any] | None = None
    """Called with the predictions and the rows; None for ``equal``: recorded predictions are always compared."""
    is_user_function: bool = False
    """Whether the check is the user's own function, which runs in a worker only."""


@dataclass(frozen=True, slots=True)
class Checks:
    """A parsed ``Verification``. The default: five answers, equal to the recorded ones if there are any."""

    body: Mapping[str, Any] | None = None
    expect: Expectation | None = None
    tolerance: float = TOLERANCE
    version_path: str | None = None
    health_path: str | None = None
    max_latency_ms: float | None = None
    bake_seconds: float = 0
    probe_interval: float = 5
    max_error_rate: float = 0
    rolls_back: bool = True
