"""Tags of models and of deployments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import Administration
from tests.local.conftest import client_of

if TYPE_CHECKING:
    from tests.local.conftest import Client

_SCHEMAS: dict[str, dict[str, Any]] = {"approval": {"type": "string"}, "review": {"type": "object", "required": ["by"]}}


def _tagged(client: Client, kind: str) -> str:
    """Give the path of something that can have tags."""
    if kind == "model":
        return f"/modelregistries/{client.serving.project_id}/models/digits_1"
    return f"/serving/{client.put()['id']}"


@pytest.mark.parametrize("kind", ["model", "deployment"])
def test_set_read_and_delete(client: Client, kind: str) -> None:
    tags = f"{_tagged(client, kind)}/tags"

    assert client.give("GET", tags) == {"count": 0}
    for value in ("refused", "approved"):
        assert client.ask("PUT", f"{tags}/approval", data=json.dumps(value)).status_code == 201
    client.give("PUT", f"{tags}/review", json={"by": "Ada"})

    approval = {"name": "approval", "value": '"approved"'}
    assert client.give("GET", f"{tags}/approval") == {"count": 1, "items": [approval]}
    found = client.give("GET", tags)
    assert found["count"] == 2
    assert {tag["name"]: json.loads(tag["value"]) for tag in found["items"]} == {
        "approval": "approved",
        "review": {"by": "Ada"},
    }
    assert client.ask("DELETE", f"{tags}/approval").status_code == 204
    assert client.refused("GET", f"{tags}/approval") == (404, 370002)
    assert client.refused("DELETE", f"{tags}/approval") == (404, 370002)
    assert client.give("GET", tags)["count"] == 1


@pytest.mark.parametrize("kind", ["model", "deployment"])
def test_schemas(kind: str) -> None:
    with client_of(administration=Administration(tag_schemas=_SCHEMAS)) as client:
        tags = f"{_tagged(client, kind)}/tags"

        client.give("PUT", f"{tags}/approval", json="approved")
        assert client.refused("PUT", f"{tags}/approval", json=3) == (400, 370005)
        assert client.refused("PUT", f"{tags}/review", json={}) == (400, 370005)
        assert client.refused("PUT", f"{tags}/unknown", json="x") == (404, 370000)
        assert client.refused("PUT", f"{tags}/%20", json="x") == (400, 370004)
        assert client.give("GET", tags)["count"] == 1


def test_of_what_is_not_there(unchanged: Client) -> None:
    models = f"/modelregistries/{unchanged.serving.project_id}/models"

    for method, path in (("GET", "tags"), ("PUT", "tags/approval"), ("DELETE", "tags/approval")):
        assert unchanged.refused(method, f"{models}/digits_9/{path}", json="x") == (404, 360000)
        assert unchanged.refused(method, f"/serving/999/{path}", json="x") == (404, 240000)
    assert unchanged.refused("PUT", f"{models}/digits_1/tags/approval", data=b"\xff") == (422, 120001)


def test_given_on_creation(client: Client) -> None:
    tags = {"count": 1, "items": [{"name": "approval", "value": "approved"}]}
    number = client.put(tags=tags)["id"]

    expected = {"count": 1, "items": [{"name": "approval", "value": '"approved"'}]}
    assert client.give("GET", f"/serving/{number}/tags") == expected
    assert client.see(number)["tags"] == expected
    model = f"/modelregistries/{client.serving.project_id}/models/digits_1"
    client.give("PUT", model, json={"framework": "SKLEARN", "tags": tags})
    assert client.give("GET", f"{model}/tags") == expected
    client.give("PUT", model, json={"framework": "SKLEARN"})
    assert client.give("GET", f"{model}/tags") == expected, "registered again without them, it keeps them"


def test_a_deployment_with_a_wrong_tag_is_not_created() -> None:
    with client_of(administration=Administration(tag_schemas=_SCHEMAS)) as client:
        body = {"count": 1, "items": [{"name": "unknown", "value": "x"}]}
        answer = client.ask("PUT", "/serving", json={"tags": body, "name": "digits"})

        assert (answer.status_code, answer.json()["errorCode"]) == (404, 370000)
        assert client.give("GET", "/serving") == []


@pytest.mark.parametrize("tags", ["approved", {"items": "approved"}, {"items": ["approved"]}])
def test_tags_of_another_shape(unchanged: Client, tags: Any) -> None:
    assert unchanged.refused("PUT", "/serving", json={"tags": tags, "name": "digits"}) == (422, 120001)


def test_they_are_kept(client: Client) -> None:
    number = client.running()
    before = client.see(number)
    client.give("PUT", f"/serving/{number}/tags/approval", json="approved")

    client.give("PUT", "/serving?newVersion=true", json=client.see(number) | {"modelVersion": 2})

    assert client.see(number)["tags"]["count"] == 1
    assert before["tags"] == {"count": 0}
