"""
Runs the example DAGs, and forty retrain runs at once, in a real Airflow as production has it.

First PostgreSQL with the LocalExecutor, then PostgreSQL and Redis with the CeleryExecutor and two workers; scheduler,
triggerer, DAG processor and API server are processes of their own. ``make integration`` runs
``python -m integration.run``, which installs Debian's servers where they are missing, and ends all that it has started,
also when it fails or is interrupted. The logs are kept below ``.integration``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from airflow_provider_hsml.local.demo.processes import DemoInterruptedError, Interrupts, Voice
from integration import examples, many
from integration.scene import WORKERS, start
from integration.servers import CannotError, install

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

FOLDER = Path(__file__).parents[1] / ".integration"
EXECUTORS = ("LocalExecutor", "CeleryExecutor")


def main() -> int:
    """Run it with each executor."""
    parser = argparse.ArgumentParser(prog="make integration ARGS=", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--executor", choices=EXECUTORS, help="only this one")
    given = parser.parse_args()
    said = []
    try:
        with Voice() as voice, Interrupts() as interrupts:
            with interrupts.heeded():
                install()
            for executor in [given.executor] if given.executor else EXECUTORS:
                with contextlib.ExitStack() as ends, interrupts.heeded():
                    said.append(_run(executor, voice, ends, interrupts))
                assert not (left := _left()), f"still there: {left}"
    except (CannotError, DemoInterruptedError) as error:
        print(f"INTEGRATION FAILED: {error}", flush=True)
        return 1
    except Exception:  # noqa: BLE001 - whatever it is, the last line says so
        traceback.print_exc(file=sys.stdout)
        print(f"INTEGRATION FAILED: see above, and the logs in {FOLDER}", flush=True)
        return 1
    print(f"INTEGRATION OK: {'. '.join(said)}", flush=True)
    return 0


def _run(executor: str, voice: Voice, ends: contextlib.ExitStack, interrupts: Interrupts) -> str:
    """Run everything with an executor, and say what was seen."""

    def enter(one: AbstractContextManager[Any]) -> Any:
        with interrupts.held():
            return ends.enter_context(one)

    voice.say(f"Starting Airflow with the {executor}")
    dags = {**examples.files(), many.FILE.name: many.FILE.read_text()}
    scene = start(executor, FOLDER / executor, dags, enter)
    voice.say(f"{scene.says}: it is up")
    scene.until(lambda: len(scene.tell("GET", "dags")["dags"]) == len(examples.files()) + len(many.DAGS))
    voice.say("The example DAGs")
    ran = examples.run(scene)
    voice.say(f"{ran}. Forty at once")
    at_once = many.run(scene)
    voice.say(at_once)
    if executor == "CeleryExecutor":
        done = [(scene.airflow.home / f"worker-{name}.log").read_text().count(" succeeded in ") for name in WORKERS]
        assert all(done), f"the workers did {done} tasks"
        scene.says += f" ({' and '.join(map(str, done))} tasks)"
    return f"{scene.says}: {ran}; {at_once}"


def _left() -> list[str]:
    """Name the processes of an Airflow of ours."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("AIRFLOW_HOME", "").startswith(str(FOLDER)):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
