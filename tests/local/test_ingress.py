"""The ingress, asked directly: where it leads, what it passes on, and what it says where nobody answers."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_hsml.local import LocalServing, ServerOptions, Speeds
from airflow_provider_hsml.local.cluster.engines import Answer

if TYPE_CHECKING:
    import requests

    from airflow_provider_hsml.local.cluster.engines import Forwarded
    from tests.local.conftest import Client

_MODEL = "/v1/example/digits/v1/models/digits"


def _is_not_routed(answer: requests.Response) -> bool:
    return answer.status_code == 404 and not answer.content


def test_a_prediction_and_the_readiness(client: Client) -> None:
    client.running()

    assert client.ask_ingress("GET", _MODEL).json() == {"name": "digits", "ready": True}
    answer = client.ask_ingress("POST", f"{_MODEL}:predict", json={"instances": [[1], [2]]})

    assert answer.json() == {"predictions": [1, 1]}
    assert answer.headers["x-hsml-local-model-version"] == "1"
    assert answer.headers["server"] == "istio-envoy"


@pytest.mark.parametrize("by_path", [True, False])
def test_by_host(client: Client, *, by_path: bool) -> None:
    client.serving.world.ingress_by_path = by_path
    client.running()
    client.running("inCapitals")
    host = {"Host": "digits.example.hopsworks.local"}

    answer = client.ask_ingress("POST", "/v1/models/digits:predict", json={"instances": [[1]]}, headers=host)

    assert answer.json() == {"predictions": [1]}
    assert client.ask_ingress("GET", "/v1/models/digits", headers={"Host": "DIGITS.example.hopsworks.local:80"}).ok
    for wrong in (
        "digits.example.example.com",
        "digits.other.hopsworks.local",
        "other.example.hopsworks.local",
        "digits",
    ):
        assert _is_not_routed(client.ask_ingress("GET", "/v1/models/digits", headers={"Host": wrong}))
    assert client.ask_ingress("GET", _MODEL).ok is by_path
    in_capitals = client.ask_ingress(
        "GET", "/v1/models/inCapitals", headers={"Host": "incapitals.example.hopsworks.local"}
    )
    assert in_capitals.json()["name"] == "inCapitals"


def test_the_route_comes_after_running_and_goes_with_a_stop(client: Client) -> None:
    client.serving.world.cluster.speeds = Speeds(starting=0.5, routing=0.5, stopping=0.5)
    number = client.put()["id"]
    client.until(number, "Created")
    assert _is_not_routed(client.ask_ingress("GET", _MODEL))
    client.give("POST", f"/serving/{number}?action=START")
    assert _is_not_routed(client.ask_ingress("GET", _MODEL))
    client.until(number, "Running")
    assert _is_not_routed(client.ask_ingress("POST", f"{_MODEL}:predict", json={"instances": [[1]]}))

    client.until_routed(number)

    assert client.ask_ingress("GET", _MODEL).ok
    client.give("POST", f"/serving/{number}?action=STOP")
    assert _is_not_routed(client.ask_ingress("GET", _MODEL))


def test_the_models_own_status_survives(client: Client) -> None:
    client.running()

    failed = client.ask_ingress("POST", f"{_MODEL}:predict", json={"instances": ["fail"]})
    unknown = client.ask_ingress("GET", "/v1/example/digits/v1/models/other")

    assert (failed.status_code, failed.json()) == (500, {"error": "ValueError : such a row is not known"})
    assert (unknown.status_code, bool(unknown.content)) == (404, True), "an instance's own 404 has a body"


def test_requests_are_passed_on_as_they_came(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.running()
    asked: list[Forwarded] = []

    async def ask(_self: Any, request: Forwarded) -> Answer:
        asked.append(request)
        headers = {"content-type": "text/csv", "x-own": "yes", "content-length": "4"}
        return Answer(429, b"a,b\n", {name: value for name, value in headers.items() if name != "content-length"})

    monkeypatch.setattr("airflow_provider_hsml.local.cluster.engines._CallableInstance.ask", ask)
    headers = {"X-Mine": "this", "Connection": "keep-alive, x-hop", "X-Hop": "1", "Content-Type": "text/csv"}
    answer = client.ask_ingress("PATCH", "/v1/example/digits/own/a%2Fb?x=1&x=%20", data=b"1,2", headers=headers)

    (request,) = asked
    assert (request.method, request.path, request.body) == ("PATCH", "/own/a%2Fb?x=1&x=%20", b"1,2")
    assert request.headers["x-mine"] == "this"
    assert not {"connection", "x-hop", "host", "authorization", "content-length"} & set(request.headers)
    assert (answer.status_code, answer.text, answer.headers["x-own"]) == (429, "a,b\n", "yes")
    assert answer.headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize("query", [b"x=\xc3\xa4", b"x=\xe4", b"x=\xe2\x82\xac", b"x=%20&"])
def test_bytes_that_are_no_ascii(client: Client, query: bytes) -> None:
    """What a client sends raw is no reason for a 500."""
    client.running()
    address = urlsplit(client.serving.ingress_url)
    lines = (
        b"GET " + _MODEL.encode() + b"?" + query + b" HTTP/1.1",
        b"Host: \xe4",
        b"X-Mine: \xe4\xe2\x82\xac",
        f"Authorization: ApiKey {client.serving.api_key}".encode(),
        b"Connection: close",
    )
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        status = connection.makefile("rb").readline()

    assert status.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))


@pytest.mark.parametrize(
    ("key", "expected"),
    [("not.known", 401), ("nobody.secret", 403)],
)
def test_a_key_that_does_not_open_it(client: Client, key: str, expected: int) -> None:
    client.running()

    assert client.ask_ingress("GET", _MODEL, key=key).status_code == expected
    assert client.session.get(f"{client.serving.ingress_url}{_MODEL}", timeout=30).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/example",
        "/v1/example/unknown/v1/models/unknown",
        "/v1/other/digits/v1/models/digits",
        "/v1/models/digits",
    ],
)
def test_ways_that_lead_nowhere(client: Client, path: str) -> None:
    client.running()

    assert _is_not_routed(client.ask_ingress("GET", path))
    assert client.ask_ingress("GET", "/v1/foreign/digits/v1/models/digits").status_code == 403


def test_an_idle_deployment_is_woken(client: Client) -> None:
    number = client.running(requestedInstances=0)
    client.until(number, "Idle")

    assert client.ask_ingress("POST", f"{_MODEL}:predict", json={"instances": [[1]]}).json() == {"predictions": [1]}
    assert client.see(number)["status"] == "Running"


def test_one_that_does_not_wake(client: Client) -> None:
    number = client.running(requestedInstances=0)
    client.until(number, "Idle")
    client.serving.world.project(client.serving.project_id).files.write("Models/digits/1/Files/broken", b"")

    answer = client.ask_ingress("GET", _MODEL)

    assert (answer.status_code, answer.text) == (504, "upstream request timeout")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError("gone"), (503, "upstream connect error or disconnect/reset before headers.")),
        (TimeoutError("slow"), (504, "upstream request timeout")),
    ],
)
def test_an_instance_that_does_not_answer(
    client: Client, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: tuple[int, str]
) -> None:
    client.running()

    async def ask(*_: Any) -> Answer:
        raise error

    monkeypatch.setattr("airflow_provider_hsml.local.cluster.engines._CallableInstance.ask", ask)
    direct, proxied = client.ask_ingress("GET", _MODEL), client.predict()

    assert direct.status_code == expected[0]
    assert direct.text.startswith(expected[1])
    assert (proxied.status_code, proxied.json()["errorCode"]) == (500, 250007)
    assert proxied.json()["usrMsg"].startswith(expected[1])


def test_endpoints_and_journal(client: Client) -> None:
    client.running()
    endpoint = client.give("GET", "/inference/endpoints")[0]
    port = int(client.serving.ingress_url.rpartition(":")[2])

    assert endpoint == {
        "type": "LOAD_BALANCER",
        "hosts": ["127.0.0.1"],
        "ports": [{"name": "HTTP", "number": port}],
    }
    client.ask_ingress("POST", f"{_MODEL}:predict", data=json.dumps({"instances": [[1]]}))
    assert client.serving.requests[-1].path == f"{_MODEL}:predict"


def test_the_port_can_be_given(serving: LocalServing) -> None:
    port = int(serving.ingress_url.rpartition(":")[2])

    options = ServerOptions(ingress_port=port)
    with pytest.raises(OSError, match="give another --ingress-port"), LocalServing(options=options):
        pass


def test_grpc_has_no_way_for_http(client: Client) -> None:
    client.running(apiProtocol="GRPC")

    answer = client.ask_ingress("POST", f"{_MODEL}:predict", json={"instances": [[1]]})

    assert (answer.status_code, "protocol error" in answer.text) == (503, True)
