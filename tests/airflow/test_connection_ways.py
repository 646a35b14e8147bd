"""Each way to give a connection that docs/connection.md shows, as it stands there; and what does without one."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import conf

from airflow_provider_hsml.local import LocalServing
from tests.conftest import HOPSWORKS, run_model
from tests.support import commands, pace

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.airflow

PAGE = (Path(__file__).parents[2] / "docs" / "connection.md").read_text()
SHOWN = re.findall(r"<!-- tried: (\w+) -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
ENVIRONMENTS = [text for kind, text in SHOWN if kind == "environment"]
COMMANDS = [text for kind, text in SHOWN if kind == "command"]
TRY = "from airflow_provider_hsml import HsmlHook; print(HsmlHook().test_connection())"


@pytest.fixture(scope="module")
def secure() -> Iterator[LocalServing]:
    """A local Model Serving behind TLS, as a cluster is."""
    with LocalServing(engine=run_model, tls=True, hopsworks_version=HOPSWORKS) as serving:
        yield serving


def ours(text: str, serving: LocalServing, folder: Path) -> str:
    """Put another host, key and folder in the place of those in the page."""
    port = serving.url.rpartition(":")[2]
    for shown, own in (
        ("c.app.hopsworks.ai:443", f"127.0.0.1:{port}"),
        ('"c.app.hopsworks.ai", "port": 443', f'"127.0.0.1", "port": {port}'),
        ("YOUR_API_KEY", serving.api_key),
        ("/opt/airflow", str(folder)),
    ):
        text = text.replace(shown, own)
    assert "hopsworks.ai" not in text
    return text


def test_airflow_warns_about_no_value_of_the_local_server(secure: LocalServing) -> None:
    """A task that reads a connection has Airflow mask all its texts, and warns about one that is too short for that."""
    least = conf.getint("logging", "min_length_masked_secret", fallback=5)
    fields = json.loads(secure.connection)
    texts = [value for value in (fields["password"], *fields["extra"].values()) if isinstance(value, str)]

    assert len(texts) == 3
    assert min(map(len, texts)) >= least


def test_there_are_all_ways() -> None:
    assert (len(ENVIRONMENTS), len(COMMANDS)) == (3, 2)


@pytest.mark.parametrize("text", ENVIRONMENTS, ids=["uri", "json", "secrets backend"])
def test_by_the_environment(text: str, secure: LocalServing, tmp_path: Path) -> None:
    script = f"{ours(text, secure, tmp_path)}\nexec {shlex.join([sys.executable, '-c', TRY])}"
    environment = commands.environment(tmp_path, REQUESTS_CA_BUNDLE=str(secure.ca_bundle))

    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, env=environment, check=False)

    assert f"(True, \"Reached Hopsworks {HOPSWORKS}.0 at {secure.url}, project 'example'" in done.stdout, done.stderr


def test_by_commands(secure: LocalServing, tmp_path: Path) -> None:
    adds = [shlex.split(ours(text, secure, tmp_path))[1:] for text in COMMANDS]
    environment = commands.environment(
        tmp_path, REQUESTS_CA_BUNDLE=str(secure.ca_bundle), AIRFLOW__CORE__TEST_CONNECTION="Enabled"
    )
    test, delete = ("connections", "test", "hsml_default"), ("connections", "delete", "hsml_default")

    commands.migrate(tmp_path)
    ran = commands.run([adds[0], test, delete, test, adds[1], test], environment)

    assert "Connection success" in ran[1].output
    assert "Connection success" not in ran[3].output, "it was deleted"
    assert "Connection success" in ran[5].output


DAGS = """
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_hsml import PredictOperator, StartDeploymentOperator

with DAG("inside", schedule=None):
    for name, given in (
        ("environment", {}),
        ("connection", {"hsml_conn_id": "hopsworks_default", "project": "example"}),
    ):
        given["deployment_name"] = "inside"
        (
            StartDeploymentOperator(task_id=f"start_{name}", deferrable=True, **given)
            >> PredictOperator(task_id=f"predict_{name}", instances=[[1]], **given)
        )
"""


@pytest.mark.whole_airflow
def test_inside_hopsworks(secure: LocalServing, tmp_path: Path) -> None:
    """Its environment is enough, in tasks and in triggers; and who names a connection of Hopsworks' own gets that."""
    for folder in ("dags", "secrets"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dags" / "inside.py").write_text(DAGS)
    (tmp_path / "secrets" / "api.key").write_text(secure.api_key)
    (tmp_path / "secrets" / "token.jwt").write_text("a.token.beside-it")
    with LocalServing(engine=run_model, hopsworks_version=HOPSWORKS) as other:
        for serving in (secure, other):
            make_deployment(serving)
        connection = json.loads(other.connection) | {"conn_type": "hopsworks", "extra": {}}
        environment = commands.environment(
            tmp_path,
            AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path / "dags"),
            AIRFLOW_CONN_HOPSWORKS_DEFAULT=json.dumps(connection),
            REST_ENDPOINT=secure.url,
            HOPSWORKS_PROJECT_ID=str(secure.project_id),
            HOPSWORKS_PROJECT_NAME="example",
            SECRETS_DIR=str(tmp_path / "secrets"),
            DOMAIN_CA_TRUSTSTORE_PEM=str(secure.ca_bundle),
        )

        commands.migrate(tmp_path)
        pace.hurry(tmp_path)
        (ran,) = commands.run([("dags", "test", "inside")], environment)

        assert ran.code == "0", ran.output
        for serving in (secure, other):
            posted = [asked.path.rpartition("/")[2] for asked in serving.requests if asked.method == "POST"]
            assert posted == [str(made_id(serving)), "inside:predict"]


def make_deployment(serving: LocalServing) -> None:
    """Have one that does not run."""
    from airflow_provider_hsml import HsmlHook

    serving.world.register_model("inside", {"model.joblib": b'{"answer": 7}'})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        hook = HsmlHook()
        hook.save_deployment(deployment_name="inside", model_name="inside")
        hook.stop_deployment("inside")
        hook.client.close()
    serving.requests.clear()


def made_id(serving: LocalServing) -> int:
    (shown,) = serving.world.project(serving.project_id).deployments.all_shown()
    return int(shown["id"])
