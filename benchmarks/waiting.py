"""
Measure the cost of thousands of waits in a triggerer: polls in batches, compared with one poll per wait.

Run: python benchmarks/waiting.py [waits ...]. A local Model Serving runs in a process of its own. The triggers run in
another process, in Airflow's own ``TriggerRunner`` with its loop, its ``run_trigger`` and its watchdog. Only the link
to the supervisor is replaced: triggers and events are passed within the process, without a database.

Each ``DeploymentTrigger`` waits for a stopped deployment of its own; all deployments belong to one project. Measured:

- requests per interval, counted by the server
- CPU and requests also while a deployment is created in each interval, for which no wait is resumed
- CPU seconds per interval and memory per wait, minus the cost of the same number of sleeping triggers, which is
  Airflow's share. Our log lines are formatted and written to a file: one a minute for each wait
- the watchdog's warnings of a blocked event loop, from the first trigger on

The baseline is a trigger as commonly written: a client of its own, a GET, a sleep. All its clients share one TLS
context; otherwise each would create its own, which takes 0.8 MB and 37 ms. The baseline is measured with at most a
thousand waits: one triggerer cannot send five thousand polls in eight seconds.

The seconds in a worker are those of deploying a model that takes five minutes to start, deferred and not deferred. They
are measured in parallel with the rest.

The last measurement is the delay from Running to the event, with a thousand other waits, for deployments whose models
take some seconds to load. Another process polls continuously to observe Running.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import itertools
import json
import logging
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

_HOME = tempfile.mkdtemp(prefix="benchmark-airflow-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ.setdefault("AIRFLOW_HOME", _HOME)
os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")

import httpx  # noqa: E402 - Airflow reads its environment when it is first imported
import psutil  # noqa: E402
import requests  # noqa: E402
import structlog  # noqa: E402
from airflow.executors.workloads.trigger import RunTrigger  # noqa: E402
from airflow.jobs.triggerer_job_runner import TriggerEventEntry, TriggerRunner  # noqa: E402
from airflow.models.trigger import Trigger  # noqa: E402
from airflow.triggers.base import BaseTrigger, TriggerEvent  # noqa: E402

from airflow_provider_hsml.hopsworks.rollout.status import StatusGoal  # noqa: E402
from airflow_provider_hsml.triggers import DeploymentTrigger  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

COUNTS = (1, 100, 1000, 5000)
MANY = 100
MOST_PLAIN = 1000
INTERVAL = 8.0
"""Seconds between polls, and of one measurement."""
BESIDE = 1000
"""Number of other waits during the STARTs."""
STARTS, AT_ONCE = 20, 5
FIRST_POLL = 0.5
"""Seconds until the first poll after a START; the pauses grow up to the interval."""
SLOW_START = 300.0
"""Seconds that the slow model takes to start, for the comparison of worker and triggerer."""
LOADING = (2.0, 6.0)
"""Seconds that a model takes to load, as in KServe's server with scikit-learn."""
MODEL = "bench"

_session = requests.Session()
_numbers = itertools.count(1)


# --- The server -------------------------------------------------------------------------------------------------------


def serve() -> None:
    """Run a local Model Serving until the input ends."""
    from airflow_provider_hsml.local import LocalServing, ModelFiles, Profile, ServerOptions, Speeds  # noqa: PLC0415

    def load(_model: ModelFiles) -> Callable[[Any], list[Any]]:
        time.sleep(random.uniform(*LOADING))  # noqa: S311 - not a secret
        return list

    # Its speed is not what is measured: a list is to cost no time on purpose.
    plain, options = Profile.named("plain"), ServerOptions(control=True)
    with LocalServing(engine=load, profile=plain, speeds=Speeds(), options=options) as serving:
        files = Path(serving.root) / "projects" / serving.project / "Models" / MODEL / "1" / "Files"
        files.mkdir(parents=True)
        (files / "model.joblib").write_text("{}")
        print(json.dumps([serving.url, serving.api_key, serving.project_id, serving.connection]), flush=True)
        sys.stdin.read()


@dataclass(frozen=True, slots=True)
class Server:
    """The local Model Serving, as other processes see it."""

    url: str
    key: str
    project: int
    connection: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers with the API key."""
        return {"Authorization": f"ApiKey {self.key}"}

    @property
    def deployments(self) -> str:
        """The path of the deployments."""
        return f"/hopsworks-api/api/project/{self.project}/serving"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the JSON of the response."""
        answer = _session.request(method, f"{self.url}{path}", json=body, headers=self.headers, timeout=60)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def have(self, kind: str, count: int) -> dict[str, int]:
        """Create missing deployments of a kind, up to a count, all stopped; return their ids by name."""
        names = [f"{kind}{number}" for number in range(count)]
        existing = {row["name"]: int(row["id"]) for row in self.ask("GET", self.deployments)}
        return {name: existing.get(name) or self.create(name) for name in names}

    def create(self, name: str) -> int:
        """Create a deployment and return its id."""
        desired = {
            "name": name,
            "modelName": MODEL,
            "modelPath": f"/Projects/example/Models/{MODEL}",
            "modelVersion": 1,
            "modelServer": "PYTHON",
            "modelFramework": "SKLEARN",
            "servingTool": "KSERVE",
            "requestedInstances": 1,
        }
        return int(self.ask("PUT", self.deployments, desired)["id"])

    def requests_since(self) -> int:
        """Return the number of requests since the last call of this method."""
        received = self.ask("GET", "/_local/requests")["requests"]
        self.ask("DELETE", "/_local/requests")
        return len(received)


# --- A worker ---------------------------------------------------------------------------------------------------------


def workers() -> None:
    """
    Deploy a model that takes minutes to start, once deferred and once not; print the seconds in a worker of each.

    The steps are those of a worker: execute, then resume after the trigger. The start of the worker's process is not
    included: it is the same for any task.
    """
    from airflow_provider_hsml.local import LocalServing, ModelFiles  # noqa: PLC0415
    from airflow_provider_hsml.local.cluster.faults import Hold  # noqa: PLC0415

    def load(_model: ModelFiles) -> Callable[[Any], list[Any]]:
        return list

    with LocalServing(engine=load) as serving, ThreadPoolExecutor(2) as both:
        os.environ["AIRFLOW_CONN_HSML_DEFAULT"] = serving.connection
        serving.world.register_model(MODEL, {"model.joblib": b"{}"})
        held = serving.faults.add(Hold("*", "Running"))
        threading.Timer(SLOW_START, serving.faults.remove, (held,)).start()
        taken = list(both.map(_seconds_in_a_worker, (True, False)))
    print(json.dumps(taken))


def _seconds_in_a_worker(deferrable: bool) -> float:  # noqa: FBT001 - it is mapped over
    from airflow.providers.common.compat.sdk import TaskDeferred  # noqa: PLC0415

    name = f"deferrable{deferrable}".lower()
    context: Any = {"ti": SimpleNamespace(dag_id=name, run_id="1", task_id="1", map_index=-1, max_tries=0)}
    context["ti"].xcom_push = lambda **_kwargs: None
    seconds, step = 0.0, functools.partial(_deploy(name, deferrable).execute, context)
    while True:
        started = time.monotonic()
        try:
            step()
        except TaskDeferred as deferred:
            seconds += time.monotonic() - started
            event = asyncio.run(_first_event(deferred.trigger))
            kwargs = {**(deferred.kwargs or {}), "event": event}
            step = functools.partial(_deploy(name, deferrable).resume_execution, deferred.method_name, kwargs, context)
        else:
            return seconds + time.monotonic() - started


def _deploy(name: str, deferrable: bool) -> Any:  # noqa: FBT001
    from airflow_provider_hsml.operators import DeployModelOperator  # noqa: PLC0415

    return DeployModelOperator(
        task_id="deploy", model_name=MODEL, deployment_name=name, timeout=2 * SLOW_START, deferrable=deferrable
    )


async def _first_event(trigger: BaseTrigger) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError


# --- The triggerer ----------------------------------------------------------------------------------------------------


class Sleeps(BaseTrigger):
    """A trigger that only sleeps, to measure the cost of a trigger by itself."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments = arguments

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{__name__}.{type(self).__name__}", self.arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep."""
        await asyncio.sleep(86_400)
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]


class Plain(Sleeps):
    """The baseline: a trigger that polls by itself, with a client of its own."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the deployment is running."""
        server = here.server
        async with httpx.AsyncClient(headers=server.headers, verify=here.tls, timeout=60) as client:
            while True:
                answer = await client.get(f"{server.url}{server.deployments}/{self.arguments['deployment']}")
                here.polls += 1
                if answer.json()["status"] == "Running":
                    break
                await asyncio.sleep(INTERVAL)
        yield TriggerEvent(self.arguments)  # type: ignore[no-untyped-call]


class Here:
    """The state of this process."""

    server: Server
    tls = httpx.create_ssl_context()
    polls = 0
    warnings = 0
    lines = 0

    def count_lines(self) -> None:
        """Write our log lines to a file, and count them."""

        def count(_record: logging.LogRecord) -> bool:
            self.lines += 1
            return True

        written = logging.FileHandler(os.devnull)
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        written.addFilter(count)
        ours = logging.getLogger("airflow_provider_hsml")
        ours.addHandler(written)
        ours.setLevel(logging.INFO)
        ours.propagate = False

    def count_polls(self) -> None:
        """Count the polls of our triggers."""
        reached = StatusGoal.reached

        def counted(goal: StatusGoal, deployment: Deployment | None, now: float) -> bool:
            self.polls += 1
            return reached(goal, deployment, now)

        StatusGoal.reached = counted  # type: ignore[assignment,method-assign]

    def count_warnings(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
        """Drop a log event, and count the warnings of a blocked event loop."""
        self.warnings += "blocked" in str(event.get("event"))
        raise structlog.DropEvent


here = Here()


def wait_for(kind: str, deployment: str | int, first: float) -> RunTrigger:
    """Build the workload that tells a triggerer to run a trigger for a deployment."""
    if kind in ("ours", "changing"):
        trigger: BaseTrigger = DeploymentTrigger(
            deployment_name=str(deployment),
            target_status=["Running"],
            deadline=time.time() + 3600,
            poll_interval=first,
            longest_interval=INTERVAL,
        )
    else:
        trigger = {"sleeping": Sleeps, "plain": Plain}[kind](deployment=deployment)
    path, kwargs = trigger.serialize()
    return RunTrigger(id=next(_numbers), classpath=path, encrypted_kwargs=Trigger.encrypt_kwargs(kwargs))


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the state is Airflow's own, which sets no event
        await asyncio.sleep(0.1)


class Runner(TriggerRunner):
    """Airflow's own runner, without a supervisor: triggers and events are passed within this process."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.happened: dict[str, float] = {}
        """The time of the event of each deployment, in seconds since 1970."""
        self.events = Events(self.happened)

    async def init_comms(self) -> None:
        """Set up a link that never reads anything."""
        never = asyncio.create_task(asyncio.Event().wait())
        self.comms_decoder = SimpleNamespace(_reader_task=never)  # type: ignore[assignment]

    async def sync_state_to_supervisor(self, finished_ids: list[int]) -> None:
        """Process the events, without sending them to a supervisor."""
        self.process_trigger_events(finished_ids)

    async def begin(self, kind: str, deployments: list[Any], first: float = INTERVAL) -> None:
        """Run a trigger for each deployment, and wait until all have polled once."""
        here.polls = 0
        self.to_create.extend(wait_for(kind, each, first) for each in deployments)
        await _until(lambda: not self.to_create and (kind == "sleeping" or here.polls >= len(deployments)))

    async def events_of(self, names: set[str]) -> None:
        """Wait until each of these deployments had an event."""
        await _until(lambda: self.happened.keys() >= names)

    async def end_all(self) -> None:
        """Cancel all triggers and wait until they have ended."""
        self.to_cancel.extend(self.triggers)
        await _until(lambda: not self.triggers)


class Events(deque[TriggerEventEntry]):
    """A queue of events that records the time of the event of each deployment."""

    def __init__(self, happened: dict[str, float]) -> None:
        super().__init__()
        self.happened = happened

    def append(self, entry: TriggerEventEntry) -> None:
        """Append an event and record its time."""
        if "deployment_name" in str(entry.event.payload):
            self.happened[entry.event.payload["result"]["deployment_name"]] = time.time()
        super().append(entry)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a number of waits."""

    waits: int
    requests: float
    """Per interval."""
    cpu: float
    """Seconds per interval, which is one poll of each wait."""
    memory: float
    """Per wait, in kB."""
    warnings: int
    """Of a blocked event loop, from the first trigger on."""
    lines: float
    """In our log, per wait and minute."""


async def measure(runner: Runner, kind: str, waits: int) -> Cost:
    """Run a trigger for each of a number of deployments, and return the cost of an interval."""
    numbers = await asyncio.to_thread(here.server.have, "waited", waits)
    before, here.warnings, seconds = psutil.Process().memory_info().rss, 0, INTERVAL
    await runner.begin(kind, list(numbers.values() if kind == "plain" else numbers))
    if kind != "sleeping":
        # Ours: until all of them are read together.
        await asyncio.sleep((0.5 if kind == "plain" else 2) * INTERVAL)
        await _until_quiet()
    if kind != "plain":
        # Several intervals, to include the line a minute, and Python's full garbage collections at their average rate.
        seconds *= 8
    await asyncio.to_thread(here.server.requests_since)
    cpu, here.polls, here.lines = time.process_time(), 0, 0
    changing = asyncio.create_task(_change_the_list()) if kind == "changing" else None
    await asyncio.sleep(seconds)
    cpu = time.process_time() - cpu
    if changing is not None and not changing.cancel():
        changing.result()  # Raises what has ended it.
    intervals = here.polls / waits if kind == "plain" else seconds / INTERVAL
    sent = await asyncio.to_thread(here.server.requests_since)
    memory = (psutil.Process().memory_info().rss - before) / waits / 1024
    lines = here.lines / waits / seconds * 60
    await runner.end_all()
    return Cost(waits, sent / intervals, cpu / intervals, memory, here.warnings, lines)


async def _change_the_list() -> None:
    """Create a deployment in each interval; the cost of its request counts as well."""
    for number in itertools.count(1):
        await asyncio.to_thread(here.server.create, f"changed{os.getpid()}x{number}")
        await asyncio.sleep(INTERVAL)


async def _until_quiet() -> None:
    """Wait until polling pauses, at most one interval, so that the measurement does not begin within a list."""
    started = time.monotonic()
    previous = -1
    while here.polls != previous and time.monotonic() - started < INTERVAL:
        previous = here.polls
        await asyncio.sleep(1)


async def triggerer(work: Callable[[Runner], Awaitable[Any]]) -> None:
    """Run triggers and print the measurements."""
    structlog.configure(processors=[here.count_warnings])
    here.count_polls()
    here.count_lines()
    runner = Runner()
    running = asyncio.create_task(runner.arun())  # type: ignore[no-untyped-call]
    print(json.dumps(await work(runner)))
    runner.stop = True
    await running


async def costs(kind: str, counts: list[int], runner: Runner) -> list[dict[str, float]]:
    """Return the cost of a kind of trigger for each number of waits."""
    return [asdict(await measure(runner, kind, count)) for count in counts]


async def starts(beside: int, started: dict[str, int], runner: Runner) -> dict[str, float]:
    """Start deployments, some at a time, beside other waits; return the time of the event of each."""
    await runner.begin("ours", list(await asyncio.to_thread(here.server.have, "waited", beside)))
    while some := dict(itertools.islice(started.items(), len(runner.happened), len(runner.happened) + AT_ONCE)):
        for number in some.values():
            await asyncio.to_thread(here.server.ask, "POST", f"{here.server.deployments}/{number}?action=START")
        await runner.begin("ours", list(some), FIRST_POLL)
        await runner.events_of(set(some))
    await runner.end_all()
    return runner.happened


# --- The benchmark ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served() -> Iterator[Server]:
    """Run the server in a process of its own."""
    with subprocess.Popen(
        [sys.executable, __file__, "serve"], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        try:
            ready = next(line for line in process.stdout or () if line.startswith("["))
            yield Server(*json.loads(ready))
        finally:
            process.terminate()


def in_a_triggerer(server: Server, *work: Any) -> Any:
    """Do work in a triggerer's process and return its measurements."""
    command = [sys.executable, __file__, "triggerer", *map(json.dumps, (asdict(server), *work))]
    environment = os.environ | {"AIRFLOW_CONN_HSML_DEFAULT": server.connection}
    return json.loads(subprocess.check_output(command, env=environment).splitlines()[-1])


def watch(server: Server, deployments: dict[str, int]) -> dict[str, float]:
    """Poll deployments continuously, and return the time at which each was first seen running."""
    runs: dict[str, float] = {}
    while len(runs) < len(deployments):
        for name in deployments.keys() - runs.keys():
            if server.ask("GET", f"{server.deployments}/{deployments[name]}")["status"] == "Running":
                runs[name] = time.time()
        time.sleep(0.05)
    return runs


def in_workers() -> tuple[float, float]:
    """Return the seconds in a worker, deferred and not."""
    program = [sys.executable, __file__, "workers"]
    deferred, blocking = json.loads(subprocess.check_output(program, text=True).splitlines()[-1])
    return deferred, blocking


def main(counts: list[int]) -> None:
    """Run the measurements, and print a table and the goals."""
    with served() as server, ThreadPoolExecutor(2) as watching:
        worked = watching.submit(in_workers)
        few = [count for count in counts if count <= MOST_PLAIN]
        ours, plain, sleeping, changing = (
            {cost["waits"]: Cost(**cost) for cost in in_a_triggerer(server, "costs", kind, how_many)}
            for kind, how_many in (("ours", counts), ("plain", few), ("sleeping", counts), ("changing", few[-1:]))
        )
        started = server.have("started", STARTS)
        runs = watching.submit(watch, server, started)
        happened = in_a_triggerer(server, "starts", min(BESIDE, max(counts)), started)
        late = [happened[name] - when for name, when in runs.result().items()]
        deferred, blocking = worked.result()

    net = {
        (kind, count): replace(cost, cpu=cost.cpu - sleeping[count].cpu, memory=cost.memory - sleeping[count].memory)
        for kind, by_count in (("ours", ours), ("plain", plain), ("changing", changing))
        for count, cost in by_count.items()
    }
    print(f"{INTERVAL:g} s between polls; CPU and memory minus those of the same number of sleeping triggers:")
    print("waits          requests an interval  CPU s an interval  kB a wait  blocked  log lines a minute")
    for count in counts:
        own = sleeping[count]
        print(
            f"{count:5d}  sleeping  {0:18.0f}  {own.cpu:17.3f}  {own.memory:9.1f}  {own.warnings:7d}  {own.lines:18.2f}"
        )
        for kind in ("plain", "ours", "changing"):
            if cost := net.get((kind, count)):
                print(
                    f"{count:5d}  {kind:8}  {cost.requests:18.0f}  {cost.cpu:17.3f}  {cost.memory:9.1f}  "
                    f"{cost.warnings:7d}  {cost.lines:18.2f}"
                )
    print(f"START: {statistics.median(late):.2f} s from Running to the event (median), {max(late):.2f} s at the most")
    print(f"a start of {SLOW_START:g} s: {deferred:.1f} s in a worker when deferred, {blocking:.1f} s when not")
    many = [net["ours", count] for count in counts if count >= MANY]
    goals = [
        goal(f"requests an interval at {MANY} and more waits", max(cost.requests for cost in many), "", at_most=1),
        goal(f"memory a wait at {many[-1].waits} waits", many[-1].memory, "kB", at_most=15),
        goal("warnings of a blocked event loop", sum(cost.warnings for cost in ours.values()), "", at_most=0),
        goal(f"seconds in a worker, for a start of {SLOW_START:g} s", deferred, "s", at_most=5),
        goal("START, from Running to the event, median", statistics.median(late), "s", at_most=1),
    ]
    if MOST_PLAIN in counts:
        for kind, name in (("ours", ""), ("changing", ", while the list changes")):
            share = net[kind, MOST_PLAIN].cpu / net["plain", MOST_PLAIN].cpu
            goals.append(goal(f"CPU at {MOST_PLAIN} waits, of one poll a wait{name}", 100 * share, "%", at_most=2))
    print(json.dumps({"goals": goals}))


def goal(name: str, value: float, unit: str, *, at_most: float) -> dict[str, Any]:
    """Return a goal, and whether it is met."""
    return {"name": name, "value": round(value, 2), "unit": unit, "goal": at_most, "met": value <= at_most}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["workers"]:
            workers()
        case ["triggerer", server, *work]:
            here.server = Server(**json.loads(server))
            which, *arguments = map(json.loads, work)
            asyncio.run(triggerer(functools.partial(costs if which == "costs" else starts, *arguments)))
        case numbers:
            main([int(count) for count in numbers] or list(COUNTS))
