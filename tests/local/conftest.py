"""A local Model Serving, and a client of it that knows no more than HTTP."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_hsml.local import AccessOptions, LocalServing, Speeds
from airflow_provider_hsml.local.cluster.engines import VERSION_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.local import ModelFiles


@dataclass
class Client:
    """Sends requests below the project, with the server's key."""

    serving: LocalServing
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False

    def ask(self, method: str, path: str, *, key: str | None = None, **arguments: Any) -> requests.Response:
        below = path if path.startswith("//") else f"/project/{self.serving.project_id}{path}"
        headers = {"Authorization": f"ApiKey {self.serving.api_key if key is None else key}"}
        headers |= arguments.pop("headers", {})
        url = f"{self.serving.url}/hopsworks-api/api/{below.lstrip('/')}"
        verify = str(self.serving.ca_bundle) if self.serving.ca_bundle else True
        return self.session.request(method, url, headers=headers, timeout=30, verify=verify, **arguments)

    def ask_ingress(self, method: str, path: str, *, key: str | None = None, **arguments: Any) -> requests.Response:
        """Ask the ingress, where paths begin with ``/v1/<namespace>/<deployment>``."""
        headers = {"Authorization": f"ApiKey {key or self.serving.api_key}"} | arguments.pop("headers", {})
        url = f"{self.serving.ingress_url}{path}"
        return self.session.request(method, url, headers=headers, timeout=30, **arguments)

    def give(self, method: str, path: str, **arguments: Any) -> Any:
        """Ask what must succeed, and give its JSON."""
        answer = self.ask(method, path, **arguments)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def refused(self, method: str, path: str, **arguments: Any) -> tuple[int, int]:
        """Ask what must be refused, and give (HTTP status, errorCode)."""
        answer = self.ask(method, path, **arguments)
        assert not answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.status_code, answer.json()["errorCode"]

    def put(self, name: str = "digits", *, path: str = "/serving", **fields: Any) -> Any:
        return self.give("PUT", path, json=deployment(name, **fields))

    def see(self, number: int) -> Any:
        return self.give("GET", f"/serving/{number}")

    def until(self, number: int, *statuses: str, seconds: float = 10) -> Any:
        deadline = time.monotonic() + seconds
        while (seen := self.see(number))["status"] not in statuses:
            assert time.monotonic() < deadline, f"{seen['status']} and not {statuses}: {seen['condition']}"
            time.sleep(0.02)
        return seen

    def running(self, name: str = "digits", **fields: Any) -> int:
        """Create and start a deployment, wait until it is Running, and give its id."""
        number: int = self.put(name, **fields)["id"]
        self.until(number, "Created")
        self.give("POST", f"/serving/{number}?action=START")
        self.until(number, "Running")
        self.until_routed(number)
        return number

    def until_routed(self, number: int) -> None:
        """Wait until the ingress, and with it the proxy, knows the way to a deployment."""
        deadline = time.monotonic() + 10
        while not self.serving.world.cluster.traffic.is_routed(number):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def until_answered_by(self, version: int, name: str = "digits", **body: Any) -> None:
        """Wait until one instance has handed over to another: ten answers in a row are of this version."""
        deadline, in_a_row = time.monotonic() + 10, 0
        while in_a_row < 10:
            assert time.monotonic() < deadline
            in_a_row = in_a_row + 1 if self.predict(name, **body).headers.get(VERSION_HEADER) == str(version) else 0

    def predict(self, name: str = "digits", **body: Any) -> requests.Response:
        return self.ask("POST", f"/inference/models/{name}:predict", json=body or {"instances": [[1.0], [2.0]]})


def deployment(name: str = "digits", **fields: Any) -> dict[str, Any]:
    """Make the body of a PUT, as small as a client sends it."""
    return {
        "name": name,
        "modelName": "digits",
        "modelPath": "/Projects/example/Models/digits",
        "modelVersion": 1,
        "modelFramework": "SKLEARN",
        "modelServer": "PYTHON",
        "servingTool": "KSERVE",
        "requestedInstances": 1,
        **fields,
    }


def load(model: ModelFiles) -> Callable[[Any], list[Any]]:
    """Load a model that answers its version; the file ``broken`` breaks it."""
    assert model.path is not None
    if (model.path / "broken").exists():
        raise RuntimeError("the pickle is broken")

    def predict(rows: Any) -> list[Any]:
        if rows == ["fail"]:
            raise ValueError("such a row is not known")
        return [model.version for _ in rows]

    return predict


ACCESS = AccessOptions({"reader.secret": {"PROJECT", "SERVING"}, "nobody.secret": set()}, foreign_projects=["foreign"])


@contextlib.contextmanager
def client_of(**arguments: Any) -> Iterator[Client]:
    """Give a client of a server of its own, with three versions of a model, the third of which does not load."""
    with _serving(**arguments) as serving:
        client = Client(serving)
        with client.session:
            yield client


@contextlib.contextmanager
def _serving(**arguments: Any) -> Iterator[LocalServing]:
    given: dict[str, Any] = {"engine": load, "access": ACCESS} | arguments
    with LocalServing(**given) as serving:
        for version in (1, 2, 3):
            files = {"model.pkl": b"a pickle"} | ({"broken": b""} if version == 3 else {})
            serving.world.register_model("digits", files, metrics={"accuracy": 0.9 + version / 100})
        yield serving


@pytest.fixture
def serving() -> Iterator[LocalServing]:
    """A server of the test's own, with three versions of a model, the third of which does not load."""
    with _serving() as serving:
        yield serving


@pytest.fixture
def client(serving: LocalServing) -> Iterator[Client]:
    client = Client(serving)
    with client.session:
        yield client


@pytest.fixture(scope="session")
def unchanged() -> Iterator[Client]:
    """A client of a server that several tests share, since they are refused whatever they ask."""
    with client_of() as client:
        yield client


@pytest.fixture
def unhurried(serving: LocalServing) -> None:
    """Make transitions last long enough to be seen on a busy machine."""
    serving.world.cluster.speeds = Speeds(starting=1.5, stale=1.5, updating=1.5, stopping=1.0)
