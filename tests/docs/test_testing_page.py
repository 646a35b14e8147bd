"""The project of docs/testing.md: its files as they are, its tests run by pytest in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_hsml.local import ModelFiles
from airflow_provider_hsml.testing import load_with_joblib

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
SCRIPTED = """
from test_churn import run

from airflow_provider_hsml import HsmlHook


def test_the_versions_that_serve(hopsworks_serving, run):
    assert [run(accuracy=accuracy) for accuracy in (0.7, 0.8, 0.9)] == ["success", "failed", "failed"]
    assert HsmlHook().predict("churn", instances=[[7], [8]]) == {"predictions": [1, 1]}
"""


def code(heading: str) -> str:
    """Return the code below a heading."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("```python\n")[2].partition("```")[0]


@pytest.mark.airflow
@pytest.mark.whole_airflow
def test_the_project(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the project trains with scikit-learn")
    dag = code("The DAG")
    if not AIRFLOW_V_3_0_PLUS:
        dag = dag.replace("from airflow.sdk import", "from airflow.decorators import")
    for path, content in {
        "dags/churn.py": dag,
        "tests/conftest.py": code("The fixture"),
        "tests/test_churn.py": code("The tests"),
        "tests/test_scripted.py": code("Script a model") + SCRIPTED,
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST", "COV"))}

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    assert "4 passed" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.parametrize("names", [[], ["a.joblib", "b.pkl"], ["model.txt"]])
def test_files_that_joblib_cannot_choose_from(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")

    with pytest.raises(ValueError, match=r"expected one file .*\nOverride the fixture hopsworks_engine"):
        load_with_joblib(ModelFiles("churn", "churn", 1, tmp_path, "PYTHON", "PYTHON"))
