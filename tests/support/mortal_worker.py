"""
Do tasks in processes that are killed right after their n-th request.

Each line of the standard input is a task: ``{"verb": "deploy_model", "arguments": {...}, "points": 3}``. It is done in
a fork, so that what is killed has imported everything already; for each, one line of JSON says how it ended.
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
from airflow_provider_hsml.hopsworks.domain import rollout_tracker  # noqa: E402
from airflow_provider_hsml.hopsworks.errors import HopsworksError  # noqa: E402
from airflow_provider_hsml.hopsworks.inference import predict  # noqa: E402
from airflow_provider_hsml.hopsworks.rollout import inputs  # noqa: E402

for _module, _name, _seconds in (
    (predict, "BETWEEN_PROBES", 0.1),
    (predict, "ROUTE_BUDGET", 10.0),
    (inputs, "FIRST_DELAY_UPDATE", 0.5),
    (rollout_tracker, "SETTLE_SEEN", 1.0),
    (rollout_tracker, "SETTLE_UNSEEN", 5.0),
    (rollout_tracker, "NAMES_AGAIN", 1.0),
):
    setattr(_module, _name, _seconds)


def tell(what: dict[str, Any]) -> None:
    """Say how a task ended."""
    os.write(TOLD, (json.dumps(what) + "\n").encode())


class Countdown:
    """Kills this process after so many points."""

    def __init__(self, points: int | None) -> None:
        """
        Begin.

        :param points: None: never
        """
        self.points = points
        self.passed: list[str] = []
        self.last = ""

    def note(self, method: str, path: str, query: str) -> None:
        """Take a request that was answered: points are changes, and after each the first look and the first probe."""
        what = f"{method} {path} {query}".strip()
        is_look = method == "GET" and path.rpartition("/")[0].endswith("/serving")
        is_probe = path.endswith(":predict")
        if method == "DELETE" or (method == "GET" and not is_look) or "action=create" in query:
            return
        if (is_look or is_probe) and (not self.passed or what in self.passed[self._written() :]):
            return
        self.passed.append(what)
        if len(self.passed) == self.points:
            tell({"killed": what})
            os.kill(os.getpid(), signal.SIGKILL)

    def _written(self) -> int:
        """Where the last change was made."""
        writes = [n for n, what in enumerate(self.passed) if "/serving" in what and not what.startswith("GET")]
        return writes[-1] if writes else 0


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Do a task, and tell how it ended."""
    countdown = Countdown(task.get("points"))
    send = requests.adapters.HTTPAdapter.send

    def counted(adapter: requests.adapters.HTTPAdapter, request: Any, **arguments: Any) -> Any:
        answer = send(adapter, request, **arguments)
        path, _, query = request.path_url.partition("?")
        countdown.note(request.method, path, query)
        return answer

    requests.adapters.HTTPAdapter.send = counted  # type: ignore[method-assign, assignment]
    try:
        record = getattr(HsmlHook(), task["verb"])(**task["arguments"])
    except HopsworksError as error:
        if error.record is None:
            raise
        record = error.record
    return {"action": record.action, "version": record.model_version, "reason": record.reason}


if __name__ == "__main__":
    for _line in sys.stdin:
        _child = os.fork()
        if not _child:
            tell(work(json.loads(_line)))
            os._exit(0)
        _, _status = os.waitpid(_child, 0)
        if not os.WIFSIGNALED(_status) and os.WEXITSTATUS(_status):
            tell({"broke": _status})
