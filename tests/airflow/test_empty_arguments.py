"""A value that an XCom, a template or ``expand`` was to give, and that arrives empty, is an error."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, TaskGroup, XComArg
from airflow.providers.common.compat.standard.operators import PythonOperator

from airflow_provider_hsml import operators, sensors
from airflow_provider_hsml.hopsworks import DeploymentSpec, Gate, Verification
from airflow_provider_hsml.operators import (
    DeployBestModelOperator,
    DeployModelOperator,
    PredictOperator,
    RollbackDeploymentOperator,
    StartDeploymentOperator,
    StopDeploymentOperator,
)
from airflow_provider_hsml.sensors import DeploymentStatusSensor, ModelVersionSensor
from tests.support.tasks import FakeTaskInstance, changes, execute, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.airflow

EMPTY = [None, "", "  ", "None", " None\n"]
TEMPLATES = ["{{ x }}", "{{ ti.xcom_pull('before') }}", "{% if a %}b{% endif %}", "[[ x ]]"]
REQUIRED = {
    "model_name": "x",
    "deployment_name": "x",
    "model_path": "/x",
    "framework": "PYTHON",
    "metric": "x",
    "direction": "max",
    "job_name": "x",
    "result_path": "/x",
}
TASKS = [getattr(module, name) for module in (operators, sensors) for name in module.__all__]
FIELDS = [(kind, field) for kind in TASKS for field in kind.template_fields]


def required_of(kind: Any, *, but: str = "") -> dict[str, Any]:
    """Return arguments with which an operator is right, all but one."""
    needed = {**REQUIRED, "input": "x"} if kind is operators.BatchPredictOperator else REQUIRED
    return {name: value for name, value in needed.items() if name in kind.template_fields and name != but}


def make(kind: Any, **given: Any) -> Any:
    """Make an operator that is right but for what is given."""
    return kind(**{"task_id": "task", **required_of(kind), **given})


class Upstream(FakeTaskInstance):
    """A task instance behind tasks that have returned nothing, as those that were skipped or failed."""

    task: Any = None
    """The operator: Airflow 3.4 asks whether it belongs to a task loop."""

    def get_relevant_upstream_map_indexes(self, *_args: Any, **_kwargs: Any) -> None:
        return None

    def xcom_pull(self, *_args: Any, **_kwargs: Any) -> Any:
        return None


def context(dag: Any = None) -> Any:
    ti = Upstream()
    return {"ti": ti, "run_id": ti.run_id, "dag_run": ti, "expanded_ti_count": None, "dag": dag, "params": {}}


@pytest.fixture
def dag() -> Iterator[DAG]:
    with DAG("dag", schedule=None, default_args={"retries": 0}) as dag:
        yield dag


@pytest.fixture
def returned(dag: DAG) -> Any:
    """The XCom of a task that returns nothing."""
    with dag:
        return XComArg(PythonOperator(task_id="before", python_callable=lambda: None))


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=lambda it: getattr(it, "__name__", it))
class TestEveryArgument:
    def test_from_an_xcom(self, kind: Any, field: str, returned: Any) -> None:
        task = make(kind, **{field: returned})
        for empty in EMPTY:
            with pytest.raises(AirflowFailException, match=rf"^{field}: expected a value from the XCom of task 'befo"):
                rendered(task, **{field: empty}).execute(context())

    def test_from_a_template(self, kind: Any, field: str) -> None:
        for template in TEMPLATES:
            task = rendered(make(kind, **{field: template}), **{field: "None"})
            with pytest.raises(AirflowFailException) as caught:
                task.execute(context())
            assert f"{field}: expected a value from the template {template!r}, got 'None'.\n" in str(caught.value)

    def test_from_expand(self, kind: Any, field: str, dag: DAG) -> None:
        needed = required_of(kind, but=field)
        with dag:
            kind.partial(task_id="task", **needed).expand(**{field: [None, "x"]})
            kind.partial(task_id="other", **needed).expand_kwargs([{field: None}])

        for task_id in ("task", "other"):
            with pytest.raises(AirflowFailException, match=f"{field}: expected a value from an argument of expand"):
                dag.get_task(task_id).unmap({field: None}).execute(context())

    def test_from_default_args(self, kind: Any, field: str) -> None:
        with DAG("other", schedule=None, default_args={field: "{{ x }}"}):
            task = kind(
                task_id="task",
                **required_of(kind, but=field),
            )

        with pytest.raises(AirflowFailException, match=rf"^{field}: expected a value from the template '{{{{ x }}}}'"):
            rendered(task, **{field: ""}).execute(context())

    def test_in_a_copy(self, kind: Any, field: str, returned: Any) -> None:
        for copied in (copy.deepcopy, copy.copy):
            task = rendered(copied(make(kind, task_id=copied.__name__, **{field: returned})), **{field: None})
            with pytest.raises(AirflowFailException, match=rf"^{field}: "):
                task.execute(context())

    def test_no_attribute_holds_a_sentinel(self, kind: Any, field: str, returned: Any) -> None:
        assert getattr(make(kind, **{field: returned}), field) is returned
        assert getattr(make(kind, task_id="2", **{field: "{{ x }}"}), field) == "{{ x }}"


class TestWithAirflowsOwnRendering:
    """The values come from Airflow: an XCom that is not there, a template that renders to nothing."""

    def test_an_xcom(self, returned: Any, dag: DAG) -> None:
        with dag:
            task = DeployModelOperator(task_id="task", model_name="x", plan=returned)

        self.refuses(task, "plan: expected a value from the XCom of task 'before', got None")

    def test_a_key_of_an_xcom(self, dag: DAG) -> None:
        with dag:
            deploy: Any = DeployModelOperator(task_id="deploy", model_name="x", multiple_outputs=True)
            record = deploy.output["promotion"]
            task = RollbackDeploymentOperator(task_id="task", deployment_name="x", promotion=record)

        self.refuses(task, "promotion: expected a value from the XCom 'promotion' of task 'deploy', got None")

    @pytest.mark.parametrize("native", [False, True])
    def test_a_template(self, native: bool) -> None:
        with DAG("native", schedule=None, render_template_as_native_obj=native):
            task = PredictOperator(task_id="task", deployment_name="x", instances="{{ ti.xcom_pull('before') }}")

        self.refuses(task, r"instances: expected a value from the template \"{{ ti.xcom_pull\('before'\) }}\"")

    def test_delimiters_of_the_dag(self) -> None:
        delimiters = {"variable_start_string": "[[", "variable_end_string": "]]"}
        with DAG("other", schedule=None, jinja_environment_kwargs=delimiters):
            task = StartDeploymentOperator(task_id="task", deployment_name="[[ ti.xcom_pull('before') ]]")

        self.refuses(task, "deployment_name: expected a value from the template")

    @pytest.mark.parametrize(
        ("given", "path"),
        [
            ({"verification": {"instances": ...}}, "verification.instances"),
            ({"verification": Verification(instances=...)}, "verification.instances"),
            ({"spec": {"transformer": {"environment": ...}}}, "spec.transformer.environment"),
            ({"spec": DeploymentSpec(environment=...)}, "spec.environment"),  # type: ignore[arg-type]
            ({"spec": {"env_vars": {"LEVEL": ...}}}, "spec.env_vars.LEVEL"),
            ({"gate": Gate(floor=...)}, "gate.floor"),  # type: ignore[arg-type]
            ({"candidates": [1, ...]}, r"candidates\[1\]"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("kind", ["xcom", "template"])
    def test_inside_of_an_argument(self, given: dict[str, Any], path: str, kind: str, returned: Any, dag: DAG) -> None:
        with dag:
            value = returned if kind == "xcom" else "{{ ti.xcom_pull('before') }}"
            task = make(DeployBestModelOperator, **{name: _filled(item, value) for name, item in given.items()})

        self.refuses(task, f"^{path}: expected a value from the {'XCom of task' if kind == 'xcom' else 'template'}")

    @pytest.mark.parametrize("where", ["template", "native template", "xcom"])
    @pytest.mark.parametrize(
        ("field", "value", "path"),
        [
            ("gate", {"floor": None, "min_improvement": 0.1}, "gate.floor"),
            ("verification", {"instances": None}, "verification.instances"),
            ("spec", {"scaling": {"min_instances": None}}, "spec.scaling.min_instances"),
            ("spec", {"env_vars": {"LEVEL": None}}, "spec.env_vars.LEVEL"),
        ],
    )
    def test_a_field_of_a_whole_argument(self, field: str, value: Any, path: str, where: str, returned: Any) -> None:
        """Else a gate whose floor is missing would promote without one."""
        native = DAG("native", schedule=None, render_template_as_native_obj=where == "native template")
        with returned.operator.dag if where == "xcom" else native:
            source = {"template": "{{ x | tojson }}", "native template": "{{ x }}", "xcom": returned}[where]
            task = make(DeployBestModelOperator, **{field: source})
        if where == "xcom":
            rendered(task, **{field: value})
        else:
            task.render_template_fields(context() | {"x": value})

        with pytest.raises(AirflowFailException, match=f"{path}: expected a value from the"):
            task.execute(context())

    def test_a_function(self, dag: DAG) -> None:
        """Airflow calls a function in a template field with the context."""

        def pulled(context: Any, jinja_env: Any) -> Any:
            return context["ti"].xcom_pull("before")

        with dag:
            task = DeployModelOperator(task_id="task", model_name="x", plan=pulled)  # type: ignore[arg-type]

        self.refuses(task, "^plan: expected a value from the function 'pulled', got None")

    @pytest.mark.parametrize("template", ["churn{{ x }}", "{{ x }}churn", "a{% if true %}{{ x }}{% endif %}"])
    @pytest.mark.parametrize("native", [False, True])
    def test_an_expression_in_longer_text(self, template: str, native: bool) -> None:
        with DAG("native", schedule=None, render_template_as_native_obj=native):
            task = DeployModelOperator(task_id="task", model_name="x", deployment_name=template)
        task.render_template_fields(context() | {"x": None})

        with pytest.raises(AirflowFailException, match=r"An expression in the template .* gives None.\n"):
            task.execute(context())

    def test_an_expression_with_a_default(self) -> None:
        task = DeployModelOperator(task_id="task", model_name="x", deployment_name="churn{{ x or '' }}{# note #}")
        task.render_template_fields(context() | {"x": None})

        task._check_arrived()
        assert task.deployment_name == "churn"

    @pytest.mark.parametrize("kind", [DeployModelOperator, StopDeploymentOperator])
    def test_a_task_that_is_resumed(self, kind: Any, returned: Any, dag: DAG) -> None:
        """Its arguments are rendered again: it must not go on with others than it began with."""
        with dag:
            task = make(kind, project=returned, deferrable=True)
        task.render_template_fields(context(dag))

        with pytest.raises(AirflowFailException, match=r"^project: expected a value from the XCom"):
            task.resume_execution("resume", {"event": {}, "left": {}}, context(dag))

    def test_a_sensor_that_is_resumed(self, returned: Any, dag: DAG) -> None:
        with dag:
            task = DeploymentStatusSensor(task_id="task", deployment_name=returned, deferrable=True)
        task.render_template_fields(context(dag))

        with pytest.raises(AirflowFailException, match=r"^deployment_name: expected a value from the XCom"):
            task.resume_execution("execute_complete", {"event": {}, "deadline": 0.0}, context(dag))

    def test_in_json_text(self) -> None:
        task = DeployModelOperator(task_id="task", model_name="x", spec='{"environment": "{{ ti.xcom_pull(1) }}"}')

        self.refuses(task, "^spec.environment: expected a value from the template")

    def test_an_argument_that_mapped_tasks_share(self, returned: Any, dag: DAG) -> None:
        with dag:
            DeployModelOperator.partial(task_id="task", plan=returned).expand(model_name=["x", "y"])
        task = dag.get_task("task").unmap({"model_name": "x"})

        self.refuses(task, "^plan: expected a value from the XCom of task 'before'")

    def test_of_a_sensor(self, returned: Any, dag: DAG) -> None:
        with dag:
            task = ModelVersionSensor(task_id="task", model_name="x", newer_than=returned, soft_fail=True)

        self.refuses(task, "^newer_than: expected a value from the XCom of task 'before'")

    @staticmethod
    def refuses(task: Any, message: str) -> None:
        given = context(task.dag if task.has_dag() else None)
        task.render_template_fields(given)
        with pytest.raises(AirflowFailException, match=message):
            task.execute(given)


def _filled(item: Any, value: Any) -> Any:
    """Put a value where the ellipsis is."""
    if item is ...:
        return value
    if isinstance(item, dict):
        return {key: _filled(inner, value) for key, inner in item.items()}
    if isinstance(item, list):
        return [_filled(inner, value) for inner in item]
    if hasattr(item, "given"):
        return type(item)(**_filled(item.given(), value))
    return item


class TestNotGiven:
    def test_a_literal_none_in_default_args(self) -> None:
        with DAG("other", schedule=None, default_args={"project": None}) as dag:
            task = make(DeployModelOperator)
            DeployModelOperator.partial(task_id="mapped").expand(model_name=["x"])

        task._check_arrived()
        mapped: Any = dag.get_task("mapped")
        mapped.unmap({"model_name": "x"})._check_arrived()

    @pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.__name__)
    def test_a_literal_none(self, kind: Any, dag: DAG) -> None:
        optional = {field: None for field in kind.template_fields if field not in required_of(kind)}
        with dag:
            task = make(kind, **{"hsml_conn_id": "x", **optional})
            mapped = {"hsml_conn_id": ["x"]}
            needed = required_of(kind)
            optional.pop("hsml_conn_id")
            kind.partial(task_id="mapped", **needed, **optional).expand(**mapped)

        task._check_arrived()
        one: Any = dag.get_task("mapped").unmap({"hsml_conn_id": "x"})
        one._check_arrived()

    def test_a_literal_none_in_the_default_args_of_a_group(self, dag: DAG) -> None:
        given: Any = {"model_project": None}
        with dag, TaskGroup("group", default_args=given):
            DeployModelOperator.partial(task_id="mapped", model_name="m").expand(model_version=[1])

        one: Any = dag.get_task("group.mapped").unmap({"model_version": 1})
        one._check_arrived()

    def test_a_source_that_is_replaced(self, returned: Any) -> None:
        task = DeployModelOperator(task_id="task", model_name="x", plan=returned)
        task.plan = None

        task._check_arrived()

    def test_a_literal_that_looks_empty(self) -> None:
        make(DeployModelOperator, model_name="None")._check_arrived()

    def test_data_may_hold_nulls(self, returned: Any) -> None:
        task = make(PredictOperator, instances=returned)

        rendered(task, instances=[[None, "", "None"]])._check_arrived()


def test_what_mapped_tasks_get_is_refused_without_a_retry(dag: DAG) -> None:
    """Airflow makes the task only when it runs: a ValueError would be a traceback, and be retried."""
    with dag:
        StartDeploymentOperator.partial(task_id="task", deployment_name="x").expand(timeout=[None])
    with pytest.raises(AirflowFailException, match="Task 'task': timeout: expected a finite number"):
        dag.get_task("task").unmap({"timeout": None})


def test_the_serialized_dag_is_the_same_after_each_parse() -> None:
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized  # type: ignore[attr-defined,assignment]

    def parse() -> str:
        with DAG("dag", schedule=None) as dag:
            first = XComArg(PythonOperator(task_id="before", python_callable=print))
            for number, kind in enumerate(TASKS):
                make(kind, task_id=f"task{number}", project=first, hsml_conn_id="{{ x }}")
            DeployModelOperator.partial(task_id="mapped", plan=first).expand(model_name=["x", "{{ x }}"])
        return json.dumps(Serialized.to_dict(dag), sort_keys=True, default=str)

    once = parse()
    assert once == parse()
    assert "_sources" not in once


@pytest.mark.usefixtures("serving")
def test_nothing_is_sent(serving: LocalServing, returned: Any) -> None:
    for task in (
        DeployModelOperator(task_id="1", model_name="x", plan=returned),
        RollbackDeploymentOperator(task_id="2", deployment_name="x", promotion=returned),
        PredictOperator(task_id="3", deployment_name="x", instances=returned),
        DeployBestModelOperator(task_id="4", model_name="x", metric="x", direction="max", candidates=returned),
    ):
        field = next(name for name in ("plan", "promotion", "instances", "candidates") if hasattr(task, name))
        with pytest.raises(AirflowFailException, match=f"{field}: expected a value from"):
            execute(rendered(task, **{field: None}))
    assert list(serving.requests) == []


@pytest.mark.parametrize("empty", ["", {}, []], ids=repr)
@pytest.mark.parametrize("name", ["project", "plan", "deployment_name", "model_project", "spec", "verification"])
def test_an_empty_value_is_none_of_those_that_mean_not_given(serving: LocalServing, name: str, empty: Any) -> None:
    if (name, empty) in [("spec", {}), ("verification", {})]:
        pytest.skip("no field is given")
    with pytest.raises(AirflowFailException, match=f"(?i){name.replace('_', '.')}"):
        execute(rendered(DeployModelOperator(task_id="task", model_name="x"), **{name: empty}))
    assert changes(serving) == []
