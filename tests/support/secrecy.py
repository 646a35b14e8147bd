"""Searches places for secrets, in whatever encoding; what is to be there is searched in the same way."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import sqlite3
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.fernet import Fernet

WHERE_IT_IS = {"connection", "variable"}
"""The tables in which secrets are, encrypted."""


def encodings(secret: str) -> set[bytes]:
    """Give what a secret looks like wherever it is: bytes that are in it, however it was written."""
    escaped = json.dumps(secret)[1:-1]
    texts = {
        *(secret, escaped, json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(escaped)[1:-1], repr(secret)[1:-1]),
        *(quote(secret), quote(secret, safe=""), quote_plus(secret), html.escape(secret)),
        *(secret.encode().hex(), secret.encode().hex().upper(), ascii(secret)[1:-1]),
    }
    found = {text.encode() for text in texts}
    for before in range(3):  # Base64 depends on how many bytes were before it.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * before + secret.encode())
            found.add(encoded[(before * 8 + 5) // 6 : (before + len(secret.encode())) * 8 // 6])
    return found


class Search:
    """What was gathered, by places."""

    def __init__(self) -> None:
        self._places: dict[str, bytearray] = {}

    def add(self, place: str, content: str | bytes) -> None:
        """Add what is in a place."""
        raw = content.encode() if isinstance(content, str) else content
        if raw:
            self._places.setdefault(place, bytearray()).extend(raw + b"\n")

    def places_of(self, text: str) -> set[str]:
        """Tell in which places a text is."""
        sought = encodings(text)
        return {place for place, content in self._places.items() if any(one in content for one in sought)}

    def excerpt(self, place: str, text: str) -> str:
        """Give what is around it."""
        content = self._places[place]
        at = next(at for one in encodings(text) if (at := content.find(one)) >= 0)
        return content[max(0, at - 200) : at + 100].decode(errors="replace")

    @property
    def size(self) -> tuple[int, int]:
        """How many places, and how many bytes."""
        return len(self._places), sum(map(len, self._places.values()))

    def add_database(self, when: str, path: Path, fernet: Fernet) -> None:
        """Add each table, also what is compressed or, but in the secrets' own two, encrypted in it; and the files."""
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
            connection.text_factory = bytes
            tables = [
                name.decode() for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            for table in tables:
                for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - a name that it gave
                    for cell in row:
                        for readable in _readable(cell, None if table in WHERE_IT_IS else fernet):
                            self.add(f"{when}: table {table}", readable)
        for file in path.parent.glob(f"{path.name}*"):
            self.add(f"{when}: file {file.name}", file.read_bytes())

    def add_files(self, when: str, folder: Path) -> None:
        """Add all files below a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.add(f"{when}: file {path.relative_to(folder)}", path.read_bytes())


def _readable(cell: Any, fernet: Fernet | None) -> Iterator[bytes]:
    raw = cell if isinstance(cell, bytes) else str(cell).encode()
    yield raw
    with contextlib.suppress(zlib.error):
        yield zlib.decompress(raw)
    if fernet is not None and (token := raw.strip(b'"')).startswith(b"gAAAA"):
        yield fernet.decrypt(token)


class Processes:
    """
    What ``ps`` and ``/proc`` show of all processes, and what is in temporary files, from its start to its end.

    :param marker: with which a variable of the processes of interest begins; their children are of interest as well
    :param server: another process whose children are of interest
    :param temporary: the folder of temporary files
    """

    def __init__(self, marker: str, server: int, temporary: Path) -> None:
        self._marker = f"={marker}".encode()
        self._family: set[int] = set()
        self._of_server = {server}
        self._temporary = temporary
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.arguments: set[bytes] = set()
        self.environments: set[bytes] = set()
        """Of those in which a variable begins with the marker, and of their children."""
        self.of_server: set[bytes] = set()
        """The environments of the server's children."""
        self.files: set[bytes] = set()
        """The contents of temporary files."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    self._look(process)
            for path in self._temporary.rglob("*"):
                with contextlib.suppress(OSError):
                    self.files.add(path.read_bytes())

    def _look(self, process: Path) -> None:
        self.arguments.add((process / "cmdline").read_bytes())
        environment = (process / "environ").read_bytes()
        parent = int((process / "stat").read_text().rpartition(") ")[2].split()[1])
        if self._marker in environment or parent in self._family:
            self._family.add(int(process.name))
            self.environments.add(environment)
        elif parent in self._of_server:
            self._of_server.add(int(process.name))
            self.of_server.add(environment)
