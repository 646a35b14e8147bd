"""Files of rows for tests of the batch, in each format."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks.row_files import row_files

if TYPE_CHECKING:
    from pathlib import Path

pa = pytest.importorskip("pyarrow", reason="tables are read with pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

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
