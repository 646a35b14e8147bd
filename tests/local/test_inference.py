"""Predictions through Hopsworks: what comes out of what the model says."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import LocalServing, Speeds
from tests.local.conftest import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.local import ModelFiles


def test_a_prediction(client: Client) -> None:
    client.running()

    answer = client.predict(instances=[[1], [2], [3]])

    assert answer.json() == {"predictions": [1, 1, 1]}
    assert answer.headers["x-hsml-local-model-version"] == "1"
    assert answer.headers["x-hsml-local-instance"].startswith("digits-predictor-")
    assert client.predict(inputs=[[1]]).json() == {"predictions": [1]}
    versioned = client.ask("POST", "/inference/models/digits/versions/1:predict", json={"instances": [[1]]})
    assert versioned.json() == {"predictions": [1]}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("digits", (400, 250005)),
        ("unknown:predict", (404, 250000)),
        ("digits:classify", (400, 250004)),
    ],
)
def test_a_target_that_is_wrong(client: Client, target: str, expected: tuple[int, int]) -> None:
    client.put()

    assert client.refused("POST", f"/inference/models/{target}", json={"instances": [[1]]}) == expected


@pytest.mark.parametrize("body", [{"rows": [1]}, {"instances": [[1]], "inputs": [[1]]}, [[1]], None])
def test_neither_or_both_of_instances_and_inputs(client: Client, body: Any) -> None:
    client.running()

    assert client.refused("POST", "/inference/models/digits:predict", json=body) == (400, 250004)


def test_what_a_model_raises(client: Client) -> None:
    number = client.running()

    answer = client.predict(instances=["fail"])

    assert (answer.status_code, answer.json()["errorCode"]) == (500, 250007)
    assert "such a row is not known" in answer.json()["usrMsg"]
    assert "ValueError" in client.give("GET", f"/serving/{number}/logs?tail=5")[0]["content"]


def test_nothing_answers_before_it_runs(client: Client) -> None:
    number = client.put()["id"]
    client.until(number, "Created")

    answer = client.predict()

    assert (answer.status_code, answer.json()["errorCode"]) == (400, 250001)


def test_the_route_is_there_some_time_after_running(client: Client) -> None:
    client.serving.world.cluster.speeds = Speeds(starting=1.0, routing=60)
    number = client.put()["id"]
    client.until(number, "Created")

    client.give("POST", f"/serving/{number}?action=START")
    first = client.predict()
    client.until(number, "Running")
    running = client.predict()

    assert (first.status_code, first.json()["errorCode"]) == (500, 120000)
    assert (running.status_code, running.json()["errorCode"]) == (400, 250008)
    assert "usrMsg" not in running.json(), "an empty 404 of the ingress has no text"


def test_a_token_is_refused(client: Client) -> None:
    client.running()
    url = f"{client.serving.url}/hopsworks-api/api/project/{client.serving.project_id}/inference/models/digits:predict"

    answer = client.session.post(
        url, json={"instances": [[1]]}, headers={"Authorization": "Bearer ey.j.wt"}, timeout=30
    )

    assert (answer.status_code, answer.json()["errorCode"]) == (400, 250009)


@pytest.mark.parametrize(
    "fields",
    [
        {"apiProtocol": "GRPC"},
        {"modelServer": "PYTHON", "predictor": "/Projects/example/Resources/serve.py"}
        | dict.fromkeys(("modelName", "modelPath", "modelVersion", "modelFramework")),
    ],
)
def test_what_the_proxy_has_no_route_for(client: Client, serving: LocalServing, fields: Any) -> None:
    files = serving.world.project(serving.project_id).files
    files.write("Resources/serve.py", b"")
    client.put("other", **fields)

    answer = client.predict("other")

    assert (answer.status_code, answer.json()["errorCode"]) == (400, 250004)
    assert "Use the ingress" in answer.json()["usrMsg"]


def test_the_default_tool_needs_no_route_and_has_more_verbs(client: Client, serving: LocalServing) -> None:
    serving.world.cluster.speeds = Speeds(routing=60)
    files = serving.world.project(serving.project_id).files
    files.write("Resources/serve.py", b"")
    number = client.put(servingTool="DEFAULT", predictor="/Projects/example/Resources/serve.py")["id"]
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")
    client.until(number, "Running")

    assert client.predict().json() == {"predictions": [1, 1]}
    classified = client.give("POST", "/inference/models/digits:classify", json={"instances": [[1]]})
    assert classified == {"predictions": [1]}
    assert client.refused("POST", "/inference/models/digits:explain", json={"instances": [[1]]}) == (400, 250004)


def test_an_instance_that_is_gone_is_said_otherwise_without_the_ingress(
    client: Client, serving: LocalServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.world.project(serving.project_id).files.write("Resources/serve.py", b"")
    client.running(servingTool="DEFAULT", predictor="/Projects/example/Resources/serve.py")

    async def ask(*_: Any) -> Any:
        raise ConnectionError("it went away")

    monkeypatch.setattr("airflow_provider_hsml.local.cluster.engines._CallableInstance.ask", ask)

    assert client.refused("POST", "/inference/models/digits:predict", json={"instances": [[1]]}) == (500, 250002)


def test_the_proxy_has_ten_connections_for_everybody() -> None:
    """Ten slow predictions are under way; the eleventh, to another deployment, waits for one of them."""
    may_answer, asked = threading.Event(), threading.Semaphore(0)

    def load(model: ModelFiles) -> Callable[[Any], list[Any]]:
        def predict(rows: Any) -> list[Any]:
            if model.deployment.startswith("slow"):
                asked.release()
                may_answer.wait(30)
            return list(rows)

        return predict

    with LocalServing(engine=load) as serving:
        serving.world.register_model("digits", {"model.pkl": b""})
        client = Client(serving)
        with client.session, ThreadPoolExecutor(11) as threads:
            for number in range(10):
                client.running(f"slow{number}")
            client.running("quick")
            slow = [threads.submit(client.predict, f"slow{number}") for number in range(10)]
            assert all(asked.acquire(timeout=30) for _ in slow)
            quick = threads.submit(client.predict, "quick")
            assert wait([quick], timeout=0.3).not_done
            may_answer.set()
            assert quick.result().ok
            assert all(future.result().ok for future in slow)
