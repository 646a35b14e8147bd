"""The benchmarks: they run, and what is counted holds on any machine."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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


@pytest.mark.slow
def test_waits_in_airflows_trigger_runner_ask_once_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = load("waiting", monkeypatch)
    with waiting.served() as server:
        ((ours,), (plain,)) = (waiting.in_a_triggerer(server, "costs", kind, [30]) for kind in ("ours", "plain"))

    assert ours["requests"] <= 2
    assert plain["requests"] >= 25
