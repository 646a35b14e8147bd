"""Shards of the input of a batch, and the manifests of their results."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks.row_files import InputFile, row_files
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.tables import join_manifests, split_input
from tests.support.row_files import NAMES, ROWS, read, write

if TYPE_CHECKING:
    from pathlib import Path

pa = pytest.importorskip("pyarrow", reason="tables are read with pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.airflow


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
