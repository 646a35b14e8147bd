"""
Measure the import time that the operators and sensors add to a DAG file, on top of Airflow's base classes.

Run: make parse-time. The provider is compared with similar providers in one environment that has them all. Each is
imported in a fresh process, in turn, after Airflow's base classes, which are not counted. The benchmark compares the
median times and the number of imported modules.

It also parses each example DAG file in a fresh process. Airflow's own imports are not counted: the modules of Airflow
that the file names, which the DAG processor imports in advance, and those that any file with an operator, a ``@task``
and an asset needs. For an asset, Airflow imports the URI handlers of all installed providers.
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
EXAMPLE_GOAL_MS = 50
EXAMPLES = sorted((Path(__file__).parents[1] / "example_dags").glob("*.py"))
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
loaded, started = set(sys.modules), time.perf_counter()
import {modules}
print("COST=" + json.dumps([(time.perf_counter() - started) * 1000, len(set(sys.modules) - loaded)]))
"""
PLAIN_DAG = """
from airflow.providers.common.compat.sdk import DAG, Asset, BaseOperator, task
with DAG("plain", schedule=[Asset("plain://asset")]):
    @task
    def decorated():
        pass
    BaseOperator(task_id="operator") >> decorated()
"""
PARSE = f"""
import importlib, json, os, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.file import iter_airflow_imports
{BASE}
plain = os.environ["AIRFLOW_HOME"] + "/plain.py"
with open(plain, "w") as file:
    file.write({PLAIN_DAG!r})
for module in iter_airflow_imports(sys.argv[1]):
    importlib.import_module(module)
bags = [DagBag(plain)]
loaded = set(sys.modules)
bags.append(DagBag(sys.argv[1]))
assert all(bag.dags and not bag.import_errors for bag in bags), [bag.import_errors for bag in bags]
(stat,) = bags[1].dagbag_stats
print("COST=" + json.dumps([stat.duration.total_seconds() * 1000, len(set(sys.modules) - loaded)]))
"""


def cost(script: str, *arguments: str) -> Any:
    """Run a script in a process of its own and return its measurements."""
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
    """Return the milliseconds and the number of modules of one import."""
    milliseconds, modules = cost(TIMED.format(before=BASE, modules=IMPORTS[name]))
    return milliseconds, modules


def parsed(example: Path) -> tuple[float, int]:
    """Return the milliseconds and the number of modules of the first parse of a DAG file."""
    milliseconds, modules = cost(PARSE, str(example))
    return milliseconds, modules


def main(rounds: int = 7) -> None:
    """Run the measurements, and print the table and the goals."""
    for name in IMPORTS:
        imported(name)  # Warms up: writes bytecode files and fills the file system cache.
    results = [{name: imported(name) for name in IMPORTS} for _ in range(rounds)]
    times = {name: statistics.median(result[name][0] for result in results) for name in IMPORTS}
    modules = {name: results[0][name][1] for name in IMPORTS}
    print("on top of Airflow's base classes   ms  modules  of ours")
    for name in IMPORTS:
        print(f"{name:28}  {times[name]:7.1f}  {modules[name]:7d}  {times[name] / times[OURS]:6.1f}")
    print("first parse, above Airflow's imports   ms  modules")
    slowest = 0.0
    for example in EXAMPLES:
        parses = [parsed(example) for _ in range(rounds)]
        milliseconds = statistics.median(parse[0] for parse in parses)
        slowest = max(slowest, milliseconds)
        print(f"{example.name:31}  {milliseconds:7.1f}  {parses[0][1]:7d}")

    fewest = min(count for name, count in modules.items() if name != OURS)
    goals: list[dict[str, Any]] = [
        {"name": "import on top of Airflow", "value": round(times[OURS], 1), "unit": "ms", "goal": GOAL_MS},
        {"name": "slowest example DAG", "value": round(slowest, 1), "unit": "ms", "goal": EXAMPLE_GOAL_MS},
        {"name": "modules, fewer than each of the others", "value": modules[OURS], "unit": "", "goal": fewest - 1},
    ]
    print(json.dumps({"goals": [goal | {"met": goal["value"] <= goal["goal"]} for goal in goals]}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
