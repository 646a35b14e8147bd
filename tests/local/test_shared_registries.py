"""A project reads and serves the models of another, which shares them with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.local.conftest import ACCESS, client_of, deployment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.local.conftest import Client

_PATH = "/Projects/team/Models/shared"


@pytest.fixture(params=["a project of ours", "one in which the user has no role"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of the project example, with which team shares its models; private keeps its own to itself."""
    is_ours = request.param == "a project of ours"
    foreign = ["private"] if is_ours else ["team", "private"]
    access = replace(ACCESS, foreign_projects=foreign, shared_registries={"team": ["example"]})
    with client_of(project=["example", "team"] if is_ours else ["example"], access=access) as client:
        world = client.serving.world
        for version in (1, 2):
            world.register_model("shared", {"model.pkl": b"theirs"}, metrics={"accuracy": version}, project="team")
        yield client


def test_both_registries_are_listed(client: Client) -> None:
    listed = client.give("GET", "/modelregistries")

    assert listed["count"] == 2
    assert [(item["id"], item["name"]) for item in listed["items"]] == [(119, "example"), (120, "team")]
    assert client.give("GET", "/modelregistries/120")["name"] == "team"
    assert client.refused("GET", "/modelregistries/121") == (403, 360007)
    assert client.refused("GET", "/modelregistries/999") == (400, 360006)


def test_its_models_are_read(client: Client) -> None:
    models = "/modelregistries/120/models"
    found = client.give("GET", f"{models}?filter_by=name_eq:shared&sort_by=accuracy:desc&limit=1")

    assert found["count"] == 2
    (best,) = found["items"]
    assert (best["version"], best["projectName"], best["modelRegistryId"]) == (2, "team", 120)
    assert client.give("GET", f"{models}/shared_1")["name"] == "shared"
    assert client.refused("GET", "/modelregistries/119/models/shared_1") == (404, 360000)
    assert client.refused("GET", "/modelregistries/121/models") == (403, 360007)


@pytest.mark.parametrize("root", ["team::Models", "/Projects/team/Models", "hdfs://namenode:8020/Projects/team/Models"])
def test_its_files_are_read(client: Client, root: str) -> None:
    quoted = f"{root}/shared/1".replace("/", "%2F")

    entry = client.give("GET", f"/dataset/{quoted}")
    assert entry["attributes"]["path"] == f"{_PATH}/1"
    listed = client.give("GET", f"/dataset/{quoted}%2FFiles?action=listing")
    assert [item["attributes"]["path"] for item in listed["items"]] == [f"{_PATH}/1/Files/model.pkl"]
    content = client.ask("GET", f"/dataset/download/with_auth/{quoted}%2FFiles%2Fmodel.pkl").content
    assert content == b"theirs"


def test_a_model_can_be_copied_from_it(client: Client) -> None:
    client.ask("POST", "/dataset/Models/mine?action=create")
    source = "team::Models/shared/1".replace("/", "%2F")
    client.give("POST", f"/dataset/{source}?action=copy&destination_path=/Projects/example/Models/mine/1")

    assert client.ask("GET", "/dataset/download/with_auth/Models/mine/1/Files/model.pkl").content == b"theirs"


def test_nothing_of_it_is_written(client: Client) -> None:
    path = "team::Models/shared/1".replace("/", "%2F")

    assert client.refused("DELETE", f"/dataset/{path}") == (403, 110050)
    assert client.refused("POST", f"/dataset/{path}%2Fnew?action=create") == (403, 110050)
    assert client.refused("POST", f"/dataset/{path}?action=move&destination_path=Models/x") == (403, 110050)
    models = "/modelregistries/120/models"
    assert client.refused("PUT", f"{models}/shared_1", json={}) == (403, 360007)
    assert client.refused("DELETE", f"{models}/shared_1") == (403, 360007)
    assert client.refused("PUT", f"{models}/shared_1/tags/approval", json="x") == (403, 360007)
    assert client.give("GET", f"{models}/shared_1")["version"] == 1


def test_only_the_models_are_shared(client: Client) -> None:
    for path in ("team::Resources", "/Projects/team/Deployments", "private::Models", "/Projects/private/Models"):
        quoted = path.replace("/", "%2F")
        assert client.refused("GET", f"/dataset/{quoted}") == (400, 110011)


def test_its_models_are_served(client: Client) -> None:
    number = client.running("theirs", modelName="shared", modelPath=_PATH, modelVersion=2)

    assert client.predict("theirs").json() == {"predictions": [2, 2]}
    assert client.see(number)["modelPath"] == _PATH
    body = deployment("other", modelName="shared", modelPath="/Projects/private/Models/shared")
    assert client.refused("PUT", "/serving", json=body) == (400, 240006)


def test_a_model_that_another_project_serves_is_not_deleted() -> None:
    access = replace(ACCESS, shared_registries={"team": ["example"]})
    with client_of(project=["example", "team"], access=access) as client:
        client.serving.world.register_model("digits", {"model.pkl": b"theirs"}, project="team")
        client.put("theirs", modelPath="/Projects/team/Models/digits")

        assert client.refused("DELETE", "//project/120/modelregistries/120/models/digits_1") == (400, 360009)
        assert client.ask("DELETE", "/modelregistries/119/models/digits_1").status_code == 204, "it is another model"
