"""
What importing the operators and sensors costs a DAG file, on top of Airflow's own base classes.

Run: python benchmarks/import_time.py [rounds]. Both imports are timed in fresh processes, in turn, and the medians
compared.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

GOAL_MS = 25
BASE = (
    "from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseSensorOperator, AirflowException, "
    "AirflowFailException, AirflowNotFoundException, PokeReturnValue, conf, mask_secret"
)
OURS = "import airflow_provider_hsml.operators, airflow_provider_hsml.sensors"
TIMED = """
import time
{before}
begun = time.perf_counter()
{code}
print("MS", (time.perf_counter() - begun) * 1000)
"""


def milliseconds(code: str, *, before: str = "") -> float:
    """Time an import in a process of its own."""
    script = TIMED.format(before=before, code=code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout.rsplit("MS", 1)[1])


def main(rounds: int = 7) -> None:
    """Measure, and print the ratio and the goal."""
    milliseconds(OURS)
    pairs = [(milliseconds(BASE), milliseconds(OURS, before=BASE)) for _ in range(rounds)]
    base, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"Airflow's base classes: {base:.0f} ms; ours on top: {ours:.1f} ms, {100 * ours / base:.1f} % of it")
    goal = {"name": "import on top of Airflow", "value": round(ours, 1), "unit": "ms", "goal": GOAL_MS}
    goal["met"] = ours <= GOAL_MS
    print(json.dumps({"goals": [goal]}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
