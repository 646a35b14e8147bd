"""Rows in files: JSON lines, also packed with gzip, on this machine or in object storage."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.plain import from_text
from airflow_provider_hsml.hopsworks.domain.records import MOST_ROWS, read_records
from airflow_provider_hsml.hopsworks.domain.result_set import HEADER, LINES, ResultSet
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .json_lines import ENDINGS, json_of, raw_lines
from .object_storage import local_copy, unreadable, writable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_hsml.hopsworks.domain.records import Columns, Record


def records_of(what: str, value: object, columns: Columns) -> list[Record]:
    """
    Read the rows of an argument: a list of records, or a file or folder of JSON lines with one record each.

    :param what: the argument's name, for messages
    :param value: the list, also as JSON text; or a local path, an ``ObjectStoragePath`` or its URL
    :raises InvalidInputError: there are no rows, too many, or one is no record with the columns that are needed
    """
    if not is_path(value):
        return read_records(what, from_text(what, value, '[{"age": 41, "churned": 0}]'), columns)
    with local_copy(what, value) as path:
        lines = _lines_below(what, _existing(what, path, value))
        return read_records(what, [row for _, row in zip(range(MOST_ROWS + 1), lines, strict=False)], columns)


def read_result_set(what: str, value: object) -> ResultSet:
    """
    Read a stored result set.

    :param what: the argument's name, for messages
    :param value: its folder: a local path, an ``ObjectStoragePath`` or its URL
    :raises InvalidInputError: there is none, or it is incomplete
    """
    if not is_path(value):
        arguments.refuse(what, "the folder of a result set", value)
    with local_copy(what, value) as path:
        folder = _existing(what, path, value)
        header = folder / HEADER
        if not header.is_file():
            message = (
                f"{what} {str(value)!r}: there is no file {HEADER!r} in it, with which a complete result set ends.\n"
                "Give the folder that a comparison has written, or write that file: the docs name its keys."
            )
            raise InvalidInputError(message)
        return ResultSet.read(what, json_of(what, header.name, header.read_bytes()), _lines_below(what, folder))


def write_result_set(folder: str, results: ResultSet) -> None:
    """
    Write a result set. The file that makes it complete is written last.

    :param folder: a local path or the URL of one in object storage, which need not exist
    """
    path: Any = writable("result_path", f"{folder}/{LINES}")  # Airflow gives no types to opened files.
    with path.open("wb") as file, gzip.open(file, "wb", 1) as packed:
        for line in results.lines():
            packed.write(json.dumps(line, allow_nan=False).encode())
            packed.write(b"\n")
    write_json(f"{folder}/{HEADER}", results.header())


def stored_result_set(folder: str) -> ResultSet | None:
    """
    Return a result set that an earlier task may have written; None without a complete one.

    :param folder: as for ``write_result_set``
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath  # noqa: PLC0415 - rarely needed

    try:
        if not ObjectStoragePath(f"{folder}/{HEADER}").is_file():
            return None
        return read_result_set("result_path", folder)
    except (InvalidInputError, OSError):  # Another task may be writing it: it is scored again.
        return None


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """
    Write a JSON file.

    :param path: a local path or the URL of one in object storage
    """
    writable("result_path", path).write_text(json.dumps(content, indent=1, allow_nan=False))


def is_path(value: object) -> bool:
    """Return whether rows are given by the path of their files, and not as a list or its JSON text."""
    if isinstance(value, str):
        return not value.lstrip().startswith("[")
    return isinstance(value, os.PathLike) or hasattr(value, "protocol")


def _existing(what: str, path: object, given: object) -> Path:
    if isinstance(given, str):
        arguments.text(what, given)  # An empty path would be the working directory.
    local = Path(str(path))
    if not local.exists():
        message = f"{what} {arguments.shown(str(given))}: there is no such file or folder.\nCheck the path."
        raise InvalidInputError(message)
    return local


def _lines_below(what: str, path: Path) -> Iterator[Any]:
    """Yield the values of the lines of a file, or of all files of a folder in the order of their names."""
    files = [path]
    if path.is_dir():
        names = sorted(one for one in path.iterdir() if one.name.endswith(ENDINGS) and one.name != HEADER)
        files = [one for one in names if one.is_file() and not one.name.startswith((".", "_"))]
    if not files or not all(one.name.endswith(ENDINGS) for one in files):
        arguments.refuse(what, f"files of JSON lines, whose names end with {', '.join(ENDINGS)}", path.name)
    for one in files:
        yield from _lines_of(what, one)


def _lines_of(what: str, path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            for number, line in raw_lines(what, path.name, file):
                yield json_of(what, f"line {number} of {path.name!r}", line)
    except OSError as error:
        raise unreadable(path.name, error, argument=what) from error
