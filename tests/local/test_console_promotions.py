"""The history of promotions on the console, from a journal of any content; `tests/airflow` writes real ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local.console import promotions
from airflow_provider_hsml.local.console.pages import kind
from airflow_provider_hsml.local.console.promotions import FOLDER, Mark, Served
from airflow_provider_hsml.local.world.files import ProjectFiles
from tests.local.test_console import PROJECT, page, words

if TYPE_CHECKING:
    from pathlib import Path

    from tests.local.conftest import Client

NOW = 10_000.0


def served(version: int | None) -> dict[str, Any]:
    return {"project": "example", "name": "digits", "version": version}


def entry(key: str, state: str, version: int | None, before: int | None, at: float, **more: Any) -> dict[str, Any]:
    """An entry of the journal, without the keys that the console does not read."""
    return {
        "id": key,
        "state": state,
        "run": f"retrain/night {version}/deploy/-1@2",
        "at": at,
        "timeout": 600.0,
        "challenger": served(version),
        "before": None if before is None else {"served": served(before)},
        "reason": "",
        "rejected": [],
    } | more


def rejection(version: int, at: float, reason: str = "its answers are wrong") -> dict[str, Any]:
    return {"served": served(version), "at": at, "reason": reason}


@pytest.fixture
def files(tmp_path: Path) -> ProjectFiles:
    return ProjectFiles("example", tmp_path / "files", tmp_path / "staging")


def write(files: ProjectFiles, *entries: Any, name: str = "digits") -> None:
    for number, each in enumerate(entries, start=1):
        content = each if isinstance(each, bytes) else json.dumps(each).encode()
        files.write(f"{FOLDER}/{name}/{number:08}-a0123456.json", content)


def history(files: ProjectFiles) -> list[tuple[str, int | None]]:
    return [(each.result, each.served.version) for each in promotions.promotions(files, "digits", NOW)]


def marked(files: ProjectFiles) -> dict[int | None, str]:
    found = promotions.marks(promotions.promotions(files, "digits", NOW))
    return {each.version: mark.result for each, mark in found.items()}


FIRST = entry("a", "promoting", 1, None, 100), entry("a", "verified", 1, None, 110)
FAILED = (
    entry("b", "promoting", 2, 1, 200),
    entry("b", "rolling_back", 2, 1, 210, reason="it lies", rejected=[rejection(2, 210, "it lies")]),
    entry("b", "rolled_back", 2, 1, 220, reason="it lies", rejected=[rejection(2, 210, "it lies")]),
)


def test_one_row_for_each_promotion(files: ProjectFiles) -> None:
    write(files, *FIRST, *FAILED)

    newest, first = promotions.promotions(files, "digits", NOW)

    assert (newest.result, newest.reason, newest.before.version) == ("rolled back", "it lies", 1)
    assert newest.task == "retrain/night 2/deploy/-1"
    assert (first.result, first.served, first.before.name) == ("verified", Served("example", "digits", 1), None)
    assert promotions.marks([newest, first]) == {newest.served: Mark("rolled back", "it lies", "digits")}


@pytest.mark.parametrize(
    ("entries", "shown", "bad"),
    [
        # A preflight adds a rejection to a copy of the newest entry.
        (
            [*FIRST, FIRST[1] | {"rejected": [rejection(3, 300)]}],
            [("rejected", 3), ("verified", 1)],
            {3: "rejected"},
        ),
        # Or, without a journal, to an entry that was never sent.
        (
            [entry("c", "superseded", 3, 1, 300, reason="It was not sent", rejected=[rejection(3, 300)])],
            [("superseded", 3)],
            {},
        ),
        # The entry of a rejection was deleted: the journal keeps the last twenty files.
        (
            [entry("d", "verified", 4, 1, 400, rejected=[rejection(3, 300)])],
            [("verified", 4), ("rejected", 3)],
            {3: "rejected"},
        ),
        # By hand: from version 2 back to version 1.
        (
            [
                *FIRST,
                entry("e", "verified", 2, 1, 200),
                entry("f", "promoting", 1, 2, 300, is_rollback=True, rejected=[rejection(2, 301)]),
                entry("f", "verified", 1, 2, 310, is_rollback=True, rejected=[rejection(2, 301)]),
            ],
            [("verified", 1), ("verified", 2), ("verified", 1)],
            {2: "rolled back"},
        ),
        # It was tried again, and has passed.
        (
            [*FIRST, *FAILED, entry("g", "verified", 2, 1, 500)],
            [("verified", 2), ("rolled back", 2), ("verified", 1)],
            {},
        ),
        # The configuration failed, not the version.
        ([*FIRST, entry("h", "rolled_back", 1, 1, 200)], [("rolled back", 1), ("verified", 1)], {}),
        ([*FIRST, entry("i", "promoting", 2, 1, NOW - 10)], [("in progress", 2), ("verified", 1)], {}),
        (
            [*FIRST, entry("i", "rolling_back", 2, 1, NOW - 10)],
            [("rolling back", 2), ("verified", 1)],
            {2: "rolling back"},
        ),
        # Its worker was killed, and nothing has verified it since.
        ([*FIRST, entry("i", "promoting", 2, 1, NOW - 601)], [("unverified", 2), ("verified", 1)], {}),
        ([*FIRST, entry("i", "promoting", 2, 1, 150), FIRST[1]], [("not finished", 2), ("verified", 1)], {}),
        ([*FIRST, entry("i", "failed", 2, 1, 150)], [("unverified", 2), ("verified", 1)], {}),
        # Of a newer provider, perhaps.
        ([entry("j", "approved", 2, 1, 150)], [("approved", 2)], {}),
        ([], [], {}),
    ],
)
def test_results(files: ProjectFiles, entries: list[Any], shown: list[Any], bad: dict[int, str]) -> None:
    write(files, *entries)

    assert history(files) == shown
    assert marked(files) == bad


@pytest.mark.parametrize(
    "odd",
    [
        b"no json",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"id": [], "state": 7, "at": "x", "challenger": [], "before": 1, "rejected": {"a": 1}, "reason": null}',
        b'{"id": "x", "state": "promoting", "at": 1e999, "timeout": true, "rejected": [1, {"served": 1, "at": -1}]}',
        json.dumps(entry("x", "verified", None, 1, 1e300, challenger=served(None) | {"version": True})).encode(),
        b'{"state": "verified", "reason": "' + b"x" * (5 << 20) + b'"}',
        b'{"state": "verified", "reason": "' + b"x" * 5000 + b'"}',
    ],
)
def test_a_journal_of_any_content(files: ProjectFiles, odd: bytes) -> None:
    write(files, FIRST[0], FIRST[1], odd)
    files.write(f"{FOLDER}/digits/lease-preflight-{'0' * 32}-000001.json", b"{}")

    assert ("verified", 1) in history(files)
    assert all(len(each.reason) <= 2000 for each in promotions.promotions(files, "digits", NOW))


@pytest.mark.parametrize(
    ("run", "task"),
    [
        ("retrain/night@home/deploy/-1@2", "retrain/night@home/deploy/-1"),
        ("retrain/night/deploy/-1@0/0197-region", "retrain/night/deploy/-1"),
        ("retrain/night/deploy/-1", "retrain/night/deploy/-1"),
        ("", ""),
    ],
)
def test_the_task_of_a_run(files: ProjectFiles, run: str, task: str) -> None:
    write(files, entry("a", "verified", 1, None, 110, run=run))

    assert [each.task for each in promotions.promotions(files, "digits", NOW)] == [task]


@pytest.mark.parametrize(
    ("word", "shown"),
    [("Starting", "moving"), ("in progress", "moving"), ("rolling back", "moving"), ("approved", "down")],
)
def test_only_what_moves_has_the_colour_of_it(word: str, shown: str) -> None:
    assert kind(word) == shown


def test_what_the_pages_say(client: Client) -> None:
    number = client.running()
    write(client.serving.world.project(119).files, *FIRST, *FAILED)
    key = client.serving.api_key
    gone = entry("z", "rolled_back", 3, 1, 300, reason=f"<b>it</b> told {key}")
    write(client.serving.world.project(119).files, gone, name="another")

    deployment = words(page(client, f"{PROJECT}/deployments/{number}"))
    model = page(client, f"{PROJECT}/models/digits")
    second = words(page(client, f"{PROJECT}/models/digits/2"))
    third = page(client, f"{PROJECT}/models/digits/3")

    row = "rolled back digits 2 before: digits 1 it lies 1970-01-01 00:03:40 UTC retrain/night 2/deploy/-1"
    assert f"{row} verified digits 1 1970-01-01 00:01:50 UTC" in deployment
    assert "A change is in progress" not in deployment
    assert "model version 2: 0.92, rolled back" in model
    assert "2 rolled back by digits: it lies" in words(model)
    assert "digits, model version 2 rolled back Rolled back by deployment digits: it lies" in second
    assert "Rolled back by deployment another: &lt;b&gt;it&lt;/b&gt; told &lt;API key&gt;" in third
    assert key not in model


def test_a_page_follows_a_promotion(client: Client) -> None:
    """While a promotion is verified, its deployment is Running."""
    number = client.running()
    files = client.serving.world.project(119).files
    begun = entry("a", "promoting", 2, 1, 3e9)
    write(files, begun)

    assert 'http-equiv="refresh"' in page(client, f"{PROJECT}/deployments/{number}")
    write(files, begun | {"state": "verified"})
    assert "http-equiv" not in page(client, f"{PROJECT}/deployments/{number}")


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("path", ["", "/models/digits", "/models/digits/1", "/deployments/{}"])
def test_every_page_refreshes_while_a_deployment_moves(client: Client, path: str) -> None:
    number = client.put()["id"]
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")

    text = page(client, f"{PROJECT}{path.format(number)}")
    assert 'http-equiv="refresh"' in text
    assert "A change is in progress. This page refreshes every 2 seconds." in text
    client.until(number, "Running")
    assert "http-equiv" not in page(client, f"{PROJECT}{path.format(number)}")


def test_the_log_of_the_last_failure(client: Client) -> None:
    number = client.put(modelVersion=3)["id"]
    client.until(number, "Created")
    here = f"{PROJECT}/deployments/{number}"
    assert "No instance is running, and no log of a failure is kept." in words(page(client, here))

    client.give("POST", f"/serving/{number}?action=START")
    client.until(number, "Failed")
    assert "This is the log of the last failure" not in page(client, here)
    client.give("POST", f"/serving/{number}?action=STOP")
    client.until(number, "Stopped")

    said = words(page(client, here))
    assert "This is the log of the last failure; the deployment was stopped on 20" in said
    assert "predictor digits-predictor-" in said
    assert "the pickle is broken" in said
