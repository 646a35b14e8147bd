"""Rows and other values as plain JSON, from whatever libraries users have."""

from __future__ import annotations

import json
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks import untrusted_text
from airflow_provider_hsml.hopsworks.domain import plain
from airflow_provider_hsml.hopsworks.domain.verification import request_body
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, UnexpectedResponseError

numpy: Any = pytest.importorskip("numpy")
NAN, INFINITY = float("nan"), float("inf")


class Lazy(Sequence[Any]):
    """A sequence like those of Airflow's mapped tasks."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


class Pandas:
    """A frame with the methods of pandas' that are used."""

    columns = ("b", "a")

    def __init__(self, *rows: tuple[Any, ...]) -> None:
        self._rows = rows

    def itertuples(self, *, index: bool, name: str | None) -> Iterator[tuple[Any, ...]]:
        assert (index, name) == (False, None)
        return iter(self._rows)


class Polars:
    """A frame with the methods of polars' that are used."""

    columns = ("b", "a")

    def __init__(self, *rows: tuple[Any, ...]) -> None:
        self._rows = rows

    def rows(self) -> list[tuple[Any, ...]]:
        return list(self._rows)


class Column:
    """A column of a library, by the method that it has."""

    def __init__(self, method: str, *items: Any) -> None:
        setattr(self, method, lambda: list(items))


class Arrow:
    """A table with the methods of Arrow's that are used."""

    columns = (Column("to_pylist", 1, 3), Column("to_pylist", 2, 4))

    def to_pylist(self) -> list[dict[str, Any]]:
        raise AssertionError("rows by name, which a model that takes lists does not know")


class Missing(datetime):
    """The missing date of pandas: it does not equal itself."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = datetime.__hash__


class OwnArray(numpy.ndarray):  # type: ignore[misc]
    """An array of a class of its own."""


class Whole(list[Any]):
    """A list of its own kind."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([[1, 2.5, "text", None, True]], [[1, 2.5, "text", None, True]]),
        (((1, 2), (3, 4)), [[1, 2], [3, 4]]),
        (Whole([[1]]), [[1]]),
        (deque([(1,)]), [[1]]),
        (range(2), [0, 1]),
        (Lazy(Lazy(1, 2), [3, 4]), [[1, 2], [3, 4]]),
        (numpy.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (numpy.array([[1.5]], dtype="float32"), [[1.5]]),
        (numpy.array([True]), [True]),
        (numpy.array(["a"]), ["a"]),
        (numpy.array([[1, "a"], [None, 2.5]], dtype=object), [[1, "a"], [None, 2.5]]),
        ([[numpy.int64(1), numpy.float32(2.5), numpy.bool_(True), numpy.str_("a")]], [[1, 2.5, True, "a"]]),
        ([numpy.longdouble(1.5)], [1.5]),
        ([numpy.array([1, 2]), numpy.array([3])], [[1, 2], [3]]),
        (numpy.array(["2026-01-02", "2026-01-03"], "datetime64[ns]"), ["2026-01-02T00:00:00", "2026-01-03T00:00:00"]),
        ([numpy.datetime64("2026-01-02T03:04")], ["2026-01-02T03:04:00"]),
        (Pandas((1, 2), (3, numpy.int64(4))), [[1, 2], [3, 4]]),
        (Polars((1, 2), (3, None)), [[1, 2], [3, None]]),
        (Arrow(), [[1, 2], [3, 4]]),
        (Column("to_list", 1, 2), [1, 2]),
        (Column("tolist", 1, 2), [1, 2]),
        ({"a": (1,), "b": numpy.array([2])}, {"a": [1], "b": [2]}),
        ([{"age": numpy.int64(3)}], [{"age": 3}]),
        (
            [datetime(2026, 1, 2, 3, tzinfo=UTC), date(2026, 1, 2), time(3)],
            ["2026-01-02T03:00:00+00:00", "2026-01-02", "03:00:00"],
        ),
        ([Decimal("1.10"), Decimal(12), Decimal("1E+2")], [1.1, 12, 100]),
        ([2**64], [2**64]),
    ],
    ids=lambda it: type(it).__name__,
)
def test_what_is_sent(given: Any, expected: Any) -> None:
    found = plain.plain("instances", given)

    assert found == expected
    assert json.loads(json.dumps(found, allow_nan=False)) == expected
    assert [type(one) for one in _leaves(found)] == [type(one) for one in _leaves(expected)] or "str_" in repr(given)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    else:
        yield value


_cycle: list[Any] = []
_cycle.append(_cycle)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1.0], [NAN]], r"instances\[1\]\[0\]: expected plain JSON values, got nan \(row 1, the first is row 0\)"),
        ([{"age": -INFINITY}], r"instances\[0\]\.age: .* got -inf \(row 0"),
        ([{"the age": INFINITY}], r"instances\[0\]\['the age'\]: .* got inf"),
        (numpy.array([[1.0], [2.0], [NAN]]), r"instances\[2\]\[0\]: .* got nan \(row 2"),
        (numpy.array([1, NAN], "float16"), r"instances\[1\]: .* got nan"),
        ([numpy.float32(NAN)], r"instances\[0\]: .* got nan"),
        ([numpy.longdouble(NAN)], r"instances\[0\]: .* got nan"),
        (Pandas((1,), (NAN,)), r"instances\[1\]\[0\]: .* got nan \(row 1"),
        ([Decimal("NaN")], r"instances\[0\]: .* got nan"),
        ([Decimal("sNaN")], r"instances\[0\]: .* got nan"),
        ([Decimal("-Infinity")], r"instances\[0\]: .* got -inf"),
        ([Decimal("1e400") * Decimal("1.1")], r"instances\[0\]: .* got (inf|so long an integer)"),
        ([Missing(2026, 1, 1)], r"instances\[0\]: .* got a missing date"),
        (numpy.array(["2026-01-01", "NaT"], "datetime64[s]"), r"instances\[1\]: .* got a missing date \(row 1"),
        ([numpy.datetime64("NaT")], r"instances\[0\]: .* got a missing date"),
        ([[b"x"]], r"instances\[0\]\[0\]: .* got bytes \(row 0.*\n.*base64"),
        ([bytearray(b"x")], r"instances\[0\]: .* got bytes"),
        (numpy.array([b"x"]), r"instances\[0\]: .* got bytes"),
        ([object()], r"instances\[0\]: .* got a value of the type object"),
        ([{1, 2}], "a value of the type set"),
        ((one for one in (1, 2)), "a value of the type generator"),
        ([timedelta(1)], "a value of the type timedelta"),
        (numpy.array([1], "timedelta64[s]"), "a time difference"),
        ([1j], "a value of the type complex"),
        (numpy.array([1j]), "a complex number"),
        ([numpy.clongdouble(1j)], r"instances\[0\]: .* got a complex number"),
        (numpy.ma.array([1, 2], mask=[0, 1]), "masked values"),
        (numpy.array([5], "m8[s]").view(OwnArray), "a time difference"),
        (numpy.array(["20000-01-01"], "M8[D]"), "a date outside of the years 1 to 9999"),
        ([{1: 2}], "the key 1"),
        ([10**5000], "so long an integer"),
        (_cycle, "nested too deeply, or hold themselves"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_what_is_refused_by_its_place(given: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=f"(?s){message}"):
        plain.plain("instances", given)


@pytest.mark.parametrize(
    "none",
    [[], (), {}, None, numpy.zeros((0, 3)), Pandas(), Polars(), Lazy(), "[]", "{}"],
    ids=lambda it: it if isinstance(it, str) else type(it).__name__,
)
def test_no_rows(none: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"instances: expected at least one row, got no rows"):
        plain.rows("instances", none)


class TestText:
    def test_is_read_as_json(self) -> None:
        assert plain.rows("instances", ' [[1, "a", "[2]"]] ') == [[1, "a", "[2]"]]

    def test_inside_of_a_list_is_not(self) -> None:
        assert plain.rows("instances", [["[1]", "null", "NaN"], "{}"]) == [["[1]", "null", "NaN"], "{}"]

    @pytest.mark.parametrize("text", ["great film", "", "{", "[1,]", "[" * 100_000, "None", "9" * 5000])
    def test_that_is_no_json(self, text: str) -> None:
        with pytest.raises(InvalidInputError, match=r'(?s)instances: .*is no JSON.\n.*\[\["great film"\]\]') as caught:
            plain.rows("instances", text)
        assert len(str(caught.value)) < 300

    def test_with_nan(self) -> None:
        with pytest.raises(InvalidInputError, match=r"instances\[0\]\[0\]: .* got nan"):
            plain.rows("instances", "[[NaN]]")

    def test_null(self) -> None:
        with pytest.raises(InvalidInputError, match="got the JSON text 'null'"):
            plain.rows("instances", "null")


class TestRequests:
    def test_of_each_argument(self) -> None:
        assert request_body("", instances=((1, 2),)) == {"instances": [[1, 2]]}
        assert request_body("", instances=Pandas((1, 2))) == {"instances": [[1, 2]]}
        assert request_body("", inputs=(1, 2)) == {"instances": [[1, 2]]}
        assert request_body("", inputs=numpy.array([[1], [2]])) == {"instances": [[1], [2]]}
        assert request_body("", inputs={"a": numpy.int64(1)}) == {"instances": [{"a": 1}]}
        assert request_body("", payload='{"inputs": "great film"}') == {"inputs": "great film"}
        assert request_body("") is None

    def test_a_payload_is_sent_as_it_stands(self) -> None:
        payload = {"instances": {"a": [1, 2]}, "parameters": {"k": "[1]"}}

        assert request_body("", payload=payload) == payload
        assert request_body("", payload={"instances": "[1]"}) == {"instances": "[1]"}

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"instances": [[1]], "inputs": [1]}, "x.instances and x.inputs: expected only one of"),
            ({"instances": [[NAN]]}, r"x.instances\[0\]\[0\]: .* got nan"),
            ({"inputs": {"a": INFINITY}}, r"x.inputs.a: .* got inf"),
            ({"payload": {"instances": [[NAN]]}}, r"x.payload.instances\[0\]\[0\]: .* got nan"),
            ({"instances": {"a": 1}}, "x.instances: expected a list"),
            ({"instances": 5}, "x.instances: expected a list"),
            ({"instances": []}, "x.instances: expected at least one row"),
            ({"inputs": []}, "x.inputs: expected at least one row"),
            ({"inputs": "great film"}, "x.inputs: .*is no JSON"),
            ({"payload": {"instances": []}}, "x.payload.instances: expected at least one row"),
            ({"payload": {"instances": None}}, "x.payload.instances: expected at least one row"),
            ({"payload": {}}, "exactly one of the keys"),
            ({"payload": {"instances": [1], "inputs": [1]}}, "exactly one of the keys"),
            ({"payload": [[1]]}, "x.payload: expected a mapping"),
            ({"payload": "great film"}, "x.payload: .*is no JSON"),
        ],
    )
    def test_what_cannot_be_sent(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            request_body("x.", **given)


RECORDS = numpy.array(
    [(1, "x", numpy.datetime64("2026-01-02", "ns"))], dtype=[("a", int), ("b", "U3"), ("d", "datetime64[ns]")]
)


def test_records_of_a_structured_array_are_rows() -> None:
    row = [1, "x", "2026-01-02T00:00:00"]

    assert plain.rows("instances", RECORDS) == [row]
    assert plain.rows("instances", RECORDS.view(numpy.recarray)) == [row]
    assert plain.rows("instances", list(RECORDS)) == [row]
    assert type(plain.rows("instances", list(RECORDS))[0][1]) is str


def test_dates_in_an_array_of_a_class_of_its_own() -> None:
    dates = numpy.array(["2026-01-02"], "M8[ns]")

    assert plain.rows("instances", dates.view(OwnArray)) == ["2026-01-02T00:00:00"]
    assert plain.rows("instances", numpy.ma.array(dates, mask=[0])) == ["2026-01-02T00:00:00"]


@pytest.mark.parametrize(
    ("given", "expected", "count"),
    [
        ([2**63, -(2**63), 2**64], [2**63, -(2**63), str(2**64)], 1),
        ({"a": "\ud800"}, {"a": "\\ud800"}, 1),
        (["\U0001f40d", "\x1b\x00"], ["\U0001f40d", "\x1b\x00"], 0),
        ({"predictions": [1.0, NAN, [INFINITY, "NaN"]]}, {"predictions": [1.0, None, [None, "NaN"]]}, 2),
        ([NAN], [None], 1),
        (-INFINITY, None, 1),
        ({"a": 1, "b": None, "c": True}, {"a": 1, "b": None, "c": True}, 0),
    ],
)
def test_nan_on_the_way_to_xcom(given: Any, expected: Any, count: int) -> None:
    assert plain.finite(given) == (expected, count)


def test_values_of_a_list_are_those_of_each_alone() -> None:
    """Lists of numbers are looked at as a whole."""
    values: list[Any] = [1, 2.5, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 1e308, -1e308, 5e-324, 1e19, 10**400]
    values += [NAN, INFINITY, -INFINITY, True, None, "a", [1], [NAN]]
    source = random.Random(7)  # noqa: S311 - no secret
    for _ in range(5000):
        given = source.choices(values, k=source.randrange(5))
        alone = [plain.finite(one) for one in given]
        assert repr(plain.finite(given)) == repr(([one for one, _ in alone], sum(count for _, count in alone)))


def test_a_key_in_a_response_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some models answer with the headers of their request."""
    monkeypatch.setattr(untrusted_text, "_hidden", {})
    untrusted_text.hide("prefix.secret-part-1")

    assert plain.finite({"headers": ["ApiKey prefix.secret-part-1"]}) == ({"headers": ["ApiKey ***"]}, 0)


@pytest.mark.parametrize("levels", [101, 5000])
def test_a_response_that_nests_too_deeply(levels: int) -> None:
    deep: Any = 1
    for _ in range(levels):
        deep = [deep]

    with pytest.raises(UnexpectedResponseError, match="nests deeper than 100 levels"):
        plain.finite(deep)


def test_large_lists_take_little_time() -> None:
    rows = [[float(number)] * 10 for number in range(20_000)]

    assert plain.plain("instances", rows) == rows
    assert math.isfinite(rows[0][0])
