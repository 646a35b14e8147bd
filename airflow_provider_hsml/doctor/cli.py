"""The command ``hsml-doctor``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hsml.connection import DEFAULT_CONN_ID
from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.untrusted_text import clean

from .diagnose import diagnose, new_report
from .redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .report import Report

AS_EXPECTED, DIFFERS, COULD_NOT_RUN = 0, 1, 2
"""The exit codes."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    :param argv: the arguments; None for those of the process
    :return: 0 if all answers are as expected, 1 if one differs or is missing or something was not deleted, 2 if the
        doctor could not run
    """
    options = _parser().parse_args(argv)
    report, redactor = new_report(), Redactor()
    with _quiet():
        # Hopsworks is not asked for a report that cannot be written.
        reason = _write(options.json, "a") or _run(options, report, redactor)
    if report.findings:
        unwritten = _write(options.json, "w", report.to_json(redactor))
        reason = reason or unwritten
    if reason:
        print(f"hsml-doctor: {clean(reason)}", file=sys.stderr)
    if report.findings:
        print(report.to_text(redactor), end="")
    return COULD_NOT_RUN if reason else AS_EXPECTED if report.is_as_expected else DIFFERS


def _run(options: argparse.Namespace, report: Report, redactor: Redactor) -> str:
    """Fill the report, and return the reason why that ended early; empty if it did not."""
    try:
        hook = HsmlHook(options.conn_id, options.project)
        with _interrupted_by_signals():
            try:
                diagnose(hook, report, redactor, writes=options.write)
            finally:
                hook.client.close()
    except HopsworksError as error:
        return str(error)
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        return "interrupted. What it had made was deleted, unless the report says otherwise."
    return ""


def _write(path: Path | None, mode: str, content: str = "") -> str:
    """Write a file, unless there is none to write, and return the reason why that failed; empty if it did not."""
    try:
        if path is not None:
            with path.open(mode, encoding="utf-8") as file:
                file.write(content)
    except OSError as error:
        return f"{path}: {error.strerror}.\nGive a file that can be written."
    return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Log errors only: the report says what a log would."""
    logger = logging.getLogger("airflow_provider_hsml")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """End on SIGTERM, and on SIGHUP unless it is ignored (nohup), as on Ctrl-C: what was made is deleted."""
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    for one, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, signal.default_int_handler)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hsml-doctor",
        description="Ask a Hopsworks how it answers, and compare that with the answers that the provider expects. "
        "Without --write, nothing is changed.",
        epilog="Exit code: 0 if all answers are as expected, 1 if one differs or is missing or something that the "
        "doctor made was not deleted, 2 if it could not run.",
    )
    parser.add_argument("--conn-id", default=DEFAULT_CONN_ID, help=f"the Airflow connection ({DEFAULT_CONN_ID})")
    parser.add_argument("--project", help="the project, in place of the connection's")
    parser.add_argument(
        "--write",
        action="store_true",
        help="make a model and a deployment of the doctor's own, follow how they change, and delete them",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON, too")
    return parser
