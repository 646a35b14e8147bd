"""
Uploads in progress: the parts of a file are sent in any order, and the file appears once all of them are written.

Acknowledged parts survive the end of the process, so an upload resumes after a restart.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_hsml.local.errors import Refusal, malformed
from airflow_provider_hsml.local.limits import UPLOAD_BYTES

if TYPE_CHECKING:
    from pathlib import Path

_COPY_BYTES = 1 << 20
_MOST_PARTS = 100_000
_KEPT_SECONDS = 86_400.0
"""The age after which a restart discards an upload without progress."""


class Uploads:
    """
    The uploads of one project. Each has a folder with ``content``, and an empty file for each part written to it.

    :param folder: on the same disk as the files of the project
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._complete: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        for upload in folder.iterdir():
            if time.time() - upload.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(upload)

    def write_part(self, place: Path, upload: str, part: BinaryIO, *, number: int, parts: int, part_bytes: int) -> None:
        """
        Write one part. A part may be sent again.

        :param place: the location of the file
        :param upload: the identifier of this upload, which differs from other uploads of the same file
        :param number: of the part, from 1
        :param parts: the number of parts; 0, sent for an empty file, counts as 1
        :param part_bytes: size of all parts but the last
        """
        parts = max(parts, 1)
        if not 1 <= number <= parts or parts > _MOST_PARTS:
            raise malformed(f"flowChunkNumber {number} is not in 1..{parts}, or those are more than {_MOST_PARTS}.")
        if not 0 <= part_bytes <= UPLOAD_BYTES:
            raise malformed(f"flowChunkSize {part_bytes}: expected 0 to {UPLOAD_BYTES} bytes.")
        key = hashlib.sha256(f"{place}\0{upload}\0{parts}\0{part_bytes}".encode("utf-8", "replace")).hexdigest()
        folder = self._folder / key
        content = folder / "content"
        with self._lock:
            if place.exists():
                if key in self._complete:
                    return
                raise Refusal(110012, f"{place.name} exists already.")
            self._complete.discard(key)  # The file was deleted after its upload, and is uploaded again.
            folder.mkdir(exist_ok=True)
            stream = os.fdopen(os.open(content, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        with stream:
            stream.seek((number - 1) * part_bytes)
            shutil.copyfileobj(part, stream, _COPY_BYTES)
            stream.flush()
            os.fsync(stream.fileno())
        with self._lock:
            if key in self._complete:
                return
            (folder / str(number)).touch()
            _sync(folder)
            if sum(1 for _ in folder.iterdir()) - 1 == parts:
                content.replace(place)
                _sync(place.parent)
                self._complete.add(key)
                shutil.rmtree(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
