"""The page that says what the SDK's calls are here: each row's code runs, in the order of the page."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator

import airflow_provider_hsml
from tests.support.tasks import execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.local import LocalServing

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "sdk.md"
ROW = re.compile(r"^\| (?P<theirs>.*?) \| (?P<ours>.*) \|$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
QUICKSTART = {
    *("login", "connection", "get_model_registry", "get_model_serving", "create_model", "save", "get_model"),
    *("get_models", "get_best_model", "download", "deploy", "create_predictor", "create_deployment", "get_deployment"),
    *("get_deployment_by_id", "get_deployments", "start", "stop", "restart", "delete", "get_state", "is_running"),
    *("set_tag", "get_tags", "describe", "get_logs", "get_versions", "get_inference_endpoints", "get_url", "predict"),
}
"""What the Model Serving quickstart and guides call."""


def rows() -> list[re.Match[str]]:
    return [row for row in ROW.finditer(PAGE.read_text()) if row["theirs"] not in ("SDK", "---")]


def run(code: str, names: dict[str, Any]) -> None:
    """Run one snippet; an operator that it makes is executed, as Airflow would."""
    is_expression = isinstance(ast.parse(code).body[0], ast.Expr)
    exec(f"made = {code}" if is_expression else code, names)  # noqa: S102 - the page's code is what is tested
    value = names.pop("made", None)
    if isinstance(value, BaseSensorOperator):
        assert value.poke({}), code
    elif isinstance(value, BaseOperator):
        value.poll_interval = 0.1
        execute(value)


@pytest.mark.airflow
@pytest.mark.since_hopsworks("5.2")
def test_every_row_runs(serving: LocalServing, model_file: Callable[..., Path], tmp_path: Path) -> None:
    serving.world.project(serving.project_id).jobs.declare("train", "")
    script = tmp_path / "program.py"
    script.write_text("print('up')\n")
    names: dict[str, Any] = {name: getattr(airflow_provider_hsml, name) for name in airflow_provider_hsml.__all__}
    names |= {"folder": str(model_file(answer=1)), "rows": [[0.1, 3.0], [0.2, 4.0]], "script": str(script)}

    for row in rows():
        snippets = CODE.findall(row["ours"])
        assert snippets, row["theirs"]
        for code in snippets:
            run(code, names)
    hook = names["hook"]
    assert [model.version for model in hook.get_models("churn")] == [1, 2]
    assert hook.predict("churn") == {"predictions": [1, 1]}
    assert (Path(names["folder"]) / "copy" / "model.joblib").exists()
    assert "second" not in [deployment.name for deployment in hook.get_deployments()]


def test_the_quickstart_is_covered() -> None:
    called = {name for row in rows() for name in re.findall(r"(\w+)\(", row["theirs"])}

    assert called >= QUICKSTART
