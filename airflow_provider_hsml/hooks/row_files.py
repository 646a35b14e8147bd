"""
The rows of a batch, in one file or many: JSON lines here, Parquet in ``arrow_files``, CSV in ``csv_files``.

Files are read as they are sent, from this machine or from object storage, and are never in memory as a whole.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_hsml.hopsworks.batch.progress import EXAMPLES
from airflow_provider_hsml.hopsworks.batch.rows import BadRow
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.plain import from_text
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .json_lines import ENDINGS, raw_lines
from .object_storage import unreadable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from airflow.providers.common.compat.sdk import ObjectStoragePath

_PATTERN = frozenset("*?[")
_TABLES = {".parquet": "parquet", ".csv": "csv", ".csv.gz": "csv"}
_CHANGED = ("ETag", "etag", "mtime", "LastModified", "last_modified", "modificationTime", "updated")
"""What file systems call the time of a file's last change, or a hash of its content."""
_READ_ROWS = 1024
"""Lines that are read at a time."""
_EXAMPLE = '["s3://bucket/rows/a.parquet"]'


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of the input, as it was when the task began."""

    path: ObjectStoragePath
    size: int
    changed: str
    """The time of its last change, or its etag."""
    row_groups: tuple[int, int] | None = None
    """The first row group of a Parquet file that is read, and the one after the last; None: the whole file."""

    @classmethod
    def of(cls, path: ObjectStoragePath, row_groups: tuple[int, int] | None = None) -> InputFile:
        """Look a file up."""
        path.fs.invalidate_cache()
        info = path.fs.info(path.path)
        changed = next((info[name] for name in _CHANGED if info.get(name)), None) or _changed(path)
        return cls(path, int(info.get("size") or 0), str(changed), row_groups)

    @property
    def name(self) -> str:
        """The name of the file."""
        return str(self.path.name)

    @property
    def kind(self) -> str | None:
        """``lines``, ``parquet`` or ``csv``; None for another file."""
        if self.name.endswith(ENDINGS):
            return "lines"
        return next((kind for ending, kind in _TABLES.items() if self.name.endswith(ending)), None)

    def shard(self, row_groups: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return it, or a part of it, as an ``input``. It is refused if the file was changed meanwhile."""
        part = {} if row_groups is None else {"row_groups": list(row_groups)}
        return {"path": str(self.path), **part, "size": self.size, "changed": self.changed}

    def to_json(self) -> list[Any]:
        """Return what the rows depend on, as plain JSON."""
        return [str(self.path), self.size, self.changed, self.row_groups]

    def check_unchanged(self) -> None:
        """
        Check that the file is the one that was there at the beginning.

        :raises InvalidInputError: it was changed or deleted
        """
        try:
            now = InputFile.of(self.path, self.row_groups)
        except OSError:
            now = None
        if now is None or now.to_json() != self.to_json():
            message = (
                f"input: {self.name!r} was changed while it was read.\nRun the task again when the file is complete, "
                "and write changed rows into a new file."
            )
            raise InvalidInputError(message)


class Source(Protocol):
    """The rows of all files of one kind."""

    def count(self, file: InputFile) -> int:
        """Count the rows of a file."""

    def read(self, file: InputFile, start: int, columns: Collection[str] | None, /) -> Iterator[Any]:
        """
        Yield the rows of a file: lists of them, or ``TableRows``.

        :param start: the number of the first row
        :param columns: those that are used, so that no others have to be read; None for all
        """


class RowFiles:
    """
    The rows of some files, in their order.

    :param files: all of the same kind
    :param source: reads them
    """

    def __init__(self, files: list[InputFile], source: Source) -> None:
        self.files = files
        self._source = source
        self._counts = [source.count(file) for file in files]
        self.total = sum(self._counts)

    @property
    def kind(self) -> str | None:
        """The kind of the files."""
        return self.files[0].kind

    def chunks(self, size: int, start: int, columns: Collection[str] | None = None) -> Iterator[tuple[int, Any]]:
        """
        Yield rows in chunks, with the number of the first one. A row that cannot be read is a ``BadRow``.

        :param size: rows of a chunk
        :param start: the first row, from 0
        :param columns: those that are used, so that no others have to be read; None for all
        """
        held: Any = None
        for run in self._runs(start, columns):
            held, at = held + run if held else run, 0
            while len(held) - at >= size:
                yield start, held[at : at + size]
                start, at = start + size, at + size
            held = held[at:]
        if held:
            yield start, held

    def first(self) -> Any:
        """Return the first row that can be read; None without one."""
        singles = (run[at : at + 1] for run in self._runs(0) for at in range(len(run)))
        return next((row for single in singles for row in single if not isinstance(row, BadRow)), None)

    def check_unchanged(self) -> None:
        """
        Check that the files are those that were there at the beginning.

        :raises InvalidInputError: one was changed
        """
        for file in self.files:
            file.check_unchanged()

    def to_json(self) -> list[Any]:
        """Return what the rows depend on, as plain JSON."""
        return [file.to_json() for file in self.files]

    def _runs(self, start: int, columns: Collection[str] | None = None) -> Iterator[Any]:
        for file, count in zip(self.files, self._counts, strict=True):
            if start >= count:
                start -= count
                continue
            read = 0
            for run in self._source.read(file, start, columns):
                yield run
                read += len(run)
            if read != count - start:
                file.check_unchanged()
            start = 0


class Lines:
    """Reads files of JSON lines."""

    def count(self, file: InputFile) -> int:
        """Count the rows of a file."""
        return sum(1 for _ in self._lines(file))

    def read(self, file: InputFile, start: int, _columns: Collection[str] | None = None) -> Iterator[list[Any]]:
        """Yield the rows of a file in lists, from the row with this number."""
        lines = itertools.islice(self._lines(file), start, None)
        while some := list(itertools.islice(lines, _READ_ROWS)):
            yield [self._row(file, line, content) for line, content in some]

    @staticmethod
    def _row(file: InputFile, line: int, content: bytes) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            # The text is left out, since rows may hold personal data.
            return BadRow(None, f"line {line} of {file.name!r} is no JSON ({error})"[:300])

    def _lines(self, file: InputFile) -> Iterator[tuple[int, bytes]]:
        try:
            with file.path.open("rb") as opened:  # type: ignore[no-untyped-call]
                yield from raw_lines("input", file.name, opened)
        except OSError as error:
            raise unreadable(file.name, error) from error


def row_files(value: object) -> RowFiles:
    """
    Find the files of an argument, and count their rows.

    :param value: a path, a pattern or a folder; an ``ObjectStoragePath`` or its URL; a list of them, also as JSON text;
        or a shard that ``split_input`` returned
    :raises InvalidInputError: there are none, they are of several kinds, or one cannot be read
    """
    files = find_files(value)
    kinds = {file.kind for file in files}
    if len(kinds) > 1 or None in kinds:
        names = sorted({file.name for file in files})
        endings = ", ".join((*ENDINGS, *_TABLES))
        arguments.refuse("input", f"files of one kind, whose names end with one of {endings}", names)
    if kinds != {"parquet"} and any(file.row_groups for file in files):
        arguments.refuse("input", "whole files, since only Parquet files have row groups", files[0].name)
    if kinds == {"lines"}:
        return RowFiles(files, Lines())
    if kinds == {"csv"}:
        from .csv_files import CsvTables  # noqa: PLC0415 - needs pyarrow

        return RowFiles(files, CsvTables(files))
    from .arrow_files import Tables  # noqa: PLC0415 - needs pyarrow

    return RowFiles(files, Tables(files))


def find_files(value: object) -> list[InputFile]:
    """
    Find the files of an argument.

    :param value: as for ``row_files``
    :raises InvalidInputError: there are none
    """
    found = [file for one in _given(value) for file in _files_of(one)]
    if not found:
        message = "input: expected at least one file, got none.\nCheck why there are none."
        raise InvalidInputError(message)
    return found


def check_apart(value: object, result_path: object) -> None:
    """
    Check that no file of a result becomes one of the input, which a retry would read.

    :param value: as for ``row_files``
    :param result_path: the folder of the result
    :raises InvalidInputError: its files are in a folder of the input, or match a pattern of it
    """
    result = _plain_path(result_path)
    for one in _given(value):
        if isinstance(one, Mapping):
            continue
        path, plain = _path(one), _plain_path(one)
        if _PATTERN & set(path.path):
            is_read = any(_matches(plain, f"{result}/{name}") for name in EXAMPLES)
        else:
            below = f"{result}/".removeprefix(f"{plain.rstrip('/')}/")
            is_read = below != f"{result}/" and path.is_dir() and not _has_hidden(below)
        if is_read:
            message = (
                f"result_path: {str(result_path)!r} is inside of the input {str(one)!r}, so a retry would read results "
                "as rows.\nGive a folder elsewhere."
            )
            raise InvalidInputError(message)


def _given(value: object) -> list[Any]:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = from_text("input", value, _EXAMPLE)
    is_one = isinstance(value, str | os.PathLike | Mapping) or hasattr(value, "protocol")
    return [value] if is_one else list(arguments.sequence("input", value))


def _plain_path(value: object) -> str:
    """Return a path in a form that can be compared: without links, and without the connection in a URL."""
    scheme, separator, rest = str(value).partition("://")
    if not separator or scheme in ("file", "local"):
        return os.path.realpath(rest if separator else scheme)
    bucket, _, inner = rest.partition("/")
    return f"{scheme}://{bucket.rpartition('@')[2]}/{posixpath.normpath(inner)}"


def _matches(pattern: str, path: str) -> bool:
    """Return whether a path matches a pattern; also if it may, where the pattern has ``**``."""
    wanted, found = pattern.split("/"), path.split("/")
    if "**" in wanted:
        wanted = wanted[: wanted.index("**")]
        found = found[: len(wanted)]
    return len(wanted) == len(found) and all(map(fnmatch.fnmatchcase, found, wanted))


def _changed(path: ObjectStoragePath) -> object:
    """Return what identifies the content of a file whose storage has other names for it."""
    for ask in (path.fs.modified, path.fs.ukey):
        try:
            return ask(path.path)
        except (NotImplementedError, KeyError, TypeError, ValueError):
            continue
    return ""


def _files_of(value: object) -> list[InputFile]:
    if isinstance(value, Mapping):
        return [_file_of_shard(arguments.mapping("input", value, ("path", "row_groups", "size", "changed")))]
    path = _path(value)
    try:
        if _PATTERN & set(path.path):
            names = sorted(path.fs.glob(path.path))
            paths = [_beside(path, name) for name in names]
        elif path.is_dir():
            paths = sorted((one for one in path.rglob("*") if not _is_hidden(one, path)), key=str)
        else:
            paths = [path]
        files = [InputFile.of(one) for one in paths if not one.is_dir()]
    except FileNotFoundError:
        files = []
    except OSError as error:
        raise unreadable(str(value), error) from error
    if path.is_dir():
        files = [file for file in files if file.kind is not None]
    if not files:
        message = f"input {str(value)!r}: there is no such file, and no folder with files of rows.\nCheck the path."
        raise InvalidInputError(message)
    return files


def _file_of_shard(given: Mapping[str, Any]) -> InputFile:
    """
    Look a file of a shard up.

    :raises InvalidInputError: it is not the one that ``split_input`` has seen
    """
    row_groups = None
    if "row_groups" in given or "size" not in given:
        first, end = (arguments.integer("input.row_groups", one, least=0) for one in _pair(given.get("row_groups")))
        row_groups = (first, end)
    path = _path(given.get("path"))
    try:
        file = InputFile.of(path, row_groups)
    except OSError as error:
        raise unreadable(path.name, error) from error
    if any(given.get(name, found) != found for name, found in (("size", file.size), ("changed", file.changed))):
        message = (
            f"input: {file.name!r} was changed after split_input had cut it into shards.\nMake the shards again, and "
            "write changed rows into a new file."
        )
        raise InvalidInputError(message)
    return file


def _path(value: object) -> ObjectStoragePath:
    from airflow.providers.common.compat.sdk import ObjectStoragePath  # noqa: PLC0415 - rarely needed

    text = arguments.text("input", str(value) if isinstance(value, os.PathLike) or hasattr(value, "fs") else value)
    try:
        path = ObjectStoragePath(text)
        path.fs  # noqa: B018 - raises an error if Airflow has no such storage
    except (ImportError, TypeError, ValueError) as error:
        message = (
            f"input {text!r}: Airflow cannot use such URLs here ({error}).\nInstall the provider of that storage, or "
            "give a local path."
        )
        raise InvalidInputError(message) from error
    return path


def _beside(path: ObjectStoragePath, name: str) -> ObjectStoragePath:
    """Return the path of another file in the same storage."""
    scheme, separator, rest = str(path).partition("://")
    if not separator:
        return type(path)(name)
    user = rest.partition("@")[0] + "@" if "@" in rest.partition("/")[0] else ""
    return type(path)(f"{scheme}://{user}{name.removeprefix(f'{scheme}://')}")


def _is_hidden(path: ObjectStoragePath, folder: ObjectStoragePath) -> bool:
    """Return whether a file is not part of a table, such as ``_SUCCESS``."""
    return _has_hidden(str(path).removeprefix(str(folder)))


def _has_hidden(below: str) -> bool:
    return any(part.startswith((".", "_")) for part in below.strip("/").split("/"))


def _pair(value: object) -> tuple[Any, Any]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        arguments.refuse("input.row_groups", "two numbers: the first row group and the one after the last", value)
    return value[0], value[1]
