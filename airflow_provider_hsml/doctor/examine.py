"""Runs checks: asks, reads the answer, and compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.errors import HopsworksError

from .asking import brief
from .check import Check, Finding, NotAskedError, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .asking import Look, Reply
    from .known import Known


def examine(checks: Iterable[Check], known: Known, send: Callable[[Look], Reply]) -> Iterator[Finding]:
    """
    Run checks one after the other, and yield each result.

    :param known: the cluster as far as it is known; the readers of answers add to it
    :param send: sends a request, and repeats a read that fails for a moment
    """
    for check in checks:
        yield _examine(check, known, send)


def _examine(check: Check, known: Known, send: Callable[[Look], Reply]) -> Finding:
    try:
        reply = send(check.ask(known))
        if reply.lacks_scope and not check.id.startswith("scope-"):
            message = f"the API key lacks the scope ({reply.outcome})"
            raise NotAskedError(message)
        answer = check.read(reply, known)
    except NotAskedError as error:
        return check.finding(str(error), Verdict.NOT_ASKED, known.line)
    except HopsworksError as error:
        return check.finding(brief(error), Verdict.NO_ANSWER, known.line)
    except Exception as error:  # noqa: BLE001 - whatever an answer makes a reader raise; its text may hold a value
        return check.finding(f"cannot be read ({type(error).__name__})", Verdict.DIFFERS, known.line)
    return check.judge(answer, known.line)
