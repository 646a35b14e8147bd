"""
Rows of Arrow as requests: columns become JSON in Arrow, without a look at each value in Python.

Needs the extra ``[tables]``; imported where it is used. A row with a value that JSON cannot hold, or with text that has
to be escaped, has no text here: it is looked at in Python. Numbers are written so that Python reads the same value of
the same type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.batch.rows import BadRow
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.plain import as_json
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

try:
    import pyarrow as pa
    import pyarrow.compute as pc
except ImportError as _missing:
    raise InvalidInputError(
        "Parquet, CSV and Arrow need pyarrow, which is not installed.\nInstall airflow-provider-hsml[tables], or use "
        "files of JSON lines."
    ) from _missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ESCAPED = r'[\x00-\x1f"\\]'
"""What JSON escapes in text. All else is sent as UTF-8."""
PART_ROWS = 4096
"""Rows that become text at a time."""


class TableRows:
    """
    Rows of Arrow, which were read in one batch or several.

    :param pieces: a batch, the place of the first row in it, and the place after the last
    """

    def __init__(self, pieces: Sequence[tuple[_Batch, int, int]]) -> None:
        self._pieces = pieces
        self.names = pieces[0][0].names

    @classmethod
    def of(
        cls,
        batch: Any,
        bad: Mapping[int, BadRow] | None = None,
        cells: Mapping[str, Mapping[int, BadRow]] | None = None,
        texts: Any = None,
    ) -> TableRows:
        """
        Return the rows of a ``RecordBatch``.

        :param batch: whose columns have different names
        :param bad: rows that could not be read, by their places
        :param cells: values that could not be read, by columns; the rows are bad if the columns are used
        :param texts: the same rows as text, of which key columns are taken
        """
        if bad or cells or texts is not None:
            return cls([(_Batch(batch, bad or {}, cells or {}, texts), 0, batch.num_rows)])
        # A frame is one large batch, and the JSON of one batch is made at once.
        parts = [batch.slice(begin, PART_ROWS) for begin in range(0, max(batch.num_rows, 1), PART_ROWS)]
        return cls([(_Batch(part, {}, {}, None), 0, part.num_rows) for part in parts])

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(end - begin for _, begin, end in self._pieces)

    def __add__(self, other: TableRows) -> TableRows:
        """Return these rows and those of the same columns that follow."""
        return TableRows([*self._pieces, *other._pieces])

    def __getitem__(self, places: slice) -> TableRows:
        """Return some of the rows, which follow each other."""
        first, last, _ = places.indices(len(self))
        found = []
        for batch, begin, end in self._pieces:
            start, stop = begin + max(first, 0), min(end, begin + last)
            if start < stop:
                found.append((batch, start, stop))
            first, last = first - (end - begin), last - (end - begin)
        return TableRows(found or [(self._pieces[0][0], 0, 0)])

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows as objects; a ``BadRow`` in place of a row or a value that could not be read."""
        for batch, begin, end in self._pieces:
            yield from batch.rows(begin, end)

    def keys(self, names: Sequence[str]) -> dict[str, list[Any]] | None:
        """Return the values of columns as plain JSON values; None if some have to be converted."""
        found: dict[str, list[Any]] = {}
        for name in names:
            parts = [(batch.values(name), begin, end) for batch, begin, end in self._pieces]
            if any(values is None for values, _, _ in parts):
                return None
            found[name] = [value for values, begin, end in parts for value in (values or [])[begin:end]]
        return found

    def texts(self, names: Mapping[str, str], kind: str) -> list[str | None] | None:
        """
        Return rows as JSON.

        :param names: the name for the model by the name in the table
        :param kind: ``object``, ``list`` or ``value``
        :return: None for a row that has to be looked at; None for all if the columns have other types
        """
        found: list[str | None] = []
        for batch, begin, end in self._pieces:
            texts = batch.texts(names, kind)
            if texts is None:
                return None
            found += texts[begin:end]
        return found


class _Batch:
    """A batch of Arrow, and what was made of it for the first of its chunks."""

    def __init__(
        self, batch: Any, bad: Mapping[int, BadRow], cells: Mapping[str, Mapping[int, BadRow]], key_texts: Any
    ) -> None:
        self._bad = bad
        self._cells = {name: dict(places) for name, places in cells.items()}
        self._batch = _with_text(_checked(batch, self._cells))
        self._key_texts = key_texts
        self._texts: dict[Any, list[str | None] | None] = {}
        self._values: dict[str, list[Any] | None] = {}

    @property
    def names(self) -> list[str]:
        return list(self._batch.schema.names)

    def rows(self, begin: int, end: int) -> list[dict[str, Any] | BadRow]:
        try:
            found = self._batch.slice(begin, end - begin).to_pylist()
        except (ValueError, OverflowError) as error:  # Such as a date that Python does not have.
            if end - begin == 1:
                return [self._bad.get(begin, BadRow(None, f"the row cannot be read ({type(error).__name__})"))]
            return [row for place in range(begin, end) for row in self.rows(place, place + 1)]
        for name, places in self._cells.items():
            for place in places:
                if begin <= place < end:
                    found[place - begin][name] = places[place]
        return [self._bad.get(place, row) for place, row in enumerate(found, begin)]

    def values(self, name: str) -> list[Any] | None:
        if name not in self._values:
            column = (self._batch if self._key_texts is None else self._key_texts).column(name)
            is_whole = self._key_texts is not None or name not in self._cells
            self._values[name] = column.to_pylist() if is_whole and _is_plain(column) else None
        return self._values[name]

    def texts(self, names: Mapping[str, str], kind: str) -> list[str | None] | None:
        key = (kind, *names.items())
        if key not in self._texts:
            columns = {new: _json(self._batch.column(name)) for name, new in names.items()}
            texts: Any = None if None in columns.values() or not columns else _rows(columns, kind).to_pylist()
            for places in (self._bad, *(self._cells.get(name, {}) for name in names)) if texts is not None else ():
                for place in places:
                    texts[place] = None
            self._texts[key] = texts
        return self._texts[key]


def check_names(what: str, names: Sequence[str], first: str = "", expected: Sequence[str] | None = None) -> None:
    """
    Check the names of the columns of a table.

    :param what: the table's name, for messages
    :param first: the name of the first table
    :param expected: the names of its columns
    :raises InvalidInputError: two are the same, or they are not those of the first table
    """
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        message = f"input: {what!r} has several columns of the name {arguments.shown(twice)}.\nRename them."
        raise InvalidInputError(message)
    if expected is not None and list(names) != list(expected):
        message = (
            f"input: {what!r} has the columns {arguments.shown(list(names))}, and {first!r} has "
            f"{arguments.shown(list(expected))}.\nGive files with the same columns in the same order."
        )
        raise InvalidInputError(message)


def is_utf8(text: str) -> bool:
    """Return whether text can be encoded: Python holds bytes that are no UTF-8 as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(batch: Any, cells: dict[str, dict[int, BadRow]]) -> Any:
    """Return a batch without values that are not valid, such as text that is not UTF-8, and enter them."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        columns = []
        for name, given in zip(batch.schema.names, batch.columns, strict=True):
            column = _decoded(given)
            wrong = {place for place in range(len(column)) if not _is_valid(column.take(pa.array([place])))}
            for place in sorted(wrong):
                fault = BadRow(name, "the value is not valid, such as text that is not UTF-8")
                cells.setdefault(name, {})[place] = fault
            columns.append(
                column.take(pa.array([None if at in wrong else at for at in range(len(column))], pa.int64()))
            )
        return pa.RecordBatch.from_arrays(columns, batch.schema.names)
    return batch


def _with_text(batch: Any) -> Any:
    """Return a batch whose text has the usual type, and not those of pandas, polars or dictionaries."""
    if not any(map(_is_text, batch.schema.types)):
        return batch
    columns = [_text(column) if _is_text(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return pa.types.is_string(kind.value_type) or _is_text(kind.value_type)
    # pyarrow has no views of text before version 16.
    return pa.types.is_large_string(kind) or getattr(pa.types, "is_string_view", lambda _kind: False)(kind)


def _decoded(column: Any) -> Any:
    """Return a column as it is without a dictionary. pyarrow takes no values from views of text, as polars has them."""
    if not pa.types.is_dictionary(column.type):
        return column
    words = column.dictionary
    if not pa.types.is_string(words.type) and _is_text(words.type):
        words = pc.cast(words, pa.string())
    return pa.DictionaryArray.from_arrays(column.indices, words).dictionary_decode()


def _text(column: Any) -> Any:
    try:
        return pc.cast(_decoded(column), pa.string())
    except pa.ArrowException:  # More than 2 GB, or a version of pyarrow that cannot.
        return column


def _is_valid(column: Any) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _is_plain(column: Any) -> bool:
    """Return whether the values of a column are what JSON has."""
    kind = column.type
    if pa.types.is_floating(kind):
        return bool(kind.bit_width > 16 and pc.all(pc.is_finite(column)).as_py() is not False)
    return any(is_kind(kind) for is_kind in (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string))


def _rows(columns: Mapping[str, Any], kind: str) -> Any:
    """Return rows as JSON, of columns as JSON; null where one of them is."""
    if kind == "value":
        (column,) = columns.values()
        return column
    if kind == "list":
        return _joined("[", _joined(*columns.values(), between=", "), "]")
    parts: list[Any] = []
    for name, column in columns.items():
        parts += [f"{', ' if parts else '{'}{as_json(name)}: ", column]
    return _joined(*parts, "}")


def _json(column: Any) -> Any:
    """Return the values of a column as JSON; null for one that has to be looked at. None for other types."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        found = pc.cast(column, pa.string())
    elif pa.types.is_floating(kind) and kind.bit_width > 16:
        found = _floats(pc.cast(column, pa.float64()))
    elif pa.types.is_string(kind):
        quoted = _joined('"', column, '"')
        found = pc.if_else(pc.match_substring_regex(column, _ESCAPED), None, quoted)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        found = _lists(column)
    else:
        found = None
    if found is None or not column.null_count:
        return found
    return pc.if_else(pc.is_null(column), "null", found)


def _floats(column: Any) -> Any:
    texts = pc.cast(column, pa.string())
    whole = pc.equal(pc.trunc(column), column)
    if pc.any(whole).as_py():  # Arrow writes 2.0 as 2, which is an integer to the model.
        bare = pc.and_not(whole, pc.match_substring(texts, "e"))
        texts = pc.if_else(bare, _joined(texts, ".0"), texts)
    if pc.all(pc.is_finite(column)).as_py() is not False:
        return texts
    return pc.if_else(pc.is_finite(column), texts, None)


def _lists(column: Any) -> Any:
    values = _json(column.flatten())
    if values is None:
        return None
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    ends = pc.cast(pc.cumulative_sum(lengths), pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return _joined("[", pc.binary_join(pa.ListArray.from_arrays(offsets, values), ", "), "]")


def _joined(*parts: Any, between: str = "") -> Any:
    """Join texts row by row; null where one of them is."""
    return pc.binary_join_element_wise(*parts, between)
