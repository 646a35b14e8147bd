"""What a task says of a deployment's configuration, as it gets there."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import (
    DeploymentSpec,
    DeployModelOperator,
    PredictOperator,
    StartDeploymentOperator,
    StopDeploymentOperator,
    TransformerSpec,
)
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import script_file
from airflow_provider_hsml.hopsworks.domain.deployment_schema import RESERVED
from airflow_provider_hsml.local import LocalServing, Speeds
from tests.support import tasks
from tests.support.tasks import execute, rendered, resource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.hooks import HsmlHook

pytestmark = [pytest.mark.hopsworks, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"spec{next(_numbers)}"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A predictor script of this machine."""
    path = tmp_path / "predict.py"
    path.write_text("class Predict: ...\n")
    return path


def changes(serving: LocalServing) -> list[tuple[str, str]]:
    """Give what was asked of the server to change; a probe changes nothing."""
    return [change for change in tasks.changes(serving) if not change[1].endswith(":predict")]


def deploy(name: str | None, **more: Any) -> DeployModelOperator:
    return DeployModelOperator(task_id="task", model_name=name, poll_interval=0.2, **more)


class TestScripts:
    @pytest.mark.airflow
    def test_is_uploaded_and_a_second_run_changes_nothing(
        self, hook: HsmlHook, serving: LocalServing, name: str, script: Path, register: Callable[..., int]
    ) -> None:
        register(name, 1)
        spec = {"script_file": str(script), "transformer": {"script_file": str(script)}}

        assert execute(deploy(name, spec=spec))["action"] == "created"
        live = resource(hook, name)
        assert live["predictor"] == live["transformer"]
        serving.requests.clear()
        assert execute(deploy(name, spec=spec))["action"] == "unchanged"
        assert changes(serving) == []

        script.write_text("class Predict: ...  # better\n")
        assert execute(deploy(name, spec=spec))["action"] == "updated"
        assert resource(hook, name)["predictor"] != live["predictor"]

    def test_the_transformer_is_taken_away(
        self, hook: HsmlHook, name: str, script: Path, register: Callable[..., int]
    ) -> None:
        register(name, 1)
        execute(deploy(name, spec=DeploymentSpec(transformer=TransformerSpec(script_file=str(script)))))

        assert execute(deploy(name, spec={"transformer": False}))["action"] == "updated"
        live = resource(hook, name)
        assert not any(live.get(key) for key in live if key.lower().find("transformer") >= 0)
        assert execute(deploy(name, spec={"transformer": "False"}))["action"] == "unchanged"

    def test_a_key_that_may_not_upload(
        self,
        serving: LocalServing,
        name: str,
        script: Path,
        register: Callable[..., int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        register(name, 1)
        connection = json.loads(serving.connection) | {"password": "no.scope-of-files"}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(connection))
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match=r"spec.script_file: the upload needs .* DATASET_VIEW"):
            execute(deploy(name, spec={"script_file": str(script)}))
        assert changes(serving) == []

    def test_none_of_this_machine(self, serving: LocalServing, name: str, register: Callable[..., int]) -> None:
        register(name, 1)
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match=r"spec.script_file: expected a file of the machine"):
            execute(deploy(name, spec={"script_file": "/nowhere/predict.py"}))
        assert changes(serving) == []


class TestKinds:
    @pytest.mark.since_hopsworks("4.6")
    def test_a_script_without_a_model(self, hook: HsmlHook, serving: LocalServing, name: str, script: Path) -> None:
        spec = {"script_file": str(script)}

        record = execute(deploy(None, deployment_name=name, spec=spec))

        assert (record["action"], record["model_name"], record["verified_by"]) == ("created", None, "instances")
        assert hook.get_deployment_state(name) == "Running"
        serving.requests.clear()
        assert execute(deploy(None, deployment_name=name, spec=spec))["action"] == "unchanged"
        assert changes(serving) == []
        execute(StopDeploymentOperator(task_id="task", deployment_name=name, poll_interval=0.2))
        started = execute(StartDeploymentOperator(task_id="task", deployment_name=name, poll_interval=0.2))
        assert started["status"] == "Running"
        with pytest.raises(AirflowFailException, match="serves a script without a model"):
            execute(PredictOperator(task_id="task", deployment_name=name, instances=[[1]]))

    def test_a_deployment_of_a_model_stays_one(self, name: str, script: Path, register: Callable[..., int]) -> None:
        register(name, 1)
        execute(deploy(name, wait_for_completion=False))

        with pytest.raises(AirflowFailException, match="serves a model and cannot be made to serve a script alone"):
            execute(deploy(None, deployment_name=name, spec={"script_file": str(script)}))

    @pytest.mark.parametrize(
        ("framework", "spec", "what"),
        [
            ("LLM", {"config_file": "vllm.yml"}, "a language model"),
            ("SKLEARN", {"api_protocol": "GRPC"}, "serves GRPC"),
        ],
    )
    @pytest.mark.since_hopsworks("4.2")
    def test_one_without_predictions_to_give_here(
        self,
        framework: str,
        spec: dict[str, Any],
        what: str,
        hook: HsmlHook,
        name: str,
        model_file: Callable[..., Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "vllm.yml").write_text("max_model_len: 100\n")
        monkeypatch.chdir(tmp_path)
        hook.register_model(model_name=name, model_path=model_file(answer=1), framework=framework, input_example=[[1]])

        assert execute(deploy(name, spec=spec))["verified_by"] == "instances"
        assert execute(deploy(name, spec=spec))["action"] == "unchanged"
        execute(StopDeploymentOperator(task_id="task", deployment_name=name, poll_interval=0.2))
        execute(StartDeploymentOperator(task_id="task", deployment_name=name, poll_interval=0.2))
        with pytest.raises(AirflowFailException, match=what):
            execute(PredictOperator(task_id="task", deployment_name=name))


class TestTags:
    @pytest.mark.since_hopsworks("5.0")
    def test_are_created_and_replaced_without_a_restart(
        self, hook: HsmlHook, serving: LocalServing, name: str, register: Callable[..., int]
    ) -> None:
        register(name, 1)
        assert execute(deploy(name, spec={"tags": {"team": "fraud", "tier": {"level": 3}}}))["action"] == "created"
        assert _tags(hook, name) == {"team": "fraud", "tier": {"level": 3}}
        serving.requests.clear()

        assert execute(deploy(name, spec={"tags": {"tier": {"level": 3}, "team": "fraud"}}))["action"] == "unchanged"
        assert changes(serving) == []
        assert execute(deploy(name, spec={"tags": {"team": "credit"}}))["action"] == "updated"
        assert changes(serving)[:2] == [("PUT", "team"), ("DELETE", "tier")]
        assert changes(serving)[2:] == [("PUT", "hsml_promotion")], "the note on the model version, which has no schema"
        execute(deploy(name, spec={"tags": {}}))
        assert _tags(hook, name) == {}

    def test_a_hopsworks_without_them(self, serving: LocalServing, name: str, register: Callable[..., int]) -> None:
        if serving.world.line.knows("tags"):
            pytest.skip("This Hopsworks has them")
        register(name, 1)

        with pytest.raises(AirflowFailException, match=r"spec.tags: this Hopsworks has no tags of deployments"):
            execute(deploy(name, spec={"tags": {"team": "fraud"}}))


def _tags(hook: HsmlHook, name: str) -> Any:
    return hook.client.send(api.get_deployment_tags(hook.client.project, hook.get_deployment(name)))


class TestChecked:
    @pytest.mark.airflow
    @pytest.mark.parametrize("given", [{}, {"deployment_name": "x"}, {"spec": {"script_file": "x.py"}}])
    def test_without_a_model_when_the_dag_is_parsed(self, given: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="Task 'task': without model_name it needs deployment_name"):
            deploy(None, **given)

    WRONG: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"enviroment": "x"}, "did you mean 'environment'"),
        *(({"env_vars": {name: "1"}}, rf"spec.env_vars: expected none of .*{name}") for name in sorted(RESERVED)),
        ({"extra": {"revision": "7"}}, r"spec.extra"),
    ]

    @pytest.mark.airflow
    @pytest.mark.parametrize(("spec", "message"), WRONG)
    def test_literals_when_the_dag_is_parsed(self, spec: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"Task 'task': .*({message})"):
            deploy("x", spec=spec)

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            *WRONG,
            ({"scaling": {"min_instances": 3, "max_instances": "2"}}, r"spec.scaling.max_instances"),
            ({"script_file": "/Projects/other/Resources/x.py"}, r"spec.script_file: expected a file in project"),
            ({"config_file": "/Projects/example/Resources/x.yml"}, r"spec.config_file: only vLLM"),
        ],
    )
    def test_before_anything_is_changed(
        self, serving: LocalServing, name: str, register: Callable[..., int], spec: dict[str, Any], message: str
    ) -> None:
        register(name, 1)
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match=message):
            execute(rendered(deploy(name), spec=spec))
        assert changes(serving) == []

    @pytest.mark.airflow
    def test_texts_as_templates_give_them(self, hook: HsmlHook, name: str, register: Callable[..., int]) -> None:
        register(name, 1)
        spec = {
            "resources": {"requests": {"cores": "1.5", "memory": "512"}},
            "scaling": {"min_instances": "2"},
            "inference_batcher": {"enabled": "true", "max_batch_size": "8"},
        }

        assert execute(deploy(name, spec=json.dumps(spec)))["action"] == "created"
        assert execute(deploy(name, spec=spec))["action"] == "unchanged"
        live = resource(hook, name)
        assert live["batchingConfiguration"]["batchingEnabled"] is True
        assert live["requestedInstances"] == 2


def test_a_script_in_the_project(hook: HsmlHook, name: str, script: Path, register: Callable[..., int]) -> None:
    register(name, 1)
    execute(deploy(name, spec={"script_file": str(script)}))
    path = f"/Projects/example/{script_file.FOLDER}/{resource(hook, name)['predictor']}"

    assert execute(deploy(name, spec={"script_file": f"hopsfs:{path}"}))["action"] == "unchanged"
    with pytest.raises(
        AirflowFailException, match=r"spec.script_file: there is no '/Projects/example/Resources/no.py'"
    ):
        execute(deploy(name, spec={"script_file": "/Projects/example/Resources/no.py"}))


PREDICTOR = """
import os

class Predict:
    def predict(self, inputs):
        return [row[0] + int(os.environ["OFFSET"]) for row in inputs]
"""
TRANSFORMER = """
class Transformer:
    def preprocess(self, inputs):
        return {"instances": [[value * FACTOR] for value in inputs["instances"]]}

    def postprocess(self, outputs):
        return outputs
"""


@pytest.mark.kserve
@pytest.mark.since_hopsworks("5.2")
def test_scripts_of_this_machine_really_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KServe's own server runs them: a change of a script, of a variable, and the transformer taken away are seen."""
    predictor, transformer = tmp_path / "predict.py", tmp_path / "transform.py"
    predictor.write_text(PREDICTOR)
    transformer.write_text(TRANSFORMER.replace("FACTOR", "10"))
    spec: dict[str, Any] = {
        "script_file": str(predictor),
        "transformer": {"script_file": str(transformer)},
        "env_vars": {"OFFSET": "1"},
    }
    with LocalServing(speeds=Speeds()) as kserve:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", kserve.connection)
        version = kserve.world.register_model("scripted", {"weights.txt": b""}, framework="PYTHON")

        def serve(**more: Any) -> tuple[str, list[int]]:
            record = execute(deploy("scripted", model_version=version, spec=spec | more))
            answer = execute(PredictOperator(task_id="task", deployment_name="scripted", instances=[2, 3]))
            return record["action"], answer["predictions"]

        assert serve() == ("created", [21, 31])
        assert serve() == ("unchanged", [21, 31])
        transformer.write_text(TRANSFORMER.replace("FACTOR", "100"))
        assert serve() == ("updated", [201, 301])
        assert serve(env_vars={"OFFSET": "5"}) == ("updated", [205, 305])
        predictor.write_text(PREDICTOR.replace("row[0]", "row"))
        assert serve(transformer=False, env_vars={"OFFSET": "5"}) == ("updated", [7, 8])
