"""The page for operations: its table of keys is what the server enforces; dashboard and recipes name what exists."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import operators, sensors, triggers
from airflow_provider_hsml.hopsworks.errors import RequestRefusedError
from airflow_provider_hsml.hopsworks.promotion import journal
from airflow_provider_hsml.local import FeatureView, RequestFault
from airflow_provider_hsml.operators import metrics
from tests.support.tasks import FakeTaskInstance, execute, run_trigger
from tests.system.test_example_dags import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "guides" / "operations.md").read_text()
QUICK: dict[str, Any] = {"task_id": "task", "poll_interval": 0.1, "timeout": 20.0}
SENSING: dict[str, Any] = {"task_id": "task", "poke_interval": 0.1, "timeout": 20}


def table(header: str) -> list[list[str]]:
    """Return the cells of the rows of the table that begins with a header."""
    rows = PAGE[PAGE.index(f"| {header} |") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


class Keys:
    """What the server asks of the key in each request."""

    def __init__(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: set[frozenset[str]] = set()
        self.needs_owner = False
        accounts = serving.world.accounts
        check, role = accounts.check, accounts.role

        def checking(authorization: str, allowed: Collection[str]) -> None:
            self.asked.add(frozenset(allowed))
            check(authorization, allowed)

        def asking(authorization: str) -> str:
            self.needs_owner = True
            return role(authorization)

        monkeypatch.setattr(accounts, "check", checking)
        monkeypatch.setattr(accounts, "role", asking)

    def forget(self) -> None:
        self.asked, self.needs_owner = set(), False


@pytest.fixture
def keys(serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> Keys:
    return Keys(serving, monkeypatch)


@pytest.fixture
def deployed(hook: HsmlHook, register: Callable[..., int], request: pytest.FixtureRequest) -> str:
    """A model with two versions, of which the first serves; its name."""
    name = re.sub("[^a-z]", "", request.node.name.lower())
    register(name, 1, auc=0.8)
    hook.deploy_model(name, 1, poll_interval=0.1)
    register(name, 2, auc=0.9)
    return name


def _register(name: str, model_file: Callable[..., Path], **_: Any) -> Any:
    path = model_file(answer=3)
    return operators.RegisterModelOperator(task_id="task", model_name=name, model_path=path, framework="SKLEARN")


def _register_with_view(name: str, serving: LocalServing, model_file: Callable[..., Path], **_: Any) -> Any:
    view = FeatureView(name="pixels_view", features={"pixel": "float"}, training_datasets=(1,))
    serving.world.declare(view)
    return operators.RegisterModelOperator(
        task_id="task",
        model_name=name,
        model_path=model_file(answer=3),
        framework="SKLEARN",
        feature_view=view.name,
        training_dataset_version=1,
    )


def _best(name: str, **_: Any) -> Any:
    return operators.DeployBestModelOperator(model_name=name, metric="auc", direction="max", **QUICK)


def _roll_back(name: str, hook: HsmlHook, **_: Any) -> Any:
    hook.deploy_model(name, 2, poll_interval=0.1)
    return operators.RollbackDeploymentOperator(deployment_name=name, **QUICK)


def _start(name: str, hook: HsmlHook, **_: Any) -> Any:
    hook.stop_deployment(name, poll_interval=0.1)
    return operators.StartDeploymentOperator(deployment_name=name, **QUICK)


def _run_job(name: str, hook: HsmlHook, serving: LocalServing, **_: Any) -> Any:
    serving.world.project(hook.client.project.id).jobs.declare(name, "")
    return operators.RunHopsworksJobOperator(job_name=name, **QUICK)


def _compare(name: str, tmp_path: Path, **_: Any) -> Any:
    return operators.CompareModelsOperator(
        task_id="task",
        deployment_name=name,
        challenger=2,
        input=[{"x": number, "y": 1} for number in range(200)],
        label_column="y",
        metrics=["accuracy"],
        result_path=str(tmp_path),
        poll_interval=0.1,
    )


def _score(name: str, tmp_path: Path, **_: Any) -> Any:
    (tmp_path / "rows.jsonl").write_text("[1]\n[2]\n")
    return operators.BatchPredictOperator(
        task_id="task", deployment_name=name, input=str(tmp_path / "rows.jsonl"), result_path=str(tmp_path / "results")
    )


TASKS: dict[str, Callable[..., Any]] = {
    "BatchPredictOperator": _score,
    "CompareModelsOperator": _compare,
    "RegisterModelOperator": _register,
    "RegisterModelOperator(feature_view=...)": _register_with_view,
    "DeployModelOperator": lambda name, **_: operators.DeployModelOperator(model_name=name, **QUICK),
    "DeployBestModelOperator": _best,
    "RollbackDeploymentOperator": _roll_back,
    "StartDeploymentOperator": _start,
    "StopDeploymentOperator": lambda name, **_: operators.StopDeploymentOperator(deployment_name=name, **QUICK),
    "RestartDeploymentOperator": lambda name, **_: operators.RestartDeploymentOperator(deployment_name=name, **QUICK),
    "DeleteDeploymentOperator": lambda name, **_: operators.DeleteDeploymentOperator(
        task_id="task", deployment_name=name, force=True
    ),
    "PredictOperator": lambda name, **_: operators.PredictOperator(task_id="task", deployment_name=name),
    "DeleteModelVersionsOperator": lambda name, **_: operators.DeleteModelVersionsOperator(
        task_id="task", model_name=name, keep=1
    ),
    "RunHopsworksJobOperator": _run_job,
    "DeploymentStatusSensor": lambda name, **_: sensors.DeploymentStatusSensor(deployment_name=name, **SENSING),
    "ModelVersionSensor": lambda name, **_: sensors.ModelVersionSensor(
        model_name=name, metric="auc", at_least=0.5, **SENSING
    ),
    "ModelVersionTrigger": lambda name, **_: triggers.ModelVersionTrigger(model_name=name, newer_than=0),
}
KEYS = {name: (set(codes(row[1])), row[2]) for row in table("task | scopes") for name in codes(row[0])}


class TestTheTableOfKeys:
    def test_has_every_task(self) -> None:
        assert set(KEYS) == set(TASKS)
        assert {name.partition("(")[0] for name in TASKS} == {
            *operators.__all__,
            *sensors.__all__,
            "ModelVersionTrigger",
        }

    @pytest.mark.parametrize("task", TASKS)
    def test_is_what_the_server_enforces(
        self,
        task: str,
        deployed: str,
        hook: HsmlHook,
        model_file: Callable[..., Path],
        keys: Keys,
        serving: LocalServing,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(journal, "KEPT", 1)  # The oldest files of a journal are deleted when it has 20.
        made = TASKS[task](name=deployed, hook=hook, model_file=model_file, serving=serving, tmp_path=tmp_path)
        ti = FakeTaskInstance()
        keys.forget()

        if task.startswith("RegisterModelOperator"):
            path = "/project/*/modelregistries/*/models/*"
            serving.faults.add(RequestFault("PUT", path, status=503, body={"errorCode": 1}, times=9))
            with pytest.raises(RequestRefusedError):
                execute(made, ti)
            serving.faults.clear()
        if isinstance(made, triggers.ModelVersionTrigger):
            asyncio.run(run_trigger(made))
        else:
            execute(made, ti)
        if task == "RunHopsworksJobOperator":
            execute(made, ti)  # A retry reads the record.

        scopes, role = KEYS[task]
        assert {scope for asked in keys.asked for scope in asked if len(asked) == 1} == scopes
        assert all(asked & scopes for asked in keys.asked), "a request that takes one of several scopes"
        assert keys.needs_owner == (role == "Data owner")


def test_the_key_that_trains_can_approve(deployed: str, hook: HsmlHook, keys: Keys) -> None:
    keys.forget()

    hook.set_model_tag(deployed, 2, "approval", "approved")

    asked = {scope for one in keys.asked for scope in one}
    assert asked <= KEYS["RegisterModelOperator"][0]
    assert not keys.needs_owner
    assert "**The training key can approve.**" in PAGE


def exported(metric: str) -> tuple[str, set[str]]:
    """Return the name and the labels that the exporter's rules on the page give to a metric of plain StatsD."""
    (rules,) = re.findall(r"```yaml\n(mappings:.*?)```", PAGE, re.DOTALL)
    emitted = f"airflow.{metric}.example.churn{'.kept' if metric == metrics.PROMOTIONS else ''}"
    for pattern, *texts in re.findall(r"- match: (\S+)\n +name: (\S+)\n +labels: {([^}]+)}", rules):
        found = re.fullmatch(re.escape(pattern).replace(r"\*", "([^.]+)"), emitted)
        if found is not None:
            name, labels = (found.expand(text.replace("$", "\\")) for text in texts)
            values = dict(re.findall(r'(\w+): "([^"]*)"', labels))
            assert (values["project"], values["deployment"]) == ("example", "churn")
            return name, set(values)
    raise AssertionError(emitted)


class TestMetrics:
    def test_the_table_has_every_name(self) -> None:
        assert [name for row in table("metric | kind") for name in codes(row[0])] == list(metrics.NAMES)

    def test_the_dashboard_shows_what_the_exporter_makes_of_them(self) -> None:
        known = dict(map(exported, metrics.NAMES))
        shown: set[str] = set()
        for panel in json.loads((DOCS / "grafana-dashboard.json").read_text())["panels"]:
            for target in panel["targets"]:
                selected = re.findall(r'(\w+)=~?"', target["expr"])
                labels = {*selected, *re.findall(r"{{(\w+)}}", target["legendFormat"])}
                names = {re.sub("_(sum|count)$", "", name) for name in re.findall(r"airflow_hsml_\w+", target["expr"])}
                assert all(labels <= known[name] for name in names), target
                shown |= names
        assert shown == set(known), "each is in a panel, and no other"

    def test_the_alerts_name_metrics_that_there_are(self) -> None:
        rules = "".join(re.findall(r"```yaml\n(groups:.*?)```", PAGE, re.DOTALL))
        named = set(re.findall(r"airflow_hsml_(\w+)", rules))

        assert named
        assert named <= {name.removeprefix("hsml.") for name in metrics.NAMES}


def recipe(heading: str) -> dict[str, Any]:
    """Run the code below a heading, and return its names."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.partition(f"# {heading}\n")[2].partition("\n##")[0], re.DOTALL)
    names: dict[str, Any] = {"__name__": __name__}
    exec(code, names)  # noqa: S102 - the page's code is what is tested
    return names


@pytest.mark.parametrize(("days", "is_old"), [(29, False), (31, True)])
def test_tells_when_production_is_older_than_30_days(
    days: int, is_old: bool, deployed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = recipe("Tell me when production is older than 30 days")
    later = time.time() + days * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)

    check = names["check_age"].function
    if not is_old:
        assert check(deployed) == days
        return
    with pytest.raises(AirflowFailException, match=f"{deployed}.*version 1.*31 days"):
        check(deployed)


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="Airflow 3.1 brings deadlines")
def test_the_deadline_is_at_six() -> None:
    names = recipe("Tell me when nothing was promoted by 06:00")
    dag = names["dag"]
    (alert,) = dag.deadline if isinstance(dag.deadline, list) else [dag.deadline]

    assert (alert.interval, dag.timetable.expression) == (timedelta(hours=4), "0 2 * * *")
