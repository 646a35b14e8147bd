"""
What a promotion is played on: a local Model Serving, a time of its own, workers and triggerers that die, and strangers.

Time passes only where the provider waits, and then at once; transitions of the server go by looks. So hours of
promotions take seconds, and what the provider's own waits are made of stays as it is.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import sys
import time
from dataclasses import dataclass, field, replace
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

import requests

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.domain.access import Access
from airflow_provider_hsml.hopsworks.flow import Backoff, Deferred, drive, steady
from airflow_provider_hsml.hopsworks.promotion.resume import from_json, run_in_trigger, to_json, why_not_deferrable
from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch
from airflow_provider_hsml.hopsworks.transport.client import Client
from airflow_provider_hsml.local import LocalServing, Speeds
from airflow_provider_hsml.operators.base import unreported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_provider_hsml.hopsworks.api import Answer, Call, Project
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.local import Looks, ModelFiles
    from airflow_provider_hsml.local.cluster.faults import Fault

T = TypeVar("T")
ROWS = [[0.0], [1.0]]
_REAL = 2000.0
"""Seconds of the provider's in one of the server's: what the server's threads have left to do gets its time."""


class Clock:
    """Seconds since 1970, as the provider sees them."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.pauses = 0
        """In the task that runs."""

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds
        self.pauses += 1
        assert self.pauses < 5000, "it waits for ever"
        time.sleep(min(seconds, 20.0) / _REAL)

    @contextlib.contextmanager
    def everywhere(self) -> Iterator[None]:
        """Have the provider go by it."""
        given = {"time": SimpleNamespace(time=self, sleep=self.sleep, monotonic=self), "steady": lambda: self}
        modules = [module for name, module in sys.modules.items() if name.startswith("airflow_provider_hsml.hooks")]
        with contextlib.ExitStack() as stack:
            for module, (name, its) in itertools.product(modules, given.items()):
                if getattr(module, name, None) in (time, steady):
                    stack.enter_context(mock.patch.object(module, name, its))
            stack.enter_context(mock.patch.dict(Backoff.__init__.__kwdefaults__, clock=self))
            yield


class Kind(Enum):
    """What a version of the model is like."""

    GOOD = "answers as recorded"
    PLAIN = "answers; nothing is recorded but an example"
    WRONG = "answers otherwise than recorded"
    REFUSING = "loads, and refuses every request"
    CRASHING = "does not load"

    @property
    def is_healthy(self) -> bool:
        return self in (Kind.GOOD, Kind.PLAIN)


@dataclass(frozen=True)
class Version:
    """A version of the model, as it was registered."""

    number: int
    kind: Kind
    answer: int
    metric: float | None


class Killed(BaseException):
    """The worker was killed: nothing of it runs any more, and nothing that it would send is sent."""


class Terminated(BaseException):
    """The task was told to end, as Airflow tells it: it may still tidy up."""


@dataclass(frozen=True)
class Sent:
    """A request of a worker, and how it was answered."""

    method: str
    path: str
    query: dict[str, Any]
    status: int

    @property
    def is_write(self) -> bool:
        """Whether it asks for a change of the deployment."""
        return self.method in ("PUT", "POST") and "/serving" in self.path

    @property
    def is_note(self) -> bool:
        """Whether it has written into a journal."""
        return "/upload/" in self.path and self.status == 200

    @property
    def is_look(self) -> bool:
        """Whether it shows something of the deployment."""
        return (self.method == "GET" and "/serving" in self.path) or self.path.endswith(":predict")

    def __str__(self) -> str:
        path = self.path.removeprefix("hopsworks-api/api/project/")
        return f"{self.method} {path} {self.query or ''} -> {self.status}"


@dataclass
class Fate:
    """What becomes of a worker: at a request of its, something happens."""

    at: int = 0
    """The number of the request, from 1; 0: never."""
    ends_by: type[BaseException] | None = None
    """By what it is ended right after that request was carried out."""
    happens: Callable[[], object] | None = None
    """What somebody else does right before that request."""
    what: str = ""
    faults: Sequence[Fault] = ()
    wait: str = ""
    """How a deferred wait ends: as it does; ``unreported``: no triggerer runs; ``unknown``: by an unknown event."""
    ended_at: int | None = None
    """The number of the request at which the worker was ended; a triggerer that is killed is followed by another."""

    def __str__(self) -> str:
        what = self.what or (self.ends_by.__name__ if self.ends_by else "")
        fate = f"at request {self.at} {what}" if self.at else f"faults {list(self.faults)}" if self.faults else "alone"
        return f"{fate}, {self.wait}" if self.wait else fate


class Worker(HsmlHook):
    """A hook, as a worker has it, with a fate. Its long waits are deferred, if ``defers``."""

    def __init__(
        self,
        scene: Scene,
        fate: Fate,
        name: str,
        *,
        defers: bool = False,
        on_decided: Callable[[ModelVersion], object] = lambda _model: None,
    ) -> None:
        super().__init__(sleep=self._sleep_unless_dead, leave=self._defers, on_decided=on_decided)
        scene.clock.pauses = 0
        self.scene = scene
        self.fate = fate
        self.name = name
        self.defers = defers
        self.sent: list[Sent] = []
        """By all processes of the task."""
        self.stopped: list[Seen] = []
        """What answered when it sent a STOP."""
        self.deferrals = 0
        self.is_trigger = False
        self.is_dead = False

    def another(self, *, is_trigger: bool = False) -> Worker:
        """Return another process of the same task."""
        other = Worker(self.scene, self.fate, self.name, defers=self.defers, on_decided=self._on_decided)
        other.sent, other.stopped, other.is_trigger = self.sent, self.stopped, is_trigger
        return other

    def finish(self, do: Callable[[Worker], T], resume: Callable[[Worker, dict[str, Any], Any], T]) -> T:
        """Do a task; what is deferred is run by triggerers, and resumed by another worker, from what Airflow stores."""
        worker = self
        while True:
            try:
                return do(worker)
            except Deferred as deferred:
                self.deferrals += 1
                assert self.deferrals < 10, "it is deferred again and again"
                wait: Any = deferred.wait
                left = json.loads(json.dumps({"watch": to_json(wait), "context": wait.resume.context}))
                if self.fate.wait == "unreported":
                    error = unreported("Trigger timeout")
                    self.scene.clock.now = max(self.scene.clock.now, wait.deadline + 600)
                    return self.another().fail_unreported(error, deployment_name=self.name)  # type: ignore[return-value]
                told = {"codec": 99} if self.fate.wait == "unknown" else self._triggered(left["watch"])
                worker, event = self.another(), trigger_event.read(told)
                do = functools.partial(lambda left, event, worker: resume(worker, left, event), left, event)

    def _triggered(self, watch: dict[str, Any]) -> Any:
        """Have a triggerer run a wait; one that ends is followed by another, which begins again."""
        while True:
            triggerer = self.another(is_trigger=True)
            flow = run_in_trigger(from_json(triggerer.client.project, watch, self.scene.clock))
            with contextlib.suppress(Killed, Terminated):
                return json.loads(json.dumps(drive(flow, triggerer.client.send, triggerer._sleep_unless_dead)))

    def _defers(self, wait: Any) -> bool:
        return self.defers and isinstance(wait, RolloutWatch) and not why_not_deferrable(wait)

    @functools.cached_property
    def access(self) -> Access:
        return self.scene.access

    @functools.cached_property
    def client(self) -> Client:
        return _WatchedClient(self)

    def looked_before(self, number: int) -> bool:
        """Tell whether it has looked between what its fate has brought and a request of its own."""
        return any(sent.is_look for sent in self.sent[self.fate.at - 1 : number - 1])

    @property
    def has_changed_anything(self) -> bool:
        """Whether it has sent anything but reads."""
        return any(sent.method != "GET" for sent in self.sent)

    @property
    def has_noted_the_end(self) -> bool:
        """Whether it has written into the journal after it looked for the last time."""
        # Who is terminated tidies up, and looks for that.
        late = itertools.takewhile(lambda sent: not sent.is_look, reversed(self.sent[: self.fate.ended_at]))
        return any(sent.is_note for sent in late)

    @property
    def has_settled(self) -> bool:
        """Whether it has chosen again after it wrote into the journal: it has ended an earlier change first."""
        noted = next((at for at, sent in enumerate(self.sent) if sent.is_note), len(self.sent))
        return any(sent.path.endswith("/models") for sent in self.sent[noted:])

    def _sleep_unless_dead(self, seconds: float) -> None:
        if self.is_dead:
            raise Killed
        self.scene.clock.sleep(seconds)


class _WatchedClient(Client):
    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.access, sleep=worker._sleep_unless_dead)
        self._worker = worker
        self._session = worker.scene.session
        self._project = worker.scene.project

    def _exchange(self, call: Call[Any]) -> Answer:
        worker, fate = self._worker, self._worker.fate
        if worker.is_dead:
            raise Killed
        is_it = len(worker.sent) + 1 == fate.at
        if is_it and fate.happens is not None:
            fate.happens()
        if ("action", "STOP") in call.query:
            with worker.scene.serving_well():
                worker.stopped.append(worker.scene.look(worker.name))
        status = 0
        try:
            answer = super()._exchange(call)
            status = answer.status
        finally:
            worker.sent.append(Sent(call.method, call.path, dict(call.query), status))
        if is_it and fate.ends_by is not None:
            worker.is_dead = fate.ends_by is Killed
            fate.ended_at = None if worker.is_trigger else fate.at
            raise fate.ends_by
        return answer


@dataclass(frozen=True)
class Seen:
    """What there is, asked of the process."""

    status: str | None = None
    """None: there is no deployment."""
    version: int | None = None
    """Which version of the model answers; None: none does."""
    answer: Any = None
    """What it answers; None: nothing, or a refusal."""
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def is_up(self) -> bool:
        """Whether it is to serve, though it may not."""
        return self.status not in (None, "Created", "Stopped")

    def __str__(self) -> str:
        row = {key: self.row.get(key) for key in ("version", "revision", "modelVersion")}
        return f"{self.status}, version {self.version} answers {self.answer!r}; row {row}"


class Scene:
    """The server, and who is there beside the workers."""

    def __init__(self, line: str) -> None:
        self.clock = Clock()
        self.models: dict[tuple[str, int], Version] = {}
        self.serving = LocalServing(engine=self._load, hopsworks_version=line)
        self.serving.start()
        self.session = requests.Session()
        self.session.trust_env = False
        self.access = Access.from_connection(
            host=self.serving.url,
            port=None,
            password=self.serving.api_key,
            extra={"project": self.serving.project},
            project=None,
            schema=None,
            name="it",
        )
        self.base = f"{self.access.url}/hopsworks-api/api"
        self.cluster = self.serving.world.cluster
        self.cluster.profile = replace(self.cluster.profile, list_cost=0.0)
        with contextlib.closing(Client(self.access)) as client:
            self.project: Project = client.project
        self.holdings = self.serving.world.project(self.serving.project_id)

    def backoff(self, creating: Looks, starting: Looks, stale: Looks, updating: Looks, stopping: Looks) -> None:
        """Have the transitions go by looks, and nothing else take its time."""
        self.cluster.speeds = Speeds(
            *(creating, starting, stale, updating, stopping),
            routing=0.0,
            handing_over=0.0,
            putting=0.0,
            reading_logs=0.0,
            idle_after=86_000.0,
        )

    def close(self) -> None:
        self.session.close()
        self.serving.stop()

    # --- Models

    def _load(self, model: ModelFiles) -> Callable[[Any], list[Any]]:
        version = self.models[model.name or "", model.version or 0]

        def predict(rows: Any) -> list[Any]:
            if version.kind is Kind.REFUSING:
                raise ValueError("not these rows")
            return [version.answer + (1000 if version.kind is Kind.WRONG else 0)] * len(rows)

        if version.kind is Kind.CRASHING:
            raise RuntimeError("cannot be loaded")
        return predict

    def register(self, name: str, kind: Kind, answer: int, metric: float | None) -> Version:
        world = self.serving.world
        metrics = {} if metric is None else {"accuracy": metric}
        number = 1 + max((version for model, version in self.models if model == name), default=0)
        world.register_model(name, {"model.joblib": b"{}"}, version=number, metrics=metrics, input_example=ROWS)
        if kind is not Kind.PLAIN:
            expected = {"instances": ROWS, "predictions": [answer] * len(ROWS)}
            self.holdings.files.write(f"Models/{name}/{number}/expected.json", json.dumps(expected).encode())
        version = self.models[name, number] = Version(number, kind, answer, metric)
        return version

    # --- Faults

    @contextlib.contextmanager
    def spoilt(self, faults: Iterable[Fault]) -> Iterator[Callable[[], list[Fault]]]:
        """Have faults in force; gives what tells those that are left."""
        for fault in faults:
            self.serving.faults.add(fault)
        try:
            yield lambda: list(self.serving.faults.active().values())
        finally:
            self.serving.faults.clear()

    @contextlib.contextmanager
    def serving_well(self) -> Iterator[None]:
        """Have no faults for a while, so that nothing of ours meets them."""
        faults = self.serving.faults.active().values()
        self.serving.faults.clear()
        try:
            yield
        finally:
            for fault in faults:
                self.serving.faults.add(fault)

    # --- Looks of ours

    def settle(self, name: str) -> Seen:
        """Wait until what is under way has ended, and look."""
        for _ in range(400):
            seen = self.look(name)
            if not self.cluster.runner.is_busy:
                return self.look(name)
            if seen.status is not None:
                self.cluster.slots.poll(seen.row["id"])
            time.sleep(0.001)
        raise AssertionError(f"{name} does not come to rest: {self.look(name)}")

    def look(self, name: str) -> Seen:
        row = next((row for row in self.holdings.deployments.all_shown() if row["name"] == name), None)
        if row is None:
            return Seen()
        answer = None
        if row["answering"] is not None:
            response = self.rest("POST", f"inference/models/{name}:predict", {"instances": ROWS[:1]})
            if response.status_code == 200:
                answer = response.json()["predictions"][0]
        return Seen(row["status"], row["answering"], answer, row)

    # --- Strangers

    def rest(self, method: str, path: str, body: Any = None, **query: Any) -> requests.Response:
        url = f"{self.base}/project/{self.project.id}/{path}"
        key = {"Authorization": f"ApiKey {self.serving.api_key}"}
        return self.session.request(method, url, params=query, json=body, headers=key, timeout=60)

    def strangers_row(self, name: str) -> dict[str, Any] | None:
        response = self.rest("GET", "serving", name=name)
        return response.json() if response.status_code == 200 else None

    def change(self, name: str, **values: Any) -> bool:
        row = self.strangers_row(name)
        return row is not None and self.rest("PUT", "serving", row | values).status_code == 201

    def command(self, name: str, verb: str) -> bool:
        row = self.strangers_row(name)
        if row is None:
            return False
        if verb == "DELETE":
            return self.rest("DELETE", f"serving/{row['id']}").status_code == 200
        return self.rest("POST", f"serving/{row['id']}", action=verb).status_code == 200
