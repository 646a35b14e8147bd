"""The links on a task's page: there as soon as the task knows where they lead, whatever becomes of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_hsml import (
    BatchPredictOperator,
    CompareModelsOperator,
    DeleteDeploymentOperator,
    DeleteModelVersionsOperator,
    DeployBestModelOperator,
    DeploymentStatusSensor,
    DeployModelOperator,
    ModelVersionSensor,
    PredictOperator,
    RegisterModelOperator,
    RestartDeploymentOperator,
    RollbackDeploymentOperator,
    StartDeploymentOperator,
    StopDeploymentOperator,
)
from airflow_provider_hsml.links import DeploymentLink, ModelVersionLink
from airflow_provider_hsml.local.cluster.faults import Hold, RequestFault
from tests.conftest import HOPSWORKS, run_model
from tests.support import commands, pace
from tests.support.tasks import FakeTaskInstance, begin, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.airflow

DEPLOYMENT, VERSION = DeploymentLink().xcom_key, ModelVersionLink().xcom_key
QUICK: dict[str, Any] = {"task_id": "task", "poll_interval": 0.1}


@dataclass
class TaskInstance(FakeTaskInstance):
    """One that counts what it is told of links."""

    told: list[tuple[str, str]] = field(default_factory=list)

    def xcom_push(self, key: str, value: Any) -> None:
        super().xcom_push(key, value)
        if key in (DEPLOYMENT, VERSION):
            self.told.append((key, value))


@pytest.fixture
def page(hook: HsmlHook) -> Callable[..., str]:
    """Give the addresses that links are to lead to."""

    def of(name: str, version: int | None = None) -> str:
        if version is None:
            return hook.deployment_url(hook.get_deployment(name))
        return hook.model_url(hook.get_model(name, version))

    return of


@pytest.fixture
def served(hook: HsmlHook, register: Callable[..., int]) -> Callable[[str], str]:
    """Have a deployment serve version 1 of a model of its name."""

    def make(name: str) -> str:
        register(name, 1, auc=0.5)
        hook.deploy_model(name, 1, poll_interval=0.1)
        return name

    return make


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (RegisterModelOperator, ["Model version"]),
        (CompareModelsOperator, ["Deployment", "Model version", "Comparison report"]),
        *[(one, ["Deployment", "Model version"]) for one in (DeployModelOperator, DeployBestModelOperator)],
        (RollbackDeploymentOperator, ["Deployment", "Model version"]),
        *[(one, ["Deployment"]) for one in (StartDeploymentOperator, StopDeploymentOperator, PredictOperator)],
        (BatchPredictOperator, ["Deployment"]),
        *[(one, ["Deployment"]) for one in (RestartDeploymentOperator, DeleteDeploymentOperator)],
        (DeleteModelVersionsOperator, []),
        (DeploymentStatusSensor, ["Deployment"]),
        (ModelVersionSensor, ["Model version"]),
    ],
)
def test_which_task_has_which(task: Any, names: list[str]) -> None:
    assert [link.name for link in task.operator_extra_links] == names


@pytest.mark.parametrize("deferrable", [False, True])
def test_what_changes_a_deployment_leads_to_it(
    served: Callable[[str], str], page: Callable[..., str], hook: HsmlHook, *, deferrable: bool
) -> None:
    name = served(f"changed{deferrable:d}")
    url = page(name)
    how: dict[str, Any] = {**QUICK, "deployment_name": name, "deferrable": deferrable}
    operator: Any
    for operator in (StopDeploymentOperator(**how), StartDeploymentOperator(**how), RestartDeploymentOperator(**how)):
        ti = TaskInstance()
        execute(operator, ti)
        assert set(ti.told) == {(DEPLOYMENT, url)}
        assert len(ti.told) <= 2, "once in each worker, not at each look"
    for operator in (
        PredictOperator(task_id="task", deployment_name=name, instances=[[1]]),
        DeploymentStatusSensor(task_id="task", deployment_name=name, deferrable=deferrable),
        DeleteDeploymentOperator(task_id="task", deployment_name=name, force=True),
    ):
        ti = TaskInstance()
        execute(operator, ti)
        assert ti.told == [(DEPLOYMENT, url)]
    assert not hook.get_deployments(name)


def test_what_is_not_there_has_no_link(serving: LocalServing) -> None:
    ti = TaskInstance()
    execute(StopDeploymentOperator(**QUICK, deployment_name="nothere"), ti)

    assert ti.told == []


def test_a_version_that_is_registered(
    serving: LocalServing, model_file: Callable[..., Path], page: Callable[..., str]
) -> None:
    """Also where setting its tags fails after that."""
    how: dict[str, Any] = {
        "task_id": "task",
        "model_name": "linked",
        "model_path": model_file(answer=1),
        "framework": "SKLEARN",
    }
    first, second = TaskInstance(), TaskInstance()
    execute(RegisterModelOperator(**how), first)
    serving.faults.add(RequestFault("PUT", "**/tags/owner", status=400, body={"errorCode": 370001}))
    with pytest.raises(AirflowFailException, match="370001"):
        execute(RegisterModelOperator(**how, tags={"owner": "me"}), second)

    assert first.told == [(VERSION, page("linked", 1))]
    assert second.told == [(VERSION, page("linked", 2))]


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_version_that_was_waited_for(
    register: Callable[..., int], page: Callable[..., str], *, deferrable: bool
) -> None:
    name, ti = f"awaited{deferrable:d}", TaskInstance()
    later = threading.Timer(0.5, register, (name, 1))
    later.start()
    sensor = ModelVersionSensor(task_id="task", model_name=name, poke_interval=0.1, timeout=60, deferrable=deferrable)
    execute(sensor, ti)
    later.join()

    assert ti.told == [(VERSION, page(name, 1))]


def test_a_promotion_leads_to_both_before_it_waits(
    serving: LocalServing, register: Callable[..., int], page: Callable[..., str]
) -> None:
    """Also a retry, which only attaches to what is under way: its XComs were cleared."""
    register("pending", 1)
    held = serving.faults.add(Hold("pending", "Running"))
    try:
        tries = [TaskInstance(), TaskInstance()]
        for ti in tries:
            with pytest.raises(TaskDeferred):
                begin(DeployModelOperator(**QUICK, model_name="pending", deferrable=True), ti)
    finally:
        serving.faults.remove(held)

    for ti in tries:
        assert sorted(ti.told) == sorted([(DEPLOYMENT, page("pending")), (VERSION, page("pending", 1))])


def test_a_promotion_that_is_skipped_or_taken_back(
    hook: HsmlHook,
    served: Callable[[str], str],
    register: Callable[..., int],
    page: Callable[..., str],
    model_file: Callable[..., Path],
) -> None:
    name = served("judged")
    register(name, 2, auc=0.1)
    skipped, failed, back = TaskInstance(), TaskInstance(), TaskInstance()
    best: dict[str, Any] = {**QUICK, "model_name": name, "metric": "auc", "direction": "max"}
    with pytest.raises(AirflowSkipException):
        execute(DeployBestModelOperator(**best, if_not_better="skip"), skipped)
    hook.register_model(
        model_name=name, model_path=model_file(broken="it does not load"), framework="SKLEARN", metrics={"auc": 0.9}
    )
    with pytest.raises(AirflowFailException, match="serves again"):
        execute(DeployBestModelOperator(**best), failed)
    hook.deploy_model(name, 2, poll_interval=0.1)
    execute(RollbackDeploymentOperator(**QUICK, deployment_name=name), back)

    deployment = (DEPLOYMENT, page(name))
    assert sorted(skipped.told) == [deployment, (VERSION, page(name, 1))], "what serves"
    assert sorted(failed.told) == [deployment, (VERSION, page(name, 3))], "what has failed"
    assert sorted(back.told) == [deployment, (VERSION, page(name, 1))], "what serves again"


def test_no_task_fails_for_its_links(served: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(FakeTaskInstance):
        def xcom_push(self, key: str, value: Any) -> None:
            raise OSError("no database")

    execute(StopDeploymentOperator(**QUICK, deployment_name=served("unlinked")), Refusing())

    assert "could not be pushed" in caplog.text


DAG = """
from datetime import timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_hsml import DeployBestModelOperator, DeployModelOperator, DeploymentStatusSensor
from airflow_provider_hsml import RegisterModelOperator, StartDeploymentOperator
FOLDER = Path(__file__).parent

with DAG("linked", schedule=None, default_args={"trigger_rule": "all_done"}):
    how = {"poll_interval": 0.1, "model_version": 1}
    register = RegisterModelOperator.partial(
        task_id="register", model_path=FOLDER / "model", framework="SKLEARN", metrics={"auc": 0.5}
    ).expand(model_name=["first", "second"])
    broken = RegisterModelOperator(
        task_id="broken", model_name="broken", model_path=FOLDER / "broken", framework="SKLEARN"
    )
    running = DeployModelOperator(task_id="running", model_name="first", deferrable=False, **how)
    # Not a promotion: "dags test" loses what Airflow otherwise hands to a task that goes on.
    deferred = DeploymentStatusSensor(task_id="deferred", deployment_name="awaited", deferrable=True)
    skipped = DeployBestModelOperator(
        task_id="skipped", model_name="first", metric="auc", direction="max", if_not_better="skip"
    )
    failed = DeployModelOperator(task_id="failed", model_name="broken", **how)
    retried = StartDeploymentOperator(
        task_id="retried", deployment_name="retried", poll_interval=0.1, timeout=2, retries=50, retry_delay=timedelta(0)
    )
    register >> broken >> running >> deferred >> skipped >> failed >> retried
"""
# Says, whenever it is asked, how each task is and where its links lead, as Airflow's own server finds out.
READER = """
import json, sys
from airflow import __version__
from airflow.models import TaskInstance
from airflow.utils.session import create_session

if __version__.startswith(("2.", "3.0.")):
    from airflow.models.dagbag import DagBag

    def links(ti):
        task = DagBag(read_dags_from_db=True).get_dag("linked").get_task(ti.task_id)
        return {name: task.get_extra_links(ti, name) or None for name in task.extra_links}
else:
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    client = TestClient(create_app(apps="core"), base_url="http://localhost")
    client.__enter__()
    client.headers["Authorization"] = "Bearer " + client.get("/auth/token").json()["access_token"]

    def links(ti):
        path = f"/api/v2/dags/linked/dagRuns/{ti.run_id}/taskInstances/{ti.task_id}/links"
        return client.get(path, params={"map_index": ti.map_index}).json()["extra_links"]

for _ in sys.stdin:
    with create_session() as session:
        tis = session.query(TaskInstance).all()
        told = [(ti.task_id, ti.map_index, ti.state, links(ti)) for ti in tis]
    print("TOLD=" + json.dumps(told), flush=True)
"""


@dataclass
class Pages:
    """What Airflow's server shows of the tasks: it knows no connection."""

    reader: subprocess.Popen[str]

    def look(self) -> dict[tuple[str, int], tuple[str, dict[str, str | None]]]:
        """Give task and map index -> state, and where its links lead."""
        assert self.reader.stdin is not None
        assert self.reader.stdout is not None
        print("look", file=self.reader.stdin, flush=True)
        for line in self.reader.stdout:
            if line.startswith("TOLD="):
                told = json.loads(line.removeprefix("TOLD="))
                return {(task, index): (state, links) for task, index, state, links in told}
        raise AssertionError("the reader has ended")

    def until(self, task: str, holds: Callable[[dict[str, str | None]], object]) -> dict[str, str | None]:
        """Wait until something holds while a task has not ended, and give its links."""
        deadline = time.monotonic() + 120
        while True:
            state, links = self.look().get((task, -1), ("", {}))
            assert state not in ("success", "failed", "skipped"), (task, state)
            if links and holds(links):
                return links
            assert time.monotonic() < deadline, (task, state, links)
            time.sleep(0.5)


@contextmanager
def program(code: Sequence[str], environment: dict[str, str], **how: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a Python for a while."""
    started = subprocess.Popen([sys.executable, *code], text=True, env=environment, **how)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def test_a_real_airflow_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

    dags, log = tmp_path / "dags", tmp_path / "log"
    for name, content in (("model", {"answer": 7}), ("broken", {"broken": "it does not load"})):
        (dags / name).mkdir(parents=True)
        (dags / name / "model.joblib").write_text(json.dumps(content))
    (dags / "linked.py").write_text(DAG)
    with LocalServing(engine=run_model, hopsworks_version=HOPSWORKS) as serving:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        hook = HsmlHook()
        serving.world.register_model("steady", {"model.joblib": json.dumps({"answer": 1}).encode()})
        held = {name: serving.faults.add(Hold(name, "Running")) for name in ("first", "awaited", "retried")}
        for name in ("awaited", "retried"):
            hook.save_deployment(deployment_name=name, model_name="steady")
        hook.stop_deployment("retried", poll_interval=0.1)
        blind = commands.environment(
            tmp_path,
            AIRFLOW__CORE__DAGS_FOLDER=str(dags),
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        )
        seeing = blind | {"AIRFLOW_CONN_HSML_DEFAULT": serving.connection}
        commands.migrate(tmp_path)
        pace.hurry(tmp_path)
        (ready,) = commands.run([("dags", "reserialize")], blind)
        assert ready.code == "0", ready.output
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with (
            log.open("w") as output,
            program(["-c", READER], blind, stderr=subprocess.DEVNULL, **pipes) as reader,
            program(
                ["-m", "airflow", "dags", "test", "linked", "2026-11-01"], seeing, stdout=output, stderr=output
            ) as run,
        ):
            pages = Pages(reader)
            running = pages.until("running", lambda links: all(links.values()))
            serving.faults.remove(held["first"])
            deferred = pages.until("deferred", lambda _: "trigger in line" in log.read_text())
            serving.faults.remove(held["awaited"])
            again = pages.until(
                "retried", lambda links: links["Deployment"] and "is not live within" in log.read_text()
            )
            serving.faults.remove(held["retried"])
            run.wait(120)
            urls = {
                name: hook.deployment_url(hook.get_deployment(name))
                for name in ("first", "awaited", "broken", "retried")
            }
            versions = {name: hook.model_url(hook.get_model(name, 1)) for name in ("first", "second", "broken")}
            serving.requests.clear()
            shown = pages.look()
            assert not list(serving.requests), "nobody is asked"

    both = {name: {"Deployment": urls[name], "Model version": versions[name]} for name in ("first", "broken")}
    assert running == both["first"]
    assert deferred == {"Deployment": urls["awaited"]}
    assert again == {"Deployment": urls["retried"]}
    said = log.read_text()
    assert shown == {
        ("register", 0): ("success", {"Model version": versions["first"]}),
        ("register", 1): ("success", {"Model version": versions["second"]}),
        ("broken", -1): ("success", {"Model version": versions["broken"]}),
        ("running", -1): ("success", both["first"]),
        ("deferred", -1): ("success", {"Deployment": urls["awaited"]}),
        ("skipped", -1): ("skipped", both["first"]),
        ("failed", -1): ("failed", both["broken"]),
        ("retried", -1): ("success", {"Deployment": urls["retried"]}),
    }, said
