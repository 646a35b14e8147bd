"""
Measure what a comparison of two versions adds to the time of their own requests.

Run: python benchmarks/compare.py [rows]. A local Model Serving in a process of its own runs Python functions as models,
each of which waits 5 ms for a request. The hook compares two versions as a task would. A scoring may take 10 % more
than its requests: the seconds of all requests, divided by those that are on the way at a time. The rest is reported
without a goal: the temporary deployment, whose changes take as long as the server takes, and reading, measuring and
writing.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

_HOME = tempfile.mkdtemp(prefix="benchmark-airflow-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ.setdefault("AIRFLOW_HOME", _HOME)
os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
for _name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(_name, None)  # A client reads the whole bundle when it is made.

from airflow_provider_hsml.hooks import HsmlHook  # noqa: E402 - Airflow reads its environment when it is first imported
from airflow_provider_hsml.hopsworks.inference import scoring  # noqa: E402
from airflow_provider_hsml.local import LocalServing  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.local import ModelFiles

MODEL = "bench"
WAIT = 0.005
"""Seconds that a model waits for each request."""
MOST_OVERHEAD = 10.0
"""Percent."""


def load(model: ModelFiles) -> Callable[[Any], list[int]]:
    """Load a model that waits, and then says whether a value reaches its threshold."""
    threshold = json.loads(next((model.path or Path()).rglob("*.joblib")).read_text())

    def predict(rows: Any) -> list[int]:
        time.sleep(WAIT)
        return [int(row[0] >= threshold) for row in rows]

    return predict


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Run the local Model Serving in another process, and give the connection to it."""
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline() if process.stdout else ""
        finally:
            if process.stdin:
                process.stdin.close()  # It serves until then.


def serve() -> None:
    """Serve until the standard input ends."""
    with LocalServing(engine=load) as serving:
        print(serving.connection, flush=True)
        sys.stdin.read()


@dataclass
class Scorings:
    """The two scorings of a comparison, as they were done."""

    seconds: list[float] = field(default_factory=list)
    requests: int = 0
    of_requests: float = 0.0
    """Seconds of all requests together."""

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Record the scorings meanwhile."""
        score = scoring.score

        def timed(*args: Any, **kwargs: Any) -> Iterator[scoring.Chunk]:
            begun = time.perf_counter()
            for chunk in score(*args, **kwargs):
                self.requests += len(chunk.latencies)
                self.of_requests += sum(chunk.latencies)
                yield chunk
            self.seconds.append(time.perf_counter() - begun)

        with mock.patch.object(scoring, "score", timed):
            yield


def measure(rows: int, folder: Path) -> tuple[Scorings, float, float]:
    """
    Compare two versions, and again with their stored answers.

    :return: the scorings, and the seconds of both comparisons
    """
    hook, scorings = HsmlHook(), Scorings()
    for version, threshold in enumerate((0.4, 0.5), 1):
        path = folder / f"model{version}"
        path.mkdir()
        (path / "model.joblib").write_text(str(threshold))
        hook.register_model(model_name=MODEL, model_path=path, framework="SKLEARN", input_example=[[0.1, 0.2]])
    hook.deploy_model(MODEL, 1)
    records = [{"instance": [number / rows, 1.0], "y": int(number / rows >= 0.5)} for number in range(rows)]
    seconds = []
    with scorings.watched():
        for _ in range(2):
            begun = time.perf_counter()
            hook.compare_models(
                MODEL,
                2,
                records,
                label_column="y",
                metrics=["accuracy"],
                result_path=folder / "results",
                reuse_key="benchmark",
            )
            seconds.append(time.perf_counter() - begun)
    return scorings, seconds[0], seconds[1]


def main(rows: int = 50_000) -> None:
    """Run the measurement, and print the overhead and its goal."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, served() as connection:
        os.environ["AIRFLOW_CONN_HSML_DEFAULT"] = connection
        scorings, whole, again = measure(rows, Path(folder))
    took, own = sum(scorings.seconds), scorings.of_requests / scoring.AT_THE_PROXY
    overhead = 100 * (took / own - 1)
    print(
        f"{rows} rows, two versions: {scorings.requests} requests in {took:.2f} s, {own:.2f} s of their own, "
        f"{scorings.requests / took:.0f} requests and {2 * rows / took:.0f} rows a second"
    )
    print(f"the whole comparison: {whole:.1f} s; with stored answers: {again:.1f} s")
    goal = {"name": "overhead of the scorings", "value": round(overhead, 2), "unit": "%", "goal": MOST_OVERHEAD}
    print(json.dumps({"goals": [goal | {"met": overhead <= MOST_OVERHEAD}]}))


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main(*map(int, sys.argv[1:]))
