"""Where a careless client is wrong: rows that run ahead, changes that are lost, answers without a state."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_hsml.local import LocalServing, Profile, Speeds
from airflow_provider_hsml.local.cluster.faults import Hold, StartFault
from tests.local.conftest import Client, load

if TYPE_CHECKING:
    from collections.abc import Callable


def _changed(client: Client, number: int, **fields: Any) -> Any:
    return client.give("PUT", "/serving?newVersion=true", json=client.see(number) | fields)


def _serving_version(client: Client) -> str:
    return client.predict().headers.get("x-hsml-local-model-version", "nobody")


@pytest.mark.usefixtures("unhurried")
def test_the_row_changes_first_the_instances_later(client: Client) -> None:
    number = client.running()
    before = client.see(number)

    _changed(client, number, modelVersion=2)

    seen = client.see(number)
    assert (seen["version"], seen["modelVersion"], seen["status"]) == (2, 2, "Running")
    assert seen["revision"] != before["revision"]
    assert _serving_version(client) == "1", "the status is stale: the old instance answers"
    client.until(number, "Updating")
    client.until(number, "Running")
    client.until_answered_by(2)


def test_with_knative_the_stale_status_is_idle() -> None:
    with LocalServing(
        engine=load, profile=Profile(stale_status="Idle"), speeds=Speeds(stale=1.0, updating=1.0)
    ) as serving:
        for _ in range(2):
            serving.world.register_model("digits", {"model.pkl": b""})
        client = Client(serving)
        with client.session:
            number = client.running()
            _changed(client, number, modelVersion=2)
            seen = client.see(number)
            assert (seen["status"], seen["availableInstances"]) == ("Idle", 0)
            assert _serving_version(client) == "1"
            client.until(number, "Updating")
            client.until(number, "Running")
            client.until_answered_by(2)


def test_some_modes_never_show_updating() -> None:
    with LocalServing(engine=load, profile=Profile(shows_updating=False)) as serving:
        for _ in range(2):
            serving.world.register_model("digits", {"model.pkl": b""})
        client = Client(serving)
        with client.session:
            number = client.running()
            _changed(client, number, modelVersion=2)
            statuses = set()
            while _serving_version(client) == "1":
                statuses.add(client.see(number)["status"])
            assert statuses == {"Running"}


@pytest.mark.usefixtures("unhurried")
def test_a_change_that_is_lost(client: Client) -> None:
    number = client.running()
    client.serving.world.lose_next_change()

    _changed(client, number, modelVersion=2)
    time.sleep(3.5)

    seen = client.see(number)
    assert (seen["version"], seen["modelVersion"], seen["status"]) == (2, 2, "Running")
    assert _serving_version(client) == "1", "and it stays so"
    _changed(client, number, description="the next change is not lost")
    client.until(number, "Updating")
    client.until(number, "Running")
    client.until_answered_by(2)


def test_put_answers_without_a_state(client: Client) -> None:
    answer = client.put()

    hidden = ("status", "condition", "availableInstances", "hopsworksInferencePath", "modelServerInferencePath")
    assert {key: answer[key] for key in hidden} == dict.fromkeys(hidden)


def test_a_put_that_changes_nothing_does_nothing(client: Client) -> None:
    number = client.running()
    before = client.see(number)

    client.give("PUT", "/serving?newVersion=true", json=before)
    time.sleep(0.3)

    assert client.see(number) == before
    assert client.give("GET", f"/serving/{number}/versions")["count"] == 1


def test_revisions_are_not_ordered(client: Client) -> None:
    number = client.put()["id"]
    client.until(number, "Created")
    revisions = []
    for _ in range(6):
        client.give("POST", f"/serving/{number}?action=START")
        revisions.append(client.until(number, "Running")["revision"])
        client.give("POST", f"/serving/{number}?action=STOP")
        client.until(number, "Stopped")

    assert len(set(revisions)) == 6
    assert revisions != sorted(revisions)


def test_the_plain_profile() -> None:
    with LocalServing(engine=load, profile="plain") as serving:
        for _ in range(2):
            serving.world.register_model("digits", {"model.pkl": b""})
        client = Client(serving)
        with client.session:
            assert client.put("first")["status"] == "Creating"
            number = client.running()
            assert client.see(number)["revision"] == "00001"
            assert _changed(client, number, modelVersion=2)["status"] == "Updating"
            assert client.until(number, "Running")["revision"] == "00002"
            assert {_serving_version(client) for _ in range(4)} == {"2"}
            client.give("POST", f"/serving/{number}?action=STOP")
            client.until(number, "Stopped")
            client.give("POST", f"/serving/{number}?action=START")
            client.until(number, "Running")
            assert client.predict().ok, "the route is there at once"


@pytest.mark.usefixtures("unhurried")
def test_no_request_is_lost_in_an_update(client: Client) -> None:
    """The new instance answers before the old one is drained; what was sent to the old one is answered."""
    number = client.running()
    statuses: list[int] = []
    versions: list[str] = []
    done = threading.Event()

    def keep_asking() -> None:
        other = Client(client.serving)
        with other.session:
            while not done.is_set():
                answer = other.predict()
                statuses.append(answer.status_code)
                versions.append(answer.headers.get("x-hsml-local-model-version", ""))

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for model_version in (2, 1, 2):
            _changed(client, number, modelVersion=model_version)
            client.until(number, "Updating")
            client.until(number, "Running")
    finally:
        done.set()
        for thread in threads:
            thread.join()

    assert set(statuses) == {200}
    assert set(versions) == {"1", "2"}


def test_both_instances_have_logs_while_one_replaces_the_other() -> None:
    old_may_end = threading.Event()

    def slow(model: Any) -> Callable[[Any], list[Any]]:
        def predict(rows: Any) -> list[Any]:
            if model.version == 1:
                old_may_end.wait(10)
            return [model.version for _ in rows]

        return predict

    with LocalServing(engine=slow, speeds=Speeds(updating=1.5)) as serving:
        for _ in range(2):
            serving.world.register_model("digits", {"model.pkl": b""})
        client = Client(serving)
        with client.session:
            number = client.running()
            answers: list[int] = []
            asker = threading.Thread(target=lambda: answers.append(client.predict().json()["predictions"][0]))
            asker.start()
            time.sleep(0.1)
            try:
                other = Client(serving)
                with other.session:
                    _changed(other, number, modelVersion=2)
                    other.until(number, "Updating")
                    other.until(number, "Running")
                    during = other.give("GET", f"/serving/{number}/logs")
                    revision = other.see(number)["revision"]
            finally:
                old_may_end.set()
                asker.join()
            assert answers == [1], "what was under way was answered by the old instance"
            assert [revision in log["instanceName"] for log in during] == [False, True]
            deadline = time.monotonic() + 5
            while len(client.give("GET", f"/serving/{number}/logs")) > 1:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_both_answer_while_one_hands_over_to_the_other(client: Client) -> None:
    client.serving.world.cluster.speeds = Speeds(stale=0, handing_over=60)
    number = client.running()
    hold = client.serving.faults.add(Hold(status="Running"))

    _changed(client, number, modelVersion=2)
    deadline = time.monotonic() + 10
    while _serving_version(client) != "2":
        assert time.monotonic() < deadline
    assert client.see(number)["status"] == "Updating"
    assert {_serving_version(client) for _ in range(4)} == {"1", "2"}
    client.serving.faults.remove(hold)
    client.until(number, "Running")
    assert {_serving_version(client) for _ in range(4)} == {"1", "2"}
    assert len(client.give("GET", f"/serving/{number}/logs")) == 2, "the one that leaves is still there"


def test_the_hand_over_ends(client: Client) -> None:
    number = client.running()

    _changed(client, number, modelVersion=2)

    client.until_answered_by(2)
    deadline = time.monotonic() + 5
    while len(client.give("GET", f"/serving/{number}/logs")) > 1:
        assert time.monotonic() < deadline


def test_a_newer_change_ends_the_hand_over(client: Client) -> None:
    client.serving.world.cluster.speeds = Speeds(stale=0.1, handing_over=60)
    number = client.running()
    _changed(client, number, modelVersion=2)
    while _serving_version(client) != "2":
        time.sleep(0.005)
    client.until(number, "Running")
    assert {_serving_version(client) for _ in range(4)} == {"1", "2"}

    client.give("POST", f"/serving/{number}?action=STOP")

    client.until(number, "Stopped", seconds=5)


def test_some_requests_may_get_a_503_in_the_hand_over() -> None:
    profile = Profile(hand_over_503_every=3)
    with LocalServing(engine=load, profile=profile, speeds=Speeds(stale=0, handing_over=60)) as serving:
        for _ in range(2):
            serving.world.register_model("digits", {"model.pkl": b""})
        client = Client(serving)
        with client.session:
            number = client.running()
            _changed(client, number, modelVersion=2)
            while _serving_version(client) != "2":
                time.sleep(0.005)
            client.until(number, "Running")
            answers = [client.predict() for _ in range(9)]

    assert [answer.status_code for answer in answers].count(500) == 3
    (text,) = {answer.json()["usrMsg"] for answer in answers if not answer.ok}
    assert text.startswith("upstream connect error")


def test_a_change_while_logs_are_read_is_refused(client: Client) -> None:
    number = client.running()
    client.serving.world.cluster.speeds = Speeds(reading_logs=2.0)

    with ThreadPoolExecutor() as threads, requests.Session() as one, requests.Session() as other:
        readers = [Client(client.serving, session) for session in (one, other)]
        readings = [threads.submit(reader.give, "GET", f"/serving/{number}/logs") for reader in readers]
        _until_locked(client, number)
        assert client.refused("PUT", "/serving", json=client.see(number) | {"modelVersion": 2}) == (500, 240004)
        assert client.refused("POST", f"/serving/{number}?action=STOP") == (500, 240004)
        assert client.refused("DELETE", f"/serving/{number}") == (500, 240004)
        assert [len(reading.result()) for reading in readings] == [1, 1], "several may read"
    client.give("POST", f"/serving/{number}?action=STOP")
    client.until(number, "Stopped")
    assert client.refused("GET", f"/serving/{number}/logs") == (404, 240027)


def test_the_logs_of_a_new_start_are_new(client: Client) -> None:
    number = client.running()
    (before,) = client.give("GET", f"/serving/{number}/logs")
    client.give("POST", f"/serving/{number}?action=STOP")
    client.until(number, "Stopped")
    client.serving.faults.add(StartFault(stage="SCHEDULED"))
    client.give("POST", f"/serving/{number}?action=START")
    client.until(number, "Failed")

    (unscheduled,) = client.give("GET", f"/serving/{number}/logs")

    assert "Model is ready" in before["content"]
    assert unscheduled["content"] == ""
    assert unscheduled["instanceName"] != before["instanceName"]


def test_logs_are_capped(client: Client) -> None:
    number = client.running()
    for _ in range(80):
        client.predict(instances=["fail"])  # A traceback each.

    (log,) = client.give("GET", f"/serving/{number}/logs?tail=100000")

    assert 40_000 < len(log["content"].encode()) <= 50_000
    assert log["content"].endswith("such a row is not known")


def test_a_slow_put(client: Client) -> None:
    number = client.running()
    before = client.see(number)
    client.serving.world.cluster.speeds = Speeds(putting=2.0)

    with ThreadPoolExecutor() as threads, requests.Session() as session:
        body = before | {"modelVersion": 2}
        putting = threads.submit(Client(client.serving, session).give, "PUT", "/serving?newVersion=true", json=body)
        _until_locked(client, number)
        assert client.see(number) == before
        assert client.refused("POST", f"/serving/{number}?action=STOP") == (500, 240004)
        assert putting.result()["modelVersion"] == 2
    assert client.see(number)["modelVersion"] == 2


def test_a_lock_that_is_left_behind(client: Client) -> None:
    number = client.running()
    changed = client.see(number) | {"modelVersion": 2}
    client.serving.world.leave_lock("digits", seconds=1.0)

    assert client.refused("PUT", "/serving", json=changed) == (500, 240004)
    assert client.see(number)["modelVersion"] == 1
    deadline = time.monotonic() + 10
    while not client.ask("PUT", "/serving", json=changed).ok:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.see(number)["modelVersion"] == 2


def _until_locked(client: Client, number: int) -> None:
    """Wait until a change is refused: a rollback to the active version, which changes nothing."""
    deadline = time.monotonic() + 2
    while client.ask("POST", f"/serving/{number}/rollback", json={"version": 1}).status_code != 500:
        assert time.monotonic() < deadline


def test_a_list_costs_time_for_each_deployment(client: Client) -> None:
    for number in range(10):
        client.put(f"one{number}")
    begun = time.monotonic()

    assert len(client.give("GET", "/serving?status=running")) == 0

    assert time.monotonic() - begun >= 0.2


def test_speeds_can_be_changed_while_it_runs(client: Client) -> None:
    client.serving.world.cluster.speeds = Speeds(starting=2.0)
    number = client.put()["id"]
    client.until(number, "Created")
    seen = []
    client.give("POST", f"/serving/{number}?action=START")
    while (state := client.see(number))["status"] == "Starting":
        if state["condition"]["type"] not in seen:
            seen.append(state["condition"]["type"])
        time.sleep(0.01)

    assert seen == ["SCHEDULED", "INITIALIZED", "STARTED", "READY"]


def test_a_profile_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="'real', 'plain' or a Profile"):
        LocalServing(profile="surreal")
