"""
A Hopsworks of a few lines, with a clock of its own: what a test says happens, when the test says so.

Unlike the local Model Serving it runs no model and knows no rules; it is for faults and orders of events that no server
can be asked for. Answers go through ``Call.outcome``, as a client's do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from airflow_provider_hsml.hopsworks.api import API, Answer, Call, Project
from airflow_provider_hsml.hopsworks.errors import NoResponseError
from airflow_provider_hsml.hopsworks.flow import Flow, drive

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PROJECT = Project(119, "demo")
LOST = "lost"
"""A fault: the request is carried out, and its answer lost."""
UNSENT = "unsent"
"""A fault: nobody is there."""


def refusal(status: int, code: int, text: str = "") -> Answer:
    """Make the answer with which Hopsworks says no."""
    return Answer(status, json.dumps({"errorCode": code, "errorMsg": "no", "usrMsg": text}).encode())


def row(status: str = "Running", **changes: Any) -> dict[str, Any]:
    """Make a deployment that serves version 1."""
    return {
        "id": 14,
        "name": "digits",
        "version": 1,
        "revision": "100",
        "modelName": "digits",
        "modelVersion": 1,
        "modelPath": "/Projects/demo/Models/digits",
        "modelFramework": "SKLEARN",
        "modelServer": "PYTHON",
        "servingTool": "KSERVE",
        "apiProtocol": "REST",
        "requestedInstances": 1,
        "predictorScalingConfig": {"minInstances": 1},
        "status": status,
        "availableInstances": 1 if status == "Running" else 0,
        "something": {"newer": True},
    } | changes


@dataclass
class FakeHopsworks:
    """Answers calls from what it holds; time passes only when somebody sleeps."""

    row: dict[str, Any] | None = None
    files: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=lambda: ["old"])
    answers: Any = field(default_factory=lambda: [1])
    """The predictions that are given, or the answer itself."""
    has_versions: bool = True
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Versions that are kept and not active."""
    now: float = 1000.0
    sent: list[str] = field(default_factory=list)
    """What changed or asked something: reads are left out."""
    reads: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    faults: dict[str, list[Any]] = field(default_factory=dict)
    """What befalls the next requests of a kind, by the names in ``sent``: LOST, UNSENT, an ``Answer``, or None."""
    lacks: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Number of a read of the deployment -> the values that its answer has in place of the real ones."""
    looks: int = 0
    """Reads of the deployment so far."""
    on: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What happens when a request of a kind arrives, by the names in ``sent``."""
    later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    uploaded: dict[str, dict[str, int]] = field(default_factory=dict)
    """Folder of a model -> the sizes of the files that were uploaded into it."""

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen later."""
        self.later.append((self.now + seconds, action))

    def becomes(self, status: str, *, instances: int | None = None, **changes: Any) -> Callable[[], None]:
        """Make the action of turning into a state."""

        def action() -> None:
            assert self.row is not None
            count = instances if instances is not None else int(status == "Running")
            self.row |= {"status": status, "availableInstances": count, "condition": None} | changes

        return action

    def serves(self, names: list[str], answers: Any) -> Callable[[], None]:
        """Make the action of other instances taking over."""

        def action() -> None:
            self.names, self.answers = names, answers

        return action

    def sleep(self, seconds: float) -> None:
        """Let time pass, and what is to happen meanwhile happen in its order."""
        until = self.now + seconds
        while due := sorted((moment for moment in self.later if moment[0] <= until), key=lambda moment: moment[0]):
            self.now = max(self.now, due[0][0])
            self.later.remove(due[0])
            due[0][1]()
        self.now = until

    def clock(self) -> float:
        """Tell the time."""
        return self.now

    def run(self, flow: Flow[T]) -> T:
        """Drive a procedure."""
        return drive(flow, self.send, self.sleep)

    def send(self, call: Call[T]) -> T:
        """Take a call."""
        path = unquote(call.path.removeprefix(f"{API}/project/119/"))
        kind = self._kind(call, path)
        (self.reads if call.method == "GET" else self.sent).append(kind)
        fault = self.faults[kind].pop(0) if self.faults.get(kind) else None
        if fault == UNSENT:
            raise NoResponseError(f"{call.what}: nobody answers", sent=False)
        if isinstance(fault, Answer):
            return call.outcome(fault)
        answer = self._answer(call, kind, path)
        if call.looks_at is not None:
            answer = _with(answer, self.lacks.get(self.looks, {}))
            self.looks += 1
        if call.method == "DELETE" and path.startswith("dataset"):
            self.files = {name: content for name, content in self.files.items() if not path.endswith(name)}
        if kind in self.on:
            self.on[kind]()
        if fault == LOST:
            raise NoResponseError(f"{call.what}: no answer")
        return call.outcome(answer)

    @staticmethod
    def _kind(call: Call[Any], path: str) -> str:
        action = dict(call.query).get("action", "")
        if path.startswith("inference"):
            return "predict"
        if call.method == "GET":
            return path.split("/", 1)[1] if path.startswith("dataset") else path.rpartition("/")[2]
        if path.startswith("serving"):
            return action or ("CREATE" if call.method == "PUT" and "id" not in call.body else call.method)
        return f"{call.method} {path}"

    def _answer(self, call: Call[Any], kind: str, path: str) -> Answer:  # noqa: PLR0911
        if kind == "predict":
            return self.answers if isinstance(self.answers, Answer) else _json({"predictions": self.answers})
        if path.startswith(("dataset", "modelregistries")) or "variables" in path:
            if call.method == "GET":
                return self._listing(path) if ("action", "listing") in call.query else self._file(path)
            if call.upload is not None and path.startswith("dataset/upload/Models/"):
                folder = self.uploaded.setdefault(path.removeprefix("dataset/upload/"), {})
                folder[call.upload.filename] = int(call.upload.fields["flowTotalSize"])
            return _json(call.body or {"attributes": {"path": path}})
        if kind == "CREATE":
            self.bodies.append(call.body)
            self.row = (
                {"status": "Created", "availableInstances": 0, "version": 1, "revision": None} | call.body | {"id": 14}
            )
        elif kind == "PUT":
            assert self.row is not None
            self.bodies.append(call.body)
            kept = {key: self.row[key] for key in ("status", "availableInstances", "version", "revision")}
            number = kept["version"] + int(("newVersion", "true") in call.query)
            self.row = call.body | kept | {"version": number, "revision": f"{self.row['revision']}0"}
        elif self.row is None:
            return _json([]) if path == "serving" and not call.query else refusal(404, 240000)
        elif kind == "logs":
            tail = [{"instanceName": name, "content": f"a line of {name}"} for name in self.names]
            return _json(tail)
        elif kind == "versions":
            rows = [*self.kept, {**self.row, "active": True}]
            return _json({"count": len(rows), "items": rows}) if self.has_versions else Answer(404, b"")
        return _json(dict(self.row or {}, condition=(self.row or {}).get("condition")))

    def _listing(self, path: str) -> Answer:
        """List uploads, or the metadata files of a model version; other folders are what the test has put there."""
        uploads = self.uploaded.get(path.removeprefix("dataset/"))
        if uploads:
            entries = [{"attributes": {"name": name, "size": size}} for name, size in uploads.items()]
            return _json({"count": len(entries), "items": entries})
        names = [name for name in ("input_example.json", "expected.json") if self._found(f"{path}/{name}") is not None]
        if not names:
            found = self._found(path)
            return refusal(404, 110008) if found is None else _json(found)
        return _json({"count": len(names), "items": [_entry(name, self._found(f"{path}/{name}")) for name in names]})

    def _found(self, path: str) -> Any:
        return next((content for name, content in self.files.items() if path.endswith(name)), None)

    def _file(self, path: str) -> Answer:
        if path.endswith("/tags") and self._found(path) is None:
            return _json({"count": 0})
        found = self._found(path)
        if found is None:
            return refusal(404, 100050 if "variables" in path else 110008 if path.startswith("dataset") else 360000)
        is_stat = path.startswith("dataset") and "with_auth" not in path and "attributes" not in found
        return _json(_entry(path.rpartition("/")[2], found) if is_stat else found)


def _entry(name: str, content: Any) -> dict[str, Any]:
    return {"attributes": {"name": name, "size": len(json.dumps(content))}}


def _with(answer: Answer, changes: dict[str, Any]) -> Answer:
    return _json(json.loads(answer.content) | changes) if changes and answer.status == 200 else answer


def _json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode())
