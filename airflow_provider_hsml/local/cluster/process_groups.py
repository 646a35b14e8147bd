"""Queries about a process that leads a session of its own, and about all processes that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hsml.local.logs import logger

if TYPE_CHECKING:
    from airflow_provider_hsml.local.store import Store

log = logger(__name__)

_LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def start_time(pid: int) -> str | None:
    """Return the start time of a process, in the format of the system. A pid alone may have been reused."""
    with contextlib.suppress(OSError):
        return _stat(Path(f"/proc/{pid}"))[19]
    with contextlib.suppress(OSError):
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    return None


def kill(leader: int) -> None:
    """Kill a leader, if it is alive, and the remaining processes of its group."""
    with contextlib.suppress(OSError):
        os.killpg(leader, signal.SIGKILL)


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """
    End a process that has a pipe as its standard input, and its session: in order, and then at once.

    :param seconds: how long the process may take to end by itself
    """
    with contextlib.suppress(OSError):
        process.terminate()
    assert process.stdin is not None  # noqa: S101 - it was asked for
    with contextlib.suppress(OSError):
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    kill(process.pid)
    process.wait()


def end_leftovers(store: Store) -> None:
    """
    End the processes of an earlier server that did not notice the end of their parent.

    :param store: has the processes that are not known to have ended
    """
    for pid, started in store.processes():
        if started and start_time(pid) == started:
            log.warning("Ending process %s, which an earlier run left behind", pid)
            kill(pid)
        store.forget_process(pid)


def listening_ports(leader: int) -> set[int] | None:
    """
    Return the ports on which the processes of a session listen.

    :param leader: the pid of the session's leader
    :return: None outside of Linux, where the system does not tell
    """
    if not Path("/proc/net/tcp").exists():
        return None
    own: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # The process has ended, or belongs to another user.
            if int(_stat(process)[3]) == leader:
                own.update(str(each.readlink()) for each in (process / "fd").iterdir())
    rows = [row.split() for file in ("tcp", "tcp6") for row in _lines(Path("/proc/net", file))]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENS and f"socket:[{row[9]}]" in own}


def _stat(process: Path) -> list[str]:
    """Return the fields after the command, which may contain blanks."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()[1:] if file.exists() else []
