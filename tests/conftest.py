"""
An Airflow of the tests' own, before anything imports it; and a local Model Serving that runs functions as models.

A model file holds JSON: ``{"answer": 7}`` answers 7 for each row, ``{"broken": "why"}`` does not come up; what
``says`` holds is in its answers as well.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

_HOME = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
}
# What is made once for all tests lies here: the workers of xdist get the name from the process that starts them.
os.environ.setdefault("HSML_TEST_SHARED", _HOME)
for _name in ("REST_ENDPOINT", "HOPSWORKS_HOST", "SECRETS_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(_name, None)

import pytest  # noqa: E402 - Airflow reads its environment when it is first imported

from airflow_provider_hsml.testing import SHORT_WAITS  # noqa: E402

HOPSWORKS = os.environ.get("HSML_TEST_HOPSWORKS", "5.2")
"""Whose ways the local Model Serving has in these tests; ``make check-all`` runs them with each."""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing, ModelFiles


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what this Hopsworks has not got."""
    for marker in item.iter_markers("since_hopsworks"):
        if tuple(map(int, HOPSWORKS.split("."))) < tuple(map(int, marker.args[0].split("."))):
            pytest.skip(f"Hopsworks {HOPSWORKS} has not got it")


def run_model(model: ModelFiles) -> Callable[[Any], Any]:
    """Make a model of a file: what the local Model Serving calls to load one."""
    if model.path is None:
        return lambda rows: rows
    (file,) = model.path.rglob("*.joblib")
    content = json.loads(file.read_text())
    if "broken" in content:
        raise RuntimeError(content["broken"])
    answer = content["answer"]
    return lambda rows: {"predictions": [answer] * len(rows), **content.get("says", {})}


@pytest.fixture(scope="session")
def local_serving() -> Iterator[LocalServing]:
    """A local Model Serving with the ways of a real one, for the session."""
    from airflow_provider_hsml.local import AccessOptions, LocalServing

    keys = {
        "only.the-serving-scope": {"PROJECT", "SERVING"},
        "no.scope-of-files": {"PROJECT", "SERVING", "MODELREGISTRY"},
        "only.the-jobs-scope": {"PROJECT", "JOB"},
    }
    keys["viewless.key9"] = keys["no.scope-of-files"] | {"DATASET_VIEW", "DATASET_CREATE", "DATASET_DELETE"}
    access = AccessOptions(keys, foreign_projects=["foreign"])
    with LocalServing(engine=run_model, access=access, hopsworks_version=HOPSWORKS) as serving:
        yield serving


@pytest.fixture
def serving(local_serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> LocalServing:
    """The local Model Serving as the default connection, and a provider that waits for less long."""
    monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", local_serving.connection)
    for name, seconds in SHORT_WAITS.items():
        monkeypatch.setattr(name, seconds)
    local_serving.requests.clear()
    return local_serving


@pytest.fixture
def hook(serving: LocalServing) -> HsmlHook:
    """The hook on the local Model Serving."""
    from airflow_provider_hsml.hooks import HsmlHook

    return HsmlHook()


@pytest.fixture
def model_file(tmp_path: Path) -> Callable[..., Path]:
    """Makes model files."""

    def make(**content: Any) -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        (folder / "model.joblib").write_text(json.dumps(content))
        return folder

    return make


@pytest.fixture
def register(hook: HsmlHook, model_file: Callable[..., Path]) -> Callable[..., int]:
    """Registers models by what they answer, and gives their version."""

    def make(name: str, answer: Any, *, recorded: bool = True, **metrics: float) -> int:
        rows = [[0.0], [1.0]]
        model = hook.register_model(
            model_name=name,
            model_path=model_file(answer=answer),
            framework="SKLEARN",
            metrics=metrics,
            input_example=rows,
            expected={"instances": rows, "predictions": [answer] * 2} if recorded else None,
        )
        return model.version

    return make
