"""
``make faults``: plays a sample of the matrix, and prints its table.

The cells are spread over one process for each core, each with servers of its own: one process could use one core only.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import tests.conftest  # noqa: F401 - an Airflow of its own, before anything imports it

from . import killed, processes, report
from .cell import Outcome
from .matrix import Matrix, cells_of, find, grounds, parsed, sample

_MARK = "outcome "
_ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--cell", help="play this cell alone, and show its requests and log lines")
    parser.add_argument("--shard", help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 4))
    parser.add_argument("--at-once", type=int, default=64, help="cells at once, in all processes")
    parser.add_argument("--only", default="", help="cells whose names hold this text")
    options = parser.parse_args()
    cells = os.environ.get("HSML_TEST_CELLS") or "2000"
    seed = int(os.environ.get("HSML_TEST_SEED") or dt.datetime.now(dt.UTC).date().toordinal())
    if options.cell:
        return _one(options.cell)
    if options.shard:
        _shard(options.shard, cells, seed, options.at_once, options.only)
        return 0
    begun = time.monotonic()
    print(f"HSML_TEST_SEED={seed} HSML_TEST_CELLS={cells}, {options.at_once} cells at once", flush=True)
    outcomes = _all_shards(options, cells, seed)
    dead = [] if options.only else killed.play_all(seed)
    apart = [] if options.only else processes.play_all(seed)
    for outcome in (*dead, *apart):
        if not outcome.survived:
            print(report.failure(outcome), flush=True)
    print(report.table(outcomes))
    unmet = sum(not outcome.is_met for outcome in outcomes)
    print(f"{unmet} faults were not met: the request that they were for did not come")
    print(f"servers killed with -9: {report.last_line(dead)}")
    print(f"promoters in two processes: {report.last_line(apart)}")
    print(f"in {time.monotonic() - begun:.0f} s")
    print(report.last_line(outcomes))
    return 0 if outcomes and all(outcome.survived for outcome in (*outcomes, *dead, *apart)) else 1


def _one(name: str) -> int:
    if name.startswith("killed/"):
        outcome = killed.play(name)
    else:
        ground = parsed(name)
        with Matrix(2, [ground.line]) as matrix:
            (exchanges,) = matrix.record([ground]).values()
            (outcome,) = matrix.play([find(cells_of(ground, exchanges), name)])
    print(report.failure(outcome, is_long=True) if outcome.problems else "\n".join([name, *outcome.ends]))
    print(report.last_line([outcome]))
    return 0 if outcome.survived else 1


def _all_shards(options: argparse.Namespace, cells: str, seed: int) -> list[Outcome]:
    """Play each shard in a process of its own."""
    outcomes: list[Outcome] = []
    most = cells if cells == "all" else str(-(-int(cells) // options.processes))
    environment = {**os.environ, "HSML_TEST_SEED": str(seed), "HSML_TEST_CELLS": most}
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        __package__,
        "--at-once",
        str(max(1, options.at_once // options.processes)),
    ]
    command += ["--only", options.only] if options.only else []

    def read(program: subprocess.Popen[str]) -> None:
        assert program.stdout is not None
        for line in program.stdout:
            if not line.startswith(_MARK):
                continue
            outcome = Outcome(**json.loads(line.removeprefix(_MARK)))
            outcomes.append(outcome)
            if not outcome.survived:
                print(report.failure(outcome), flush=True)
            if len(outcomes) % 200 == 0:
                print(f"{report.last_line(outcomes)} so far", flush=True)

    programs = [
        subprocess.Popen(
            [*command, "--shard", f"{number}/{options.processes}"],
            env=environment,
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(options.processes)
    ]
    try:
        readers = [threading.Thread(target=read, args=(program,)) for program in programs]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        if any(program.wait() for program in programs):
            raise SystemExit("a process of the matrix failed")
    finally:
        for program in programs:
            program.kill()
    return outcomes


def _shard(shard: str, cells: str, seed: int, at_once: int, only: str) -> None:
    """Play the cells of every n-th ground."""
    number, _, of = shard.partition("/")
    chosen = grounds()[int(number) :: int(of)]
    if only:
        chosen = [ground for ground in chosen if str(ground).startswith(only.partition("/")[0])]
    lock = threading.Lock()

    def tell(outcome: Outcome) -> None:
        told = dataclasses.replace(outcome, exchanges=[], log=[])
        with lock:
            print(_MARK + json.dumps(dataclasses.asdict(told)), flush=True)

    with Matrix(at_once) as matrix:
        recorded = matrix.record(chosen)
        known = [cell for ground in chosen for cell in cells_of(ground, recorded[ground])]
        known = [cell for cell in known if only in str(cell)]
        matrix.play(sample(known, len(known) if cells == "all" else int(cells), seed), tell)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # A cell that hangs does not keep the program.
