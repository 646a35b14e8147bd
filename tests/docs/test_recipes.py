"""The recipes of docs/promotion.md are DAGs that Airflow takes, and those from development to production are run."""

from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path

import pytest

from airflow_provider_hsml.local import AccessOptions, LocalServing
from airflow_provider_hsml.local.cluster.faults import RequestFault
from tests.conftest import run_model
from tests.support import commands

PAGE = (Path(__file__).parents[2] / "docs" / "promotion.md").read_text()
IMPORTS = """
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_hsml import *
"""


def dag_of(heading: str, dag_id: str) -> str:
    """Make a DAG file of the code below a heading."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.partition(f"# {heading}\n")[2].partition("\n##")[0], re.DOTALL)
    return f"{IMPORTS}\nwith DAG({dag_id!r}):\n" + "".join(f"    {line}\n" for line in code.splitlines())


@pytest.mark.parametrize(
    "heading", ["Plan and approval", "When a later check fails", "One change at a time, across DAGs"]
)
def test_is_a_dag(heading: str) -> None:
    names: dict[str, object] = {}
    exec(dag_of(heading, "recipe"), names)  # noqa: S102 - the page's code is what is tested

    assert "DeployBestModelOperator" in names


@pytest.mark.slow
def test_from_development_to_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_hsml.hooks import HsmlHook

    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "shared.py").write_text(dag_of("From development to production, with one registry", "shared"))
    (dags / "copied.py").write_text(
        f"FOLDER = {str(tmp_path)!r}\n" + dag_of("From development to production, with two connections", "copied")
    )
    with LocalServing(
        engine=run_model,
        project=["dev", "prod"],
        access=AccessOptions(shared_registries={"dev": ["prod"]}),
        profile="plain",
    ) as serving:
        for model in ("churn", "fraud"):
            for answer, auc in ((1, 0.8), (2, 0.9)):
                serving.world.register_model(
                    model,
                    {"model.joblib": b'{"answer": %d}' % answer},
                    metrics={"auc": auc},
                    input_example=[[1]],
                    project="dev",
                )
        prod = json.loads(serving.connection)
        prod["extra"] |= {"project": "prod"}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        HsmlHook(project="dev").set_model_tag("fraud", 2, "stage", "production")
        environment = commands.environment(
            tmp_path,
            AIRFLOW__CORE__DAGS_FOLDER=str(dags),
            AIRFLOW_CONN_HSML_DEFAULT=serving.connection,
            AIRFLOW_CONN_HSML_DEV=serving.connection,
            AIRFLOW_CONN_HSML_PROD=json.dumps(prod),
        )
        commands.migrate(tmp_path)
        ran = commands.run([("dags", "test", "shared"), ("dags", "test", "copied")], environment)
        live = {deployment.name: deployment for deployment in HsmlHook(project="prod").get_deployments()}
        answers = {name: HsmlHook(project="prod").predict(name, instances=[[1]]) for name in live}

    assert [one.code for one in ran] == ["0"] * 2, [one.output[-3000:] for one in ran]
    assert (live["churn"].model_project, live["churn"].model_version) == ("dev", 2)
    assert (live["fraud"].model_project, live["fraud"].model_version) == ("prod", 1)
    assert answers == {name: {"predictions": [2]} for name in ("churn", "fraud")}


@pytest.mark.slow
def test_when_a_later_check_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_hsml.hooks import HsmlHook

    text, count = re.subn(
        r"check = .*",
        """check = task(lambda good: 1 / int(good), task_id="check")("{{ dag_run.conf.get('good', 1) }}")""",
        dag_of("When a later check fails", "checked"),
    )
    assert count == 1
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "checked.py").write_text(text)
    with LocalServing(engine=run_model, profile="plain") as serving:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        environment = commands.environment(
            tmp_path,
            AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path / "dags"),
            AIRFLOW_CONN_HSML_DEFAULT=serving.connection,
        )
        commands.migrate(tmp_path)

        def night(
            number: int, *, recorded: int, good: int, is_refused: bool = False
        ) -> tuple[str, list[str], int | None]:
            """Register a version, run the DAG, and give its end, what became of the deployment, and what serves."""
            file = tmp_path / "model.joblib"
            file.write_text(json.dumps({"answer": number}))
            hook, rows = HsmlHook(), [[0.1, 0.2]]
            hook.register_model(
                model_name="churn",
                model_path=file,
                framework="SKLEARN",
                metrics={"auc": 0.8 + number / 100},
                input_example=rows,
                expected={"instances": rows, "predictions": [recorded]},
            )
            if is_refused:
                path = "/project/*/modelregistries/*/models"
                serving.faults.add(RequestFault("GET", path, status=400, body={"errorCode": 1}, times=None))
            (ran,) = commands.run([("dags", "test", "checked", "--conf", json.dumps({"good": good}))], environment)
            # Airflow 2 prints a task's log twice.
            actions = [action for action, _ in groupby(re.findall(r"^ +action +(\w+)", ran.output, re.MULTILINE))]
            return ran.code, actions, hook.get_deployment("churn").model_version

        assert night(1, recorded=1, good=1) == ("0", ["created"], 1)
        assert night(2, recorded=2, good=1) == ("0", ["updated"], 2)
        # The check fails; then the promotion itself, and with it the check.
        code, *rest = night(3, recorded=3, good=0)
        assert (code != "0", rest) == (True, [["updated", "rolled_back"], 2])
        code, *rest = night(4, recorded=66, good=1)
        assert (code != "0", rest) == (True, [["rolled_back", "unchanged"], 2])
        # It cannot even decide, and leaves no record.
        code, *rest = night(5, recorded=5, good=1, is_refused=True)
        assert (code != "0", rest) == (True, [[], 2])
