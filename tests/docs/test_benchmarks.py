"""The benchmarks: they run, and what is counted holds on any machine."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hsml.local import Speeds
from airflow_provider_hsml.testing import SHORT_WAITS

if TYPE_CHECKING:
    from types import ModuleType

    from airflow_provider_hsml.local import LocalServing

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load a benchmark as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "INFO")
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def promotion(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark of promotions, in a hurry."""
    module = load("promotion", monkeypatch)
    monkeypatch.setattr(module, "QUIET", 0.5)
    return module


@pytest.mark.since_hopsworks("5.2")
def test_a_promotion_is_measured_and_nothing_to_be_done_takes_few_reads_and_no_write(
    promotion: ModuleType, serving: LocalServing, tmp_path: Path
) -> None:
    (update,), ((ours, plain),), (rollback,) = promotion.measure(promotion.Bench(serving, tmp_path), 1)

    assert ours.reads <= promotion.MOST_READS
    assert (ours.probes, ours.writes) == (1, 0)
    assert (plain.reads, plain.probes, plain.writes) == (2, 1, 0)
    for change in (update, rollback):
        assert change.ours.writes >= 3, "the journal twice, and the change"
        assert change.ours.probes >= 5
        assert 0 < change.plain < change.allowed


def test_a_comparison_sends_rows_to_both_versions_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="a comparison measures with scikit-learn")
    from airflow_provider_hsml.local import LocalServing

    compare = load("compare", monkeypatch)
    with LocalServing(engine=compare.load, speeds=Speeds(0.01, 0.02, 0.05, 0.02, 0.02)) as serving:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        for name, seconds in SHORT_WAITS.items():
            monkeypatch.setattr(name, seconds)
        scorings, whole, again = compare.measure(400, tmp_path)

    assert scorings.requests == 200
    assert len(scorings.seconds) == 2, "stored answers are not asked for again"
    assert 200 * compare.WAIT < scorings.of_requests < whole * 4
    assert again < whole


@pytest.mark.slow
def test_waits_in_airflows_trigger_runner_ask_once_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = load("waiting", monkeypatch)
    with waiting.served() as server:
        ((ours,), (plain,)) = (waiting.in_a_triggerer(server, "costs", kind, [30]) for kind in ("ours", "plain"))

    assert ours["requests"] <= 2
    assert plain["requests"] >= 25


MADE_UP = {
    "__init__.py": "",
    "operators/base.py": "class Operator:\n    def __init__(self):\n" + 300 * "        pass\n",
    "hopsworks/__init__.py": "from .flow import drive",
    "hopsworks/errors.py": "class LostError(Exception): ...",
    "hopsworks/api/__init__.py": "",
    "hopsworks/api/call.py": "from ..errors import LostError",
    "hopsworks/flow.py": """
        from typing import TYPE_CHECKING
        from .api import call
        if TYPE_CHECKING:
            from .plan import Plan

        def drive(flow):
            '''Return what it returned, and what not.

            :param flow: the flow
            :param other: seconds, at most as many
                as the server takes
            '''
            yield from flow
    """,
    "hopsworks/plan.py": """
        from dataclasses import dataclass

        class Plan:
            kind: ClassVar[str]
            first: int

            def run(self):
                from airflow_provider_hsml.hopsworks import flow
                self.second, self.first = 1, 2

        @dataclass(frozen=True)
        class Value:
            first: int

            @property
            def double(self): ...
            def to_json(self): ...

        @dataclass(frozen=True)
        class Doing:
            def work(self): ...
    """,
}


@pytest.fixture
def structure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The measures of readability."""
    return load("structure", monkeypatch)


class TestStructure:
    @pytest.fixture
    def sources(self) -> dict[str, str]:
        return {f"airflow_provider_hsml/{path}": textwrap.dedent(text) for path, text in MADE_UP.items()}

    def test_a_cycle_counts_each_of_its_modules_as_a_level(
        self, structure: ModuleType, sources: dict[str, str]
    ) -> None:
        """An import for types closes it, and one inside a function."""
        found = structure.measure(sources)

        assert found.hopsworks == structure.ImportShape(nodes=6, levels=5, cycles=1, largest_cycle=2)
        assert found.rooms == structure.ImportShape(nodes=4, levels=4, cycles=1, largest_cycle=2)
        assert found.package.nodes == 8

    def test_classes_are_measured_by_their_own_lines_and_fields(
        self, structure: ModuleType, sources: dict[str, str]
    ) -> None:
        found = {each.name: each for each in structure.measure(sources).classes}

        assert found["Plan"] == structure.ClassSize("Plan", lines=7, fields=2, has_behaviour=True)
        assert not found["Value"].has_behaviour
        assert found["Doing"].has_behaviour
        assert found["Operator"].lines == 302
        assert not found["Operator"].has_behaviour, "operators are exempt"

    def test_words_are_those_of_docstrings(self, structure: ModuleType, sources: dict[str, str]) -> None:
        found = structure.measure(sources)

        assert (found.params, found.repeating_params) == (2, 1)
        assert found.whats == 2
        assert found.yield_froms == {"hopsworks": 1}

    def test_each_exempt_class_is_there(self, structure: ModuleType) -> None:
        named = {each.name for each in structure.measure(structure.working_tree()).classes}

        assert set(structure.VALUES) <= named

    def test_a_revision_is_read_without_a_checkout(
        self, structure: ModuleType, sources: dict[str, str], tmp_path: Path
    ) -> None:
        git = shutil.which("git")
        if git is None:
            pytest.skip("git is not on PATH")
        for path, text in sources.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        author = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
        for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "First"]):
            subprocess.run([git, *command], cwd=tmp_path, check=True)
        (tmp_path / "airflow_provider_hsml/hopsworks/plan.py").unlink()

        assert structure.revision("HEAD", tmp_path) == sources
        assert len(structure.working_tree(tmp_path)) == len(sources) - 1
        with pytest.raises(SystemExit, match="no commit"):
            structure.revision("--output=x", tmp_path)

    def test_the_table_has_a_column_for_each_state_and_the_goals_follow(
        self,
        structure: ModuleType,
        sources: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(structure, "revision", {"v1": sources}.__getitem__)

        structure.main("v1")

        *rows, last = capsys.readouterr().out.splitlines()
        assert rows[0] == "|  | v1 | working tree |"
        assert len(rows) == len(structure.ROWS) + 2
        assert {row.count(" | ") for row in rows} == {2}
        goals = {each["name"]: each for each in json.loads(last)["goals"]}
        assert len(goals) == 5
        assert goals["import cycles in hopsworks"]["met"]


def test_nights_of_comparisons_promote_what_is_better_and_no_backfill(monkeypatch: pytest.MonkeyPatch) -> None:
    nights = load("comparison_nights", monkeypatch)

    better = nights.play("one is better by 0.08", 2, [0.0, 0.08, 0.0], 0)
    backfill = nights.play("backfill", 2, [0.0, 0.08, 0.0], 0, backfill=True)

    assert better.measured == [1, 1]
    assert backfill.measured == [None, None]
    assert backfill.plain == better.plain == [1, 1]
    assert nights.row(backfill) == "| backfill | 2 | 0.0% | 100.0% |"
    assert nights.row(better) == "| one is better by 0.08 | 2 | 0.0% right, 100.0% wrong | 0.0% right, 100.0% wrong |"
