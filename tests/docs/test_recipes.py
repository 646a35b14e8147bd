"""The recipes of docs/guides are DAGs that Airflow takes, and those from development to production are run."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import pytest

from airflow_provider_hsml.local import AccessOptions, LocalServing
from airflow_provider_hsml.local.cluster.faults import RequestFault
from tests.conftest import run_model
from tests.support import commands

PAGES = "".join(page.read_text() for page in sorted((Path(__file__).parents[2] / "docs" / "guides").glob("*.md")))
COMPARE = "Compare offline and online features first"
STORES = """
import json, sys, types
from datetime import datetime
OFFLINE, ONLINE = json.loads({rows!r})
class Frame(list):
    def to_dict(self, orient):
        assert orient == "records"
        return list(self)
class View:
    primary_keys = {{"cc_num"}}
    def get_batch_data(self, start_time, primary_key, event_time, transformed, dataframe_type):
        assert primary_key and event_time and not transformed and dataframe_type == "pandas"
        rows = (row | {{"event_time": datetime.fromisoformat(row["event_time"])}} for row in OFFLINE)
        return Frame(row for row in rows if row["event_time"] >= start_time)
    def init_serving(self):
        self.is_ready = True
    def get_feature_vectors(self, entry, return_type, transform, allow_missing):
        assert self.is_ready and return_type == "pandas" and allow_missing and not transform
        known = {{row["cc_num"]: row for row in ONLINE}}
        return Frame(known.get(one["cc_num"], {{"cc_num": one["cc_num"], "amount": float("nan")}}) for one in entry)
store = types.SimpleNamespace(get_feature_view=lambda name, version: View())
project = types.SimpleNamespace(get_feature_store=lambda: store)
sys.modules["hopsworks"] = types.SimpleNamespace(login=lambda: project)
"""
"""Stands for the SDK and its two stores, in front of a job's script. The local Model Serving has no feature data."""
IMPORTS = """
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_hsml import *
"""


def code_of(heading: str) -> list[str]:
    """Return the blocks of code below a heading."""
    return re.findall(r"```python\n(.*?)```", PAGES.partition(f"# {heading}\n")[2].partition("\n##")[0], re.DOTALL)


def dag_of(heading: str, dag_id: str) -> str:
    """Make a DAG file of the first code below a heading; another block is a script that the DAG runs elsewhere."""
    code = code_of(heading)[0]
    return f"{IMPORTS}\nwith DAG({dag_id!r}):\n" + "".join(f"    {line}\n" for line in code.splitlines())


@pytest.mark.parametrize(
    "heading", ["Plan and approve", "When a later check fails", "One change at a time, across DAGs", COMPARE]
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


@pytest.mark.slow
def test_compare_offline_and_online_features_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_hsml.hooks import HsmlHook

    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "compared.py").write_text(dag_of(COMPARE, "compared"))
    script = code_of(COMPARE)[1]
    # The newest of the last day is the third; the fourth is too old to be read.
    ages = [timedelta(hours=3), timedelta(hours=1), timedelta(hours=2), timedelta(days=2)]
    offline = [
        {"cc_num": number, "event_time": str(datetime.now(UTC) - age), "amount": float(number * factor), "risk": 1}
        for number in range(150)
        for factor, age in zip((1, 3, 2, 4), ages, strict=True)
    ]
    online: list[dict[str, object]] = [{"cc_num": number, "amount": number * 3} for number in range(150)]
    wrong = [row | {"amount": 7.5} for row in online[:75]]
    with LocalServing(engine=run_model, profile="plain") as serving:
        serving.world.register_model("fraud", {"model.joblib": b'{"answer": 1}'}, metrics={"auc": 0.9})
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        environment = commands.environment(
            tmp_path,
            AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path / "dags"),
            AIRFLOW_CONN_HSML_DEFAULT=serving.connection,
        )
        commands.migrate(tmp_path)

        def night(offline: list[dict[str, object]], online: list[dict[str, object]]) -> tuple[bool, str]:
            """Run the DAG with these stores, and give whether it ended well, with its log."""
            stores = STORES.format(rows=json.dumps([offline, online]))
            serving.world.project(serving.project_id).jobs.declare("compare_features", stores + script)
            (ran,) = commands.run([("dags", "test", "compared", "2026-01-01")], environment)
            return ran.code == "0", ran.output

        is_good, log = night([], online)
        assert (is_good, HsmlHook().get_deployments()) == (False, []), log
        assert "There are no offline rows of the last 1 days: nothing was compared." in log
        # One half of the keys has other values online, the other half has none.
        is_good, log = night(offline, wrong)
        assert (is_good, HsmlHook().get_deployments()) == (False, []), log
        assert "100 of 100 values differ between the offline and the online store." in log
        assert re.search(r"\{'cc_num': \d+\}: amount is \d+\.0 offline and 7\.5 online", log)
        assert re.search(r"\{'cc_num': \d+\}: amount is \d+\.0 offline and nan online", log)
        is_good, log = night(offline, online)
        assert (is_good, [each.name for each in HsmlHook().get_deployments()]) == (True, ["fraud"]), log
