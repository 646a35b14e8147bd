"""
Endurance: hook calls, triggers and a model version trigger for minutes, with faults, against a server that is killed.

Each test prints the sockets, file descriptors, threads and memory of this process over time. None may grow after the
warm-up. ``HSML_TEST_ENDURANCE`` sets the length as a share of the full one: 1 is five minutes with 200 threads, a
server that is killed ten times under 1,000 triggers, and 10,000 versions.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.triggers import DeploymentTrigger, ModelVersionTrigger

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

SHARE = float(os.environ.get("HSML_TEST_ENDURANCE", "0.1"))
SECONDS = 300 * SHARE
THREADS = 200
TRIGGERS = 1000
KILLS = max(3, round(10 * SHARE))
VERSIONS = round(10_000 * SHARE)
LISTED = 500
"""Versions that the server lists at once: the older ones are deleted."""
WARM_UP = 0.3
"""Share of the measurements that is not compared."""
_PROGRAM = Path(__file__).parents[1] / "support" / "endurance_server.py"


@dataclass
class Server:
    """The server's process and its state."""

    folder: Path
    port: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def put(self, **changes: Any) -> None:
        """Change the state."""
        self.state |= changes
        new = self.folder / "new"
        new.write_text(json.dumps(self.state))
        new.replace(self.folder / "state")

    def start(self) -> None:
        """Start the process, at the same port as before."""
        command = [sys.executable, str(_PROGRAM), str(self.port), str(self.folder / "state")]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        """Kill the process."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(tmp_path)
    server.put(deployments=TRIGGERS, stopped=[], faults=0.0, versions=[1, 1])
    server.start()
    extra = {"project": "example", "request_timeout": 10}
    connection = {"conn_type": "hsml", "host": "http://127.0.0.1", "port": server.port, "password": "a.key"}
    monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(connection | {"extra": extra}))
    yield server
    server.kill()


class Growth:
    """Measures this process now and then, and prints a table."""

    def __init__(self, subject: str) -> None:
        self.process = psutil.Process()
        self.begun = time.monotonic()
        self.rows: list[dict[str, float]] = []
        print(f"\n{subject}\n seconds  sockets  descriptors  threads     MB     done")

    def measure(self, done: int) -> None:
        """Add a row."""
        gc.collect()
        row = {
            "sockets": len(self.process.net_connections()),
            "descriptors": self.process.num_fds(),
            "threads": self.process.num_threads(),
            "MB": self.process.memory_info().rss / (1 << 20),
        }
        self.rows.append(row)
        seconds = time.monotonic() - self.begun
        print(
            f"{seconds:8.0f}  {row['sockets']:7.0f}  {row['descriptors']:11.0f}  {row['threads']:7.0f}  "
            f"{row['MB']:5.0f}  {done:7d}",
            flush=True,
        )

    def check(self, **allowed: float) -> None:
        """
        Compare the last third with the first third after the warm-up.

        :param allowed: growth of each figure; memory may grow by 5 % at least
        """
        rows = self.rows[int(len(self.rows) * WARM_UP) :]
        third = max(1, len(rows) // 3)
        for name in rows[0]:
            early, late = (max(row[name] for row in some) for some in (rows[:third], rows[-third:]))
            most = max(allowed.get(name, 0.0), 0.05 * early if name == "MB" else 0.0)
            assert late - early <= most, f"{name} grew from {early:.1f} to {late:.1f}"


def _predict(hook: HsmlHook, number: int, mark: float) -> str:
    """Read a deployment and request a prediction; return ``right``, the name of our error, or what is wrong."""
    try:
        found = hook.get_deployment(f"d{number}")
        answer = hook.predict(f"d{number}", instances=[[mark]])
    except HopsworksError as error:
        return type(error).__name__
    except Exception as error:  # noqa: BLE001 - it is what the test looks for
        return f"wrong: {error!r}"
    is_right = (found.id, answer) == (number, {"predictions": [[f"d{number}", mark]]})
    return "right" if is_right else f"wrong: {found.id}, {answer} for {number}"


def test_hook_calls_of_many_threads_with_faults(server: Server) -> None:
    """Each thread uses one hook after another, as tasks do; each call gets its own answer or our own error."""
    server.put(faults=0.05)
    growth = Growth(f"{THREADS} threads of hook calls, 5 % faults")
    over = threading.Event()
    done: Counter[str] = Counter()
    wrong: list[str] = []
    lock = threading.Lock()

    def work(seed: int) -> None:
        numbers = random.Random(seed)  # noqa: S311 - not a secret
        while not (over.is_set() or wrong):
            hook = HsmlHook()
            for _ in range(20):
                end = _predict(hook, numbers.randrange(TRIGGERS), numbers.random())
                with lock:
                    done[end] += 1
                if end != "right" and not end.endswith("Error"):
                    wrong.append(end)
                if over.is_set() or wrong:
                    return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    while done.total() < 2 * THREADS and not wrong:
        time.sleep(1)
    for _ in range(12):
        time.sleep(SECONDS / 12)
        growth.measure(done.total())
    over.set()
    for thread in threads:
        thread.join()
    print(dict(done))
    assert not wrong, wrong[:3]
    assert done["right"] > 0.9 * done.total()
    gc.collect()
    growth.measure(done.total())
    assert growth.rows.pop()["sockets"] < 10, "hooks that are dropped leave connections open"
    # The number of connections and of guarded exchanges at one moment varies with the load.
    growth.check(sockets=THREADS // 4, descriptors=THREADS // 2, threads=THREADS // 2, MB=20)


def test_a_thousand_triggers_while_the_server_goes_away_and_comes_back(server: Server) -> None:
    """After each kill some deployments stop: their triggers say so, each of its own, and new ones take their place."""
    growth = Growth(f"{TRIGGERS} triggers, a server that is killed {KILLS} times")
    ended: Counter[str] = Counter()

    async def wait(number: int) -> None:
        trigger = DeploymentTrigger(
            deployment_name=f"d{number}", target_status=["Stopped"], deadline=time.time() + 3600, poll_interval=4.0
        )
        async for event in trigger.run():
            result = event.payload.get("result") or {}
            found = (result.get("deployment_name"), result.get("deployment_id"), result.get("status"))
            is_right = found == (f"d{number}", number, "Stopped")
            ended["right" if is_right else str(event.payload)] += 1

    async def run() -> None:
        running = {number: asyncio.create_task(wait(number)) for number in range(TRIGGERS)}
        numbers = random.Random(0)  # noqa: S311 - not a secret
        await asyncio.sleep(10)
        growth.measure(ended.total())
        for _ in range(KILLS):
            server.kill()
            await asyncio.sleep(numbers.uniform(2, 10))
            stopped = numbers.sample(range(TRIGGERS), 20)
            server.put(stopped=stopped)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(120):
                await asyncio.gather(*(running[number] for number in stopped))
            server.put(stopped=[])
            running |= {number: asyncio.create_task(wait(number)) for number in stopped}
            await asyncio.sleep(5)
            growth.measure(ended.total())
        assert not any(task.done() for task in running.values())
        server.put(stopped=list(range(TRIGGERS)))
        async with asyncio.timeout(120):
            await asyncio.gather(*running.values())
        await asyncio.sleep(1)

    before = psutil.Process().num_fds()
    asyncio.run(run())
    print(dict(ended))
    assert ended == {"right": 20 * KILLS + TRIGGERS}
    growth.check(sockets=8, descriptors=8, threads=2, MB=10)
    assert psutil.Process().num_fds() <= before + 3, "the client is closed"


def test_a_model_version_trigger_over_many_events(server: Server) -> None:
    """Each version is one event, in order, while requests fail and old versions are deleted."""
    growth = Growth(f"a model version trigger, {VERSIONS} events, 5 % faults")
    server.put(faults=0.05)
    events: list[int] = []

    async def watch() -> None:
        trigger = ModelVersionTrigger(model_name="digits", newer_than=0, poll_interval=0.5)
        async for event in trigger.run():
            assert event.payload["model_name"] == "digits"
            events.append(event.payload["model_version"])

    async def run() -> None:
        watching = asyncio.create_task(watch())
        last = 1
        step = max(10, VERSIONS // 100)
        for number in itertools.count(1):
            last = min(VERSIONS, last + step)
            server.put(versions=[max(1, last - LISTED), last])
            async with asyncio.timeout(60):
                while len(events) < last and not watching.done():  # noqa: ASYNC110 - the trigger sets no event
                    await asyncio.sleep(0.05)
            if not number % 10 or last == VERSIONS:
                growth.measure(len(events))
            if last == VERSIONS:
                break
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching

    asyncio.run(run())
    assert events == list(range(1, VERSIONS + 1))
    growth.check(sockets=1, descriptors=1, threads=1, MB=10)
