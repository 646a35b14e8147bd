"""A check: a question to Hopsworks, the answers that the provider expects by line, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .known import Line

if TYPE_CHECKING:
    from .asking import Look, Reply
    from .known import Known

Expected = Mapping[Line, tuple[str, ...]]
"""The answers that are expected from a line on, as patterns in which ``*`` stands for any text."""


class Verdict(StrEnum):
    """How an answer compares with the expectation."""

    AS_EXPECTED = "as expected"
    DIFFERS = "differs"
    NO_ANSWER = "no answer"
    NOT_ASKED = "not asked"


class NotAskedError(Exception):
    """Raised by a check that cannot be asked here; its text is the reason."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check."""

    id: str
    section: str
    question: str
    expected: str
    answer: str
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return {
            "id": self.id,
            "section": self.section,
            "question": self.question,
            "expected": self.expected,
            "answer": self.answer,
            "verdict": str(self.verdict),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """
    A question and the expected answers.

    :param section: the section of the contract, in words
    :param expected: the texts that are expected, by line
    """

    id: str
    section: str
    question: str
    expected: Expected

    def finding(self, answer: str, verdict: Verdict, line: Line) -> Finding:
        """Return the result of this check."""
        return Finding(self.id, self.section, self.question, " or ".join(of_line(self.expected, line)), answer, verdict)

    def judge(self, answer: str, line: Line) -> Finding:
        """Compare an answer with the expectation."""
        is_expected = any(fnmatchcase(answer, pattern) for pattern in of_line(self.expected, line))
        return self.finding(answer, Verdict.AS_EXPECTED if is_expected else Verdict.DIFFERS, line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Question):
    """
    A question that one request answers.

    :param ask: builds the request; raises ``NotAskedError`` if something that it needs is missing
    :param read: turns the answer into a short text that holds no value which may be secret
    """

    ask: Callable[[Known], Look]
    read: Callable[[Reply, Known], str] = field(default=lambda reply, _known: reply.outcome)
    of_one: bool = False
    """Whether it is about one model or one deployment, whichever."""


def of_line(expected: Expected, line: Line) -> tuple[str, ...]:
    """Return what is expected of a line: the entry of the newest line up to it."""
    return expected[max(since for since in expected if since <= line or since == (0, 0))]


def always(*answers: str) -> Expected:
    """Return the same expectation for each line."""
    return {(0, 0): answers}
