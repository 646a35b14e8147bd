"""A small sample of the fault matrix, which ``make faults`` plays at length."""

from __future__ import annotations

import gc
import random

import pytest

from . import judge, report
from .answers import Request
from .catalogue import FAULTS
from .matrix import LINES, Matrix, cells_of, grounds, sample
from .operations import OPERATIONS
from .proxy import Exchange, Position

_CELLS = 75
"""In each half."""
_LONG = {"preflight": 3, "compare": 3}
"""Operations that take several times as long as the others, with their cells in this sample."""
_SEED = 1
_AT_ONCE = 16


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("half", [0, 1])
def test_a_sample_of_all_cells_survives(half: int) -> None:
    """One ground for each operation, and as many cells of each."""
    chance = random.Random(_SEED)  # noqa: S311 - not cryptography
    known, names = grounds(), list(OPERATIONS)[half::2]
    chosen = [chance.choice([ground for ground in known if ground.operation == name]) for name in names]
    with Matrix(_AT_ONCE, LINES) as matrix:
        recorded = matrix.record(chosen)
        share = -(-_CELLS // len(chosen)) + 2  # Short operations have fewer cells.
        cells = [
            cell
            for ground in chosen
            for cell in sample(cells_of(ground, recorded[ground]), _LONG.get(ground.operation, share), _SEED)
        ]
        outcomes = matrix.play(cells)

    gc.collect()  # Connections that were cut off are closed here, where their warnings count for nothing.
    print(report.table(outcomes))
    failures = [report.failure(outcome, is_long=True) for outcome in outcomes if not outcome.survived]
    assert not failures, "\n\n".join(failures)
    assert len(outcomes) >= _CELLS


@pytest.mark.parametrize(
    ("operation", "done", "late", "too_often"),
    [
        ("recreate", ["stop", "start", "stop", "put:2", "start"], 0, []),
        ("recreate", [*["stop", "start"] * 2, "stop", "put:2", "start"], 0, ["stop", "start"]),
        ("recreate", [*["stop", "start"] * 2, "stop", "put:2", "start"], 1, []),
        ("recreate", [*["stop", "start"] * 3, "put:2", "put:2"], 1, ["put:2"]),
        ("restart", ["stop", "start", "stop", "start"], 1, ["stop", "start"]),
    ],
)
def test_a_try_on_an_overloaded_machine_may_stop_and_start_once_more(
    operation: str, done: list[str], late: int, too_often: list[str]
) -> None:
    request = Request("POST", "/", (), b"")
    exchanges = [Exchange(request, Position("change", 1), False, 0.0, effect=effect) for effect in done]

    found = judge.effects(OPERATIONS[operation], exchanges, late=late)

    assert [problem.partition(" was")[0] for problem in found] == too_often


def test_the_faults_have_names_of_their_own() -> None:
    assert all(fault.name == name for name, fault in FAULTS.items())
    assert len({name for operation in OPERATIONS.values() for name in operation.clients} - set(FAULTS)) == 0
