"""Task loops of a real Airflow (3.4 and later): an iteration is not taken for a retry of another one."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.local import LocalServing
from tests.conftest import HOPSWORKS, run_model
from tests.support import commands, pace

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(tuple(map(int, version("apache-airflow").split(".")[:2])) < (3, 4), reason="has no task loops"),
]

DAG = """
from pathlib import Path

from airflow.sdk import DAG, task_group

from airflow_provider_hsml import DeployModelOperator, RegisterModelOperator

with DAG("improve", schedule=None):

    @task_group
    def body():
        register = RegisterModelOperator(
            task_id="register",
            model_name="churn",
            model_path=Path(__file__).with_name("model"),
            framework="SKLEARN",
            metrics="{{ {'auc': 0.5 + loop.index / 10} | tojson }}",
        )
        deploy = DeployModelOperator(task_id="deploy", model_name="churn", model_version="{{ loop.index + 1 }}")
        register >> deploy

    body.loop(max_iterations=2)
"""


def test_each_iteration_registers_and_deploys_a_version_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, home = tmp_path_factory.mktemp("dags"), tmp_path_factory.mktemp("airflow")
    (folder / "dags.py").write_text(DAG)
    (folder / "model").mkdir()
    (folder / "model" / "model.joblib").write_text(json.dumps({"answer": 7}))
    with LocalServing(engine=run_model, hopsworks_version=HOPSWORKS) as serving:
        environment = commands.environment(
            home, AIRFLOW__CORE__DAGS_FOLDER=str(folder), AIRFLOW_CONN_HSML_DEFAULT=serving.connection
        )
        commands.migrate(home)
        pace.hurry(home)
        (ran,) = commands.run([("dags", "test", "improve")], environment)
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        hook = HsmlHook()
        versions, live = hook.get_models("churn"), hook.get_deployment("churn")

    assert ran.code in ("0", "None"), ran.output
    assert sorted(each.version for each in versions) == [1, 2]
    assert live is not None
    assert live.model_version == 2
