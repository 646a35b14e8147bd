"""The way of somebody new through a real Airflow, in a real Chromium: from the connection's form to what serves."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import LocalServing
from tests.support import browser
from tests.support.real_airflow import Airflow
from tests.system.test_example_dags import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.kserve,
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="it is this page that the test knows its way in"),
]

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "retrain_and_deploy.py"
A_MINUTE = 60_000


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[Airflow]:
    """``airflow standalone`` as it is for who has just installed it, with a DAG and no connection."""
    pytest.importorskip("sklearn")
    (tmp_path / "dags").mkdir()
    # Each night's run would be the first one, since nobody has waited for it: this is to be that of who tries it.
    dag = EXAMPLE.read_text().replace('schedule="@daily"', "schedule=None")
    (tmp_path / "dags" / EXAMPLE.name).write_text(dag)
    with LocalServing() as serving:
        airflow = Airflow.beside(
            serving,
            tmp_path,
            tmp_path / "dags",
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="True",
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
            AIRFLOW__CORE__TEST_CONNECTION="Enabled",
        )
        del airflow.environment["AIRFLOW_CONN_HSML_DEFAULT"]
        with airflow.started("standalone"):
            airflow.until(airflow.answers, 300)
            airflow.until(lambda: airflow.rows("SELECT dag_id FROM dag"), 120)
            yield airflow


def test_from_the_form_to_what_serves(airflow: Airflow, tmp_path: Path) -> None:
    url, serving = f"http://127.0.0.1:{airflow.port}", airflow.serving
    host, _, port = serving.url.rpartition(":")
    pictures = Path(os.environ.get("HSML_TEST_PICTURES") or tmp_path)

    with browser.opened() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(A_MINUTE)

        def picture(name: str, of: Any = page) -> None:
            of.wait_for_timeout(1000)
            of.screenshot(path=pictures / f"{name}.png")

        page.goto(f"{url}/connections")
        page.get_by_role("button", name="Add Connection").click()
        form = page.get_by_role("dialog")
        form.get_by_label("Connection ID").fill("hsml_default")
        form.get_by_role("combobox").fill("Hopsworks Model")
        form.get_by_role("option", name="Hopsworks Model Serving").click()
        form.get_by_label("Host").fill(host)
        form.locator("[name=port]").fill(port)
        form.locator("[name=password]").fill(serving.api_key)
        picture("connection-standard")
        form.get_by_role("button", name="Extra Fields", exact=True).click()
        form.locator("[name=element_project]").fill(serving.project)
        picture("connection-extra")
        form.get_by_role("button", name="Save").click()

        row = page.get_by_role("row").filter(has_text="hsml_default")
        row.get_by_role("button", name="Test Connection").click()
        page.get_by_text(re.compile(f"Reached Hopsworks 5.*project '{serving.project}'")).wait_for()
        picture("connection-tested")

        page.goto(f"{url}/dags/retrain_and_deploy")
        page.get_by_role("button", name="Trigger Dag").click()
        page.get_by_role("dialog").get_by_role("button", name="Trigger").last.click()
        page.wait_for_url("**/runs/manual__*")
        run = page.url
        airflow.until(lambda: airflow.rows("SELECT state FROM dag_run") == [("success",)], 600)
        page.get_by_role("button", name="Show Graph (Press g)").click()
        page.locator(".react-flow__node", has_text="check").get_by_text("success").wait_for()
        picture("graph")

        page.goto(f"{run.rstrip('/')}/tasks/deploy")
        page.get_by_text("action      created").wait_for()
        picture("log")
        page.get_by_role("link", name="Details").click()
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="Deployment", exact=True).click()
        console = opened.value
        console.locator("h1 .status", has_text="Running").wait_for()
        picture("console", console)

        assert console.url == f"{serving.url}/p/{serving.project_id}/deployments/1"
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="Model version").click()
        served = serving.world.project(serving.project_id).deployments.all_shown()[0]["answering"]
        assert opened.value.url == f"{serving.url}/p/{serving.project_id}/models/digits/{served}"
        picture("model-version", opened.value)
