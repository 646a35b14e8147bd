"""Mapped tasks: what they are called in Airflow's UI."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_hsml import operators, sensors
from airflow_provider_hsml.operators import DeployModelOperator, RegisterModelOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.airflow

TASKS = [getattr(module, name) for module in (operators, sensors) for name in module.__all__]


@pytest.fixture(params=[False, True], ids=["text", "native"])
def dag(request: pytest.FixtureRequest) -> Iterator[DAG]:
    with DAG("mapped", schedule=None, render_template_as_native_obj=request.param) as dag:
        yield dag


def name_of(dag: DAG, task: Any) -> str:
    """Render what Airflow renders."""
    mapped = dag.get_task("task")
    assert mapped.map_index_template is not None
    named: str = dag.get_template_env().from_string(mapped.map_index_template).render(task=task)
    return named


@pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.__name__)
def test_each_is_called_by_what_it_is_about(kind: Any, dag: DAG) -> None:
    subjects = ("deployment_name", "model_name", "job_name")
    about = next(name for name in subjects if name in inspect.signature(kind).parameters)
    needed = {
        name: "max" if name == "direction" else "PYTHON"
        for name, one in inspect.signature(kind).parameters.items()
        if one.default is one.empty and one.kind is one.KEYWORD_ONLY and name != about
    }

    kind.partial(task_id="task", **needed).expand(**{about: ["123", "churn"]})

    task = kind(task_id="other", **needed, **{about: "123"})
    assert name_of(dag, task) == f"{about.partition('_')[0]} 123"


def test_what_is_given_wins(dag: DAG) -> None:
    DeployModelOperator.partial(task_id="task", map_index_template="{{ task.model_version }}").expand(model_name=["a"])

    assert dag.get_task("task").map_index_template == "{{ task.model_version }}"


def test_a_deploying_one_is_called_by_its_deployment_where_that_has_a_name_of_its_own(dag: DAG) -> None:
    DeployModelOperator.partial(task_id="task", model_name="churn").expand(deployment_name=["a", "b"])

    assert name_of(dag, DeployModelOperator(task_id="1", model_name="churn", deployment_name="a")) == "deployment a"
    assert name_of(dag, DeployModelOperator(task_id="2", model_name="churn")) == "model churn"


@pytest.mark.parametrize(("description", "said"), [("trees", ": trees"), (7, ": 7"), ("x" * 900, f": {'x' * 97}...")])
def test_a_registering_one_says_the_description_too(description: Any, said: str, dag: DAG) -> None:
    given: dict[str, Any] = {"model_name": "digits", "framework": "SKLEARN"}
    RegisterModelOperator.partial(task_id="task", **given).expand(model_path=["/a", "/b"])

    task = RegisterModelOperator(task_id="other", model_path="/a", description=description, **given)
    assert name_of(dag, task) == f"model digits{said}"
