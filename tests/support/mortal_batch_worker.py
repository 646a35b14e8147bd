"""
Score tables in processes that are killed at a moment in the middle.

Each line of the standard input is a task: ``{"name", "arguments", "kill_at"}``. ``kill_at`` is ``{"request": n}``:
right after the answer to the n-th request for predictions; or ``{"file": n, "when": "before" | "after"}``: before or
after the n-th file of the result was put in its place; or empty: never. Each is done in a fork, so that what is killed
has imported everything already; for each, one line says how it ended: ``killed``, the manifest, or
``{"failed": ...}``.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

# What is logged, by imports too, is not told to who asks.
TOLD = os.dup(1)
os.dup2(2, 1)

import requests  # noqa: E402

from airflow_provider_hsml.hooks import HsmlHook  # noqa: E402
from airflow_provider_hsml.hopsworks.batch import table  # noqa: E402
from airflow_provider_hsml.hopsworks.errors import HopsworksError  # noqa: E402


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Score, and die on time."""
    kill_at = task["kill_at"]
    numbers, files = itertools.count(1), itertools.count(1)
    send, replace, link = requests.adapters.HTTPAdapter.send, Path.replace, os.link
    table.PART_BYTES = task["part_bytes"]

    def die(*, now: bool) -> None:
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(adapter: requests.adapters.HTTPAdapter, request: Any, **arguments: Any) -> Any:
        answer = send(adapter, request, **arguments)
        die(now=request.path_url.endswith(":predict") and next(numbers) == kill_at.get("request"))
        return answer

    def placed(act: Any, *arguments: Any) -> Any:
        is_time = next(files) == kill_at.get("file")
        die(now=is_time and kill_at["when"] == "before")
        done = act(*arguments)
        die(now=is_time and kill_at["when"] == "after")
        return done

    requests.adapters.HTTPAdapter.send = counted  # type: ignore[method-assign, assignment]
    Path.replace = lambda self, target: placed(replace, self, target)  # type: ignore[method-assign]
    os.link = lambda *arguments: placed(link, *arguments)
    try:
        return HsmlHook().score_table(task["name"], **task["arguments"])
    except HopsworksError as error:
        return {"failed": str(error)}


def tell(what: Any) -> None:
    """Say how a task ended."""
    os.write(TOLD, (json.dumps(what) + "\n").encode())


if __name__ == "__main__":
    for _line in sys.stdin:
        _child = os.fork()
        if not _child:
            tell(work(json.loads(_line)))
            os._exit(0)
        _, _status = os.waitpid(_child, 0)
        if _status:
            tell("killed" if os.WIFSIGNALED(_status) else {"broke": _status})
