"""The schema of a deployment's requests: its id, as Hopsworks' SDK computes it, and the variables that name it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain import deployment_schema
from airflow_provider_hsml.hopsworks.domain.deployment_schema import DeploymentSchema
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from tests.support.request_schemas import DOCUMENT, FILES, SAMPLES

RECORDED = json.loads((SAMPLES / "ids.json").read_text())["documents"]


def read(**changes: Any) -> DeploymentSchema:
    return DeploymentSchema.read({**DOCUMENT, **changes}, "deployment 'fraud'")


class TestId:
    """``make conformance`` compares a thousand generated documents with the SDK itself."""

    @pytest.mark.parametrize("recorded", RECORDED)
    def test_as_the_sdk_computes_it(self, recorded: dict[str, Any]) -> None:
        assert DeploymentSchema.read(recorded["document"], "x").id == recorded["id"]

    @pytest.mark.parametrize(
        ("dataset", "rows", "sample"), [(2, None, "td2"), (3, None, "td3"), (3, 64, "td3_64"), (2, 512, "td2")]
    )
    def test_of_another_training_dataset(self, dataset: int, rows: int | None, sample: str) -> None:
        changed = read().changed(training_dataset=dataset, max_batch_rows=rows)

        assert (changed.id, changed.render().decode()) == (FILES[sample]["id"], FILES[sample]["schema"])

    def test_the_order_of_keys_does_not_count(self) -> None:
        assert DeploymentSchema.read(dict(reversed(DOCUMENT.items())), "x").id == read().id

    @pytest.mark.parametrize("rendering", ["jsonschema", "openapi"])
    def test_the_row_limit_of_the_renderings(self, rendering: str) -> None:
        rendered = json.loads(FILES["td3"][rendering])

        assert deployment_schema.with_batch_rows(rendered, 64)
        if rendering == "openapi":
            rendered["info"]["version"] = FILES["td3_64"]["id"]
        assert json.dumps(rendered) == FILES["td3_64"][rendering]

    @pytest.mark.parametrize("rendered", [{}, {"request": {}}, {"request": {"properties": []}}, {"components": None}])
    def test_a_rendering_of_another_form(self, rendered: dict[str, Any]) -> None:
        assert not deployment_schema.with_batch_rows(rendered, 64)


class TestRefused:
    """What is not understood could be hashed otherwise."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"schemaVersion": 2}, "schemaVersion is not 1"),
            ({"schemaVersion": True}, "schemaVersion is not 1"),
            ({"schemaVersion": None}, "schemaVersion is not 1"),
            ({"newer": 1}, "the document has the unknown key 'newer'"),
            ({"servingKeys": [{"name": "a", "unit": "x"}]}, "a field of servingKeys has the unknown key 'unit'"),
            ({"servingKeys": [{"type": "int"}]}, "name is missing"),
            ({"servingKeys": [7]}, "a field of servingKeys is a number"),
            ({"servingKeys": {}}, "servingKeys is an object"),
            ({"servingKeys": [{"name": "a", "nullable": "no"}]}, "nullable is a text"),
            ({"passedFeatures": ["cc_num"]}, "field 'cc_num' is there twice"),
            ({"featureView": {"name": "v", "store": 1}}, "featureView has the unknown key 'store'"),
            ({"featureView": "v"}, "featureView is a text"),
            ({"output": {"kind": "numbers"}}, "output.kind is none of"),
            ({"output": {"columns": [{"name": "y", "unit": "x"}]}}, "an output column has the unknown key 'unit'"),
            ({"trainingDatasetVersion": "2"}, "trainingDatasetVersion is a text"),
            ({"maxBatchRows": 1.5}, "maxBatchRows is a number"),
        ],
    )
    def test_keys_and_types(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=rf"deployment 'fraud': its request schema .*{message}"):
            read(**changes)

    @pytest.mark.parametrize("data", [None, [], "x", 7])
    def test_no_document(self, data: Any) -> None:
        with pytest.raises(InvalidInputError, match="the document is"):
            DeploymentSchema.read(data, "deployment 'fraud'")


@pytest.mark.parametrize(
    ("model", "feature", "expected"),
    [
        ("int", "bigint", True),
        ("int64", "bigint", True),
        ("uint8", "tinyint", True),
        ("double", "float", True),
        ("float32", "decimal(10,2)", True),
        ("object", "string", True),
        (None, "double", True),
        ("double", None, True),
        ("category", "varchar(10)", True),
        ("datetime64[ns]", "date", True),
        ("bool", "boolean", True),
        ("array<int>", "array<double>", True),
        ("struct<a:int>", "string", False),
        ("int", "double", False),
        ("string", "double", False),
        ("timestamp", "bigint", False),
    ],
)
def test_types_of_one_family(model: str | None, feature: str | None, expected: bool) -> None:
    assert deployment_schema.are_alike(model, feature) is expected


class TestVariables:
    def test_on_the_predictor(self) -> None:
        body: dict[str, Any] = {"predictorEnvVars": ["SERVING_FEATURE_LOGGING=job", "SERVING_SCHEMA_ID=old", "OWN=1"]}

        deployment_schema.write_variables(body, read().variables())

        assert body["predictorEnvVars"] == [
            "SERVING_FEATURE_LOGGING=job",
            f"SERVING_SCHEMA_ID={FILES['td2']['id']}",
            "OWN=1",
            "SERVING_FEATURE_VIEW_NAME=transactions_view",
            "SERVING_FEATURE_VIEW_VERSION=1",
            "SERVING_TRAINING_DATASET_VERSION=2",
            "SERVING_SCHEMA_ENFORCER=predictor",
        ]
        assert deployment_schema.are_written(body, read().variables())

    def test_a_name_that_is_there_twice(self) -> None:
        """The later value would win."""
        body: dict[str, Any] = {
            "predictorEnvVars": ["SERVING_SCHEMA_ID=old", "OWN=1", "SERVING_SCHEMA_ID=older", "OWN=1"]
        }

        deployment_schema.write_variables(body, {"SERVING_SCHEMA_ID": "new"})

        assert body["predictorEnvVars"] == [
            "SERVING_SCHEMA_ID=new",
            "OWN=1",
            "OWN=1",
            "SERVING_SCHEMA_ENFORCER=predictor",
        ]

    def test_those_of_a_document_without_a_view_are_removed(self) -> None:
        body: dict[str, Any] = {}
        deployment_schema.write_variables(body, read().variables())
        without = read(featureView=None, trainingDatasetVersion=None).variables()
        assert not deployment_schema.are_written(body, without)

        deployment_schema.write_variables(body, without)

        assert list(deployment_schema.variables_of(body)) == ["SERVING_SCHEMA_ID", "SERVING_SCHEMA_ENFORCER"]

    def test_on_both_components(self) -> None:
        body: dict[str, Any] = {"transformer": "t.py", "transformerEnvVars": ["OWN=2"]}

        deployment_schema.write_variables(body, read().variables())

        assert body["transformerEnvVars"][0] == "OWN=2"
        assert deployment_schema.variables_of(body, "transformer")["SERVING_SCHEMA_ENFORCER"] == "transformer"
        assert deployment_schema.variables_of(body)["SERVING_SCHEMA_ENFORCER"] == "transformer"
        body.pop("transformerEnvVars")
        assert not deployment_schema.are_written(body, read().variables())

    @pytest.mark.parametrize(("text", "rows"), [("64", 64), (" 64 ", 64), ("0", None), ("-1", None), ("x", None)])
    def test_the_row_limit(self, text: str, rows: int | None) -> None:
        assert deployment_schema.batch_rows_of({"predictorEnvVars": [f"SERVING_MAX_BATCH_ROWS={text}"]}) == rows

    def test_the_document_is_not_modified(self) -> None:
        before = copy.deepcopy(DOCUMENT)
        read().changed(training_dataset=9)

        assert before == DOCUMENT
