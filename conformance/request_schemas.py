"""Steps: feature views, the provenance of models, and the schemas of deployments' requests."""

from __future__ import annotations

import json
import random
from typing import Any

from conformance.steps import WAIT_SECONDS, Session, expect, refused, step

VIEWS, SCHEMAS = "Feature views", "Request schemas"
ELSEWHERE = "it needs the feature view that the local Model Serving is started with"
VIEW: dict[str, Any] = {
    "name": "conformance_view",
    "features": {"amount": "double", "age": "bigint"},
    "labels": {"risk": "double"},
    "serving_keys": {"cc_num": "bigint"},
    "training_datasets": [2, 3],
    "entities": [{"cc_num": 1, "amount": 10.0, "age": 30}],
}
"""The feature view that ``run`` starts the local Model Serving with."""
DOCUMENTS = 1000
_TYPES = (
    "int",
    " BIGINT ",
    "Double",
    "decimal(10,2)",
    "string",
    "array<int>",
    "struct<a:int,b:map<string,date>>",
    None,
)


def name_of(session: Session) -> str:
    return f"viewed{session.mark}"


@step(VIEWS, "read a feature view, its serving keys and its training datasets", since=(4, 6), cluster=ELSEWHERE)
def read_view(session: Session) -> None:
    store = session.sdk.feature_store
    view = store.get_feature_view(VIEW["name"], 1)
    expect([feature.name for feature in view.features], ["amount", "age", "risk"], "the features")
    expect([key.required_serving_key for key in view.serving_keys], ["cc_num"], "the serving keys")
    expect(store.get_feature_view(VIEW["name"], 9), None, "a version that does not exist")


@step(VIEWS, "register a model of a feature view, read its provenance back", since=(4, 6), cluster=ELSEWHERE)
def register_with_view(session: Session) -> None:
    import joblib
    from sklearn.linear_model import LinearRegression

    view = session.sdk.feature_store.get_feature_view(VIEW["name"], 1)
    for version, dataset in enumerate(VIEW["training_datasets"], 1):
        folder = session.folder / f"viewed{version}"
        folder.mkdir()
        rows = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
        joblib.dump(LinearRegression().fit(rows, [version * (a + b) for a, b in rows]), folder / "model.pkl")
        model = session.registry.python.create_model(
            name_of(session), feature_view=view, training_dataset_version=dataset
        )
        model.save(str(folder))
        expect(model.get_feature_view_provenance().accessible[0].name, VIEW["name"], "the feature view")
        expect(model.get_training_dataset_provenance().accessible[0].version, dataset, "the training dataset")


@step(SCHEMAS, "deploy the model of a feature view: default predictor and schema", since=(5, 2), cluster=ELSEWHERE)
def deploy_with_schema(session: Session) -> None:
    model = session.registry.get_model(name_of(session), version=1)
    deployment = model.deploy(name=session.named("viewed"), passed_features=["amount"])
    schema = deployment.schema
    expect([field.name for field in schema.columns], ["cc_num", "amount"], "the fields")
    expect(schema.training_dataset_version, 2, "the training dataset")
    deployment.start(await_running=WAIT_SECONDS)


def served(session: Session) -> Any:
    return session.serving.get_deployment(session.named("viewed"))


@step(
    SCHEMAS,
    "predict with online features; faults are refused before and after sending",
    since=(5, 2),
    cluster=ELSEWHERE,
)
def predict_by_schema(session: Session) -> None:
    deployment = served(session)
    answer = deployment.predict(data={"instances": [{"cc_num": 1, "amount": 2.0}]})
    expect([round(value, 6) for value in answer["predictions"]], [32.0], "the prediction")
    refused(lambda: deployment.predict(data={"instances": [{"cc_num": 1}]}), "missing")
    refused(lambda: deployment.predict(data={"instances": [{"cc_num": 99, "amount": 2.0}]}), "ENTITY_NOT_FOUND")


@step(SCHEMAS, "publish the schema of another training dataset by hand", since=(5, 2), cluster=ELSEWHERE)
def publish_by_hand(session: Session) -> None:
    from hsml.deployment_schema import DeploymentSchema

    deployment = served(session)
    document = {**deployment.schema.to_dict(), "trainingDatasetVersion": 3}
    deployment.model_version = 2
    deployment.schema = DeploymentSchema.from_response_json(document)
    deployment.save(await_update=WAIT_SECONDS, new_version=True)
    expect(served(session).schema.training_dataset_version, 3, "the training dataset of the schema")
    served(session).stop(await_stopped=WAIT_SECONDS)
    served(session).delete()


@step(SCHEMAS, f"ids of {DOCUMENTS:,} generated schemas, equal to this package's", since=(5, 2))
def ids(session: Session) -> None:
    from hsml.deployment_schema import DeploymentSchema as Theirs

    from airflow_provider_hsml.hopsworks.domain.deployment_schema import DeploymentSchema as Ours

    assert session.sdk.name == "hopsworks"  # noqa: S101 - hsml has no schemas
    for number in range(DOCUMENTS):
        document = generated(random.Random(number))  # noqa: S311 - test data
        ours, theirs = Ours.read(document, "generated"), Theirs.from_response_json(document)
        expect((ours.id, ours.render().decode()), (theirs.schema_id, theirs.json()), f"document {number}")
        other = Theirs.from_response_json({**theirs.to_dict(), "trainingDatasetVersion": 7})
        expect(ours.changed(training_dataset=7).id, other.schema_id, f"document {number}, another training dataset")


def generated(chance: random.Random) -> dict[str, Any]:
    """Draw a document of a schema, with keys left out and types written in several ways."""
    names = [f"f{number}{chance.choice(['', 'é', '_x'])}" for number in range(12)]
    chance.shuffle(names)
    document: dict[str, Any] = {"schemaVersion": 1}
    for group in ("servingKeys", "passedFeatures", "requestParameters", "extraLoggingFeatures"):
        if chance.random() < 0.9:
            document[group] = [field(chance, names.pop()) for _ in range(chance.randrange(3))]
    choices: dict[str, tuple[Any, ...]] = {
        "featureView": (None, {"name": "v", "version": 1}, {"name": "é"}),
        "trainingDatasetVersion": (None, 0, 1, 33),
        "output": (None, {"kind": "predictions"}, {"columns": [{"name": "y", "type": " Int"}, {"name": "z"}]}),
        "inferred": (True, False),
        "maxBatchRows": (None, 0, 1, 64),
    }
    document |= {key: chance.choice(values) for key, values in choices.items() if chance.random() < 0.8}
    return dict(json.loads(json.dumps(document)))


def field(chance: random.Random, name: str) -> dict[str, Any]:
    """Draw a field."""
    more: dict[str, Any] = {"type": chance.choice(_TYPES), "nullable": chance.random() < 0.5, "description": "dé"}
    return {"name": name, **{key: value for key, value in more.items() if chance.random() < 0.7}}
