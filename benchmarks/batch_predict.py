"""
Measure how fast a table is scored, beside other clients that send the same requests to the same server.

Run: python benchmarks/batch_predict.py [seconds [rounds]]. Each client has a process of its own, the same rows (256 of
64 numbers in a request), and 16 requests at a time:

- ours: scores a Parquet file into Parquet files, with all that the operator does but for reading the deployment
- lines: the same with files of JSON lines
- pool: ``requests`` in a thread pool, a session for each thread, with a body that was made before
- made: the same, and makes the body of each request from rows in memory
- loop: one request after the other with a body that is made each time, as Hopsworks' SDK sends them
- wrk, if it is installed: with a body that was made before

The servers: one that answers at once, one that answers after 5 ms, both of an asyncio protocol in a process of their
own; and KServe's with a model of scikit-learn, as ``hsml-local`` runs it. Clients take turns, and ratios are medians.

Also measured: the memory of a million rows, and the latency of other users' requests through a proxy with ten
connections while a batch runs through it at its default of 4 requests at a time.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import http.client
import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

_HOME = tempfile.mkdtemp(prefix="benchmark-airflow-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ.setdefault("AIRFLOW_HOME", _HOME)
os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS, COLUMNS, CONCURRENCY = 256, 64, 16
DELAY, SLOTS = 0.005, 10
BLOCK, MILLION = 64 * 1024, 1_000_000
MODEL = "bench"
_source = random.Random(7)  # noqa: S311 - no secret
VALUES = [_source.randbytes(BLOCK).translate(bytes(value % 17 for value in range(256))) for _ in range(COLUMNS)]
"""The values of each column, from 0 to 16 as in the digits, each in a byte."""
TABLE = [[column[row] for column in VALUES] for row in range(ROWS)]
BODY = json.dumps({"instances": TABLE}).encode()
JSON = {"Content-Type": "application/json"}
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


# --- The servers ------------------------------------------------------------------------------------------------------


class Slots:
    """The connections of a proxy to models: requests beyond them wait."""

    def __init__(self, number: int | None) -> None:
        """
        Begin.

        :param number: None for no limit
        """
        self._free = number
        self._waiting: deque[Callable[[], object]] = deque()

    def take(self, act: Callable[[], object]) -> None:
        """Call a function as soon as there is a slot."""
        if self._free is None:
            act()
        elif self._free:
            self._free -= 1
            act()
        else:
            self._waiting.append(act)

    def give_back(self) -> None:
        """Free a slot."""
        if self._waiting:
            self._waiting.popleft()()
        elif self._free is not None:
            self._free += 1


class Instant(asyncio.Protocol):
    """Answers each request with as many predictions as it has rows."""

    def __init__(self, delay: float, slots: Slots) -> None:
        """
        Begin.

        :param delay: seconds before each answer
        :param slots: requests at a time
        """
        self._delay = delay
        self._slots = slots
        self._held = bytearray()

    def connection_made(self, transport: Any) -> None:
        """Keep the connection."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are complete."""
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._held, 0, end)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._held) < whole:
                return
            answer = answer_of(ROWS if whole > 4096 else 1)
            del self._held[:whole]
            self._slots.take(functools.partial(self._begin, answer))

    def _begin(self, answer: bytes) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._answer, answer)
        else:
            self._answer(answer)

    def _answer(self, answer: bytes) -> None:
        self._transport.write(answer)
        self._slots.give_back()


@functools.cache
def answer_of(rows: int) -> bytes:
    """Return an answer with predictions for this many rows."""
    body = json.dumps({"predictions": [row % 10 for row in range(rows)]})
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


async def serve() -> None:
    """Serve at three ports until the standard input ends: at once, after a while, and with ten slots."""
    loop, ports = asyncio.get_running_loop(), []
    for delay, number in ((0.0, None), (DELAY, None), (DELAY, SLOTS)):
        server = await loop.create_server(functools.partial(Instant, delay, Slots(number)), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def served() -> Iterator[list[str]]:
    """Run the three servers in another process, and give their addresses."""
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            ports = json.loads(process.stdout.readline() if process.stdout else "[]")
            yield [f"http://127.0.0.1:{port}" for port in ports]
        finally:
            if process.stdin:
                process.stdin.close()  # It serves until then.


@contextlib.contextmanager
def kserve(folder: Path) -> Iterator[str | None]:
    """Run KServe's model server with a model of scikit-learn, and give its address; None without scikit-learn."""
    try:
        import joblib  # noqa: PLC0415 - not in every environment
        from local_serving import (  # type: ignore[import-not-found]  # noqa: PLC0415 - beside it; needs them, too
            become,
            create,
            serving,
        )
        from sklearn.datasets import load_digits  # noqa: PLC0415
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    except ImportError:
        yield None
        return
    rows, labels = load_digits(return_X_y=True)
    with serving(folder) as server, contextlib.closing(server.connect()) as connection:
        files = folder / "projects" / "demo" / "Models" / MODEL / "1" / "Files"
        files.mkdir(parents=True)
        joblib.dump(LogisticRegression(max_iter=1000).fit(rows / 16, labels), files / "model.pkl")
        body = json.dumps({"name": MODEL, "version": 1, "framework": "SKLEARN"}).encode()
        server.ask(connection, "PUT", f"/modelregistries/{server.project}/models/{MODEL}_1", body)
        number = create(server, connection, MODEL)
        become(server, connection, number, "Created")
        server.ask(connection, "POST", f"/serving/{number}?action=START")
        become(server, connection, number, "Running")
        yield f"http://127.0.0.1:{server.model_server_port}"


# --- The clients ------------------------------------------------------------------------------------------------------


def url_of(base: str) -> str:
    """Return the address for predictions."""
    return f"{base}/v1/models/{MODEL}:predict"


def pool(base: str, seconds: float, *, is_made: bool = False) -> int:
    """Send with ``requests`` in a thread pool, and count the answers."""
    import requests  # noqa: PLC0415 - each client has a process of its own

    ends = time.monotonic() + seconds

    def work() -> int:
        count = 0
        with requests.Session() as session:
            session.trust_env = False
            while time.monotonic() < ends:
                body = json.dumps({"instances": TABLE}).encode() if is_made else BODY
                session.post(url_of(base), data=body, headers=JSON).json()
                count += 1
        return count

    with ThreadPoolExecutor(CONCURRENCY) as executor:
        return sum(one.result() for one in [executor.submit(work) for _ in range(CONCURRENCY)])


def loop(base: str, seconds: float) -> int:
    """Send one request after the other, and count the answers."""
    import requests  # noqa: PLC0415 - each client has a process of its own

    ends, count = time.monotonic() + seconds, 0
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < ends:
            session.post(url_of(base), json={"instances": TABLE}).json()
            count += 1
    return count


def online(base: str, seconds: float) -> float:
    """Send a row every 20 ms, and return the 95th percentile of the latencies, in seconds."""
    host, ends, took = base.removeprefix("http://"), time.monotonic() + seconds, []
    connection = http.client.HTTPConnection(host, timeout=60)
    body = json.dumps({"instances": TABLE[:1]}).encode()
    while time.monotonic() < ends:
        begun = time.perf_counter()
        connection.request("POST", f"/v1/models/{MODEL}:predict", body, JSON)
        connection.getresponse().read()
        took.append(time.perf_counter() - begun)
        time.sleep(0.02)
    connection.close()
    return statistics.quantiles(took, n=20)[-1]


def ours(base: str, path: Path, *, concurrency: int = CONCURRENCY) -> int:
    """Score the rows of a file as the operator does, and count the requests."""
    from airflow_provider_hsml.hooks.batches import format_of  # noqa: PLC0415 - each client has a process of its own
    from airflow_provider_hsml.hooks.result_folder import ResultFolder  # noqa: PLC0415
    from airflow_provider_hsml.hooks.row_files import row_files  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.api import Address, Project  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.batch.rows import Columns, RowForm  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.batch.served import Served  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.batch.table import Asked, Settings, Workplace, score_table  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.domain.access import Access  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentStatus  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.domain.records import Shape  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.inference.ingress import Ingress  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.inference.scoring import Target  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.rollout.inputs import Run  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.transport.client import Client  # noqa: PLC0415

    deployment = Deployment(1, MODEL, DeploymentStatus.RUNNING, MODEL, 1, 1, "1")
    ingress = Ingress(base)
    ingress._known[MODEL] = Address("", MODEL)  # noqa: SLF001 - there is no Hopsworks to ask for it
    project = Project(119, "demo", ingress=ingress)
    files = row_files(str(path))
    form = RowForm.build(Columns(None, ("id",)), Shape(width=COLUMNS), files.first())
    asked = Asked(Target(project, MODEL, request_key="benchmark"), form, ROWS)

    def drive(flow: Any) -> Any:
        name = flow.__name__
        flow.close()
        return deployment if name == "settled" else Served.of(deployment)

    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        place = Workplace(
            run=Run(project, MODEL, 60.0, 1.0),
            results=ResultFolder(folder),
            format=format_of(files),
            rows=files,
            ask=lambda _deployment, _settings: asked,
            drive=drive,
            connect=lambda sleep: Client(Access(base, "demo", "prefix.secret"), sleep=sleep),
            check_alive=lambda: None,
        )
        progress = score_table(place, Settings("key", "try", ROWS, concurrency))
    return progress.rows // ROWS


def write_table(path: Path, requests: int) -> Path:
    """Write the rows of some requests into a file."""
    import pyarrow as pa  # noqa: PLC0415 - not in every environment
    import pyarrow.parquet as pq  # noqa: PLC0415

    rows = requests * ROWS
    if path.suffix == ".jsonl":
        lines = [json.dumps(row)[1:-1].split(", ") for row in TABLE]
        names = [f"c{number:02}" for number in range(COLUMNS)]
        made = [", ".join(f'"{name}": {value}' for name, value in zip(names, line, strict=True)) for line in lines]
        with path.open("w") as file:
            for row in range(rows):
                file.write(f'{{"id": {row}, {made[row % ROWS]}}}\n')
        return path
    columns = {
        f"c{number:02}": pa.Array.from_buffers(pa.uint8(), BLOCK, [None, pa.py_buffer(values)]).cast(pa.int64())
        for number, values in enumerate(VALUES)
    }
    schema = pa.schema([("id", pa.int64()), *((name, pa.int64()) for name in columns)])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, BLOCK):
            ids = pa.array(range(first, first + BLOCK), pa.int64())
            writer.write_table(pa.table({"id": ids, **columns}).slice(0, min(BLOCK, rows - first)))
    return path


def memory_of(base: str, path: Path) -> dict[str, float]:
    """Score a file, and measure the memory: after the imports, and the most in each half of the time, in MB."""
    ours(base, write_table(path.with_name("warm.parquet"), 1))  # Imports all that is used.
    after, seen, ended = resident(), [], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    ours(base, path)
    ended.set()
    watcher.join()
    middle = len(seen) // 2
    return {"after_imports": after, "first_half": max(seen[:middle]), "second_half": max(seen[middle:])}


def resident() -> float:
    """Return the memory of this process, in MB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def client(name: str, base: str, seconds: float, path: Path) -> None:
    """Run one client, and print what it did."""
    if name == "memory":
        print(json.dumps(memory_of(base, path)))
        return
    if name == "online":
        print(json.dumps({"p95": online(base, seconds)}))
        return
    while name == "default":  # Until it is terminated.
        ours(base, path, concurrency=4)
    work: Callable[[], int] = {
        "ours": lambda: ours(base, path),
        "lines": lambda: ours(base, path.with_suffix(".jsonl")),
        "pool": lambda: pool(base, seconds),
        "made": lambda: pool(base, seconds, is_made=True),
        "loop": lambda: loop(base, seconds),
    }[name]
    if name in ("ours", "lines"):  # The imports are not part of a request.
        ours(base, write_table(path.with_name(f"warm{'.jsonl' if name == 'lines' else '.parquet'}"), 4))
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    count = work()
    used, took = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - begun
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"per_second": count / took, "cpu_ms": 1000 * cpu / count}))


def command_of(name: str, base: str, seconds: float, path: Path) -> list[str]:
    """Return the command that runs a client in a process of its own."""
    return [sys.executable, __file__, "client", name, base, str(seconds), str(path)]


def run(name: str, base: str, seconds: float, path: Path) -> dict[str, float]:
    """Run one client to its end, and return what it printed."""
    if name == "wrk":
        return wrk(base, seconds, path.parent)
    printed = subprocess.run(command_of(name, base, seconds, path), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(printed.stdout.splitlines()[-1])
    return found


def wrk(base: str, seconds: float, folder: Path) -> dict[str, float]:
    """Run wrk."""
    script = folder / "body.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = {json.dumps(BODY.decode())}\nwrk.headers["Content-Type"] = "application/json"'
    )
    command = ["wrk", "-t1", f"-c{CONCURRENCY}", f"-d{max(1, round(seconds))}s", "-s", str(script), url_of(base)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    return {"per_second": float(found[1]) if found else 0.0}


# --- The measurements -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured, and for how long."""

    seconds: float
    """For which each client sends."""
    rounds: int
    path: Path
    """The Parquet file of the rows; the one of JSON lines is beside it."""

    def compared(self, where: str, base: str, *names: str) -> dict[str, Any]:
        """Let clients take turns, and print a line for each."""
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(self.rounds):
            for name in names:
                found[name].append(run(name, base, self.seconds, self.path))
        for name, several in found.items():
            rate = statistics.median(one["per_second"] for one in several)
            cpu = statistics.median(one.get("cpu_ms", 0.0) for one in several)
            print(f"{where:8} {name:6} {rate:7.0f} requests/s{f', {cpu:.2f} ms CPU each' if cpu else ''}", flush=True)
        return found

    def disturbed(self, base: str, path: Path) -> float:
        """Return the 95th percentile of other users' latencies during a batch, of that without one."""
        ratios = []
        for _ in range(self.rounds):
            alone = run("online", base, self.seconds, path)["p95"]
            with subprocess.Popen(command_of("default", base, self.seconds, path), stdout=subprocess.DEVNULL) as batch:
                time.sleep(2)  # It imports.
                during = run("online", base, self.seconds, path)["p95"]
                if batch.poll() is not None:
                    message = "The batch ended before the measurement.\nSee its error above."
                    raise RuntimeError(message)
                batch.terminate()
            print(f"other users' requests: p95 {1000 * alone:.1f} ms, and {1000 * during:.1f} ms during a batch")
            ratios.append(during / alone)
        return statistics.median(ratios)


def ratio(found: dict[str, Any], first: str, second: str, what: str) -> float:
    """Return the median of the ratios of two clients, round by round."""
    ratios: list[float] = [one[what] / two[what] for one, two in zip(found[first], found[second], strict=True)]
    return statistics.median(ratios)


def main(seconds: float = 4.0, rounds: int = 3) -> None:
    """Run all clients, and print the table and the goals."""
    has_wrk = shutil.which("wrk") is not None
    goals: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as made, served() as (instant, delayed, proxy):
        folder = Path(made)
        path = write_table(folder / "rows.parquet", max(4, int(500 * seconds)))
        write_table(folder / "rows.jsonl", max(4, int(50 * seconds)))
        bench, others = Bench(seconds, rounds, path), ["wrk"] if has_wrk else []
        found = bench.compared("instant", instant, "ours", "lines", "pool", "made", "loop", *others)
        goals += [
            goal("requests a second, of a pool's", ratio(found, "ours", "pool", "per_second"), "ratio", at_least=1),
            goal("CPU a row, of a pool's with a body at hand", ratio(found, "ours", "pool", "cpu_ms"), "ratio", 1),
            goal("CPU a row, of a pool's that makes bodies", ratio(found, "ours", "made", "cpu_ms"), "ratio", 1),
        ]
        found = bench.compared("delayed", delayed, "ours", "pool", "loop", *others)
        goals.append(
            goal("requests at 5 ms, of a loop's", ratio(found, "ours", "loop", "per_second"), "ratio", at_least=6)
        )
        with kserve(folder / "root") as base:
            if base is not None and has_wrk:
                found = bench.compared("KServe", base, "ours", "pool", "wrk")
                several = ratio(found, "ours", "wrk", "per_second")
                goals.append(goal("requests a second on KServe, of wrk's", several, "ratio", at_least=0.9))
            else:
                print("KServe was not measured: that needs scikit-learn and wrk")
        whole = write_table(folder / "million.parquet", MILLION // ROWS)
        memory = run("memory", instant, seconds, whole)
        print(", ".join(f"{name.replace('_', ' ')}: {value:.0f} MB" for name, value in memory.items()))
        most = max(memory["first_half"], memory["second_half"])
        goals += [
            goal("memory of a million rows", most - memory["after_imports"], "MB", 100),
            goal("its growth in the second half", memory["second_half"] - memory["first_half"], "MB", 10),
            goal("p95 of other users' requests, of that without", bench.disturbed(proxy, whole), "ratio", 1.1),
        ]
    print(json.dumps({"goals": goals}))


def goal(
    name: str, value: float, unit: str, at_most: float | None = None, *, at_least: float | None = None
) -> dict[str, Any]:
    """Return a goal, and whether it is met."""
    met = value >= at_least if at_least is not None else at_most is None or value <= at_most
    bound = at_least if at_least is not None else at_most
    return {"name": name, "value": round(value, 2), "unit": unit, "goal": bound, "met": met}


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    elif sys.argv[1:2] == ["client"]:
        client(sys.argv[2], sys.argv[3], float(sys.argv[4]), Path(sys.argv[5]))
    else:
        given = sys.argv[1:]
        main(float(given[0]) if given else 4.0, int(given[1]) if given[1:] else 3)
