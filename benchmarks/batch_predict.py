"""
Measure how fast a table is scored, beside other clients that send the same requests to the same server.

Run: python benchmarks/batch_predict.py [seconds]. The instant server is an asyncio protocol in a process of its own: it
answers each request for 256 rows of 64 numbers at once, or after 5 ms. Its clients, each in a process of its own, with
the same body and the same number of requests at a time:

- ours: reads the rows from a file of JSON lines, makes requests of them, reads the answers and makes result lines;
- pool: ``requests`` in a thread pool, a session for each thread, with a body that was made before;
- loop: one request after the other with a body that is made each time, as Hopsworks' SDK sends them;
- wrk, of Debian, if it is installed: with a body that was made before.

Goals: as many requests a second as the pool, at no more CPU for each; 6 times the loop at 5 ms and 16 at a time; a
million rows within 100 MB above the memory after the imports. The last line of the output is JSON.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

_HOME = tempfile.mkdtemp(prefix="benchmark-airflow-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ.setdefault("AIRFLOW_HOME", _HOME)
os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS, COLUMNS, CONCURRENCY = 256, 64, 16
DELAY = 0.005
MILLION = 1_000_000
PATH = "/hopsworks-api/api/project/119/inference/models/digits%3Apredict"
ROW = {"instance": [index % 17 for index in range(COLUMNS)]}
BODY = json.dumps({"instances": [ROW["instance"]] * ROWS}).encode()
ANSWER = json.dumps({"predictions": [index % 10 for index in range(ROWS)]}).encode()
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Instant(asyncio.Protocol):
    """Answers each request with the same predictions."""

    def __init__(self, delay: float) -> None:
        """
        Begin.

        :param delay: seconds before each answer
        """
        self._delay = delay
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
            del self._held[:whole]
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n"
        self._transport.write(head.encode() + ANSWER)


async def serve() -> None:
    """Serve at two ports, at once and after a while, until the standard input ends."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(functools.partial(Instant, delay), "127.0.0.1", 0) for delay in (0.0, DELAY)]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def pool(url: str, seconds: float) -> int:
    """Send with ``requests`` in a thread pool, and count the answers."""
    import requests  # noqa: PLC0415 - each client has a process of its own

    kept = threading.local()
    ends = time.monotonic() + seconds

    def work() -> int:
        kept.session = requests.Session()
        kept.session.trust_env = False
        count = 0
        while time.monotonic() < ends:
            kept.session.post(url, data=BODY, headers={"Content-Type": "application/json"}).json()
            count += 1
        return count

    with ThreadPoolExecutor(CONCURRENCY) as executor:
        return sum(one.result() for one in [executor.submit(work) for _ in range(CONCURRENCY)])


def loop(url: str, seconds: float) -> int:
    """Send one request after the other, and count the answers."""
    import requests  # noqa: PLC0415 - each client has a process of its own

    ends, count = time.monotonic() + seconds, 0
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < ends:
            session.post(url, json={"instances": [ROW["instance"]] * ROWS}).json()
            count += 1
    return count


def ours(url: str, seconds: float, path: Path, rows: int | None = None) -> tuple[int, list[int]]:
    """
    Score the rows of a file as a task does, and count the requests.

    :param rows: how many are scored; None: as many as there is time for
    :return: the requests, and the memory in MB over time
    """
    from airflow_provider_hsml.hooks.result_folder import JsonLines  # noqa: PLC0415 - as above
    from airflow_provider_hsml.hooks.row_files import row_files  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.api import Project  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.batch.concurrency import Limit, LimitedConnection  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.batch.progress import ResultRow  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.batch.rows import Columns, RowForm  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.domain.access import Access  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.domain.records import Shape  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.inference import scoring  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.transport.client import Client  # noqa: PLC0415

    host = url.removesuffix(PATH)
    access = Access(host, "demo", "prefix.secret")
    files = row_files(str(path))
    form = replace(RowForm.build(Columns(), Shape(), ROW), is_json=True)
    limit = Limit(CONCURRENCY)
    target = scoring.Target(Project(119, "demo"), "digits", request_key="benchmark")
    memory = [_memory()]
    ends = time.monotonic() + seconds

    def chunks() -> Iterator[tuple[int, list[Any]]]:
        first = 0
        while True:
            for _, some in files.chunks(ROWS, 0):
                if first >= rows if rows is not None else time.monotonic() >= ends:
                    return
                yield first, form.prepare(first, some).instances
                first += len(some)

    def connect(sleep: Any) -> Any:
        return LimitedConnection(Client(access, sleep=sleep), limit, sleep)

    count, part = 0, JsonLines().begin({})
    for chunk in scoring.score_chunks(chunks(), target, connect, concurrency=CONCURRENCY):
        part.add([ResultRow(chunk.first + at, {}, one) for at, one in enumerate(chunk.predictions)])
        count += 1
        if part.size > 8 * 1024 * 1024:
            part.finish()
            part = JsonLines().begin({})
            memory.append(_memory())
    return count, [*memory, _memory()]


def _memory() -> int:
    text = Path("/proc/self/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    return int(found[1]) // 1024 if found else 0


def client(name: str, url: str, seconds: float, path: Path) -> None:
    """Run one client, and print what it did."""
    if name == "memory":
        _, memory = ours(url, 600, path, MILLION)
        print(json.dumps({"memory": memory}))
        return
    if name == "ours":
        ours(url, 0.3, path)  # The imports are not part of a request.
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    count = ours(url, seconds, path)[0] if name == "ours" else {"pool": pool, "loop": loop}[name](url, seconds)
    used, took = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - begun
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"per_second": round(count / took, 1), "cpu_ms": round(1000 * cpu / count, 3)}))


def wrk(url: str, seconds: float, folder: Path) -> dict[str, Any] | None:
    """Run wrk; None if it is not installed."""
    if shutil.which("wrk") is None:
        return None
    script = folder / "body.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = {json.dumps(BODY.decode())}\nwrk.headers["Content-Type"] = "application/json"'
    )
    command = ["wrk", "-t1", f"-c{CONCURRENCY}", f"-d{max(1, round(seconds))}s", "-s", str(script), url]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    return {"per_second": float(found[1])} if found else None


@contextlib.contextmanager
def served() -> Iterator[list[str]]:
    """Run the instant server in another process, and give its addresses."""
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            ports = json.loads(process.stdout.readline() if process.stdout else "[]")
            yield [f"http://127.0.0.1:{port}{PATH}" for port in ports]
        finally:
            if process.stdin:
                process.stdin.close()  # It serves until then.


def run(name: str, url: str, seconds: float, path: Path) -> dict[str, Any]:
    """Run one client in a process of its own."""
    command = [sys.executable, __file__, "client", name, url, str(seconds), str(path)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def main(seconds: float = 5.0) -> None:
    """Run all clients, and print the table and the goals."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as made, served() as (instant, delayed):
        folder = Path(made)
        path = folder / "rows.jsonl"
        path.write_text(f"{json.dumps(ROW)}\n" * (200 * ROWS))
        found: dict[str, Any] = {
            "instant": {name: run(name, instant, seconds, path) for name in ("ours", "pool", "loop")},
            "delayed": {name: run(name, delayed, seconds, path) for name in ("ours", "pool", "loop")},
            "memory": run("memory", instant, seconds, path)["memory"],
        }
        for where, url in (("instant", instant), ("delayed", delayed)):
            measured = wrk(url, seconds, folder)
            if measured is not None:
                found[where]["wrk"] = measured
    for where in ("instant", "delayed"):
        for name, one in found[where].items():
            print(
                f"{where:8} {name:5} {one['per_second']:8.0f} requests a second, {one.get('cpu_ms', '-')} ms CPU each"
            )
    memory = found["memory"]
    print(f"memory after the imports {memory[0]} MB, then at most {max(memory)} MB, at the end {memory[-1]} MB")
    instant_pool, own = found["instant"]["pool"], found["instant"]["ours"]
    found["goals"] = {
        "as_many_as_the_pool": own["per_second"] >= instant_pool["per_second"],
        "no_more_cpu_than_the_pool": own["cpu_ms"] <= instant_pool["cpu_ms"],
        "six_times_the_loop": found["delayed"]["ours"]["per_second"] >= 6 * found["delayed"]["loop"]["per_second"],
        "within_100_mb": max(memory) - memory[0] <= 100,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    elif sys.argv[1:2] == ["client"]:
        client(sys.argv[2], sys.argv[3], float(sys.argv[4]), Path(sys.argv[5]))
    else:
        main(*map(float, sys.argv[1:2]))
