"""
Test your DAGs with pytest, without a cluster: a fixture with a local Model Serving that runs your models.

Name this module in your ``conftest.py``; it needs pytest and the extra ``local``::

    pytest_plugins = ["airflow_provider_hsml.testing"]

``docs/guides/testing.md`` shows a project with such tests.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.local import LocalServing, ModelFiles

_PACKAGE = "airflow_provider_hsml.hopsworks"
SHORT_WAITS = {
    f"{_PACKAGE}.inference.predict.BETWEEN_PROBES": 0.01,
    f"{_PACKAGE}.jobs.logs.PATIENCE": 1.0,
    f"{_PACKAGE}.jobs.search.AGAIN": 0.1,
    f"{_PACKAGE}.jobs.search.GRACE": 1.0,
    f"{_PACKAGE}.rollout.inputs.FIRST_DELAY_START": 0.05,
    f"{_PACKAGE}.rollout.inputs.FIRST_DELAY_UPDATE": 0.05,
    f"{_PACKAGE}.domain.rollout_tracker.SETTLE_SEEN": 0.2,
    f"{_PACKAGE}.domain.rollout_tracker.SETTLE_UNSEEN": 1.0,
    f"{_PACKAGE}.domain.rollout_tracker.NAMES_AGAIN": 0.1,
    f"{_PACKAGE}.domain.rollout_tracker.FAILED_STAYS": 2.0,
}
"""
Seconds that are long enough for a local Model Serving whose models run in this process. A cluster takes minutes where
this server takes a fraction of a second, so production waits longer.
"""
_SECRETS_BACKEND = ("AIRFLOW__SECRETS__", "AIRFLOW__WORKERS__SECRETS_BACKEND")


@contextmanager
def short_waits() -> Iterator[None]:
    """
    Shorten the pauses and settle times of this process to ``SHORT_WAITS`` for as long as the ``with`` block lasts.

    Use it for tests only: on a cluster, a rollout would be judged before it has settled. ``hopsworks_serving`` has it.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in SHORT_WAITS.items():
            patch.setattr(name, seconds)
        yield


def load_with_joblib(model: ModelFiles) -> Callable[[Any], list[Any]]:
    """
    Load a model as KServe's scikit-learn server does, in this process: its one file is ``*.joblib`` or a pickle.

    :param model: the model version that an instance of a deployment is to serve
    :return: a function from the rows of a request to the predictions
    :raises ValueError: there is no such file, or more than one, or a script that would run in its place
    """
    import joblib  # noqa: PLC0415, TID251 - for the model of a test, unless the project has a loader of its own

    suffixes = (".joblib", ".pkl", ".pickle")
    files = [] if model.path is None else [path for path in model.path.iterdir() if path.suffix in suffixes]
    if model.script is not None or len(files) != 1:
        message = (
            f"Deployment {model.deployment!r}: expected one file {', '.join(suffixes)} and no script, got "
            f"{len(files)} and {model.script}.\nOverride the fixture hopsworks_engine with a loader for this model."
        )
        raise ValueError(message)
    loaded = joblib.load(files[0])

    def predict(rows: Any) -> list[Any]:
        predictions = loaded.predict(rows)
        return list(predictions.tolist() if hasattr(predictions, "tolist") else predictions)

    return predict


@pytest.fixture
def hopsworks_engine() -> Callable[[ModelFiles], Callable[[Any], list[Any]]]:
    """
    Return the loader of models, ``load_with_joblib``. Override this fixture for other models, or to script answers.

    A loader takes a ``ModelFiles`` and returns a function from the rows to a list of predictions. If it raises an
    exception, the instance does not come up and the deployment is Failed.
    """
    return load_with_joblib


@pytest.fixture
def hopsworks_serving(
    hopsworks_engine: Callable[[ModelFiles], Callable[[Any], list[Any]]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalServing]:
    """
    Run an empty local Model Serving, which is the connection ``hsml_default`` meanwhile, with short waits.

    Each test gets a server of its own, in about a tenth of a second. Its ``requests`` are those of the test, and its
    ``faults`` spoil them on command.

    Airflow asks a secrets backend before the environment. The fixture removes one that a variable names, and fails the
    test if ``hsml_default`` is still another connection.
    """
    from airflow_provider_hsml.hooks import HsmlHook  # noqa: PLC0415 - imports Airflow, after conftest.py has set it up
    from airflow_provider_hsml.local import LocalServing  # noqa: PLC0415 - needs the extra, and says so

    with short_waits(), LocalServing(engine=hopsworks_engine) as serving:
        for name in [name for name in os.environ if name.startswith(_SECRETS_BACKEND)]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        if (url := HsmlHook().access.url) != serving.url:
            message = (
                f"Connection 'hsml_default' leads to {url}, and not to the local Model Serving at {serving.url}: a "
                "secrets backend of this Airflow has it.\nGive the tests an Airflow home of their own in conftest.py, "
                "as docs/guides/testing.md shows."
            )
            pytest.fail(message, pytrace=False)
        yield serving
