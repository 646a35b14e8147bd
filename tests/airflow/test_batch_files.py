"""The files of a batch: Parquet, CSV and JSON lines; shards; results; and files that are no table."""

from __future__ import annotations

import errno
import gzip
import importlib
import io
import itertools
import json
import os
import urllib.request
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_hsml.hooks import json_lines
from airflow_provider_hsml.hooks.result_folder import JsonLines, ResultFolder
from airflow_provider_hsml.hooks.row_files import InputFile, RowFiles, _plain_path, check_apart, row_files
from airflow_provider_hsml.hopsworks.batch.progress import ResultRows
from airflow_provider_hsml.hopsworks.batch.rows import BadRow, Columns, RowForm
from airflow_provider_hsml.hopsworks.domain.records import Shape
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.tables import join_manifests, split_input

if TYPE_CHECKING:
    from collections.abc import Iterator

pa = pytest.importorskip("pyarrow", reason="tables are read with pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
arrow_files = importlib.import_module("airflow_provider_hsml.hooks.arrow_files")
csv_files = importlib.import_module("airflow_provider_hsml.hooks.csv_files")
ParquetFormat = arrow_files.ParquetFormat
pytestmark = pytest.mark.airflow

ROWS = [{"id": f"n{x}", "x": x / 2} for x in range(1000)]


def write(path: Path, rows: list[dict[str, Any]] | None = None, *, row_group_size: int = 100) -> Path:
    """Write rows into a file, in the format that its name says."""
    rows = ROWS if rows is None else rows
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
        return path
    if name.endswith(".csv"):
        text = "".join(f"{row['id']},{row['x']}\n" for row in rows)
        content = f"id,x\n{text}".encode()
    else:
        content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def read(given: Any, start: int = 0, size: int = 64) -> list[Any]:
    files = row_files(given)
    chunks = list(files.chunks(size, start))
    assert [first for first, _ in chunks] == list(range(start, files.total, size))
    assert all(len(rows) == size for _, rows in chunks[:-1])
    return [row for _, rows in chunks for row in rows]


NAMES = ("rows.jsonl", "rows.ndjson.gz", "rows.json", "rows.parquet", "rows.csv", "rows.csv.gz")


class TestRows:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("start", [0, 1, 99, 100, 640, 999])
    def test_rows_from_any_row_on(self, tmp_path: Path, name: str, start: int) -> None:
        assert read(str(write(tmp_path / name)), start) == ROWS[start:]

    @pytest.mark.parametrize("name", NAMES)
    def test_many_files(self, tmp_path: Path, name: str) -> None:
        for number in range(3):
            write(tmp_path / "table" / f"{number}-{name}", ROWS[number * 300 : number * 300 + 300])
        (tmp_path / "table" / "_SUCCESS").touch()
        (tmp_path / "table" / "notes.txt").write_text("no rows")
        paths = [str(tmp_path / "table" / f"{number}-{name}") for number in range(3)]

        for given in (
            tmp_path / "table",
            f"file://{tmp_path}/table",
            f"{tmp_path}/table/*-{name}",
            paths,
            tuple(paths),
            json.dumps(paths),
        ):
            assert read(given) == ROWS[:900]
        assert read(paths, 450) == ROWS[450:900]

    def test_row_groups(self, tmp_path: Path) -> None:
        path = write(tmp_path / "rows.parquet")

        assert read({"path": str(path), "row_groups": [2, 5]}) == ROWS[200:500]
        assert read({"path": str(path), "row_groups": [2, 5]}, 150) == ROWS[350:500]
        with pytest.raises(InvalidInputError, match="has no row groups from 8 to 11"):
            row_files({"path": str(path), "row_groups": [8, 11]})

    def test_lines_that_are_no_rows(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_bytes(b'{"x": 1}\n\n{"x": secret}\n{"x": "\xff"}\n' + b"[" * 100_000 + b"\n3\n")

        one, *bad, three = read(str(tmp_path / "rows.jsonl"))

        assert (one, three) == ({"x": 1}, 3)
        assert [type(row) for row in bad] == [BadRow] * 3
        assert "secret" not in str(bad)
        assert all("is no JSON" in row.reason for row in bad)

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"rows.parquet": b""}, "is empty"),
            ({"rows.csv": b""}, "is empty"),
            ({"rows.parquet": b"PAR1 is not enough"}, "cannot be read"),
            ({"rows.csv": b"\n\n"}, "'rows.csv' has no header"),
            ({"rows.csv": b"a,b,a\n1,2,3\n"}, "'rows.csv' has several columns of the name"),
            ({"rows.csv": b'a,b\n1,"' + 200_000 * b"y"}, "'rows.csv' cannot be read after line 1"),
            ({"rows.csv": b"a,\xff\n1,2\n"}, "the header of 'rows.csv' is not UTF-8"),
            ({"rows.csv.gz": b"no gzip"}, "'rows.csv.gz' cannot be read after line 0"),
            ({"rows.jsonl.gz": b"no gzip"}, "'rows.jsonl.gz' cannot be read after line 0"),
            ({"rows.jsonl.gz": gzip.compress(b'{"x": 1}\n' * 10_000)[:-20]}, "cannot be read after line"),
            ({"rows.txt": b"x"}, "input: expected files of one kind"),
            ({"rows.jsonl": b"{}", "rows.csv": b"a\n1\n"}, "input: expected files of one kind"),
            (
                {"a.csv": b"a,b\n1,2\n", "b.csv": b"b,a\n1,2\n"},
                "(?s)'b.csv' has the columns .* same columns in the same order",
            ),
            ({"rows.jsonl": b'{"x": "' + 200 * b"y" + b'"}'}, "line 1 of 'rows.jsonl' is longer than 100 bytes"),
        ],
    )
    def test_files_without_a_table(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], message: str
    ) -> None:
        monkeypatch.setattr(json_lines, "LONGEST_LINE", 100)
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)

        with pytest.raises(InvalidInputError, match=message):
            read([str(tmp_path / name) for name in files])

    @pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.jsonl"])
    def test_a_header_only(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"x": pa.array([], pa.int64())}), path)
        else:
            path.write_text("id,x\n" if name.endswith(".csv") else "\n\n")

        assert row_files(str(path)).total == 0

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("/nowhere/rows.jsonl", "there is no such file"),
            ("/nowhere/*.jsonl", "there is no such file"),
            ([], "expected at least one file"),
            (3, "input"),
            ("nosuchscheme://bucket/rows.jsonl", "Airflow cannot use such URLs here"),
            ({"path": "/nowhere/rows.parquet"}, "expected two numbers"),
            ({"path": "/nowhere/rows.parquet", "row_groups": [0, 1]}, "'rows.parquet' cannot be read .No such file"),
            ({"file": "x"}, "file"),
        ],
    )
    def test_no_files(self, given: Any, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            row_files(given)

    @pytest.mark.parametrize("name", NAMES)
    def test_an_input_that_changes(self, tmp_path: Path, name: str) -> None:
        files = row_files(str(write(tmp_path / name)))
        files.check_unchanged()
        write(tmp_path / name, ROWS[:-1])

        with pytest.raises(InvalidInputError, match="was changed while it was read"):
            files.check_unchanged()
        (tmp_path / name).unlink()
        with pytest.raises(InvalidInputError, match="was changed while it was read"):
            files.check_unchanged()


FORM = RowForm(Columns(None, ("id",)), {"x": "x"}, "object", is_read=True)


def prepared(path: Path, form: RowForm = FORM) -> tuple[list[Any], list[Any], dict[int, str]]:
    """Return the keys of all rows, what the model gets, and the reasons of the rows that are not sent."""
    keys: list[Any] = []
    sent: list[Any] = []
    bad: dict[int, str] = {}
    for first, rows in row_files(str(path)).chunks(64, 0):
        chunk = form.prepare(first, rows)
        keys += chunk.keys["id"]
        sent += [json.loads(one) for one in chunk.instances]
        bad |= {first + place: str(fault) for place, fault in chunk.bad.items()}
        assert len(rows) == len(chunk.instances) + len(chunk.bad)
    return keys, sent, bad


class TestCsv:
    @pytest.mark.parametrize("columns", [["x"], ["x", "d"]])
    def test_keys_are_as_in_the_file(self, tmp_path: Path, columns: list[str]) -> None:
        """Also where each row is looked at."""
        path = tmp_path / "rows.csv"
        path.write_text("\ufeffid,x,d\n00123,1,2024-01-01\n1.50,2,\nTRUE,3,\n,4,\n")
        form = RowForm(Columns(None, ("id",)), {name: name for name in columns}, "list", schema=None)

        keys, sent, bad = prepared(path, form)

        assert keys == ["00123", "1.50", "TRUE", ""]
        assert [row[0] for row in sent] == [1, 2, 3, 4]
        assert not bad
        slow = form.prepare(0, next(rows for _, rows in row_files(str(path)).chunks(64, 0)))
        assert slow.keys["id"] == keys

    def test_a_fraction_after_many_integers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_files, "_READ_ROWS", 16)
        path = tmp_path / "rows.csv"
        path.write_text("id,x\n" + "".join(f"n{x},{x}\n" for x in range(200)) + "n,0.5\nn,\nn,oops\nn, 7 \n")

        keys, sent, bad = prepared(path)

        assert len(keys) == 204
        assert sent == [*({"x": x} for x in range(200)), {"x": 0.5}, {"x": None}, {"x": 7}]
        assert {type(row["x"]) for row in sent[:201]} == {float}
        assert bad == {202: "x: line 204 of 'rows.csv' has no number"}

    @pytest.mark.parametrize("kind", ["object", "list", "value"])
    def test_a_bad_cell_counts_only_where_the_column_is_used(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "rows.csv"
        path.write_text("id,x,y\n" + 200 * "1,2,3\n" + "a,2,3\n1,2,b\n1,c,3\n")

        keys, sent, bad = prepared(path, RowForm(Columns(None, ("id",)), {"x": "x"}, kind, is_read=True))

        assert keys[200:] == ["a", "1", "1"]
        assert len(sent) == 202
        assert bad == {202: "x: line 204 of 'rows.csv' has no number"}

    @pytest.mark.parametrize(
        ("cells", "expected"),
        [
            (["1", "2"], [1, 2]),
            (["1.5", ".5", "5.", "-2e3", "NaN", "NULL"], [1.5, 0.5, 5.0, -2000.0, None, None]),
            (["true", "False", ""], [True, False, None]),
            (["00123", "1"], ["00123", "1"]),
            (["12345678901234567890"], ["12345678901234567890"]),
            (["2024-01-01", ""], ["2024-01-01", ""]),
            (["", ""], [None, None]),
            (['"a ""quoted"", text"', '"two\nlines"'], ['a "quoted", text', "two\nlines"]),
        ],
    )
    def test_types(self, tmp_path: Path, cells: list[str], expected: list[Any]) -> None:
        path = tmp_path / "rows.csv"
        path.write_text("id,x\n" + "".join(f"n,{cell}\n" for cell in cells))

        _, sent, bad = prepared(path)

        assert [row["x"] for row in sent] == expected
        assert [type(row["x"]) for row in sent] == [type(one) for one in expected]
        assert not bad

    def test_lines_that_are_no_rows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_files, "_READ_ROWS", 16)
        path = tmp_path / "rows.csv"
        good = b"".join(b"n%d,%d\n" % (x, x) for x in range(100))
        path.write_bytes(b"id,x\n" + good + b"a\nb,1,2\n\n\xff,1\nc,3\nd,1e999\n")

        assert row_files(str(path)).total == 105
        keys, sent, bad = prepared(path)

        assert sent[100:] == [{"x": 3}]
        assert keys[100:] == [None, None, None, "c", "d"]
        assert bad == {
            100: "line 102 of 'rows.csv' has 1 values, and the header has 2",
            101: "line 103 of 'rows.csv' has 3 values, and the header has 2",
            102: "line 105 of 'rows.csv' is not UTF-8",
            104: bad[104],
        }
        assert next(row for row in read(str(path), 102) if not isinstance(row, BadRow)) == {"id": "c", "x": 3}


class TestValuesThatAreNotValid:
    @pytest.mark.parametrize("as_key", [True, False])
    @pytest.mark.parametrize("kind", ["text", "list"])
    def test_text_that_is_not_utf8(self, tmp_path: Path, as_key: bool, kind: str) -> None:
        wrong = pa.StringArray.from_buffers(3, *map(pa.py_buffer, (b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0", b"a\xffc")))
        if kind == "list":
            wrong = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), wrong)
        names = ["id", "x"] if as_key else ["x", "id"]
        pq.write_table(pa.Table.from_arrays([wrong, pa.array([1, 2, 3])], names), tmp_path / "rows.parquet")

        keys, sent, bad = prepared(tmp_path / "rows.parquet")

        assert len(keys) == 3
        assert len(sent) == 2
        assert bad == {1: f"{names[0]}: the value is not valid, such as text that is not UTF-8"}

    def test_a_dictionary_with_text_that_is_not_utf8(self) -> None:
        wrong = pa.StringArray.from_buffers(2, *map(pa.py_buffer, (b"\0\0\0\0\1\0\0\0\2\0\0\0", b"a\xff")))
        table = pa.table({"id": [1, 2, 3], "x": pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), wrong)})

        (rows,) = arrow_files.record_batches(table)
        chunk = FORM.prepare(0, rows)

        assert chunk.keys == {"id": [1, 2, 3]}
        assert [json.loads(one) for one in chunk.instances] == [{"x": "a"}, {"x": "a"}]
        assert list(chunk.bad) == [1]

    def test_a_date_that_python_does_not_have(self, tmp_path: Path) -> None:
        days = pa.array([0, 2**31 - 1, 1], pa.date32())
        pq.write_table(pa.table({"id": ["a", "b", "c"], "x": days}), tmp_path / "rows.parquet")

        keys, sent, bad = prepared(tmp_path / "rows.parquet")

        assert keys == ["a", "b", "c"]
        assert len(sent) == 2
        assert list(bad) == [1]

    def test_two_columns_of_one_name(self, tmp_path: Path) -> None:
        table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["s", "s"])
        pq.write_table(table, tmp_path / "rows.parquet")

        with pytest.raises(InvalidInputError, match=r"'rows.parquet' has several columns of the name"):
            row_files(str(tmp_path / "rows.parquet"))
        with pytest.raises(InvalidInputError, match="'batches' has several columns of the name"):
            list(arrow_files.record_batches(table))


class CountedFiles(LocalFileSystem):
    """A storage far away, which counts the bytes that are read."""

    cachable = False
    read = 0

    def open(self, path: str, **_: Any) -> Any:
        storage = self

        class Counted(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                found = super().read(size) or b""
                storage.read += len(found)
                return found

        return Counted(Path(path).read_bytes())


class TestWhatIsRead:
    COLUMNS = ("id", "x", "y", "z")

    def table(self, tmp_path: Path) -> tuple[CountedFiles, Any]:
        """Return a storage with a Parquet file of 50 row groups of 1,000 rows."""
        path = tmp_path / "rows.parquet"
        columns = {name: [row / 7 for row in range(50_000)] for name in self.COLUMNS}
        pq.write_table(pa.table(columns), path, row_group_size=1000, use_dictionary=False, compression="none")
        storage = CountedFiles()
        remote = SimpleNamespace(protocol="far", fs=storage, path=str(path), name=path.name)
        file = InputFile(remote, path.stat().st_size, "")  # type: ignore[arg-type]
        files = RowFiles([file], arrow_files.Tables([file]))
        storage.read = 0
        return storage, files

    def test_a_row_group_at_a_time(self, tmp_path: Path) -> None:
        storage, files = self.table(tmp_path)
        size = files.files[0].size
        chunks, seen = files.chunks(1000, 0), []
        while next(chunks, None) is not None:
            seen.append(storage.read)

        assert len(seen) == 50
        assert seen[0] < size / 12, "the metadata and one group"
        assert all(later - read < size / 20 for read, later in itertools.pairwise(seen))
        assert seen[-1] < 1.1 * size

    def test_the_columns_that_are_used(self, tmp_path: Path) -> None:
        storage, files = self.table(tmp_path)
        form = RowForm.build(Columns({"x": "x"}, ("id",)), Shape(), {"id": 1.0, "x": 1.0})

        rows = [rows for _, rows in files.chunks(4096, 0, form.used)]

        assert {tuple(some.names) for some in rows} == {("id", "x")}
        assert sum(map(len, rows)) == files.total
        assert storage.read < 0.6 * files.files[0].size
        assert form.used == {"x", "id"}

    @pytest.mark.parametrize("used", [None, {"missing"}])
    def test_all_columns_where_none_of_the_used_is_there(self, tmp_path: Path, used: set[str] | None) -> None:
        """A row that lacks a column is named as such."""
        path = write(tmp_path / "rows.parquet")

        assert [row for _, rows in row_files(str(path)).chunks(64, 0, used) for row in rows] == ROWS


class TestResults:
    PREDICTIONS = (
        ([None, 1, 2], pa.float64()),
        ([0.5, 1, None], pa.float64()),
        (["a", None], pa.string()),
        ([True, None, False], pa.bool_()),
        ([[0.1, 0.9], None], pa.list_(pa.float64())),
        ([{"label": "a"}, None], pa.string()),
    )

    @pytest.mark.parametrize(("predictions", "kind"), PREDICTIONS)
    def test_parquet(self, predictions: list[Any], kind: Any) -> None:
        """The type of the first prediction is that of all parts, also of those before it and after it."""
        remembered: dict[str, Any] = {}
        content = []
        for values in ([None, None], predictions, [None]):
            part = ParquetFormat().begin(remembered)
            part.add(ResultRows(0, {"id": [f"n{row}" for row in range(len(values))]}, values))
            assert part.size > 0
            content.append(part.finish())
        tables = [pq.read_table(pa.BufferReader(one)) for one in content]

        found = tables[1]
        assert found.column_names == ["row", "id", "prediction", "error"]
        assert found.schema.field("prediction").type == kind
        values = found["prediction"].to_pylist()
        assert values == [json.dumps(one) if isinstance(one, dict) else one for one in predictions]
        assert tables[2].schema == tables[1].schema

    @pytest.mark.parametrize("prediction", [[0.5] * 2048, [[0.5] * 64] * 32], ids=["list", "nested"])
    def test_the_size_of_wide_predictions(self, prediction: Any) -> None:
        """A part is written at 8 MB, which a few hundred rows may have."""
        part = ParquetFormat().begin({})
        for first in range(0, 512, 64):
            part.add(ResultRows(first, {}, [None, *[prediction] * 63]))

            assert part.size > (first + 63) * 2048 * 4

    @pytest.mark.parametrize(
        ("values", "wrong"),
        [
            ([1, "one"], 1),
            ([1, True], 1),
            ([0.5, None, False], 2),
            ([True, 0], 1),
            (["a", 1], 1),
            (["a", "\ud800"], 1),
            ([[0.5], [1, True]], 1),
            ([[0.5], [2**53 + 1]], 1),
            ([[0.5], "a"], 1),
            ([0.5, 2**53, 2**53 + 1], 2),
            ([0.5, 10**400], 1),
        ],
    )
    @pytest.mark.parametrize("written", [1, 4096])
    def test_predictions_of_another_type(
        self, monkeypatch: pytest.MonkeyPatch, values: list[Any], wrong: int, written: int
    ) -> None:
        """A value is stored as it is, or named; and a part that lacks rows is never written."""
        monkeypatch.setattr(arrow_files, "_WRITTEN_ROWS", written)
        remembered: dict[str, Any] = {}
        part = ParquetFormat().begin(remembered)
        found = []
        for row, value in enumerate(values):
            with suppress(InvalidInputError):
                part.add(ResultRows(row, {}, [value]))

        for act in (part.finish, lambda: part.add(ResultRows(9, {}, [values[0]])), part.finish):
            with pytest.raises(InvalidInputError, match=f"the value of 'prediction' in row {wrong} is not of the") as e:
                act()
            found.append(str(e.value))
        assert len(set(found)) == 1
        assert remembered == {}

    @pytest.mark.parametrize(
        "parts",
        [
            [[1], [0.5]],
            [[1, 0.5]],
            [[0.5], [1]],
            [[1, 2.7, -0.9]],
            [[None], [-(2**53)], [2**53, 0.1]],
            [[[1]], [[0.5, None], []]],
        ],
    )
    def test_numbers_lose_nothing_and_have_one_type(self, parts: list[list[Any]]) -> None:
        remembered: dict[str, Any] = {}
        tables = []
        for values in parts:
            part = ParquetFormat().begin(remembered)
            for row, value in enumerate(values):
                part.add(ResultRows(row, {}, [value]))
            tables.append(pq.read_table(pa.BufferReader(part.finish())))

        assert [table["prediction"].to_pylist() for table in tables] == parts
        assert len({str(table.schema) for table in tables if table["prediction"].null_count < len(table)}) == 1

    def test_keys_keep_large_integers(self) -> None:
        part = ParquetFormat().begin({})
        part.add(ResultRows(0, {"id": [2**63 - 1, None]}, [1, 2]))

        assert pq.read_table(pa.BufferReader(part.finish()))["id"].to_pylist() == [2**63 - 1, None]
        part.add(ResultRows(2, {"id": [2**63]}, [1]))
        with pytest.raises(InvalidInputError, match="the value of 'id' in row 2"):
            part.finish()

    def test_json_lines(self) -> None:
        part = JsonLines().begin({})
        part.add(ResultRows(0, {"id": ["a", 'b"']}, [{"x": [1]}, None], {1: "no"}))
        part.add(ResultRows(2, {"id": [None]}, [0.5]))

        assert part.finish() == (
            b'{"row": 0, "id": "a", "prediction": {"x": [1]}}\n'
            b'{"row": 1, "id": "b\\"", "prediction": null, "error": "no"}\n'
            b'{"row": 2, "id": null, "prediction": 0.5}\n'
        )
        assert part.size == len(part.finish())


class TestFolder:
    @pytest.mark.parametrize(
        ("given", "result", "is_inside"),
        [
            ("in", "in", True),
            ("in", "in/out", True),
            ("file://{}/in/", "in/out/", True),
            ("in", "link/out", True),
            ("in/*.jsonl", "in", True),
            ("in/**/*.jsonl", "in/a/b", True),
            ("in/*/*.json", "in/out", True),
            ("in/*/errors-*.jsonl", "in/out", True),
            ("in/*/_errors-*.jsonl", "in/out", True),
            ("in/*/_progress-*.json", "in/out", True),
            ("in", "in/_out", False),
            ("in", "in2", False),
            ("in", "out", False),
            ("in/rows-*.jsonl", "in", False),
            ("in/*.jsonl", "in/out", False),
            ("in/rows.jsonl", "in", False),
        ],
    )
    def test_a_result_inside_of_the_input(self, tmp_path: Path, given: str, result: str, is_inside: bool) -> None:
        write(tmp_path / "in" / "rows.jsonl")
        (tmp_path / "link").symlink_to(tmp_path / "in")
        path = given.format(tmp_path) if "{}" in given else f"{tmp_path}/{given}"
        for value in (path, [path], json.dumps([path]), [{"path": path, "row_groups": [0, 1]}, path]):
            with pytest.raises(InvalidInputError, match="is inside of the input") if is_inside else nullcontext():
                check_apart(value, f"{tmp_path}/{result}")

    def test_a_result_inside_of_the_input_in_object_storage(self, tmp_path: Path) -> None:
        assert _plain_path("s3://conn@tables/in/") == _plain_path("s3://tables/in")
        assert _plain_path("s3://conn@tables/in") != _plain_path("s3://other/in")

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_files(self, tmp_path: Path, scheme: str) -> None:
        folder = ResultFolder(f"{scheme}{tmp_path}/new/results/")

        assert folder.names() == []
        folder.write("a", b"1")
        folder.write("a", b"2")
        assert folder.create("b", b"3")
        assert not folder.create("b", b"4")
        folder.join("c", ["a", "b"])
        assert {name: folder.read(name) for name in folder.names()} == {"a": b"2", "b": b"3", "c": b"23"}
        folder.delete("a")
        folder.delete("a")
        assert folder.read("a") is None
        assert sorted(path.name for path in (tmp_path / "new" / "results").iterdir()) == ["b", "c"]

    @pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
    def test_a_folder_without_hard_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        def no_link(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", no_link)
        folder = ResultFolder(tmp_path)

        assert folder.create("a", b"1")
        assert not folder.create("a", b"2")
        assert folder.read("a") == b"1"
        assert folder.names() == [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_a_link_that_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "link", lambda *_: Path("/nowhere").stat())
        with pytest.raises(InvalidInputError, match="cannot be written to"):
            ResultFolder(tmp_path).create("a", b"1")

    def test_no_space_is_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = ResultFolder(tmp_path)

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(InvalidInputError, match="cannot be written to \\(No space left on device\\)"):
            folder.write("a", b"1")
        assert folder.names() == []

    @pytest.mark.parametrize(
        "number",
        [
            errno.EIO,
            errno.ENOSPC,
            errno.ETIMEDOUT,
            errno.ESTALE,
            errno.EACCES,
            errno.ENOENT,
            errno.EISDIR,
            errno.ENOTDIR,
        ],
    )
    def test_a_failure_of_storage_may_pass(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        """A retry of the task makes sense then, unless the path is wrong or forbidden."""
        lasting = number in (errno.EACCES, errno.ENOENT, errno.EISDIR, errno.ENOTDIR)
        files = [row_files(str(write(tmp_path / name))) for name in NAMES if "gz" not in name]
        folder = ResultFolder(tmp_path / "out")

        def fail(*_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("pathlib.Path.write_bytes", fail)
        monkeypatch.setattr(ObjectStoragePath, "open", fail)
        acts: list[Any] = [lambda: folder.write("a", b"1"), lambda: folder.join("a", ["b"])]
        acts += [lambda one=one: list(one.chunks(64, 0)) for one in files if one.kind != "parquet"]
        for act in acts:
            with pytest.raises(InvalidInputError, match="cannot be") as caught:
                act()
            assert caught.value.transient is not lasting

    @pytest.mark.parametrize("name", ["rows.parquet", "rows.csv.gz", "rows.jsonl.gz"])
    def test_a_damaged_file_does_not_pass(self, tmp_path: Path, name: str) -> None:
        content = write(tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:4] + b"\0" * (len(content) // 2) + content[len(content) // 2 + 4 :])

        with pytest.raises(InvalidInputError, match="cannot be read") as caught:
            read(str(tmp_path / name))
        assert not caught.value.transient

    @pytest.mark.parametrize("given", ["/proc/1/nowhere", "", None, 3])
    def test_no_folder(self, given: Any) -> None:
        with pytest.raises(InvalidInputError, match="result_path"):
            ResultFolder(given)


class TestShards:
    def test_parquet_is_cut_between_row_groups(self, tmp_path: Path) -> None:
        path = write(tmp_path / "rows.parquet")

        shards = split_input(str(path), rows_per_shard=250)

        parts = [[first, first + 2] for first in range(0, 10, 2)]
        assert [[entry["row_groups"] for entry in shard] for shard in shards] == [[part] for part in parts]
        assert {(entry["path"], entry["size"]) for (entry,) in shards} == {(str(path), path.stat().st_size)}
        assert [row for shard in shards for row in read(shard)] == ROWS
        json.dumps(shards)

    @pytest.mark.parametrize("name", NAMES)
    def test_files_are_put_together(self, tmp_path: Path, name: str) -> None:
        for number in range(5):
            write(tmp_path / f"{number}-{name}", ROWS[number * 100 : number * 100 + 100])

        shards = split_input(tmp_path, rows_per_shard=200)

        assert [len(shard) for shard in shards] == [2, 2, 1]
        assert [row for shard in shards for row in read(shard)] == ROWS[:500]

    @pytest.mark.parametrize("name", NAMES)
    def test_a_file_that_was_changed_meanwhile(self, tmp_path: Path, name: str) -> None:
        ((entry,),) = split_input(write(tmp_path / name))
        assert read(json.dumps([entry])) == ROWS
        os.utime(tmp_path / name, (1, 1))

        for given in (entry, {**entry, "changed": "1.0", "size": 3}):
            with pytest.raises(InvalidInputError, match=f"'{name}' was changed after split_input"):
                row_files(given)

    @pytest.mark.parametrize("known", ["last_modified", "modificationTime", "mtime", "modified()", "ukey()"])
    def test_file_systems_name_the_last_change_differently(self, known: str) -> None:
        class Files:
            def __init__(self, changed: str) -> None:
                self.changed = changed

            def invalidate_cache(self) -> None:
                pass

            def info(self, _: str) -> dict[str, Any]:
                return {"size": 3, known: self.changed}

            def modified(self, _: str) -> str:
                if known == "modified()":
                    return self.changed
                raise NotImplementedError

            def ukey(self, path: str) -> str:
                return str(self.info(path))

        found = [InputFile.of(SimpleNamespace(fs=Files(one), path="rows.jsonl")) for one in ("1", "1", "2")]  # type: ignore[arg-type]

        assert found[0].changed == found[1].changed != found[2].changed

    @pytest.mark.parametrize(("option", "most"), [(None, 1024), ("3", 3)])
    def test_too_many(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str | None, most: int) -> None:
        """There can be as many shards as Airflow makes mapped tasks."""
        if option is not None:
            monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", option)
        path = write(tmp_path / "rows.parquet", [{"x": x} for x in range(most + 1)], row_group_size=1)

        message = rf"expected at most {most} shards, got {most + 1}.\nGive .* or raise .*\[core\] max_map_length"
        with pytest.raises(InvalidInputError, match=message):
            split_input(path, rows_per_shard=1)
        assert len(split_input(path, rows_per_shard=2)) == -(-(most + 1) // 2)

    @pytest.mark.parametrize(
        ("second", "single"),
        [
            ({}, True),
            ({"model_version": 4}, False),
            ({"deployment_version": 8}, False),
            ({"single_version": False}, False),
            ({"single_version": "unknown"}, "unknown"),
        ],
    )
    def test_manifests_are_put_together(self, second: dict[str, Any], single: bool | str) -> None:
        one = {
            "result_path": "/a",
            "files": ["part-1.jsonl"],
            "errors_file": "errors-1.jsonl",
            "counts": {"success": 3, "error": 1, "skipped": 0},
            "model_version": 3,
            "deployment_version": 7,
            "single_version": True,
            "seconds": 0.4,
            "rows_per_second": 10.0,
            "fingerprint": "f",
        }
        two = {**one, "result_path": "/b", "seconds": 1.6, "rows_per_second": 2.5, **second}
        fine = {**one, "result_path": "/c", "errors_file": None, "counts": {"success": 2, "error": 0, "skipped": 0}}

        joined = join_manifests([one, two, fine])

        assert joined["files"] == ["/a/part-1.jsonl", "/b/part-1.jsonl", "/c/part-1.jsonl"]
        assert joined["errors_files"] == ["/a/errors-1.jsonl", "/b/errors-1.jsonl"]
        assert joined["counts"] == {"success": 8, "error": 2, "skipped": 0}
        assert (joined["seconds"], joined["rows_per_second"]) == (2.4, 4.2)
        assert joined["single_version"] == single
        with pytest.raises(InvalidInputError, match="manifests: expected at least one"):
            join_manifests([])


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3 server with a bucket, and the Airflow connection to it."""
    pytest.importorskip("s3fs", reason="Airflow reaches S3 with s3fs")
    server = pytest.importorskip("moto.server", reason="moto is the S3 server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    connection = {
        "conn_type": "aws",
        "login": "somebody",
        "password": "opens-nothing",
        "extra": {"endpoint_url": url, "region_name": "us-east-1"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_BUCKET", json.dumps(connection))
        with urllib.request.urlopen(urllib.request.Request(f"{url}/tables", method="PUT")) as answer:
            assert answer.status == 200
        yield "s3://bucket@tables"
    server.stop()


class TestBucket:
    @pytest.mark.parametrize("name", NAMES)
    def test_rows(self, bucket: str, tmp_path: Path, name: str) -> None:
        for number in range(3):
            local = write(tmp_path / name, ROWS[number * 300 : number * 300 + 300])
            ObjectStoragePath(f"{bucket}/{name}/{number}-{name}").write_bytes(local.read_bytes())

        for given in (f"{bucket}/{name}", f"{bucket}/{name}/*-{name}"):
            assert read(given) == ROWS[:900]
            assert read(given, 450) == ROWS[450:900]
        assert [row for shard in split_input(f"{bucket}/{name}", rows_per_shard=300) for row in read(shard)] == ROWS[
            :900
        ]
        files = row_files(f"{bucket}/{name}")
        files.check_unchanged()
        ObjectStoragePath(f"{bucket}/{name}/1-{name}").write_bytes(b"other")
        with pytest.raises(InvalidInputError, match=f"'1-{name}' was changed while it was read"):
            files.check_unchanged()

    def test_results(self, bucket: str) -> None:
        folder = ResultFolder(f"{bucket}/new/results/")

        assert folder.names() == []
        folder.write("a", b"1")
        assert folder.create("b", b"3")
        assert not folder.create("b", b"4")
        folder.join("c", ["a", "b"])
        assert {name: folder.read(name) for name in folder.names()} == {"a": b"1", "b": b"3", "c": b"13"}
        folder.delete("a")
        folder.delete("a")
        assert ResultFolder(f"{bucket}/new/results").names() == ["b", "c"]
