"""Faults, time and the journal over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import AccessOptions, LocalServing, Looks, ServerOptions
from tests.local.conftest import Client, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

ROUTES = [
    ("GET", "/faults"),
    ("POST", "/faults"),
    ("DELETE", "/faults"),
    ("DELETE", "/faults/1"),
    ("GET", "/speeds"),
    ("PUT", "/speeds"),
    ("GET", "/requests"),
    ("DELETE", "/requests"),
    ("POST", "/reset"),
]


def _ask(client: Client, method: str, path: str, *, key: str | None = None, **arguments: Any) -> requests.Response:
    headers = {"Authorization": f"ApiKey {client.serving.api_key if key is None else key}"}
    url = f"{client.serving.url}/_local{path}"
    return client.session.request(method, url, headers=headers, timeout=30, verify=True, **arguments)


def _give(client: Client, method: str, path: str, **arguments: Any) -> Any:
    answer = _ask(client, method, path, **arguments)
    assert answer.ok, answer.text
    return answer.json()


@pytest.fixture
def client() -> Iterator[Client]:
    access = AccessOptions({"reader.secret": {"PROJECT", "SERVING"}})
    with LocalServing(engine=load, options=ServerOptions(control=True), access=access) as serving:
        for _ in range(2):
            serving.world.register_model("digits", {"model.pkl": b"a pickle"})
        client = Client(serving)
        with client.session:
            yield client


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_control_there_is_no_such_route(unchanged: Client, method: str, path: str) -> None:
    assert _ask(unchanged, method, path).status_code == 501


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_it_needs_the_servers_own_key(client: Client, method: str, path: str) -> None:
    answers = [_ask(client, method, path, key=key, json={"kind": "hold"}) for key in ("", "wrong.key", "reader.secret")]

    assert [(answer.status_code, answer.json()["errorCode"]) for answer in answers] == [
        (401, 320013),
        (401, 320013),
        (403, 320004),
    ]
    assert client.serving.faults.active() == {}


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "request", "method": "GET", "path": "/project/*/serving", "status": 503, "body": {"a": 1}, "times": 3},
        {"kind": "request", "drop": "after", "times": None},
        {"kind": "request", "delay": 0.5, "cut": 10},
        {"kind": "start", "deployment": "digits", "stage": "SCHEDULED", "reason": "no room", "lasts": 60},
        {"kind": "start", "crash_after": 1.5},
        {"kind": "hold", "status": "Created"},
        {"kind": "lost_change", "times": 2},
    ],
)
def test_every_fault_comes_through(client: Client, fault: dict[str, Any]) -> None:
    made = _give(client, "POST", "/faults", json=fault)

    assert made.items() >= fault.items()
    assert _give(client, "GET", "/faults") == {"faults": [made]}
    (active,) = client.serving.faults.active().values()
    assert (active.kind, *(getattr(active, name) for name in list(fault)[1:])) == tuple(fault.values())
    assert _give(client, "DELETE", f"/faults/{made['id']}") == {"faults": []}


def test_a_fault_strikes_and_is_used_up(client: Client) -> None:
    _give(client, "POST", "/faults", json={"kind": "request", "path": "/project/*/serving", "status": 503, "times": 2})

    assert client.ask("GET", "/serving").status_code == 503
    assert _give(client, "GET", "/faults")["faults"][0]["times"] == 1
    assert client.ask("GET", "/serving").status_code == 503
    assert client.give("GET", "/serving") == []


def test_control_itself_is_never_spoilt(client: Client) -> None:
    _give(client, "POST", "/faults", json={"kind": "request", "path": "**", "drop": "before", "times": None})

    assert _give(client, "DELETE", "/faults") == {"faults": []}
    assert client.give("GET", "/serving") == []


def test_a_hold_and_its_release(client: Client) -> None:
    hold = _give(client, "POST", "/faults", json={"kind": "hold", "deployment": "digits", "status": "Running"})["id"]
    number = client.put()["id"]
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")
    client.until(number, "Starting")

    _give(client, "DELETE", f"/faults/{hold}")

    client.until(number, "Running")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"kind": "storm"},
        {"kind": "hold", "state": "Running"},
        {"kind": "hold", "kind_": 1},
        {"kind": "request"},
        {"kind": "request", "status": "503"},
        {"kind": "request", "status": 503, "times": 0},
        {"kind": "request", "status": 503, "path": None},
        {"kind": "request", "delay": "1"},
        {"kind": "request", "cut": True},
        {"kind": "request", "status": 503, "headers": ["a"]},
        {"kind": "start", "lasts": True},
    ],
)
def test_a_fault_that_is_not_known(client: Client, wrong: dict[str, Any]) -> None:
    answer = _ask(client, "POST", "/faults", json=wrong)

    assert (answer.status_code, answer.json()["errorCode"]) == (422, 120001)
    assert client.serving.faults.active() == {}


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object(client: Client, body: bytes) -> None:
    for path in ("/faults", "/speeds"):
        assert _ask(client, "POST" if path == "/faults" else "PUT", path, data=body).status_code == 422


def test_speeds(client: Client) -> None:
    before = _give(client, "GET", "/speeds")

    after = _give(client, "PUT", "/speeds", json={"every": 0, "starting": {"looks": 2}, "idle_after": 9})

    assert after == before | dict.fromkeys(("creating", "stale", "updating", "stopping"), 0) | {
        "starting": {"looks": 2},
        "idle_after": 9,
    }
    assert client.serving.world.cluster.speeds.starting == Looks(2)
    number = client.put()["id"]
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")
    assert [client.see(number)["status"] for _ in range(3)] == ["Starting", "Starting", "Running"]
    _give(client, "POST", "/reset")
    assert _give(client, "GET", "/speeds") == before


@pytest.mark.parametrize(
    "wrong", [{"sleeping": 1}, {"starting": "fast"}, {"starting": -1}, {"idle_after": {"looks": 2}}, {"every": None}]
)
def test_speeds_that_are_not_known(client: Client, wrong: dict[str, Any]) -> None:
    before = client.serving.world.cluster.speeds

    assert _ask(client, "PUT", "/speeds", json=wrong).status_code == 422

    assert client.serving.world.cluster.speeds == before


def test_the_journal(client: Client) -> None:
    client.put()
    client.give("GET", "/serving?name=digits")

    asked = _give(client, "GET", "/requests")["requests"]

    assert [(one["method"], one["path"], one["query"], one["status"]) for one in asked] == [
        ("PUT", "/project/119/serving", "", 201),
        ("GET", "/project/119/serving", "name=digits", 200),
    ]
    assert _give(client, "GET", "/requests?method=GET&path=/project/119/serving")["requests"] == asked[1:]
    assert client.serving.api_key not in str(asked)
    assert _give(client, "DELETE", "/requests") == {"requests": []}
    assert len(client.serving.requests) == 0


def test_reset(client: Client) -> None:
    number = client.put()["id"]
    _give(client, "POST", "/faults", json={"kind": "hold"})

    assert _give(client, "POST", "/reset") == {"requests": []}
    assert (client.serving.faults.active(), client.see(number)["id"]) == ({}, number)
    _give(client, "POST", "/reset?everything=true")
    assert client.give("GET", "/serving") == []
    assert client.give("GET", "/modelregistries/119/models")["count"] == 0
