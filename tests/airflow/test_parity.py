"""
Waiting means the same in a worker and in the triggerer: the same result, XComs, exception and message.

A scenario is played from its beginning in each mode, on a deployment of its own. That of sensors is told in
``test_sensors_deferred``.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks import Verification
from airflow_provider_hsml.hopsworks.domain import rollout_tracker
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.rollout import probe
from airflow_provider_hsml.local.cluster.faults import Hold, LostChange, RequestFault, StartFault
from airflow_provider_hsml.operators import (
    DeployBestModelOperator,
    DeployModelOperator,
    RestartDeploymentOperator,
    RollbackDeploymentOperator,
    StartDeploymentOperator,
    StopDeploymentOperator,
)
from tests.support.tasks import FakeTaskInstance, change_by_rest, execute, resource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.usefixtures("serving")

MODEL_FAILS = {"errorCode": 250007, "errorMsg": "Serving instance internal error", "usrMsg": "out of memory"}
HOW: dict[str, Any] = {"task_id": "task", "poll_interval": 0.1, "timeout": 20}


@dataclass
class Stage:
    """What scenarios are made with."""

    hook: HsmlHook
    serving: LocalServing
    register: Callable[..., int]
    model_file: Callable[..., Path]
    monkeypatch: pytest.MonkeyPatch
    name: str
    """Of the deployment and its model."""
    deferrable: bool

    def deploy(self, version: int | str = "latest", **how: Any) -> DeployModelOperator:
        given = HOW | {"model_name": self.name, "model_version": version, "deferrable": self.deferrable} | how
        return DeployModelOperator(unschedulable_grace=1.0, **given)

    def best(self, **how: Any) -> DeployBestModelOperator:
        given = (
            HOW | {"model_name": self.name, "metric": "auc", "direction": "max", "deferrable": self.deferrable} | how
        )
        return DeployBestModelOperator(unschedulable_grace=1.0, **given)

    def of(self, kind: Callable[..., Any], **how: Any) -> Any:
        return kind(**HOW | {"deployment_name": self.name, "deferrable": self.deferrable} | how)

    def served(self, version: int = 1, answer: int = 1) -> Stage:
        """Have a version served."""
        assert self.register(self.name, answer, auc=0.7 + version / 100) == version
        self.hook.deploy_model(self.name, version, poll_interval=0.1)
        return self

    def stopped(self) -> Stage:
        self.served()
        self.hook.stop_deployment(self.name, poll_interval=0.1)
        return self

    def lies(self) -> Stage:
        """Register a version that answers otherwise than recorded."""
        rows = [[0.0], [1.0]]
        self.hook.register_model(
            model_name=self.name,
            model_path=self.model_file(answer=66),
            framework="SKLEARN",
            metrics={"auc": 0.99},
            input_example=rows,
            expected={"instances": rows, "predictions": [6, 6]},
        )
        return self

    def fault(self, fault: Any) -> Stage:
        self.serving.faults.add(fault)
        return self

    def on(self, method: str, path: str, act: Callable[[], object], *, times: int = 1) -> Stage:
        """Have something happen once the server was asked for something, or so many times."""

        def watch() -> None:
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline and len(self.serving.requests.where(method, path)) < times:
                time.sleep(0.02)
            act()

        self.serving.requests.clear()
        threading.Thread(target=watch, daemon=True).start()
        return self

    def on_start(self, act: Callable[[], object]) -> Stage:
        return self.on("POST", f"/project/119/serving/{self.number}", act)

    def shows(self, status: str, times: int | None) -> None:
        """Have the server give a status to its next answers about the deployment."""
        row = resource(self.hook, self.name) | {"status": status, "condition": None}
        self.fault(RequestFault("GET", f"/project/*/serving/{row['id']}", status=200, body=row, times=times))

    def jumps(self, seconds: float) -> None:
        """Set the machine's clock."""
        now = time.time
        self.monkeypatch.setattr(time, "time", lambda: now() + seconds)

    def somebody_changes_it(self) -> None:
        """Have somebody else deploy version 3, by REST, once the server takes it."""
        change_by_rest(self.hook, self.name, lambda row: row.update(modelVersion=3))

    @property
    def number(self) -> int:
        return self.hook.get_deployment(self.name).id


def created(stage: Stage) -> Any:
    stage.register(stage.name, 1, auc=0.8)
    return stage.best()


def updated(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.9)
    return stage.best()


def updated_without_recorded_answers(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, recorded=False, auc=0.9)
    return stage.best()


def stopped_for_the_change(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.9)
    return stage.best(rollout="recreate")


def kept(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.1)
    return stage.best()


def kept_and_skipped(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.1)
    return stage.best(if_not_better="skip")


def unchanged(stage: Stage) -> Any:
    stage.served()
    return stage.deploy(1)


def taken_back(stage: Stage) -> Any:
    stage.served().lies()
    return stage.best()


def left_as_it_is(stage: Stage) -> Any:
    stage.served().lies()
    return stage.best(verification=Verification(on_failure="leave"))


def the_first_fails(stage: Stage) -> Any:
    stage.lies()
    return stage.best()


def does_not_come_up(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.9)
    stage.fault(StartFault(stage.name, reason="no such layer"))
    return stage.best()


def taking_it_back_fails_too(stage: Stage) -> Any:
    stage.served().lies()
    return (
        stage.fault(StartFault(stage.name, lasts=0.1)).fault(StartFault(stage.name, reason="no room", times=4)).best()
    )


def never_applied(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.9)
    stage.fault(LostChange(stage.name))
    return stage.best(timeout=3)


def bakes(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.9)
    return stage.best(verification=Verification(bake_seconds=0.5, probe_interval=0.1))


def bakes_in_vain(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.9)
    wrong = RequestFault("POST", f"/project/*/inference/models/{stage.name}:predict", status=500, body=MODEL_FAILS)
    asked = f"/project/119/inference/models/{stage.name}:predict"
    stage.on("POST", asked, lambda: stage.fault(wrong), times=2 * probe.PROBES + 3)
    return stage.best(verification=Verification(bake_seconds=30, probe_interval=0.1))


def woken(stage: Stage) -> Any:
    stage.register(stage.name, 1, auc=0.7)
    stage.hook.deploy_model(stage.name, 1, spec={"scaling": {"min_instances": 0}}, poll_interval=0.1)
    stage.register(stage.name, 2, auc=0.9)
    while stage.hook.get_deployment_state(stage.name) != "Idle":
        time.sleep(0.1)
    return stage.best()


def rows_of_its_own(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.9)
    return stage.best(verification=Verification(instances=[[5.0], [6.0], [7.0]], expect="same_length"))


def by_hand(stage: Stage) -> Any:
    stage.served().served(2, 2)
    return stage.of(RollbackDeploymentOperator)


def started(stage: Stage) -> Any:
    return stage.stopped().of(StartDeploymentOperator)


def started_after_a_failure_that_passes(stage: Stage) -> Any:
    return stage.stopped().fault(StartFault(stage.name, lasts=0.3)).of(StartDeploymentOperator)


def start_that_fails(stage: Stage) -> Any:
    return stage.stopped().fault(StartFault(stage.name, reason="no weights")).of(StartDeploymentOperator)


def start_without_room(stage: Stage) -> Any:
    return stage.stopped().fault(StartFault(stage.name, stage="SCHEDULED")).of(StartDeploymentOperator)


def start_not_in_time(stage: Stage) -> Any:
    stage.stopped().fault(StartFault(stage.name, stage="SCHEDULED", lasts=30))
    return stage.of(StartDeploymentOperator, timeout=1)


def start_with_hardly_any_time(stage: Stage) -> Any:
    stage.stopped().fault(StartFault(stage.name, stage="INITIALIZED", lasts=30))
    # The only poll is answered once the instances have failed: else its state is a matter of milliseconds.
    stage.fault(RequestFault("GET", f"/project/*/serving/{stage.number}", delay=1.0, times=None))
    return stage.of(StartDeploymentOperator, timeout=0, poll_interval=5)


def deleted_while_it_starts(stage: Stage) -> Any:
    stage.stopped().fault(StartFault(stage.name, stage="INITIALIZED", lasts=5))
    number = stage.number
    stage.on("POST", f"/project/119/serving/{number}", lambda: stage.hook.delete_deployment(stage.name, force=True))
    return stage.of(StartDeploymentOperator)


def stopped_by_somebody(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.9)
    stage.on("PUT", "/project/119/serving", lambda: stage.hook.stop_deployment(stage.name, wait=False))
    return stage.best()


def superseded_by_another_version(stage: Stage) -> Any:
    stage.served().register(stage.name, 2, auc=0.9)
    stage.register(stage.name, 3, auc=0.1)
    stage.on("PUT", "/project/119/serving", stage.somebody_changes_it)
    return stage.best(verification=Verification(bake_seconds=30, probe_interval=0.1))


def project_vanishes(stage: Stage) -> Any:
    stage.stopped().fault(StartFault(stage.name, stage="SCHEDULED", lasts=30))
    body = {"errorCode": 150004, "errorMsg": "Project not found.", "usrMsg": "Project 119 not found."}
    gone = RequestFault("*", "/project/119/serving/**", status=404, body=body, times=None)
    return stage.on_start(lambda: stage.fault(gone)).of(StartDeploymentOperator)


def unknown_status_that_passes(stage: Stage) -> Any:
    stage.stopped()
    return stage.on_start(lambda: stage.shows("Hibernating", times=3)).of(StartDeploymentOperator)


def unknown_status_that_stays(stage: Stage) -> Any:
    stage.stopped()
    return stage.on_start(lambda: stage.shows("Hibernating", times=None)).of(StartDeploymentOperator, timeout=2)


def clock_jumps(stage: Stage, seconds: float, **how: Any) -> Any:
    """Have it jump in the midst of the wait, in the triggerer too, and let the deployment come up a while later."""
    stage.stopped()
    held_up = stage.serving.faults.add(Hold(stage.name))

    def jump() -> None:
        stage.jumps(seconds)
        time.sleep(2)
        stage.serving.faults.remove(held_up)

    stage.on("GET", f"/project/119/serving/{stage.number}", jump, times=5)
    return stage.of(StartDeploymentOperator, **how)


def clock_jumps_ahead(stage: Stage) -> Any:
    return clock_jumps(stage, 3600)


def clock_jumps_back(stage: Stage) -> Any:
    return clock_jumps(stage, -3600, timeout=2)


def server_away_for_a_while(stage: Stage) -> Any:
    stage.stopped()
    stage.fault(RequestFault("GET", f"/project/*/serving/{stage.number}", status=503, body="away", times=6))
    return stage.of(StartDeploymentOperator)


def server_that_asks_to_wait(stage: Stage) -> Any:
    stage.stopped()
    busy = RequestFault("GET", f"/project/*/serving/{stage.number}", status=429, headers={"Retry-After": "1"}, times=2)
    return stage.fault(busy).of(StartDeploymentOperator)


def key_revoked_in_the_middle(stage: Stage) -> Any:
    stage.stopped()
    body = {"errorCode": 320004, "errorMsg": "no", "usrMsg": "The key lacks a scope."}
    gone = RequestFault("GET", f"/project/*/serving/{stage.number}", status=403, body=body, times=None)
    return stage.on("POST", f"/project/119/serving/{stage.number}", lambda: stage.fault(gone)).of(
        StartDeploymentOperator
    )


def restarted(stage: Stage) -> Any:
    return stage.served().of(RestartDeploymentOperator)


def restart_that_fails(stage: Stage) -> Any:
    return stage.served().fault(StartFault(stage.name, reason="no weights")).of(RestartDeploymentOperator)


def rolling_restart(stage: Stage) -> Any:
    return stage.served().of(RestartDeploymentOperator, rolling=True)


def rolling_restart_that_fails(stage: Stage) -> Any:
    stage.served().fault(StartFault(stage.name, reason="no weights"))
    return stage.of(RestartDeploymentOperator, rolling=True)


def stops(stage: Stage) -> Any:
    return stage.served().of(StopDeploymentOperator)


def stops_what_is_not_there(stage: Stage) -> Any:
    return stage.of(StopDeploymentOperator)


SCENARIOS = [
    created,
    updated,
    updated_without_recorded_answers,
    stopped_for_the_change,
    kept,
    kept_and_skipped,
    unchanged,
    taken_back,
    left_as_it_is,
    the_first_fails,
    does_not_come_up,
    taking_it_back_fails_too,
    never_applied,
    bakes,
    bakes_in_vain,
    woken,
    rows_of_its_own,
    by_hand,
    started,
    started_after_a_failure_that_passes,
    start_that_fails,
    start_without_room,
    start_not_in_time,
    start_with_hardly_any_time,
    deleted_while_it_starts,
    stopped_by_somebody,
    superseded_by_another_version,
    project_vanishes,
    unknown_status_that_passes,
    unknown_status_that_stays,
    clock_jumps_ahead,
    clock_jumps_back,
    server_away_for_a_while,
    server_that_asks_to_wait,
    key_revoked_in_the_middle,
    restarted,
    restart_that_fails,
    rolling_restart,
    rolling_restart_that_fails,
    stops,
    stops_what_is_not_there,
]

EXPECTED: dict[Callable[[Stage], Any], str] = {
    bakes_in_vain: r"probes failed while it was watched for 30 s.*It was rolled back: .*version 1 .* serves again",
    woken: "'action': 'updated'",
    superseded_by_another_version: "changed by another client",
    project_vanishes: "errorCode 150004",
    unknown_status_that_passes: "'status': 'Running'",
    unknown_status_that_stays: "is not live within 2 s",
    clock_jumps_ahead: "'status': 'Running'",
    clock_jumps_back: "is not live within 2 s",
    rolling_restart: "'status': 'Running'",
    rolling_restart_that_fails: "no weights",
}
"""What must be among that, where the two could agree on something else."""


def told(stage: Stage, scenario: Callable[[Stage], Any]) -> dict[str, Any]:
    """Play a scenario, and tell how it ended: without what differs from one deployment to the next."""
    operator, ti = scenario(stage), FakeTaskInstance()
    stage.serving.requests.clear()
    try:
        ended: dict[str, Any] = {"result": execute(operator, ti)}
    except Exception as error:  # noqa: BLE001 - it is compared
        ended = {"error": type(error).__name__, "message": str(error)}
        if isinstance(error, HopsworksError):
            ended["transient"] = error.transient
    finally:
        stage.serving.faults.clear()
    text = repr({**ended, "pushed": ti.pushed}).replace(stage.name, "NAME")
    text = re.sub(r"NAME-predictor-[-\w]+", "INSTANCE", text)
    text = re.sub(r"\d+ of \d+ probes", "SOME of SOME probes", text)
    text = re.sub(r"('(?:downtime_seconds|rollout|verification|bake|champion_created)': )[\d.e-]+", r"\1SOME", text)
    text = re.sub(r"('failed_probes': )[1-9]\d*", r"\1SOME", text).replace(ti.run_id, "RUN")
    text = re.sub(r"('deployment_id': |deployments/|serving/)\d+", r"\1N", text)
    text = re.sub(r"get deployment \d+", "get deployment N", text).replace("Stopping", "Stopped")
    text = text.replace("Updating", "Running")
    return {"how": text, "asked": changes_but_probes(stage)}


def changes_but_probes(stage: Stage) -> list[str]:
    """Give what was asked of the server to change, but for the journal."""
    return [
        f"{one.method} {one.query.partition('&')[0]}"
        for one in stage.serving.requests
        if one.method != "GET" and "/serving" in one.path and not one.path.endswith(":predict")
    ]


ON_ALL_AIRFLOWS = {
    created,
    taken_back,
    kept_and_skipped,
    by_hand,
    start_that_fails,
    start_not_in_time,
    restarted,
    stops,
}


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(one, id=one.__name__, marks=[pytest.mark.airflow] if one in ON_ALL_AIRFLOWS else [])
        for one in SCENARIOS
    ],
)
def test_the_same_in_a_worker_and_in_the_triggerer(
    scenario: Callable[[Stage], Any],
    hook: HsmlHook,
    serving: LocalServing,
    register: Callable[..., int],
    model_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollout_tracker, "FAILED_STAYS", 0.5)
    monkeypatch.setattr(rollout_tracker, "UNSCHEDULABLE_STAYS", 1.0)
    monkeypatch.setattr(predict, "ROUTE_BUDGET", 2.0)
    monkeypatch.setattr(rollout_tracker, "SETTLE_UNSEEN", 0.3)
    name = scenario.__name__.replace("_", "")
    made_with = (hook, serving, register, model_file, monkeypatch)
    ended = [told(Stage(*made_with, f"{name}{mode}", deferrable=mode == "d"), scenario) for mode in "wd"]

    assert ended[1] == ended[0]
    assert re.search(EXPECTED.get(scenario, ""), ended[0]["how"])
