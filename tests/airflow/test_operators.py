"""The operators against a local Model Serving over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from airflow_provider_hsml import (
    DeleteDeploymentOperator,
    DeployBestModelOperator,
    DeploymentSpec,
    DeployModelOperator,
    HsmlHook,
    PredictOperator,
    RegisterModelOperator,
    Scaling,
    StartDeploymentOperator,
    StopDeploymentOperator,
)
from airflow_provider_hsml.hopsworks.domain import rollout_tracker
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, NoResponseError
from airflow_provider_hsml.hopsworks.registry import register as register_
from airflow_provider_hsml.hopsworks.registry import upload
from airflow_provider_hsml.local.cluster.faults import Hold
from tests.support.tasks import FakeTaskInstance, begin, changes, execute, reads, rendered, run_trigger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"model{next(_numbers)}"


def best(name: str, **more: Any) -> DeployBestModelOperator:
    return DeployBestModelOperator(
        task_id="task", model_name=name, metric="accuracy", poll_interval=0.2, **{"direction": "max", **more}
    )


def deploy(name: str, version: Any = "latest", **more: Any) -> DeployModelOperator:
    return DeployModelOperator(task_id="task", model_name=name, model_version=version, poll_interval=0.2, **more)


class TestRegister:
    def operator(self, name: str, path: Path, **more: Any) -> RegisterModelOperator:
        given: dict[str, Any] = {"framework": "SKLEARN", "metrics": {"accuracy": 0.9}} | more
        return RegisterModelOperator(task_id="task", model_name=name, model_path=path, **given)

    def test_registers_the_next_version(self, hook: HsmlHook, name: str, model_file: Callable[..., Path]) -> None:
        first = execute(self.operator(name, model_file(answer=1), description="why", input_example=[[1.0]]))
        second = execute(self.operator(name, model_file(answer=2) / "model.joblib", metrics={"accuracy": "0.5"}))

        assert first == {
            "model_name": name,
            "model_version": 1,
            "model_id": f"{name}_1",
            "metrics": {"accuracy": 0.9},
            "url": f"{hook.access.url}/p/119/models/{name}/1",
        }
        assert second["model_version"] == 2
        assert second["metrics"] == {"accuracy": 0.5}
        assert hook.get_model(name, 1).description == "why"

    def test_a_retry_registers_once(self, serving: LocalServing, name: str, model_file: Callable[..., Path]) -> None:
        ti, path = FakeTaskInstance(), model_file(answer=1)
        first = execute(self.operator(name, path), ti)
        serving.requests.clear()

        assert execute(self.operator(name, path), ti) == first
        assert changes(serving) == []

    def test_each_iteration_of_a_task_loop_registers(self, name: str, model_file: Callable[..., Path]) -> None:
        path, first = model_file(answer=1), FakeTaskInstance(region_index=0)
        second = dataclasses.replace(first, region_index=1)

        numbers = [execute(self.operator(name, path), ti)["model_version"] for ti in (first, second, first, second)]
        assert numbers == [1, 2, 1, 2]

    def test_other_files_in_a_retry_are_another_version(self, name: str, model_file: Callable[..., Path]) -> None:
        ti = FakeTaskInstance()

        assert execute(self.operator(name, model_file(answer=1)), ti)["model_version"] == 1
        assert execute(self.operator(name, model_file(answer=2)), ti)["model_version"] == 2
        assert execute(self.operator(name, model_file(answer=2)), ti)["model_version"] == 2

    def test_a_worker_that_died_half_way(
        self, hook: HsmlHook, name: str, model_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The retry takes the same number, and sends the files again."""
        ti, path = FakeTaskInstance(), model_file(answer=1)

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(register_, "_put", die)
            with pytest.raises(KeyboardInterrupt):
                execute(self.operator(name, path, input_example=[[1]]), ti)

        assert execute(self.operator(name, path), ti)["model_version"] == 1
        assert len(hook.get_models(name)) == 1

    def test_a_failure_leaves_nothing_behind(
        self, hook: HsmlHook, name: str, model_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError("disk")

        with monkeypatch.context() as patched:
            patched.setattr(upload, "parts", fail)
            with pytest.raises(OSError, match="disk"):
                execute(self.operator(name, model_file(answer=1)))

        assert execute(self.operator(name, model_file(answer=1)))["model_version"] == 1

    def test_ten_at_once(self, hook: HsmlHook, name: str, model_file: Callable[..., Path]) -> None:
        paths = [model_file(answer=number) for number in range(10)]

        def register(path: Path) -> ModelVersion:
            metrics = {"answer": json.loads((path / "model.joblib").read_text())["answer"]}
            return HsmlHook().register_model(
                model_name=name, model_path=path, framework="SKLEARN", metrics=metrics, run_key=str(path)
            )

        with ThreadPoolExecutor(10) as pool:
            done = list(pool.map(register, paths))

        assert sorted(one.version for one in done) == list(range(1, 11))
        for one in done:
            content = _download(hook, f"{_files(hook, name, one.version)}/model.joblib")
            assert json.loads(content)["answer"] == one.metrics["answer"], "files are not mixed"

    def test_a_folder_in_parts(
        self, hook: HsmlHook, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upload, "CHUNK", 1000)
        (tmp_path / "weights" / "deep").mkdir(parents=True)
        content = bytes(range(256)) * 10
        (tmp_path / "weights" / "deep" / "w.bin").write_bytes(content)
        (tmp_path / "empty.txt").touch()

        execute(self.operator(name, tmp_path, framework="TENSORFLOW"))

        assert (_download(hook, f"{_files(hook, name, 1)}/weights/deep/w.bin")) == content
        assert (_download(hook, f"{_files(hook, name, 1)}/empty.txt")) == b""

    def test_a_version_by_number(self, name: str, model_file: Callable[..., Path]) -> None:
        assert execute(self.operator(name, model_file(answer=1), model_version="7"))["model_version"] == 7
        with pytest.raises(AirflowFailException, match=r"Version 7 .* exists already"):
            execute(self.operator(name, model_file(answer=2), model_version=7))
        assert execute(self.operator(name, model_file(answer=3)))["model_version"] == 8

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"model_path": "/no/such/place"}, "no such file or folder"),
            ({"model_path": ""}, "model_path"),
            ({"model_name": "my-model"}, "letters, digits and underscores"),
            ({"framework": "sklearn"}, "framework: expected one of"),
            ({"metrics": {"accuracy": float("nan")}}, "finite number"),
            ({"metrics": {"accuracy": "high"}}, "finite number"),
            ({"metrics": {"top-5": 1}}, "letters, digits and underscores"),
            ({"metrics": [1]}, "metrics: expected a mapping"),
            ({"input_example": object()}, "input_example: expected plain JSON"),
            ({"expected": {"instances": [[1]]}}, "expected: expected the keys instances and predictions"),
            ({"expected": {"instances": [[1]], "predictions": [1, 2]}}, "the same length"),
            ({"expected": {"rows": [[1]], "predictions": [1]}}, "unknown key 'rows'"),
            ({"model_version": "x"}, "model_version: expected a whole number"),
            ({"training_dataset_version": 0}, "training_dataset_version"),
        ],
    )
    def test_what_cannot_be_registered(
        self, serving: LocalServing, name: str, model_file: Callable[..., Path], given: dict[str, Any], message: str
    ) -> None:
        arguments: dict[str, Any] = {
            "model_name": name,
            "model_path": model_file(answer=1),
            "framework": "SKLEARN",
        }

        with pytest.raises(AirflowFailException, match=message):
            execute(rendered(RegisterModelOperator(task_id="task", **arguments), **given))
        assert changes(serving) == []

    def test_an_empty_folder(self, serving: LocalServing, name: str, tmp_path: Path) -> None:
        with pytest.raises(AirflowFailException, match="folder is empty"):
            execute(self.operator(name, tmp_path))
        assert changes(serving) == []


def _files(hook: HsmlHook, name: str, version: int) -> str:
    """Give the folder of a version's files."""
    return f"Models/{name}/{version}" + "/Files" * hook.client.project.has_files_folder


def _download(hook: HsmlHook, path: str) -> Any:
    from airflow_provider_hsml.hopsworks import api

    return hook.client.send(api.download(hook.client.project, path))


class TestDeployBest:
    def test_three_nights(self, serving: LocalServing, hook: HsmlHook, name: str, register: Callable[..., int]) -> None:
        register(name, 1, accuracy=0.7)
        register(name, 2, accuracy=0.8)
        ti = FakeTaskInstance()

        first = execute(best(name), ti)

        assert ti.pushed.pop("promotion") == first
        pushed = {key: value for key, value in ti.pushed.items() if not key.startswith("hsml_")}  # Those are links.
        assert pushed == {key: value for key, value in first.items() if value is not None}, "op.output[key] works"
        assert (first["action"], first["model_version"], first["verified_by"]) == ("created", 2, "fingerprint")
        assert (first["metric"], first["metric_value"], first["previous_model_version"]) == ("accuracy", 0.8, None)
        assert (first["status"], first["deployment_name"]) == ("Running", name)
        assert first["url"] == f"{serving.url}/p/119/deployments/{first['deployment_id']}"
        assert first["inference_url"] == f"{serving.url}/hopsworks-api/api/project/119/inference/models/{name}:predict"
        json.dumps(first)

        register(name, 3, accuracy=0.9)
        second = execute(best(name, candidates=[{"model_name": name, "model_version": 3}]))
        assert (second["action"], second["model_version"], second["verified_by"]) == ("updated", 3, "fingerprint")
        assert (second["previous_model_version"], second["previous_metric_value"]) == (2, 0.8)
        assert hook.predict(name, instances=[[0]]) == {"predictions": [3]}

        register(name, 4, accuracy=0.6)
        serving.requests.clear()
        third = execute(best(name, candidates=["4"]))
        assert (third["action"], third["model_version"]) == ("kept", 3)
        assert "does not beat the served version 3" in third["reason"]
        assert changes(serving) == [("POST", f"{name}:predict")], "one probe, and nothing else"
        assert reads(serving) <= 9

    def test_a_second_call_with_nothing_new_sends_nothing(
        self, serving: LocalServing, name: str, register: Callable[..., int]
    ) -> None:
        register(name, 1, accuracy=0.7)
        execute(best(name))
        serving.requests.clear()

        assert execute(best(name))["action"] == "kept"
        assert changes(serving) == [("POST", f"{name}:predict")]
        assert reads(serving) <= 9

    @pytest.mark.since_hopsworks("4.6")
    def test_a_changed_configuration_is_applied_though_the_champion_stays(
        self, hook: HsmlHook, name: str, register: Callable[..., int]
    ) -> None:
        register(name, 1, accuracy=0.7)
        execute(best(name))

        record = execute(best(name, spec=DeploymentSpec(scaling=Scaling(min_instances=2))))

        assert (record["action"], record["model_version"]) == ("updated", 1)
        assert hook.get_deployment(name).minimum_instances == 2

    def test_a_stopped_champion_is_started(self, hook: HsmlHook, name: str, register: Callable[..., int]) -> None:
        register(name, 1, accuracy=0.7)
        execute(best(name))
        hook.stop_deployment(name)

        assert execute(best(name))["action"] == "started"

    def test_the_smaller_the_better(self, name: str, register: Callable[..., int]) -> None:
        register(name, 1, accuracy=0.7)
        register(name, 2, accuracy=0.2)

        assert execute(best(name, direction="min"))["model_version"] == 2

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"metric": "f1"}, "has a finite metric 'f1'; metrics there: accuracy"),
            ({"metric": ""}, "metric: expected a text"),
            ({"direction": "up"}, "direction: expected one of max, min"),
            ({"candidates": []}, "at least one version"),
            ({"candidates": [99]}, "not in the registry"),
            ({"candidates": ["x"]}, "candidates: expected a whole number"),
            ({"candidates": "3"}, "candidates: expected a list"),
            ({"model_name": "nothere"}, "not in the registry of project 'example'(.|\n)*Is the name spelled"),
            ({"model_name": "a/b"}, "letters, digits and underscores"),
            ({"deployment_name": "my_digits"}, "Deployment name 'my_digits'.*'mydigits' would do"),
            ({"deployment_name": "a/../b"}, "letters and digits only"),
            ({"spec": {"envronment": "x"}}, "did you mean 'environment'"),
            ({"spec": {"resources": {"instances": "two"}}}, "spec.resources.instances"),
            ({"project": "nowhere"}, "errorCode 150004"),
            ({"project": "foreign"}, "errorCode 160000"),
        ],
    )
    def test_what_cannot_be_decided(
        self, serving: LocalServing, name: str, register: Callable[..., int], given: dict[str, Any], message: str
    ) -> None:
        register(name, 1, accuracy=0.7)
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match=message):
            execute(rendered(best(name), **given))
        assert changes(serving) == []


class TestDeploy:
    def test_the_newest_and_then_one_by_number(self, name: str, register: Callable[..., int]) -> None:
        register(name, 1)
        register(name, 2)

        assert execute(deploy(name))["model_version"] == 2
        back = execute(deploy(name, "1"))
        assert (back["action"], back["model_version"], back["previous_model_version"]) == ("updated", 1, 2)
        assert execute(deploy(name, 1))["action"] == "unchanged"

    def test_instances_prove_it_where_no_answers_were_recorded(self, name: str, register: Callable[..., int]) -> None:
        register(name, 1, recorded=False)
        register(name, 2, recorded=False)

        assert execute(deploy(name, 1))["verified_by"] == "instances"
        assert execute(deploy(name, 2))["verified_by"] == "instances"

    def test_answers_otherwise_than_recorded(self, hook: HsmlHook, name: str, model_file: Callable[..., Path]) -> None:
        hook.register_model(
            model_name=name,
            model_path=model_file(answer=1),
            framework="SKLEARN",
            expected={"instances": [[0]], "predictions": [2]},
        )

        with pytest.raises(AirflowFailException, match="answers otherwise than recorded"):
            execute(deploy(name))

    def test_does_not_come_up(
        self, hook: HsmlHook, name: str, model_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:

        monkeypatch.setattr(rollout_tracker, "FAILED_STAYS", 0.3)
        hook.register_model(model_name=name, model_path=model_file(broken="no weights"), framework="SKLEARN")

        with pytest.raises(AirflowFailException, match=r"(?s)do not come up: .*no weights"):
            execute(deploy(name))

    def test_a_lost_change_is_no_success(self, serving: LocalServing, name: str, register: Callable[..., int]) -> None:
        register(name, 1)
        register(name, 2)
        execute(deploy(name, 1))
        serving.world.lose_next_change()

        with pytest.raises(DeadlineExceededError, match="may never have been applied"):
            execute(deploy(name, 2, timeout=4))

    def test_without_waiting(self, hook: HsmlHook, name: str, register: Callable[..., int]) -> None:
        register(name, 1)

        record = execute(deploy(name, wait_for_completion=False))

        assert (record["action"], record["verified_by"]) == ("created", None)
        assert hook.get_deployment(name).status.value in ("Starting", "Running")
        assert execute(deploy(name))["action"] in ("attached", "unchanged")

    def test_two_pickles(
        self, hook: HsmlHook, serving: LocalServing, name: str, model_file: Callable[..., Path]
    ) -> None:
        folder = model_file(answer=1)
        (folder / "other.pkl").touch()
        hook.register_model(model_name=name, model_path=folder, framework="SKLEARN")
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match=r"exactly one file .* found model.joblib, other.pkl"):
            execute(deploy(name))
        assert changes(serving) == []

    def test_another_framework(
        self,
        hook: HsmlHook,
        serving: LocalServing,
        name: str,
        register: Callable[..., int],
        model_file: Callable[..., Path],
    ) -> None:
        register(name, 1)
        execute(deploy(name))
        hook.register_model(model_name=name, model_path=model_file(answer=1), framework="TENSORFLOW")
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match="another deployment_name"):
            execute(deploy(name))
        assert changes(serving) == []

    @pytest.mark.parametrize(
        ("version", "message"), [(9, "versions there: 1"), ("new", "model_version"), ("False", "model_version")]
    )
    def test_a_version_that_does_not_exist(
        self, serving: LocalServing, name: str, register: Callable[..., int], version: Any, message: str
    ) -> None:
        register(name, 1)
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match=message):
            execute(rendered(deploy(name), model_version=version))
        assert changes(serving) == []


class TestStartStopDelete:
    def test_only_while_it_is_needed(self, serving: LocalServing, name: str, register: Callable[..., int]) -> None:
        register(name, 1)
        execute(deploy(name))
        stop = StopDeploymentOperator(task_id="task", deployment_name=name, poll_interval=0.1)
        start = StartDeploymentOperator(task_id="task", deployment_name=name, poll_interval=0.1)

        stopped = execute(stop)
        assert stopped["status"] == "Stopped"
        assert stopped["url"].endswith(f"/p/119/deployments/{stopped['deployment_id']}")
        serving.requests.clear()
        assert execute(stop)["status"] == "Stopped"
        assert changes(serving) == []

        assert execute(start)["status"] == "Running"
        serving.requests.clear()
        assert execute(start)["status"] == "Running"
        assert ("POST", name) not in changes(serving)

    def test_delete(self, hook: HsmlHook, name: str, register: Callable[..., int]) -> None:
        register(name, 1)
        execute(deploy(name))

        with pytest.raises(AirflowFailException, match=r"not stopped\.\nStop it first, or set force=True"):
            execute(DeleteDeploymentOperator(task_id="task", deployment_name=name, force="False"))
        with pytest.raises(AirflowFailException, match="force: expected true or false"):
            execute(rendered(DeleteDeploymentOperator(task_id="task", deployment_name=name), force="perhaps"))
        assert (
            execute(DeleteDeploymentOperator(task_id="task", deployment_name=name, force="true"))["status"] == "Running"
        )
        assert name not in [deployment.name for deployment in hook.get_deployments()]

    def test_what_is_not_there(self) -> None:
        gone = {"deployment_name": "nothere", "deployment_id": None, "status": None, "url": None}

        assert execute(StopDeploymentOperator(task_id="task", deployment_name="nothere")) == gone
        assert execute(DeleteDeploymentOperator(task_id="task", deployment_name="nothere")) == gone

    def test_start_of_what_is_not_there(self, serving: LocalServing) -> None:
        with pytest.raises(AirflowFailException, match="'nothere' does not exist in project 'example'; there are:"):
            execute(StartDeploymentOperator(task_id="task", deployment_name="nothere"))


def test_a_wait_whose_task_was_forgotten_is_gone_on_with(
    hook: HsmlHook, register: Callable[..., int], serving: LocalServing
) -> None:
    """``airflow dags test`` runs the trigger, and tells the task nothing but how that ended."""
    register("forgotten", 1)
    hook.save_deployment(deployment_name="forgotten", model_name="forgotten")
    start = StartDeploymentOperator(task_id="start", deployment_name="forgotten", deferrable=True)
    held = serving.faults.add(Hold("forgotten", "Running"))
    with pytest.raises(TaskDeferred) as deferred:
        begin(start)
    serving.faults.remove(held)
    serving.requests.clear()

    event = asyncio.run(run_trigger(deferred.value.trigger))
    context: Any = {"ti": FakeTaskInstance()}
    result = start.resume_execution(deferred.value.method_name, {"event": event}, context)

    assert result["status"] == "Running"
    assert {path for _, path in changes(serving)} == {"forgotten:predict"}, "it is asked, and not started once more"


class TestPredict:
    def test_by_every_shape(self, name: str, register: Callable[..., int], tmp_path: Path) -> None:
        register(name, 5)
        execute(deploy(name))

        def ask(**more: Any) -> Any:
            return execute(PredictOperator(task_id="task", deployment_name=name, **more))

        assert ask(instances=[[1], [2], [3]]) == {"predictions": [5, 5, 5]}
        assert ask(inputs=[1, 2]) == {"predictions": [5]}
        assert ask(payload={"inputs": [[1], [2]]}) == {"predictions": [5, 5]}
        assert ask() == {"predictions": [5, 5]}, "the registered input example"
        path = tmp_path / "new" / "out.json"
        assert ask(instances=[[1]], output_path=str(path)) == {"rows": 1, "output_path": str(path)}
        assert json.loads(path.read_text()) == {"predictions": [5]}

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (
                {"instances": [[1]], "inputs": [1]},
                "instances and inputs: expected only one of instances, inputs, payload",
            ),
            ({"payload": {}}, "exactly one of the keys"),
            ({"instances": "[]"}, "instances: expected at least one row"),
            ({"deployment_name": "my_model"}, "letters and digits only"),
            ({"deployment_name": "x/../y"}, "letters and digits only"),
        ],
    )
    def test_what_cannot_be_asked(self, serving: LocalServing, given: dict[str, Any], message: str) -> None:
        with pytest.raises(AirflowFailException, match=message):
            execute(rendered(PredictOperator(task_id="task", deployment_name="x"), **given))
        assert list(serving.requests) == []

    def test_without_an_example(self, hook: HsmlHook, name: str, model_file: Callable[..., Path]) -> None:
        hook.register_model(model_name=name, model_path=model_file(answer=1), framework="SKLEARN")
        execute(deploy(name))

        with pytest.raises(AirflowFailException, match="no registered input example"):
            execute(PredictOperator(task_id="task", deployment_name=name))

    def test_of_nobody(self) -> None:
        with pytest.raises(AirflowFailException, match="does not exist"):
            execute(PredictOperator(task_id="task", deployment_name="nothere"))


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"poll_interval": 0}, "poll_interval"),
            ({"poll_interval": "often"}, "poll_interval"),
            ({"timeout": -1}, "timeout"),
            ({"wait_for_completion": "perhaps"}, "wait_for_completion"),
            ({"deferrable": "perhaps"}, "deferrable"),
        ],
    )
    def test_are_checked_when_the_dag_is_parsed(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            StartDeploymentOperator(task_id="task", deployment_name="x", **given)

    @pytest.mark.parametrize("argument", ["stop_when_killed", "waitforcompletion"])
    def test_what_is_not_there_is_refused_by_name(self, argument: str) -> None:
        with pytest.raises((TypeError, AirflowException), match=argument):
            best("x", **{argument: "x"})

    def test_the_time_for_predictions_too(self) -> None:
        with pytest.raises(ValueError, match="Task 'task': timeout: expected a finite number"):
            PredictOperator(task_id="task", deployment_name="x", timeout="soon")  # type: ignore[arg-type]

    def test_a_dataclass_becomes_what_airflow_can_render(self) -> None:
        assert best("x", spec=DeploymentSpec(scaling=Scaling(max_instances=3))).spec == {
            "scaling": {"max_instances": 3}
        }

    @pytest.mark.parametrize("given", [None, False, True])
    def test_airflows_default_of_deferring(self, monkeypatch: pytest.MonkeyPatch, given: bool | None) -> None:
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")

        operator = StopDeploymentOperator(task_id="task", deployment_name="x", deferrable=given)

        assert operator.deferrable is (given is not False)


class TestAccess:
    def test_a_wrong_key(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", _with(serving, password="wrong.key"))

        with pytest.raises(AirflowFailException, match=r"HTTP 401.*\nCheck the API key") as caught:
            execute(best("x"))
        assert "wrong.key" not in str(caught.value)

    def test_a_key_without_a_scope(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", _with(serving, password="only.the-serving-scope"))

        with pytest.raises(AirflowFailException, match=r"320004.*MODELREGISTRY"):
            execute(best("x"))

    def test_nobody_there_may_pass(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", _with(serving, port=1))
        monkeypatch.setattr("airflow_provider_hsml.hopsworks.transport.request.ATTEMPTS", 1)

        with pytest.raises(NoResponseError, match="nobody answers there"):
            execute(best("x"))

    @pytest.mark.parametrize(
        ("host", "message"), [("http://example.com", "allow_http"), ("https://h/x", "without path")]
    )
    def test_a_host_that_cannot_be(
        self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch, host: str, message: str
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", _with(serving, host=host))

        with pytest.raises(AirflowFailException, match=message):
            execute(best("x"))


def _with(serving: LocalServing, **changes: Any) -> str:
    return json.dumps(json.loads(serving.connection) | changes)


class TestKilling:
    def test_ends_the_wait_and_leaves_the_deployment(
        self, hook: HsmlHook, serving: LocalServing, name: str, register: Callable[..., int]
    ) -> None:
        register(name, 1)
        register(name, 2)
        execute(deploy(name, 1))
        serving.world.lose_next_change()
        operator = deploy(name, 2, timeout=60)
        serving.requests.clear()

        def kill_after_the_put() -> None:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and not serving.requests.where("PUT", "/project/119/serving"):
                time.sleep(0.05)
            operator.on_kill()

        killer = threading.Thread(target=kill_after_the_put)
        killer.start()
        with pytest.raises(AirflowException, match="killed"):
            execute(operator)
        killer.join()
        assert hook.predict(name, instances=[[0]]) == {"predictions": [1]}

    def test_before_it_runs(self) -> None:
        deploy("x").on_kill()
