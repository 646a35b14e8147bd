"""What only the official SDKs ask; `make conformance` runs them themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow_provider_hsml.local import LocalServing
from tests.local.conftest import Client, load

if TYPE_CHECKING:
    from pathlib import Path


def test_the_credentials_hold_the_authority_that_a_client_verifies_the_server_by(tmp_path: Path) -> None:
    with LocalServing(tmp_path, tls=True, engine=load) as serving:
        client = Client(serving)
        with client.session:
            given = client.give("GET", "/credentials")

        assert serving.ca_bundle is not None
        assert given["caChain"] == serving.ca_bundle.read_text()
        assert {"kStore", "tStore", "password", "clientKey", "clientCert"} < set(given)


def test_without_tls_the_credentials_hold_no_authority(unchanged: Client) -> None:
    assert unchanged.give("GET", "/credentials")["caChain"] == ""


def test_a_published_schema_is_told_in_its_formats(serving: LocalServing, client: Client) -> None:
    number = client.put(predictorEnvVars=["SERVING_SCHEMA_ID=s1"])["id"]
    folder = "Deployments/digits/resources/schema"
    files = serving.world.project(serving.project_id).files
    for name in ("s1.json", "s1.jsonschema.json", "s1.openapi.json", "s0.json"):
        files.write(f"{folder}/{name}", json.dumps({"is": name}).encode())

    said = {kind: client.give("GET", f"/serving/{number}/schema?format={kind}") for kind in ("jsonschema", "openapi")}

    assert said == {"jsonschema": {"is": "s1.jsonschema.json"}, "openapi": {"is": "s1.openapi.json"}}
    assert client.give("GET", f"/serving/{number}/schema") == {"is": "s1.json"}
    assert client.give("GET", f"/serving/{number}/schema?schemaId=s0") == {"is": "s0.json"}
    assert client.refused("GET", f"/serving/{number}/schema?schemaId=s2") == (404, 240037)
    assert client.refused("GET", f"/serving/{number}/schema?schemaId=../../../x") == (422, 120001)
    assert client.refused("GET", f"/serving/{number}/schema?format=xml") == (422, 120001)


def test_a_deployment_without_a_schema_says_so(client: Client) -> None:
    number = client.put()["id"]

    assert client.refused("GET", f"/serving/{number}/schema") == (404, 240037)


def test_the_project_lists_its_datasets_and_only_they_are_called_datasets(unchanged: Client) -> None:
    listed = unchanged.give("GET", "/dataset/?action=listing&offset=0&limit=1000&sort_by=ID:asc")

    assert {"Models", "Resources", "Deployments", "Logs"} <= {item["name"] for item in listed["items"]}
    assert {item["datasetType"] for item in listed["items"]} == {"DATASET"}
    assert "datasetType" not in unchanged.give("GET", "/dataset/Models/digits")


def test_what_a_version_is_made_of_can_be_downloaded(serving: LocalServing, client: Client) -> None:
    files = serving.world.project(serving.project_id).files
    for content in (b"first", b"second"):
        files.write(f"Resources/{content.decode()}.py", content)
    number = client.running(predictor="/Projects/example/Resources/first.py")

    body = client.see(number) | {"predictor": "/Projects/example/Resources/second.py"}
    client.give("PUT", "/serving?newVersion=true", json=body)

    path = "/dataset/download/with_auth/Deployments/digits"
    assert client.ask("GET", f"{path}/1/first.py").content == b"first"
    assert client.ask("GET", f"{path}/2/second.py").content == b"second"
    assert client.refused("GET", f"{path}/2/first.py") == (400, 110018)
