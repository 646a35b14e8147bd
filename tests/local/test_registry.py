"""The model registry, over HTTP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.local.conftest import Client

MODELS = "/modelregistries/119/models"


def _versions(answer: dict[str, Any]) -> list[int]:
    return [row["version"] for row in answer.get("items", [])]


def test_a_model_is_told_as_hopsworks_tells_it(client: Client) -> None:
    model = client.give("GET", f"{MODELS}/digits_2", params={"expand": "trainingdatasets"})

    assert model["id"] == "digits_2"
    assert (model["name"], model["version"], model["projectName"]) == ("digits", 2, "example")
    assert model["metrics"] == {"accuracy": pytest.approx(0.92)}
    assert model["modelRegistryId"] == 119
    assert "inputExample" not in model
    assert client.refused("GET", f"{MODELS}/digits_9") == (404, 360000)
    assert client.refused("GET", f"{MODELS}/digits") == (422, 120001)


def test_list_sort_and_page(client: Client) -> None:
    client.serving.world.register_model("other_model", {"model.pkl": b""})
    by_name = {"filter_by": "name_eq:digits"}

    assert _versions(client.give("GET", MODELS, params=by_name)) == [1, 2, 3]
    best = client.give("GET", MODELS, params=by_name | {"sort_by": "accuracy:desc", "limit": "1"})
    assert _versions(best) == [3]
    assert best["count"] == 3, "the count is of all that match, not of those that are shown"
    assert _versions(client.give("GET", MODELS, params=by_name | {"offset": "1", "limit": "1"})) == [2]
    assert _versions(client.give("GET", MODELS, params=by_name | {"filter_by": ["name_like:igi", "version:2"]})) == [2]
    assert _versions(client.give("GET", MODELS, params={"filter_by": ["latest_version", "name_eq:digits"]})) == [3]
    nothing = client.give("GET", MODELS, params={"filter_by": "name_eq:nothing"})
    assert (nothing["count"], "items" in nothing) == (0, False)
    assert client.refused("GET", MODELS, params={"filter_by": "colour:red"}) == (422, 120001)
    assert client.refused("GET", MODELS, params={"limit": "many"}) == (422, 120001)
    by_names = client.give("GET", MODELS, params={"sort_by": "name:desc", "limit": "1"})
    assert by_names["items"][0]["name"] == "other_model"
    assert client.ask("GET", MODELS, params={"sort_by": "accuracy:up"}).status_code == 404


def test_versions_without_the_metric_come_last_but_they_come(client: Client) -> None:
    client.serving.world.register_model("digits", {"model.pkl": b""})
    for direction, expected in (("asc", [1, 2, 3, 4]), ("desc", [3, 2, 1, 4])):
        answer = client.give("GET", MODELS, params={"sort_by": f"accuracy:{direction}"})
        assert _versions(answer) == expected


def test_nan_sorts_where_it_does_the_most_harm(client: Client) -> None:
    client.serving.world.register_model("digits", {"model.pkl": b""}, metrics={"accuracy": math.nan})

    assert _versions(client.give("GET", MODELS, params={"sort_by": "accuracy:desc", "limit": "1"})) == [4]


def test_register_over_http(client: Client) -> None:
    body = {"name": "new", "version": 1, "framework": "SKLEARN", "metrics": {"f1": "0.5"}, "colour": "red"}

    assert client.refused("PUT", f"{MODELS}/new_1", json=body) == (400, 110018), "its files come first"
    for folder in ("Models/new", "Models/new/1"):
        client.give("POST", f"/dataset/{folder}?action=create")
    answer = client.ask("PUT", f"{MODELS}/new_1", json=body)
    assert answer.status_code == 201
    assert answer.json()["metrics"] == {"f1": 0.5}
    created = answer.json()["created"]
    assert client.give("PUT", f"{MODELS}/new_1", json=body | {"metrics": None})["created"] == created
    assert "metrics" not in client.give("GET", f"{MODELS}/new_1")


@pytest.mark.parametrize(
    ("model_id", "body", "expected"),
    [
        ("no-dashes_1", {}, (422, 120001)),
        ("digits_1", {"name": "other"}, (422, 120001)),
        ("digits_1", {"framework": "SPARK"}, (422, 120001)),
        ("digits_1", {"metrics": [1]}, (422, 120001)),
        ("digits_1", {"metrics": {"accuracy": "good"}}, (400, 360002)),
        ("digits_1", {"metrics": {"accuracy": True}}, (400, 360002)),
        ("digits_1", {"metrics": {"accuracy": None}}, (400, 360002)),
        ("digits_1", {"metrics": {"accuracy": [0.5]}}, (400, 360002)),
        ("digits_1", {"metrics": {"accuracy": 10**400}}, (400, 360002)),
        ("digits_1", {"metrics": {"accuracy": "1_000"}}, (400, 360002)),
        ("digits_1", {"metrics": {"accuracy": "\u0661"}}, (400, 360002)),
        ("digits_1", {"tags": {"items": {}}}, (422, 120001)),
        ("digits_1", {"tags": {"items": "abc"}}, (422, 120001)),
        ("digits_1", {"tags": []}, (422, 120001)),
        ("digits_1", {"tags": {"items": [{"value": 1}]}}, (400, 370004)),
        ("digits_1", {"version": True}, (422, 120001)),
        ("digits_1", {"version": 1.0}, (422, 120001)),
        ("digits_1", {"featureView": {"name": 5}}, (422, 120001)),
    ],
)
def test_what_cannot_be_registered(
    unchanged: Client, model_id: str, body: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert unchanged.refused("PUT", f"{MODELS}/{model_id}", json=body) == expected


_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("name", "framework", "description", "environment", "program", "projectName"), "text"),
    **dict.fromkeys(("experimentId", "experimentProjectName", "id", "type"), "text"),
    **dict.fromkeys(("trainingDatasetVersion", "modelRegistryId", "created"), 1),
    **{key: {} for key in ("featureView", "modelSchema", "inputExample", "trainingDataset", "metrics", "tags")},
}


@pytest.mark.parametrize("wrong", ["text", 7, -1, 1.5, True, False, [], ["a"], {}, {"a": 1}])
def test_wrong_types(unchanged: Client, wrong: Any) -> None:
    for name, right in _FIELDS.items():
        if type(wrong) is type(right) and wrong != -1:
            continue
        answer = unchanged.ask("PUT", f"{MODELS}/digits_1", json={name: wrong})

        assert (answer.status_code, answer.json()["errorCode"]) == (422, 120001), f"{name}: {answer.text}"
        assert name in answer.json()["usrMsg"]
    assert unchanged.give("GET", f"{MODELS}/digits_1")["metrics"] == {"accuracy": pytest.approx(0.91)}


def test_a_feature_view_is_an_object(client: Client) -> None:
    view = {"featurestoreId": 67, "name": "transactions_view", "version": 1}
    client.give("PUT", f"{MODELS}/digits_1", json={"featureView": view, "trainingDatasetVersion": 2})

    assert client.give("GET", f"{MODELS}/digits_1")["featureView"] == view
    page = client.session.get(f"{client.serving.url}/p/119/models/digits/1", timeout=10, verify=True)
    assert "<dd>transactions_view</dd>" in page.text


def test_the_input_example_shows_once_it_is_there(client: Client) -> None:
    client.serving.world.register_model("digits", {"model.pkl": b""}, input_example=[[1.0]])

    href = client.give("GET", f"{MODELS}/digits_4")["inputExample"]["href"]
    assert href.endswith("Models/digits/4/input_example.json")


def test_delete(client: Client) -> None:
    number = client.put(modelVersion=2)["id"]

    assert client.refused("DELETE", f"{MODELS}/digits_2") == (400, 360009)
    client.give("DELETE", f"/serving/{number}")
    assert client.ask("DELETE", f"{MODELS}/digits_2").status_code == 204
    assert client.ask("DELETE", f"{MODELS}/digits_2").status_code == 204, "a version that is gone is no error"
    assert client.refused("GET", "/dataset/Models/digits/2") == (400, 110018)
    assert client.refused("DELETE", f"{MODELS}/unknown_1") == (404, 360000)


def test_registries(unchanged: Client) -> None:
    assert unchanged.give("GET", "/modelregistries")["items"][0]["id"] == 119
    assert unchanged.give("GET", "/modelregistries/119")["name"] == "example"
    assert unchanged.refused("GET", "/modelregistries/120") == (403, 360007)
    assert unchanged.refused("GET", "/modelregistries/9999") == (400, 360006)
