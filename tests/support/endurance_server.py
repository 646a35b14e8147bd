"""
A Hopsworks for endurance tests, in a process of its own: ``python endurance_server.py PORT STATE``.

Its whole state is the file STATE, which the test writes, so that it can be killed at any moment: JSON with the number
of ``deployments``, the numbers of the ``stopped`` ones, the share of requests with a fault (``faults``), and the first
and the last ``versions`` of each model. Each response is about the deployment or the request that it answers. With
port 0, a free port is chosen. The port is printed.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_STATE = Path(sys.argv[2])
_RANDOM = random.Random()  # noqa: S311 - not a secret
_FAULTS = ("reset", "cut", "503", "html", "slow")


def _row(number: int, state: dict[str, Any]) -> dict[str, Any]:
    is_stopped = number in state["stopped"]
    return {
        "id": number,
        "name": f"d{number}",
        "version": 1,
        "modelName": f"m{number}",
        "modelVersion": 1,
        "modelFramework": "SKLEARN",
        "modelServer": "PYTHON",
        "servingTool": "KSERVE",
        "requestedInstances": 1,
        "status": "Stopped" if is_stopped else "Running",
        "availableInstances": 0 if is_stopped else 1,
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        state = json.loads(_STATE.read_text())
        fault = _RANDOM.choice(_FAULTS) if _RANDOM.random() < state["faults"] else ""
        if fault == "reset":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "slow":
            time.sleep(0.5)
        status, body = self._found(state, content)
        if fault in ("503", "html"):
            status, body = (503, {"errorCode": 120000}) if fault == "503" else (502, None)
        text = b"<html>Bad Gateway</html>" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if fault == "cut":
            text = text[: len(text) // 2]
            self.close_connection = True
        self.wfile.write(text)

    def _found(self, state: dict[str, Any], content: bytes) -> tuple[int, Any]:  # noqa: PLR0911 - one for each route
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        match unquote(address.path).split("/")[3:]:
            case ["project", "getProjectInfo", name]:
                return 200, {"projectId": 1, "projectName": name}
            case ["project", "1", "serving"] if "name" in query:
                return 200, _row(int(query["name"].removeprefix("d")), state)
            case ["project", "1", "serving"]:
                return 200, [_row(number, state) for number in range(state["deployments"])]
            case ["project", "1", "serving", number]:
                return 200, _row(int(number), state)
            case ["project", "1", "inference", "models", name]:
                rows = json.loads(content)["instances"]
                return 200, {"predictions": [[name.removesuffix(":predict"), *row] for row in rows]}
            case ["project", "1", "modelregistries", "1", "models"]:
                name = query["filter_by"].removeprefix("name_eq:")
                first, last = state["versions"]
                items = [
                    {"id": f"{name}_{number}", "name": name, "version": number, "metrics": {"auc": 0.5}}
                    for number in range(first, last + 1)
                ]
                offset = int(query.get("offset", 0))
                return 200, {"count": len(items), "items": items[offset : offset + int(query["limit"])]}
        return 404, {"errorCode": 120004, "errorMsg": self.path}

    do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    server = _Server(("127.0.0.1", int(sys.argv[1])), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
