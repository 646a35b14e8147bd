"""The API key, and secrets in variables of deployments, searched for wherever Airflow keeps or shows anything."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import airflow
import pytest
import requests
import yaml  # type: ignore[import-untyped]

from tests.support.real_airflow import Airflow
from tests.support.secrecy import Processes, Search
from tests.system.test_example_dags import AIRFLOW, FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.fernet import Fernet

MARK = f"mark{secrets.token_hex(6)}"
"""What is no secret, and has to be found: as the project, a folder, a run, a parameter."""
SECRET = 'pass"/+&word é'
ENCODED = {
    "plain": SECRET.encode(),
    "JSON": json.dumps({"a": SECRET}).encode(),
    "JSON in JSON": json.dumps(json.dumps({"a": SECRET})).encode(),
    "URL": quote(SECRET).encode(),
    "hex": SECRET.encode().hex().encode(),
    **{f"base64, {n} before": base64.b64encode(b"x" * n + SECRET.encode() + b"behind") for n in range(4)},
}


@pytest.mark.parametrize("content", ENCODED.values(), ids=ENCODED)
def test_the_search_finds_what_is_there(content: bytes) -> None:
    search = Search()
    search.add("here", b"before " + content + b" after")
    search.add("there", "nothing")

    assert search.places_of(SECRET) == {"here"}


def test_the_search_reads_what_a_database_holds(tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    fernet = Fernet(Fernet.generate_key())
    encrypted = fernet.encrypt(SECRET.encode()).decode()
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        for table, cell in (
            *(("packed", zlib.compress(SECRET.encode())), ("trigger", encrypted), ("plain", SECRET)),
            *(("connection", encrypted), ("variable", encrypted), ("other", "nothing")),
        ):
            connection.execute(f"CREATE TABLE {table} (cell)")
            connection.execute(f"INSERT INTO {table} VALUES (?)", (cell,))  # noqa: S608 - names of ours
        connection.commit()
    search = Search()

    search.add_database("now", tmp_path / "a.db", fernet)

    assert search.places_of(SECRET) == {
        f"now: {place}" for place in ("table packed", "table trigger", "table plain", "file a.db")
    }


DAGS = """
import subprocess
import sys
import tempfile

from airflow.sdk import DAG, AssetAlias, Param, task
from airflow_provider_hsml import DeployModelOperator, ModelVersionSensor, RunHopsworksJobOperator

VARIABLES = {
    "HUB": "{{ conn.hub.password }}",
    "LOOSE": "{{ conn.hub.extra_dejson.loose }}",
    "PLAIN": "{{ var.value.plain }}",
    "MARK": "{{ params.mark }}",
}
SPEC = {"env_vars": VARIABLES}
TEXT = '{"env_vars": {"PLAIN": {{ var.value.plain | tojson }}, "HUB": {{ conn.hub.password | tojson }}}}'
OWN = {"model_name": "own", "model_version": 1}

with DAG("secrets", schedule=None, params={"mark": Param("", type="string")}):
    DeployModelOperator(task_id="waits", deployment_name="waits", spec=SPEC, deferrable=True, timeout=3600, **OWN)
    DeployModelOperator.partial(task_id="mapped", spec=SPEC, plan_only=True, **OWN).expand(
        deployment_name=["one", "two"]
    )
    DeployModelOperator(task_id="text", deployment_name="text", spec=TEXT, plan_only=True, **OWN)
    DeployModelOperator(task_id="misread", deployment_name="misread", spec="{{ var.value.plain }}", **OWN)
    DeployModelOperator(task_id="refused", hsml_conn_id="refused", spec=SPEC, **OWN)
    DeployModelOperator(task_id="fails", deployment_name="fails", spec={"script_file": SCRIPT, **SPEC}, **OWN)
    DeployModelOperator(task_id="emits", deployment_name="emits", spec=SPEC, outlets=[AssetAlias("emitted")], **OWN)
    RunHopsworksJobOperator(task_id="job", job_name="missing", args="{{ params.mark }}", env_vars=VARIABLES)
    ModelVersionSensor(
        task_id="approved", model_name="own", tag={"approval": "{{ params.mark }}"}, deferrable=True, timeout=3600
    )

    @task
    def tell(params=None):
        print("The mark is", params["mark"])
        with tempfile.NamedTemporaryFile("w") as file:
            print(params["mark"], file=file, flush=True)
            marked = {"MARK": f"of a child: {params['mark']}"}
            subprocess.run([sys.executable, "-c", "import time; time.sleep(3)"], env=marked)
        return params["mark"]

    tell()
"""
BROKEN = """
from airflow.sdk import DAG
from airflow_provider_hsml import DeployModelOperator
DeployModelOperator(task_id="broken", model_name="digits", timeout="MARK")
"""
SCRIPT = """
import os

class Predict:
    def __init__(self):
        for name, value in os.environ.items():
            print(f"{name}={value}")
        raise RuntimeError(f"cannot reach {os.environ['HUB']} at {os.environ['MARK']}")
"""


WHEN = ("deferred", "ended")
OF_MODELS = "environments of the server's children"
LOGS = f"file logs/dag_id=secrets/run_id={MARK}"
_RUNS = "GET /api/v2/dags/{dag_id}/dagRuns/{dag_run_id}"
MARKED = {
    *("arguments of all processes", "environments of Airflow's processes", OF_MODELS),
    *("temporary files", "deferred: table trigger", "ended: table told", "ended: file lineage"),
    *(f"ended: {LOGS}/task_id={task}/attempt=1.log" for task in ("fails", "misread", "refused", "tell", "waits")),
    *(
        f"{when}: {place}"
        for when in WHEN
        for place in (
            *("file airflow.db", "file standalone.log", "log of the local server"),
            *(
                "table asset",
                "table asset_event",
                "table dag_code",
                "table dag_run",
                "table import_error",
                "table log",
                "table xcom",
            ),
            *("table rendered_task_instance_fields", "table serialized_dag", "table task_instance"),
            *("GET /api/v2/assets/events", "GET /api/v2/connections", "GET /api/v2/dagSources/{dag_id}"),
            *("GET /ui/dags", "GET /ui/grid/runs/{dag_id}", "GET /ui/dependencies"),
            *("GET /api/v2/dags", "GET /api/v2/eventLogs", "GET /api/v2/importErrors", f"{_RUNS}/taskInstances"),
            f"{_RUNS}/taskInstances/{{task_id}}/logs/{{try_number}}",
            f"{_RUNS}/taskInstances/{{task_id}}/xcomEntries/{{xcom_key}}",
        )
    ),
}
"""Where the mark is to be: what is searched there is what it is meant to be."""


@dataclass
class Scene:
    """An Airflow, a local Model Serving in a process of its own, and what must not be found."""

    airflow: Airflow
    process: int
    """Of the local Model Serving."""
    server: dict[str, Any]
    key: str
    log: Path
    fernet: Fernet

    def control(self, method: str, path: str, body: Any = None) -> None:
        """Tell the server what goes wrong, and how fast."""
        headers = {"Authorization": f"ApiKey {self.key}"}
        url = f"{self.server['url']}/_local/{path}"
        assert requests.request(method, url, json=body, headers=headers, timeout=30).ok

    def states(self, dag: str) -> dict[str, str]:
        """Give the states of a DAG's tasks; of mapped ones one."""
        rows = self.airflow.rows(f"SELECT task_id, state FROM task_instance WHERE dag_id = '{dag}'")  # noqa: S608
        return dict(rows)

    def ended(self, dag: str) -> bool:
        """Tell whether the DAG has run."""
        rows = self.airflow.rows(f"SELECT state FROM dag_run WHERE dag_id = '{dag}'")  # noqa: S608
        return bool(rows) and all(state in {"success", "failed"} for (state,) in rows)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """What is to be searched; nothing is started of Airflow."""
    pytest.importorskip("sklearn", reason="the examples train with scikit-learn")
    from cryptography.fernet import Fernet

    home = tmp_path / MARK
    dags = home / "dags"
    dags.mkdir(parents=True)
    (home / "tmp").mkdir()
    (home / "predict.py").write_text(SCRIPT)
    (dags / "own.py").write_text(f"SCRIPT = {str(home / 'predict.py')!r}\n{DAGS}")
    (dags / "broken.py").write_text(BROKEN.replace("MARK", MARK))
    for path in FOLDER.glob("*.py"):
        (dags / path.name).write_text(path.read_text().replace("hopsworks://example/", f"hopsworks://{MARK}/"))
    log, fernet_key = tmp_path / "hsml-local.log", Fernet.generate_key().decode()
    command = [sys.executable, "-m", "airflow_provider_hsml.local.cli", "serve", "--no-tls", "--control", "--port", "0"]
    with log.open("w") as written:
        server = subprocess.Popen(
            [*command, "--root", str(tmp_path / "root"), "--project", MARK], stdout=written, stderr=subprocess.STDOUT
        )
    try:
        airflow = Airflow.beside(
            cast("Any", SimpleNamespace(connection="")),
            home,
            dags,
            AIRFLOW__CORE__FERNET_KEY=fernet_key,
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
            AIRFLOW__CORE__PARALLELISM="3",
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="True",
            AIRFLOW__API__EXPOSE_CONFIG="True",
            AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT="60",
            AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps(
                {"type": "file", "log_file_path": str(home / "lineage"), "append": True}
            ),
            TMPDIR=str(home / "tmp"),
        )
        del airflow.environment["AIRFLOW_CONN_HSML_DEFAULT"]
        airflow.until(lambda: "export" in log.read_text())
        ready = json.loads(log.read_text().splitlines()[0])
        yield Scene(
            airflow, server.pid, ready, Path(ready["api_key_file"]).read_text().strip(), log, Fernet(fernet_key)
        )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


@pytest.mark.slow
@pytest.mark.kserve
@pytest.mark.skipif(AIRFLOW < (3, 3), reason="its database and its API are searched as this Airflow has them")
def test_secrets_are_nowhere_but_in_connections_and_variables(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All examples, deferred and failing tasks in ``airflow standalone``, beside a real model server."""
    airflow, search = scene.airflow, Search()
    strange = {name: f"{secrets.token_hex(8)}{SECRET}{secrets.token_hex(8)}" for name in ("hub", "loose", "plain")}
    refused = f"{secrets.token_hex(8)}.{secrets.token_hex(32)}"
    hidden = strange | {
        "the key": scene.key,
        "its secret part": scene.key.partition(".")[2],
        "a key that is refused": refused,
        "its part": refused.partition(".")[2],
    }
    watched = Processes(str(airflow.home), scene.process, airflow.home / "tmp")
    with watched as processes, airflow.started("standalone"):
        airflow.until(airflow.answers, 600)
        keep_events(airflow)
        tell = airflow.api()
        where, _, port = scene.server["url"].rpartition(":")
        hsml = {"conn_type": "hsml", "host": where, "port": int(port), "extra": json.dumps({"project": MARK})}
        for name, fields in {
            "hsml_default": {**hsml, "password": scene.key},
            "refused": {**hsml, "password": refused},
            "hub": {
                "conn_type": "generic",
                "password": strange["hub"],
                "extra": json.dumps({"loose": strange["loose"]}, ensure_ascii=False),
            },
        }.items():
            tell("POST", "connections", {"connection_id": name, **fields})
        tell("POST", "variables", {"key": "plain", "value": strange["plain"]})
        scene.control("PUT", "speeds", {"every": 0.2})
        register(tmp_path, monkeypatch, {**hsml, "password": scene.key, "extra": {"project": MARK}})
        scene.control("POST", "faults", {"kind": "hold", "deployment": "waits", "status": "Running"})
        dags = len(list((airflow.home / "dags").glob("*.py"))) - 1  # One cannot be read.
        airflow.until(lambda: len(airflow.rows("SELECT * FROM dag")) == dags, 600)
        tell("PATCH", "dags?dag_id_pattern=%25", {"is_paused": False})
        tell("POST", "dags/secrets/dagRuns", {"dag_run_id": MARK, "logical_date": None, "conf": {"mark": MARK}})
        airflow.until(lambda: scene.ended("retrain_and_deploy"), 900)
        tell("POST", "dags/start_predict_stop/dagRuns", {"dag_run_id": MARK, "logical_date": None})
        airflow.until(lambda: scene.ended("start_predict_stop"), 600)
        deferred = {
            "waits": "deferred",
            "approved": "deferred",
            "fails": "failed",
            "job": "failed",
            "mapped": "success",
            "emits": "success",
        }
        airflow.until(lambda: scene.states("secrets").items() >= deferred.items(), 600)
        gather(search, "deferred", scene, "%")
        scene.control("DELETE", "faults")
        tell("PATCH", f"dags/secrets/dagRuns/{MARK}/taskInstances/approved", {"new_state": "failed"})
        airflow.until(lambda: scene.ended("secrets"), 600)
        gather(search, "ended", scene, "secrets")
    for arguments in processes.arguments:
        search.add("arguments of all processes", arguments)
    for environment in processes.environments:
        search.add("environments of Airflow's processes", environment)
    for environment in processes.of_server:
        search.add(OF_MODELS, environment)
    for content in processes.files:
        search.add("temporary files", content)

    marked = search.places_of(MARK)
    shown_by_airflow = {f"{when}: GET /api/v2/connections{one}" for when in WHEN for one in ("", "/{connection_id}")}
    assert search.places_of(strange["loose"]) >= shown_by_airflow, "in extra, with a name that tells Airflow nothing"
    may_be = {name: {OF_MODELS} for name in strange}  # There they are variables of the model's process.
    may_be["loose"] |= shown_by_airflow
    found = {
        name: places
        for name, secret in hidden.items()
        if (places := search.places_of(secret) - may_be.get(name, set()))
    }
    excerpts = [search.excerpt(place, hidden[name]) for name, places in found.items() for place in places]
    with capsys.disabled():
        print("\nSECRECY: {} places searched, {} bytes, {} found".format(*search.size, len(excerpts)))
        print(f"The mark, which is no secret, was found in {len(marked)} of them.")
    assert found == {}, excerpts
    assert sorted(MARKED - marked) == []
    for place in ("/task_id=waits/attempt=1.log.trigger.", "file logs/dag_processor/"):
        assert any(place in one for one in marked), place
    assert search.places_of(f"of a child: {MARK}") >= {"environments of Airflow's processes"}
    assert airflow.rows("SELECT * FROM told WHERE cell LIKE '%verified_by%'"), "the events of triggers"
    masked = search.places_of(f"cannot reach *** at {MARK}")
    assert masked >= {"ended: table xcom", f"ended: {LOGS}/task_id=fails/attempt=1.log"}, "there a value would be"
    ((password,),) = airflow.rows("SELECT password FROM connection WHERE conn_id = 'hsml_default'")
    assert scene.fernet.decrypt(password).decode() == scene.key


def keep_events(airflow: Airflow) -> None:
    """Keep what Airflow stores for tasks that are resumed, their triggers' events too: it forgets that at once."""
    with contextlib.closing(sqlite3.connect(airflow.home / "airflow.db", timeout=30)) as connection:
        connection.execute("CREATE TABLE told (cell)")
        connection.execute(
            "CREATE TRIGGER tells AFTER UPDATE OF next_kwargs ON task_instance WHEN NEW.next_kwargs IS NOT NULL "
            "BEGIN INSERT INTO told VALUES (NEW.next_kwargs); END"
        )
        connection.commit()


def register(folder: Path, monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any]) -> None:
    """Register a model; the connection is in the environment of this process alone, where Airflow does not see it."""
    import joblib
    from sklearn.tree import DecisionTreeClassifier

    from airflow_provider_hsml import HsmlHook

    (folder / "own").mkdir()
    rows = [[0.0], [1.0]]
    joblib.dump(DecisionTreeClassifier(random_state=0).fit(rows, [1, 2]), folder / "own" / "model.joblib")
    monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(connection))
    HsmlHook().register_model(model_name="own", model_path=folder / "own", framework="SKLEARN", input_example=rows)


def gather(search: Search, when: str, scene: Scene, dags: str) -> None:
    """Add what there is now."""
    airflow = scene.airflow
    search.add_database(when, airflow.home / "airflow.db", scene.fernet)
    search.add_files(when, airflow.home)
    search.add(f"{when}: log of the local server", scene.log.read_text())
    for path, answer in answers(airflow, dags):
        search.add(f"{when}: GET {path}", answer)


KNOWN = {
    ("connection_id",): "SELECT conn_id FROM connection",
    ("asset_id",): "SELECT id FROM asset",
    ("import_error_id",): "SELECT id FROM import_error",
    ("dag_id",): "SELECT dag_id FROM dag",
    ("dag_id", "dag_run_id", "run_id", "run_ids"): "SELECT dag_id, run_id, run_id, run_id FROM dag_run",
    (
        "dag_id",
        "dag_run_id",
        "task_id",
        "map_index",
        "try_number",
    ): "SELECT dag_id, run_id, task_id, map_index, try_number FROM task_instance",
    (
        "dag_id",
        "dag_run_id",
        "task_id",
        "map_index",
        "xcom_key",
    ): "SELECT dag_id, run_id, task_id, map_index, key FROM xcom",
}
"""What stands in the API's paths, and how the database calls it."""


UI = Path(airflow.__path__[0]) / "api_fastapi/core_api/openapi/_private_ui.yaml"
"""The routes of Airflow's pages, which its API does not describe."""
LEFT_OUT = ("/variables", "/wait", "/logout", "/ui/calendar/")
"""To log out ends the session of what is asked next. The calendar has numbers only, and may end Airflow's server."""
LONG_AGO = "2020-01-01T00:00:00Z"


def answers(airflow: Airflow, dags: str) -> Iterator[tuple[str, bytes]]:
    """Ask the API for all that it has of GET; not for variables themselves, nor to wait until a run has ended."""
    base = f"http://127.0.0.1:{airflow.port}"
    known: list[dict[str, str]] = [{}]
    for names, query in KNOWN.items():
        known += [dict(zip(names, map(str, row), strict=True)) for row in airflow.rows(query)]
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer " + session.get(f"{base}/auth/token").json()["access_token"]
        described: list[Any] = [session.get(f"{base}/openapi.json").json(), yaml.safe_load(UI.read_text())]
        for path, verbs in (item for one in described for item in one["paths"].items()):
            if "get" in verbs and not any(part in path for part in LEFT_OUT):
                given = verbs["get"].get("parameters", [])
                asked = {one["name"] for one in given if one.get("required") or one["name"] == "run_ids"}
                in_path = set(re.findall(r"{(\w+)}", path))
                filled = {
                    (
                        path.format(**{name: quote(value, safe="") for name, value in names.items()}),
                        tuple((name, names[name]) for name in sorted(asked - in_path) if name in names),
                    )
                    for names in known
                    if in_path <= set(names)
                }
                for place, more in sorted(filled):
                    params: dict[str, Any] = {"limit": 1000, "start_date": LONG_AGO, **dict(more)}
                    yield path, session.get(f"{base}{place}", timeout=60, params=params).content
