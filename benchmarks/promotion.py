"""
Measure the requests and the seconds of a promotion, compared with plain API calls.

Run: python benchmarks/promotion.py [rounds]. A local Model Serving with the behaviour and timing of a cluster runs
Python functions as models, which take a while to load. Each round performs an update, a promotion without changes, and
a rollback. The hook does them as a task would: registry, gate, journal, change, verification. For comparison, another
deployment is changed by plain calls: a PUT or a rollback, then ten predictions a second until only the new version
answers. That time is the server's own rollout, which no client can avoid.

The server counts the requests. A change by the hook may take the time of the server's own rollout, the settle time or
the probes, whichever is longer, repeated reads of the instance names if there were any, and 1 s. Besides its looks it
may send 24 requests. A look is a read of the deployment after the change was sent; there may be one for each 2 s.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

_HOME = tempfile.mkdtemp(prefix="benchmark-airflow-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ.setdefault("AIRFLOW_HOME", _HOME)
os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")

import requests  # noqa: E402 - Airflow reads its environment when it is first imported

from airflow_provider_hsml.hooks import HsmlHook  # noqa: E402
from airflow_provider_hsml.hopsworks.domain import rollout_tracker  # noqa: E402
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment  # noqa: E402
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus as Status  # noqa: E402
from airflow_provider_hsml.hopsworks.inference import predict  # noqa: E402
from airflow_provider_hsml.hopsworks.rollout import probe  # noqa: E402
from airflow_provider_hsml.local import LocalServing  # noqa: E402
from airflow_provider_hsml.local.cluster.behaviour import Speeds  # noqa: E402
from airflow_provider_hsml.local.cluster.engines import VERSION_HEADER  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.local import ModelFiles

MODEL, PLAIN = "bench", "plain"
LOADING = 4.0
"""Seconds that a model takes to load, as in KServe's server with scikit-learn."""
MARGIN = 1.0
MOST_REQUESTS = 24
"""Of a change, without its looks."""
LOOK_EVERY = 2.0
"""Seconds between two looks, at the least."""
MOST_READS = 9
BETWEEN = 0.1
QUIET = 3.0
"""Seconds without an answer of another version, after which the rollout counts as finished."""


def load(model: ModelFiles) -> Callable[[Any], list[Any]]:
    """Load a model that answers its version for each row."""
    time.sleep(LOADING)
    return lambda rows: [model.version for _ in rows]


@dataclass
class Watched:
    """A hook as in a task, which records the responses that matter for its time limit."""

    hook: HsmlHook = field(default_factory=HsmlHook)
    saw_transition: bool = False
    logs: int = 0
    looks: list[float] = field(default_factory=list)
    """When the deployment was read after the change was sent, in seconds."""

    def __post_init__(self) -> None:
        """Record the responses of the hook's client."""
        send = self.hook.client.send

        def listen(call: Any, *args: Any, **kwargs: Any) -> Any:
            answer = send(call, *args, **kwargs)
            self.saw_transition |= isinstance(answer, Deployment) and answer.status in (
                Status.UPDATING,
                Status.STARTING,
            )
            self.logs += call.path.endswith("/logs")
            if call.method != "GET" and call.path.endswith(("/serving", "/rollback")):
                self.looks.clear()
            elif isinstance(answer, Deployment):
                self.looks.append(time.perf_counter())
            return answer

        self.hook.client.send = listen  # type: ignore[method-assign]

    def allowed(self, rolling: float) -> float:
        """
        Return the seconds that a change may take.

        :param rolling: seconds of the server's own rollout
        """
        settle = rollout_tracker.SETTLE_SEEN if self.saw_transition else rollout_tracker.SETTLE_UNSEEN
        probing = (probe.PROBES - 1) * predict.BETWEEN_PROBES
        # Instance names are read once before and once after a change. Each further read has waited for new names.
        names = max(0, self.logs - 2) * rollout_tracker.NAMES_AGAIN
        return rolling + max(settle, probing) + names + MARGIN


@dataclass(frozen=True, slots=True)
class Cost:
    """The seconds and the requests of an action."""

    seconds: float
    reads: int
    probes: int
    writes: int

    @property
    def requests(self) -> int:
        """The number of all requests."""
        return self.reads + self.probes + self.writes


class Bench:
    """The server, and both ways to change its deployments."""

    def __init__(self, serving: LocalServing, folder: Path) -> None:
        self._serving = serving
        self._folder = folder
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"ApiKey {serving.api_key}"
        self._api = f"{serving.url}/hopsworks-api/api/project/{serving.project_id}"

    def cost(self, act: Callable[[], object]) -> Cost:
        """Perform an action and return its cost."""
        self._serving.requests.clear()
        started = time.perf_counter()
        act()
        seconds = time.perf_counter() - started
        sent = list(self._serving.requests)
        reads = sum(request.method == "GET" for request in sent)
        probes = sum(request.path.endswith(":predict") for request in sent)
        return Cost(seconds, reads, probes, len(sent) - reads - probes)

    def register(self) -> int:
        """Register a version that is better than all earlier ones, and return its number."""
        version = 1 + max((model.version for model in HsmlHook().get_models(MODEL)), default=0)
        (self._folder / "model.joblib").write_text(json.dumps({"answer": version}))
        return (
            HsmlHook()
            .register_model(
                model_name=MODEL,
                model_path=self._folder,
                framework="SKLEARN",
                metrics={"accuracy": 1 - 1 / (1 + version)},
                input_example=[[0.0]],
                expected={"instances": [[0.0]], "predictions": [version]},
            )
            .version
        )

    # --- By plain calls -----------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send a request below the project."""
        answer = self._session.request(method, f"{self._api}/{path}", timeout=60, **arguments)
        answer.raise_for_status()
        return answer

    def row(self) -> dict[str, Any]:
        """Read the deployment."""
        row: dict[str, Any] = self.ask("GET", "serving", params={"name": PLAIN}).json()
        return row

    def answering(self) -> int:
        """Request a prediction and return the version of the process that answers."""
        answer = self.ask("POST", f"inference/models/{PLAIN}:predict", json={"instances": [[0.0]]})
        return int(answer.headers[VERSION_HEADER])

    def check(self) -> None:
        """Read the versions and the deployment, and check that it answers: a promotion without changes."""
        self.ask("GET", f"modelregistries/{self._serving.project_id}/models", params={"filter_by": f"name_eq:{MODEL}"})
        self.row()
        self.answering()

    def put(self, version: int) -> float:
        """Update the deployment to another version; return the seconds until only that version answers."""
        row = self.row()
        began = time.perf_counter()
        self.ask("PUT", "serving", params={"newVersion": "true"}, json=row | {"modelVersion": version})
        return self._alone(version) - began

    def roll_back(self, *, to: int, serves: int) -> float:
        """
        Roll the deployment back; return the seconds until only the restored version answers.

        :param to: the deployment version
        :param serves: the model version that it serves
        """
        number = self.row()["id"]
        began = time.perf_counter()
        self.ask("POST", f"serving/{number}/rollback", json={"version": to})
        return self._alone(serves) - began

    def _alone(self, version: int) -> float:
        """Wait until only one version answers; return the time since when."""
        since = None
        while since is None or time.perf_counter() - since < QUIET:
            if self.answering() != version:
                since = None
            elif since is None:
                since = time.perf_counter()
            time.sleep(BETWEEN)
        return since


@dataclass(frozen=True, slots=True)
class Change:
    """One change, done by the hook and by plain calls."""

    ours: Cost
    plain: float
    """Seconds of the plain calls: the server's own rollout."""
    watched: Watched

    @property
    def allowed(self) -> float:
        """The seconds that the hook may take."""
        return self.watched.allowed(self.plain)

    @property
    def besides_looks(self) -> int:
        """The number of requests without the looks."""
        return self.ours.requests - len(self.watched.looks)

    @property
    def looks_in_time(self) -> float:
        """The number of looks for each ``LOOK_EVERY`` seconds, after the first one."""
        looks = self.watched.looks
        return (len(looks) - 1) * LOOK_EVERY / (looks[-1] - looks[0])


def measure(bench: Bench, rounds: int) -> tuple[list[Change], list[tuple[Cost, Cost]], list[Change]]:
    """Return the updates, the costs of promotions without changes (by the hook, by plain calls), and the rollbacks."""
    updates, nothing, rollbacks = [], [], []
    first = bench.register()
    for name in (MODEL, PLAIN):
        HsmlHook().deploy_model(MODEL, first, deployment_name=name)
    for _ in range(rounds):
        version = bench.register()
        watched = Watched()
        ours = bench.cost(functools.partial(watched.hook.deploy_best_model, MODEL, "accuracy", "max"))
        rolling = bench.put(version)
        updates.append(Change(ours, rolling, watched))

        ours = bench.cost(functools.partial(HsmlHook().deploy_best_model, MODEL, "accuracy", "max"))
        nothing.append((ours, bench.cost(bench.check)))

        watched = Watched()
        ours = bench.cost(functools.partial(watched.hook.rollback_deployment, MODEL))
        rolling = bench.roll_back(to=1, serves=first)
        rollbacks.append(Change(ours, rolling, watched))
    return updates, nothing, rollbacks


def main(rounds: int = 3) -> None:
    """Run the measurements, and print the ratios and the goals."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        serving = stack.enter_context(LocalServing(engine=load, speeds=Speeds.of_a_cluster()))
        os.environ["AIRFLOW_CONN_HSML_DEFAULT"] = serving.connection
        updates, nothing, rollbacks = measure(Bench(serving, folder), rounds)
    goals = []
    for kind, changes in (("update", updates), ("rollback", rollbacks)):
        ours, plain, allowed = (
            statistics.median(column)
            for column in zip(*((c.ours.seconds, c.plain, c.allowed) for c in changes), strict=True)
        )
        ratio = statistics.median(change.ours.seconds / change.plain for change in changes)
        sent, besides = max(change.ours.requests for change in changes), max(change.besides_looks for change in changes)
        print(
            f"{kind}: {ours:.1f} s and {sent} requests, {besides} without the looks, {plain:.1f} s by plain calls: "
            f"{ratio:.1f} times that; may take {allowed:.1f} s",
        )
        over = statistics.median(change.ours.seconds - change.allowed for change in changes) + MARGIN
        looks = max(change.looks_in_time for change in changes)
        goals += [
            goal(f"{kind}, beyond the rollout and the settle time or the probes", over, "s", at_most=MARGIN),
            goal(f"{kind}, requests besides the looks", besides, "requests", at_most=MOST_REQUESTS),
            goal(f"{kind}, looks for each {LOOK_EVERY:g} s", looks, "looks", at_most=1),
        ]
    ours, plain = (statistics.median(each.seconds for each in column) for column in zip(*nothing, strict=True))
    reads, probes, writes = (max(getattr(cost, name) for cost, _ in nothing) for name in ("reads", "probes", "writes"))
    print(
        f"no change needed: {1000 * ours:.0f} ms, {reads} reads, {probes} probes, {writes} writes; "
        f"{1000 * plain:.0f} ms and {nothing[0][1].requests} requests by plain calls: {ours / plain:.1f} times that",
    )
    goals += [
        goal("reads when no change is needed", reads, "requests", at_most=MOST_READS),
        goal("probes then", probes, "requests", at_most=1),
        goal("writes then", writes, "requests", at_most=0),
    ]
    print(json.dumps({"goals": goals}))


def goal(name: str, value: float, unit: str, *, at_most: float) -> dict[str, Any]:
    """Return a goal, and whether it is met."""
    return {"name": name, "value": round(value, 2), "unit": unit, "goal": at_most, "met": value <= at_most}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
