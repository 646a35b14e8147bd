"""Which cells there are: clean runs find the positions; a seed chooses a sample."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import traceback
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from .answers import write_certificate
from .catalogue import FAULTS
from .cell import Cell, Ground, Loops, Outcome, Player, Seen
from .operations import OPERATIONS
from .pace import hurried
from .plot import Server, Trap
from .proxy import Position
from .witness import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .proxy import Exchange

LINES = ("5.2", "4.6", "3.7")
CELL_SECONDS = 240.0
"""Seconds after which a cell counts as hanging."""
ROUTES = ("hopsworks", "istio")
T = TypeVar("T")
R = TypeVar("R")


def grounds() -> list[Ground]:
    """Return all that clean runs are made for."""
    return [
        Ground(operation.name, line, route, mode)
        for operation in OPERATIONS.values()
        for line in LINES
        for route in (ROUTES if operation.asks_model else ROUTES[:1])
        for mode in (("sync", "deferred") if operation.can_defer else ("sync",))
    ]


def positions(exchanges: list[Exchange]) -> list[Seen]:
    """Return the requests of a clean run: of equal ones in a row, such as polls, the first and the last."""
    found: list[Seen] = []
    for number, exchange in enumerate(exchanges):
        before = exchanges[number - 1] if number else None
        after = exchanges[number + 1] if number + 1 < len(exchanges) else None
        call = exchange.position.call
        if before and after and before.position.call == call == after.position.call:
            continue
        gap = exchange.began - before.began if before else 0.0
        found.append(Seen(exchange.position, before.position if before else None, gap, exchange.is_deferred, exchange))
    return found


def cells_of(ground: Ground, exchanges: list[Exchange]) -> list[Cell]:
    """
    Return the cells of a clean run.

    Up to the deferral a deferrable task sends what any other does, and up to the ingress both routes do the same: the
    cells of those requests are not repeated.
    """
    operation, found = OPERATIONS[ground.operation], []
    for seen in positions(exchanges):
        if (ground.mode == "deferred" and not seen.is_deferred) or (
            ground.route == "istio" and not _is_of_ingress(seen)
        ):
            continue
        response = seen.exchange.response
        if response is None:
            continue
        for fault in FAULTS.values():
            if fault.name == "unknown event" or not fault.fits(seen.exchange.request, response):
                continue
            if not fault.is_client or fault.name in operation.clients:
                found.append(Cell(ground, seen, fault.name))
    if ground.mode == "deferred" and ground.route == ROUTES[0]:
        found.append(Cell(ground, positions(exchanges)[0], "unknown event"))
    return found


def _is_of_ingress(seen: Seen) -> bool:
    return seen.is_at_ingress or "/inference/" in seen.position.call or "kube_knative" in seen.position.call


def sample(cells: list[Cell], most: int, seed: int) -> list[Cell]:
    """Choose cells: one for each pair of operation and fault first, then at random."""
    shuffled = list(cells)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - chance, not cryptography
    if most >= len(shuffled):
        return shuffled
    first: dict[tuple[str, str], Cell] = {}
    for cell in shuffled:
        first.setdefault((cell.ground.operation, cell.fault), cell)
    chosen = list(first.values())[:most]
    known = set(map(id, chosen))
    rest = (cell for cell in shuffled if id(cell) not in known)
    for cell in rest:
        if len(chosen) >= most:
            break
        chosen.append(cell)
    random.Random(seed).shuffle(chosen)  # noqa: S311 - as above
    return chosen


class Matrix:
    """
    The servers and threads that cells are played with.

    :param at_once: how many cells at once
    :param lines: of Hopsworks
    """

    def __init__(self, at_once: int, lines: Iterable[str] = LINES) -> None:
        self.at_once = at_once
        self.lines = tuple(lines)
        self._stack = ExitStack()
        self._free: dict[str, list[Player]] = defaultdict(list)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # None is removed while cells run: Airflow and the provider walk through the environment.
            stack.callback(_forget_connections)
            stack.enter_context(hurried())
            witness = stack.enter_context(listening())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-tls-")))
            tls = write_certificate(folder)
            trap = Trap()
            stack.callback(trap.close)
            loops = Loops()
            stack.callback(loops.close)
            for line in self.lines:
                server = Server(line, self.at_once, trap)
                stack.callback(server.close)
                self._free[line] = [Player(server, number, loops, witness, tls) for number in range(self.at_once)]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def record(self, wanted: Iterable[Ground]) -> dict[Ground, list[Exchange]]:
        """Make clean runs."""
        chosen = list(wanted)
        recorded = self._all(chosen, lambda player, ground: player.record(ground), lambda ground: ground.line)
        return dict(zip(chosen, recorded, strict=True))

    def play(self, cells: list[Cell], on_end: Callable[[Outcome], None] = lambda _outcome: None) -> list[Outcome]:
        """Play cells, as many at once as may be."""

        def play(player: Player, cell: Cell) -> Outcome:
            outcome = _guarded(player, cell)
            on_end(outcome)
            return outcome

        return self._all(cells, play, lambda cell: cell.ground.line)

    def _all(self, things: list[T], do: Callable[[Player, T], R], line_of: Callable[[T], str]) -> list[R]:
        def work(thing: T) -> R:
            line = line_of(thing)
            with self._lock:
                player = self._free[line].pop()
            try:
                return do(player, thing)
            finally:
                with self._lock:
                    self._free[line].append(player)

        with ThreadPoolExecutor(self.at_once, thread_name_prefix="cell") as threads:
            return list(threads.map(work, things))


def _forget_connections() -> None:
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_FAULTS_")]:
        del os.environ[name]


def _guarded(player: Player, cell: Cell) -> Outcome:
    """Play a cell in a thread of its own, which is left behind if it hangs."""
    ended: list[Outcome] = []
    name = f"{threading.current_thread().name} {player.connection}"
    thread = threading.Thread(target=lambda: ended.append(player.play(cell)), name=name, daemon=True)
    thread.start()
    thread.join(CELL_SECONDS)
    if ended:
        return ended[0]
    frame = sys._current_frames().get(thread.ident or 0)
    where = "".join(traceback.format_stack(frame)[-12:]) if frame else "nowhere"
    return Outcome(str(cell), cell.ground.operation, cell.fault, [f"it hangs after {CELL_SECONDS:g} s: {where}"])


def find(cells: list[Cell], name: str) -> Cell:
    """
    Return a cell by its name. Of a poll that this clean run has not seen, the one that is nearest.

    :raises LookupError: there is none
    """
    call, _, rest = name.split("/", 4)[4].rpartition(" #")
    number, _, fault = rest.partition("/")
    like = [cell for cell in cells if (cell.seen.position.call, cell.fault) == (call, fault)]
    if not like:
        raise LookupError(f"{name} is no cell")
    nearest = min(like, key=lambda cell: abs(cell.seen.position.number - int(number)))
    at = replace(nearest.seen, position=Position(call, int(number)))
    return replace(nearest, seen=at)


def parsed(name: str) -> Ground:
    """Return the ground of a cell's name."""
    operation, line, route, mode, _ = name.split("/", 4)
    return Ground(operation, line, route, mode)
