"""Files that pyarrow reads and writes: Parquet and CSV. Needs the extra ``[tables]``; imported where it is used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

try:
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq
    from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem
except ImportError as _missing:
    raise InvalidInputError(
        "Parquet, CSV and Arrow need pyarrow, which is not installed.\nInstall airflow-provider-hsml[tables], or use "
        "files of JSON lines."
    ) from _missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_hsml.hopsworks.batch.progress import ResultRow

    from .row_files import InputFile

_READ_ROWS = 8192
"""Rows that are read from a file at a time."""


class Tables:
    """
    Reads Parquet and CSV files, which all have the same columns.

    :param files: all of the same kind
    :raises InvalidInputError: one cannot be read, or they have different columns
    """

    def __init__(self, files: Sequence[InputFile]) -> None:
        self._fragments = {}
        names: list[str] | None = None
        for file in files:
            fragment = self._open(file)
            found = list(fragment.physical_schema.names)
            if names is not None and found != names:
                message = (
                    f"input: {file.name!r} has the columns {arguments.shown(found)}, and {files[0].name!r} has "
                    f"{arguments.shown(names)}.\nGive files with the same columns in the same order."
                )
                raise InvalidInputError(message)
            names = found
            self._fragments[_key(file)] = fragment

    def count(self, file: InputFile) -> int:
        """Count the rows of a file."""
        fragment = self._fragments[_key(file)]
        if file.kind == "parquet":  # Of a part of a file, pyarrow counts the rows of the whole file.
            return sum(group.num_rows for group in fragment.row_groups)
        return int(_tried(file, fragment.count_rows))

    def read(self, file: InputFile, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of a file, from the row with this number."""
        fragment, start = self._from(self._fragments[_key(file)], start)
        batches = fragment.to_batches(batch_size=_READ_ROWS, batch_readahead=1, fragment_readahead=1)
        while True:
            batch = _tried(file, lambda: next(batches, None))
            if batch is None:
                return
            if start >= batch.num_rows:
                start -= batch.num_rows
                continue
            yield from batch.slice(start).to_pylist()
            start = 0

    @staticmethod
    def _from(fragment: Any, start: int) -> tuple[Any, int]:
        """Return the part of a fragment from a row on, as far as its row groups allow, and the rows to leave out."""
        if not start or not hasattr(fragment, "row_groups"):
            return fragment, start
        ids: list[int] = []
        for group in fragment.row_groups:
            if not ids and start >= group.num_rows:
                start -= group.num_rows
            else:
                ids.append(group.id)
        return fragment.subset(row_group_ids=ids), start

    @staticmethod
    def _open(file: InputFile) -> Any:
        fragment = open_fragment(file)
        if file.row_groups is None:
            return fragment
        first, end = file.row_groups
        if file.kind != "parquet" or not first < end <= fragment.num_row_groups:
            message = (
                f"input: {file.name!r} has no row groups from {first} to {end}.\nMake the shards again: the file was "
                "changed, or is no Parquet file."
            )
            raise InvalidInputError(message)
        return fragment.subset(row_group_ids=range(first, end))


def open_fragment(file: InputFile) -> Any:
    """
    Open a file, and return it as pyarrow's datasets have it.

    :param file: a Parquet or CSV file
    :raises InvalidInputError: it cannot be read
    """
    is_local = file.path.protocol in ("", "file", "local")
    filesystem = LocalFileSystem() if is_local else PyFileSystem(FSSpecHandler(file.path.fs))
    if not file.size:
        message = f"input: {file.name!r} is empty.\nCheck whether it is complete."
        raise InvalidInputError(message)

    def opened() -> Any:
        (fragment,) = ds.dataset([file.path.path], format=file.kind, filesystem=filesystem).get_fragments()
        _ = fragment.physical_schema
        return fragment

    return _tried(file, opened)


def record_batches(table: Any) -> Iterator[Any]:
    """
    Yield the batches of a table or stream of another library.

    :param table: anything with ``__arrow_c_stream__``
    """
    yield from pa.RecordBatchReader.from_stream(table)


class ParquetFormat:
    """Result files of Parquet: ``row``, the key columns, ``prediction``, and ``error`` where there is none."""

    ending = "parquet"

    def begin(self, remembered: dict[str, Any]) -> ParquetPart:
        """
        Begin a part.

        :param remembered: holds the types of the columns, which the first rows decide
        """
        return ParquetPart(remembered)


class ParquetPart:
    """A part of Parquet that is not written yet."""

    def __init__(self, remembered: dict[str, Any]) -> None:
        self.size = 0
        self._types = remembered
        self._batches: list[Any] = []

    def add(self, rows: Sequence[ResultRow]) -> None:
        """
        Add rows.

        :raises InvalidInputError: their predictions have another type than those before
        """
        columns: dict[str, Any] = {"row": pa.array([one.row for one in rows], pa.int64())}
        for name in rows[0].keys if rows else ():
            columns[name] = self._column(name, rows, [one.keys.get(name) for one in rows])
        columns["prediction"] = self._column("prediction", rows, [one.prediction for one in rows])
        columns["error"] = pa.array([one.error for one in rows], pa.string())
        batch = pa.table(columns)
        self.size += batch.nbytes
        self._batches.append(batch)

    def finish(self) -> bytes:
        """Return the content of its file."""
        # The rows before the first prediction have a column without a type.
        schema = pa.schema([(field.name, self._final(field)) for field in self._batches[0].schema])
        sink = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables([batch.cast(schema) for batch in self._batches]), sink)
        return bytes(sink.getvalue())

    def _final(self, field: Any) -> Any:
        kind = self._types.get(field.name)
        return field.type if kind is None else _TYPES[kind]

    def _column(self, name: str, rows: Sequence[ResultRow], values: list[Any]) -> Any:
        kind = self._types.get(name)
        if kind is None:
            first = next((value for value in values if value is not None), None)
            if first is None:
                return pa.nulls(len(values))
            kind = self._types[name] = _kind_of(first)
        if kind == "json":
            values = [None if value is None else json.dumps(value) for value in values]
        try:
            return pa.array(values, _TYPES[kind])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            message = (
                f"result_path: the rows {rows[0].row} to {rows[-1].row} have values of {name!r} that are not of the "
                f"type {kind} of the rows before.\nGive files of JSON lines: their results have any values."
            )
            raise InvalidInputError(message) from None


_TYPES = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "text": pa.string(),
    "numbers": pa.list_(pa.float64()),
    "json": pa.string(),
}


def _kind_of(value: Any) -> str:
    """Return the type of a column by its first value; what is nested becomes JSON text."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "text"
    is_flat = isinstance(value, list) and value and all(type(item) in (int, float) for item in value)
    return "numbers" if is_flat else "json"


def _key(file: InputFile) -> tuple[str, tuple[int, int] | None]:
    return str(file.path), file.row_groups


def _tried(file: InputFile, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0][:300]
        message = f"input: {file.name!r} cannot be read ({reason}).\nCheck whether it is complete."
        raise InvalidInputError(message) from error
