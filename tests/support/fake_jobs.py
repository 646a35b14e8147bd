"""
A Hopsworks of a few lines that has jobs and files, with a clock of its own: for orders of events, faults and kills.

Answers go through ``Call.outcome``, as a client's do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from airflow_provider_hsml.hopsworks.api import API, Answer, Call
from airflow_provider_hsml.hopsworks.errors import NoResponseError
from airflow_provider_hsml.hopsworks.flow import Flow, drive
from airflow_provider_hsml.hopsworks.jobs.job_run import JobRun
from tests.support.fake import LOST, PROJECT, UNSENT, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Killed(BaseException):
    """The worker was killed: no exception of Python's comes from a kill -9, and nothing may be done on it."""


@dataclass
class FakeJobs:
    """Answers calls from what it holds; time passes only when a flow sleeps."""

    job_type: str = "PYTHON"
    default_args: str = ""
    lasts: float = 5.0
    """Seconds until an execution ends."""
    ends: tuple[str, str] = ("FINISHED", "SUCCEEDED")
    slow: float = 0.0
    """Seconds after a start until its execution is listed."""
    stops_after: float = 0.0
    """Seconds after it is asked to stop until an execution has stopped."""
    most_of_page: int = 1000
    """Executions of a page, whatever is asked for."""
    ignores_offset: bool = False
    submitted: Callable[[float], Any] = lambda seconds: datetime.fromtimestamp(seconds, UTC).isoformat()
    """Shows when an execution was submitted."""
    shows_defaults: bool = True
    """Whether an execution without arguments shows the job's default ones."""
    step: int = 1
    """What the id of an execution has more than the one before."""
    executions: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    version: str = "5.2.0"
    now: float = 1000.0
    sent: list[str] = field(default_factory=list)
    """Everything that was asked: ``POST executions``, ``GET executions``, ``upload``, ..."""
    faults: dict[str, list[Any]] = field(default_factory=dict)
    """What befalls the next requests of a kind: LOST, UNSENT, an ``Answer``, or None."""
    killed_at: float | None = None
    """The number of the request at which the worker is killed: before it is carried out, or at ``n + 0.5`` after it."""
    on: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What happens before a request of a kind is answered."""

    def job_run(self, key: str = "dag/run/task/-1@1", args: str = "--day 1", **more: Any) -> JobRun:
        """Make the run of a task."""
        given: dict[str, Any] = {"interval": 1.0, "clock": lambda: self.now} | more
        return JobRun(PROJECT, "train", args, given.pop("env_vars", {}), key, **given)

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow."""
        return drive(flow, self.send, self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def submit(self, args: str = "--day 1", *, lasts: float | None = None) -> int:
        """Start an execution, as another client does."""
        number = 100 + self.step * len(self.executions)
        shown = args or (self.default_args if self.shows_defaults else None)
        self.executions[number] = {"args": shown, "begun": self.now, "listed": self.now}
        self.executions[number]["until"] = self.now + (self.lasts if lasts is None else lasts)
        return number

    def shown(self, number: int) -> dict[str, Any]:
        """Give an execution, as on the wire."""
        row = self.executions[number]
        state, status = row.get("ends", self.ends) if self.now >= row["until"] else ("RUNNING", "UNDEFINED")
        folder = f"Logs/Python/train/{number}"
        return {
            "id": number,
            "state": state,
            "finalStatus": status,
            "args": row["args"],
            "submissionTime": self.submitted(row["begun"]),
            "duration": 1000 * (min(self.now, row["until"]) - row["begun"]),
            "stdoutPath": f"{folder}/stdout.log",
            "stderrPath": f"{folder}/stderr.log",
        }

    def records(self) -> list[str]:
        """Give the names of the records, oldest first."""
        return sorted(name.rpartition("/")[2] for name in self.files if "airflow-provider-hsml" in name)

    def send(self, call: Call[T]) -> T:
        """Take a call."""
        path = unquote(call.path.removeprefix(f"{API}/"))
        kind = self._kind(call, path)
        self.sent.append(kind)
        number = len(self.sent)
        if self.killed_at == number:
            raise Killed
        fault = self.faults[kind].pop(0) if self.faults.get(kind) else None
        if fault == UNSENT:
            raise NoResponseError(f"{call.what}: nobody answers", sent=False)
        if isinstance(fault, Answer):
            return call.outcome(fault)
        if kind in self.on:
            self.on[kind]()
        answer = self._answer(call, kind, path)
        if self.killed_at == number + 0.5:
            raise Killed
        if fault == LOST:
            raise NoResponseError(f"{call.what}: no answer")
        return call.outcome(answer)

    @staticmethod
    def _kind(call: Call[Any], path: str) -> str:
        if "/dataset/" in f"{path}/":
            action = dict(call.query).get("action", "")
            return "upload" if call.upload else "download" if "with_auth" in path else action or f"{call.method} path"
        if "/executions" not in path:
            return path.rpartition("/")[2]
        last = path.rpartition("/executions")[2]
        return f"{call.method} {'status' if last.endswith('status') else 'execution' if last else 'executions'}"

    def _answer(self, call: Call[Any], kind: str, path: str) -> Answer:  # noqa: PLR0911
        if "/dataset/" in f"{path}/":
            return self._of_file(call, kind, path.partition("/dataset/")[2])
        if kind == "versions":
            return _json([{"software": "hopsworks", "version": self.version}])
        if kind == "jobs":
            return _json({"count": 1, "items": [{"name": "train"}]})
        if kind == "POST executions":
            number = self.submit(call.text or "" if call.body is None else call.body.get("args", ""))
            self.executions[number]["listed"] += self.slow
            return _json(self.shown(number))
        if kind == "GET executions":
            return self._page(dict(call.query))
        if "execution" in kind or "status" in kind:
            number = int(path.partition("/executions/")[2].partition("/")[0])
            if number not in self.executions:
                return refusal(404, 130007)
            if "status" in kind:
                self._stop(self.executions[number])
                return Answer(202, b"")
            return _json(self.shown(number))
        if kind != "train":
            return refusal(404, 130009)
        return _json({"name": "train", "jobType": self.job_type, "config": {"defaultArgs": self.default_args}})

    def _stop(self, row: dict[str, Any]) -> None:
        until = self.now + self.stops_after
        row |= {"until": until, "ends": ("KILLED", "KILLED")} if until < row["until"] else {}

    def _page(self, query: dict[str, str]) -> Answer:
        offset = 0 if self.ignores_offset else int(query["offset"])
        listed = [number for number, row in self.executions.items() if row["listed"] <= self.now][::-1]
        numbers = listed[offset:][: min(int(query["limit"]), self.most_of_page)]
        items = {"items": [self.shown(number) for number in numbers]} if numbers else {}
        return _json({"count": len(listed)} | items)

    def _of_file(self, call: Call[Any], kind: str, path: str) -> Answer:  # noqa: PLR0911
        if call.upload is not None:
            folder = path.removeprefix("upload/")
            assert folder in self.folders
            self.files[f"{folder}/{call.upload.filename}"] = call.upload.content
            return Answer(200, b"")
        if kind == "create":
            is_new = path not in self.folders
            self.folders.add(path)
            return _json({"attributes": {"path": path, "dir": True}}) if is_new else refusal(400, 110012)
        if kind == "listing":
            if path not in self.folders:
                return refusal(400, 110018)
            rows = [
                {"attributes": {"name": name.rpartition("/")[2], "size": len(content)}}
                for name, content in self.files.items()
                if name.rpartition("/")[0] == path
            ]
            return _json({"count": len(rows), "items": rows})
        path = path.removeprefix("download/with_auth/")
        if path not in self.files:
            return refusal(400, 110018)
        if call.method == "DELETE":
            del self.files[path]
            return Answer(204, b"")
        if kind == "download":
            return Answer(200, self.files[path])
        return _json({"attributes": {"name": path.rpartition("/")[2], "size": len(self.files[path])}})


def _json(content: Any) -> Answer:
    return Answer(200, json.dumps(content).encode())
