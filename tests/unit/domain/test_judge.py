"""The judge: which version gave an answer, and whether it is as expected; a table of answers."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from airflow_provider_hsml.hopsworks.domain.judge import (
    Attribution,
    Checks,
    Expectation,
    Judge,
    Probe,
    ProbeResult,
    same,
)
from airflow_provider_hsml.hopsworks.domain.verification import Verification
from airflow_provider_hsml.hopsworks.untrusted_text import hide


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2], [1, 2], True),
        ([1, 2], [1, 2, 3], False),
        ([1.0], [1.0000001], True),
        ([1.0], [1.001], False),
        ([1], [1.0], True),
        ([1], [2], False),
        (["a"], ["a"], True),
        (["a"], ["b"], False),
        (["1"], [1], False),
        ([True], [1], False),
        ([True], [1.0], False),
        ([{"label": 3, "score": 0.1}], [{"label": 3, "score": 0.1000000001}], True),
        ([{"label": 3}], [{"score": 3}], False),
        ([float("nan")], [float("nan")], True),
        ([[0.1, 0.9]], [[0.1, 0.8]], False),
        (None, [1], False),
        (1e12, 1e12 + 1, True),
        ([10**400], [0.5], False),
        ([10**400], [float("inf")], False),
        ([10**400], [float("nan")], False),
        ([10**400], [10**400], True),
        ([{"a": [10**400]}], [{"a": [1.0]}], False),
    ],
)
def test_same(one: Any, other: Any, expected: bool) -> None:
    assert same(one, other) is expected
    assert same(other, one) is expected


def nested(depth: int, innermost: Any) -> Any:
    """Build lists in lists."""
    for _ in range(depth):
        innermost = [innermost]
    return innermost


def test_what_nests_too_deeply_to_be_compared_differs() -> None:
    depth = sys.getrecursionlimit()
    assert not same(nested(depth, 1), nested(depth, 1))
    answer = {"predictions": nested(depth, 1)}
    result = judge(nested(depth, 2), champion=answer).judge(answer, 0.01)

    assert result.attribution is Attribution.NEITHER
    assert "answers otherwise than recorded" in result.wrong


@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
def test_a_number_beyond_the_range_of_float_is_a_wrong_answer(tolerance: float) -> None:
    found = judge([0.5, 0.5], champion={"predictions": [0.1, 0.1]}, tolerance=tolerance)
    result = found.judge({"predictions": [0.5, 10**400]}, 0.01)

    assert result.attribution is Attribution.NEITHER
    assert "row 2 of 2: expected 0.5, got 1000" in result.wrong


def test_an_expectation_whose_result_is_neither_true_nor_false_is_a_fault() -> None:
    def holds(_predictions: object, _rows: object) -> Any:
        return np.array([True, False])

    checks = Checks(expect=Expectation("both", holds))
    result = Judge(checks, Probe({"instances": [[0], [1]]})).judge({"predictions": [1, 2]}, 0.01)

    assert result.wrong.startswith("answers otherwise than expected: both raised ValueError")


@pytest.mark.parametrize(("tolerance", "expected"), [(0.01, True), (0.0001, False)])
def test_the_tolerance_is_for_numbers(tolerance: float, expected: bool) -> None:
    assert same([1.0, "a", 3], [1.001, "a", 3], tolerance) is expected
    assert not same(["a"], ["b"], 10)
    assert not same([3], [4], 10), "whole numbers are labels, more often than not"


def judge(recorded: list[Any] | None, champion: Any = None, **verification: Any) -> Judge:
    """Build the judge of version 2; the champion is its answer, or its version alone."""
    return Judge(
        Verification(**verification).checks(),
        Probe({"instances": [[0], [1]]}, recorded),
        version=2,
        champion=champion if isinstance(champion, dict) else None,
        champion_version=champion if isinstance(champion, int) else None,
    )


def attribution(judge: Judge, **answer: Any) -> Attribution:
    return judge.judge(answer, 0.01).attribution


def wrong(judge: Judge, seconds: float = 0.01, **answer: Any) -> str:
    return judge.judge(answer, seconds).wrong


@pytest.mark.parametrize(
    ("answer", "champion", "expected"),
    [
        ([2], [1], Attribution.CHALLENGER),
        ([1], [1], Attribution.CHAMPION),
        ([3], [1], Attribution.NEITHER),
        ([2], [2], Attribution.UNKNOWN),
        ([3], [2], Attribution.NEITHER),
        ([2], None, Attribution.CHALLENGER),
        ([1], None, Attribution.NEITHER),
    ],
)
def test_attribution_by_the_recorded_predictions(
    answer: list[int], champion: list[int] | None, expected: Attribution
) -> None:
    before = None if champion is None else {"predictions": champion, "took": 7}
    result = judge([2], before).judge({"predictions": answer}, 0.01)

    assert result.attribution is expected
    assert ("otherwise than recorded" in result.wrong) is (expected is Attribution.NEITHER)


@pytest.mark.parametrize(
    ("recorded", "answer", "where"),
    [
        ([1, 2, 3], [1, 5, 6], "row 2 of 3: expected 2, got 5"),
        ([[1.0]], [[1.5]], "row 1 of 1: expected [1.0], got [1.5]"),
        ([1, 2], [1], "expected 2 predictions, got 1"),
        ([1], "no", "expected [1], got 'no'"),
        (["a"], ["b" * 999], "..."),
    ],
)
def test_the_first_difference_is_shown(recorded: list[Any], answer: Any, where: str) -> None:
    said = wrong(judge(recorded), predictions=answer)

    assert said.endswith(where)
    assert len(said) < 400


def test_without_recorded_predictions_the_version_is_unknown() -> None:
    assert attribution(judge(None), predictions=[1]) is Attribution.UNKNOWN


@pytest.mark.parametrize(
    ("says", "champion", "expected"),
    [
        (2, 1, Attribution.CHALLENGER),
        ("2", 1, Attribution.CHALLENGER),
        (1, 1, Attribution.CHAMPION),
        (7, 1, Attribution.NEITHER),
        (2, None, Attribution.CHALLENGER),
        (1, None, Attribution.NEITHER),
        # The previous version was probed: its answer counts, even without a version or with a custom one.
        (2, {"predictions": [1]}, Attribution.CHALLENGER),
        ("v1", {"predictions": [1], "model": {"version": "v1"}}, Attribution.CHAMPION),
        # The same version in another configuration cannot be told apart.
        (2, {"predictions": [1], "model": {"version": 2}}, Attribution.UNKNOWN),
        (2, 2, Attribution.UNKNOWN),
    ],
)
def test_attribution_by_the_version_in_the_answer(says: Any, champion: Any, expected: Attribution) -> None:
    one = judge(None, champion, version_path="model.version")
    result = one.judge({"predictions": [1], "model": {"version": says}}, 0.01)

    assert result.attribution is expected
    assert bool(result.wrong) is (expected is Attribution.NEITHER)


@pytest.mark.parametrize("answer", [{}, {"model": None}, {"model": "2"}, {"model": {"versions": 2}}])
def test_an_answer_without_a_version(answer: dict[str, Any]) -> None:
    """The previous version's script may have given it; the path may also be wrong."""
    result = judge(None, {"predictions": [1]}, version_path="model.version").judge(answer, 0.01)

    assert result == ProbeResult(Attribution.UNKNOWN, "answers without a model version at 'model.version'")


@pytest.mark.parametrize(
    ("says", "predictions", "expected", "is_wrong"),
    [
        (2, [2], Attribution.CHALLENGER, False),
        (2, [1], Attribution.CHALLENGER, True),
        (2, [3], Attribution.CHALLENGER, True),
        (1, [1], Attribution.CHAMPION, False),
        (1, [3], Attribution.CHAMPION, False),
        (1, [2], Attribution.NEITHER, True),
        (7, [3], Attribution.NEITHER, True),
    ],
)
def test_version_and_predictions_must_both_be_right(
    says: int, predictions: list[int], expected: Attribution, is_wrong: bool
) -> None:
    before = {"predictions": [1], "version": 1}
    result = judge([2], before, version_path="version").judge({"predictions": predictions, "version": says}, 0.01)

    assert (result.attribution, bool(result.wrong)) == (expected, is_wrong)


@pytest.mark.parametrize(
    ("expect", "predictions", "is_right"),
    [
        ("finite", [1.0, 2], True),
        ("finite", [{"label": "a", "scores": [0.1, 0.9]}], True),
        ("finite", [1.0, float("nan")], False),
        ("finite", [[1.0, float("-inf")]], False),
        ("finite", [1.0, None], False),
        ("finite", None, False),
        ("same_length", [1, 2], True),
        ("same_length", [1], False),
        ("same_length", 2, False),
        ("equal", [1], True),
    ],
)
def test_built_in_expectations(expect: str, predictions: Any, is_right: bool) -> None:
    assert (wrong(judge(None, expect=expect), predictions=predictions) == "") is is_right


def test_columns_have_a_length() -> None:
    one = judge(None, expect="same_length")
    one.probe = Probe({"inputs": {"x": [1, 2, 3], "name": "a"}})

    assert wrong(one, outputs=[1, 2, 3]) == ""
    assert "same_length returned False" in wrong(one, outputs=[1])


def below_ten(predictions: list[int], rows: list[Any]) -> bool:
    """Check predictions as a user's own function."""
    return all(one < 10 for one in predictions) and rows == [[0], [1]]


def asserts_one(predictions: list[int], _rows: list[Any]) -> None:
    """Check predictions with an assert, as in a test."""
    assert predictions == [1], f"expected 1, got {predictions}"


def test_a_user_function() -> None:
    one = judge(None, expect=f"{__name__}.below_ten")

    assert wrong(one, predictions=[1, 2]) == ""
    assert f"{__name__}.below_ten returned False for [11, 2]" in wrong(one, predictions=[11, 2])


def test_a_user_function_that_raises() -> None:
    one = judge(None, expect=f"{__name__}.asserts_one")

    assert wrong(one, predictions=[1]) == ""
    assert "asserts_one raised AssertionError: expected 1, got [2]" in wrong(one, predictions=[2])


def test_too_slow() -> None:
    one = judge(None, max_latency_ms=50)

    assert wrong(one, 0.05, predictions=[1]) == ""
    assert wrong(one, 0.0511, predictions=[1]) == "answered in 51 ms; 50 ms are allowed"


@pytest.mark.parametrize(
    ("champion", "version_path", "can_be_old", "expected"),
    [
        ({"predictions": [1]}, None, True, True),
        (None, None, True, False),
        (None, None, False, True),
        (None, "version", True, True),
    ],
)
def test_is_fingerprint(champion: Any, version_path: str | None, can_be_old: bool, expected: bool) -> None:
    one = judge([2], champion, version_path=version_path)

    assert one.is_fingerprint(Attribution.CHALLENGER, can_be_old=can_be_old) is expected
    assert not one.is_fingerprint(Attribution.UNKNOWN, can_be_old=can_be_old)


@pytest.mark.parametrize(("answer", "right"), [([7], True), ([8], False), (None, False), (7, False), ("7", False)])
def test_an_answer_that_is_no_object(answer: Any, *, right: bool) -> None:
    """It is the predictions themselves."""
    result = judge([7]).judge(answer, 0.01)

    assert (result.attribution is Attribution.CHALLENGER, not result.wrong) == (right, right)
    assert judge([7], version_path="version").judge(answer, 0.01).wrong.startswith("answers without a model version")


def test_a_key_in_a_models_answer_is_removed_before_the_answer_is_cut() -> None:
    """The rest of a key that was cut would not be recognised."""
    hide("prefix.secretpart-of-judge")
    echoed = "x" * 180 + "prefix.secretpart-of-judge"
    judge = Judge(Verification().checks(), Probe({"instances": [[1]]}, [1]))

    assert "secretp" not in judge.judge([echoed], 0.1).wrong
    assert "secretp" not in judge.judge({"predictions": echoed}, 0.1).wrong
