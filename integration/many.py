"""Forty parallel retrain runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.scene import Scene

FILE = Path(__file__).parent / "dags" / "retrain_many.py"
DAGS = {(where, how): f"retrain_{where}_{how}" for where in ("default", "other") for how in ("worker", "triggerer")}
RUNS = 10
"""Of each DAG."""


def run(scene: Scene) -> str:
    """Run them, check that each deployment serves its own model, and return a summary."""
    desired = {}
    for (where, how), dag in DAGS.items():
        for number in range(RUNS):
            model, best = f"{how}_{number}", number % 2
            scene.trigger(dag, f"night_{number}", model=model, best=best)
            desired[f"hsml_{where}", model.replace("_", "")] = f"{dag}, {model}, candidate {best}"
    for serving in scene.servings.values():
        serving.requests.clear()
    began = time.monotonic()
    scene.unpause(*DAGS.values())
    runs = scene.until_succeeded(*DAGS.values(), runs=RUNS, seconds=1800)
    seconds = time.monotonic() - began

    assert len(runs) == len(desired) == len(DAGS) * RUNS
    assert max(run["start_date"] for run in runs) < min(run["end_date"] for run in runs), "the runs were not parallel"
    for (connection, deployment), answer in desired.items():
        assert scene.ask(connection, deployment, [[0.0], [1.0]]) == [answer] * 2, deployment
    for connection, serving in scene.servings.items():
        changes = [one.path for one in serving.requests.where("PUT", f"/project/{serving.project_id}/serving")]
        assert len(changes) == sum(where == connection for where, _ in desired), f"expected one change each: {changes}"
        refused = [one for one in serving.requests if one.status in {401, 403}]
        assert not refused, refused[:3]
    tries = [task["try_number"] for dag in DAGS.values() for task in scene.tasks(dag)]
    deadlocks = scene.database_log.read_text().count("deadlock detected")
    counts = f"{len(tries)} tasks, {sum(tries) - len(tries)} retries, {deadlocks} deadlocks"
    return f"{len(runs)} parallel retrain runs in {seconds:.0f} s ({counts})"
