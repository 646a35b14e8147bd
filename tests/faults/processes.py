"""
Two promoters of one deployment in two processes at once: a small group, with a server in a process of its own.

The other cells have both promoters in one process. Here nothing is shared but the server. The end is judged: one
deployment, which answers as recorded for its version; and the same tasks run again complete.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.operators import RegisterModelOperator
from tests.support.tasks import FakeTaskInstance, execute

from .cell import Outcome
from .killed import Mortal
from .plot import ROWS
from .witness import full_text

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[2]
_GOOD, _BETTER, _BAD = 2, 3, 4
_PAIRS = {"the same": (_GOOD, _GOOD), "two good ones": (_GOOD, _BETTER), "a bad one": (_GOOD, _BAD)}
_OFFSETS = (0.0, 0.3, 1.5)
"""Seconds between the beginnings of both, at most."""
_MODEL = "shared"
_CONNECTION = "AIRFLOW_CONN_HSML_DEFAULT"


class _Worker:
    """A process that does tasks."""

    def __init__(self, stack: ExitStack, connection: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.support.mortal_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=_ROOT,
            env={**os.environ, _CONNECTION: connection},
        )
        stack.callback(self._process.wait)
        stack.callback(self._process.kill)

    def begin(self, name: str, version: int, run: str) -> None:
        arguments = {"model_name": _MODEL, "model_version": version, "deployment_name": name, "run_key": run}
        task = {"verb": "deploy_model", "arguments": {**arguments, "timeout": 60.0, "poll_interval": 0.3}}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ended: dict[str, Any] = json.loads(self._process.stdout.readline())
        return ended


def play_all(seed: int) -> list[Outcome]:
    """Play the group."""
    return list(_played(random.Random(seed)))  # noqa: S311 - chance, not cryptography


def _played(chance: random.Random) -> Iterator[Outcome]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-processes-")))
        mortal = Mortal(folder / "root", "")
        mortal.start()
        stack.callback(mortal.kill)
        extra = {"project": mortal.project}
        host = {"conn_type": "hsml", "host": "http://127.0.0.1", "port": mortal.port}
        connection = json.dumps({**host, "password": mortal.key, "extra": extra})
        os.environ[_CONNECTION] = connection
        for version in (1, _GOOD, _BETTER, _BAD):
            _register(folder, version)
        pair = [_Worker(stack, connection) for _ in range(2)]
        for number, (what, offset) in enumerate(itertools.product(_PAIRS, _OFFSETS)):
            outcome = Outcome(f"two processes/{what}/{offset:g} s", "update", "two processes")
            mortal.name, begun = f"shared{number}", time.monotonic()
            try:
                outcome.problems += _problems(mortal, pair, _PAIRS[what], offset * chance.random(), outcome)
            except Exception as error:  # noqa: BLE001 - the cell is lost, and the others go on
                outcome.problems.append(f"the cell itself failed: {full_text(error)[-1500:]}")
            mortal.rest("DELETE", f"serving/{(mortal.row() or {}).get('id')}")
            outcome.seconds = time.monotonic() - begun
            yield outcome


def _register(folder: Path, version: int) -> None:
    (folder / "model.joblib").write_text("{}")
    answers = [0 if version == _BAD else version] * 2
    execute(
        RegisterModelOperator(
            task_id=f"register{version}",
            model_name=_MODEL,
            model_path=str(folder / "model.joblib"),
            framework="SKLEARN",
            input_example=ROWS,
            expected={"instances": ROWS, "predictions": answers},
        ),
        FakeTaskInstance(),
    )


def _problems(
    mortal: Mortal, pair: list[_Worker], versions: tuple[int, int], offset: float, outcome: Outcome
) -> list[str]:
    pair[0].begin(mortal.name, 1, "before")
    outcome.ends.append(f"{pair[0].end()}")
    for number, (worker, version) in enumerate(zip(pair, versions, strict=True)):
        worker.begin(mortal.name, version, f"run {number}")
        time.sleep(0 if number else offset)
    ends = [worker.end() for worker in pair]
    found = _wrong(mortal, (1, *versions))
    if versions[0] == versions[1] and (kept := _kept(mortal)) != 2:
        found.append(f"the deployment has {kept} versions: the change was carried out more than once")
    for number, (worker, version) in enumerate(zip(pair, versions, strict=True)):
        worker.begin(mortal.name, version, f"run {number} again")
        ends.append(worker.end())
        found += _wrong(mortal, (versions[0] if version == _BAD else version,))
    outcome.ends += map(str, ends)
    return found + [f"a task ended otherwise: {end}" for end in ends if "action" not in end]


def _wrong(mortal: Mortal, versions: tuple[int, ...]) -> list[str]:
    row = mortal.row()
    state = row and (row["status"], row["modelVersion"], mortal.says())
    fine = [("Running", version, version) for version in versions if version != _BAD]
    return [] if state in fine else [f"status, version and answer are {state}: expected one of {fine}"]


def _kept(mortal: Mortal) -> int:
    kept: int = mortal.rest("GET", f"serving/{(mortal.row() or {}).get('id')}/versions").json()["count"]
    return kept
