"""The real model server: processes of KServe's own, each in the environment that ``hsml-local prepare`` builds."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_hsml.local import LocalServing, ModelFiles, Speeds
from airflow_provider_hsml.local.cluster import kserve_engine as under_test
from airflow_provider_hsml.local.cluster import process_groups
from airflow_provider_hsml.local.cluster.engines import InstanceLog, StartError
from airflow_provider_hsml.local.cluster.environments import EnvironmentFailedError, Environments, NamedEnvironments
from airflow_provider_hsml.local.cluster.kserve_engine import KServeEngine
from airflow_provider_hsml.local.cluster.model_server import model_file
from airflow_provider_hsml.local.store import Store
from tests.local.conftest import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROWS = [[0.0], [10.0]]


def _pickle(*answers: str) -> bytes:
    """Train a model that tells small numbers from large ones, by the words it is given."""
    pytest.importorskip("sklearn")
    import pickle

    from sklearn.tree import DecisionTreeClassifier

    return pickle.dumps(DecisionTreeClassifier(random_state=0).fit(_ROWS, list(answers)))


def _version() -> bytes:
    return importlib.metadata.version("scikit-learn").encode()


def _processes(serving: LocalServing) -> list[int]:
    return [pid for pid, _started in serving.world._store.processes()]


def _is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(scope="module")
def kserve() -> Iterator[Client]:
    """A server with KServe, and four versions of a model: two that work, one that does not load, two pickles in one."""
    with LocalServing(speeds=Speeds(idle_after=2.0)) as serving:
        for files in (
            {"model.pkl": _pickle("small", "large")},
            {"model.joblib": _pickle("klein", "gross").replace(_version(), b"0" * len(_version()))},
            {"model.pkl": b""},
            {"first.pkl": b"", "second.pkl": b""},
        ):
            serving.world.register_model("digits", files)
        client = Client(serving)
        with client.session:
            yield client


@pytest.mark.kserve
def test_a_model_really_runs(kserve: Client) -> None:
    number = kserve.put()["id"]
    kserve.until(number, "Created")
    kserve.give("POST", f"/serving/{number}?action=START")
    kserve.until(number, "Running", "Failed", seconds=180)
    kserve.until_routed(number)

    answer = kserve.predict(instances=_ROWS)

    assert answer.json() == {"predictions": ["small", "large"]}
    assert answer.headers["x-hsml-local-model-version"] == "1"
    bad = kserve.predict(instances=[[1.0, 2.0]])
    assert (bad.status_code, bad.json()["errorCode"]) == (500, 250007)
    assert "expecting 1 features" in bad.json()["usrMsg"]
    not_a_list = kserve.predict(instances=3)
    assert (not_a_list.status_code, not_a_list.json()["errorCode"]) == (400, 250008)
    (log,) = kserve.give("GET", f"/serving/{number}/logs?tail=100")
    assert "Application startup complete" in log["content"]
    assert "POST /v1" not in log["content"], "no lines a request"
    direct = "/v1/example/digits/v1/models/digits"
    assert kserve.ask_ingress("GET", direct).json() == {"name": "digits", "ready": True}
    assert kserve.ask_ingress("GET", "/v1/example/digits/v2/health/ready").json() == {"ready": True}
    refused = kserve.ask_ingress("POST", f"{direct}:predict", json={"instances": 3})
    assert (refused.status_code, "instances" in refused.json()["error"]) == (400, True), "the model's own status"

    statuses: list[int] = []
    done = threading.Event()

    def keep_asking() -> None:
        other = Client(kserve.serving)
        with other.session:
            while not done.is_set():
                statuses.append(other.predict(instances=_ROWS).status_code)

    asker = threading.Thread(target=keep_asking)
    asker.start()
    try:
        kserve.give("PUT", "/serving?newVersion=true", json=kserve.see(number) | {"modelVersion": 2})
        kserve.until(number, "Updating")
        kserve.until(number, "Running", "Failed", seconds=60)
    finally:
        done.set()
        asker.join()
    kserve.until_answered_by(2, instances=_ROWS)
    after = kserve.predict(instances=_ROWS)
    assert after.json() == {"predictions": ["klein", "gross"]}
    assert after.headers["x-hsml-local-model-version"] == "2"
    assert set(statuses) == {200}
    *_, log = kserve.give("GET", f"/serving/{number}/logs?tail=100")
    assert "InconsistentVersionWarning: Trying to unpickle estimator DecisionTreeClassifier" in log["content"]
    tensor = {"name": "rows", "shape": [2, 1], "datatype": "FP64", "data": [0.0, 10.0]}
    v2 = kserve.ask_ingress("POST", "/v1/example/digits/v2/models/digits/infer", json={"inputs": [tensor]})
    assert (v2.status_code, v2.json()["outputs"][0]["data"]) == (200, ["klein", "gross"])
    neither = kserve.ask_ingress("POST", "/v1/example/digits/v1/models/digits:predict", json={"rows": _ROWS})
    assert (neither.status_code, neither.json()) == (
        400,
        {"error": "Expected a JSON object with instances or inputs, got neither."},
    )

    kserve.give("POST", f"/serving/{number}?action=STOP")
    kserve.until(number, "Stopped", seconds=30)
    assert _processes(kserve.serving) == []
    kserve.give("DELETE", f"/serving/{number}")


@pytest.mark.kserve
@pytest.mark.parametrize(
    ("version", "reason"),
    [(3, "Failed to run: predictor: EOFError"), (4, "found first.pkl, second.pkl")],
)
def test_a_model_that_does_not_load(kserve: Client, version: int, reason: str) -> None:
    number = kserve.put(f"broken{version}", modelVersion=version)["id"]
    kserve.until(number, "Created")
    kserve.give("POST", f"/serving/{number}?action=START")

    failed = kserve.until(number, "Failed", "Running", seconds=180)

    assert failed["status"] == "Failed"
    assert reason in failed["condition"]["reason"]
    (log,) = kserve.give("GET", f"/serving/{number}/logs?tail=50")
    assert "Traceback" in log["content"]


@pytest.mark.kserve
def test_a_crash_is_seen_and_only_loopback_is_bound(kserve: Client) -> None:
    number = kserve.put("crashing")["id"]
    kserve.until(number, "Created")
    kserve.give("POST", f"/serving/{number}?action=START")
    kserve.until(number, "Running", seconds=180)
    kserve.until_routed(number)
    (pid,) = _processes(kserve.serving)
    env = dict(text.partition("=")[::2] for text in Path(f"/proc/{pid}/environ").read_text().split("\0") if text)
    assert env["OMP_NUM_THREADS"] == "1"
    assert not [name for name in env if name.startswith(("AIRFLOW", "HSML_LOCAL"))]
    inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    lines = [
        row.split() for file in ("tcp", "tcp6") for row in Path(f"/proc/{pid}/net/{file}").read_text().splitlines()
    ]
    listening = [row[1] for row in lines if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
    assert [address.partition(":")[0] for address in listening] == ["0100007F"]

    os.kill(pid, 9)

    failed = kserve.until(number, "Failed")
    assert "exit code -9" in failed["condition"]["reason"]
    crashed = kserve.predict("crashing").json()
    assert (crashed["errorCode"], crashed["usrMsg"]) == (250007, "no healthy upstream")


@pytest.mark.kserve
def test_scale_to_zero_and_back(kserve: Client) -> None:
    number = kserve.put("sleepy", requestedInstances=0)["id"]
    kserve.until(number, "Created")
    kserve.give("POST", f"/serving/{number}?action=START")

    kserve.until(number, "Idle", seconds=180)

    assert kserve.predict("sleepy", instances=_ROWS).json() == {"predictions": ["small", "large"]}
    kserve.give("DELETE", f"/serving/{number}")


@pytest.mark.kserve
def test_no_child_survives_its_parent(tmp_path: Path) -> None:
    """Also when the parent is killed, and a server that comes after it starts the model again."""
    with LocalServing(tmp_path, speeds=Speeds()) as serving:
        serving.world.register_model("digits", {"model.pkl": _pickle("small", "large")})
        client = Client(serving)
        with client.session:
            client.put()
            client.until(1, "Created")
    command = [sys.executable, "-m", "airflow_provider_hsml.local.cli", "serve", "--port", "0", "--root", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            url, key = ready["url"], Path(ready["api_key_file"]).read_text().strip()

            def ask(method: str, path: str) -> Any:
                answer = requests.request(
                    method,
                    f"{url}/hopsworks-api/api/project/119/{path}",
                    headers={"Authorization": f"ApiKey {key}"},
                    verify=ready["ca_bundle"],
                    timeout=10,
                )
                return answer.json() if answer.content else None

            ask("POST", "serving/1?action=START")
            deadline = time.monotonic() + 180
            while ask("GET", "serving/1")["status"] != "Running":
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            process.kill()
    store = Store(tmp_path / "state.sqlite3")
    children = store.processes()
    store.close()
    assert len(children) == 1
    deadline = time.monotonic() + 10
    while _is_alive(children[0][0]):
        assert time.monotonic() < deadline, "the model server outlived its parent"
        time.sleep(0.1)

    with LocalServing(tmp_path, speeds=Speeds()) as serving:
        client = Client(serving)
        with client.session:
            assert client.see(1)["status"] == "Starting"
            client.until(1, "Running", seconds=60)
            client.until_routed(1)
            assert client.predict(instances=_ROWS).json() == {"predictions": ["small", "large"]}
            (pid,) = _processes(serving)
    assert not _is_alive(pid)


# --- Without the model server's environment ---------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[KServeEngine]:
    store = Store(tmp_path / "state.sqlite3")
    yield KServeEngine(NamedEnvironments(Environments(tmp_path)), store, tmp_path)
    store.close()


def _model(tmp_path: Path, **fields: Any) -> ModelFiles:
    given = {"deployment": "digits", "name": "digits", "version": 1, "path": tmp_path, "framework": "SKLEARN"}
    return ModelFiles(**{**given, "server": "PYTHON", "env": {"MODEL_VERSION": "1"}, **fields})


@pytest.mark.parametrize("fields", [{"server": "VLLM"}, {"server": "TENSORFLOW_SERVING"}])
def test_what_has_no_local_server(engine: KServeEngine, tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(StartError, match="the local Model Serving does not run") as caught:
        engine.start(_model(tmp_path, **fields), {"predictor": InstanceLog("x")}, threading.Event(), 1)

    assert caught.value.stage == "INITIALIZED"


def test_an_environment_that_cannot_be_built(
    engine: KServeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise EnvironmentFailedError("the index is away")

    monkeypatch.setattr(Environments, "python", fail)
    log = InstanceLog("x")

    with pytest.raises(StartError, match="the index is away"):
        engine.start(_model(tmp_path), {"predictor": log}, threading.Event(), 1)
    assert "the index is away" in log.tail(10)


@pytest.mark.parametrize(
    ("seconds", "is_cancelled", "reason"), [(0.3, False, "not ready in time"), (30, True, "another change")]
)
def test_a_model_server_that_does_not_get_ready(
    engine: KServeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    seconds: float,
    is_cancelled: bool,
    reason: str,
) -> None:
    """It is ended as well."""
    program = tmp_path / "sleeps.py"
    program.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(under_test, "_PROGRAM", program)
    monkeypatch.setattr(Environments, "python", lambda *_: Path(sys.executable))
    cancelled = threading.Event()
    if is_cancelled:
        cancelled.set()

    with pytest.raises(StartError, match=reason):
        engine.start(_model(tmp_path), {"predictor": InstanceLog("x")}, cancelled, seconds)
    assert engine._store.processes() == []


def test_a_leftover_is_ended_only_if_it_is_ours(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite3")
    sleep = ["sleep", "60"]
    with subprocess.Popen(sleep, start_new_session=True) as ours, subprocess.Popen(sleep) as other:
        try:
            store.note_process(ours.pid, process_groups.start_time(ours.pid) or "")
            store.note_process(other.pid, "another time")
            KServeEngine(NamedEnvironments(Environments(tmp_path)), store, tmp_path)

            assert ours.wait(5) == -9
            assert other.poll() is None
            assert store.processes() == []
        finally:
            other.kill()
            store.close()


@pytest.mark.parametrize("names", [[], ["a.pkl", "b.joblib"]])
def test_exactly_one_model_file(tmp_path: Path, names: list[str]) -> None:
    for name in [*names, "readme.md"]:
        (tmp_path / name).touch()

    with pytest.raises(RuntimeError, match=", ".join(names) or "found none"):
        model_file(tmp_path)


def test_a_log_keeps_its_end() -> None:
    log = InstanceLog("x")
    for number in range(3000):
        log.write(f"line {number}")
    log.write("x" * 100_000)

    assert log.tail(2) == "line 2999\n" + "x" * InstanceLog.LINE_LENGTH
    assert log.tail(0) == ""
    assert len(log.tail(3000)) <= InstanceLog.BYTES
