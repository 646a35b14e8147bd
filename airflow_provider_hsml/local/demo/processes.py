"""The processes of the demo: programs, signals, the lock of the folder, and progress messages."""

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
_TICK = 1.0


class DemoInterruptedError(BaseException):
    """A signal interrupted the demo."""


@dataclass(slots=True)
class Program:
    """A process that we started, the leader of its session."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    end_seconds: float
    """Seconds between SIGTERM and SIGKILL."""

    def read(self, hear: Callable[[str], None]) -> list[str]:
        """
        Copy the output of the process to its log until the output is closed.

        :param hear: called with each line
        :return: the last lines that report errors
        """
        assert self.popen.stdout is not None  # noqa: S101 - opened with PIPE
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
        """End the process and all others in its session, and wait for it."""
        if self.popen.poll() is not None:  # After the process was waited for, its id can belong to another one.
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
    A lock that keeps a second demo out of the folder.

    :param folder: created if it does not exist
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
            raise DemoFailedError(f"another demo is running in {self._folder}.\nWait for it, or end it.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)


def empty(folder: Path) -> None:
    """Remove the files of earlier demos."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def ready_line(folder: Path) -> dict[str, Any] | None:
    """Return the addresses that the server prints once it is ready; None before that."""
    with contextlib.suppress(OSError, ValueError):
        first, newline, _ = (folder / "serve.out").read_text().partition("\n")
        ready = json.loads(first) if newline else None
        return ready if isinstance(ready, dict) else None
    return None


def end_kept_server(folder: Path, say: Callable[[str], None]) -> None:
    """End the server that an earlier demo left running, which holds the lock of its root."""
    lock = folder / "serving" / "lock"
    if not lock.exists() or is_free(lock):
        return
    ready = ready_line(folder)
    if ready is None:
        raise DemoFailedError(f"a local Model Serving is using {lock.parent}.\nEnd it, and try again.")
    say(f"Ending the local Model Serving that an earlier demo left running (process {ready['pid']})")
    with contextlib.suppress(ProcessLookupError):
        os.kill(ready["pid"], signal.SIGTERM)
    deadline = time.monotonic() + END_SERVER_SECONDS
    while not is_free(lock):
        if time.monotonic() > deadline:
            raise DemoFailedError(
                f"process {ready['pid']} is using {lock.parent} and does not end.\nEnd it, and try again."
            )
        time.sleep(0.1)


def is_free(lock: Path) -> bool:
    """Return whether no process holds a lock file."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class Voice:
    """Prints progress messages with the elapsed seconds, and after a longer silence what is still being done."""

    def __init__(self) -> None:
        self._begin = self._last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._break_silence, name="voice", daemon=True)
        self.doing = ""
        """The current step, in words that follow "still", such as "starting Airflow"; empty before the first."""

    @property
    def seconds(self) -> float:
        """The elapsed seconds."""
        return time.monotonic() - self._begin

    def say(self, text: str) -> None:
        """
        Print a message.

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

    def _break_silence(self) -> None:
        while not self._ended.wait(_TICK):
            if self.doing and time.monotonic() - self._last > _SILENCE_SECONDS:
                self.say(f"  still {self.doing}")


class Interrupts:
    """Turns the first SIGINT, SIGTERM or SIGHUP into an exception, and delays it during blocks that must complete."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._is_held = True

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._receive) for number in self._NUMBERS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # After the first signal the process is about to end in order; a second Ctrl-C must not cut that short.
            signal.signal(number, handler if self._received is None else signal.SIG_IGN)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Delay signals until the end of the block."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        self._raise()

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Raise signals during the block. Later ones, during the clean-up, have no effect."""
        self._is_held = False
        try:
            yield
        finally:
            self._is_held = True

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        is_first, self._received = self._received is None, signal.Signals(number)
        if is_first and not self._is_held:
            self._raise()

    def _raise(self) -> None:
        if self._received is not None:
            raise DemoInterruptedError(f"interrupted by {self._received.name}; all started processes have been ended.")
