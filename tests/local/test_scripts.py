"""Deployments of scripts, with KServe's real model server: predictors, transformers, and programs without a model."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_hsml.local import LocalServing, Speeds
from airflow_provider_hsml.local.cluster import kserve_engine
from tests.local.conftest import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kserve

PREDICTOR = """
import asyncio, os

class Predict:
    def __init__(self, model, deployment, async_logger):
        print("made for", model.name, model.version, deployment.name, async_logger)
        with open(os.environ["MODEL_FILES_PATH"] + "/offset.txt") as file:
            self.offset = int(file.read())

    async def predict(self, inputs):
        await asyncio.sleep(0)
        if inputs == ["fail"]:
            raise KeyError("width")
        if inputs == ["env"]:
            return [dict(os.environ)]
        return [row[0] + self.offset for row in inputs]
"""
TRANSFORMER = """
class Transformer:
    def preprocess(self, inputs):
        print("transforming", inputs)
        return {"instances": [[value * 10] for value in inputs["instances"]]}

    def postprocess(self, outputs):
        return {"predictions": [{"sum": value} for value in outputs["predictions"]]}
"""
PLAIN = """
class Predictor:
    def predict(self, inputs):
        return {"predictions": {1} if inputs == ["set"] else inputs, "more": True}
"""
PROGRAM = """
import http.server, os, subprocess

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(202)
        self.send_header("content-length", str(len(body) + len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode() + body)

subprocess.Popen(["sleep", "60"])
print("listening", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ[os.environ["WHERE"]])), Handler).serve_forever()
"""
SCRIPTS = {
    "predictor.py": PREDICTOR,
    "transformer.py": TRANSFORMER,
    "plain.py": PLAIN,
    "program.py": PROGRAM,
    "helpless.py": "class Predict:\n    pass\n",
    "nothing.py": "import atexit\natexit.register(print, 'bye')\n",
    "raises.py": "class Transformer:\n    def __init__(self):\n        raise RuntimeError('no such feature')\n",
    "broken.py": "class Predict(:\n",
    "config.yaml": "threshold: 3\n",
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A server with KServe, a model of two versions that only a script can serve, and scripts."""
    with LocalServing(speeds=Speeds(idle_after=1.0), profile="plain") as serving:
        for offset in (1, 100):
            serving.world.register_model("digits", {"offset.txt": str(offset).encode()}, framework="PYTHON")
        (serving.root / "environments").mkdir()
        (serving.root / "environments" / "broken.txt").write_text("nothing @ file:///none/nothing-1-py3-none-any.whl\n")
        client = Client(serving)
        with client.session:
            for name, text in SCRIPTS.items():
                client.give("POST", "/dataset/upload/Resources", files={"file": (name, text)})
            yield client


def _at(name: str) -> str:
    return f"/Projects/example/Resources/{name}"


def _start(client: Client, name: str, **fields: Any) -> int:
    number: int = client.put(name, **{"modelFramework": "PYTHON", "predictor": _at("predictor.py"), **fields})["id"]
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")
    return number


def _running(client: Client, name: str, **fields: Any) -> int:
    number = _start(client, name, **fields)
    seen = client.until(number, "Running", "Failed", seconds=180)
    assert seen["status"] == "Running", seen["condition"]
    client.until_routed(number)
    return number


def _delete(client: Client, number: int) -> None:
    client.give("DELETE", f"/serving/{number}")


def _log(client: Client, number: int, component: str = "predictor") -> Any:
    (log,) = client.give("GET", f"/serving/{number}/logs?component={component}&tail=200")
    return log


def _has_group(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_predictor_and_a_transformer(client: Client) -> None:
    number = _running(
        client,
        "both",
        transformer=_at("transformer.py"),
        requestedTransformerInstances=1,
        configFile=_at("config.yaml"),
        predictorEnvVars=["COLOUR=green=blue"],
        inferenceLogging="ALL",
        kafkaTopicDTO={"name": "CREATE", "numOfReplicas": 1, "numOfPartitions": 1},
    )

    answer = client.predict("both", instances=[1, 2])

    assert answer.json() == {"predictions": [{"sum": 11}, {"sum": 21}]}
    seen = client.see(number)
    assert (seen["availableInstances"], seen["availableTransformerInstances"]) == (1, 1)
    predictor, transformer = _log(client, number), _log(client, number, "transformer")
    assert "made for digits 1 both None" in predictor["content"]
    assert "transforming {'instances': [1, 2]}" in transformer["content"]
    assert predictor["instanceName"].startswith(f"both-predictor-{seen['revision']}-")
    assert transformer["instanceName"].startswith(f"both-transformer-{seen['revision']}-")
    (logged,) = (client.serving.root / "inference-logs").glob("*.jsonl")
    lines = [json.loads(line) for line in logged.read_text().splitlines()]
    assert [(line["kind"], line["payload"]) for line in lines] == [
        ("request", {"instances": [1, 2]}),
        ("response", {"predictions": [{"sum": 11}, {"sum": 21}]}),
    ]

    client.give("PUT", "/serving?newVersion=true", json=client.see(number) | {"modelVersion": 2})
    client.until(number, "Updating")
    client.until(number, "Running", "Failed", seconds=60)
    client.until_answered_by(2, "both", instances=[1, 2])
    assert client.predict("both", instances=[1]).json() == {"predictions": [{"sum": 110}]}
    _delete(client, number)


def test_what_a_script_is_told(client: Client) -> None:
    number = _running(client, "told", configFile=_at("config.yaml"), predictorEnvVars=["COLOUR=green=blue"])
    (env,) = client.predict("told", instances=["env"]).json()["predictions"]

    assert env["COLOUR"] == "green=blue"
    assert (env["DEPLOYMENT_NAME"], env["MODEL_NAME"], env["MODEL_VERSION"]) == ("told", "digits", "1")
    assert (env["SCRIPT_NAME"], env["IS_PREDICTOR"], env["IS_TRANSFORMER"]) == ("predictor.py", "true", "false")
    assert env["CONFIG_FILE_PATH"].startswith(env["ARTIFACT_FILES_PATH"])
    assert env["API_KEY"] != client.serving.api_key
    assert not any(name.startswith(("AIRFLOW", "HSML_LOCAL")) for name in env)
    back = requests.get(
        f"{env['REST_ENDPOINT']}/hopsworks-api/api/project/{env['HOPSWORKS_PROJECT_ID']}/serving",
        headers={"Authorization": f"ApiKey {env['API_KEY']}"},
        verify=True,
        timeout=10,
    )
    assert back.ok
    failed = client.predict("told", instances=["fail"])
    assert (failed.status_code, failed.json()["errorCode"]) == (500, 250007)
    assert failed.json()["usrMsg"] == json.dumps({"error": "KeyError : 'width'"}, separators=(",", ":"))
    assert "KeyError: 'width'" in _log(client, number)["content"]
    _delete(client, number)


def test_a_plain_script_that_goes_to_sleep_and_wakes(client: Client) -> None:
    number = _running(client, "plain", predictor=_at("plain.py"), requestedInstances=0)

    for _ in range(5):
        # No JSON: the connection to the model server is good for the next request.
        assert "not JSON serializable" in client.predict("plain", inputs=["set"]).json()["usrMsg"]
        assert client.predict("plain", inputs=[[1]]).json() == {"predictions": [[1]], "more": True}
    client.until(number, "Idle", seconds=30)
    assert client.predict("plain", instances=[[2]]).json()["predictions"] == [[2]]
    assert client.see(number)["status"] == "Running"
    _delete(client, number)


@pytest.mark.parametrize("where", ["PORT", "FIXED"])
def test_a_program_without_a_model(client: Client, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """It listens where it is told to, or where it would in Hopsworks; what it has started ends with it."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        fixed = bound.getsockname()[1]
    monkeypatch.setattr(kserve_engine, "_HOPSWORKS_PORT", fixed)
    model = dict.fromkeys(("modelName", "modelPath", "modelVersion", "modelFramework"))
    variables = [f"WHERE={where}", f"FIXED={fixed}"]
    number = _running(client, "program", predictor=_at("program.py"), predictorEnvVars=variables, **model)

    answer = client.ask_ingress("POST", "/v1/example/program/any/route?x=1", data=b"!")

    assert (answer.status_code, answer.text) == (202, "/any/route?x=1!")
    assert "listening" in _log(client, number)["content"]
    assert client.refused("POST", "/inference/models/program:predict", json={"instances": [1]}) == (400, 250004)
    (leader, _started), *_ = client.serving.world._store.processes()
    _delete(client, number)
    deadline = time.monotonic() + 20
    while _has_group(leader):
        assert time.monotonic() < deadline, "what the program has started outlives it"
        time.sleep(0.05)


def test_a_script_that_is_gone(client: Client) -> None:
    client.give("POST", "/dataset/upload/Resources", files={"file": ("gone.py", PLAIN)})
    number: int = client.put("gone", predictor=_at("gone.py"))["id"]
    client.until(number, "Created")
    client.give("DELETE", "/dataset/Resources/gone.py")

    client.give("POST", f"/serving/{number}?action=START")

    condition = client.until(number, "Failed", seconds=60)["condition"]
    assert condition["type"] == "INITIALIZED"
    assert "No such file" in condition["reason"]
    assert "gone.py" in condition["reason"]
    _delete(client, number)


@pytest.mark.parametrize(
    ("fields", "stage", "reason"),
    [
        ({"predictor": _at("nothing.py")}, "STARTED", "predictor: RuntimeError: nothing.py has no class Predict"),
        ({"predictor": _at("helpless.py")}, "STARTED", "class Predict of helpless.py has no method predict"),
        ({"predictor": _at("broken.py")}, "STARTED", "predictor: SyntaxError"),
        (
            {"transformer": _at("raises.py"), "requestedTransformerInstances": 1},
            "STARTED",
            "transformer: RuntimeError: no",
        ),
        ({"predictorEnvironment": {"name": "mine"}}, "INITIALIZED", "there is no environment 'mine': expected one of"),
        (
            {"predictorEnvironment": {"name": "broken"}},
            "INITIALIZED",
            "file:///none/nothing-1-py3-none-any.whl",
        ),
        ({"modelServer": "VLLM", "modelFramework": "LLM"}, "INITIALIZED", "does not run VLLM"),
    ],
)
def test_what_does_not_come_up(client: Client, fields: dict[str, Any], stage: str, reason: str) -> None:
    number = _start(client, "broken", **fields)

    condition = client.until(number, "Failed", seconds=60)["condition"]

    assert (condition["type"], condition["status"]) == (stage, False)
    assert reason in condition["reason"]
    _delete(client, number)


def test_a_transformer_that_crashes(client: Client) -> None:
    number = _running(client, "crash", transformer=_at("transformer.py"), requestedTransformerInstances=1)
    _predictor, transformer = [pid for pid, _started in client.serving.world._store.processes()][-2:]
    os.kill(transformer, signal.SIGKILL)

    condition = client.until(number, "Failed")["condition"]
    assert "transformer: ended with exit code -9" in condition["reason"]
    deadline = time.monotonic() + 20
    while client.serving.world._store.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.serving.world._store.processes() == [], "the predictor is ended, too"
    _delete(client, number)


@pytest.mark.slow
def test_an_environment_of_ones_own(client: Client) -> None:
    """Built at the first start, with a package that is not in the default one, which others have meanwhile."""
    (client.serving.root / "environments" / "mine.txt").write_text("# what the script needs\ncowsay==6.1\n")
    script = "import cowsay\nclass Predict:\n    def predict(self, inputs):\n        return [cowsay.__version__]\n"
    client.give("POST", "/dataset/upload/Resources", files={"file": ("cow.py", script)})
    no_cow = "import importlib.util\nclass Transformer:\n    def postprocess(self, outputs):\n"
    no_cow += "        return {'predictions': [*outputs['predictions'], importlib.util.find_spec('cowsay')]}\n"
    client.give("POST", "/dataset/upload/Resources", files={"file": ("no_cow.py", no_cow)})

    other = _running(client, "other")
    number = _start(
        client,
        "mine",
        predictor=_at("cow.py"),
        predictorEnvironment={"name": "mine"},
        transformer=_at("no_cow.py"),
        transformerEnvironment={"name": "minimal-inference-pipeline"},
        requestedTransformerInstances=1,
    )
    seen = client.until(number, "Running", "Failed", seconds=600)
    assert seen["status"] == "Running", seen["condition"]
    client.until_routed(number)

    assert client.predict("mine", instances=[1]).json() == {"predictions": ["6.1", None]}
    assert client.predict("other", instances=[[1]]).json() == {"predictions": [2]}
    _delete(client, number)
    _delete(client, other)
