"""The connection's form and its Test button, in a real Airflow: what is stored of it, and that a task can use it."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.provider_info import CONNECTION_FIELDS, UI_FIELD_BEHAVIOUR

from . import commands
from .test_example_dags import AIRFLOW

if TYPE_CHECKING:
    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.airflow

DAG = """
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_hsml import DeploymentStatusSensor

with DAG("uses_it", schedule=None):
    DeploymentStatusSensor(task_id="look", deployment_name="formed", timeout=60)
"""


def uses_it(serving: LocalServing, home: Path, environment: dict[str, str]) -> commands.Ran:
    """Run a task that uses the connection which is in Airflow's database."""
    (home / "dags").mkdir()
    (home / "dags" / "uses_it.py").write_text(DAG)
    serving.world.register_model("formed", {"model.joblib": b'{"answer": 1}'})
    from airflow_provider_hsml import HsmlHook

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        HsmlHook().save_deployment(deployment_name="formed", model_name="formed")
    serving.requests.clear()
    (ran,) = commands.run(
        [("dags", "test", "uses_it")], environment | {"AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags")}
    )
    return ran


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return commands.environment(
        tmp_path_factory.mktemp("airflow"),
        AIRFLOW__CORE__TEST_CONNECTION="Enabled",
        AIRFLOW__WEBSERVER__SESSION_BACKEND="securecookie",
    )


@pytest.fixture(scope="module")
def came(local_serving: LocalServing, environment: dict[str, str]) -> dict[str, Any]:
    """What came of a form that is filled in, edited twice, and filled in wrongly; and of the Test button."""
    fields = json.loads(local_serving.connection)
    other = dict.fromkeys(("login", "schema", "extra", "description"), "")
    own = {f"extra__hsml__{name}": "" for name in CONNECTION_FIELDS}
    form = {"conn_id": "hsml_default", "conn_type": "hsml", "host": fields["host"], "port": str(fields["port"])}
    empty = form | other | own | {"extra__hsml__project": " demo "}
    forms = [
        empty | {"password": fields["password"], "extra__hsml__verify": "false", "extra__hsml__write_timeout": "9"},
        # As a browser sends what it was shown; it is shown no password.
        empty | {"password": "", "extra__hsml__verify": "false", "extra__hsml__inference_route": "hopsworks"},
        empty | {"password": "", "extra__hsml__verify": "no", "extra__hsml__request_timeout": "0"},
    ]
    tested = {"connection_id": "new", "conn_type": "hsml", "host": fields["host"], "port": fields["port"]}
    tests = [
        tested | {"password": fields["password"], "extra": json.dumps(fields["extra"])},
        tested | {"password": "wrong.key", "extra": json.dumps(fields["extra"])},
    ]
    script = Path(__file__).with_name("airflow_2_form.py")
    done = subprocess.run(
        [sys.executable, script, json.dumps({"forms": forms, "tests": tests})],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("CAME=")] or [done.stderr]
    return dict(json.loads(line.removeprefix("CAME=")))


@pytest.mark.skipif(AIRFLOW >= (3, 0), reason="the form of Airflow 2")
class TestAirflow2:
    def test_shows_every_field_with_its_label_help_and_placeholder(self, came: dict[str, Any]) -> None:
        page = html.unescape(came["page"])
        behaviours = re.search(r'"field_behaviours"[^>]*>({.*?})<', page)
        assert behaviours
        shown = json.loads(behaviours[1])["hsml"]

        for name, field in CONNECTION_FIELDS.items():
            beside = page[page.index(f'for="extra__hsml__{name}"') :].partition("</tr>")[0]
            assert field["label"] in beside
            assert f'id="extra__hsml__{name}"' in beside
            assert field["description"] in beside
            assert shown["placeholders"][f"extra__hsml__{name}"] == UI_FIELD_BEHAVIOUR["placeholders"][name]
        assert shown["hidden_fields"] == ["schema", "login"]
        assert shown["relabeling"] == {"password": "API key"}
        assert re.search(r'<input[^>]*id="password"[^>]*type="password"', page)

    def test_stores_what_was_typed_and_nothing_else(self, came: dict[str, Any]) -> None:
        first, second, third = ({**row, "extra": json.loads(row["extra"])} for row in came["rows"])

        assert came["statuses"] == [302, 302, 200]
        assert first["extra"] == {
            "project": "demo",
            "verify": "false",
            "request_timeout": None,
            "write_timeout": 9,
        }
        assert second["extra"] == {
            "project": "demo",
            "verify": "false",
            "inference_route": "hopsworks",
            "request_timeout": None,
            "write_timeout": None,
        }
        assert second["password"] == first["password"], "a key that is not typed again stays"
        assert third == second, "a form with mistakes is not stored"
        assert "Expected true or false." in came["refused"]
        assert "Number must be at least 1." in came["refused"]

    def test_shows_what_is_stored_but_for_the_key(self, came: dict[str, Any]) -> None:
        edit = came["edit"]

        assert re.search(r'id="extra__hsml__verify"[^>]*value="false"', edit)
        assert re.search(r'id="extra__hsml__inference_route"[^>]*value="hopsworks"', edit)
        assert came["rows"][0]["password"] not in edit

    def test_the_button(self, came: dict[str, Any]) -> None:
        works, fails = came["tests"]

        assert works["status"]
        assert "project 'demo'" in works["message"]
        assert not fails["status"]
        assert "Check the API key" in fails["message"]

    def test_a_task_uses_it(
        self, came: dict[str, Any], local_serving: LocalServing, environment: dict[str, str], tmp_path: Path
    ) -> None:
        ran = uses_it(local_serving, tmp_path, environment)

        assert ran.code == "0", ran.output
        assert len(local_serving.requests)
