"""The folder of a batch's result, on this machine or in object storage, and the format of JSON lines."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.plain import as_json
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .object_storage import is_passing, writable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_hsml.hopsworks.batch.progress import ResultRows

_COPIED = 1024 * 1024
"""Bytes that are copied at a time."""
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What file systems without hard links answer, such as some that are shared. There it is as in object storage."""


class ResultFolder:
    """
    The folder of a result.

    A file is written whole or not at all: on this machine by renaming it, in object storage by its nature.

    :param path: a local path, an ``ObjectStoragePath`` or its URL; the folder is created
    :raises InvalidInputError: files in it cannot be written
    """

    def __init__(self, path: object) -> None:
        text = str(path) if isinstance(path, os.PathLike) or hasattr(path, "protocol") else path
        self._text = arguments.text("result_path", text).rstrip("/") or "/"
        with self._errors("written to"):
            self._path: ObjectStoragePath = writable("result_path", f"{self._text}/_writable-{uuid.uuid4().hex}").parent
        self.is_local = self._path.protocol in ("", "file", "local")

    def __str__(self) -> str:
        """Return the path as the user gave it."""
        return self._text

    def names(self) -> list[str]:
        """Return the names of its files."""
        with self._errors("read"):
            self._path.fs.invalidate_cache()
            if not self._path.exists():
                return []
            return sorted(one.name for one in self._path.iterdir() if not one.name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is no such file."""
        with self._errors("read"):
            try:
                content: bytes = (self._path / name).read_bytes()
            except FileNotFoundError:
                return None
            return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file: whole, or not at all."""
        with self._errors("written to"):
            if self.is_local:
                with self._new_file(content) as new:
                    new.replace(self._local(name))
            else:
                (self._path / name).write_bytes(content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file whole, unless there is one of that name; return whether it was written."""
        with self._errors("written to"):
            if not self.is_local:
                self._path.fs.invalidate_cache()
                if (self._path / name).exists():
                    return False
                (self._path / name).write_bytes(content)
                return True
            with self._new_file(content) as new:
                try:
                    os.link(new, self._local(name))
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    if self._local(name).exists():
                        return False
                    new.replace(self._local(name))
                return True

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        with self._errors("written to"), contextlib.suppress(FileNotFoundError):
            (self._path / name).unlink()

    def join(self, name: str, parts: Sequence[str]) -> None:
        """Write a file with the contents of others, one after the other."""
        with self._errors("written to"):
            target = self._path / (f".{name}-{uuid.uuid4().hex}" if self.is_local else name)
            with target.open("wb") as joined:  # type: ignore[no-untyped-call]
                for part in parts:
                    with (self._path / part).open("rb") as file:  # type: ignore[no-untyped-call]
                        while data := file.read(_COPIED):
                            joined.write(data)
            if self.is_local:
                self._local(target.name).replace(self._local(name))

    def _local(self, name: str) -> Path:
        return Path(self._path.path) / name

    @contextlib.contextmanager
    def _new_file(self, content: bytes) -> Iterator[Path]:
        """Yield a file with this content, of a name that no reader looks for; it is removed if it is still there."""
        new = self._local(f".{uuid.uuid4().hex}")
        try:
            new.write_bytes(content)
            yield new
        finally:
            new.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = (
                f"result_path: the folder {self._text!r} cannot be {what} ({error.strerror or error}).\nCheck the "
                "path, the permissions and the space that is left; a later try continues after the last part."
            )
            failed = InvalidInputError(message)
            failed.transient = is_passing(error)
            raise failed from error


class JsonLines:
    """Result files of JSON lines: ``row``, the key columns, ``prediction``, and ``error`` where there is none."""

    ending = "jsonl"

    def begin(self, remembered: dict[str, Any]) -> LinesPart:  # noqa: ARG002 - parts share nothing
        """Begin a part."""
        return LinesPart()


class LinesPart:
    """A part of JSON lines that is not written yet."""

    def __init__(self) -> None:
        self.size = 0
        self._content: list[bytes] = []

    def add(self, rows: ResultRows) -> None:
        """Add the rows of a chunk."""
        columns = [[f'"row": {number}' for number in range(rows.first, rows.first + len(rows.predictions))]]
        for name, values in (*rows.keys.items(), ("prediction", rows.predictions)):
            before = f"{as_json(name)}: "
            columns.append([before + text for text in _texts(values)])
        lines = list(map(", ".join, zip(*columns, strict=True)))
        for place, error in rows.errors.items():
            lines[place] += f', "error": {as_json(error)}'
        content = "".join([f"{{{line}}}\n" for line in lines]).encode()
        self.size += len(content)
        self._content.append(content)

    def finish(self) -> bytes:
        """Return the content of its file."""
        return b"".join(self._content)


def _texts(values: list[Any]) -> list[str]:
    """Return values as JSON, each for itself."""
    kinds = set(map(type, values))
    if kinds <= {int, float}:  # All of them are finite.
        return list(map(repr, values))
    if kinds == {str}:
        return list(map(encode_basestring_ascii, values))
    return list(map(as_json, values))
