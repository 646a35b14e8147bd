"""Rows of Arrow as requests: the same as those of the same rows in Python, whatever the types and values."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.batch.rows import BadRow, Columns, Prepared, RowForm
from airflow_provider_hsml.hopsworks.domain.records import Shape

pa = pytest.importorskip("pyarrow", reason="tables are read with pyarrow")

if TYPE_CHECKING:
    from airflow_provider_hsml.hooks.arrow_rows import TableRows

pytestmark = pytest.mark.airflow

NAN, INFINITY = float("nan"), float("inf")
MOMENT = dt.datetime(2026, 11, 29, 6, tzinfo=dt.UTC)
BY_COLUMN: dict[str, tuple[Any, list[Any]]] = {
    "int64": (pa.int64(), [1, None, -(2**63), 2**63 - 1]),
    "uint64": (pa.uint64(), [0, 2**64 - 1]),
    "int8": (pa.int8(), [-128, None]),
    "double": (pa.float64(), [0.1, 1.0, -0.0, 1e15, 1e16, 1e-7, 5e-324, 1.7976931348623157e308, 123456789.0, None]),
    "double beyond JSON": (pa.float64(), [1.5, NAN, INFINITY, -INFINITY, None, 2.0]),
    "float": (pa.float32(), [0.1, 16777216.0, None, 3.4028234663852886e38]),
    "boolean": (pa.bool_(), [True, False, None]),
    "text": (
        pa.string(),
        ["plain", "", None, 'a "quote"', "a\\b", "new\nline", "\x00\x1f\x7f", "zoë \u2028 \U0001f600"],
    ),
    "lists": (pa.list_(pa.float64()), [[1.0, 2.5], [], None, [None, 3.0]]),
    "lists beyond JSON": (pa.list_(pa.float64()), [[1.0], [NAN, 2.0], [3.0]]),
    "large lists": (pa.large_list(pa.int32()), [[1, 2], [], None]),
    "lists of one length": (pa.list_(pa.int64(), 2), [[1, 2], [3, 4]]),
    "nested lists": (pa.list_(pa.list_(pa.string())), [[["a"], ["b", 'c"']], [[]], None, [["d"]]]),
}
BY_ROW: dict[str, tuple[Any, list[Any]]] = {
    "half": (pa.float16(), [1.5, None]),
    "large text": (pa.large_string(), ["a", None]),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a"]),
    "decimal": (pa.decimal128(10, 2), [Decimal("2.50"), None]),
    "date": (pa.date32(), [dt.date(2026, 11, 29)]),
    "timestamp": (pa.timestamp("us", "UTC"), [MOMENT, None]),
    "struct": (pa.struct([("a", pa.int64())]), [{"a": 1}, None]),
    "nothing": (pa.null(), [None, None]),
    "bytes": (pa.binary(), [b"x", None]),
}
COLUMNS = {**BY_COLUMN, **BY_ROW}
FORMS = {
    "values": (Columns({"x": "x"}), Shape(width=0)),
    "lists": (Columns({"x": "x", "id": "id"}), Shape(width=2)),
    "objects": (Columns({"id": 'the "id"', "x": "y"}, ("id",)), Shape()),
    "all": (Columns(None, ("x", "id")), Shape()),
}


def table(kind: Any, values: list[Any]) -> TableRows:
    """Make a table with rows before and after, so that nothing begins at its first place."""
    from airflow_provider_hsml.hooks.arrow_rows import TableRows

    padded = [values[0], *values, values[0]]
    batch = pa.record_batch({"id": list(range(-1, len(values) + 1)), "x": pa.array(padded, kind)})
    return TableRows.of(batch.slice(1, len(values)))


def both(form: RowForm, rows: TableRows) -> tuple[Prepared, Prepared]:
    return form.prepare(70, rows), form.prepare(70, list(rows))


def read(prepared: Prepared) -> list[Any]:
    """Return the rows that are sent, with the types of their values."""
    return [repr(json.loads(text)) for text in prepared.instances]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", COLUMNS)
def test_rows_are_those_of_python(name: str, form: str) -> None:
    kind, values = COLUMNS[name]
    columns, shape = FORMS[form]
    made = RowForm.build(columns, shape, {"id": 1, "x": values[0]}, row_format=None)

    by_column, by_row = both(made, table(kind, values))

    assert read(by_column) == read(by_row)
    assert list(by_column.places) == list(by_row.places)
    assert by_column.bad == by_row.bad
    kept = by_row.places if by_row.bad else range(len(values))
    for key in columns.keys:
        assert [by_column.keys[key][place] for place in kept] == [by_row.keys[key][place] for place in kept]


@pytest.mark.parametrize("name", COLUMNS)
def test_most_types_need_no_look_at_each_row(name: str) -> None:
    kind, values = COLUMNS[name]

    texts = table(kind, values).texts({"x": "x"}, "value")

    assert (texts is not None) is (name in BY_COLUMN)
    if texts is not None and not name.endswith("beyond JSON"):
        assert any(text is not None for text in texts)


def test_rows_beyond_json_are_named() -> None:
    form = RowForm.build(Columns({"id": "id", "x": "x"}), Shape(width=2), {"id": 1, "x": 1.0})

    prepared = form.prepare(70, table(*BY_COLUMN["double beyond JSON"]))

    assert {place: type(fault) for place, fault in prepared.bad.items()} == {1: BadRow, 2: BadRow, 3: BadRow}
    assert "nan" in prepared.bad[1].reason
    assert list(prepared.places) == [0, 4, 5]
    assert prepared.instances == ["[0, 1.5]", "[4, null]", "[5, 2.0]"]


def test_a_column_that_is_missing() -> None:
    form = RowForm.build(Columns({"y": "y"}), Shape(), {"id": 1})

    prepared = form.prepare(0, table(pa.int64(), [1, 2]))

    assert [(fault.field, fault.reason) for fault in prepared.bad.values()] == [("y", "the column is missing")] * 2


def test_rows_in_pieces() -> None:
    """Chunks do not begin where the batches do."""
    from airflow_provider_hsml.hooks.arrow_rows import TableRows

    rows = TableRows.of(pa.record_batch({"x": [0, 1, 2]}))
    for begin in range(3, 12, 3):
        rows += TableRows.of(pa.record_batch({"x": list(range(begin, begin + 3))}))

    for begin in range(12):
        for end in range(begin, 13):
            some = rows[begin:end]
            assert len(some) == end - begin
            assert [row["x"] for row in some] == list(range(begin, end))
            assert some.texts({"x": "x"}, "value") == [str(number) for number in range(begin, end)]
            assert some.keys(["x"]) == {"x": list(range(begin, end))}
            assert [row["x"] for row in some[1:]] == list(range(begin + 1, end))


@pytest.mark.parametrize("value", [1e300, 0.1, 1 / 3, math.pi, 2.0**70, 1e22, 123456.7, -1e-5, 100.0])
def test_numbers_are_read_as_the_same_ones(value: float) -> None:
    (text,) = table(pa.float64(), [value]).texts({"x": "x"}, "value") or []

    assert repr(json.loads(text or "")) == repr(value)
