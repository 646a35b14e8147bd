"""The readers of arguments: strict, whatever a DAG, a template or another task gives."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

numpy: Any = pytest.importorskip("numpy")


@pytest.mark.parametrize(
    ("given", "expected"), [(3, 3), ("3", 3), (" 3 ", 3), (numpy.int64(3), 3), (numpy.uint8(3), 3)]
)
def test_whole_numbers(given: Any, expected: int) -> None:
    found = arguments.integer("n", given, least=1)

    assert found == expected
    assert type(found) is int


@pytest.mark.parametrize(
    "given",
    [True, numpy.bool_(True), 1.0, numpy.float64(1), "1.0", "one", "", None, 0, "9" * 5000, [1], numpy.array([1])],
)
def test_what_is_no_whole_number(given: Any) -> None:
    with pytest.raises(InvalidInputError, match="n: expected a whole number of 1 or more"):
        arguments.integer("n", given, least=1)


@pytest.mark.parametrize("given", [0.5, "0.5", Decimal("0.5"), numpy.float32(0.5)])
def test_numbers(given: Any) -> None:
    found = arguments.number("n", given)

    assert found == 0.5
    assert type(found) is float


@pytest.mark.parametrize(
    "given",
    [
        True,
        numpy.bool_(True),
        "nan",
        "inf",
        float("nan"),
        Decimal("NaN"),
        Decimal("sNaN"),
        10**400,
        "1e999",
        None,
        "x",
        [1],
        numpy.array([1]),
    ],
)
def test_what_is_no_number(given: Any) -> None:
    with pytest.raises(InvalidInputError, match="n: expected a finite number"):
        arguments.number("n", given)


def test_flags() -> None:
    assert arguments.boolean("f", numpy.bool_(True)) is True
    assert arguments.boolean("f", "False") is False
    for given in (1, 0, "yes", "", None, numpy.int64(1)):
        with pytest.raises(InvalidInputError, match="f: expected true or false"):
            arguments.boolean("f", given)


def test_durations() -> None:
    assert arguments.seconds("timeout", timedelta(minutes=2)) == 120
    assert arguments.seconds("timeout", 1.5) == 1.5
    for given in (timedelta(seconds=-1), -1, "soon", None):
        with pytest.raises(InvalidInputError, match="timeout: expected a finite number of 0 or more"):
            arguments.seconds("timeout", given)


@pytest.mark.parametrize("name", ["approval", "pandas-inference-pipeline", "orders.v2", "a_b", "9"])
def test_names(name: str) -> None:
    assert arguments.resource_name("tag", name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "..", "../models", "a/b", "a b", "a\n", "-a", "ä", "a" * 300, None, 1, "a\u202e"]
)
def test_what_is_no_name(name: Any) -> None:
    with pytest.raises(InvalidInputError, match="tag: expected a name of letters"):
        arguments.resource_name("tag", name)


def test_tags() -> None:
    assert arguments.tags("tags", '{"team": {"size": 3}}') == {"team": {"size": 3}}
    assert arguments.tags("tags", {"team": numpy.int64(3)}) == {"team": 3}
    for given, message in (
        ({"a/b": 1}, "tags: expected a name"),
        ({"a": float("nan")}, "tags.a: .* got nan"),
        ("risk", 'tags: .*is no JSON.\nExpected {"team": "risk"}'),
        ("[1]", "tags: expected a mapping"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            arguments.tags("tags", given)
