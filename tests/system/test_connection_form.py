"""The connection's form and its Test button, in a real Airflow: what is stored of it, and that a task can use it."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import requests

from airflow_provider_hsml.provider_info import CONNECTION_FIELDS, UI_FIELD_BEHAVIOUR
from tests.conftest import run_model
from tests.support import commands
from tests.support.real_airflow import Airflow
from tests.system.test_example_dags import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.local import LocalServing

    Tell = Callable[..., Any]

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
    empty = form | other | own | {"extra__hsml__project": " example "}
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
    script = Path(__file__).parents[1] / "support" / "airflow_2_form.py"
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
            "project": "example",
            "verify": "false",
            "request_timeout": None,
            "write_timeout": 9,
            "max_response_mb": None,
        }
        assert second["extra"] == {
            "project": "example",
            "verify": "false",
            "inference_route": "hopsworks",
            "request_timeout": None,
            "write_timeout": None,
            "max_response_mb": None,
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
        assert "project 'example'" in works["message"]
        assert not fails["status"]
        assert "Check the API key" in fails["message"]

    def test_a_task_uses_it(
        self, came: dict[str, Any], local_serving: LocalServing, environment: dict[str, str], tmp_path: Path
    ) -> None:
        ran = uses_it(local_serving, tmp_path, environment)

        assert ran.code == "0", ran.output
        assert len(local_serving.requests)


@pytest.fixture(scope="module")
def airflow_3(local_serving: LocalServing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """The API server, which has the form and does what the button asks for."""
    home = tmp_path_factory.mktemp("airflow")
    airflow = Airflow.beside(
        local_serving,
        home,
        home / "dags",
        AIRFLOW__CORE__TEST_CONNECTION="Enabled",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        AIRFLOW__API_AUTH__JWT_ISSUER="airflow",  # Airflow 3.0 makes no token without.
    )
    del airflow.environment["AIRFLOW_CONN_HSML_DEFAULT"]
    commands.migrate(home)
    with airflow.started("api-server"):
        airflow.until(airflow.answers)
        yield airflow


@pytest.fixture
def tell(airflow_3: Airflow) -> Tell:
    """Ask the API server as the browser does."""
    base = f"http://127.0.0.1:{airflow_3.port}"
    token = requests.get(f"{base}/auth/token", timeout=60).json()["access_token"]

    def tell(method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        answer = requests.request(method, f"{base}/{path}", json=body, headers=headers, timeout=120)
        assert answer.ok, answer.text
        return answer.json()

    return tell


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="the form of Airflow 3")
class TestAirflow3:
    STORED: ClassVar[dict[str, Any]] = {
        "project": "example",
        "ca_bundle": None,
        "verify": True,
        "inference_route": "hopsworks",
        "ingress_url": None,
        "request_timeout": 60,
        "write_timeout": 300,
        "max_response_mb": 64,
        "allow_http": False,
    }
    """What a browser was seen to send of a form in which the project alone was filled in."""

    def test_shows_every_field_with_its_label_help_and_default(self, tell: Tell) -> None:
        (form,) = [one for one in tell("GET", "ui/connections/hook_meta") if one["connection_type"] == "hsml"]
        shown = form["standard_fields"]

        assert form["hook_name"] == "Hopsworks Model Serving"
        assert {name for name, field in shown.items() if field and field["hidden"]} == {"url_schema", "login"}
        assert shown["password"]["title"] == "API key"
        for name in ("host", "port", "password"):
            assert shown[name]["placeholder"] == UI_FIELD_BEHAVIOUR["placeholders"][name]
        assert list(form["extra_fields"]) == list(CONNECTION_FIELDS)
        for name, field in CONNECTION_FIELDS.items():
            made, schema = form["extra_fields"][name], field["schema"]
            assert (made["schema"]["title"], made["description"]) == (field["label"], field["description"])
            assert made["value"] == schema.get("default")
            assert made["schema"].get("enum") == schema.get("enum")
            assert "null" in made["schema"]["type"], "else it would have to be filled in"

    def test_a_task_uses_what_was_stored_and_edited(
        self, tell: Tell, airflow_3: Airflow, local_serving: LocalServing, tmp_path: Path
    ) -> None:
        fields = json.loads(local_serving.connection)
        body = fields | {"connection_id": "hsml_default", "extra": json.dumps(self.STORED)}
        tell("POST", "api/v2/connections", body)
        shown = tell("GET", "api/v2/connections/hsml_default")
        edited = shown | {"extra": json.dumps(self.STORED | {"request_timeout": None, "write_timeout": 9})}
        edited.pop("team_name", None)
        tell("PATCH", "api/v2/connections/hsml_default?update_mask=extra", edited)

        assert shown["password"] == "***"
        assert json.loads(shown["extra"]) == self.STORED
        assert json.loads(tell("GET", "api/v2/connections/hsml_default")["extra"])["write_timeout"] == 9
        ran = uses_it(local_serving, tmp_path, airflow_3.environment)
        assert ran.code == "0", ran.output
        assert len(local_serving.requests)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({}, r"Reached Hopsworks \S+ at http://127\.0\.0\.1:\d+, project 'example' \(id 119\)\."),
            ({"host": "nosuch.invalid"}, "Check the connection's host and port"),
            ({"password": "wrong.key"}, "Check the API key in the connection's password"),
            ({"password": None}, "This connection: no API key"),
            (
                {"password": "only.the-serving-scope"},
                r"(?s)lacks the scope MODELREGISTRY.*Create an API key with the scopes",
            ),
            ({"extra": '{"project": "nowhere"}'}, "Check the project's name in the connection"),
            ({"host": "https://h.example/p/119"}, "This connection, field 'host': expected a host name.*without path"),
            ({"host": "http://h.example"}, "Use https, or set the connection's extra 'allow_http'"),
        ],
    )
    def test_the_button(self, tell: Tell, local_serving: LocalServing, change: dict[str, Any], words: str) -> None:
        fields = json.loads(local_serving.connection)
        body = fields | {"connection_id": "new", "extra": json.dumps(self.STORED)} | change

        came = tell("POST", "api/v2/connections/test", body)

        assert came["status"] is not bool(change)
        assert re.search(words, came["message"])

    def test_the_button_where_the_certificate_is_not_trusted(self, tell: Tell) -> None:
        from airflow_provider_hsml.local import LocalServing

        with LocalServing(engine=run_model, tls=True) as secure:
            fields = json.loads(secure.connection) | {"connection_id": "new"}
            trusted = tell("POST", "api/v2/connections/test", fields | {"extra": json.dumps(fields["extra"])})
            came = tell("POST", "api/v2/connections/test", fields | {"extra": json.dumps(self.STORED)})

        assert trusted["status"]
        assert not came["status"]
        assert "into the connection's extra 'ca_bundle'" in came["message"]
