"""The schema of a deployment's requests, carried over a retrain on another training dataset."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import DeployModelOperator, HsmlHook, RollbackDeploymentOperator
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import deployment_schema
from airflow_provider_hsml.hopsworks.domain.deployment_schema import FORMATS
from airflow_provider_hsml.hopsworks.errors import RequestRefusedError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.rollout.schema_carry import CarriedSchema, _Columns
from airflow_provider_hsml.hopsworks.rollout.update import Update
from airflow_provider_hsml.local import FeatureView, LocalServing, RequestFault
from tests.support.request_schemas import FILES, ROW, Scene, declare
from tests.support.tasks import change_by_rest, changes, execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.since_hopsworks("5.2")

_numbers = itertools.count()
NAMED = {
    "SERVING_FEATURE_VIEW_NAME": "transactions_view",
    "SERVING_FEATURE_VIEW_VERSION": "1",
    "SERVING_SCHEMA_ENFORCER": "predictor",
}


LIMITED = {"env_vars": {"OWN": "1", "SERVING_MAX_BATCH_ROWS": "64"}}


@pytest.fixture
def scene(hook: HsmlHook, serving: LocalServing, model_file: Callable[..., Path]) -> Scene:
    serving.world.project(serving.project_id).features.clear()
    declare(serving)
    return Scene(hook, serving, f"carried{next(_numbers)}", model_file)


@pytest.fixture
def served(scene: Scene) -> Scene:
    """A deployment that serves version 1, trained on training dataset 2."""
    scene.publish()
    scene.deploy(scene.register(2), own=("OWN=1",))
    return scene


async def _no_model(*_: Any) -> None:
    """Find no model."""


def deploy(scene: Scene, **more: Any) -> Any:
    return DeployModelOperator(task_id="task", model_name=scene.name, **more)


class TestCarried:
    def test_another_training_dataset(self, served: Scene) -> None:
        served.register(3, answer=2)

        record = execute(deploy(served))

        assert (record["action"], record["model_version"], served.status) == ("updated", 2, "Running")
        assert served.variables() == {
            "OWN": "1",
            "SERVING_SCHEMA_ID": FILES["td3"]["id"],
            "SERVING_TRAINING_DATASET_VERSION": "3",
            **NAMED,
        }
        assert served.hook.predict(served.name, instances=[ROW])["predictions"] == [2]

    def test_the_documents_are_those_that_the_sdk_writes(self, served: Scene) -> None:
        served.register(3)

        execute(deploy(served))

        assert served.written(FILES["td3"]["id"]) == served.theirs("td3")

    def test_one_request_changes_version_and_variables(self, served: Scene) -> None:
        served.register(3)
        served.serving.requests.clear()

        execute(deploy(served))

        puts = [
            asked for asked in served.serving.requests if (asked.method, asked.path) == ("PUT", "/project/119/serving")
        ]
        assert [(put.query, put.body["modelVersion"]) for put in puts] == [("newVersion=true", 2)]
        assert f"SERVING_SCHEMA_ID={FILES['td3']['id']}" in puts[0].body["predictorEnvVars"]
        order = [asked.path for asked in served.serving.requests if asked.method in ("POST", "PUT")]
        uploads = [path for path in order if "resources/schema" in path]
        assert len(uploads) == 3
        assert order.index(uploads[-1]) < order.index("/project/119/serving")

    def test_the_same_training_dataset_keeps_the_schema(self, served: Scene) -> None:
        served.register(2, answer=3)
        served.serving.requests.clear()

        assert execute(deploy(served, spec={"env_vars": {"OWN": "2"}}))["action"] == "updated"

        assert served.variables()["SERVING_SCHEMA_ID"] == FILES["td2"]["id"]
        assert served.variables()["OWN"] == "2"
        assert not [asked for asked in served.serving.requests if asked.method == "POST" and "/schema" in asked.path]

    def test_files_that_are_there_stay(self, served: Scene) -> None:
        theirs = {"schema": FILES["td3"]["schema"].replace("\n", "\n "), "jsonschema": '{"theirs": true}'}
        served.write(f"schema/{FILES['td3']['id']}.json", theirs["schema"])
        served.write(f"schema/{FILES['td3']['id']}.jsonschema.json", theirs["jsonschema"])
        served.register(3)

        execute(deploy(served))

        written = served.written(FILES["td3"]["id"])
        assert {form: written[form] for form in theirs} == theirs

    @pytest.mark.parametrize("form", ["schema", "jsonschema", "openapi"])
    @pytest.mark.parametrize("content", ["", "{}", '{"schemaVersion": 1, "serving'])
    def test_files_that_are_not_whole_are_replaced(self, served: Scene, form: str, content: str) -> None:
        served.write(f"schema/{FILES['td3']['id']}{FORMATS[form]}", content)
        served.register(3)

        execute(deploy(served))

        assert served.written(FILES["td3"]["id"]) == served.theirs("td3")

    def test_a_document_of_another_id_is_replaced(self, served: Scene) -> None:
        served.write(f"schema/{FILES['td3']['id']}.json", FILES["td2"]["schema"])
        served.register(3)

        execute(deploy(served))

        assert served.written(FILES["td3"]["id"]) == served.theirs("td3")

    def test_an_upload_that_is_not_whole_changes_nothing(self, served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        files = served.serving.world.project(served.serving.project_id).files
        before = served.variables()
        served.register(3)

        async def cut_off(_project: Any, path: str, content: bytes) -> None:
            files.write(path, content[:50])

        monkeypatch.setattr("airflow_provider_hsml.hopsworks.rollout.schema_carry.upload_bytes", cut_off)

        with pytest.raises(UnexpectedResponseError, match="cannot be read back"):
            execute(deploy(served))
        assert served.variables() == before

    def test_the_row_limit_of_the_variables_is_in_the_id(self, scene: Scene) -> None:
        scene.publish(maxBatchRows=64)
        scene.deploy(scene.register(2), own=("SERVING_MAX_BATCH_ROWS=64",))
        scene.register(3)

        execute(deploy(scene))

        assert scene.variables()["SERVING_SCHEMA_ID"] == FILES["td3_64"]["id"]
        written = scene.written(FILES["td3_64"]["id"])
        assert (written["schema"], written["jsonschema"]) == (FILES["td3_64"]["schema"], FILES["td3_64"]["jsonschema"])

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_another_row_limit_alone_is_another_schema(self, served: Scene, deferrable: bool) -> None:
        served.serving.requests.clear()

        record = execute(deploy(served, model_version=1, spec=LIMITED, deferrable=deferrable))

        assert (record["action"], served.status) == ("updated", "Running")
        assert served.variables() == {
            "OWN": "1",
            "SERVING_MAX_BATCH_ROWS": "64",
            "SERVING_SCHEMA_ID": "f8a30ded17c3b150",
            "SERVING_TRAINING_DATASET_VERSION": "2",
            **NAMED,
        }
        written = served.written("f8a30ded17c3b150")
        assert sorted(written) == sorted(FORMATS)
        assert json.loads(written["schema"])["maxBatchRows"] == 64
        assert '"maxItems": 64' in written["jsonschema"]
        assert '"maxItems": 64' in written["openapi"]
        puts = [asked for asked in changes(served.serving) if asked == ("PUT", "serving")]
        assert len(puts) == 1

        served.register(3)
        execute(deploy(served, model_version=2, spec=LIMITED, deferrable=deferrable))

        assert served.variables()["SERVING_SCHEMA_ID"] == FILES["td3_64"]["id"] == "70cc857c66efa8c2"

    def test_the_row_limit_of_the_document_keeps_the_schema(self, served: Scene) -> None:
        served.serving.requests.clear()

        record = execute(deploy(served, model_version=1, spec={"env_vars": {"SERVING_MAX_BATCH_ROWS": "512"}}))

        assert (record["action"], served.variables()["SERVING_SCHEMA_ID"]) == ("updated", FILES["td2"]["id"])
        assert not [asked for asked in served.serving.requests if asked.method == "POST" and "/schema" in asked.path]
        assert execute(deploy(served, model_version=1))["action"] == "unchanged"

    def test_another_row_limit_and_a_transformer(self, served: Scene, tmp_path: Path) -> None:
        script = tmp_path / "transform.py"
        script.write_text("class Transformer: ...")

        execute(deploy(served, model_version=1, spec={**LIMITED, "transformer": {"script_file": str(script)}}))

        theirs = {"SERVING_SCHEMA_ID": "f8a30ded17c3b150", "SERVING_SCHEMA_ENFORCER": "transformer"}
        for component in ("predictor", "transformer"):
            assert theirs.items() <= served.variables(component).items()
        assert "SERVING_MAX_BATCH_ROWS" not in served.variables("transformer")

        execute(deploy(served, model_version=1, spec={"transformer": False}))

        assert served.variables()["SERVING_SCHEMA_ENFORCER"] == "predictor"
        assert served.variables()["SERVING_MAX_BATCH_ROWS"] == "64"

    def test_a_rollback_of_another_row_limit(self, served: Scene) -> None:
        execute(deploy(served, model_version=1, spec=LIMITED))

        execute(RollbackDeploymentOperator(task_id="back", deployment_name=served.name))

        assert served.variables()["SERVING_SCHEMA_ID"] == FILES["td2"]["id"]
        assert "SERVING_MAX_BATCH_ROWS" not in served.variables()

    def test_formats_that_were_not_published_are_not(self, scene: Scene) -> None:
        schema = scene.publish()
        files = scene.serving.world.project(scene.serving.project_id).files
        for ending in ("jsonschema", "openapi"):
            files.delete(f"Deployments/{scene.name}/resources/schema/{schema.id}.{ending}.json")
        scene.deploy(scene.register(2))
        scene.register(3)

        execute(deploy(scene))

        assert list(scene.written(FILES["td3"]["id"])) == ["schema"]

    def test_a_rendering_of_an_unknown_form_is_not_published(self, served: Scene) -> None:
        served.write(f"schema/{served.schema.id}.jsonschema.json", json.dumps({"newer": True}))
        served.register(3)

        execute(deploy(served))

        assert list(served.written(FILES["td3"]["id"])) == ["schema", "openapi"]

    def test_a_folder_that_is_missing_is_made(self, served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """As after the schema was read, another client has deleted the folder."""
        served.register(3)
        files = served.serving.world.project(served.serving.project_id).files
        check = _Columns.check

        async def check_and_lose(columns: Any, script: str) -> None:
            await check(columns, script)
            files.delete(f"Deployments/{served.name}/resources/schema")

        monkeypatch.setattr(_Columns, "check", check_and_lose)
        execute(deploy(served))

        assert list(served.written(FILES["td3"]["id"])) == ["schema"]

    def test_another_task_publishes_the_same_meanwhile(self, served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        files = served.serving.world.project(served.serving.project_id).files
        served.register(3)

        async def come_second(_project: Any, path: str, content: bytes) -> None:
            files.write(path, content)
            raise RequestRefusedError("upload", status=400, code=110012, text="it exists")

        monkeypatch.setattr("airflow_provider_hsml.hopsworks.rollout.schema_carry.upload_bytes", come_second)

        assert execute(deploy(served))["action"] == "updated"

    def test_an_upload_that_is_refused(self, served: Scene) -> None:
        served.register(3)
        fault = RequestFault("POST", "**/dataset/upload/**/schema", status=400, body={"errorCode": 110055}, times=1)
        served.serving.faults.add(fault)

        with pytest.raises(AirflowFailException, match="110055"):
            execute(deploy(served))
        served.serving.faults.clear()
        assert served.variables()["SERVING_SCHEMA_ID"] == FILES["td2"]["id"]

    def test_the_view_that_the_registry_knows_without_provenance(
        self, served: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served.register(3)
        features = served.serving.world.project(served.serving.project_id).features
        links = features.links({"name": served.name, "version": 2}, 2)
        monkeypatch.setattr(type(features), "links", lambda *_: links)

        assert execute(deploy(served))["action"] == "updated"

    def test_a_version_that_was_served_and_is_gone(self, served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its features are unknown then, and not compared."""
        served.register(3)
        monkeypatch.setattr("airflow_provider_hsml.hopsworks.rollout.schema_carry.lookup.served_model", _no_model)

        assert execute(deploy(served))["action"] == "updated"

    @pytest.mark.parametrize(
        "columns",
        [
            [("age", "bigint"), ("amount", "double")],
            [("amount", "float64"), ("age", "int64")],
            [("amount", "decimal(10,2)"), ("age", "int")],
            [("amount", "double")],
        ],
    )
    def test_features_that_the_default_predictor_takes(self, served: Scene, columns: list[tuple[str, str]]) -> None:
        """It selects them by name, and compares the families of their types."""
        inputs = {"columnar_schema": [{"name": name, "type": kind} for name, kind in columns]}
        output = {"columnar_schema": [{"name": "is_fraud", "type": "int"}]}
        served.register(3, model_schema={"input_schema": inputs, "output_schema": output})

        assert execute(deploy(served))["action"] == "updated"

    def test_a_transformer_gets_the_variables_too(self, served: Scene, tmp_path: Path) -> None:
        script = tmp_path / "transform.py"
        script.write_text("class Transformer: ...")
        served.register(3)

        execute(deploy(served, spec={"transformer": {"script_file": str(script)}}))

        theirs = {"SERVING_SCHEMA_ID": FILES["td3"]["id"], "SERVING_SCHEMA_ENFORCER": "transformer"}
        assert served.variables().items() >= theirs.items()
        assert served.variables("transformer").items() >= theirs.items()

    def test_a_transformer_that_is_added_alone(self, served: Scene, tmp_path: Path) -> None:
        script = tmp_path / "transform.py"
        script.write_text("class Transformer: ...")

        execute(deploy(served, spec={"transformer": {"script_file": str(script)}}))

        assert served.variables("transformer") == {
            **NAMED,
            "SERVING_SCHEMA_ID": FILES["td2"]["id"],
            "SERVING_TRAINING_DATASET_VERSION": "2",
            "SERVING_SCHEMA_ENFORCER": "transformer",
        }
        assert served.variables()["SERVING_SCHEMA_ENFORCER"] == "transformer"

    def test_night_after_night(self, served: Scene) -> None:
        for dataset in (3, 4, 3):
            served.register(dataset, answer=dataset)
            execute(deploy(served))
            assert served.variables()["SERVING_TRAINING_DATASET_VERSION"] == str(dataset)
            assert served.hook.predict(served.name, instances=[ROW])["predictions"] == [dataset]


@pytest.mark.airflow
class TestDeferred:
    """The trigger reads the schema by itself: it knows no more than the worker wrote to the journal."""

    def test_recorded_answers_of_online_features_are_not_compared(self, served: Scene) -> None:
        served.register(3, answer=2, expected={"instances": [ROW], "predictions": [17]})

        record = execute(deploy(served, deferrable=True))

        assert (record["action"], record["verified_by"] == "fingerprint") == ("updated", False)
        assert served.variables()["SERVING_SCHEMA_ID"] == FILES["td3"]["id"]

    def test_rolled_back(self, served: Scene) -> None:
        before = served.variables()
        served.register(3, answer=None, expected={"instances": [ROW], "predictions": [17]})

        with pytest.raises(AirflowFailException, match=r"same_length and finite[\s\S]*rolled back"):
            execute(deploy(served, deferrable=True))

        assert served.variables() == before


class TestRefused:
    """Before anything is changed; the message names the difference."""

    def check(self, scene: Scene, message: str, **more: Any) -> None:
        before = scene.variables()
        scene.serving.requests.clear()

        with pytest.raises(AirflowFailException, match=message):
            execute(deploy(scene, **more))

        assert [change for change in changes(scene.serving) if change[1] != f"{scene.name}:predict"] == []
        assert (scene.variables(), scene.status) == (before, "Running")

    def test_another_feature_view(self, served: Scene) -> None:
        view = FeatureView(
            name="other_view", features={"amount": "double"}, labels={"is_fraud": "int"}, training_datasets=(3,)
        )
        served.serving.world.declare(view)
        served.register(3, feature_view="other_view")

        self.check(served, r"of feature view 'transactions_view' version 1, .* feature view 'other_view' version 1")

    def test_another_version_of_the_view(self, served: Scene) -> None:
        declare(served.serving, version=2)
        served.register(3, feature_view_version=2)

        self.check(served, r"'transactions_view' version 1, .* feature view 'transactions_view' version 2")

    def test_an_unknown_feature_view(self, served: Scene) -> None:
        served.register(3, feature_view=None, model_schema={})

        self.check(served, "the model's feature view is unknown.\nRegister the model with its feature_view")

    def test_a_view_that_was_deleted(self, served: Scene) -> None:
        served.register(3)
        served.serving.world.project(served.serving.project_id).features.remove("transactions_view")

        self.check(served, "feature view 'transactions_view' version 1 is deleted in the feature store")

    def test_no_training_dataset(self, served: Scene) -> None:
        served.register(None)

        self.check(served, "the schema is of training dataset 2, and none was registered with the model")

    def test_other_output_columns(self, served: Scene) -> None:
        columns = {"columnar_schema": [{"name": "amount", "type": "double"}, {"name": "age", "type": "bigint"}]}
        output = {"columnar_schema": [{"name": "risk", "type": "double"}]}
        served.register(3, model_schema={"input_schema": columns, "output_schema": output})

        self.check(served, r"the model's output columns are risk \(double\), and the schema publishes is_fraud \(int\)")

    def test_other_features(self, served: Scene) -> None:
        columns = {"columnar_schema": [{"name": "amount", "type": "double"}, {"name": "risk", "type": "double"}]}
        output = {"columnar_schema": [{"name": "is_fraud", "type": "int"}]}
        served.register(3, model_schema={"input_schema": columns, "output_schema": output})

        self.check(served, r"the model's features risk are not among those that the serving version has")

    def test_a_feature_of_another_type(self, served: Scene) -> None:
        columns = {"columnar_schema": [{"name": "age", "type": "string"}, {"name": "amount", "type": "double"}]}
        output = {"columnar_schema": [{"name": "is_fraud", "type": "int"}]}
        served.register(3, model_schema={"input_schema": columns, "output_schema": output})

        self.check(served, r"the model's features are age \(string\), and the serving version has age \(bigint\)")

    def test_unknown_columns(self, served: Scene) -> None:
        files = served.serving.world.project(served.serving.project_id).files
        version = served.register(3)
        files.delete(f"Models/{served.name}/{version}/model_schema.json")

        self.check(served, "no model_schema.json was registered with the model, so its columns are unknown")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"schemaVersion": 2}, "schemaVersion is not 1"),
            ({"newer": True}, "the document has the unknown key 'newer'"),
            ({"output": {"kind": "predictions", "columns": None, "unit": "x"}}, "output has the unknown key 'unit'"),
            ({"maxBatchRows": 9}, "the published document has the id .*, so it was changed"),
        ],
    )
    def test_a_document_that_is_not_understood(self, served: Scene, change: dict[str, Any], message: str) -> None:
        document = json.loads(served.schema.render()) | change
        served.write(f"schema/{served.schema.id}.json", json.dumps(document))
        served.register(3)

        self.check(served, message)

    def test_a_document_that_is_gone(self, served: Scene) -> None:
        files = served.serving.world.project(served.serving.project_id).files
        files.delete(f"Deployments/{served.name}/resources/schema/{served.schema.id}.json")
        served.register(3)

        self.check(served, "there is no published schema of this id")

    def test_a_registry_and_a_provenance_that_disagree(self, served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        version = served.register(3)
        features = served.serving.world.project(served.serving.project_id).features
        recorded = served.serving.world.project(served.serving.project_id).registry.get(f"{served.name}_{version}")
        links = features.links({**recorded, "trainingDatasetVersion": 4}, 2)
        monkeypatch.setattr(type(features), "links", lambda *_: links)

        self.check(served, "the registry has training_dataset_version 3, and the provenance training dataset 4")

    def test_a_key_that_may_not_write_files(self, served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        served.register(3)
        monkeypatch.setenv(
            "AIRFLOW_CONN_HSML_DEFAULT", json.dumps(served.serving.connection_fields("no.scope-of-files"))
        )

        self.check(served, "without the scope DATASET_VIEW")


class TestWithoutTrainingDataset:
    def test_a_schema_that_names_none_is_kept(self, scene: Scene) -> None:
        scene.publish(featureView=None, trainingDatasetVersion=None, servingKeys=[])
        scene.deploy(scene.register(2), script="predict.py")
        scene.register(3)

        assert execute(deploy(scene))["action"] == "updated"
        assert scene.variables()["SERVING_SCHEMA_ID"] == scene.schema.id

    def test_features_that_the_schema_does_not_pass(self, scene: Scene) -> None:
        scene.publish(featureView=None, trainingDatasetVersion=None, servingKeys=[])
        columns = {"columnar_schema": [{"name": "amount", "type": "double"}]}
        output = {"columnar_schema": [{"name": "is_fraud", "type": "int"}]}
        schema = {"input_schema": columns, "output_schema": output}
        scene.deploy(scene.register(2, model_schema=schema))
        scene.register(3)

        with pytest.raises(
            AirflowFailException, match="the model's features age are not among those that the schema has"
        ):
            execute(deploy(scene))


class TestRolledBack:
    def test_by_a_person(self, served: Scene) -> None:
        before = served.variables()
        served.register(3, answer=2)
        execute(deploy(served))

        record = execute(RollbackDeploymentOperator(task_id="back", deployment_name=served.name))

        assert (record["action"], record["model_version"]) == ("rolled_back", 1)
        assert (served.variables(), served.status) == (before, "Running")
        assert served.hook.predict(served.name, instances=[ROW])["predictions"] == [1]

    def test_by_itself_when_the_new_version_does_not_start(
        self, served: Scene, model_file: Callable[..., Path]
    ) -> None:
        before = served.variables()
        served.hook.register_model(
            model_name=served.name,
            model_path=model_file(broken="no such weights"),
            framework="PYTHON",
            feature_view="transactions_view",
            training_dataset_version=3,
        )

        with pytest.raises(AirflowFailException, match=r"no such weights[\s\S]*rolled back"):
            execute(deploy(served))

        assert served.variables() == before
        assert served.hook.predict(served.name, instances=[ROW])["predictions"] == [1]

    def test_by_deploying_the_former_version(self, served: Scene) -> None:
        """The document of the former training dataset has its former id, so its files are there."""
        before = served.variables()
        served.register(3)
        execute(deploy(served))

        assert execute(deploy(served, model_version=1))["action"] == "updated"
        assert served.variables() == before

    def test_natively_by_the_sdk(self, served: Scene) -> None:
        before = served.variables()
        served.register(3)
        execute(deploy(served))
        live = served.hook.client.send(api.get_deployment(served.hook.client.project, served.name))
        assert live is not None
        served.hook.client.send(api.rollback_deployment(served.hook.client.project, live, 1))
        served.hook.start_deployment(served.name, timeout=30, poll_interval=0.05)

        assert served.variables() == before
        assert execute(deploy(served, model_version=2))["model_version"] == 2
        assert served.variables()["SERVING_TRAINING_DATASET_VERSION"] == "3"


class TestJournal:
    def test_a_second_run_changes_nothing(self, served: Scene) -> None:
        served.register(3)
        execute(deploy(served))
        served.serving.requests.clear()

        assert execute(deploy(served))["action"] == "unchanged"
        assert not [change for change in changes(served.serving) if change[0] == "PUT"]

    def test_a_run_that_ended_after_its_change_is_adopted(self, served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker that ends right after the PUT: the next run attaches, and the journal says that it is verified."""
        served.register(3, answer=2)

        class Ended(BaseException):
            pass

        send = type(served.hook.client).send

        def send_until_put(client: Any, call: Any) -> Any:
            result = send(client, call)
            if call.method == "PUT" and call.path.endswith("/serving"):
                raise Ended
            return result

        with monkeypatch.context() as patched:
            patched.setattr(type(served.hook.client), "send", send_until_put)
            with pytest.raises(Ended):
                execute(deploy(served))

        record = execute(deploy(served))
        assert record["action"] == "attached"
        assert served.variables()["SERVING_SCHEMA_ID"] == FILES["td3"]["id"]

    def test_a_first_schema_is_another_one_than_none(self) -> None:
        """Also where it changes neither the version nor the revision, as of a stopped deployment."""
        unnamed = CarriedSchema(None)
        body = {"predictorEnvVars": ["OWN=1"]}

        unnamed.write(body)

        assert body == {"predictorEnvVars": ["OWN=1"]}
        assert unnamed.is_of(body)
        assert unnamed.is_stored(body)
        assert not unnamed.is_of({"predictorEnvVars": ["SERVING_SCHEMA_ID=theirs"]})

    def test_another_client_that_publishes_a_first_schema_in_between(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The version that was checked without a schema does not go out with one of another training dataset."""
        schema = scene.publish()
        scene.deploy(scene.register(2), script="predict.py")
        change_by_rest(scene.hook, scene.name, lambda row: row.update(predictorEnvVars=[]))
        scene.register(3)
        prepare = Update.prepare_update
        done: list[int] = []

        async def prepare_then_lose(update: Any, now: Any) -> Any:
            result = await prepare(update, now)
            if not done:
                done.append(1)
                change_by_rest(
                    scene.hook, scene.name, lambda row: deployment_schema.write_variables(row, schema.variables())
                )
            return result

        monkeypatch.setattr(Update, "prepare_update", prepare_then_lose)

        execute(deploy(scene))

        assert scene.variables()["SERVING_SCHEMA_ID"] == FILES["td3"]["id"]

    def test_another_client_that_publishes_in_between(self, served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """Their schema is read, and carried over in turn."""
        served.register(3)
        other = served.schema.changed(training_dataset=2, max_batch_rows=100)
        served.write(f"schema/{other.id}.json", other.render())
        prepare = Update.prepare_update
        done: list[int] = []

        def name_the_other(row: dict[str, Any]) -> None:
            row["predictorEnvVars"] = [text.replace(served.schema.id, other.id) for text in row["predictorEnvVars"]]

        async def prepare_then_lose(update: Any, live: Any) -> Any:
            result = await prepare(update, live)
            if not done:
                done.append(1)
                change_by_rest(served.hook, served.name, name_the_other)
            return result

        monkeypatch.setattr(Update, "prepare_update", prepare_then_lose)

        execute(deploy(served))

        wanted = served.schema.changed(training_dataset=3, max_batch_rows=100)
        assert served.variables()["SERVING_SCHEMA_ID"] == wanted.id
