"""The end of an execution's logs, for the log of the task and the reason of a failure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import HopsworksError, NotFoundError
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep, bounded
from airflow_provider_hsml.hopsworks.untrusted_text import beginning, clean

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import FileEntry, Project
    from airflow_provider_hsml.hopsworks.domain.execution import Execution
    from airflow_provider_hsml.hopsworks.flow import Clock

log = logging.getLogger(__name__)

LINES = 50
"""Lines of each log that the task's log shows."""
PATIENCE = 15.0
"""Seconds to wait for the files: Hopsworks writes them after the end of an execution, and some never appear."""
_READ = 30.0
"""Seconds to read a file, which has any length."""
_MOST = 1 << 18
"""Bytes at the end of a file that are kept."""
_MOST_OF_LINE, _MOST_OF_REASON = 1000, 500
"""Characters of a line that are shown, in the log and as the reason of a failure."""


async def log_ends(project: Project, execution: Execution, clock: Clock) -> str:
    """
    Log the last lines of both logs of an execution that has ended.

    :param clock: returns the seconds since 1970
    :return: the last line of stderr, or else of stdout; empty when neither can be read
    """
    deadline, last = clock() + PATIENCE, ""
    for name, path in (("stdout", execution.stdout), ("stderr", execution.stderr)):
        try:
            lines = await _lines(project, path, deadline, clock)
        except HopsworksError as error:
            log.warning("%s: its %s is not available: %s", execution, name, error)
            continue
        log.error("%s: the last lines of its %s (%s):", execution, name, path)
        for line in lines[-LINES:] or ["(nothing)"]:
            log.info("[%s] %s", name, clean(line, _MOST_OF_LINE))
        last = next((line.strip() for line in reversed(lines) if line.strip()), "") or last
    return beginning(last, _MOST_OF_REASON)


async def _lines(project: Project, path: str | None, deadline: float, clock: Clock) -> list[str]:
    """
    Read the last lines of a log file, and wait for it until the deadline.

    :raises NotFoundError: it has not appeared
    """
    entry = await _entry(project, path, deadline, clock) if path else None
    if path is None or entry is None:
        message = f"the file {path!r} has not appeared within {PATIENCE:g} s." if path else "Hopsworks names no file."
        raise NotFoundError(message)
    content = await bounded(api.download_end(project, path, _MOST), clock() + _READ, clock) or b""
    if len(content) == _MOST:
        # Without its first line, whose beginning is missing.
        content = content.partition(b"\n")[2] or content
    return content.decode("utf-8", "replace").splitlines()


async def _entry(project: Project, path: str, deadline: float, clock: Clock) -> FileEntry | None:
    """Look for a file until the deadline; None if it has not appeared."""
    backoff = Backoff(first=0.5, most=3.0, deadline=deadline, clock=clock)
    while True:
        entry = await bounded(api.get_entry(project, path), deadline, clock)
        if entry is not None:
            return entry
        delay = backoff.next_delay(about=path)
        if delay is None:
            return None
        await Sleep(delay)
