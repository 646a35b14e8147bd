"""
Run a job's task in a process that is killed with -9 right before or after one of its requests.

The arguments are JSON: ``{"job", "key", "method", "path", "number", "after", "deferrable"}``. The process kills itself
at the n-th request with this method and this end of its path. Without a number it lives, and prints the result.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import requests

from airflow_provider_hsml.hooks import HsmlHook

if __name__ == "__main__":
    wish: dict[str, Any] = json.loads(sys.argv[1])
    send, seen = requests.Session.send, 0

    def die() -> None:
        """Die as from a kill -9: nothing more is done."""
        os.kill(os.getpid(), signal.SIGKILL)

    def watched(session: requests.Session, request: Any, **arguments: Any) -> Any:
        """Send a request, and die at the one that was wished for."""
        global seen  # noqa: PLW0603 - a program
        path = request.path_url.partition("?")[0]
        is_it = wish.get("number") and request.method == wish["method"] and wish["path"] in path
        seen += bool(is_it)
        is_it = is_it and seen == wish["number"]
        if is_it and not wish["after"]:
            die()
        answer = send(session, request, **arguments)
        if is_it:
            die()
        return answer

    requests.Session.send = watched  # type: ignore[method-assign, assignment]
    execution = HsmlHook().run_job(wish["job"], ["--day", 1], poll_interval=0.1, timeout=60, run_key=wish["key"])
    print(json.dumps({"id": execution.id, "state": execution.state}))
