"""Mistakes that can be seen in a DAG file are errors there; what comes from outside is refused when the task runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, XComArg

from airflow_provider_hsml import DeploymentSpec, TransformerSpec, operators, sensors
from airflow_provider_hsml.hopsworks.domain.model_version import Framework
from airflow_provider_hsml.operators import StartDeploymentOperator
from airflow_provider_hsml.operators.models import FRAMEWORKS
from tests.support.tasks import execute

pytestmark = pytest.mark.airflow

NAME = "letters and digits only"
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("RegisterModelOperator", {"model_name": "my-model"}, "letters, digits and underscores"),
    ("RegisterModelOperator", {"framework": "sklearn"}, "framework: expected one of SKLEARN"),
    ("RegisterModelOperator", {"model_version": "newest"}, "model_version: expected a whole number of 1"),
    ("DeployModelOperator", {"deployment_name": "my_model"}, NAME),
    ("DeployModelOperator", {"model_version": 0}, "model_version: expected a whole number of 1"),
    ("DeployModelOperator", {"rollout": "blue"}, "rollout: expected one of rolling, recreate"),
    ("DeployModelOperator", {"when_killed": "die"}, "when_killed: expected one of leave, stop"),
    ("DeployBestModelOperator", {"model_name": "a b"}, "letters, digits and underscores"),
    ("DeployBestModelOperator", {"direction": "up"}, "direction: expected one of max, min"),
    ("DeployBestModelOperator", {"if_not_better": "fial"}, "if_not_better: expected one of keep"),
    ("DeployBestModelOperator", {"plan_only": "yes"}, "plan_only: expected true or false"),
    ("RollbackDeploymentOperator", {"to": "before"}, "to: expected a whole number"),
    ("RollbackDeploymentOperator", {"reject": 1}, "reject: expected true or false"),
    ("StartDeploymentOperator", {"deployment_name": "my-model"}, NAME),
    ("StopDeploymentOperator", {"deployment_name": "my-model"}, NAME),
    ("RestartDeploymentOperator", {"rolling": "y"}, "rolling: expected true or false"),
    ("DeleteDeploymentOperator", {"force": "y"}, "force: expected true or false"),
    ("DeleteModelVersionsOperator", {"keep": 0}, "keep: expected a whole number of 1"),
    ("PredictOperator", {"deployment_name": "my-model"}, NAME),
    ("BatchPredictOperator", {"deployment_name": "my-model"}, NAME),
    ("BatchPredictOperator", {"chunk_rows": 0}, "chunk_rows: expected a whole number of 1 or more"),
    ("BatchPredictOperator", {"max_errors": -1}, "max_errors: expected a whole number of 0 or more"),
    ("BatchPredictOperator", {"on_model_change": "go"}, "on_model_change: expected one of"),
    ("CompareModelsOperator", {"deployment_name": "my-model"}, NAME),
    ("CompareModelsOperator", {"challenger": 0}, "challenger: expected a whole number of 1 or more"),
    ("CompareModelsOperator", {"resamples": 10}, "resamples: expected a whole number of 100 or more"),
    ("CompareModelsOperator", {"seed": -1}, "seed: expected a whole number of 0 or more"),
    ("CompareModelsOperator", {"challengers": 0}, "challengers: expected a whole number of 1 or more"),
    ("DeploymentStatusSensor", {"deployment_name": "my-model"}, NAME),
    ("ModelVersionSensor", {"newer_than": "last"}, "newer_than: expected a whole number"),
    ("ModelVersionSensor", {"at_least": "high"}, "at_least: expected a finite number"),
]


def make(name: str, **given: Any) -> Any:
    """Make an operator that is right but for what is given."""
    kind = getattr(operators, name, None) or getattr(sensors, name)
    right = {
        "RegisterModelOperator": {"model_path": "/x", "framework": "PYTHON"},
        "DeployBestModelOperator": {"metric": "x", "direction": "max"},
        "BatchPredictOperator": {"input": "/x", "result_path": "/y"},
        "CompareModelsOperator": {"result_path": "/x"},
    }
    is_by_deployment = "Deployment" in name or name in (
        "PredictOperator",
        "BatchPredictOperator",
        "CompareModelsOperator",
    )
    about = {"deployment_name": "x"} if is_by_deployment else {"model_name": "x"}
    return kind(**{"task_id": "task", **about, **right.get(name, {}), **given})


@pytest.mark.parametrize(("name", "given", "message"), WRONG, ids=str)
def test_what_is_written_is_checked_at_once(name: str, given: dict[str, Any], message: str) -> None:
    make(name)
    with pytest.raises(ValueError, match=f"Task 'task': .*{message}"):
        make(name, **given)


STRUCTURED: list[tuple[str, dict[str, Any], str]] = [
    ("DeployModelOperator", {"spec": {"enviroment": "x"}}, "did you mean 'environment'"),
    ("DeployModelOperator", {"spec": {"resources": {"requests": {"cores": -1}}}}, "spec.resources.requests.cores"),
    ("DeployModelOperator", {"spec": DeploymentSpec(environment="a b")}, "spec.environment"),
    ("DeployModelOperator", {"verification": {"tolerance": -1}}, "verification.tolerance"),
    ("DeployModelOperator", {"verification": {"instances": [[1]], "payload": {}}}, "only one of instances, inputs"),
    ("DeployModelOperator", {"verification": {"expect": "finit"}}, "verification.expect: expected one of finite"),
    ("DeployBestModelOperator", {"gate": {"min_improvment": 1}}, "did you mean 'min_improvement'"),
    ("DeployBestModelOperator", {"gate": {"min_improvement": float("nan")}}, "gate.min_improvement"),
    ("CompareModelsOperator", {"metrics": ["acuracy"]}, "expected one of accuracy"),
    ("CompareModelsOperator", {"metrics": ["my.metric"]}, "expected the direction of 'my.metric'"),
    ("CompareModelsOperator", {"slice_columns": [1]}, "slice_columns: expected a text"),
    ("CompareModelsOperator", {"input": [1], "challenger_results": "/x"}, "only one of input, challenger_results"),
    ("DeploymentStatusSensor", {"target_status": "Runing"}, "target_status"),
    ("DeploymentStatusSensor", {"target_status": ["Running", "Up"]}, "target_status"),
]


@pytest.mark.parametrize(("name", "given", "message"), STRUCTURED, ids=str)
def test_what_is_written_inside_a_mapping_is_checked_too(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Task 'task': .*{message}"):
        make(name, **given)
    kind = getattr(operators, name, None) or getattr(sensors, name)
    with pytest.raises(ValueError, match=f"Task 'task': .*{message}"):
        kind.partial(task_id="task", **given)


def test_two_of_three_ways_to_give_rows() -> None:
    given: Any = {"instances": [[1]], "payload": "{{ params.it }}"}
    message = "Task 'task': instances and payload: expected only one of instances, inputs, payload"

    with pytest.raises(ValueError, match=message):
        make("PredictOperator", **given)
    with pytest.raises(ValueError, match=message):
        operators.PredictOperator.partial(task_id="task", **given)


def test_a_template_beside_a_literal_mistake_hides_nothing() -> None:
    with pytest.raises(ValueError, match=r"spec.resources: unknown key 'requestz'"):
        make("DeployModelOperator", spec={"resources": {"instances": "{{ x }}", "requestz": {}}})


def test_a_dataclass_inside_a_mapping_is_rendered() -> None:
    task = make("DeployModelOperator", spec={"transformer": TransformerSpec(env_vars={"RUN": "{{ run }}"})})
    task.render_template_fields({"run": "nightly"})

    assert task._unmasked_spec() == {"transformer": {"env_vars": {"RUN": "nightly"}}}


@pytest.mark.parametrize("timeout", [1e10, timedelta.max, timedelta(days=400)])
def test_longer_than_a_year_no_task_waits(timeout: Any) -> None:
    for name in ("DeployModelOperator", "PredictOperator"):
        with pytest.raises(ValueError, match="timeout: expected at most 31622400 seconds, which is a year"):
            make(name, timeout=timeout)


def test_templates_inside_a_mapping_are_not_known_yet() -> None:
    spec = {"env_vars": {"A": "{{ params.a }}"}, "scaling": {"min_instances": "{{ params.few }}"}}
    gate = {"floor": "{{ params.floor }}", "min_improvement": 0.1}

    make("DeployBestModelOperator", spec=spec, gate=gate)
    with DAG("dag", schedule=None):
        operators.DeployBestModelOperator.partial(
            task_id="best", metric="x", direction="max", spec=spec, gate=gate
        ).expand(model_name=["x"])
        operators.DeployModelOperator.partial(task_id="one", spec="{{ params.spec }}", verification=None).expand(
            model_name=["x"]
        )


@pytest.mark.parametrize("template", ["{{ params.it }}", "{% if a %}b{% endif %}", "[[ params.it ]]", "<% it %>", ""])
@pytest.mark.parametrize(
    ("name", "argument"), sorted({(name, argument) for name, given, _ in WRONG for argument in given})
)
def test_a_template_may_be_anything(name: str, argument: str, template: str) -> None:
    assert getattr(make(name, **{argument: template}), argument) == template


def test_what_another_task_returns_is_not_known_yet() -> None:
    with DAG("dag", schedule=None):
        returned = XComArg(make("PredictOperator", task_id="first"))
        for number, (name, given, _) in enumerate(WRONG):
            make(name, task_id=f"task{number}", **dict.fromkeys(given, returned))


@pytest.mark.usefixtures("serving")
def test_what_is_mapped_is_refused_when_the_task_runs() -> None:
    """From another task's list, say: the mistake is none of the file, and no retry would help."""
    with DAG("dag", schedule=None) as dag:
        StartDeploymentOperator.partial(task_id="task").expand(deployment_name=["my-model"])
    one = dag.get_task("task").unmap({"deployment_name": "my-model"})

    with pytest.raises(AirflowFailException, match=NAME):
        execute(one)


def test_the_frameworks_are_those_of_the_registry() -> None:
    assert set(FRAMEWORKS) == {framework.value for framework in Framework}
