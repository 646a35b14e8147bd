"""
Measure the overhead of the local Model Serving over KServe's own model server, which it runs.

Run: python benchmarks/local_serving.py [rounds]. ``hsml-local serve`` runs in a process of its own: plain HTTP as in
KServe, and without the simulated delays of a cluster. Compared, alternately and by the median:

- predictions at concurrency 8: through the server, and from the same model server directly
- CPU time of those predictions: of the server, and of the model server behind it
- the start of a deployment: with the server, and the same program without it

Also measured: ``GET /serving`` with 300 deployments, and the server's own memory at the end.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import psutil
from sklearn.linear_model import LinearRegression

from airflow_provider_hsml.local.cluster.engines import InstanceLog, ModelFiles
from airflow_provider_hsml.local.cluster.environments import Environments, NamedEnvironments
from airflow_provider_hsml.local.cluster.kserve_engine import KServeEngine
from airflow_provider_hsml.local.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

CONCURRENCY, SECONDS = 8, 4.0
DEPLOYMENTS = 300
MODEL = "bench"
BODY = json.dumps({"instances": [[1.0, 2.0, 3.0, 4.0]]}).encode()


@dataclass(frozen=True, slots=True)
class Server:
    """A running ``hsml-local serve``, in a process of its own."""

    port: int
    key: str
    project: int
    root: Path
    process: psutil.Process

    def ask(self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request below the project and return the response body."""
        whole = f"/hopsworks-api/api/project/{self.project}{path}"
        return answered(connection, method, whole, body, {"Authorization": f"ApiKey {self.key}"})

    def connect(self) -> http.client.HTTPConnection:
        """Open a persistent connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    @property
    def model_server(self) -> psutil.Process:
        """The one model server that it runs."""
        (child,) = self.process.children()
        return child

    @property
    def model_server_port(self) -> int:
        """The port of the model server."""
        connections = self.model_server.net_connections("tcp")
        (port,) = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
        return int(port)


def answered(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> bytes:
    """Send a request over a persistent connection and return the response body."""
    connection.request(method, path, body, {"content-type": "application/json", **headers})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()}")
    return content


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Server]:
    """Run the server for the duration of the block."""
    program = str(Path(sys.executable).with_name("hsml-local"))
    command = [program, "serve", "--port", "0", "--root", str(root), "--no-tls", "--profile", "plain"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            ready = json.loads(next(process.stdout or iter(())))
            yield Server(
                port=int(ready["url"].rpartition(":")[2]),
                key=Path(ready["api_key_file"]).read_text().strip(),
                project=ready["project_id"],
                root=root,
                process=psutil.Process(process.pid),
            )
        finally:
            process.terminate()


def trained(folder: Path) -> Path:
    """Train a small model."""
    folder.mkdir(parents=True)
    rows = [[float(a), float(b), float(a + b), float(a * b)] for a in range(5) for b in range(5)]
    joblib.dump(LinearRegression().fit(rows, [sum(row) for row in rows]), folder / "model.pkl")
    return folder


def register(server: Server, connection: http.client.HTTPConnection) -> None:
    """Register the model; its files are written to the server's folder directly, without an upload."""
    trained(server.root / "projects" / "example" / "Models" / MODEL / "1" / "Files")
    body = json.dumps({"name": MODEL, "version": 1, "framework": "SKLEARN"}).encode()
    server.ask(connection, "PUT", f"/modelregistries/{server.project}/models/{MODEL}_1", body)


def create(server: Server, connection: http.client.HTTPConnection, name: str) -> int:
    """Create a deployment of the model and return its id."""
    desired: dict[str, Any] = {
        "name": name,
        "modelName": MODEL,
        "modelPath": f"/Projects/example/Models/{MODEL}",
        "modelVersion": 1,
        "modelServer": "PYTHON",
        "modelFramework": "SKLEARN",
        "servingTool": "KSERVE",
        "requestedInstances": 1,
    }
    return int(json.loads(server.ask(connection, "PUT", "/serving", json.dumps(desired).encode()))["id"])


def become(server: Server, connection: http.client.HTTPConnection, number: int, status: str) -> None:
    """Wait until a deployment is in a status."""
    while (current := json.loads(server.ask(connection, "GET", f"/serving/{number}")))["status"] != status:
        if current["status"] == "Failed":
            raise RuntimeError(f"the deployment failed: {current['condition']}")
        time.sleep(0.05)


# --- The measurements -------------------------------------------------------------------------------------------------


def started(server: Server, connection: http.client.HTTPConnection, number: int) -> float:
    """Return the seconds that the start of a deployment takes."""
    began = time.perf_counter()
    server.ask(connection, "POST", f"/serving/{number}?action=START")
    become(server, connection, number, "Running")
    return time.perf_counter() - began


def started_alone(folder: Path) -> float:
    """Return the seconds that the same model server takes to start without the local Model Serving."""
    store = Store(folder / "state.sqlite3")
    engine = KServeEngine(NamedEnvironments(Environments()), store, folder)
    model = ModelFiles(
        deployment=MODEL, name=MODEL, version=1, path=folder / "model", framework="SKLEARN", server="PYTHON"
    )
    began = time.perf_counter()
    instance = engine.start(model, {"predictor": InstanceLog(MODEL)}, threading.Event(), timeout=120)
    taken = time.perf_counter() - began
    instance.stop()
    store.close()
    return taken


def throughput(port: int, path: str, headers: dict[str, str]) -> float:
    """Return the predictions per second of ``CONCURRENCY`` parallel clients."""
    counts = [0] * CONCURRENCY
    ends = time.perf_counter() + SECONDS

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < ends:
            answered(connection, "POST", path, BODY, headers)
            counts[number] += 1
        connection.close()

    clients = [threading.Thread(target=client, args=[number]) for number in range(CONCURRENCY)]
    began = time.perf_counter()
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    return sum(counts) / (time.perf_counter() - began)


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def predicted(server: Server, name: str) -> tuple[float, float, float]:
    """Return the throughput through the server and of the same model server without it, and the ratio of CPU times."""
    path = f"/hopsworks-api/api/project/{server.project}/inference/models/{name}:predict"
    ours, theirs = cpu_seconds(server.process), cpu_seconds(server.model_server)
    through = throughput(server.port, path, {"Authorization": f"ApiKey {server.key}"})
    ours, theirs = cpu_seconds(server.process) - ours, cpu_seconds(server.model_server) - theirs
    return through, throughput(server.model_server_port, f"/v1/models/{name}:predict", {}), ours / theirs


def listed(server: Server, connection: http.client.HTTPConnection) -> float:
    """Return the milliseconds that the list of all deployments takes."""
    began = time.perf_counter()
    content = server.ask(connection, "GET", "/serving")
    taken = (time.perf_counter() - began) * 1000
    if len(json.loads(content)) < DEPLOYMENTS:
        raise RuntimeError(f"the list has fewer than {DEPLOYMENTS} deployments")
    return taken


def main(rounds: int = 5) -> None:
    """Run the measurements, and print the ratios and the goals."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        trained(folder / "model")
        server = stack.enter_context(serving(folder / "root"))
        connection = stack.enter_context(contextlib.closing(server.connect()))
        register(server, connection)
        number = create(server, connection, MODEL)
        become(server, connection, number, "Created")
        started_alone(folder)  # Warms up: the first start builds the environment, or reads it into memory.
        starts = []
        for _ in range(rounds):
            starts.append((started(server, connection, number), started_alone(folder)))
            server.ask(connection, "POST", f"/serving/{number}?action=STOP")
            become(server, connection, number, "Stopped")
        started(server, connection, number)
        predicted(server, MODEL)
        predictions = [predicted(server, MODEL) for _ in range(rounds)]
        for each in range(DEPLOYMENTS):
            create(server, connection, f"{MODEL}{each}")
        lists = [listed(server, connection) for _ in range(max(rounds, 5))]
        memory = server.process.memory_info().rss / 1e6
    through, direct, cpu = (statistics.median(column) for column in zip(*predictions, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs, _ in predictions)
    print(f"predictions at concurrency {CONCURRENCY}: {through:.0f}/s through the server, {direct:.0f}/s from KServe")
    print(f"CPU time of a prediction through the server: {cpu:.2f} of the model server's")
    ours, alone = (statistics.median(column) for column in zip(*starts, strict=True))
    slower = statistics.median(with_server / without for with_server, without in starts)
    print(f"start of a deployment: {ours:.1f} s with the server, {alone:.1f} s by itself")
    print(f"GET /serving with {DEPLOYMENTS} deployments: {statistics.median(lists):.0f} ms")
    print(f"the server itself: {memory:.0f} MB")
    goals = [
        goal("predictions through the server, of KServe's own", ratio, "ratio", at_least=0.7),
        goal("CPU a prediction of the server itself, of KServe's own", cpu, "ratio", at_most=0.25),
        goal("start of a deployment, of KServe's own", slower, "ratio", at_most=1.5),
        goal(f"GET /serving with {DEPLOYMENTS} deployments", statistics.median(lists), "ms", at_most=50),
        goal("memory of the server itself", memory, "MB", at_most=120),
    ]
    print(json.dumps({"goals": goals}))


def goal(
    name: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None
) -> dict[str, Any]:
    """Return a goal, and whether it is met."""
    met = value >= at_least if at_least is not None else at_most is None or value <= at_most
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "goal": at_least if at_least is not None else at_most,
        "met": met,
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
