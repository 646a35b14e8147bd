"""The nightly scoring, run by a real Airflow: on a deployment of its own, in mapped tasks, and nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.local import LocalServing
from tests.conftest import HOPSWORKS
from tests.support import commands, pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.local import ModelFiles

pytest.importorskip("sklearn", reason="the example scores the digits of scikit-learn")
pytestmark = pytest.mark.airflow

EXAMPLES = Path(__file__).parents[2] / "example_dags"
ROWS = 1797


def load(_model: ModelFiles) -> Callable[[Any], list[int]]:
    """Make a model that adds the pixels of an image."""
    return lambda rows: [sum(row) for row in rows]


def test_a_table_is_scored_beside_production(
    tmp_path: Path, model_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_digits

    with LocalServing(engine=load, hopsworks_version=HOPSWORKS) as serving:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        hook = HsmlHook()
        hook.register_model(
            model_name="digits", model_path=model_file(answer=1), framework="SKLEARN", input_example=[[0] * 64]
        )
        hook.deploy_model("digits", 1, poll_interval=0.1)
        serving.requests.clear()
        home = tmp_path / "airflow"
        commands.migrate(home)
        pace.hurry(home)
        environment = commands.environment(
            home, AIRFLOW__CORE__DAGS_FOLDER=str(EXAMPLES), AIRFLOW_CONN_HSML_DEFAULT=serving.connection
        )
        asked = [
            ("pools", "set", "hopsworks_predictions", "2", "tables that are scored at a time"),
            ("dags", "test", "nightly_scoring", "2026-11-01"),
        ]
        ran = commands.run(asked, environment)

        assert [one.code for one in ran] == ["0", "0"], ran[-1].output
        assert [deployment.name for deployment in hook.get_deployments()] == ["digits"]
        to_models = {one.path for one in serving.requests if one.path.endswith(":predict")}
        assert all("digitsnightly:predict" in path for path in to_models)
    (manifest,) = [
        json.loads(line[line.index('{"scored"') : line.rindex("}") + 1])["scored"]
        for line in ran[-1].output.splitlines()
        if '{"scored"' in line
    ]
    assert manifest["counts"] == {"success": ROWS, "error": 0, "skipped": 0}
    assert (manifest["model_versions"], manifest["single_version"]) == ([1], True)
    lines = [
        json.loads(line)
        for name in manifest["files"]
        for line in Path(name.removeprefix("file://")).read_text().splitlines()
    ]
    assert [line["id"] for line in lines] == list(range(ROWS))
    assert [line["prediction"] for line in lines] == load_digits().data.sum(axis=1).astype(int).tolist()
