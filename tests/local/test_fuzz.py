"""
Requests that make half sense, over every route: each is answered, in time, with a code of Hopsworks.

They are drawn by chance from a seed, which is printed: most of a request is likely, one or two things in it are not.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import random
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest

from airflow_provider_hsml.local import AccessOptions, LocalServing, Speeds
from airflow_provider_hsml.local.errors import Refusal
from airflow_provider_hsml.local.http.app import _ROUTES
from tests.local.conftest import deployment, load

if TYPE_CHECKING:
    from collections.abc import Iterator

# Starlette leaves the file of a form that is broken off to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning")

_BOUND = 30.0
"""Seconds for an answer, on a busy machine."""
_PREFIX = "/hopsworks-api/api"
_CHOSEN = [*_ROUTES, *(route for route in _ROUTES if route.method != "GET")]
"""What is drawn from: what changes something twice as often."""

_NUMBERS = [-1, 0, 1, 2, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, 1e308, float("nan"), float("inf")]
_TEXTS = [
    "",
    ".",
    "..",
    "../..",
    "a" * 300,
    "a/b",
    "\0",
    "\ud800",
    "\u00e9",
    "%2e%2e",
    "null",
    "digits",
    "1",
    "\u0661",
    " ",
    "'",
]
_OTHERS: list[Any] = [None, True, False, [], {}, [[]], [None], {"name": None}, {"items": 1}, {"": ""}]
_PATHS = [
    *("Models", "Models/digits", "Models/digits/1", "Models/digits/1/Files/model.pkl", "Resources", "Resources/a"),
    *(
        "Resources/a/b",
        "Resources/a/b/c",
        "Resources/c",
        "/Projects/example/Resources/a",
        "/Projects/example",
        "/",
        "New",
    ),
    *("/Projects/foreign/Models", "hdfs://x:1/Projects/example/Resources", "../../etc/passwd", "Resources/../api.key"),
    *(
        "Resources/%2e%2e/x",
        "Resources/\0",
        "a/" * 1500,
        "Resources/" + "\u00e9" * 200,
        "Resources/a\\b",
        "Resources//a",
    ),
    *(f"Resources/file{number}" for number in range(5)),
]
_LIKELY: dict[str, list[Any]] = {
    "project": [119],
    "registry": [119],
    "model": ["digits_1", "digits_2"],
    "target": ["digits:predict", "second:predict"],
    "path": [
        "Models/digits",
        "Models/digits/3",
        "Resources",
        "Resources/a",
        "Resources/a/b",
        "Resources/c",
        "Resources/file1",
    ],
    "name": ["example", "kube_kserve_installed", "digits"],
}
_UNLIKELY: dict[str, list[Any]] = {
    "project": [120, 121, 0, -1, 10**30, "x"],
    "registry": [120, 121, 10**30, ""],
    "deployment": [99, 10**30, -1, "x"],
    "model": ["digits_", "_1", "x_99999999999999999999", "digits_1_1", "digits_\u0661", "new_1", *_TEXTS],
    "path": _PATHS,
    "target": ["digits:classify", "digits", "nobody:predict", "digits:", "a/b:predict", *_TEXTS],
}
_QUERIES: dict[str, list[Any]] = {
    "action": ["START", "stop", "create", "copy", "move", "stat", "listing", "tag", ""],
    "destination_path": _PATHS,
    "name": ["digits", "other", ""],
    "model": ["digits", "other"],
    "modelVersion": _NUMBERS,
    "status": ["Running", "created", "Nothing"],
    "newVersion": ["true", "false", "1"],
    "component": ["predictor", "transformer", "sidecar"],
    "tail": _NUMBERS,
    "offset": _NUMBERS,
    "limit": _NUMBERS,
    "sort_by": ["name:desc", "accuracy:desc", "accuracy:up", "NAME:asc", "SIZE:desc", "ID:asc", ":"],
    "filter_by": ["name_eq:digits", "name_like:i", "version:1", "latest_version", "nothing:1", ":"],
    "expand": ["trainingdatasets", "mandatorytags"],
    "format": ["schema", "openapi", "xml"],
    "schemaId": _TEXTS,
}
_MODEL = {
    "id": None,
    "name": None,
    "version": None,
    "projectName": "example",
    "description": "",
    "framework": "SKLEARN",
    "metrics": {"accuracy": 0.9},
    "trainingDatasetVersion": 0,
    "tags": {"count": 0, "items": []},
    "environment": "x",
}
_DEPLOYMENT: dict[str, Any] = {
    **deployment(),
    "predictor": None,
    "transformer": None,
    "requestedTransformerInstances": None,
    "transformerResources": None,
    "predictorResources": {"requests": {"cores": 1, "memory": 32, "gpus": 0}, "limits": {"gpus": 0}},
    "predictorScalingConfig": {"minInstances": 1},
    "environmentDTO": {"name": "x"},
    "predictorEnvVars": ["A=b"],
    "batchingConfiguration": {"batchingEnabled": False},
    "inferenceLogging": "NONE",
    "kafkaTopicDTO": None,
    "apiProtocol": "REST",
    "tags": {"items": []},
    "configFile": None,
    "artifactVersion": -1,
    "tracing": None,
    "version": None,
    "predictorEnvironment": {"name": "x"},
    "knativeMode": None,
    "gitUrl": None,
    "id": None,
}
_BODIES = [
    *(b"", b"{", b"[" * 20_000, b'{"a": 1' + b"0" * 5000 + b"}", b'{"name": "\xff"}', b"NaN", b"null", b"[]", b"\0"),
    *(b'{"instances": [[1]]}', b'{"instances": ["fail"]}', b'{"inputs": []}', b'{"instances": 1, "inputs": 1}'),
    *(
        b'{"version": 1}',
        b'{"version": 2}',
        b'{"version": true}',
        b'{"version": [1]}',
        b'{"version": 1e400}',
        b'"\\ud800"',
    ),
]


def _junk(chance: random.Random, depth: int = 0) -> Any:
    """Draw any JSON."""
    match chance.randrange(6 if depth < 3 else 3):
        case 0:
            return chance.choice(_NUMBERS)
        case 1:
            return chance.choice(_TEXTS)
        case 2:
            return chance.choice(_OTHERS)
        case 3:
            return [_junk(chance, depth + 1) for _ in range(chance.randrange(3))]
        case 4:
            return {chance.choice(_TEXTS): _junk(chance, depth + 1) for _ in range(chance.randrange(3))}
        case _:
            return "".join(
                chr(chance.choice([9, 34, 39, 47, 92, 97, 233, 8364, 128512])) for _ in range(chance.randrange(9))
            )


def _document(chance: random.Random, whole: dict[str, Any], ids: list[int]) -> bytes:
    """Draw a document of which some fields are wrong, and some are missing."""
    document = dict(whole)
    if whole is _DEPLOYMENT:
        document["name"] = chance.choice(["digits", "second", "third", None])
        document["id"] = chance.choice([None, *ids])
        document["predictorEnvVars"] = [f"A={chance.randrange(10)}"]
    for name in chance.sample(sorted(whole), chance.choice([0, 0, 1, 1, 2, 3])):
        inner = document.get(name)
        if isinstance(inner, dict) and inner and chance.random() < 0.6:
            document[name] = {**inner, chance.choice(sorted(inner)): _junk(chance)}
        elif chance.random() < 0.7:
            document[name] = _junk(chance)
        else:
            document.pop(name, None)
    return json.dumps(document).encode()


def _form(chance: random.Random) -> bytes:
    """Draw a form with a part of an upload, perhaps a wrong one."""
    number, name = chance.choice([1, 1, 2]), f"file{chance.randrange(50)}"
    fields: dict[str, Any] = {
        "flowChunkNumber": number,
        "flowTotalChunks": 2,
        "flowChunkSize": 10,
        "flowFilename": name,
        "flowIdentifier": name,
    }
    for key in chance.sample(sorted(fields), chance.choice([0, 0, 1, 2])):
        fields[key] = chance.choice([*_NUMBERS, *_TEXTS])
    parts = [f'form-data; name="{key}"\r\n\r\n{value}' for key, value in fields.items()]
    if chance.random() < 0.9:
        parts.append('form-data; name="file"; filename="f"\r\n\r\n0123456789')
    text = "".join(f"--x\r\nContent-Disposition: {part}\r\n" for part in parts) + "--x--\r\n"
    body = text.encode("utf-8", "surrogatepass")
    return body if chance.random() < 0.9 else body[: chance.randrange(len(body))]


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def _request(chance: random.Random, ids: list[int]) -> _Request:
    route = chance.choice(_CHOSEN)
    parts = re.split(r"\{(\w+)(?::\w+)?\}", route.path)
    for place in range(1, len(parts), 2):
        likely = ids if parts[place] == "deployment" else _LIKELY.get(parts[place], _TEXTS)
        drawn = chance.choice(likely if chance.random() < 0.9 and likely else _UNLIKELY.get(parts[place], _TEXTS))
        parts[place] = quote(str(drawn), chance.choice(["", "/", "/:%"]), errors="surrogatepass")
    names = chance.sample(sorted(_QUERIES), chance.choice([0, 0, 1, 2, 3]))
    query = [(name, chance.choice(_QUERIES[name] if chance.random() < 0.9 else _TEXTS)) for name in names]
    if route.path.endswith("/serving/{deployment:int}") and chance.random() < 0.8:
        query.append(("action", chance.choice(["START", "STOP"])))
    elif "dataset" in route.path and chance.random() < 0.6:
        query.append(("action", chance.choice(["create", "copy", "move", "listing"])))
        query.append(("destination_path", chance.choice(_LIKELY["path"])))
    kind, body = "application/json", chance.choice(_BODIES)
    if "upload" in route.path and chance.random() < 0.9:
        kind, body = "multipart/form-data; boundary=x", _form(chance)
    elif route.method == "PUT" and chance.random() < 0.8:
        body = _document(chance, _DEPLOYMENT if route.path.endswith("/serving") else _MODEL, ids)
    elif chance.random() < 0.3:
        body = json.dumps(_junk(chance)).encode()
    wrong = ["", "ApiKey", "ApiKey \xe9", "Bearer x", "Basic x"]
    headers = {
        "Authorization": chance.choice(wrong) if chance.random() < 0.05 else "key",
        "Content-Type": kind if chance.random() < 0.95 else chance.choice(["", "multipart/form-data", "text/plain"]),
    }
    method = chance.choice(["PATCH", "DELETE", "HEAD", "OPTIONS"]) if chance.random() < 0.03 else route.method
    path = f"{_PREFIX}{''.join(parts)}" + (f"?{urlencode(query, errors='surrogatepass')}" if query else "")
    return _Request(method, path[:4000], headers, body)


class _Errors(logging.Handler):
    """Keeps what is logged as an error: there must be nothing."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(logging.Formatter().format(record))


@dataclass
class _Fuzzed:
    """A server, and what was asked of it."""

    serving: LocalServing
    errors: _Errors
    statuses: dict[int, int] = field(default_factory=dict)
    slowest: float = 0.0
    ids: list[int] = field(default_factory=list)
    """Of the deployments that there are."""

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection(*self._address(), timeout=_BOUND)

    def _address(self) -> tuple[str, int]:
        host, _, port = self.serving.url.removeprefix("http://").partition(":")
        return host, int(port)

    def send(self, request: _Request) -> tuple[int, bytes]:
        key = {"key": f"ApiKey {self.serving.api_key}"}
        headers = {**request.headers, "Authorization": key.get(*[request.headers["Authorization"]] * 2)}
        begin = time.monotonic()
        self.connection.request(request.method, request.path, request.body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        self.slowest = max(self.slowest, time.monotonic() - begin)
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        return answer.status, content

    def check(self, request: _Request) -> None:
        """Ask, and check that the answer is one of Hopsworks' kind."""
        status, content = self.send(request)
        assert not self.errors.records, f"{request}: {self.errors.records[0]}"
        if status >= 400 and request.method != "HEAD":
            body = json.loads(content)
            assert isinstance(body["errorCode"], int), request
            assert body["errorCode"] != 120000 or "server's log" not in body.get("usrMsg", ""), request

    def check_health(self) -> None:
        """Check that it is there, and that what it keeps can be read."""
        for path in ("/variables/versions", "/project/119/serving", "/project/119/modelregistries/119/models"):
            status, content = self.send(_Request("GET", f"{_PREFIX}{path}", {"Authorization": "key"}, b""))
            assert (status, json.loads(content) is not None) == (200, True), content

    def seed(self) -> None:
        """Make sure that there is something to ask for."""
        world = self.serving.world
        holdings = world.project(119)
        for version in (1, 2):
            if not holdings.files.exists(f"Models/digits/{version}/Files/model.pkl"):
                with contextlib.suppress(OSError):  # There may be a file where a folder should be.
                    world.register_model("digits", {"model.pkl": b"a pickle"}, version=version)
        rows = holdings.deployments.find()
        if not any(row["name"] == "digits" for row in rows):
            with contextlib.suppress(Refusal):
                number = holdings.deployments.changes.put(deployment())["id"]
                while holdings.deployments.get(number)["status"] != "Created":
                    time.sleep(0.001)
                holdings.deployments.lifecycle.start(number)
        for row in rows[5:]:
            holdings.deployments.lifecycle.delete(row["id"])
        self.ids = [row["id"] for row in rows[:5]]


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[_Fuzzed]:
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    try:
        access = AccessOptions(foreign_projects=["foreign"])
        with LocalServing(engine=load, access=access, speeds=Speeds.every(0)) as serving:
            fuzzed = _Fuzzed(serving, errors)
            try:
                yield fuzzed
            finally:
                fuzzed.connection.close()
    finally:
        logging.getLogger().removeHandler(errors)
    assert not errors.records


def _run(fuzzed: _Fuzzed, requests: int, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311 - chance, not cryptography
    fuzzed.errors.records.clear()
    for number in range(requests):
        if number % 10 == 0:
            fuzzed.seed()
            fuzzed.check_health()
        fuzzed.check(_request(chance, fuzzed.ids))
    fuzzed.check_health()
    total = sum(fuzzed.statuses.values())
    print(f"\n{total} requests, slowest {fuzzed.slowest:.2f} s; by status: {dict(sorted(fuzzed.statuses.items()))}")
    assert total >= requests
    assert {200, 201, 204, 400, 401, 404, 422, 501} <= set(fuzzed.statuses), "some are carried out, some refused"


def test_eight_hundred_requests(fuzzed: _Fuzzed) -> None:
    _run(fuzzed, 800, seed=20)


@pytest.mark.slow
def test_twenty_thousand_requests(fuzzed: _Fuzzed) -> None:
    _run(fuzzed, 20_000, seed=random.SystemRandom().randrange(10**9))
