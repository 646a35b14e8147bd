"""Rows and result sets in files: here, packed, in folders, in object storage; and files that hold none."""

from __future__ import annotations

import errno
import gzip
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_hsml.hooks import json_lines, tables
from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
from airflow_provider_hsml.hopsworks.domain.records import Columns
from airflow_provider_hsml.hopsworks.domain.result_set import ResultSet
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.airflow

ROWS = [{"x": number} for number in range(5)]
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS)
RESULTS = ResultSet(ServedVersion("example", "churn", 3), ROWS, [1, 2, None, 4, 5], {2: "no"}, [0.1], None, "f")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.json", "rows.jsonl.gz"])
@pytest.mark.parametrize(
    "as_given",
    [str, lambda path: path, lambda path: f"file://{path}", lambda path: ObjectStoragePath(f"file://{path}")],
    ids=["text", "path", "URL", "object storage"],
)
def test_rows_are_read_from_a_file(tmp_path: Path, name: str, as_given: Callable[[Path], Any]) -> None:
    content = f"\n{LINES}\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    assert tables.records_of("input", as_given(tmp_path / name), Columns()) == ROWS


def test_rows_are_read_from_a_list_and_its_text() -> None:
    assert tables.records_of("input", tuple(ROWS), Columns()) == ROWS
    assert tables.records_of("input", json.dumps(ROWS), Columns()) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"", "input: expected rows, got none"),
        ("rows.csv", b"x\n1\n", "input: expected files of JSON lines"),
        ("rows.jsonl", b'{"x": 1}\n{"x": secret}\n', "line 2 of 'rows.jsonl' is no JSON"),
        ("rows.jsonl", b"[" * 100_000, "line 1 of 'rows.jsonl' is no JSON"),
        ("rows.jsonl", b'{"x": "\xff"}', "line 1 of 'rows.jsonl' is no JSON"),
        ("rows.jsonl.gz", LINES.encode(), "'rows.jsonl.gz' cannot be read after line 0"),
        ("rows.jsonl.gz", gzip.compress(1000 * LINES.encode())[:-20], "cannot be read after line"),
        ("rows.jsonl", b'{"x": NaN}', r"input\[0\].x: expected plain JSON values, got nan"),
        ("rows.jsonl", b'{"x": "' + 200 * b"y" + b'"}', "line 1 of 'rows.jsonl' is longer than 100 bytes"),
    ],
)
def test_files_without_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str
) -> None:
    if "longer" in message:
        monkeypatch.setattr(json_lines, "LONGEST_LINE", 100)
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InvalidInputError, match=message) as caught:
        tables.records_of("input", str(tmp_path / name), Columns())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("number", "passes"), [(errno.EIO, True), (errno.EACCES, False)])
def test_a_failure_of_storage_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool
) -> None:
    (tmp_path / "rows.jsonl").write_text(LINES)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.open", fail)
    with pytest.raises(InvalidInputError, match=r"labels: 'rows\.jsonl' cannot be read") as caught:
        tables.records_of("labels", str(tmp_path / "rows.jsonl"), Columns())
    assert caught.value.transient is passes


def test_more_rows_than_are_accepted_are_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 3)
    (tmp_path / "rows.jsonl").write_text(LINES + "no JSON")

    assert len(tables.records_of("input", str(tmp_path / "rows.jsonl"), Columns())) == 4


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_result_set_is_written_and_read_again(tmp_path: Path, scheme: str) -> None:
    folder = f"{scheme}{tmp_path}/new/results"

    assert tables.stored_result_set(folder) is None
    tables.write_result_set(folder, RESULTS)

    assert tables.stored_result_set(folder) == tables.read_result_set("champion_results", folder) == RESULTS


def test_a_result_set_that_another_task_is_writing_is_not_there_yet(tmp_path: Path) -> None:
    tables.write_result_set(str(tmp_path), RESULTS)
    (tmp_path / "rows.jsonl.gz").write_bytes(b"")

    assert tables.stored_result_set(str(tmp_path)) is None
    (tmp_path / "results.json").unlink()
    assert tables.stored_result_set(str(tmp_path)) is None


@pytest.mark.parametrize("given", [3, ["a"], {"path": "x"}])
def test_what_is_no_folder(given: Any) -> None:
    with pytest.raises(InvalidInputError, match="champion_results: expected the folder of a result set"):
        tables.read_result_set("champion_results", given)
