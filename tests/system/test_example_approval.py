"""The example DAGs in which a person decides, run by a real Airflow; the person answers from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hsml.testing import load_with_joblib
from tests.conftest import HOPSWORKS
from tests.support import commands, pace
from tests.system.test_example_dags import EXAMPLES, HAS_APPROVAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytest.importorskip("sklearn", reason="the examples train with scikit-learn")
pytestmark = [pytest.mark.airflow, pytest.mark.whole_airflow]

MODEL, DEPLOYMENT = "reviewed_digits", "revieweddigits"
# Answers what Airflow asks, one question after another, through its REST API, and prints what was asked. As a person
# does, it asks again when Airflow has an error for it: until the DAG exists, or while its database is locked.
PERSON = """
import json, sys, time
from fastapi.testclient import TestClient
from airflow.api_fastapi.app import create_app
with TestClient(create_app(apps="core"), base_url="http://localhost", raise_server_exceptions=False) as client:
    def ask(*request, **more):
        while not (said := client.request(*request, **more)).is_success:
            print(request, said.status_code, said.text, flush=True)
            time.sleep(0.3)
        return said
    client.headers["Authorization"] = "Bearer " + ask("GET", "/auth/token").json()["access_token"]
    dag = "/api/v2/dags/approve_in_airflow/dagRuns"
    for answer in sys.argv[1:]:
        while not (asked := ask("GET", dag + "/~/hitlDetails?response_received=false").json()["hitl_details"]):
            time.sleep(0.3)
        ti = asked[0]["task_instance"]
        path = f"{dag}/{ti['dag_run_id']}/taskInstances/{ti['task_id']}/-1/hitlDetails"
        said = ask("PATCH", path, json={"chosen_options": [answer], "params_input": {}})
        print("ASKED=" + json.dumps([asked[0]["subject"], asked[0]["body"], said.status_code]), flush=True)
"""


@dataclass
class Airflow:
    """An Airflow with a database of its own, and a local Model Serving."""

    hook: HsmlHook
    serving: LocalServing
    environment: dict[str, str]
    ran: list[commands.Ran] = field(default_factory=list)

    def run(self, *runs: tuple[str, str, int]) -> None:
        """Run DAGs: their names, dates, and images to learn from."""
        given = [("dags", "test", dag, day, "--conf", f'{{"training_images": {n}}}') for dag, day, n in runs]
        self.ran = commands.run(given, self.environment)

    def served(self) -> int | None:
        return self.hook.get_deployment(DEPLOYMENT).model_version

    def tag_when_it_is_waited_for(self, version: int) -> None:
        """Approve a version, as a person does; only once the sensor has looked in vain."""
        registry = f"/project/{self.serving.project_id}/modelregistries/{self.serving.project_id}"
        while len(self.serving.requests.where("GET", f"{registry}/models/{MODEL}_{version}/tags")) < 2:
            time.sleep(0.1)
        self.hook.set_model_tag(MODEL, version, "approval", "approved")


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import Administration, LocalServing

    dags = tmp_path / "dags"
    dags.mkdir()
    for path in EXAMPLES:
        if path.stem.startswith("approve"):
            (dags / path.name).write_text(path.read_text().replace("poke_interval=60", "poke_interval=1"))
    administration = Administration(tag_schemas={"approval": {"type": "string"}})
    with LocalServing(engine=load_with_joblib, administration=administration, hopsworks_version=HOPSWORKS) as serving:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        more = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW_CONN_HSML_DEFAULT": serving.connection,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        }
        commands.migrate(tmp_path)
        pace.hurry(tmp_path)
        yield Airflow(HsmlHook(), serving, commands.environment(tmp_path, **more))


def test_approved_by_a_tag(airflow: Airflow) -> None:
    person = threading.Thread(target=airflow.tag_when_it_is_waited_for, args=(1,))
    person.start()
    airflow.run(("approve_by_tag", "2026-11-01", 100), ("approve_by_tag", "2026-11-02", 30))
    person.join()
    first, weak = airflow.ran

    assert (first.code, weak.code) == ("0", "0")
    assert "version 1 has no tag 'approval'" in first.output
    assert "set the tag 'approval' to 'approved' at " in first.output
    assert "model_version: None -> 1" in first.output
    assert "does not beat the served version 1" in weak.output
    assert "set the tag" not in weak.output, "nobody is asked"
    assert airflow.served() == 1


@pytest.mark.skipif(not HAS_APPROVAL, reason="Airflow 3.1 and later ask people")
def test_rejected_and_approved_in_airflow(airflow: Airflow) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PERSON, "Reject", "Approve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=airflow.environment,
    ) as person:
        try:
            airflow.run(("approve_in_airflow", "2026-11-01", 400), ("approve_in_airflow", "2026-11-02", 1597))
            said, _ = person.communicate(timeout=30)
        except BaseException as error:
            person.kill()
            error.add_note(f"The person: {person.communicate()[0]}")
            raise
    asked = [json.loads(line.removeprefix("ASKED=")) for line in said.splitlines() if line.startswith("ASKED=")]
    puts = airflow.serving.requests.where("PUT", f"/project/{airflow.serving.project_id}/serving")

    assert [ran.code for ran in airflow.ran] == ["0", "0"]
    assert [(subject, status) for subject, _, status in asked] == [
        (f"Deploy version {version} of {MODEL}?", 200) for version in (1, 2)
    ]
    assert "version 1 (accuracy 0.9" in asked[0][1]
    assert "| model_version | None | 2 |" in asked[1][1], "what was rejected has changed nothing"
    assert airflow.served() == 2
    assert len(puts) == 1
    audit = airflow.hook.get_promotion_state(DEPLOYMENT).audit
    assert (audit["dag_id"], audit["task_id"], audit["approved_by"]) == ("approve_in_airflow", "deploy", "Anonymous")
