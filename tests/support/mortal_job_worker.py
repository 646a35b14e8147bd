"""
Run a job's tasks in processes that are killed with -9 right before or after one of their requests.

Each line of the standard input is a task: ``{"job", "key", "method", "path", "number", "after"}``. It is done in a
fork, which kills itself at the n-th request with this method and this part in its path; without a number it lives. For
each task, one line of JSON says how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

# What is logged, by imports too, is not told to who asks.
TOLD = os.dup(1)
os.dup2(2, 1)

import requests  # noqa: E402

from airflow_provider_hsml.hooks import HsmlHook  # noqa: E402
from airflow_provider_hsml.hopsworks.jobs import search  # noqa: E402

search.GRACE = 3.0


def tell(what: dict[str, Any]) -> None:
    """Say how a task ended."""
    os.write(TOLD, (json.dumps(what) + "\n").encode())


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Do a task, and tell how it ended."""
    send, left = requests.adapters.HTTPAdapter.send, task.get("number") or 0

    def watched(adapter: requests.adapters.HTTPAdapter, request: Any, **arguments: Any) -> Any:
        nonlocal left
        is_one = left > 0 and request.method == task["method"] and task["path"] in request.path_url.partition("?")[0]
        left -= is_one
        if is_one and not left and not task["after"]:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = send(adapter, request, **arguments)
        if is_one and not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    requests.adapters.HTTPAdapter.send = watched  # type: ignore[method-assign, assignment]
    execution = HsmlHook().run_job(task["job"], ["--day", 1], poll_interval=0.1, timeout=60, run_key=task["key"])
    return {"id": execution.id, "state": execution.state}


if __name__ == "__main__":
    for _line in sys.stdin:
        _child = os.fork()
        if not _child:
            tell(work(json.loads(_line)))
            os._exit(0)
        _, _status = os.waitpid(_child, 0)
        if os.WIFSIGNALED(_status):
            tell({"killed": os.WTERMSIG(_status)})
        elif os.WEXITSTATUS(_status):
            tell({"broke": _status})
