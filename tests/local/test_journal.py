"""The journal of requests: which bodies it keeps, and how much memory they take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hsml.local import LocalServing, ServerOptions, cli
from airflow_provider_hsml.local.http import journal as under_test
from airflow_provider_hsml.local.http.journal import Asked, Journal
from tests.local.conftest import Client, load

if TYPE_CHECKING:
    from pathlib import Path


def _asked(number: int, content: bytes = b"") -> Asked:
    return Asked("PUT", f"/{number}", "", len(content), content, 200, f"/{number}")


def _json(size: int) -> bytes:
    return json.dumps("x" * (size - 2)).encode()


def test_the_oldest_bodies_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "ALL_BODIES_BYTES", 1000)
    journal = Journal()
    for number in range(50):
        journal.add(_asked(number, _json(300) if number % 2 else b""))

    assert len(journal) == 50, "the requests themselves are kept"
    assert [asked.path for asked in journal if asked.content] == ["/45", "/47", "/49"]
    assert journal[-1].body == "x" * 298
    journal.clear()
    journal.add(_asked(0, _json(1000)))
    assert journal[0].content


def test_the_oldest_requests_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "REQUESTS", 5)
    monkeypatch.setattr(under_test, "ALL_BODIES_BYTES", 1000)
    journal = Journal()
    for number in range(100):
        journal.add(_asked(number, _json(100 if number % 7 else 900)))

    assert [asked.path for asked in journal] == ["/95", "/96", "/97", "/98", "/99"]
    assert sum(len(asked.content) for asked in journal) <= 1000
    assert journal._body_bytes == sum(len(asked.content) for asked in journal)


def test_without_bodies() -> None:
    with LocalServing(engine=load, options=ServerOptions(keep_bodies=False)) as serving:
        serving.world.register_model("digits", {"model.pkl": b""})
        client = Client(serving)
        with client.session:
            client.put()
        (asked,) = serving.requests

    assert (asked.path, asked.body, asked.content) == ("/project/119/serving", None, b"")
    assert asked.body_bytes > 100


def test_long_paths_are_cut_off(client: Client) -> None:
    client.ask("GET", f"/dataset/{'x' * 20_000}?name={'y' * 20_000}")

    (asked,) = client.serving.requests
    assert max(len(asked.path), len(asked.query), len(asked.raw_path)) == under_test.PATH_CHARACTERS


@pytest.mark.parametrize("control", [True, False])
def test_the_command_keeps_bodies_only_for_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, control: bool
) -> None:
    given: list[ServerOptions] = []

    class Refusing:
        def __init__(self, *, options: ServerOptions, **_: object) -> None:
            given.append(options)
            raise ValueError("not started")

    monkeypatch.setattr("airflow_provider_hsml.local.http.server.LocalServing", Refusing)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    assert cli.main(["serve", "--root", str(tmp_path), *(["--control"] if control else [])]) == 2
    assert [(each.control, each.keep_bodies) for each in given] == [(control, control)]
