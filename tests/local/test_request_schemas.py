"""Schemas of requests: the rows that an instance takes, its refusals on both routes, and the check at its start."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import FeatureView, LocalServing
from airflow_provider_hsml.local.cluster.request_schemas import is_of
from tests.local.conftest import Client, client_of
from tests.support.request_schemas import DOCUMENT, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.local import ModelFiles

VIEW = FeatureView(
    name="transactions_view",
    features={"amount": "double", "age": "bigint"},
    labels={"is_fraud": "int"},
    serving_keys={"cc_num": "bigint"},
    training_datasets=(2, 3),
    entities=[{"cc_num": 1, "amount": 10.0, "age": 31}],
)
DOC = {**DOCUMENT, "schemaId": "s2", "maxBatchRows": 3}
COLUMNS = {"columnar_schema": [{"name": "amount", "type": "double"}, {"name": "age", "type": "bigint"}]}
ROUTES = ("proxy", "ingress")


def echo(_model: ModelFiles) -> Callable[[Any], Any]:
    """Load a model that answers the vectors that it gets."""
    return lambda rows: rows


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    """A client of a server whose models answer their vectors; each test makes a deployment of its own."""
    with client_of(engine=echo) as client:
        client.serving.world.declare(VIEW)
        yield client


def register(serving: LocalServing, version: int = 1, *, columns: Any = COLUMNS, **fields: Any) -> None:
    """Register a version that was trained on training dataset 2."""
    files = serving.world.project(serving.project_id).files
    if columns is not None:
        content = json.dumps({"input_schema": columns}).encode()
        files.write(f"Models/digits/{version}/model_schema.json", content)
    elif files.exists(f"Models/digits/{version}/model_schema.json"):
        files.delete(f"Models/digits/{version}/model_schema.json")
    link = {"featureView": {"featurestoreId": 67, "name": VIEW.name, "version": 1}, "trainingDatasetVersion": 2}
    serving.world.project(serving.project_id).registry.put(
        f"digits_{version}", {"framework": "SKLEARN", **link, **fields}
    )


def deploy(
    client: Client, name: str, document: Any = DOC, script: str = "default_predictor.py", version: int = 1
) -> int:
    """Create and start a deployment with a schema."""
    files = client.serving.world.project(client.serving.project_id).files
    path = f"Deployments/{name}/resources"
    files.write(f"{path}/predictor/{script}", b"")
    if document is not None:
        files.write(f"{path}/schema/s2.json", json.dumps(document).encode())
    number: int = client.put(
        name,
        predictor=f"/Projects/example/{path}/predictor/{script}",
        predictorEnvVars=["SERVING_SCHEMA_ID=s2"],
        modelVersion=version,
    )["id"]
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")
    client.until(number, "Running", "Failed")
    return number


def ask(client: Client, name: str, route: str, rows: Any, **headers: str) -> tuple[int, Any]:
    """Send rows on a route; give the status, and the body as the instance sent it."""
    if route == "ingress":
        answer = client.ask_ingress(
            "POST", f"/v1/example/{name}/v1/models/{name}:predict", json={"instances": rows}, headers=headers
        )
        return answer.status_code, answer.json()
    answer = client.predict(name, instances=rows)
    body = answer.json()
    return (answer.status_code, body) if answer.ok else (body["errorCode"], json.loads(body["usrMsg"]))


@pytest.fixture(scope="module")
def name(server: Client) -> str:
    """The name of a deployment of the default predictor."""
    register(server.serving)
    server.until_routed(deploy(server, "enforced"))
    return "enforced"


class TestEnforced:
    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize("rows", [[{"cc_num": 1, "amount": 2.5}], [[1, 2.5]], [["1", 2.5]]])
    def test_vectors_of_online_and_passed_features(self, server: Client, name: str, route: str, rows: Any) -> None:
        assert ask(server, name, route, rows) == (200, {"predictions": [[2.5, 31]]})

    @pytest.mark.parametrize("route", ROUTES)
    def test_faults_with_row_and_field(self, server: Client, name: str, route: str) -> None:
        status, body = ask(server, name, route, [{"cc_num": 1, "amount": 1}, {"cc_num": None, "x": 1}])

        assert status == {"ingress": 400, "proxy": 250008}[route]
        assert body["detail"]["code"] == "SCHEMA_VALIDATION"
        assert body["detail"]["schema_id"] == "s2"
        assert [(fault["row"], fault["field"], fault["reason"]) for fault in body["detail"]["errors"]] == [
            (1, "amount", "missing"),
            (1, "x", "unknown field"),
            (1, "cc_num", "must not be null"),
        ]

    @pytest.mark.parametrize("route", ROUTES)
    def test_too_many_rows(self, server: Client, name: str, route: str) -> None:
        status, body = ask(server, name, route, [["bad"]] * 4)

        assert (status, body["detail"]["code"]) == ({"ingress": 413, "proxy": 250008}[route], "BATCH_TOO_LARGE")
        assert "errors" not in body["detail"]

    @pytest.mark.parametrize("route", ROUTES)
    def test_an_unknown_entity(self, server: Client, name: str, route: str) -> None:
        status, body = ask(server, name, route, [[1, 2.5], [99, 2.5]])

        assert (status, body["detail"]["code"]) == ({"ingress": 404, "proxy": 250008}[route], "ENTITY_NOT_FOUND")
        assert body["detail"]["errors"] == [
            {"row": 1, "field": "cc_num", "reason": "no entity with these serving keys"}
        ]

    @pytest.mark.parametrize(
        ("rows", "reason"),
        [
            ("x", "instances must be an array"),
            ([], "instances must not be empty"),
            ([[1, 1], {"cc_num": 1, "amount": 1}], "rows must all be objects or all be arrays"),
            ([[1]], "expected 2 values, got 1"),
            ([7], "a row must be an object or an array"),
        ],
    )
    def test_forms(self, server: Client, name: str, rows: Any, reason: str) -> None:
        _, body = ask(server, name, "ingress", rows)

        assert [fault["reason"] for fault in body["detail"]["errors"]] == [reason]

    def test_the_id_of_a_request(self, server: Client, name: str) -> None:
        _, own = ask(server, name, "ingress", [], **{"x-request-id": "mine"})
        _, other = ask(server, name, "ingress", [])

        assert own["detail"]["request_id"] == "mine"
        assert len(other["detail"]["request_id"]) == 36

    def test_what_is_no_prediction_goes_through(self, server: Client, name: str) -> None:
        answer = server.ask_ingress("GET", f"/v1/example/{name}/v1/models/{name}")

        assert answer.json() == {"name": name, "ready": True}
        refused = server.ask_ingress("POST", f"/v1/example/{name}/v1/models/{name}:predict", data=b"no json")
        assert (refused.status_code, "detail" in refused.json()) == (400, False)


class TestOwnScript:
    def test_rows_are_checked_and_go_to_the_script(self, server: Client) -> None:
        register(server.serving)
        server.until_routed(deploy(server, "scripted", script="predict.py"))

        assert ask(server, "scripted", "ingress", [[99, 2.5]]) == (200, {"predictions": [[99, 2.5]]})
        assert ask(server, "scripted", "ingress", [[None, 2.5]])[0] == 400

    def test_without_a_document_nothing_is_checked(self, server: Client) -> None:
        register(server.serving)
        server.until_routed(deploy(server, "undocumented", None, script="predict.py"))

        assert ask(server, "undocumented", "ingress", ["x"]) == (200, {"predictions": ["x"]})


class TestStart:
    """The default predictor checks at its start that the schema is of its model."""

    @pytest.mark.parametrize(
        ("number", "document", "fields", "reason"),
        [
            (1, None, {}, "has no deployment schema"),
            (
                2,
                DOC | {"trainingDatasetVersion": 3},
                {},
                "published for training dataset v3 but this revision serves v2",
            ),
            (3, DOC, {"trainingDatasetVersion": 0}, "published for training dataset v2 but this revision serves v0"),
            (4, DOC | {"featureView": {"name": "x", "version": 1}}, {}, "published for feature view 'x' v1"),
            (5, DOC, {"featureView": None}, "No feature view is linked to model 'digits' v1"),
            (6, DOC, {"columns": None}, "has no model schema with columns"),
            (7, DOC, {"columns": {"columnar_schema": [{"name": "z", "type": "int"}]}}, r"['z'] are not in the feature"),
        ],
    )
    def test_failed(self, server: Client, number: int, document: Any, fields: dict[str, Any], reason: str) -> None:
        register(server.serving, **fields)
        seen = server.see(deploy(server, f"failed{number}", document))

        assert (seen["status"], seen["condition"]["type"], seen["condition"]["status"]) == ("Failed", "STARTED", False)
        assert reason in seen["condition"]["reason"]

    def test_a_schema_without_a_view(self, server: Client) -> None:
        """The model's inputs are the features that are passed."""
        register(server.serving, featureView=None, trainingDatasetVersion=0)
        passed = [{"name": "amount", "type": "double"}, {"name": "age", "type": "bigint"}]
        document = DOC | {"servingKeys": [], "passedFeatures": passed, "featureView": None}
        server.until_routed(deploy(server, "passed", document))

        assert ask(server, "passed", "ingress", [[1.5, 7]]) == (200, {"predictions": [[1.5, 7]]})

    def test_a_model_of_a_shared_registry(self) -> None:
        from airflow_provider_hsml.local import AccessOptions

        access = AccessOptions(shared_registries={"team": ["example"]})
        with client_of(engine=echo, project=["example", "team"], access=access) as client:
            world = client.serving.world
            world.declare(replace(VIEW, training_datasets=(5,)), project="team")
            world.register_model("digits", {"model.pkl": b""}, project="team")
            team = world.project(120)
            team.files.write("Models/digits/1/model_schema.json", json.dumps({"input_schema": COLUMNS}).encode())
            link = {"featureView": {"featurestoreId": 68, "name": VIEW.name, "version": 1}, "trainingDatasetVersion": 5}
            team.registry.put("digits_1", {"framework": "SKLEARN", **link})
            files = world.project(119).files
            files.write("Deployments/shared/resources/predictor/default_predictor.py", b"")
            document = json.dumps(DOC | {"trainingDatasetVersion": 5}).encode()
            files.write("Deployments/shared/resources/schema/s2.json", document)
            number = client.running(
                "shared",
                modelPath="/Projects/team/Models/digits",
                predictor="/Projects/example/Deployments/shared/resources/predictor/default_predictor.py",
                predictorEnvVars=["SERVING_SCHEMA_ID=s2"],
            )

            assert client.see(number)["status"] == "Running"


def test_types_as_hopsworks_judges_them() -> None:
    recorded = json.loads((SAMPLES / "values.json").read_text())
    values = [value for value in recorded["values"] if value is not None]

    for one in recorded["types"]:
        accepted = [ok for ok, value in zip(one["accepted"], recorded["values"], strict=True) if value is not None]
        assert [is_of(one["type"], value) for value in values] == accepted, one["type"]
    assert is_of("binary", base64.b64encode(b"abc").decode())
