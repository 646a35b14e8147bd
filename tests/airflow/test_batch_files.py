"""The files of a batch: Parquet, CSV and JSON lines, on this machine and in object storage; files that are no table."""

from __future__ import annotations

import gzip
import importlib
import io
import itertools
import json
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_hsml.hooks import json_lines
from airflow_provider_hsml.hooks.result_folder import ResultFolder
from airflow_provider_hsml.hooks.row_files import InputFile, RowFiles, row_files
from airflow_provider_hsml.hopsworks.batch.rows import BadRow, Columns, RowForm
from airflow_provider_hsml.hopsworks.domain.records import Shape
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.tables import split_input
from tests.support.row_files import NAMES, ROWS, read, write

if TYPE_CHECKING:
    from collections.abc import Iterator

pa = pytest.importorskip("pyarrow", reason="tables are read with pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
arrow_files = importlib.import_module("airflow_provider_hsml.hooks.arrow_files")
csv_files = importlib.import_module("airflow_provider_hsml.hooks.csv_files")
pytestmark = pytest.mark.airflow


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


class CountedFiles(LocalFileSystem):  # type: ignore[misc]
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
