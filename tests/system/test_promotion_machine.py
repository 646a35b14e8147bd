"""Promotions, failures, kills and concurrent changes, that hypothesis plays on a local server (``support``)."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from contextlib import closing
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.promotion_machine import PromotionMachine
from tests.support.promotion_scene import Scene

STEPS = int(os.environ.get("HSML_TEST_STEPS", "800"))
"""Of the long run, for each line of Hopsworks."""
SEED = int(os.environ.get("HSML_TEST_SEED", "0"))
SHRINK = float(os.environ.get("HSML_TEST_SHRINK") or 0)
"""Seconds for making what failed smaller."""
LINES = ("5.2", "4.6", "3.7")
_STEPS_OF_AN_EXAMPLE = 20


def play(line: str, steps: int) -> None:
    """Play so many steps, and say of what kinds they were."""

    @seed(3 * SEED + LINES.index(line))
    class Machine(PromotionMachine):
        scene = Scene(line)
        steps: ClassVar[Counter[str]] = Counter()
        ends: ClassVar[Counter[str]] = Counter()

    begun = time.monotonic()
    with closing(Machine.scene), Machine.scene.clock.everywhere():
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=max(1, steps // _STEPS_OF_AN_EXAMPLE),
                    stateful_step_count=_STEPS_OF_AN_EXAMPLE,
                    deadline=None,
                    database=None,
                    report_multiple_bugs=False,
                    phases=[Phase.generate, Phase.shrink] if SHRINK else [Phase.generate],
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            print(f"Hopsworks {line}, seed {SEED}: {Machine.steps.total()} steps, {time.monotonic() - begun:.0f} s")
            print("steps:", dict(Machine.steps.most_common()))
            print("tasks ended:", dict(Machine.ends.most_common()))


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", SHRINK)


@pytest.mark.parametrize("line", LINES)
def test_promotions_in_short(line: str) -> None:
    play(line, 60)


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_promotions_at_length(line: str) -> None:
    play(line, STEPS)
