"""Runs an operator as Airflow would, without a scheduler."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

_numbers = itertools.count()


@dataclass
class FakeTaskInstance:
    """What operators ask of a task instance."""

    dag_id: str = "dag"
    run_id: str = field(default_factory=lambda: f"run-{next(_numbers)}")
    task_id: str = "task"
    map_index: int = -1
    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.pushed[key] = value


def execute(operator: Any, ti: FakeTaskInstance | None = None) -> Any:
    """Execute an operator."""
    return operator.execute({"ti": ti or FakeTaskInstance()})


def changes(serving: Any) -> list[tuple[str, str]]:
    """Give what was asked of the server to change since its list was cleared; predictions too, reads not."""
    return [(asked.method, asked.path.rpartition("/")[2]) for asked in serving.requests if asked.method != "GET"]


def reads(serving: Any) -> int:
    """Count what was read."""
    return sum(asked.method == "GET" for asked in serving.requests)
