"""The table of a matrix: faults by operations, survived of tried; and the cells that did not survive."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .catalogue import FAULTS
from .operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cell import Outcome

_WIDTH = 9


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the table; a cell of it is empty where nothing was tried."""
    tried = Counter((outcome.fault, outcome.operation) for outcome in outcomes)
    survived = Counter((outcome.fault, outcome.operation) for outcome in outcomes if outcome.survived)
    operations = [name for name in OPERATIONS if any(name == operation for _, operation in tried)]
    lines = [f"{'':17}" + "".join(f"{name:>{_WIDTH}}" for name in (*operations, "all"))]
    for fault in FAULTS:
        each = [(survived[fault, name], tried[fault, name]) for name in operations]
        total = (sum(number for number, _ in each), sum(number for _, number in each))
        if total[1]:
            lines.append(f"{fault:17}" + "".join(f"{_shown(*pair):>{_WIDTH}}" for pair in (*each, total)))
    by_operation = [
        (
            sum(number for (_, name), number in survived.items() if name == operation),
            sum(number for (_, name), number in tried.items() if name == operation),
        )
        for operation in operations
    ]
    total = (sum(survived.values()), sum(tried.values()))
    lines.append(f"{'all':17}" + "".join(f"{_shown(*pair):>{_WIDTH}}" for pair in (*by_operation, total)))
    return "\n".join(lines)


def _shown(survived: int, tried: int) -> str:
    return f"{survived}/{tried}" if tried else ""


def failure(outcome: Outcome, *, is_long: bool = False) -> str:
    """Return what is to be known of a cell that did not survive, and how to play it again."""
    lines = [f"FAILED {outcome.name} ({outcome.seconds:.1f} s)"]
    lines += [f"  - {problem}" for problem in outcome.problems]
    lines += [f"  try {number}: {end}" for number, end in enumerate(outcome.ends, 1)]
    if is_long:
        lines += [f"    {exchange}" for exchange in outcome.exchanges]
        lines += [f"    | {line}" for line in outcome.log]
    return "\n".join([*lines, f"  again: make faults CELL='{outcome.name}'"])


def last_line(outcomes: Sequence[Outcome]) -> str:
    return f"survived {sum(outcome.survived for outcome in outcomes)} of {len(outcomes)}"
