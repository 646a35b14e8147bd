"""
The body of one response while it arrives, the same for both clients: unpacked, counted, and kept.

The clients hand over the bytes as they were sent: the HTTP libraries would unpack a piece to any size at once.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Self

from airflow_provider_hsml.hopsworks.api import is_within
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NoResponseError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.untrusted_text import beginning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PIECE = 1 << 16
"""Bytes that are read or unpacked at once. A file has stalled if no more than these arrive within the timeout."""
ENCODING = "gzip"
"""The encoding that is asked for."""


class Body:
    """
    The body of one response. Use it as a context, which closes its file and deletes an incomplete one.

    :param where: the request and its address, for messages
    :param encoding: the header Content-Encoding
    :param limit: unpacked bytes that are accepted; a file has to have exactly as many; None for any number
    :param too_long: builds the error for a longer body
    :param path: the file to write to; None to keep the body in memory
    :param last: how many bytes at the end are kept; None for all
    :raises UnexpectedResponseError: the encoding was not asked for
    """

    def __init__(
        self,
        where: str,
        encoding: str,
        *,
        status: int,
        limit: int | None,
        too_long: Callable[[], UnexpectedResponseError],
        path: Path | None,
        last: int | None = None,
    ) -> None:
        packing = encoding.strip().lower()
        if packing not in ("", "identity", "gzip", "x-gzip", "deflate"):
            message = f"{where}: the answer is encoded as {beginning(packing, 80)!r}, which was not asked for."
            raise UnexpectedResponseError(message, status=status)
        self._where = where
        self._limit = limit
        self._too_long = too_long
        self._status = status
        self._inflate = None if packing in ("", "identity") else _new_inflater()
        self._has_begun = False
        self._size = 0
        self._last = last
        self._path = path
        # A short name: that of the file may be as long as the file system allows.
        self._part = path and path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.part")
        self._kept: BinaryIO = io.BytesIO()

    def __enter__(self) -> Self:
        """Open the file, and create its folder."""
        if self._part is not None and self._path is not None:
            with _disk_errors(self._path):
                self._part.parent.mkdir(parents=True, exist_ok=True)
                self._kept = self._part.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, and delete it unless it was complete."""
        with suppress(OSError):
            self._kept.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)

    @property
    def is_file(self) -> bool:
        """Whether the body is written to a file, so that its deadline moves on with each ``PIECE``."""
        return self._path is not None

    def add(self, data: bytes) -> bool:
        """
        Unpack and keep what has arrived.

        :return: whether that made the body longer by ``PIECE`` bytes or more since this was last true
        :raises UnexpectedResponseError: the body is longer than its limit
        :raises NoResponseError: it is not what its encoding promises
        """
        before = self._size // PIECE
        for piece in self._unpacked(data):
            self._size += len(piece)
            if self._limit is not None and self._size > self._limit:
                raise self._too_long()
            if self._part is None:
                self._kept.write(piece)
            else:
                with _disk_errors(self._part.parent):
                    self._kept.write(piece)
            if self._last is not None and isinstance(self._kept, io.BytesIO) and self._kept.tell() > 2 * self._last:
                end = self._kept.getvalue()[-self._last :]
                self._kept.seek(0)
                self._kept.truncate()
                self._kept.write(end)
        return self._size // PIECE > before

    def finish(self) -> bytes:
        """
        Return the complete body; nothing if it was written to a file, which now has its name.

        :raises UnexpectedResponseError: parsed as JSON, the body would take too much memory; or the file is shorter
            than it is listed
        :raises NoResponseError: its end is missing
        """
        if self._inflate is not None and self._has_begun and not self._inflate.eof:
            raise self._cut_off()
        if isinstance(self._kept, io.BytesIO):
            content = self._kept.getvalue()
            if self._last is not None:
                return content[-self._last :]
            if self._limit is not None and not is_within(self._limit, content):
                raise self._too_long()
            return content
        if self._limit is not None and self._size < self._limit:
            message = f"{self._where}: the answer has {self._size} bytes, but {self._limit} are listed."
            raise UnexpectedResponseError(message, status=self._status)
        if self._part is not None and self._path is not None:
            with _disk_errors(self._path):
                self._kept.close()
                self._part.replace(self._path)
        return b""

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        """Unpack in small pieces, so that no input can fill the memory; gzip may have several members."""
        if self._inflate is None:
            yield data
            return
        while data:
            self._has_begun = True
            if self._inflate.eof:
                self._inflate = _new_inflater()
            try:
                yield self._inflate.decompress(data, PIECE)
            except zlib.error as error:
                raise self._cut_off() from error
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail

    def _cut_off(self) -> NoResponseError:
        return NoResponseError(f"{self._where}: the answer was cut off.")


def _new_inflater() -> zlib._Decompress:
    return zlib.decompressobj(zlib.MAX_WBITS | 32)  # Tells gzip and zlib apart by the header.


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = (
            f"{str(path)!r} cannot be written ({os.strerror(error.errno or 0)}).\nChoose another folder, or make room."
        )
        raise InvalidInputError(message) from error
