"""What the demo starts, and how it ends: programs, signals, the folder, and the words in between."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from .nights import DemoFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType, TracebackType

END_SERVER_SECONDS = 20.0
_SILENCE_SECONDS = 15.0


class DemoInterruptedError(BaseException):
    """A signal asks us to end."""


@dataclass(slots=True)
class Program:
    """A process that we started, the leader of its session."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    end_seconds: float
    """How long it may take to end in order."""

    def read(self, hear: Callable[[str], None]) -> list[str]:
        """
        Read what it prints into its log, until it closes its output.

        :param hear: told each line
        :return: the last lines that speak of errors
        """
        assert self.popen.stdout is not None  # noqa: S101 - it was asked for
        errors: list[str] = []
        with self.log.open("ab", buffering=0) as log:
            for line in self.popen.stdout:
                log.write(line)
                text = line.decode("utf-8", "replace").rstrip()
                if re.search(r"\[error|Error\b|Exception\b", text):
                    errors = [*errors, text[:300]][-5:]
                hear(text)
        return errors

    def end(self) -> None:
        """End it and all in its session, and return when it has ended."""
        if self.popen.poll() is not None:  # Once it has been waited for, its id may be somebody else's.
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(self.end_seconds)
        self._signal(signal.SIGKILL)
        self.popen.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, number)


class Lock:
    """
    Keeps a second demo out of the folder.

    :param folder: made where there is none
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        self._file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise DemoFailedError(f"another demo is at work in {self._folder}: wait for it, or end it.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)


def empty(folder: Path) -> None:
    """Remove what earlier demos left."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def ready_line(folder: Path) -> dict[str, Any] | None:
    """Read what the server printed when it was ready; None when there is nothing yet."""
    with contextlib.suppress(OSError, ValueError):
        first, newline, _ = (folder / "serve.out").read_text().partition("\n")
        ready = json.loads(first) if newline else None
        return ready if isinstance(ready, dict) else None
    return None


def end_kept_server(folder: Path, say: Callable[[str], None]) -> None:
    """End the server that an earlier demo left up. It holds the lock of its root for as long as it lives."""
    lock = folder / "serving" / "lock"
    if not lock.exists() or is_free(lock):
        return
    ready = ready_line(folder)
    if ready is None:
        raise DemoFailedError(f"a local Model Serving has {lock.parent}: end it, and try again.")
    say(f"Ending the local Model Serving that an earlier demo left up (process {ready['pid']})")
    with contextlib.suppress(ProcessLookupError):
        os.kill(ready["pid"], signal.SIGTERM)
    deadline = time.monotonic() + END_SERVER_SECONDS
    while not is_free(lock):
        if time.monotonic() > deadline:
            raise DemoFailedError(f"process {ready['pid']} has {lock.parent} and does not end: end it, and try again.")
        time.sleep(0.1)


def is_free(lock: Path) -> bool:
    """
    Tell whether nobody holds a lock.

    :param lock: its file
    """
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class Voice:
    """Says what is being done, with the seconds so far; and when nothing was said for a while, that it goes on."""

    def __init__(self) -> None:
        self._begin = self._last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="voice", daemon=True)

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._begin

    def say(self, text: str) -> None:
        """
        Say something.

        :param text: one line
        """
        self._last = time.monotonic()
        print(f"[{self.seconds:4.0f} s] {text}", flush=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._ended.wait(1.0):
            if time.monotonic() - self._last > _SILENCE_SECONDS:
                self.say("  ...")


class Interrupts:
    """Turns SIGINT, SIGTERM and SIGHUP into an exception: once, and not while something must not be cut in two."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._came: signal.Signals | None = None
        self._is_held = True

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._arrived) for number in self._NUMBERS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # Once one came, the process is about to end, and a second Ctrl-C is no reason to end in another way.
            signal.signal(number, handler if self._came is None else signal.SIG_IGN)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold what comes back until the block is left."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        self._raise()

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Raise what comes while the block is run. What comes later, while everything is ended, changes nothing."""
        self._is_held = False
        try:
            yield
        finally:
            self._is_held = True

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        is_first, self._came = self._came is None, signal.Signals(number)
        if is_first and not self._is_held:
            self._raise()

    def _raise(self) -> None:
        if self._came is not None:
            raise DemoInterruptedError(f"interrupted by {self._came.name}; what it had started has been ended.")
