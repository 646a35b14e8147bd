"""The report: everything that a reader needs to compare a Hopsworks with the provider's expectations, and no names."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.untrusted_text import beginning

from .check import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .redact import Redactor

FORMAT = 1
"""The version of the JSON report."""
_MOST_OF_ANSWER = 400
_MARKS = {
    Verdict.AS_EXPECTED: "ok",
    Verdict.DIFFERS: "DIFFERS",
    Verdict.NO_ANSWER: "NO ANSWER",
    Verdict.NOT_ASKED: "not asked",
}
_WIDTH = max(map(len, _MARKS.values()))


@dataclass(frozen=True, slots=True)
class Moment:
    """The state of the doctor's own deployment at a moment at which it has changed."""

    seconds: float
    """Since the doctor began to write."""
    event: str
    """The last change that the doctor has sent."""
    state: str

    def to_json(self) -> dict[str, Any]:
        """Return the moment as plain JSON values."""
        return {"seconds": round(self.seconds, 2), "event": self.event, "state": self.state}


@dataclass(slots=True)
class Report:
    """The findings of one run."""

    versions: dict[str, str]
    """Of the provider, Airflow and Python."""
    version: str | None = None
    """Of Hopsworks."""
    sdk: str = ""
    """The line of the SDK that fits."""
    findings: list[Finding] = field(default_factory=list)
    timeline: list[Moment] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """Sentences about the run itself."""
    leftovers: list[str] = field(default_factory=list)
    """Sentences about what this run has made and not deleted."""

    @property
    def is_as_expected(self) -> bool:
        """Whether every question that was asked has an expected answer, and everything was deleted."""
        are_expected = all(one.verdict in (Verdict.AS_EXPECTED, Verdict.NOT_ASKED) for one in self.findings)
        return are_expected and not self.leftovers

    @property
    def counts(self) -> dict[str, int]:
        """The number of findings by verdict."""
        found = Counter(str(one.verdict) for one in self.findings)
        return {str(verdict): found[str(verdict)] for verdict in Verdict}

    def to_json(self, redactor: Redactor) -> str:
        """Return the report as a JSON text."""
        findings = [
            {**one.to_json(), "answer": beginning(redactor.text(one.answer), _MOST_OF_ANSWER)} for one in self.findings
        ]
        report = {
            "format": FORMAT,
            "versions": self.versions,
            "hopsworks": {"version": redactor.text(self.version or "unknown"), "sdk_line": self.sdk},
            "counts": self.counts,
            "remarks": redactor.json(self.remarks + self.leftovers),
            "checks": findings,
            "timeline": redactor.json([one.to_json() for one in self.timeline]),
        }
        return json.dumps(report, indent=2) + "\n"

    def to_text(self, redactor: Redactor) -> str:
        """Return the report as a text for people."""
        counts = ", ".join(f"{number} {verdict}" for verdict, number in self.counts.items())
        lines = [
            f"Hopsworks {redactor.text(self.version or 'of unknown version')}, compared with SDK {self.sdk}",
            ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            f"{len(self.findings)} checks: {counts}",
            *map(redactor.text, self.remarks + self.leftovers),
        ]
        for section in dict.fromkeys(one.section for one in self.findings):
            lines += ["", section]
            for one in self.findings:
                if one.section == section:
                    lines += _lines_of(one, redactor)
        if self.timeline:
            lines += ["", "The doctor's own deployment, whenever its state changed"]
            lines += _timeline(self.timeline, redactor)
        return "\n".join(lines) + "\n"


def _lines_of(finding: Finding, redactor: Redactor) -> list[str]:
    answer = beginning(redactor.text(finding.answer), _MOST_OF_ANSWER).replace("\n", " ")
    lines = [f"  {_MARKS[finding.verdict]:<{_WIDTH}}  {finding.id}: {answer}"]
    if finding.verdict in (Verdict.DIFFERS, Verdict.NO_ANSWER):
        lines += [f"  {'':<{_WIDTH}}    question: {finding.question}"]
        lines += [f"  {'':<{_WIDTH}}    expected: {finding.expected}"]
    return lines


def _timeline(moments: Sequence[Moment], redactor: Redactor) -> list[str]:
    return [f"  {one.seconds:8.2f} s  {one.event:<12}  {redactor.text(one.state)}" for one in moments]
