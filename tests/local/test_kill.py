"""
What was acknowledged survives ``kill -9`` at any moment.

The real ``hsml-local serve`` is killed at random moments while several threads write. Each thread keeps its own
model of the world: what it wrote and got an answer for *must* be there afterwards; what was under way *may* be.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.local.conftest import deployment

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM = Path(__file__).parents[1] / "support" / "kill_server.py"
_KEY = "killed.secret"
_WRITERS = 4
_WRITES = {"mkdir", "upload", "PUT model", "DELETE", "PUT serving", "START", "STOP", "rollback"}
_NEVER = object()
"""What a thing is before it was ever written."""


@contextlib.contextmanager
def _served(root: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the server, and give its process and URL."""
    with (
        (root.parent / "stderr").open("a") as said,
        subprocess.Popen(
            [sys.executable, str(_PROGRAM), str(root)],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "HSML_LOCAL_API_KEY": _KEY},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, (root.parent / "stderr").read_text()[-2000:]
            yield process, json.loads(line)["url"]
        finally:
            process.kill()


@dataclass
class _Client:
    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False

    def ask(self, method: str, path: str, **arguments: Any) -> requests.Response:
        headers = {"Authorization": f"ApiKey {_KEY}"}
        url = f"{self.url}/hopsworks-api/api/project/119{path}"
        return self.session.request(method, url, headers=headers, timeout=30, verify=True, **arguments)


class _Writer:
    """
    Writes things of its own until the server is gone.

    ``may`` has, for each thing, the states that it may be in: one, or two while a write is not acknowledged.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(seed)  # noqa: S311 - chance, not cryptography
        self.may: dict[tuple[str, str], list[Any]] = {}
        self.acknowledged: collections.Counter[str] = collections.Counter()
        self.doubtful: collections.Counter[str] = collections.Counter()
        self._number = 0

    def write_until_gone(self, client: _Client) -> None:
        with contextlib.suppress(requests.RequestException):
            while True:
                self.random.choice(
                    [self.folder, self.upload, self.upload, self.model, self.delete, self.deployment, self.deployment]
                )(client)

    def send(self, what: str, thing: tuple[str, str], new: Any, client: _Client, *asked: str, **arguments: Any) -> Any:
        """Write once, and note what is so afterwards: for sure, or perhaps."""
        old = self.may.get(thing, [_NEVER])
        self.may[thing] = [*old, new]
        self.doubtful[what] += 1
        answer = client.ask(*asked, **arguments)
        self.doubtful[what] -= 1
        if answer.ok:
            self.may[thing] = [new]
            self.acknowledged[what] += 1
            return answer
        assert answer.status_code < 500 or answer.json()["errorCode"] in (240002, 240004), answer.text
        self.may[thing] = old
        return None

    def next(self) -> str:
        self._number += 1
        return f"{self.name}{self._number}"

    def folder(self, client: _Client) -> None:
        name = self.next()
        self.send("mkdir", ("folder", name), True, client, "POST", f"/dataset/Resources/{name}?action=create")

    def upload(self, client: _Client) -> None:
        """Upload a file in parts; it is there when the last part was acknowledged."""
        name, parts = self.next(), self.random.randint(1, 3)
        content = self.random.randbytes(parts * 1000)
        self.may["file", name] = [_NEVER, content]
        for number in range(1, parts + 1):
            form = {"flowIdentifier": name, "flowFilename": name, "flowChunkSize": "1000"}
            form |= {"flowChunkNumber": str(number), "flowTotalChunks": str(parts)}
            chunk = content[(number - 1) * 1000 : number * 1000]
            answer = client.ask("POST", "/dataset/upload/Resources", data=form, files={"file": (name, chunk)})
            assert answer.ok, answer.text
        self.may["file", name] = [content]
        self.acknowledged["upload"] += 1

    def model(self, client: _Client) -> None:
        name = self.next()
        for path in (f"Models/{name}", f"Models/{name}/1"):
            assert client.ask("POST", f"/dataset/{path}?action=create").ok
        body = {"framework": "PYTHON", "metrics": {"accuracy": self._number}}
        path = f"/modelregistries/119/models/{name}_1"
        self.send("PUT model", ("model", name), self._number, client, "PUT", path, json=body)

    def delete(self, client: _Client) -> None:
        kinds = {"file": "/dataset/Resources/{}", "folder": "/dataset/Resources/{}", "deployment": "/serving/{}"}
        there = [t for t, may in self.may.items() if t[0] in kinds and may != [None] and len(may) == 1]
        if there:
            thing = self.random.choice(there)
            name = self.may[thing][0]["id"] if thing[0] == "deployment" else thing[1]
            self.send("DELETE", thing, None, client, "DELETE", kinds[thing[0]].format(name))

    def deployment(self, client: _Client) -> None:
        """Create a deployment, or do the next thing with one."""
        mine = [t for t, may in self.may.items() if t[0] == "deployment" and len(may) == 1 and may[0] is not None]
        if len(mine) < 3:
            self.create(client)
            return
        thing = self.random.choice(mine)
        now = self.may[thing][0]
        path = f"/serving/{now['id']}"
        seen = client.ask("GET", path).json()
        match self.random.choice(["PUT", "START", "STOP", "rollback"]):
            case "PUT" if seen["status"] in ("Created", "Stopped", "Running", "Failed"):
                texts = {"predictorEnvVars": [f"TEXT={self.random.random()}"]}
                versions = {**now["versions"], len(now["versions"]) + 1: texts["predictorEnvVars"]}
                new = {**now, "versions": versions, "version": len(versions)}
                self.send("PUT serving", thing, new, client, "PUT", "/serving?newVersion=true", json=seen | texts)
            case "START" if seen["status"] in ("Created", "Stopped"):
                self.send("START", thing, {**now, "runs": True}, client, "POST", f"{path}?action=START")
            case "STOP" if seen["status"] in ("Running", "Failed", "Starting"):
                self.send("STOP", thing, {**now, "runs": False}, client, "POST", f"{path}?action=STOP")
            case "rollback" if seen["status"] in ("Created", "Stopped", "Running"):
                number = self.random.choice(list(now["versions"]))
                new = {**now, "version": number}
                self.send("rollback", thing, new, client, "POST", f"{path}/rollback", json={"version": number})

    def create(self, client: _Client) -> None:
        name = self.next()
        body = deployment(name, predictorEnvVars=["TEXT=first"])
        new = {"id": None, "runs": False, "version": 1, "versions": {1: ["TEXT=first"]}}
        if answer := self.send("PUT serving", ("deployment", name), new, client, "PUT", "/serving", json=body):
            self.may["deployment", name] = [{**new, "id": answer.json()["id"]}]

    # --- Afterwards

    def check(self, client: _Client) -> None:
        """Compare all that may be with what is; what was doubtful is known afterwards."""
        for thing, may in self.may.items():
            kind, name = thing
            seen = getattr(self, f"see_{kind}")(client, name)
            allowed = [None if state is _NEVER else state for state in may]
            assert any(_same(state, seen) for state in allowed), f"{thing}: {seen} is none of {allowed}"
            self.may[thing] = [seen]

    def see_folder(self, client: _Client, name: str) -> Any:
        answer = client.ask("GET", f"/dataset/Resources/{name}")
        assert answer.ok or answer.json()["errorCode"] == 110018
        return answer.ok or None

    def see_file(self, client: _Client, name: str) -> Any:
        answer = client.ask("GET", f"/dataset/download/with_auth/Resources/{name}")
        assert answer.ok or answer.json()["errorCode"] == 110018
        return answer.content if answer.ok else None

    def see_model(self, client: _Client, name: str) -> Any:
        answer = client.ask("GET", f"/modelregistries/119/models/{name}_1")
        assert answer.ok or answer.json()["errorCode"] == 360000
        return answer.json()["metrics"]["accuracy"] if answer.ok else None

    def see_deployment(self, client: _Client, name: str) -> Any:
        answer = client.ask("GET", f"/serving?name={name}")
        if not answer.ok:
            assert answer.json()["errorCode"] == 240000
            return None
        deadline = time.monotonic() + 30
        while (seen := answer.json())["status"] not in ("Created", "Stopped", "Running"):
            assert time.monotonic() < deadline, seen
            time.sleep(0.01)
            answer = client.ask("GET", f"/serving/{seen['id']}")
        items = client.ask("GET", f"/serving/{seen['id']}/versions").json()["items"]
        versions = {item["version"]: item["predictorEnvVars"] for item in reversed(items)}
        assert [item["version"] for item in items if item["active"]] == [seen["version"]]
        assert versions[seen["version"]] == seen["predictorEnvVars"], "the version that is active is the one told"
        if seen["status"] == "Running":
            while not (asked := client.ask("POST", f"/inference/models/{name}:predict", json={"instances": [[1]]})).ok:
                # As in a cluster, the route comes a little later.
                assert asked.json() == {"errorCode": 250008, "errorMsg": "Serving instance bad request."}
                assert time.monotonic() < deadline, "what says Running, runs"
            assert asked.json() == {"predictions": [1]}
        return {
            "id": seen["id"],
            "runs": seen["status"] == "Running",
            "version": seen["version"],
            "versions": versions,
        }


def _same(allowed: Any, seen: Any) -> bool:
    if isinstance(allowed, dict) and isinstance(seen, dict) and allowed["id"] is None:
        return allowed | {"id": seen["id"]} == seen
    return bool(allowed == seen)


def _kill_often(root: Path, kills: int) -> None:
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311
    writers = [_Writer(f"w{number}n", seed + number) for number in range(_WRITERS)]
    root.mkdir()
    leftovers = 0
    for kill in range(kills + 1):
        with _served(root) as (process, url):
            client = _Client(url)
            with client.session:
                if kill == 0:
                    for path in ("Models/digits", "Models/digits/1", "Models/digits/1/Files"):
                        assert client.ask("POST", f"/dataset/{path}?action=create").ok
                    form, file = {"flowFilename": "model.pkl"}, {"file": ("model.pkl", b"a pickle")}
                    assert client.ask("POST", "/dataset/upload/Models/digits/1/Files", data=form, files=file).ok
                leftovers = _check_is_swept(root)
                for writer in writers:
                    writer.check(client)
                if kill == kills:
                    break
                clients = [_Client(url) for _ in writers]
                threads = [
                    threading.Thread(target=writer.write_until_gone, args=[own])
                    for writer, own in zip(writers, clients, strict=True)
                ]
                for thread in threads:
                    thread.start()
                time.sleep(chance.uniform(0.02, 1.0))
                process.send_signal(signal.SIGKILL)
                for thread in threads:
                    thread.join(60)
                    assert not thread.is_alive()
                for own in clients:
                    own.session.close()
    acknowledged = sum((writer.acknowledged for writer in writers), collections.Counter())
    doubtful = sum((writer.doubtful for writer in writers), collections.Counter())
    print(f"{kills} kills; acknowledged and there: {dict(acknowledged)} ({acknowledged.total()} in all)")
    print(f"under way when it was killed: {dict(doubtful)}; unfinished uploads kept for a day: {leftovers}")
    assert acknowledged.total() > 10 * kills
    assert kills < 50 or set(acknowledged) == {
        "mkdir",
        "upload",
        "PUT model",
        "DELETE",
        "PUT serving",
        "START",
        "STOP",
        "rollback",
    }
    assert "Traceback" not in (root.parent / "stderr").read_text()


def _check_is_swept(root: Path) -> int:
    """Check that nothing half-done is left but uploads that may go on, and count these."""
    staging = root / "staging" / "example"
    assert [place.name for place in staging.iterdir()] == ["uploads"]
    return len(list((staging / "uploads").iterdir()))


def test_nothing_is_lost_in_five_kills(tmp_path: Path) -> None:
    _kill_often(tmp_path / "root", 5)


@pytest.mark.slow
def test_nothing_is_lost_in_a_hundred_kills(tmp_path: Path) -> None:
    _kill_often(tmp_path / "root", 100)


def test_an_upload_goes_on_after_a_kill(tmp_path: Path) -> None:
    content = b"one" + b"two" + b"3"
    (tmp_path / "root").mkdir()
    for number in (2, 1, 3):
        with _served(tmp_path / "root") as (process, url):
            client = _Client(url)
            with client.session:
                form = {"flowIdentifier": "7-x", "flowFilename": "x", "flowChunkSize": "3", "flowTotalChunks": "3"}
                form["flowChunkNumber"] = str(number)
                chunk = content[(number - 1) * 3 : number * 3]
                assert client.ask("POST", "/dataset/upload/Resources", data=form, files={"file": ("x", chunk)}).ok
                seen = client.ask("GET", "/dataset/download/with_auth/Resources/x")
                assert (seen.content if seen.ok else None) == (content if number == 3 else None)
            process.send_signal(signal.SIGKILL)
