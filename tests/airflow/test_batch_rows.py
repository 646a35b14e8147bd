"""Rows of Arrow as requests: the same as those of the same rows in Python, whatever the types and values."""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks.batches import _batches
from airflow_provider_hsml.hopsworks.batch.rows import BadRow, Columns, Prepared, RowForm
from airflow_provider_hsml.hopsworks.domain.records import Shape
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

pa = pytest.importorskip("pyarrow", reason="tables are read with pyarrow")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    "large text": (pa.large_string(), ["a", None, 'a "quote"']),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["a", None, 'a "quote"', "a"]),
    "lists": (pa.list_(pa.float64()), [[1.0, 2.5], [], None, [None, 3.0]]),
    "lists beyond JSON": (pa.list_(pa.float64()), [[1.0], [NAN, 2.0], [3.0]]),
    "large lists": (pa.large_list(pa.int32()), [[1, 2], [], None]),
    "lists of one length": (pa.list_(pa.int64(), 2), [[1, 2], [3, 4]]),
    "nested lists": (pa.list_(pa.list_(pa.string())), [[["a"], ["b", 'c"']], [[]], None, [["d"]]]),
}
if int(pa.__version__.partition(".")[0]) >= 26:  # pyarrow 17 makes no text of these.
    BY_COLUMN["views of text"] = (pa.string_view(), ["a", None, 'a "quote"', "text of more than twelve bytes"])
    BY_COLUMN["dictionary of views"] = (pa.dictionary(pa.uint32(), pa.string_view()), ["a", None, "b", "a"])
    BY_COLUMN["large dictionary"] = (pa.dictionary(pa.int32(), pa.large_string()), ["a", None, "b"])
BY_ROW: dict[str, tuple[Any, list[Any]]] = {
    "half": (pa.float16(), [1.5, None]),
    "dictionary of numbers": (pa.dictionary(pa.int8(), pa.int64()), [1, 2, 1]),
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


def array(kind: Any, values: list[Any]) -> Any:
    """Make a column; pyarrow makes no dictionary of views by itself."""
    if not (pa.types.is_dictionary(kind) and pa.types.is_string_view(kind.value_type)):
        return pa.array(values, kind)
    words = sorted(set(values) - {None})
    places = pa.array([None if value is None else words.index(value) for value in values], kind.index_type)
    return pa.DictionaryArray.from_arrays(places, pa.array(words, kind.value_type))


def table(kind: Any, values: list[Any]) -> TableRows:
    """Make a table with rows before and after, so that nothing begins at its first place."""
    from airflow_provider_hsml.hooks.arrow_rows import TableRows

    padded = [values[0], *values, values[0]]
    batch = pa.record_batch({"id": list(range(-1, len(values) + 1)), "x": array(kind, padded)})
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


def test_a_large_batch_is_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_hsml.hooks import arrow_rows

    sizes: list[int] = []
    make = arrow_rows._rows

    def measured(columns: Any, kind: str) -> Any:
        sizes.append(len(columns["x"]))
        return make(columns, kind)

    monkeypatch.setattr(arrow_rows, "_rows", measured)
    rows = arrow_rows.TableRows.of(pa.record_batch({"x": list(range(10_000))}))

    assert len(rows) == 10_000
    assert rows[4090:4100].texts({"x": "x"}, "value") == [str(number) for number in range(4090, 4100)]
    assert sizes == [4096, 4096]


def test_text_of_which_pyarrow_makes_no_other_is_read_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise pa.ArrowNotImplementedError("Unsupported cast")

    monkeypatch.setattr("pyarrow.compute.cast", refuse)

    rows = table(pa.large_string(), ["a", None])
    assert [row["x"] for row in rows] == ["a", None]
    assert rows.texts({"x": "x"}, "value") is None


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


class Frame:
    """A frame as of pandas before 2.2: iterating over it gives the names of its columns."""

    def __init__(self, **columns: list[Any]) -> None:
        self.values = columns

    @property
    def columns(self) -> list[str]:
        return list(self.values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def itertuples(self, *, index: bool, name: str | None) -> Iterator[tuple[Any, ...]]:
        raise NotImplementedError

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return [dict(zip(self.values, row, strict=True)) for row in zip(*self.values.values(), strict=True)]


class StreamedFrame(Frame):
    """A frame as of pandas since 2.2, which streams its index as a column."""

    index = "__index_level_0__"

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        table = pa.table({**self.values, self.index: list(range(7, 7 + len(self.values["x"])))})
        stored = {b"pandas": json.dumps({"index_columns": [self.index, {"kind": "range"}]}).encode()}
        return table.replace_schema_metadata(stored).__arrow_c_stream__(requested_schema)


class NamedFrame(StreamedFrame):
    index = "customer"


class OldPolars:
    """A frame as of polars before 1.3."""

    def __init__(self, **columns: list[Any]) -> None:
        self.frame = Frame(**columns)

    @property
    def columns(self) -> list[str]:
        return self.frame.columns

    def to_dicts(self) -> list[dict[str, Any]]:
        return self.frame.to_dict("records")


class Mixed(Frame):
    """A frame with a column of several types."""

    def __arrow_c_stream__(self, _requested_schema: object = None) -> object:
        return pa.array([1, "secret"])


FRAMES: dict[str, Callable[..., Any]] = {
    "pandas before 2.2": Frame,
    "pandas": StreamedFrame,
    "pandas with a named index": NamedFrame,
    "polars before 1.3": OldPolars,
    "table": lambda **columns: pa.table(columns),
    "table in pieces": lambda **columns: pa.concat_tables([pa.table(columns).slice(0, 1), pa.table(columns).slice(1)]),
    "batch": lambda **columns: pa.record_batch(columns),
    "reader": lambda **columns: pa.table(columns).to_reader(),
}


class TestTablesAsBatches:
    """A frame is its rows, alone and as a batch: never the names of its columns."""

    @pytest.mark.parametrize("name", FRAMES)
    def test_rows_of_frames(self, name: str) -> None:
        def frame(*values: int) -> Any:
            return FRAMES[name](x=list(values), y=[2 * value for value in values])

        found = [list(rows) for rows in _batches([frame(1, 2, 3), frame(4), [{"x": 5}]])]

        assert found == [
            [{"x": 1, "y": 2}, {"x": 2, "y": 4}, {"x": 3, "y": 6}],
            [{"x": 4, "y": 8}],
            [{"x": 5}],
        ]
        assert [row for rows in _batches(frame(1, 2)) for row in rows] == [{"x": 1, "y": 2}, {"x": 2, "y": 4}]

    def test_a_table_without_rows(self) -> None:
        empty = pa.schema([("x", pa.int64())]).empty_table()

        assert [list(rows) for rows in _batches([empty, [[1]]])] == [[], [[1]]]

    def test_arrays_are_rows(self) -> None:
        arrays = [pa.array([[1], [2]]), pa.chunked_array([[3], [4]])]

        assert list(_batches(arrays)) == [[[1], [2]], [3, 4]]

    @pytest.mark.parametrize("is_alone", [True, False])
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (Mixed(x=[1, "secret"]), "Mixed cannot be read as a table of Arrow"),
            (type("Frame", (Frame,), {"columns": ["x", "x"]})(), "expected columns with different names"),
            (type("Lazy", (), {"columns": ["x"]})(), "expected rows, or a frame in memory"),
            (StreamedFrame(x=[1]), "need pyarrow, which is not installed"),
        ],
    )
    def test_frames_without_rows(
        self, monkeypatch: pytest.MonkeyPatch, value: Any, message: str, *, is_alone: bool
    ) -> None:
        if "pyarrow" in message:
            monkeypatch.setitem(sys.modules, "pyarrow", None)
            for module in ("arrow_files", "arrow_rows"):
                monkeypatch.delitem(sys.modules, f"airflow_provider_hsml.hooks.{module}", raising=False)

        with pytest.raises(InvalidInputError, match=message) as caught:
            list(_batches(value if is_alone else [value]))
        assert "secret" not in str(caught.value)
