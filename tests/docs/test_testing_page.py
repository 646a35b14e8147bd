"""The project of docs/guides/testing.md and the DAG of README: as they are, run by pytest in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.secrets.local_filesystem import LocalFilesystemBackend

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.local import ModelFiles
from airflow_provider_hsml.testing import hopsworks_engine, hopsworks_serving, load_with_joblib
from release import first_run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "testing.md").read_text()
README = """
import pathlib
import sys

from airflow_provider_hsml import HsmlHook

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "dags"))


def test_a_night(hopsworks_serving):
    import churn

    assert churn.retrain_iris().test().state == "success"
    assert HsmlHook().predict("iris", instances=[[5.1, 3.5, 1.4, 0.2]]) == {"predictions": [0]}
"""
ROLLBACK = (
    README
    + """
    import churn_of_section_6

    assert churn_of_section_6.retrain_iris().test().state == "failed"
    assert HsmlHook().get_deployment("iris").model_version == 1
    assert [one.version for one in HsmlHook().get_promotion_state("iris").rejected] == [2]
"""
)
SCRIPTED = """
from test_churn import run

from airflow_provider_hsml import HsmlHook


def test_the_versions_that_serve(hopsworks_serving, run):
    assert [run(accuracy=accuracy) for accuracy in (0.7, 0.8, 0.9)] == ["success", "failed", "failed"]
    assert HsmlHook().predict("churn", instances=[[7], [8]]) == {"predictions": [1, 1]}
"""

BACKEND = f"{LocalFilesystemBackend.__module__}.LocalFilesystemBackend"
LOADS_AIRFLOW_2 = pytest.mark.filterwarnings("ignore:Timer and timing metrics")
"""Airflow 2.11 says so about itself when a process makes its first connection."""
__all__ = ["hopsworks_engine", "hopsworks_serving"]  # The fixtures, as pytest_plugins would give them.


def code(heading: str) -> str:
    """Return the code below a heading."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("```python\n")[2].partition("```")[0]


def run(project: Path, dag: str, **tests: str) -> str:
    """Run the tests of a project with a DAG, and return what pytest prints."""
    pytest.importorskip("sklearn", reason="the DAG trains with scikit-learn")
    if not AIRFLOW_V_3_0_PLUS:
        dag = dag.replace("from airflow.sdk import", "from airflow.decorators import")
    files = {f"tests/{name}.py": content for name, content in tests.items()}
    for path, content in {"dags/churn.py": dag, "tests/conftest.py": code("The fixture"), **files}.items():
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text(content)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST", "COV"))}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env=kept | {"PYTHONPATH": str(ROOT), "TMPDIR": str(project)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    return ran.stdout


@pytest.mark.airflow
@pytest.mark.whole_airflow
def test_the_project(tmp_path: Path) -> None:
    printed = run(
        tmp_path, code("The DAG"), test_churn=code("The tests"), test_scripted=code("Script a model") + SCRIPTED
    )

    assert "4 passed" in printed, printed


@pytest.mark.airflow
@pytest.mark.whole_airflow
def test_the_dag_of_the_readme(tmp_path: Path) -> None:
    (dag,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

    dag = dag.replace("/tmp/iris", str(tmp_path / "iris"))
    worse = (ROOT / "docs" / "start" / "first-deployment.md").read_text().partition("\n## 6. See a rollback\n")[2]
    changes = worse.partition("```python\n")[2].partition("```")[0].splitlines()
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "churn_of_section_6.py").write_text(changed(dag, changes))

    printed = run(tmp_path, dag, test_iris=ROLLBACK)

    assert "1 passed" in printed, printed


def changed(dag: str, lines: list[str]) -> str:
    """Return a DAG with the lines of a page in place of those that set the same names."""
    for line in lines:
        name = line.partition(" = ")[0]
        (there,) = re.findall(rf"(?m)^ +{name} = .*$", dag)
        dag = dag.replace(there, there[: -len(there.lstrip())] + line)
    if not AIRFLOW_V_3_0_PLUS:
        dag = dag.replace("from airflow.sdk import", "from airflow.decorators import")
    return dag


@pytest.mark.parametrize("conftest", [code("The fixture"), first_run.CONFTEST], ids=["page", "release"])
def test_the_conftest_leaves_the_database_of_an_airflow_in_use(
    conftest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[dict[str, str]] = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environ = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////in/use.db", "AIRFLOW_CONFIG": "/in/use.cfg", "A": "b"}
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", environ)
        patch.setattr(subprocess, "run", lambda *_, **__: ran.append(dict(os.environ)))
        exec(compile(conftest, "conftest.py", "exec"), {})  # noqa: S102 - the code that users are to copy

    assert [set(one) for one in ran] == [
        {"A", "AIRFLOW_HOME", "AIRFLOW__CORE__LOAD_EXAMPLES", "AIRFLOW__CORE__DAGS_FOLDER"}
    ]


@pytest.mark.parametrize("names", [[], ["a.joblib", "b.pkl"], ["model.txt"]])
def test_files_that_joblib_cannot_choose_from(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")

    with pytest.raises(ValueError, match=r"expected one file .*\nOverride the fixture hopsworks_engine"):
        load_with_joblib(ModelFiles("churn", "churn", 1, tmp_path, "PYTHON", "PYTHON"))


@pytest.fixture
def production(tmp_path: Path) -> str:
    """The arguments of a secrets backend that has another hsml_default."""
    fields = {"conn_type": "hsml", "host": "production.example.com", "password": "a.key", "extra": {"project": "p"}}
    (tmp_path / "connections.json").write_text(json.dumps({"hsml_default": fields}))
    return json.dumps({"connections_file_path": str(tmp_path / "connections.json")})


@pytest.mark.airflow
@LOADS_AIRFLOW_2
@pytest.mark.parametrize("section", ["SECRETS__", "WORKERS__SECRETS_"])
def test_the_fixture_removes_a_secrets_backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, production: str, section: str
) -> None:
    monkeypatch.setenv(f"AIRFLOW__{section}BACKEND", BACKEND)
    monkeypatch.setenv(f"AIRFLOW__{section}BACKEND_KWARGS", production)

    serving = request.getfixturevalue("hopsworks_serving")

    assert HsmlHook().access.url == serving.url


@pytest.mark.airflow
@LOADS_AIRFLOW_2
def test_the_fixture_fails_before_another_cluster_is_asked(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, production: str
) -> None:
    """Where a backend stays: airflow.cfg names it, or Airflow has loaded it."""
    backend = LocalFilesystemBackend(**json.loads(production))
    monkeypatch.setattr(HsmlHook, "get_connection", backend.get_connection)

    with pytest.raises(pytest.fail.Exception, match=r"leads to https://production\.example\.com:443, and not to"):
        request.getfixturevalue("hopsworks_serving")
