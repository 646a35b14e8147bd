"""
What a promotion costs: its requests and its seconds, next to the same done by plain calls.

Run: python benchmarks/promotion.py [rounds]. A local Model Serving with the ways and the pace of a cluster runs Python
functions as models, each of which takes a while to load. In each round one version takes another one's place, nothing
is to be done, and what was there is brought back: by the hook, as a task does it (registry, gate, journal, change,
verification), and on another deployment by plain calls: a PUT or a rollback, and predictions ten times a second until
only the right version answers. That time is the server's own rollout, which nobody can do without.

Requests are counted by the server. A change by the hook may take the server's own rollout, the time that the state has
to be stable, the probes, another look at the instances' names where there was one, and 2 s.
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
"""Seconds that a model takes to load: as KServe's server with scikit-learn does."""
MARGIN = 2.0
MOST_READS = 8
BETWEEN = 0.1
QUIET = 3.0
"""Seconds without an answer of another version, after which the right one is taken to be alone."""


def load(model: ModelFiles) -> Callable[[Any], list[Any]]:
    """Load a model, which answers its version for each row."""
    time.sleep(LOADING)
    return lambda rows: [model.version for _ in rows]


@dataclass
class Watched:
    """A hook as a task has it, and what is seen of what it is told."""

    hook: HsmlHook = field(default_factory=HsmlHook)
    saw_transition: bool = False
    logs: int = 0

    def __post_init__(self) -> None:
        """Listen."""
        send = self.hook.client.send

        def listen(call: Any, *given: Any, **named: Any) -> Any:
            answer = send(call, *given, **named)
            self.saw_transition |= isinstance(answer, Deployment) and answer.status in (
                Status.UPDATING,
                Status.STARTING,
            )
            self.logs += call.path.endswith("/logs")
            return answer

        self.hook.client.send = listen  # type: ignore[method-assign]

    def allowed(self, rolling: float) -> float:
        """
        Give the seconds that a change may take.

        :param rolling: seconds of the server's own rollout
        """
        settle = rollout_tracker.SETTLE_SEEN if self.saw_transition else rollout_tracker.SETTLE_UNSEEN
        probing = (probe.PROBES - 1) * predict.BETWEEN_PROBES
        # Names are read once before and once afterwards; from the third time on they were waited for.
        names = max(0, self.logs - 2) * rollout_tracker.NAMES_AGAIN
        return rolling + settle + probing + names + MARGIN


@dataclass(frozen=True, slots=True)
class Cost:
    """What something cost."""

    seconds: float
    reads: int
    probes: int
    writes: int

    @property
    def requests(self) -> int:
        """All of them."""
        return self.reads + self.probes + self.writes


class Bench:
    """The server, and both ways to ask it."""

    def __init__(self, serving: LocalServing, folder: Path) -> None:
        self._serving = serving
        self._folder = folder
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"ApiKey {serving.api_key}"
        self._api = f"{serving.url}/hopsworks-api/api/project/{serving.project_id}"

    def cost(self, act: Callable[[], object]) -> Cost:
        """Do something, and tell what it cost."""
        self._serving.requests.clear()
        begun = time.perf_counter()
        act()
        seconds = time.perf_counter() - begun
        asked = list(self._serving.requests)
        reads = sum(one.method == "GET" for one in asked)
        probes = sum(one.path.endswith(":predict") for one in asked)
        return Cost(seconds, reads, probes, len(asked) - reads - probes)

    def register(self) -> int:
        """Register a version that is better than all before, and give its number."""
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

    def ask(self, method: str, path: str, **given: Any) -> requests.Response:
        """Send a request below the project."""
        answer = self._session.request(method, f"{self._api}/{path}", timeout=60, **given)
        answer.raise_for_status()
        return answer

    def row(self) -> dict[str, Any]:
        """Read the deployment."""
        row: dict[str, Any] = self.ask("GET", "serving", params={"name": PLAIN}).json()
        return row

    def answering(self) -> int:
        """Ask for a prediction, and give the version in the process that answers."""
        answer = self.ask("POST", f"inference/models/{PLAIN}:predict", json={"instances": [[0.0]]})
        return int(answer.headers[VERSION_HEADER])

    def look(self) -> None:
        """Look which versions there are, which one is served, and whether it answers."""
        self.ask("GET", f"modelregistries/{self._serving.project_id}/models", params={"filter_by": f"name_eq:{MODEL}"})
        self.row()
        self.answering()

    def put(self, version: int) -> float:
        """Have it serve another version; gives the seconds until nothing else answers any more."""
        row = self.row()
        begun = time.perf_counter()
        self.ask("PUT", "serving", params={"newVersion": "true"}, json=row | {"modelVersion": version})
        return self._alone(version) - begun

    def roll_back(self, *, to: int, serves: int) -> float:
        """Roll it back to a version of its own, which serves a version of the model; gives the seconds."""
        number = self.row()["id"]
        begun = time.perf_counter()
        self.ask("POST", f"serving/{number}/rollback", json={"version": to})
        return self._alone(serves) - begun

    def _alone(self, version: int) -> float:
        """Wait until one version alone answers; gives when that began."""
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
    """Seconds, which are the server's own rollout."""
    allowed: float
    """Seconds that ours may take."""


def measure(bench: Bench, rounds: int) -> tuple[list[Change], list[tuple[Cost, Cost]], list[Change]]:
    """Give the updates, what it costs that nothing is to be done (by the hook, by plain calls), and the rollbacks."""
    updates, nothing, rollbacks = [], [], []
    first = bench.register()
    for name in (MODEL, PLAIN):
        HsmlHook().deploy_model(MODEL, first, deployment_name=name)
    for _ in range(rounds):
        version = bench.register()
        watched = Watched()
        ours = bench.cost(functools.partial(watched.hook.deploy_best_model, MODEL, "accuracy"))
        rolling = bench.put(version)
        updates.append(Change(ours, rolling, watched.allowed(rolling)))

        ours = bench.cost(functools.partial(HsmlHook().deploy_best_model, MODEL, "accuracy"))
        nothing.append((ours, bench.cost(bench.look)))

        watched = Watched()
        ours = bench.cost(functools.partial(watched.hook.rollback_deployment, MODEL))
        rolling = bench.roll_back(to=1, serves=first)
        rollbacks.append(Change(ours, rolling, watched.allowed(rolling)))
    return updates, nothing, rollbacks


def main(rounds: int = 3) -> None:
    """Measure, and print the ratios and the goals."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        serving = stack.enter_context(LocalServing(engine=load, speeds=Speeds.of_a_cluster()))
        os.environ["AIRFLOW_CONN_HSML_DEFAULT"] = serving.connection
        updates, nothing, rollbacks = measure(Bench(serving, folder), rounds)
    goals = []
    for what, changes in (("update", updates), ("rollback", rollbacks)):
        ours, plain, allowed = (
            statistics.median(column)
            for column in zip(*((c.ours.seconds, c.plain, c.allowed) for c in changes), strict=True)
        )
        ratio = statistics.median(change.ours.seconds / change.plain for change in changes)
        asked = statistics.median(change.ours.requests for change in changes)
        print(
            f"{what}: {ours:.1f} s and {asked:.0f} requests, {plain:.1f} s by plain calls: {ratio:.1f} times that; "
            f"may take {allowed:.1f} s",
        )
        over = statistics.median(change.ours.seconds - change.allowed for change in changes) + MARGIN
        goals.append(goal(f"{what}, beyond the rollout, the settle time and the probes", over, "s", at_most=MARGIN))
    ours, plain = (statistics.median(each.seconds for each in column) for column in zip(*nothing, strict=True))
    reads, probes, writes = (max(getattr(cost, kind) for cost, _ in nothing) for kind in ("reads", "probes", "writes"))
    print(
        f"nothing to be done: {1000 * ours:.0f} ms, {reads} reads, {probes} probes, {writes} writes; "
        f"{1000 * plain:.0f} ms and {nothing[0][1].requests} requests by plain calls: {ours / plain:.1f} times that",
    )
    goals += [
        goal("reads when nothing is to be done", reads, "requests", at_most=MOST_READS),
        goal("probes then", probes, "requests", at_most=1),
        goal("writes then", writes, "requests", at_most=0),
    ]
    print(json.dumps({"goals": goals}))


def goal(name: str, value: float, unit: str, *, at_most: float) -> dict[str, Any]:
    """Say whether a goal is met."""
    return {"name": name, "value": round(value, 2), "unit": unit, "goal": at_most, "met": value <= at_most}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
