"""
What a DAG file costs that uses the operators and sensors: what importing them adds to Airflow's own base classes.

Run: make parse-time. Next to the providers that do like jobs, in an environment that has them all: each is imported in
a fresh process, in turn, after Airflow's base classes, which are not counted; the medians are compared. So are the
modules that come with it. And the example DAGs are parsed as Airflow's DAG processor does it, after those classes, too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GOAL_MS = 15
EXAMPLES = Path(__file__).parents[1] / "example_dags"
BASE = """
from airflow.providers.common.compat.sdk import (
    AirflowException, AirflowFailException, AirflowNotFoundException, AirflowSensorTimeout, AirflowSkipException,
    AirflowTaskTimeout, BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator, PokeReturnValue, conf, mask_secret
)
"""
OURS = "airflow_provider_hsml"
IMPORTS = {
    OURS: "airflow_provider_hsml.operators, airflow_provider_hsml.sensors",
    "http": "airflow.providers.http.operators.http, airflow.providers.http.sensors.http",
    "dbt-cloud": "airflow.providers.dbt.cloud.operators.dbt, airflow.providers.dbt.cloud.sensors.dbt",
    "airbyte": "airflow.providers.airbyte.operators.airbyte, airflow.providers.airbyte.sensors.airbyte",
    "databricks": "airflow.providers.databricks.operators.databricks, airflow.providers.databricks.sensors.databricks",
    "amazon (SageMaker)": (
        "airflow.providers.amazon.aws.operators.sagemaker, airflow.providers.amazon.aws.sensors.sagemaker"
    ),
}
TIMED = """
import json, sys, time
{before}
there, begun = set(sys.modules), time.perf_counter()
import {modules}
print("COST=" + json.dumps([(time.perf_counter() - begun) * 1000, len(set(sys.modules) - there)]))
"""
PARSE = f"""
import json, sys
from airflow.dag_processing.dagbag import DagBag
{BASE}
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
found = {{stat.file: stat.duration.total_seconds() * 1000 for stat in bag.dagbag_stats}}
print("COST=" + json.dumps(found))
"""


def cost(script: str, *arguments: str) -> Any:
    """Run a script in a process of its own, and give what it found."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"AIRFLOW_HOME": home, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"},
        )
    return json.loads(done.stdout.rpartition("COST=")[2])


def imported(name: str) -> tuple[float, int]:
    """Give the milliseconds and the modules of one import."""
    milliseconds, modules = cost(TIMED.format(before=BASE, modules=IMPORTS[name]))
    return milliseconds, modules


def main(rounds: int = 7) -> None:
    """Measure, and print the table and the goals."""
    for name in IMPORTS:
        imported(name)  # Byte code, and the file system's cache.
    found = [{name: imported(name) for name in IMPORTS} for _ in range(rounds)]
    times = {name: statistics.median(one[name][0] for one in found) for name in IMPORTS}
    modules = {name: found[0][name][1] for name in IMPORTS}
    print("on top of Airflow's base classes   ms  modules  of ours")
    for name in IMPORTS:
        print(f"{name:28}  {times[name]:7.1f}  {modules[name]:7d}  {times[name] / times[OURS]:6.1f}")
    examples: dict[str, float] = cost(PARSE, str(EXAMPLES))
    print("example DAGs:", ", ".join(f"{name} {ms:.0f} ms" for name, ms in sorted(examples.items())))

    fewest = min(count for name, count in modules.items() if name != OURS)
    goals: list[dict[str, Any]] = [
        {"name": "import on top of Airflow", "value": round(times[OURS], 1), "unit": "ms", "goal": GOAL_MS},
        {"name": "modules, fewer than each of the others", "value": modules[OURS], "unit": "", "goal": fewest - 1},
    ]
    print(json.dumps({"goals": [goal | {"met": goal["value"] <= goal["goal"]} for goal in goals]}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
