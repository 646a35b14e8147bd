"""Separate file systems: no Celery worker finds a file of the other one's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.scene import Scene

FILE = Path(__file__).parent / "dags" / "separate_files.py"
_DAG = FILE.stem


def run(scene: Scene) -> str:
    """Run the DAG, which fails if a worker finds a file of the other one's, and return a summary."""
    scene.trigger(_DAG, "by_hand")
    scene.unpause(_DAG)
    scene.until_succeeded(_DAG)
    hosts = {task["task_id"]: task["queue"] for task in scene.tasks(_DAG)}
    assert (hosts["write_one"], hosts["find_others_two"]) == ("one", "two"), hosts
    return "No worker finds a file of the other one's, and none registers a model by the other one's path"
