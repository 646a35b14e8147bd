"""
Rows of CSV files. Needs the extra ``[tables]``; imported where it is used.

All cells are read as text. Key columns stay text, so that ``00123`` is the same in the result. For the model, all files
of an input are looked through for the types of their columns before the first row is read.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import zlib
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.batch.rows import BadRow
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .arrow_rows import TableRows, check_names, is_utf8
from .object_storage import unreadable

# isort: split
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .row_files import InputFile

_READ_ROWS = 4096
"""Rows that become Arrow at a time. The first such rows with a value in a column decide on its type."""
_SHARE = 0.99
"""The share of their values that has to be numbers for a column of numbers. The others are bad rows."""
_INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
_NUMBER = r"^-?((0|[1-9][0-9]{0,17})(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
"""Without those that begin with 0, such as postal codes, and those of more digits than an integer of Arrow has."""
_BOOLEAN = "^(true|false)$"
_NULLS = ("", "null", "nan", "-nan", "na", "n/a", "#n/a", "#na", "<na>", "none")
"""Cells without a value, in columns that are not of text."""
_PATTERNS = {"boolean": _BOOLEAN, "integer": _INTEGER, "number": _NUMBER}
_REASONS = {"boolean": "neither true nor false", "integer": "no number", "number": "no number"}
_TYPES = {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}


class CsvTables:
    """
    Reads CSV files, which all have the same columns.

    :param files: all of them
    :raises InvalidInputError: one cannot be read, or they have different columns
    """

    def __init__(self, files: Sequence[InputFile]) -> None:
        self._names: list[str] = []
        self._kinds: dict[str, str] = {}
        """``integer``, ``number``, ``boolean`` or ``text``, as far as it is known."""
        for file in files:
            names = next(_lines(file))[1]
            if not is_utf8("".join(names)):
                message = f"input: the header of {file.name!r} is not UTF-8.\nWrite the file in UTF-8."
                raise InvalidInputError(message)
            check_names(file.name, names, files[0].name, self._names or names)
            self._names = names

    def count(self, file: InputFile) -> int:
        """Count the rows of a file, and look at the types of its columns."""
        rows = 0
        for texts, _ in self._batches(file, 0):
            rows += texts.num_rows
            for name in self._names:
                self._look(name, texts.column(name))
        return rows

    def read(self, file: InputFile, start: int, _columns: Collection[str] | None = None) -> Iterator[TableRows]:
        """Yield the rows of a file in batches, from the row with this number. All files have to be counted before."""
        for texts, bad in self._batches(file, start):
            columns = [self._typed(name, texts.column(name), bad) for name in self._names]
            yield TableRows.of(pa.RecordBatch.from_arrays(columns, self._names), bad, bad.cells, texts)

    def _batches(self, file: InputFile, start: int) -> Iterator[tuple[Any, _BadRows]]:
        """Yield rows with their cells as text, and those that are none by their places."""
        lines = itertools.islice(_lines(file), 1 + start, None)
        width = len(self._names)
        while some := list(itertools.islice(lines, _READ_ROWS)):
            bad = _BadRows(file.name, [line for line, _ in some])
            cells: list[Sequence[str | None]] = []
            for place, (_, row) in enumerate(some):
                reason = _fault(row, width)
                if reason is not None:
                    bad.enter(place, None, reason)
                cells.append(row if reason is None else [None] * width)
            columns = [pa.array(column, pa.string()) for column in zip(*cells, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, self._names), bad

    def _look(self, name: str, column: Any) -> None:
        kind = self._kinds.get(name)
        if kind in ("number", "boolean", "text"):
            return
        cells = _trimmed(column).drop_null()
        integers, numbers = _matches(cells, _INTEGER), _matches(cells, _NUMBER)
        if kind is None and len(cells):
            kind = "text"
            if numbers >= _SHARE * len(cells):
                kind = "integer"
            elif _matches(pc.utf8_lower(cells), _BOOLEAN) >= _SHARE * len(cells):
                kind = "boolean"
            self._kinds[name] = kind
        if kind == "integer" and integers < numbers:
            self._kinds[name] = "number"

    def _typed(self, name: str, column: Any, bad: _BadRows) -> Any:
        """Return a column with its type, and enter the rows with a cell that is not of it."""
        kind = self._kinds.get(name, "number")  # All cells are empty.
        if kind == "text":
            return column
        cells = _trimmed(column)
        if kind == "boolean":
            cells = pc.utf8_lower(cells)
        fits = pc.match_substring_regex(cells, _PATTERNS[kind])
        for place in pc.indices_nonzero(pc.invert(pc.fill_null(fits, True))).to_pylist():
            bad.enter(place, name, f"has {_REASONS[kind]}")
        return pc.cast(pc.if_else(fits, cells, None), _TYPES[kind])


class _BadRows(dict[int, BadRow]):
    """The lines of a batch that are no rows, by their places."""

    def __init__(self, file: str, lines: Sequence[int]) -> None:
        super().__init__()
        self.cells: dict[str, dict[int, BadRow]] = {}
        """The cells that are not of the type of their column."""
        self._file = file
        self._lines = lines

    def enter(self, place: int, name: str | None, reason: str) -> None:
        """Enter a line, or one cell. The text is left out of the reason, since rows may hold personal data."""
        entered = self if name is None else self.cells.setdefault(name, {})
        entered[place] = BadRow(name, f"line {self._lines[place]} of {self._file!r} {reason}")


def _trimmed(column: Any) -> Any:
    """Return the cells of a column without blanks around them; null for those without a value."""
    cells = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(pc.utf8_lower(cells), pa.array(_NULLS)), None, cells)


def _matches(cells: Any, pattern: str) -> int:
    return pc.sum(pc.match_substring_regex(cells, pattern)).as_py() or 0


def _fault(row: list[str], width: int) -> str | None:
    """Return why a line is no row."""
    if len(row) != width:
        return f"has {len(row)} values, and the header has {width}"
    return None if is_utf8("".join(row)) else "is not UTF-8"


def _lines(file: InputFile) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of the lines of a file that are not blank, with the numbers of the lines; the header first."""
    if not file.size:
        message = f"input: {file.name!r} is empty.\nCheck whether it is complete."
        raise InvalidInputError(message)
    number, found = 0, False
    try:
        with file.path.open("rb") as opened:  # type: ignore[no-untyped-call]
            unpacked = gzip.GzipFile(fileobj=opened) if file.name.endswith(".gz") else opened
            # Bytes that are no UTF-8 are found later, row by row.
            with io.TextIOWrapper(unpacked, "utf-8-sig", "surrogateescape", newline="") as text:
                reader = csv.reader(text)
                for row in reader:
                    number = reader.line_num
                    if row:
                        found = True
                        yield number, row
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise unreadable(file.name, error, f" after line {number}") from error
    if not found:
        message = f"input: {file.name!r} has no header.\nCheck whether it is complete."
        raise InvalidInputError(message)
