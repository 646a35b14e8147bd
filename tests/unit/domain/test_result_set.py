"""Result sets: written and read again, and what is none."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
from airflow_provider_hsml.hopsworks.domain.result_set import ResultSet
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

LINE = {"row": {"a": 1}, "prediction": 2}
NOT_FINITE = {"row": {"a": 4}, "prediction": [0.5, float("nan")]}
HEADER = {"model_name": "churn", "model_version": 3}


def test_what_is_written_is_read_again() -> None:
    rows = [{"a": 1}, {"a": 2}]
    results = ResultSet(
        ServedVersion("demo", "churn", 3), rows, [0.5, None], {1: "too old"}, [0.1], "2026-11-01T00:00:00+00:00", "f"
    )

    assert ResultSet.read("champion_results", results.header(), results.lines()) == results


def test_another_program_needs_to_name_the_version_alone() -> None:
    results = ResultSet.read("x", HEADER, [LINE, {"row": {"a": 2}}, {"row": {"a": 3}, "refused": "no"}, NOT_FINITE])

    assert results.served == ServedVersion(None, "churn", 3)
    assert results.predictions == [2, None, None, None]
    assert results.refused == {1: "there is no prediction", 2: "no", 3: "there is no prediction"}


@pytest.mark.parametrize("odd", [memoryview(b""), [[]], 0, {"": 1}])
def test_a_text_of_another_type_is_left_out(odd: object) -> None:
    results = ResultSet.read("x", HEADER | {"fingerprint": odd}, [LINE, {"row": {"a": 2}, "refused": odd}])

    assert (results.fingerprint, results.refused) == ("", {1: "there is no prediction"})


def test_a_prediction_with_a_key_that_is_no_text_is_kept() -> None:
    assert ResultSet.read("x", HEADER, [{"row": {"a": 1}, "prediction": {("a",): 1}}]).predictions == [{("a",): 1}]


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        ([], [LINE], "expected a mapping"),
        ({}, [LINE], "x.model_name None: expected letters"),
        (HEADER | {"model_version": 0}, [LINE], "x.model_version: expected a whole number of 1 or more"),
        (HEADER | {"model_project": 3}, [LINE], "x.model_project: expected a text"),
        (HEADER | {"rows": 2}, [LINE], "expected 2 rows, got 1"),
        (HEADER | {"rows": [1, 2]}, [LINE], "x.rows: expected a whole number"),
        (HEADER, [], "expected rows, got 0"),
        (HEADER, [["Ann"]], "x, row 0: expected an object .*, got 'list'\\."),
        (HEADER, [LINE, {"rows": {"name": "Ann"}}], "x, row 1: expected an object .*, got {'rows': 'dict'}\\."),
        (HEADER, [LINE] * 4, "expected at most 3 rows, got more"),
        (HEADER | {"latencies": 3}, [LINE], "x.latencies: expected a list"),
        (HEADER | {"latencies": ["fast"]}, [LINE], "x.latencies: expected a finite number"),
        (HEADER | {"trained_until": 3}, [LINE], "x.trained_until: expected a text"),
    ],
)
def test_what_is_none(header: Any, lines: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ResultSet.read("x", header, lines, most=3)
