"""
Servers that are killed with -9 at a request and come back: a small group, each with a server of its own.

What they carried out cannot be asked of a process that is dead. So the end is judged: what serves and what it answers,
how many deployments and versions there are, and that each file is whole.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from airflow_provider_hsml.operators import (
    DeleteDeploymentOperator,
    DeployModelOperator,
    RegisterModelOperator,
    StopDeploymentOperator,
)
from tests.support.tasks import FakeTaskInstance, execute

from . import judge
from .cell import Outcome
from .pace import POLL, hurried
from .plot import KEY, ROWS, Stored
from .proxy import Loop, Position, Proxy, Rule
from .witness import full_text, has_key, listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from .proxy import Caller, Exchange

_PROGRAM = Path(__file__).parents[1] / "support" / "kill_server.py"
_AT_ONCE = 4
_PROJECT_ID = 119
_SETTLES_WITHIN = 20.0


@dataclass(eq=False)
class Mortal:
    """A server in a process of its own, and plain requests to it. For a proxy, both the plot and its server."""

    root: Path
    name: str
    key: str = KEY
    next_key: str = ""
    project: str = "example"
    port: int = 0
    ingress_port: int = 0
    deaths: int = 0
    process: subprocess.Popen[str] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def server(self) -> Mortal:
        return self

    def stored(self) -> Stored:
        return Stored({}, frozenset())

    def start(self) -> None:
        with (self.root.parent / "stderr").open("a") as said:
            self.process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), str(self.root), "--port", str(self.port)],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, "HSML_LOCAL_API_KEY": KEY},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.root.parent / "stderr").read_text()[-2000:]
        self.port = int(json.loads(line)["url"].rpartition(":")[2])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def die(self) -> None:
        """Be killed, and come back."""
        with self.lock:
            self.deaths += 1
            self.kill()
            self.start()

    def rest(self, method: str, path: str, body: Any = None, **query: Any) -> requests.Response:
        url = f"http://127.0.0.1:{self.port}/hopsworks-api/api/project/{_PROJECT_ID}/{path}"
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"ApiKey {self.key}"}
            return session.request(method, url, params=query, json=body, headers=headers, timeout=30)

    def row(self) -> dict[str, Any] | None:
        answer = self.rest("GET", "serving", name=self.name)
        return answer.json() if answer.status_code == 200 else None

    def versions(self) -> list[int]:
        found = self.rest("GET", f"modelregistries/{_PROJECT_ID}/models", filter_by=f"name_eq:{self.name}").json()
        return sorted(row["version"] for row in found.get("items", []))

    def listed(self, path: str) -> list[str]:
        """Return the names in a folder of the project."""
        found = self.rest("GET", f"dataset/{path}", action="listing").json()
        return sorted(entry["attributes"]["name"] for entry in found.get("items", []))

    def says(self) -> Any:
        asked = self.rest("POST", f"inference/models/{self.name}:predict", {"instances": ROWS[:1]})
        return asked.json()["predictions"][0] if asked.status_code == 200 else f"HTTP {asked.status_code}"


@dataclass(frozen=True, slots=True)
class _Scene:
    """An operation of this group: its preparation by the provider itself, its task, and its end."""

    prepare: tuple[int, ...]
    """The versions that are registered before, the last of which is deployed if any is."""
    make: Callable[[Mortal, Path, str], Any]
    end: Callable[[Mortal], list[str]]
    calls: tuple[str, ...]
    """The requests at which the server is killed."""


def _register(mortal: Mortal, folder: Path, connection: str, version: int = 1) -> RegisterModelOperator:
    return RegisterModelOperator(
        task_id=f"register{version}",
        hsml_conn_id=connection,
        model_name=mortal.name,
        model_path=str(folder),
        framework="SKLEARN",
        metrics={"auc": 0.9},
        input_example=ROWS,
        expected={"instances": ROWS, "predictions": [version] * 2},
    )


def _deploy(mortal: Mortal, connection: str, version: int) -> DeployModelOperator:
    return DeployModelOperator(
        task_id=f"deploy{version}",
        hsml_conn_id=connection,
        model_name=mortal.name,
        model_version=version,
        deployment_name=mortal.name,
        timeout=40,
        poll_interval=POLL,
    )


def _serves(mortal: Mortal, version: int) -> list[str]:
    deadline = time.monotonic() + _SETTLES_WITHIN
    while True:
        row = mortal.row()
        state = row and (row["status"], row["modelVersion"], mortal.says())
        if state == ("Running", version, version):
            break
        if time.monotonic() > deadline:
            return [f"status, version and answer are {state}: expected version {version}"]
        time.sleep(0.1)
    assert row is not None
    kept = mortal.rest("GET", f"serving/{row['id']}/versions").json()["count"]
    return [] if kept <= version else [f"the deployment has {kept} versions: the change was stored twice"]


def _registered(mortal: Mortal) -> list[str]:
    folders = mortal.listed(f"Models/{mortal.name}")
    one = (mortal.versions(), folders) == ([1], ["1"])
    # The server died after it had made the folder of version 1: its maker cannot know that it is its own.
    two = (mortal.versions(), folders, mortal.listed(f"Models/{mortal.name}/1")) == ([2], ["1", "2"], [])
    return [] if one or two else [f"versions {mortal.versions()}, folders {folders}"]


def _is_down(mortal: Mortal) -> list[str]:
    row = mortal.row()
    return [] if row is not None and row["status"] in ("Stopped", "Created") else [f"it is {row and row['status']}"]


_GETS = "GET project/{id}/serving?name="
_COMMAND = "POST project/{id}/serving/{id}?action="
_SCENES = {
    "register": _Scene(
        (),
        _register,
        _registered,
        (
            "POST project/{id}/dataset/Models%2F{name}%2F1?action=create",
            "POST project/{id}/dataset/upload/Models%2F{name}%2F1",
            "PUT project/{id}/modelregistries/{id}/models/{name}_1",
        ),
    ),
    "create": _Scene(
        (1,),
        lambda mortal, _folder, connection: _deploy(mortal, connection, 1),
        lambda mortal: _serves(mortal, 1),
        ("PUT project/{id}/serving", f"{_COMMAND}START"),
    ),
    "update": _Scene(
        (1, 2),
        lambda mortal, _folder, connection: _deploy(mortal, connection, 2),
        lambda mortal: _serves(mortal, 2),
        (_GETS, "PUT project/{id}/serving", "POST project/{id}/inference/models/{name}:predict"),
    ),
    "stop": _Scene(
        (1,),
        lambda mortal, _folder, connection: StopDeploymentOperator(
            task_id="stop", hsml_conn_id=connection, deployment_name=mortal.name, timeout=40, poll_interval=POLL
        ),
        _is_down,
        (f"{_COMMAND}STOP",),
    ),
    "delete": _Scene(
        (1,),
        lambda mortal, _folder, connection: DeleteDeploymentOperator(
            task_id="delete", hsml_conn_id=connection, deployment_name=mortal.name, force=True
        ),
        lambda mortal: [] if mortal.row() is None else ["it exists"],
        ("DELETE project/{id}/serving/{id}",),
    ),
}


@dataclass(frozen=True, slots=True)
class _Death:
    """A fault of this group."""

    name: str
    act: Callable[[Proxy, Exchange, Caller], Any]
    times: float = 1
    prepares: str = ""
    seconds: float = 0.0
    is_client: bool = False


def _dies(*, after: bool) -> Callable[[Proxy, Exchange, Caller], Any]:
    async def act(proxy: Proxy, exchange: Exchange, caller: Caller) -> bool:
        if after:
            await proxy.forward(exchange)
        mortal: Any = proxy.plot
        await asyncio.to_thread(mortal.die)
        caller.reset()
        return False

    return act


DEATHS = {name: _Death(name, _dies(after=name == "after")) for name in ("before", "after")}


def names() -> list[str]:
    """Return the names of all cells of the group."""
    return [
        f"killed/{name}/{call} #1/{death}"
        for name, scene in _SCENES.items()
        for call in scene.calls
        for death in DEATHS
    ]


def play_all(seed: int) -> list[Outcome]:
    """Play the group."""
    chosen = names()
    random.Random(seed).shuffle(chosen)  # noqa: S311 - chance, not cryptography
    with ThreadPoolExecutor(_AT_ONCE) as threads, hurried(), listening():
        return list(threads.map(_played, chosen))


def play(name: str) -> Outcome:
    with hurried(), listening():
        return _played(name)


def _played(name: str) -> Outcome:
    begun = time.monotonic()
    operation, _, rest = name.removeprefix("killed/").partition("/")
    at, _, death = rest.rpartition("/")
    call, _, number = at.rpartition(" #")
    outcome = Outcome(name, operation, f"killed {death}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-killed-")))
        mortal = Mortal(folder / "root", f"k{abs(hash(name)) % 10**8:08d}x")
        loop = Loop("killed")
        stack.callback(loop.close)
        try:
            mortal.start()
            stack.callback(mortal.kill)
            _play(mortal, folder, loop, _SCENES[operation], Position(call, int(number)), DEATHS[death], outcome)
        except Exception as error:  # noqa: BLE001 - the cell is lost, and the others go on
            outcome.problems.append(f"the cell itself failed: {full_text(error)[-1500:]}")
    outcome.seconds = time.monotonic() - begun
    return outcome


def _play(
    mortal: Mortal, folder: Path, loop: Loop, scene: _Scene, at: Position, death: _Death, outcome: Outcome
) -> None:
    connection = f"faults_killed_{mortal.name}"
    variable = f"AIRFLOW_CONN_{connection.upper()}"
    model = folder / "model"
    model.mkdir()
    (model / "model.joblib").write_text("{}")
    fault: Any = death
    plot: Any = mortal

    def connect(port: int) -> None:
        extra = {"project": mortal.project, "request_timeout": 3, "write_timeout": 3}
        fields = {"conn_type": "hsml", "host": "http://127.0.0.1", "port": port, "password": mortal.key, "extra": extra}
        os.environ[variable] = json.dumps(fields)

    connect(mortal.port)
    for version in scene.prepare:
        execute(_register(mortal, model, connection, version), FakeTaskInstance())
    for version in scene.prepare[:1] if scene is not _SCENES["create"] else ():
        execute(_deploy(mortal, connection, version), FakeTaskInstance())
    proxy = Proxy(plot, Rule(fault, at, Position("", 0)))
    loop.run(proxy.open())
    connect(proxy.port)
    try:
        outcome.problems += _tries(lambda: scene.make(mortal, model, connection), outcome)
    finally:
        loop.run(proxy.close())
    outcome.exchanges = [str(exchange) for exchange in proxy.exchanges]
    outcome.is_met = mortal.deaths > 0
    if not outcome.is_met:
        outcome.problems.append(f"the server was not killed: {outcome.exchanges}")
    outcome.problems += scene.end(mortal)


def _tries(make: Callable[[], Any], outcome: Outcome) -> list[str]:
    """Run a task, and again if it failed."""
    run, cleared = f"run-{outcome.name}", 0
    for _ in range(2):
        try:
            result = execute(make(), FakeTaskInstance(run_id=run, max_tries=cleared))
        except Exception as error:  # noqa: BLE001 - judged here
            outcome.ends.append(f"{type(error).__name__}: {error}"[:300])
            if not judge.is_ours(error):
                return [f"the error is not the provider's: {full_text(error)[-800:]}"]
            if has_key(full_text(error)):
                return ["the key is in a text"]
            cleared += judge.is_permanent(error)
        else:
            outcome.ends.append(f"green {judge.shown(result)}")
            return []
    return ["it does not complete once the server is back"]
