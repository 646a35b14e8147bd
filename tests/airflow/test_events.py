"""What others are told of a promotion: callbacks after a rollback, and asset events."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    AssetAlias,
    BaseNotifier,
)

from airflow_provider_hsml.local import LocalServing
from airflow_provider_hsml.operators import (
    DeployBestModelOperator,
    DeployModelOperator,
    RegisterModelOperator,
    RollbackDeploymentOperator,
)
from tests.conftest import HOPSWORKS, run_model
from tests.support import commands, pace
from tests.support.tasks import FakeTaskInstance, execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.hooks import HsmlHook

pytestmark = pytest.mark.airflow


class Notifier(BaseNotifier):
    """Renders its message, as those of Slack or mail do."""

    template_fields = ("message",)

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message
        self.sent: list[str] = []

    def notify(self, context: Any) -> None:
        self.sent.append(self.message)


def run(operator: Any, ti: FakeTaskInstance | None = None) -> Any:
    """Execute an operator with as much of a context as a notifier renders with."""
    with DAG("promote", schedule=None) as dag:
        return execute(operator, ti, dag=dag)


DAGS = """
from datetime import datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias

from airflow_provider_hsml import DeployBestModelOperator, RegisterModelOperator

with DAG("night", schedule=None, render_template_as_native_obj=True):
    register = RegisterModelOperator(
        task_id="register",
        model_name="churn",
        model_path=Path(__file__).with_name("model"),
        framework="SKLEARN",
        metrics={"auc": "{{ dag_run.conf['auc'] }}"},
        outlets=[AssetAlias("registered")],
    )
    deploy = DeployBestModelOperator(
        task_id="deploy",
        model_name="churn",
        metric="auc",
        direction="max",
        outlets=[AssetAlias("in_production"), Asset("plain")],
    )
    register >> deploy

with DAG(
    "consumer", start_date=datetime(2026, 1, 1), catchup=False, schedule=[Asset("hopsworks://example/deployments/churn")]
):
    DeployBestModelOperator(task_id="promote_elsewhere", model_name="churn", metric="auc", direction="max")
"""


@dataclass
class Told:
    """What Airflow has noted."""

    events: list[tuple[str, str, dict[str, Any]]]
    """Task, URI, extra."""
    waiting: list[str]
    """DAGs that the events start."""


def told(database: Path) -> Told:
    """Read it; Airflow 2 calls assets datasets."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        what = "asset" if "asset_event" in tables else "dataset"
        events = connection.execute(
            f"SELECT source_task_id, uri, {what}_event.extra FROM {what}_event"  # noqa: S608 - a name of ours
            f" JOIN {what} ON {what}.id = {what}_id ORDER BY {what}_event.id"
        )
        queue = connection.execute(f"SELECT target_dag_id FROM {what}_dag_run_queue")  # noqa: S608
        return Told([(task, uri, json.loads(extra)) for task, uri, extra in events], [dag for (dag,) in queue])


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Two nights of a real Airflow; the second registers a model that is worse."""
    folder, home = tmp_path_factory.mktemp("dags"), tmp_path_factory.mktemp("airflow")
    (folder / "dags.py").write_text(DAGS)
    (folder / "model").mkdir()
    (folder / "model" / "model.joblib").write_text('{"answer": 7}')
    runs = [
        ("dags", "test", "night", f"2026-11-0{day}", "--conf", json.dumps({"auc": auc}))
        for day, auc in ((1, 0.8), (2, 0.7))
    ]
    with LocalServing(engine=run_model, hopsworks_version=HOPSWORKS) as serving:
        environment = commands.environment(
            home,
            AIRFLOW__CORE__DAGS_FOLDER=str(folder),
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW_CONN_HSML_DEFAULT=serving.connection,
        )
        commands.migrate(home)
        pace.hurry(home)
        ran = commands.run([("dags", "reserialize"), *runs], environment)
    assert [one.code for one in ran] == ["0"] * 3, ran
    return told(home / "airflow.db")


class Outlets:
    """Takes what Airflow's outlet events take, for one alias."""

    def __init__(self, name: str) -> None:
        self.alias = AssetAlias(name)
        self.told: list[tuple[str, dict[str, Any]]] = []

    def __getitem__(self, outlet: Any) -> Any:
        assert outlet is self.alias
        return SimpleNamespace(add=lambda asset, extra: self.told.append((asset.uri, extra)))


class TestAssetEvents:
    def test_of_what_is_registered(self, nights: Told) -> None:
        assert [event for event in nights.events if event[0] == "register"] == [
            (
                "register",
                "hopsworks://example/models/churn",
                {"model_name": "churn", "model_version": version, "model_id": f"churn_{version}", "metrics.auc": auc},
            )
            for version, auc in ((1, 0.8), (2, 0.7))
        ]

    def test_of_a_deployment_only_when_it_changed(self, nights: Told) -> None:
        told = [(uri, extra) for task, uri, extra in nights.events if task == "deploy" and uri != "plain"]

        assert told == [
            (
                "hopsworks://example/deployments/churn",
                {
                    "action": "created",
                    "deployment_id": 1,
                    "model_name": "churn",
                    "model_version": 1,
                    "previous_model_version": None,
                    "metric": "auc",
                    "metric_value": 0.8,
                    "verified_by": "instances",
                },
            )
        ]

    def test_of_a_plain_asset_each_time(self, nights: Told) -> None:
        assert [uri for _, uri, _ in nights.events].count("plain") == 2

    def test_start_dags_that_name_the_deployment(self, nights: Told) -> None:
        assert nights.waiting == ["consumer"]

    def test_by_what_was_done(self, hook: HsmlHook, register: Callable[..., int]) -> None:
        register("said", 1, auc=0.8)
        register("said", 2, auc=0.9)
        outlets = Outlets("in_production")

        def back(**given: Any) -> RollbackDeploymentOperator:
            return RollbackDeploymentOperator(task_id="back", deployment_name="said", outlets=[outlets.alias], **given)

        def deploy(**given: Any) -> DeployModelOperator:
            return DeployModelOperator(task_id="deploy", model_name="said", outlets=[outlets.alias], **given)

        tasks: list[Any] = [
            deploy(model_version=1),
            deploy(model_version=2, plan_only=True),
            deploy(model_version=2),
            deploy(model_version=2),
            back(),
            back(model_version=1),
        ]
        for task in tasks:
            execute(task, outlet_events=outlets)

        assert [(uri, extra["action"]) for uri, extra in outlets.told] == [
            ("hopsworks://example/deployments/said", action) for action in ("created", "updated", "rolled_back")
        ]

    @pytest.mark.parametrize("key", [None, "2026-11-01"])
    def test_the_log_says_if_a_partition_key_keeps_them_from_plain_dags(
        self, key: str | None, register: Callable[..., int], caplog: pytest.LogCaptureFixture
    ) -> None:
        name = f"keyed{key is not None}".lower()
        register(name, 1)
        outlets = Outlets("in_production")
        deploy = DeployModelOperator(task_id="deploy", model_name=name, outlets=[outlets.alias])
        with caplog.at_level("INFO"):
            execute(deploy, outlet_events=outlets, dag_run=SimpleNamespace(partition_key=key))

        assert len(outlets.told) == 1
        assert ("starts only DAGs on a PartitionedAssetTimetable" in caplog.text) is (key is not None)

    def test_of_what_an_earlier_try_registered_and_told_nobody(
        self, serving: LocalServing, model_file: Callable[..., Path]
    ) -> None:
        """Its worker died between the two; Airflow forgets the events of a try that fails."""
        outlets, ti = Outlets("registered"), FakeTaskInstance()
        register: Any = RegisterModelOperator(
            task_id="register",
            model_name="retold",
            model_path=model_file(answer=1),
            framework="SKLEARN",
            outlets=[outlets.alias],
        )
        for _ in range(2):
            execute(register, ti, outlet_events=outlets)

        extra = {"model_name": "retold", "model_version": 1, "model_id": "retold_1"}
        assert outlets.told == [("hopsworks://example/models/retold", extra)] * 2

    def test_of_a_promotion_that_an_earlier_try_made_and_told_nobody(self, register: Callable[..., int]) -> None:
        """Its worker died after it had verified all: the retry tells, and is not skipped for changing nothing."""
        outlets = Outlets("in_production")
        deploy: Any = DeployBestModelOperator(
            task_id="deploy",
            model_name="lost",
            metric="auc",
            direction="max",
            if_not_better="skip",
            outlets=[outlets.alias],
        )
        ti = FakeTaskInstance()
        for auc in (0.8, 0.9):
            register("lost", 1, auc=auc)
            ti = FakeTaskInstance()
            first, again = (execute(deploy, ti, outlet_events=outlets) for _ in range(2))
            kept = ("action", "model_version", "previous_model_version", "metric_value", "is_kept")

            assert [again[name] for name in kept] == [first[name] for name in kept]
            assert again["reason"] == "an earlier try of this task made the change"
        with pytest.raises(AirflowSkipException):
            execute(deploy, outlet_events=outlets)
        with pytest.raises(AirflowSkipException):
            execute(deploy, FakeTaskInstance(run_id=ti.run_id, max_tries=1), outlet_events=outlets)

        assert [(extra["action"], extra["model_version"]) for _, extra in outlets.told] == [
            ("created", 1),
            ("created", 1),
            ("updated", 2),
            ("updated", 2),
        ]


class TestOnRollback:
    @pytest.fixture
    def failing(
        self, register: Callable[..., int], hook: HsmlHook, model_file: Callable[..., Path]
    ) -> Callable[[str], None]:
        """Have version 1 of a model serve, and register a better one that answers otherwise than was recorded."""

        def make(name: str) -> None:
            register(name, 1, auc=0.8)
            execute(DeployModelOperator(task_id="first", model_name=name))
            rows = [[0.0], [1.0]]
            hook.register_model(
                model_name=name,
                model_path=model_file(answer=6),
                framework="SKLEARN",
                metrics={"auc": 0.9},
                input_example=rows,
                expected={"instances": rows, "predictions": [66, 66]},
            )

        return make

    def test_notifiers_and_functions_get_the_record(self, failing: Callable[[str], None]) -> None:
        failing("told1")
        notifier, ti = Notifier("{{ promotion.model_version }}: {{ promotion.reason }}"), FakeTaskInstance()
        called: list[Any] = []
        operator = DeployBestModelOperator(
            task_id="deploy", model_name="told1", metric="auc", direction="max", on_rollback=[called.append, notifier]
        )

        with pytest.raises(AirflowFailException, match="serves again"):
            run(operator, ti)

        record = ti.pushed["promotion"]
        assert record["action"] == "rolled_back"
        assert notifier.sent == [f"2: {record['reason']}"]
        assert [context["promotion"] for context in called] == [record]
        assert called[0]["ti"] is ti

    def test_that_raises_changes_nothing(
        self,
        failing: Callable[[str], None],
        hook: HsmlHook,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        failing("told2")
        notifier = Notifier("still told")

        def raises(context: Any) -> None:
            raise RuntimeError("no such channel")

        with pytest.raises(AirflowFailException, match="serves again"):
            run(DeployModelOperator(task_id="deploy", model_name="told2", on_rollback=(raises, notifier)))

        assert "no such channel" in caplog.text + capsys.readouterr().out, "Airflow 3 logs past Python's logging"
        assert notifier.sent == ["still told"]
        assert hook.predict("told2", instances=[[0.0]]) == {"predictions": [1]}

    def test_is_not_called_otherwise(self, serving: LocalServing, register: Callable[..., int]) -> None:
        register("told3", 1, auc=0.8)
        called: list[Any] = []

        def operator(version: int) -> DeployModelOperator:
            return DeployModelOperator(
                task_id="deploy", model_name="told3", model_version=version, on_rollback=called.append
            )

        execute(operator(1))
        with pytest.raises(AirflowFailException, match="versions there: 1"):
            execute(operator(9))

        assert called == []

    @pytest.mark.parametrize("given", ["page", 5, [print, "page"], {"a": 1}])
    def test_has_to_be_callable(self, given: Any) -> None:
        with pytest.raises(ValueError, match=r"'deploy': on_rollback: expected a callable or a list of them, got"):
            DeployModelOperator(task_id="deploy", model_name="told4", on_rollback=given)
