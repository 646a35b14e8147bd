"""Files of JSON lines, packed with gzip or not."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .object_storage import unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".json", ".json.gz")
"""How the names of files with JSON lines end; Spark writes them as ``.json``."""
LONGEST_LINE = 16 * 1024 * 1024
"""Bytes of a line."""
_BUFFER = 256 * 1024
"""Bytes that are read at a time."""


def raw_lines(what: str, name: str, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """
    Yield the lines of a file that are not blank, with their numbers, from 1.

    :param what: the argument's name, for messages
    :param name: the file's name, of which the ending tells whether it is packed
    :param file: the open file
    :raises InvalidInputError: the file cannot be read to its end, or a line is too long
    """
    number = 0
    try:
        unpacked = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
        for line in _split(unpacked):
            number += 1
            if line is None:
                message = f"{what}: line {number} of {name!r} is longer than {LONGEST_LINE} bytes."
                raise InvalidInputError(message)
            if line.strip():
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(name, error, f" after line {number}", what) from error


def _split(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes | None]:
    """
    Yield the lines of a file, and None in place of one that is too long.

    Files in object storage have no ``readline`` that ends after some bytes.
    """
    held: list[bytes] = []
    size = 0
    while data := file.read(_BUFFER):
        first, *others = data.split(b"\n")
        held.append(first)
        size += len(first)
        for line in others:
            yield b"".join(held) if size <= LONGEST_LINE else None
            held, size = [line], len(line)
        if size > LONGEST_LINE:
            yield None
    if size:
        yield b"".join(held) if size <= LONGEST_LINE else None


def json_of(what: str, place: str, content: bytes) -> Any:
    """
    Parse the JSON of a line or of a file.

    :param what: the argument's name, for messages
    :param place: where it is, for messages
    :raises InvalidInputError: it is none
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        # The message leaves the text out, since rows may hold personal data.
        message = f"{what}: {place} is no JSON ({error}).\nExpected one record in each line."
        raise InvalidInputError(message) from None
