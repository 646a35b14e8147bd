"""The list of what the official SDKs are run for, and its record in the docs. `make conformance` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance import run
from conformance.steps import STEPS

PAGE = Path(__file__).parents[2] / "docs" / "background" / "local-server.md"


def recorded() -> list[list[str]]:
    """Read the rows of the table in the docs."""
    _, _, rest = PAGE.read_text().partition(run.BEGIN)
    table, end, _ = rest.partition(run.END)
    assert end, "the table is not between its marks"
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_docs_hold_every_step_in_its_order() -> None:
    assert [row[:2] for row in recorded()] == [[step.subject, step.does] for step in STEPS]


def test_the_docs_give_the_reason_where_a_step_is_not_possible() -> None:
    for row, step in zip(recorded(), STEPS, strict=True):
        for said, subject in zip(row[2:], run.SUBJECTS, strict=True):
            reason = step.reason_against(subject.package, subject.release) or step.impossible.get("local")
            assert said == (f"not possible: {reason}" if reason else "ok"), step.name


def test_every_step_has_a_name_and_words_of_its_own() -> None:
    assert len({step.name for step in STEPS}) == len({(step.subject, step.does) for step in STEPS}) == len(STEPS)
    assert not any("|" in step.does for step in STEPS)


def test_a_table_is_written_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{run.BEGIN}\nold\n{run.END}\n\nafter\n")
    result = {"outcome": "ok", "reason": "", "seconds": 1.0}
    results = {subject.sdk: [{"step": step.name, **result} for step in STEPS] for subject in run.SUBJECTS}
    results["hsml"][0] |= {"outcome": "FAILED", "reason": "AssertionError: it was not so"}

    run.write_table(page, results)

    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    assert f"| {STEPS[0].subject} | {STEPS[0].does} | ok | ok | ok | FAILED |" in lines
    assert len([line for line in lines if line.startswith("|")]) == len(STEPS) + 2


def test_a_record_of_half_a_run_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["run", "--docs", "--sdk", "hsml"])

    with pytest.raises(SystemExit):
        run.main()

    assert "--docs needs a run of all SDKs" in capsys.readouterr().err
