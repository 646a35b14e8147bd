"""Whether a killed task is over for Airflow, or only loses its worker."""

from __future__ import annotations

import logging
from typing import Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

log = logging.getLogger(__name__)

_OVER = frozenset({"failed", "success", "skipped", "upstream_failed", "removed", "restarting"})
"""The states of a task that somebody has marked, or has cleared while it ran."""


def is_over(ti: Any, error: BaseException) -> bool:
    """
    Return whether a task whose work was broken off is over for Airflow.

    A worker that is shut down ends its tasks by the same signal as Airflow does after a person has marked or cleared
    one. The task's state distinguishes them. If Airflow does not answer, the task is not over: its next try attaches to
    the work that was started.

    :param ti: the task instance
    :param error: the exception that broke the work off
    """
    if isinstance(error, AirflowTaskTimeout):
        return True
    try:
        state = _state(ti)
    except Exception:
        log.warning("The state of the killed task is unknown, so its work in Hopsworks is left as it is", exc_info=True)
        return False
    log.info("The task was killed while its state in Airflow is %r", state)
    return state in _OVER


def _state(ti: Any) -> str | None:
    """Read the current state of a task instance; ``removed`` if there is none any more."""
    if not AIRFLOW_V_3_0_PLUS:
        return None if (state := ti.current_state()) is None else str(state)
    found = ti.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index)
    of_task = found.get(ti.run_id) or {"": "removed"}
    state = next(iter(of_task.values()))
    return None if state is None else str(getattr(state, "value", state))
