"""Rows that are checked against the schema of a deployment's requests, before they are sent."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import DeployModelOperator, HsmlHook, PredictOperator, RollbackDeploymentOperator
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import deployment_schema
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    NotFoundError,
    RequestRefusedError,
)
from airflow_provider_hsml.hopsworks.inference import predict as predict_module
from airflow_provider_hsml.hopsworks.inference import schemas
from airflow_provider_hsml.local import RequestFault
from tests.support.request_schemas import FILES, ROW, Scene, declare
from tests.support.tasks import execute, rendered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.since_hopsworks("5.2")

_numbers = itertools.count()


@pytest.fixture
def scene(hook: HsmlHook, serving: LocalServing, model_file: Callable[..., Path]) -> Scene:
    serving.world.project(serving.project_id).features.clear()
    declare(serving)
    return Scene(hook, serving, f"checked{next(_numbers)}", model_file)


@pytest.fixture
def served(scene: Scene) -> Scene:
    """A deployment with a schema: serving key ``cc_num``, and ``amount`` from the request."""
    scene.publish()
    scene.deploy(scene.register(2))
    scene.serving.requests.clear()
    return scene


def predict(scene: Scene, **arguments: Any) -> Any:
    return PredictOperator(task_id="task", deployment_name=scene.name, **arguments)


def asked(scene: Scene, end: str) -> list[Any]:
    """Give the requests whose paths end like this."""
    return [one for one in scene.serving.requests if one.path.endswith(end)]


class TestPredict:
    def test_rows_that_match(self, served: Scene) -> None:
        assert execute(predict(served, instances=[ROW]))["predictions"] == [1]
        assert execute(predict(served, payload={"inputs": [[2, None]]}))["predictions"] == [1]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"instances": [ROW, {"cc_num": 1}]}, r"row 1, field 'amount': missing"),
            ({"instances": [{**ROW, "amount": "2.5"}]}, r"row 0, field 'amount': must be a finite number \(double\)"),
            ({"payload": {"instances": [[1]]}}, r"row 0: expected 2 values, got 1"),
            ({"inputs": {"cc_num": None, "amount": 1}}, r"row 0, field 'cc_num': must not be null"),
            ({"instances": [ROW] * 513}, r"there are 513 rows, and at most 512 are accepted"),
        ],
    )
    def test_rows_that_do_not_are_not_sent(self, served: Scene, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(AirflowFailException, match=message):
            execute(predict(served, **arguments))

        assert asked(served, ":predict") == []

    @pytest.mark.airflow
    @pytest.mark.parametrize("validate", [False, "False"])
    def test_unchecked(self, served: Scene, validate: Any) -> None:
        with pytest.raises(AirflowFailException, match="SCHEMA_VALIDATION"):
            execute(rendered(predict(served, instances=[{"cc_num": 1}]), validate=validate))

        assert len(asked(served, ":predict")) == 1
        assert asked(served, "/schema") == []

    def test_validate_is_a_flag(self, served: Scene) -> None:
        with pytest.raises(ValueError, match="validate: expected true or false"):
            predict(served, instances=[ROW], validate="perhaps")

    def test_the_schema_is_read_once(self, served: Scene) -> None:
        hook = HsmlHook()
        for _ in range(3):
            hook.predict(served.name, instances=[ROW])

        (read,) = asked(served, "/schema")
        assert read.query == f"format=schema&schemaId={served.schema.id}"

    @pytest.mark.parametrize(("status", "body"), [(500, {"errorCode": 120000}), (404, {"errorCode": 240000})])
    def test_a_schema_that_cannot_be_read(
        self, served: Scene, caplog: pytest.LogCaptureFixture, status: int, body: dict[str, Any]
    ) -> None:
        """The rows are sent unchecked, and the next request reads the schema again."""
        hook = HsmlHook()
        served.serving.faults.add(RequestFault("GET", "**/schema", status=status, body=body, times=None))

        with caplog.at_level(logging.WARNING):
            assert hook.predict(served.name, instances=[ROW])["predictions"] == [1]
        served.serving.faults.clear()

        assert "The rows are not checked before they are sent" in caplog.text
        with pytest.raises(InvalidInputError, match="'amount': missing"):
            hook.predict(served.name, instances=[{"cc_num": 1}])

    def test_a_schema_that_cannot_be_read_for_bytes(self, scene: Scene) -> None:
        scene.publish(passedFeatures=[{"name": "amount", "type": "binary"}])
        scene.deploy(scene.register(2))
        scene.serving.faults.add(RequestFault("GET", "**/schema", status=500, body={"errorCode": 120000}, times=None))

        HsmlHook().predict(scene.name, instances=[[1, b"a"]])
        scene.serving.faults.clear()

        assert asked(scene, ":predict")[-1].body == {"instances": [[1, "YQ=="]]}

    def test_another_schema_was_published_since(self, served: Scene) -> None:
        """A fault of the schema that is known is looked up in the one that is live."""
        hook = HsmlHook()
        hook.predict(served.name, instances=[ROW])
        schema = served.publish(passedFeatures=[{"name": "amount", "type": "string"}])
        project = served.hook.client.project
        live = served.hook.client.send(api.get_deployment(project, served.name))
        assert live is not None
        body = dict(live.raw)
        deployment_schema.write_variables(body, schema.variables())
        served.hook.stop_deployment(served.name)
        served.hook.client.send(api.put_deployment(project, body))
        served.hook.start_deployment(served.name, timeout=30, poll_interval=0.05)

        hook.predict(served.name, instances=[{"cc_num": 1, "amount": "2.5"}])
        with pytest.raises(InvalidInputError, match=f"schema {schema.id}: row 0, field 'amount': must be a text"):
            hook.predict(served.name, instances=[ROW])

    def test_a_fault_is_looked_up_once(self, served: Scene) -> None:
        hook = HsmlHook()
        for _ in range(2):
            with pytest.raises(InvalidInputError, match="'amount': missing"):
                hook.predict(served.name, instances=[{"cc_num": 1}])

        assert len(asked(served, "/schema")) == 2

    def test_no_request_where_there_is_no_schema(self, scene: Scene, register: Callable[..., int]) -> None:
        register(scene.name, 1)
        execute(DeployModelOperator(task_id="task", model_name=scene.name))
        scene.serving.requests.clear()

        execute(predict(scene, instances=[["anything"]]))

        assert asked(scene, "/schema") == []

    def test_the_input_example_is_checked(self, scene: Scene) -> None:
        scene.publish()
        scene.deploy(scene.register(2, input_example=[{"amount": 1.0}]))

        with pytest.raises(AirflowFailException, match="row 0, field 'cc_num': missing"):
            execute(predict(scene))

    @pytest.mark.parametrize(
        ("kind", "value", "sent"),
        [
            ("decimal(10,2)", Decimal("1.50"), "1.50"),
            ("decimal(10,2)", Decimal("1E+3"), "1000"),
            ("double", Decimal("1.50"), 1.5),
            ("int", Decimal(3), 3),
            ("timestamp", dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC), "2024-01-01T12:00:00Z"),
            ("date", dt.date(2024, 1, 1), "2024-01-01"),
            ("binary", b"a", "YQ=="),
        ],
    )
    def test_encodings(self, scene: Scene, kind: str, value: Any, sent: Any) -> None:
        scene.publish(passedFeatures=[{"name": "amount", "type": kind}])
        scene.deploy(scene.register(2))

        scene.hook.predict(scene.name, instances=[{"cc_num": 1, "amount": value}])

        assert asked(scene, ":predict")[-1].body == {"instances": [{"cc_num": 1, "amount": sent}]}

    def test_a_schema_of_another_version_is_left_to_hopsworks(
        self, served: Scene, caplog: pytest.LogCaptureFixture
    ) -> None:
        document = json.loads(served.schema.render()) | {"schemaVersion": 2}
        served.write(f"schema/{served.schema.id}.json", json.dumps(document))

        with caplog.at_level(logging.WARNING), pytest.raises(AirflowFailException, match="SCHEMA_VALIDATION"):
            execute(predict(served, instances=[{"cc_num": 1}]))
        assert "Rows are not checked before they are sent" in caplog.text

    def test_an_unknown_entity(self, served: Scene) -> None:
        with pytest.raises(AirflowFailException, match="ENTITY_NOT_FOUND"):
            execute(predict(served, instances=[{**ROW, "cc_num": 99}]))


class TestDeploymentSchema:
    def test_the_formats(self, served: Scene) -> None:
        theirs = served.theirs("td2")

        assert served.hook.get_deployment_schema(served.name) == json.loads(theirs["schema"])
        for form in ("jsonschema", "openapi"):
            assert served.hook.get_deployment_schema(served.name, format=form) == json.loads(theirs[form])

    def test_none(self, scene: Scene, register: Callable[..., int]) -> None:
        register(scene.name, 1)
        execute(DeployModelOperator(task_id="task", model_name=scene.name))

        assert scene.hook.get_deployment_schema(scene.name) is None

    def test_what_is_not_there(self, served: Scene) -> None:
        with pytest.raises(InvalidInputError, match="format: expected one of schema, jsonschema, openapi"):
            served.hook.get_deployment_schema(served.name, format="xml")
        with pytest.raises(NotFoundError):
            served.hook.get_deployment_schema("nope")

    def test_from_the_files_where_there_is_no_route(self, served: Scene) -> None:
        """A Hopsworks without the route answers a bare 404, three times."""
        served.serving.faults.add(RequestFault(path="**/schema", status=404, times=None))

        assert served.hook.get_deployment_schema(served.name) == json.loads(FILES["td2"]["schema"])
        served.serving.faults.clear()


class TestVerification:
    def deploy(self, scene: Scene, **verification: Any) -> Any:
        return execute(DeployModelOperator(task_id="task", model_name=scene.name, verification=verification or None))

    def test_rows_are_checked_before_anything_is_changed(self, served: Scene) -> None:
        served.register(3)
        served.serving.requests.clear()

        with pytest.raises(AirflowFailException, match=r"verification: .* row 0, field 'amount': missing"):
            self.deploy(served, instances=[{"cc_num": 1}])

        assert [one for one in served.serving.requests if one.method == "PUT"] == []

    def test_a_registered_example_that_does_not_match_is_not_sent(
        self, served: Scene, caplog: pytest.LogCaptureFixture
    ) -> None:
        served.register(3, input_example=[{"amount": 1.0}])
        served.serving.requests.clear()

        with caplog.at_level(logging.WARNING):
            assert self.deploy(served)["action"] == "updated"

        assert "The example is not sent" in caplog.text
        assert asked(served, ":predict") == []


class TestOnlineFeatures:
    """Of rows with serving keys, recorded answers identify no version: online features change."""

    @pytest.fixture
    def drifted(self, served: Scene) -> Scene:
        """The next version recorded answers that its rows do not get any more."""
        expected = {"instances": [ROW], "predictions": [17]}
        served.register(3, answer=2, expected=expected)
        return served

    def test_recorded_answers_are_not_compared(self, drifted: Scene) -> None:
        record = TestVerification().deploy(drifted)

        assert (record["action"], record["model_version"]) == ("updated", 2)
        assert record["verified_by"] != "fingerprint"

    def test_any_answer_is_right_where_none_was_recorded(self, served: Scene) -> None:
        served.register(3, answer=None)

        assert TestVerification().deploy(served)["action"] == "updated"

    @pytest.mark.parametrize("answer", [float("nan"), None])
    def test_answers_have_to_be_finite(self, served: Scene, answer: Any) -> None:
        served.register(3, answer=answer, expected={"instances": [ROW], "predictions": [17]})

        with pytest.raises(AirflowFailException, match=r"same_length and finite[\s\S]*rolled back"):
            TestVerification().deploy(served)

        assert served.variables()["SERVING_SCHEMA_ID"] == FILES["td2"]["id"]

    def test_equal_is_refused(self, drifted: Scene) -> None:
        with pytest.raises(AirflowFailException, match="'equal' cannot hold, since the deployment looks features up"):
            TestVerification().deploy(drifted, expect="equal")

    @pytest.mark.parametrize("expect", ["same_length", "finite"])
    def test_the_words_that_hold(self, drifted: Scene, expect: str) -> None:
        assert TestVerification().deploy(drifted, expect=expect)["action"] == "updated"

    def test_without_serving_keys_they_are(self, scene: Scene) -> None:
        scene.publish(servingKeys=[], passedFeatures=[{"name": "amount", "type": "double"}])
        scene.deploy(scene.register(2))
        scene.register(3, answer=2, expected={"instances": [[1.0]], "predictions": [17]})

        with pytest.raises(AirflowFailException, match="answers otherwise than recorded"):
            TestVerification().deploy(scene)


class TestWithoutFeatures:
    """An entity that has left the online store, or a store that does not answer, says nothing about a version."""

    REFUSALS = (
        (404, "ENTITY_NOT_FOUND"),
        (400, "FEATURE_LOOKUP_FAILED"),
        (503, "FEATURE_STORE_UNAVAILABLE"),
    )

    @pytest.fixture
    def gone(self, served: Scene) -> Scene:
        """The entity of the next version's example is not in the online store."""
        served.register(3, answer=2, input_example=[{**ROW, "cc_num": 99}])
        return served

    @pytest.mark.airflow
    @pytest.mark.parametrize("deferrable", [False, True])
    def test_the_serving_version_finds_none_either(
        self, gone: Scene, caplog: pytest.LogCaptureFixture, *, deferrable: bool
    ) -> None:
        with caplog.at_level(logging.WARNING):
            record = execute(DeployModelOperator(task_id="task", model_name=gone.name, deferrable=deferrable))

        assert (record["action"], record["model_version"]) == ("updated", 2)
        assert "This says nothing about a model version" in caplog.text

    def test_a_second_run_changes_nothing(self, gone: Scene) -> None:
        TestVerification().deploy(gone)

        assert TestVerification().deploy(gone)["action"] == "unchanged"

    def test_rows_of_the_verification(self, gone: Scene) -> None:
        before = gone.variables()

        with pytest.raises(AirflowFailException, match="Use serving keys in 'verification' that the online store has"):
            TestVerification().deploy(gone, instances=[{**ROW, "cc_num": 99}])
        assert gone.variables() == before

    @pytest.mark.parametrize("code", ["ENTITY_NOT_FOUND", "FEATURE_LOOKUP_FAILED"])
    def test_only_the_new_version_finds_none(self, served: Scene, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        """It is waited for: the version is neither rejected nor rolled back."""
        served.register(3, answer=2)
        ask = predict_module.ask_model
        sent: list[int] = []

        async def refuse(*given: Any, **more: Any) -> Any:
            sent.append(1)
            if len(sent) == 1:
                return await ask(*given, **more)
            error = RequestRefusedError("ask", status=400, code=250008, text=f'{{"detail": {{"code": "{code}"}}}}')
            error.is_from_deployment = True
            raise error

        task = DeployModelOperator(task_id="task", model_name=served.name, timeout=6, poll_interval=0.1)
        with monkeypatch.context() as patched:
            patched.setattr(predict_module, "ask_model", refuse)
            with pytest.raises(DeadlineExceededError, match=f"is live, and could not be verified.*{code}"):
                execute(task)

        # The version was not rejected: the next run verifies it.
        record = execute(DeployModelOperator(task_id="task", model_name=served.name))
        assert record["model_version"] == 2

    @pytest.mark.parametrize(("status", "code"), REFUSALS)
    def test_the_refusal_is_none_of_the_model(self, status: int, code: str) -> None:
        text = f'{{"detail": {{"code": "{code}"}}}}'
        proxied = RequestRefusedError("ask", status=400, code=250007 if status >= 500 else 250008, text=text)
        for error in (InferenceError("ask", status=status, text=text), proxied):
            assert not predict_module.is_without_features(error)
            error.is_from_deployment = True
            assert predict_module.is_without_features(error)
            assert not predict_module.is_model_refusal(error)


class TestSchemaThatCannotBeRead:
    @pytest.mark.parametrize(
        ("status", "body"), [(500, {"errorCode": 120000}), (403, {"errorCode": 320004}), (404, "")]
    )
    def test_a_rollback_goes_on_without_the_probe(self, served: Scene, status: int, body: Any) -> None:
        served.register(3, answer=2)
        TestVerification().deploy(served)
        fault = RequestFault("GET", "**/schema", status=status, body=body, times=None)
        served.serving.faults.add(fault)
        files = RequestFault("GET", "**/schema/*.json", status=500, body={"errorCode": 120000}, times=None)
        served.serving.faults.add(files)

        record = execute(RollbackDeploymentOperator(task_id="back", deployment_name=served.name))
        served.serving.faults.clear()

        assert (record["action"], record["model_version"]) == ("rolled_back", 1)
        assert served.variables()["SERVING_SCHEMA_ID"] == FILES["td2"]["id"]

    def test_the_automatic_way_back_goes_on(self, served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        served.register(3, answer=None, expected={"instances": [ROW], "predictions": [17]})
        read = schemas.read_for_checks

        async def fail_on_the_way_back(*given: Any, **more: Any) -> Any:
            if given[3] is None:
                raise RequestRefusedError("read", status=500, code=120000, text="")
            return await read(*given, **more)

        monkeypatch.setattr(schemas, "read_for_checks", fail_on_the_way_back)

        with pytest.raises(AirflowFailException, match="rolled back"):
            TestVerification().deploy(served)
        assert served.variables()["SERVING_SCHEMA_ID"] == FILES["td2"]["id"]

    def test_a_deploying_task_reads_it_again(self, served: Scene) -> None:
        served.register(3, answer=2)
        fault = RequestFault("GET", "**/schema", status=500, body={"errorCode": 120000}, times=5)
        served.serving.faults.add(fault)

        record = execute(DeployModelOperator(task_id="task", model_name=served.name, poll_interval=0.1))
        served.serving.faults.clear()

        assert (record["action"], record["model_version"]) == ("updated", 2)


def test_a_comparison_sends_the_fields_of_the_schema(served: Scene, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="a comparison measures with scikit-learn")
    challenger = served.register(2, answer=0)
    rows = [{"when": f"day {number}", "y": 1, "amount": 2.5, "cc_num": 1 + number % 2} for number in range(200)]
    served.serving.requests.clear()

    record = served.hook.compare_models(
        served.name, challenger, rows, label_column="y", metrics=["accuracy"], result_path=tmp_path, poll_interval=0.1
    )

    found = record["metrics"]["accuracy"]
    assert (found["champion"], found["challenger"], record["rows"]["compared"]) == (1.0, 0.0, 200)
    assert [one.name for one in served.hook.get_deployments() if one.name.startswith(served.name)] == [served.name]
