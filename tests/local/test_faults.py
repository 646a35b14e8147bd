"""Faults and time on command, in process: each is seen through the wire."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_hsml.local import Hold, LocalServing, Looks, LostChange, RequestFault, Speeds, StartFault
from tests.local.conftest import Client, load

if TYPE_CHECKING:
    from collections.abc import Iterator

_GPU = {"limits": {"cores": 1, "memory": 1024, "gpus": 1}, "requests": {"cores": 1, "memory": 1024, "gpus": 1}}
_LOST = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)


def _changed(client: Client, number: int, **fields: Any) -> Any:
    return client.give("PUT", "/serving?newVersion=true", json=client.see(number) | fields)


def _serving_version(client: Client) -> str:
    return client.predict().headers.get("x-hsml-local-model-version", "nobody")


def _until_it_answers(client: Client, version: str) -> None:
    """Wait until a version answers: before there is a route nobody does, during a hand-over both."""
    deadline = time.monotonic() + 10
    while _serving_version(client) != version:
        assert time.monotonic() < deadline


def _command(client: Client, number: int, action: str) -> None:
    client.give("POST", f"/serving/{number}?action={action}")


class TestRequests:
    def test_answers_that_are_made_up(self, client: Client) -> None:
        fault = RequestFault("PUT", "/project/*/serving", status=503, body="no healthy upstream", times=2)
        client.serving.faults.add(fault)

        answers = [client.ask("PUT", "/serving", json={"name": "digits"}) for _ in range(2)]

        assert [(answer.status_code, answer.text) for answer in answers] == [(503, "no healthy upstream")] * 2
        assert client.give("GET", "/serving") == [], "nothing was carried out"
        assert client.put()["name"] == "digits", "the fault is used up"
        assert [asked.status for asked in client.serving.requests.where("PUT")] == [503, 503, 201]

    def test_for_ever_with_body_and_headers(self, client: Client) -> None:
        number = client.serving.faults.add(
            RequestFault(path="**", status=401, body={"errorCode": 200003}, headers={"Retry-After": "7"}, times=None)
        )

        for path in ("/serving", "/dataset/Models", "//variables/versions"):
            answer = client.ask("GET", path)
            assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (
                401,
                {"errorCode": 200003},
                "7",
            )
        client.serving.faults.remove(number)
        assert client.give("GET", "/serving") == []

    def test_one_command_of_a_route(self, client: Client) -> None:
        number = client.put()["id"]
        client.until(number, "Created")
        client.serving.faults.add(RequestFault("POST", "**/serving/*?action=START", status=500, body="", times=None))

        assert client.ask("POST", f"/serving/{number}?action=STOP").json()["errorCode"] == 240003
        assert client.ask("POST", f"/serving/{number}?action=START").status_code == 500

    def test_a_delay(self, client: Client) -> None:
        client.serving.faults.add(RequestFault("GET", "/project/*/serving", delay=0.5))

        begin = time.monotonic()
        assert client.give("GET", "/serving") == []

        assert time.monotonic() - begin >= 0.5

    @pytest.mark.parametrize(("drop", "names"), [("before", []), ("after", ["digits"])])
    @pytest.mark.parametrize("tls", [False, True])
    def test_a_connection_that_is_dropped(self, drop: Any, names: list[str], *, tls: bool) -> None:
        with LocalServing(engine=load, tls=tls) as serving:
            serving.world.register_model("digits", {"model.pkl": b""})
            client = Client(serving)
            with client.session:
                client.session.headers["Connection"] = "close"
                serving.faults.add(RequestFault("PUT", "/project/*/serving", drop=drop))
                with pytest.raises(_LOST):
                    client.put()
                assert [row["name"] for row in client.give("GET", "/serving")] == names
                assert [asked.status for asked in serving.requests.where("PUT")] == [0]

    def test_the_ingress_as_well(self, client: Client) -> None:
        client.running()
        path = "/v1/example/digits/v1/models/digits"
        client.serving.faults.add(RequestFault("GET", "/v1/*/digits/**", status=504, body="upstream request timeout"))
        client.serving.faults.add(RequestFault("GET", "/v1/**", drop="after"))

        assert client.ask_ingress("GET", path).status_code == 504
        with pytest.raises(_LOST):
            client.ask_ingress("GET", path)
        assert client.ask_ingress("GET", path).ok

    def test_a_body_that_is_cut(self, client: Client) -> None:
        client.serving.faults.add(RequestFault("PUT", "/project/*/serving", cut=10))

        with pytest.raises(_LOST):
            client.put()

        assert len(client.give("GET", "/serving")) == 1, "it was carried out"

    def test_an_empty_body_that_is_cut(self, client: Client) -> None:
        number = client.put()["id"]
        client.serving.faults.add(RequestFault("DELETE", cut=0))

        with pytest.raises(_LOST):
            client.ask("DELETE", f"/serving/{number}")

        assert client.give("GET", "/serving") == []


class TestStarts:
    def test_no_room_for_a_while(self, client: Client) -> None:
        client.serving.faults.add(StartFault(stage="SCHEDULED", reason="0/3 nodes are available", lasts=1.5))
        number = client.put()["id"]
        client.until(number, "Created")
        _command(client, number, "START")

        seen = client.until(number, "Failed")
        assert seen["condition"] == {
            "type": "SCHEDULED",
            "status": False,
            "reason": "Failed to be scheduled: 0/3 nodes are available",
        }
        client.until(number, "Running")
        _until_it_answers(client, "1")

    @pytest.mark.parametrize("stage", ["SCHEDULED", "INITIALIZED", "STARTED", "READY"])
    def test_a_start_that_fails_for_good(self, client: Client, stage: Any) -> None:
        client.serving.faults.add(StartFault("digits", stage=stage, reason="No module named 'nothing'"))
        number = client.put()["id"]
        client.until(number, "Created")
        _command(client, number, "START")

        seen = client.until(number, "Failed")["condition"]
        assert (seen["type"], seen["status"]) == (stage, False)
        assert seen["reason"].endswith(": No module named 'nothing'")
        logs = client.give("GET", f"/serving/{number}/logs?tail=50")[0]["content"]
        assert ("No module named 'nothing'" in logs) == (stage == "STARTED")
        _command(client, number, "STOP")
        client.until(number, "Stopped")
        _command(client, number, "START")
        client.until(number, "Running")

    def test_an_update_that_fails_while_the_old_instance_answers(self, client: Client) -> None:
        number = client.running()
        client.serving.faults.add(StartFault("digits", lasts=1.5))
        _changed(client, number, modelVersion=2)

        client.until(number, "Failed")
        assert _serving_version(client) == "1"
        client.until(number, "Running")
        _until_it_answers(client, "2")

    def test_a_crash_after_running(self, client: Client) -> None:
        client.serving.faults.add(StartFault(crash_after=1.5, reason="exit code 137"))
        number = client.running()

        seen = client.until(number, "Failed")
        assert seen["condition"]["reason"] == "Failed to run: exit code 137"
        assert "exit code 137" in client.give("GET", f"/serving/{number}/logs")[0]["content"]
        assert not client.predict().ok
        time.sleep(0.3)
        assert client.see(number)["status"] == "Failed"

    def test_one_crash_that_it_recovers_from(self, client: Client) -> None:
        client.serving.faults.add(StartFault(crash_after=1.5, lasts=1.0))
        number = client.running()

        client.until(number, "Failed")
        client.until(number, "Running")
        assert client.predict().ok

    def test_a_fault_of_another_deployment(self, client: Client) -> None:
        client.serving.faults.add(StartFault("other"))

        client.running()

        assert len(client.serving.faults.active()) == 1


class TestHolds:
    @pytest.mark.parametrize(
        ("status", "stays"), [("Created", "Creating"), ("Running", "Starting"), ("Stopped", "Stopping")]
    )
    def test_a_transition_waits_for_its_release(self, client: Client, status: str, stays: str) -> None:
        hold = client.serving.faults.add(Hold("digits", status))
        number = client.put()["id"]
        if status != "Created":
            client.until(number, "Created")
            _command(client, number, "START")
        if status == "Stopped":
            client.until(number, "Running")
            _command(client, number, "STOP")
        client.until(number, stays)
        time.sleep(0.5)
        assert client.see(number)["status"] == stays

        client.serving.faults.remove(hold)

        client.until(number, status)

    def test_an_update_that_does_not_begin(self, client: Client) -> None:
        number = client.running()
        client.serving.faults.add(Hold(status="Updating"))
        _changed(client, number, modelVersion=2)
        time.sleep(0.5)
        assert (client.see(number)["status"], _serving_version(client)) == ("Running", "1")

        client.serving.faults.clear()

        _until_it_answers(client, "2")

    def test_what_is_held_can_be_deleted(self, client: Client) -> None:
        client.serving.faults.add(Hold(status="Running"))
        number = client.put()["id"]
        client.until(number, "Created")
        _command(client, number, "START")

        client.give("DELETE", f"/serving/{number}")

        assert client.give("GET", "/serving") == []


class TestLostChanges:
    def test_only_of_one_deployment(self, client: Client) -> None:
        client.serving.faults.add(LostChange("other"))
        number = client.running()
        _changed(client, number, modelVersion=2)

        _until_it_answers(client, "2")


class TestTime:
    def test_at_once(self, client: Client) -> None:
        client.serving.world.cluster.speeds = Speeds.every(0)
        number = client.put()["id"]

        client.until(number, "Created", seconds=2)
        _command(client, number, "START")
        client.until(number, "Running", seconds=2)

    def test_after_so_many_looks(self, client: Client) -> None:
        client.serving.world.cluster.speeds = Speeds.every(Looks(3))
        number = client.put()["id"]

        def statuses(looks: int) -> list[str]:
            return [client.see(number)["status"] for _ in range(looks)]

        assert statuses(5) == ["Creating"] * 3 + ["Created"] * 2
        _command(client, number, "START")
        assert statuses(5) == ["Starting"] * 3 + ["Running"] * 2
        _changed(client, number, modelVersion=2)
        assert statuses(8) == ["Running"] * 3 + ["Updating"] * 3 + ["Running"] * 2
        _command(client, number, "STOP")
        assert statuses(4) == ["Stopping"] * 3 + ["Stopped"]

    def test_other_requests_are_no_looks(self, client: Client) -> None:
        client.serving.world.cluster.speeds = Speeds.every(Looks(1))
        number = client.put()["id"]
        for _ in range(3):
            client.give("GET", f"/serving/{number}/versions")

        assert [client.see(number)["status"] for _ in range(2)] == ["Creating", "Created"]


class TestGpus:
    @pytest.fixture
    def pair(self, client: Client) -> tuple[int, int]:
        """Two deployments that need the one GPU, the first of which has it."""
        first = client.running("first", predictorResources=_GPU)
        second = client.put("second", predictorResources=_GPU)["id"]
        client.until(second, "Created")
        return first, second

    def test_the_second_waits_until_the_first_is_stopped(self, client: Client, pair: tuple[int, int]) -> None:
        first, second = pair
        _command(client, second, "START")

        condition = client.until(second, "Failed")["condition"]
        assert (condition["type"], condition["status"]) == ("SCHEDULED", False)
        assert "Insufficient nvidia.com/gpu" in condition["reason"]
        time.sleep(0.3)
        assert client.see(second)["status"] == "Failed"
        client.running("third")  # It needs none.
        _command(client, first, "STOP")

        client.until(second, "Running")
        client.until_routed(second)
        assert client.predict("second").ok

    def test_a_rolling_update_waits_for_the_gpu_of_the_old_instance(
        self, client: Client, pair: tuple[int, int]
    ) -> None:
        first, _ = pair
        _changed(client, first, modelVersion=2)

        assert client.until(first, "Failed")["condition"]["type"] == "SCHEDULED"
        assert client.predict("first").headers["x-hsml-local-model-version"] == "1"
        _command(client, first, "STOP")
        client.until(first, "Stopped")
        _command(client, first, "START")
        client.until(first, "Running")
        client.until_routed(first)
        assert client.predict("first").headers["x-hsml-local-model-version"] == "2"

    def test_a_waiting_one_can_be_stopped(self, client: Client, pair: tuple[int, int]) -> None:
        _, second = pair
        _command(client, second, "START")
        client.until(second, "Failed")

        _command(client, second, "STOP")

        client.until(second, "Stopped")

    def test_an_idle_one_has_none(self, client: Client) -> None:
        scaling = {"minInstances": 0}
        client.serving.world.cluster.speeds = Speeds(idle_after=0.2)
        first = client.running("first", predictorResources=_GPU, predictorScalingConfig=scaling, requestedInstances=0)
        client.until(first, "Idle")

        client.running("second", predictorResources=_GPU)

        assert not client.predict("first").ok, "there is no GPU for it to wake up with"

    def test_the_plain_profile_has_enough(self) -> None:
        with LocalServing(engine=load, profile="plain") as serving:
            serving.world.register_model("digits", {"model.pkl": b""})
            client = Client(serving)
            with client.session:
                for name in ("first", "second"):
                    client.running(name, predictorResources=_GPU)


class TestReset:
    def test_faults_and_speeds(self, client: Client) -> None:
        serving = client.serving
        before = serving.world.cluster.speeds
        serving.world.cluster.speeds = Speeds.every(Looks(9))
        serving.faults.add(Hold())
        number = client.put()["id"]

        serving.reset()

        assert serving.world.cluster.speeds == before
        assert (serving.faults.active(), list(serving.requests)) == ({}, [])
        assert client.see(number)["name"] == "digits"

    def test_everything(self, client: Client) -> None:
        client.running()
        client.give("POST", "/dataset/Resources/folder?action=create")

        client.serving.reset(everything=True)

        assert client.give("GET", "/serving") == []
        assert client.give("GET", "/modelregistries/119/models")["count"] == 0
        for dataset in ("Models", "Resources"):
            assert client.give("GET", f"/dataset/{dataset}?action=listing")["count"] == 0
        assert client.serving.world.register_model("digits", {"model.pkl": b""}) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        RequestFault,
        lambda: RequestFault(status=99),
        lambda: RequestFault(status=500, drop="before"),
        lambda: RequestFault(delay=-1),
        lambda: RequestFault(drop="during"),  # type: ignore[arg-type]
        lambda: RequestFault(cut=-1),
        lambda: RequestFault(status=500, times=0),
        lambda: RequestFault(status=500, headers={"retry-after": 7}),  # type: ignore[dict-item]
        lambda: StartFault(stage="NEVER"),  # type: ignore[arg-type]
        lambda: StartFault(lasts=-1),
        lambda: Hold(status="Failed"),
        lambda: LostChange(7),  # type: ignore[arg-type]
    ],
)
def test_a_fault_that_makes_no_sense(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|Nothing|exclude"):
        wrong()


@pytest.fixture
def client(serving: LocalServing) -> Iterator[Client]:
    client = Client(serving)
    with client.session:
        yield client
