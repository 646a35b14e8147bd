"""Files of Parquet. Needs the extra ``[tables]``; imported where it is used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

# First: its error says that pyarrow is not installed.
from .arrow_rows import PART_ROWS, TableRows, check_names, is_utf8
from .object_storage import unreadable

# isort: split
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from airflow_provider_hsml.hopsworks.batch.progress import ResultRows

    from .row_files import InputFile

_WRITTEN_ROWS = 4096
"""Rows of a result that become Arrow at a time."""
_VALUE_BYTES = 16
"""Bytes for which a value of a prediction counts until then."""
_WRITTEN_VALUES = 2**17
"""Values of predictions that become Arrow at a time, also of fewer rows: predictions may be long lists."""
_INDEX = "__index_level_"
"""Begins the name that pandas gives to an index without one."""
_EXACT = 2**53
"""Integers up to this one are floats without a loss."""


class Tables:
    """
    Reads Parquet files, which all have the same columns.

    :param files: all of them
    :raises InvalidInputError: one cannot be read, or they have different columns
    """

    def __init__(self, files: Sequence[InputFile]) -> None:
        self._fragments = {}
        names: list[str] | None = None
        for file in files:
            fragment = self._open(file)
            found = list(fragment.physical_schema.names)
            check_names(file.name, found, files[0].name, found if names is None else names)
            names = found
            self._fragments[_key(file)] = fragment

    def count(self, file: InputFile) -> int:
        """Count the rows of a file."""
        # Of a part of a file, pyarrow itself counts the rows of the whole file.
        return sum(group.num_rows for group in self._fragments[_key(file)].row_groups)

    def read(self, file: InputFile, start: int, columns: Collection[str] | None = None) -> Iterator[TableRows]:
        """Yield the rows of a file in batches, from the row with this number."""
        fragment, start = self._from(self._fragments[_key(file)], start)
        batches = _tried(file, lambda: _batches(fragment, columns))
        while True:
            batch = _tried(file, lambda: next(batches, None))
            if batch is None:
                return
            if start < batch.num_rows:
                yield TableRows.of(batch.slice(start))
            start = max(0, start - batch.num_rows)

    @staticmethod
    def _from(fragment: Any, start: int) -> tuple[Any, int]:
        """Return the part of a fragment from a row on, as far as its row groups allow, and the rows to leave out."""
        if not start:
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
        if not first < end <= fragment.num_row_groups:
            message = (
                f"input: {file.name!r} has no row groups from {first} to {end}.\nMake the shards again: the file was "
                "changed."
            )
            raise InvalidInputError(message)
        return fragment.subset(row_group_ids=range(first, end))


def open_fragment(file: InputFile) -> Any:
    """
    Open a file, and return it as pyarrow's datasets have it.

    :param file: a Parquet file
    :raises InvalidInputError: it cannot be read
    """
    is_local = file.path.protocol in ("", "file", "local")
    filesystem = LocalFileSystem() if is_local else PyFileSystem(FSSpecHandler(file.path.fs))
    if not file.size:
        message = f"input: {file.name!r} is empty.\nCheck whether it is complete."
        raise InvalidInputError(message)

    def opened() -> Any:
        fragment = ds.ParquetFileFormat().make_fragment(file.path.path, filesystem)
        _ = fragment.physical_schema
        return fragment

    return _tried(file, opened)


def _batches(fragment: Any, columns: Collection[str] | None) -> Iterator[Any]:
    """
    Yield the rows of a Parquet file, a few at a time. A scan of datasets holds whole row groups, and some ahead.

    :param columns: those to read; None for all
    """
    is_local = isinstance(fragment.filesystem, LocalFileSystem)
    names = [name for name in fragment.physical_schema.names if columns is None or name in columns]
    with fragment.filesystem.open_input_file(fragment.path) as source:
        opened = pq.ParquetFile(source, pre_buffer=not is_local)  # From afar, the columns of a group are read together.
        for group in fragment.row_groups:  # One at a time: pyarrow buffers all groups that it is asked for.
            yield from opened.iter_batches(PART_ROWS, [group.id], names or None, use_threads=False)


def record_batches(table: Any, what: str = "batches") -> Iterator[TableRows]:
    """
    Yield the batches of a table or stream of another library. The index of a pandas frame is left out.

    :param table: anything with ``__arrow_c_stream__``
    :param what: the argument's name, for messages
    :raises InvalidInputError: two columns have the same name, or one has values of several types
    """
    try:
        reader = pa.RecordBatchReader.from_stream(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        message = (
            f"{what}: {type(table).__name__} cannot be read as a table of Arrow ({type(error).__name__}).\nGive each "
            "column one type, or give lists of rows."
        )
        raise InvalidInputError(message) from error
    index = _index(table, reader.schema)
    names = [name for name in reader.schema.names if name not in index]
    check_names(what, names)
    for batch in reader:
        yield TableRows.of(batch.select(names) if index else batch)


def _index(table: Any, schema: Any) -> set[str]:
    """Return the columns that are the index of a pandas frame."""
    stored = (schema.pandas_metadata or {}).get("index_columns", ()) if hasattr(table, "itertuples") else ()
    return {name for name in schema.names if name in stored or name.startswith(_INDEX)}


class ParquetFormat:
    """Result files of Parquet: ``row``, the key columns, ``prediction``, and ``error`` where there is none."""

    ending = "parquet"

    def begin(self, remembered: dict[str, Any]) -> ParquetPart:
        """
        Begin a part.

        :param remembered: holds the types of the columns, which the first rows decide. A part that is finished adds its
        """
        return ParquetPart(remembered)


class ParquetPart:
    """
    A part of Parquet that is not written yet.

    :param remembered: the types of the columns, as the parts before have them
    """

    def __init__(self, remembered: dict[str, Any]) -> None:
        self._remembered = remembered
        self._types = dict(remembered)
        self._size = 0
        self._tables: list[Any] = []
        self._held: list[ResultRows] = []
        self._held_rows = self._held_values = 0
        self._refused: InvalidInputError | None = None

    @property
    def size(self) -> int:
        """Bytes that it holds, about."""
        return self._size + self._held_values * _VALUE_BYTES

    def add(self, rows: ResultRows) -> None:
        """
        Add the rows of a chunk.

        :raises InvalidInputError: a value has another type than those before; the part can no longer be used
        """
        self._held.append(rows)
        self._held_rows += len(rows.predictions)
        first = next((one for one in rows.predictions if one is not None), None)
        self._held_values += len(rows.predictions) * _width(first)  # Those of a model have one shape.
        if self._refused or self._held_rows >= _WRITTEN_ROWS or self._held_values >= _WRITTEN_VALUES:
            self._encode()

    def finish(self) -> bytes:
        """
        Return the content of its file.

        :raises InvalidInputError: a value has another type than those before; the part can no longer be used
        """
        self._encode()
        # The rows before the first prediction have a column without a type.
        schema = pa.schema([(field.name, self._final(field)) for field in self._tables[0].schema])
        sink = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables([table.cast(schema) for table in self._tables]), sink)
        self._remembered.update(self._types)
        return bytes(sink.getvalue())

    def _encode(self) -> None:
        """Make a table of the rows that are held. They are let go only then, so that no part lacks rows."""
        if self._refused is None and self._held:
            try:
                self._tables.append(self._table(self._held))
            except InvalidInputError as error:
                self._refused = error
            else:
                self._size += self._tables[-1].nbytes
                self._held, self._held_rows, self._held_values = [], 0, 0
        if self._refused is not None:
            raise self._refused

    def _table(self, held: Sequence[ResultRows]) -> Any:
        numbers = [number for rows in held for number in range(rows.first, rows.first + len(rows.predictions))]
        columns: dict[str, Any] = {"row": pa.array(numbers, pa.int64())}
        for name in held[0].keys:
            columns[name] = self._column(name, numbers, [value for rows in held for value in rows.keys[name]])
        predictions = [value for rows in held for value in rows.predictions]
        columns["prediction"] = self._column("prediction", numbers, predictions)
        errors = {rows.first + place: error for rows in held for place, error in rows.errors.items()}
        columns["error"] = pa.array([errors.get(number) for number in numbers], pa.string())
        return pa.table(columns)

    def _final(self, field: Any) -> Any:
        kind = self._types.get(field.name)
        return field.type if kind is None else _TYPES[kind]

    def _column(self, name: str, numbers: Sequence[int], values: list[Any]) -> Any:
        kind = self._types.get(name)
        if kind is None:
            first = next((value for value in values if value is not None), None)
            if first is None:
                return pa.nulls(len(values))
            kind = self._types[name] = _kind_of(first, is_key=name != "prediction")
        if kind == "json":
            return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
        if not _are_all(values, kind):  # Before Arrow sees them: it makes 2 of 2.7, and 1 of True.
            row = next(number for number, value in zip(numbers, values, strict=True) if not _are_all([value], kind))
            message = (
                f"result_path: the value of {name!r} in row {row} is not of the type {kind} of the rows before, or "
                "cannot be stored as that without a loss.\nGive files of JSON lines: their results have any values."
            )
            raise InvalidInputError(message)
        return pa.array(values, _TYPES[kind])


_TYPES = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "text": pa.string(),
    "numbers": pa.list_(pa.float64()),
    "json": pa.string(),
}
_PYTHON_TYPES: dict[str, set[type]] = {
    "boolean": {bool},
    "integer": {int},
    "number": {int, float},
    "text": {str},
    "numbers": {list},
}


def _width(prediction: Any) -> int:
    """Return how many values a prediction holds, about: the items of a list have one shape, and text has a length."""
    if isinstance(prediction, list):
        return len(prediction) * _width(prediction[0]) if prediction else 1
    if isinstance(prediction, dict):
        return sum(map(_width, prediction.values())) + len(prediction)
    return 1 + len(prediction) // _VALUE_BYTES if isinstance(prediction, str) else 1


def _kind_of(value: Any, *, is_key: bool) -> str:
    """
    Return the type of a column by its first value; what is nested becomes JSON text.

    Predictions that are numbers are always ``number``: a model that answers 1 may answer 0.5 later, or in another
    shard, and all files of a result have one type. Keys have the type that they have in the input.
    """
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) and is_key:
        return "integer"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    is_flat = isinstance(value, list) and value and all(type(item) in (int, float) for item in value)
    return "numbers" if is_flat else "json"


def _are_all(values: Sequence[Any], kind: str) -> bool:
    """Return whether values, of which some may be None, can be stored as a type without a loss."""
    found = set(map(type, values)) - {type(None)}
    if not found <= _PYTHON_TYPES[kind]:
        return False
    if kind == "numbers":
        return _are_all([item for value in values if value is not None for item in value], "number")
    if kind == "text":
        return not any(value is not None and not is_utf8(value) for value in values)
    if int not in found:
        return True
    whole = [value for value in values if type(value) is int]
    if kind == "integer":
        return min(whole) >= -(2**63) and max(whole) < 2**63
    return min(whole) >= -_EXACT and max(whole) <= _EXACT


def _key(file: InputFile) -> tuple[str, tuple[int, int] | None]:
    return str(file.path), file.row_groups


def _tried(file: InputFile, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file.name, error) from error
