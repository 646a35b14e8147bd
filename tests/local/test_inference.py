"""Predictions through Hopsworks: what comes out of what the model says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Client


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


def test_endpoints(client: Client) -> None:
    assert client.give("GET", "/inference/endpoints") == []
