"""The results of a batch: their formats, and the folder that they are written into."""

from __future__ import annotations

import errno
import importlib
import json
import os
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_hsml.hooks.result_folder import JsonLines, ResultFolder
from airflow_provider_hsml.hooks.row_files import _plain_path, check_apart, row_files
from airflow_provider_hsml.hopsworks.batch.progress import ResultRows
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from tests.support.row_files import NAMES, read, write

pa = pytest.importorskip("pyarrow", reason="tables are read with pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
arrow_files = importlib.import_module("airflow_provider_hsml.hooks.arrow_files")
ParquetFormat = arrow_files.ParquetFormat
pytestmark = pytest.mark.airflow


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

    @pytest.mark.parametrize(
        "prediction",
        [[0.5] * 2048, [[0.5] * 64] * 32, {"scores": [0.5] * 2048}, "x" * 10_000],
        ids=["list", "nested", "object", "text"],
    )
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
