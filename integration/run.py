"""
Run the example DAGs, and forty parallel retrain runs, in a real Airflow with a production setup.

First PostgreSQL with the LocalExecutor, then PostgreSQL and Redis with the CeleryExecutor and two workers that share no
files. Trained models are handed over by a bucket. Scheduler, triggerer, DAG processor and API server are processes of
their own; those that need no provider have none. ``make integration`` runs ``python -m integration.run``. It installs
missing servers from Debian, and ends all processes that it has started, even if it fails or is interrupted. The logs
are kept below ``.integration``.
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
from integration import examples, machines, many, separate
from integration.scene import start
from integration.servers import CannotError, install

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

FOLDER = Path(__file__).parents[1] / ".integration"
EXECUTORS = ("LocalExecutor", "CeleryExecutor")


def main() -> int:
    """Run everything with each executor."""
    parser = argparse.ArgumentParser(prog="make integration ARGS=", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--executor", choices=EXECUTORS, help="only this one")
    options = parser.parse_args()
    summaries = []
    try:
        with Voice() as voice, Interrupts() as interrupts:
            with interrupts.heeded():
                install()
            for executor in [options.executor] if options.executor else EXECUTORS:
                with contextlib.ExitStack() as ends, interrupts.heeded():
                    summaries.append(_run(executor, voice, ends, interrupts))
                assert not (left := _left()), f"still running: {left}"
    except (CannotError, DemoInterruptedError) as error:
        print(f"INTEGRATION FAILED: {error}", flush=True)
        return 1
    except Exception:  # noqa: BLE001 - the last line of the output reports any error
        traceback.print_exc(file=sys.stdout)
        print(f"INTEGRATION FAILED: see above, and the logs in {FOLDER}", flush=True)
        return 1
    print(f"INTEGRATION OK: {'. '.join(summaries)}", flush=True)
    return 0


def _run(executor: str, voice: Voice, ends: contextlib.ExitStack, interrupts: Interrupts) -> str:
    """Run everything with an executor and return a summary."""

    def enter(one: AbstractContextManager[Any]) -> Any:
        with interrupts.held():
            return ends.enter_context(one)

    voice.say(f"Starting Airflow with the {executor}")
    is_apart = executor == "CeleryExecutor" and machines.can_hide()
    other = [many.FILE, separate.FILE] if is_apart else [many.FILE]
    dags = examples.files() | {file.name: file.read_text() for file in other}
    scene = start(executor, FOLDER / executor, dags, enter)
    voice.say(f"{scene.says}: Airflow is running")
    expected = len(examples.files()) + len(many.DAGS) + is_apart
    scene.until(lambda: len(scene.tell("GET", "dags")["dags"]) == expected)
    if is_apart:
        voice.say("Files of one worker that the other one looks for")
        voice.say(separate.run(scene))
    names = [one["package_name"] for one in scene.tell("GET", "providers?limit=1000")["providers"]]
    assert "apache-airflow-providers-celery" in names, names
    assert "airflow-provider-hsml" not in names, "the API server was to run without the provider"
    voice.say("The example DAGs; the API server has no provider")
    ran = examples.run(scene)
    voice.say(f"{ran}. Forty parallel runs")
    parallel = many.run(scene)
    voice.say(parallel)
    if scene.workers:
        done = [(worker.home / "worker.log").read_text().count(" succeeded in ") for worker in scene.workers]
        assert all(done), f"the workers did {done} tasks"
        scene.says += f" ({' and '.join(map(str, done))} tasks)"
    return f"{scene.says}: {ran}; {parallel}"


def _left() -> list[str]:
    """Return the id and the command of each remaining process of our Airflow."""
    running = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("AIRFLOW_HOME", "").startswith(str(FOLDER)):
                running.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
    return running


if __name__ == "__main__":
    raise SystemExit(main())
