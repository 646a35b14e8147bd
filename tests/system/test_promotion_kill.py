"""Real workers, killed by SIGKILL while they change what a real model server serves, under the eyes of its users."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_hsml.hooks import HsmlHook

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kserve, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NAME = "killed"
ROWS = [[0.0], [10.0]]
ANSWERS = {1: ["small", "large"], 2: ["klein", "gross"], 3: ["wrong", "answers"]}
BAD = 3


@contextlib.contextmanager
def _program(name: str, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of the programs in `tests/support`; it ends with its standard input."""
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.support.{name}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
    ) as process:
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(60)


@dataclass
class Prober:
    """Asks a deployment again and again, as its users do, and counts what fails."""

    url: str
    headers: dict[str, str]
    asked: int = 0
    failed: list[str] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until the end."""
        with requests.Session() as session:
            session.trust_env = False
            while not self._done.is_set():
                answer = session.post(self.url, json={"instances": ROWS}, headers=self.headers, timeout=60, verify=True)
                self.asked += 1
                if not answer.ok:
                    self.failed.append(f"{time.time():.1f} {answer.status_code} {answer.text[:200]}")
                time.sleep(0.02)

    @contextlib.contextmanager
    def asking(self) -> Iterator[Prober]:
        """Ask in the background."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield self
        finally:
            self._done.set()
            thread.join()


@dataclass
class Scene:
    """A server, workers, and a hook to look with."""

    worker: subprocess.Popen[str]
    url: str
    hook: HsmlHook
    starts: int = 0
    """STARTs that the server took of the workers."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"ApiKey {self.hook.access.key}"}

    def work(self, verb: str, points: int | None = None, **arguments: Any) -> dict[str, Any]:
        """Do a task in a process of its own; tell how it ended."""
        task = {"verb": verb, "arguments": {"timeout": 120.0, "poll_interval": 0.5} | arguments, "points": points}
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        self.worker.stdin.write(json.dumps(task) + "\n")
        self.worker.stdin.flush()
        ended: dict[str, Any] = json.loads(self.worker.stdout.readline())
        assert "broke" not in ended, "see what the worker wrote"
        self._count_starts()
        return ended

    def deploy(self, version: int, run: str, points: int | None = None, name: str = NAME) -> dict[str, Any]:
        return self.work(
            "deploy_model", points, model_name="killed", model_version=version, deployment_name=name, run_key=run
        )

    def best(self, versions: list[int], run: str, name: str = NAME) -> dict[str, Any]:
        return self.work(
            "deploy_best_model",
            model_name="killed",
            metric="auc",
            direction="max",
            candidates=versions,
            deployment_name=name,
            run_key=run,
        )

    def back(self, run: str, points: int | None = None) -> dict[str, Any]:
        return self.work("rollback_deployment", points, name=NAME, run_key=run)

    def answers(self, name: str = NAME) -> list[str]:
        """Ask the process itself, a few times: all must say the same."""
        found = {json.dumps(self.hook.predict(name, instances=ROWS)["predictions"]) for _ in range(5)}
        (said,) = found
        answer: list[str] = json.loads(said)
        return answer

    def _count_starts(self) -> None:
        """Read the server's requests, of which it does not keep all, and have it forget them."""
        told = f"{self.url}/_local/requests"
        asked = requests.get(f"{told}?method=POST", headers=self.headers, timeout=30, verify=True).json()["requests"]
        requests.delete(told, headers=self.headers, timeout=30, verify=True).raise_for_status()
        self.starts += sum("action=START" in one["query"] and one["status"] < 300 for one in asked)

    def prober(self) -> Prober:
        return Prober(self.hook.inference_url(NAME), self.headers)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server and a worker in processes of their own, and a model: two versions that are good, one that lies."""
    pytest.importorskip("sklearn")
    import joblib
    from sklearn.tree import DecisionTreeClassifier

    with (
        pytest.MonkeyPatch.context() as patch,
        _program("kserve_server", str(tmp_path_factory.mktemp("root"))) as server,
    ):
        assert server.stdout is not None
        url, connection = (server.stdout.readline().strip() for _ in range(2))
        patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", connection)
        hook = HsmlHook()
        for version, answers in ANSWERS.items():
            folder = tmp_path_factory.mktemp("model")
            joblib.dump(DecisionTreeClassifier(random_state=0).fit(ROWS, answers), folder / "model.joblib")
            told = ["right", "answers"] if version == BAD else answers
            hook.register_model(
                model_name="killed",
                model_path=folder,
                framework="SKLEARN",
                metrics={"auc": 0.5 + version / 10},
                input_example=ROWS,
                expected={"instances": ROWS, "predictions": told},
            )
        with _program("mortal_worker", AIRFLOW_CONN_HSML_DEFAULT=connection) as worker:
            yield Scene(worker, url, hook)


def test_a_create(scene: Scene) -> None:
    for points in itertools.count(1):
        name = f"create{points}"
        before = scene.starts
        ended = scene.deploy(1, "first", points, name)
        if "killed" not in ended:
            break
        then = scene.deploy(1, "first" if points % 2 else "second", name=name)
        print("create", points, ended["killed"], then["action"], scene.starts - before)

        assert then["action"] in {"created", "started", "attached", "unchanged"}
        assert scene.answers(name) == ANSWERS[1]
        assert scene.starts - before == 1
        assert len(scene.hook.get_deployments("killed")) == 1
        scene.hook.delete_deployment(name, force=True)
    scene.hook.delete_deployment(f"create{points}", force=True)
    assert points > 6


def test_an_update_and_a_challenger_that_fails(scene: Scene) -> None:
    """What serves answers all the while, and after the next run it is a version that was verified."""
    scene.deploy(1, "setup")
    starts = scene.starts
    with scene.prober().asking() as baseline:
        assert scene.deploy(2, "baseline")["action"] == "updated"
        assert scene.deploy(1, "baseline, back")["action"] == "updated"
    print("baseline", baseline.asked, baseline.failed)
    good = 1
    with scene.prober().asking() as prober:
        for points in itertools.count(1):
            other = 3 - good
            ended = scene.deploy(other, f"update {points}", points)
            good = other
            if "killed" not in ended:
                break
            then = scene.deploy(other, f"update {points}" if points % 2 else f"update {points} again")
            print("update", points, ended["killed"], then["action"], prober.asked, prober.failed)
            assert then["action"] in {"updated", "attached", "unchanged"}
            assert scene.answers() == ANSWERS[good]
        updates = points
        for points in itertools.count(1):
            ended = scene.deploy(BAD, f"bad {points}", points)
            if "killed" not in ended:
                assert ended["action"] == "rolled_back"
                break
            then = scene.best([good, BAD], f"bad {points}" if points % 2 else f"bad {points} again")
            print("bad", points, ended["killed"], then["action"], prober.asked, prober.failed)
            assert then["action"] in {"kept", "rolled_back"}
            assert scene.answers() == ANSWERS[good]
    assert updates > 4
    assert points > 7
    assert scene.answers() == ANSWERS[good]
    assert scene.starts == starts, "nothing was stopped"
    assert prober.asked > 100
    assert (baseline.failed, prober.failed) == ([], [])


def test_a_rollback_by_hand(scene: Scene) -> None:
    """Tried again, it goes back to where it was to go first, and not further."""
    scene.deploy(1, "before the hand")
    starts = scene.starts
    with scene.prober().asking() as prober:
        for points in itertools.count(1):
            scene.deploy(2, f"for hand {points}")
            ended = scene.back(f"hand {points}", points)
            if "killed" not in ended:
                assert ended["action"] == "rolled_back"
                break
            then = scene.back(f"hand {points}")
            print("by hand", points, ended["killed"], then["action"], prober.asked, prober.failed)
            assert then["action"] in {"rolled_back", "attached", "unchanged"}
            assert scene.answers() == ANSWERS[1]
    assert points > 4
    assert scene.answers() == ANSWERS[1]
    assert scene.starts == starts, "nothing was stopped"
    assert prober.asked > 100
    assert prober.failed == []
