"""What a cell works on: a project of its own in a server that it shares, and plain requests to prepare and to judge."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from airflow_provider_hsml.hopsworks.errors import BUSY_CODES
from airflow_provider_hsml.local import LocalServing
from tests.conftest import run_model

from .pace import SPEEDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.local.world.holdings import Holdings

KEY = "faults.Qx7Rk2Vw9Zt4Lm1Jh8"
NEXT_KEY = "faults.Ny3Bc6Df5Gp0Sa8Ke2"
SECRETS = (KEY, NEXT_KEY)
ROWS = [[0.0], [1.0]]
SETTLES_WITHIN = 10.0
_numbers = itertools.count()


class Trap:
    """A port of another program: it counts the requests that come, for none may."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._listen, name="trap", daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    connection.settimeout(1)
                    with contextlib.suppress(OSError):
                        self.heard.append(connection.recv(4096))


class Server:
    """
    A server of one line, with many projects.

    :param line: of Hopsworks
    :param projects: how many
    """

    def __init__(self, line: str, projects: int, trap: Trap) -> None:
        self.line = line
        self.trap = trap
        self.names = [f"faults{number:03d}" for number in range(projects)]
        self.serving = LocalServing(
            project=self.names, api_key=KEY, hopsworks_version=line, engine=run_model, speeds=SPEEDS
        )
        self.serving.start()
        self.port = int(self.serving.url.rpartition(":")[2])
        self.ingress_port = int(self.serving.ingress_url.rpartition(":")[2])

    def close(self) -> None:
        self.serving.stop()


@dataclass(frozen=True, slots=True)
class Stored:
    """What the server has stored of a project, as far as an operation changes it."""

    deployments: dict[int, tuple[Any, ...]]
    """By id: name, version, whether it is started, revision, the version of the model, a hash of the settings."""
    models: frozenset[int]
    executions: frozenset[int] = frozenset()

    def effect(self, after: Stored) -> str:
        """Name what has changed since; empty for nothing."""
        for number in after.deployments.keys() - self.deployments.keys():
            return f"create:{after.deployments[number][4]}"
        if self.deployments.keys() - after.deployments.keys():
            return "delete"
        for number, new in after.deployments.items():
            old = self.deployments[number]
            if old != new:
                return _change(old, new)
        if after.executions - self.executions:
            return "run"
        if self.models != after.models:
            new_ones = after.models - self.models
            return f"register:{max(new_ones)}" if new_ones else f"unregister:{max(self.models - after.models)}"
        return ""


def _change(old: tuple[Any, ...], new: tuple[Any, ...]) -> str:
    if old[2] != new[2]:
        return "start" if new[2] else "stop"
    return f"put:{new[4]}" if (old[1], old[5]) != (new[1], new[5]) else "start"


@dataclass(eq=False)
class Plot:
    """
    A project of a server, and the names of a cell in it.

    :param server: shared with other cells
    :param number: which of its projects
    """

    server: Server
    number: int
    name: str = ""
    key: str = KEY
    next_key: str = NEXT_KEY
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="faults-")))
    later: list[threading.Timer] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    """What an operation remembers of its preparation."""

    def __post_init__(self) -> None:
        self.name = self.name or f"m{next(_numbers):07d}x"
        (self.folder / "model").mkdir(exist_ok=True)

    @property
    def project(self) -> str:
        return self.server.names[self.number]

    @property
    def project_id(self) -> int:
        return self.server.serving.world.accounts.projects[self.number].id

    @property
    def holdings(self) -> Holdings:
        return self.server.serving.world.project(self.project_id)

    # --- Plain requests

    def rest(self, method: str, path: str, body: Any = None, **query: Any) -> requests.Response:
        url = f"http://127.0.0.1:{self.server.port}/hopsworks-api/api/project/{self.project_id}/{path}"
        headers = {"Authorization": f"ApiKey {self.key}"}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, url, params=query, json=body, headers=headers, timeout=30)

    def register(
        self, version: int, *, answer: int | None = None, recorded: int | None = None, **metrics: float
    ) -> None:
        """
        Register a version of the model.

        :param answer: what it answers; None: eleven times its number
        :param recorded: what it is recorded to answer; None: the same
        """
        answer = 11 * version if answer is None else answer
        content = json.dumps({"answer": answer}).encode()
        expected = {"instances": ROWS, "predictions": [answer if recorded is None else recorded] * len(ROWS)}
        self.holdings.files.write(
            f"Models/{self.name}/{version}/expected.json",
            json.dumps(expected).encode(),
        )
        self.server.serving.world.register_model(
            self.name,
            {"model.joblib": content},
            version=version,
            metrics=metrics or {"auc": 0.5 + version / 100},
            input_example=ROWS,
            project=self.project,
        )

    def deploy(self, version: int, *, starts: bool = True) -> None:
        """Create a deployment as another client, and start it."""
        body = {
            "name": self.name,
            "modelName": self.name,
            "modelPath": f"/Projects/{self.project}/Models/{self.name}",
            "modelVersion": version,
            "modelFramework": "SKLEARN",
            "modelServer": "PYTHON",
            "servingTool": "KSERVE",
            "requestedInstances": 1,
        } | ({"artifactVersion": -1} if self.server.line == "3.7" else {})
        created = self.rest("PUT", "serving", body)
        assert created.status_code == 201, created.text
        self.until("Created")
        if starts:
            self.start()
            self.settle()

    def start(self) -> None:
        row = self.row()
        assert row is not None
        while not (answer := self.rest("POST", f"serving/{row['id']}", action="START")).ok:
            assert answer.json().get("errorCode") in BUSY_CODES, answer.text
            time.sleep(0.2)

    def soon(self, seconds: float, act: Callable[[], object]) -> None:
        """Have something happen later, unless the cell has ended by then."""
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        self.later.append(timer)
        timer.start()

    # --- What there is

    def stored(self) -> Stored:
        found = {}
        for number, row in self.holdings.deployments.stored.all():
            config = json.dumps(row["config"], sort_keys=True, default=str)
            found[number] = (
                *(row["name"], row["version"], row["isWanted"], row["revision"], row["config"]["modelVersion"]),
                hashlib.sha256(config.encode()).hexdigest(),
            )
        return Stored(found, frozenset(self.versions()), frozenset(row["id"] for row in self.executions()))

    def executions(self) -> list[dict[str, Any]]:
        """Return the executions of all jobs."""
        jobs = self.holdings.jobs
        return [row for job in jobs.all() for row in jobs.executions.find(job, "id:asc")]

    def versions(self) -> list[int]:
        """Return the registered versions of the model."""
        rows = self.holdings.registry.find([f"name_eq:{self.name}"]).get("items", [])
        return sorted(row["version"] for row in rows)

    def rows(self) -> list[dict[str, Any]]:
        return self.holdings.deployments.all_shown()

    def row(self) -> dict[str, Any] | None:
        return next((row for row in self.rows() if row["name"] == self.name), None)

    def until(self, *statuses: str) -> dict[str, Any]:
        deadline = time.monotonic() + SETTLES_WITHIN
        while True:
            row = self.row() or {"status": None}
            if row["status"] in statuses:
                return row
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name}: {row['status']} and not {statuses}")
            time.sleep(0.03)

    def settle(self) -> dict[str, Any] | None:
        """Wait until nothing is under way any more, and return the deployment; None without one."""
        deadline = time.monotonic() + SETTLES_WITHIN
        seen: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            seen = self.row()
            if seen is None or seen["status"] in ("Created", "Stopped", "Failed"):
                return seen
            is_routed = self.server.serving.world.cluster.traffic.is_routed(seen["id"])
            if seen["status"] in ("Running", "Idle") and seen["answering"] == seen["modelVersion"] and is_routed:
                return seen
            time.sleep(0.03)
        return seen

    def answer(self) -> Any:
        """Ask the model: its answer, or the status of the refusal."""
        asked = self.rest("POST", f"inference/models/{self.name}:predict", {"instances": ROWS[:1]})
        return asked.json()["predictions"][0] if asked.status_code == 200 else f"HTTP {asked.status_code}"

    def files(self, path: str) -> dict[str, int]:
        """Return the files below a path with their sizes."""
        root = self.holdings.files.here(path)
        found = (file for file in root.rglob("*") if file.is_file()) if root.exists() else ()
        return {str(file.relative_to(root)): file.stat().st_size for file in found}

    def folders(self, path: str) -> list[str]:
        root = self.holdings.files.here(path)
        return sorted(file.name for file in root.iterdir()) if root.exists() else []

    def empty_versions(self) -> list[str]:
        """Return the folders of versions that are not registered and have no files."""
        registered = set(map(str, self.versions()))
        folders = self.folders(f"Models/{self.name}")
        return [each for each in folders if each not in registered and not self.files(f"Models/{self.name}/{each}")]

    def clear(self) -> None:
        """Leave nothing behind: another cell gets the project."""
        for timer in self.later:
            timer.cancel()
        self.holdings.deployments.lifecycle.clear()
        self.holdings.jobs.clear()
        for version in self.versions():
            self.holdings.registry.delete(f"{self.name}_{version}")
        for path in (f"Models/{self.name}", "Resources/airflow-provider-hsml"):
            if self.holdings.files.exists(path):
                self.holdings.files.delete(path)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- Somebody else

    def disturb(self, what: str) -> None:
        """Change the deployment as another client, if there is one that can be changed at this moment."""
        response = self.rest("GET", "serving", name=self.name)
        if response.status_code != 200:
            return
        row = response.json()
        number = row["id"]
        match what:
            case "scales":
                scaled: dict[str, Any] = {"requestedInstances": 2}
                if row.get("predictorScalingConfig"):
                    scaled["predictorScalingConfig"] = {**row["predictorScalingConfig"], "minInstances": 2}
                done = self.rest("PUT", "serving", row | scaled)
            case "stops":
                done = self.rest("POST", f"serving/{number}", action="STOP")
            case "deletes":
                done = self.rest("DELETE", f"serving/{number}")
            case _:
                done = self.rest("PUT", "serving", row | {"modelVersion": self.notes.get("theirs", 1)})
        if done.ok:
            self.notes.setdefault("disturbed", []).append(what)
