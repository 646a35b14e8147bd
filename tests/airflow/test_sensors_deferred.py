"""
Sensors that wait in the triggerer: the same result, exception and message as in a worker.

``wait`` does what Airflow does: execute, build the trigger from what was stored, run it, go on with what it ended with.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_hsml import DeploymentStatusSensor, ModelVersionSensor
from airflow_provider_hsml.deferral import DEFER_MARGIN
from airflow_provider_hsml.hopsworks.domain import rollout_tracker, trigger_event
from airflow_provider_hsml.hopsworks.errors import (
    CertificateError,
    DeadlineExceededError,
    DeploymentFailedError,
)
from airflow_provider_hsml.local.cluster.faults import RequestFault, StartFault
from tests.support.tasks import FakeTaskInstance, begin, reads, resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.usefixtures("serving")
NOW = {"poke_interval": 0.1, "timeout": 20.0}


def stored(trigger: Any) -> Any:
    """Build a trigger from what Airflow stores of it."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))


async def first_event(trigger: Any) -> Any:
    """Run it until its first event."""
    events = stored(trigger).run()
    try:
        return json.loads(json.dumps((await anext(events)).payload))
    finally:
        await events.aclose()


def context() -> Any:
    """Make as much of a context as a sensor needs."""
    return {"ti": FakeTaskInstance()}


def wait(sensor: Any, ti: FakeTaskInstance | None = None, between: Callable[[], object] | None = None) -> Any:
    """Have a sensor wait, deferred as often as it wants; ``between`` is what happens before it goes on."""
    context: Any = {"ti": ti or FakeTaskInstance()}
    deferred = None
    while True:
        try:
            if deferred is None:
                return sensor.execute(context)
            assert deferred.timeout is not None
            assert deferred.timeout.total_seconds() >= DEFER_MARGIN, "for a triggerer that never reports"
            event = asyncio.run(first_event(deferred.trigger))
            if between:
                between()
            return sensor.resume_execution(deferred.method_name, {"event": event, **(deferred.kwargs or {})}, context)
        except TaskDeferred as again:
            deferred = again


def status(name: str, target: Any = "Running", **how: Any) -> DeploymentStatusSensor:
    return DeploymentStatusSensor(task_id="task", deployment_name=name, target_status=target, **NOW | how)


def version(name: str, **how: Any) -> ModelVersionSensor:
    return ModelVersionSensor(task_id="task", model_name=name, **NOW | how)


@dataclass
class Stage:
    """What scenarios are made with."""

    hook: HsmlHook
    serving: LocalServing
    register: Callable[..., int]
    model_file: Callable[..., Path]
    monkeypatch: pytest.MonkeyPatch
    how: dict[str, Any]
    started: list[threading.Timer] = field(default_factory=list)

    def later(self, what: Callable[..., object], *args: Any, after: float = 0.5, **kwargs: Any) -> None:
        """Have something happen once the sensor waits."""
        timer = threading.Timer(after, what, args, kwargs)
        timer.start()
        self.started.append(timer)

    def jumps(self, seconds: float) -> None:
        """Set the machine's clock, once the sensor waits in the worker or in the triggerer."""
        now, give_up = time.time, time.monotonic() + 10
        while len(self.serving.requests) < 4 and time.monotonic() < give_up:
            time.sleep(0.01)
        self.monkeypatch.setattr(time, "time", lambda: now() + seconds)

    def stopped(self, name: str) -> str:
        """Make a deployment that can be started."""
        if not self.hook.get_deployments(model_name=name):
            self.register(name, 1)
            self.hook.save_deployment(deployment_name=name, model_name=name, model_version=1)
        self.hook.stop_deployment(name, poll_interval=0.1)
        return name


def comes(stage: Stage, after: float = 0.5) -> Any:
    """It is started."""
    stage.later(stage.hook.start_deployment, stage.stopped("dcomes"), after=after, poll_interval=0.1)
    return status("dcomes", **stage.how)


def is_deleted(stage: Stage) -> Any:
    """Somebody deletes it."""
    stage.later(stage.hook.delete_deployment, stage.stopped("ddeleted"), force=True, poll_interval=0.1)
    return status("ddeleted", **stage.how)


def fails(stage: Stage) -> Any:
    """It is started, and its instances do not come up."""
    stage.serving.faults.add(StartFault("dfails", reason="no weights", times=None))
    stage.later(stage.hook.start_deployment, stage.stopped("dfails"), wait=False)
    return status("dfails", **stage.how)


def finds_no_room(stage: Stage) -> Any:
    """It is started, and the cluster has no room."""
    stage.serving.faults.add(StartFault("droomless", stage="SCHEDULED", reason="0/3 nodes", times=None))
    stage.later(stage.hook.start_deployment, stage.stopped("droomless"), wait=False)
    return status("droomless", **stage.how)


def key_is_revoked(stage: Stage) -> Any:
    """The key is deleted while the sensor waits."""
    body = {"errorCode": 320002, "errorMsg": "Could not find the API key"}
    gone = RequestFault("GET", "/project/*/serving", status=401, body=body, times=None)
    stage.stopped("drevoked")
    stage.later(stage.serving.faults.add, gone)
    return status("drevoked", **stage.how)


def server_is_away(stage: Stage) -> Any:
    """The server does not answer for a while."""
    name = stage.stopped("daway")
    stage.later(stage.serving.faults.add, RequestFault("GET", "/project/*/serving", drop="before", times=5))
    stage.later(stage.hook.start_deployment, name, wait=False)
    # The pauses before retries grow, and wait for a beat of a random phase: together they may be longer than 20 s.
    return status(name, **stage.how | {"timeout": 60.0})


def project_vanishes(stage: Stage) -> Any:
    """Its project is deleted while the sensor waits."""
    body = {"errorCode": 150004, "errorMsg": "Project not found.", "usrMsg": "Project 119 not found."}
    gone = RequestFault("GET", "/project/119/serving", status=404, body=body, times=None)
    stage.stopped("dvanished")
    stage.later(stage.serving.faults.add, gone)
    return status("dvanished", **stage.how)


def status_is_unknown(stage: Stage) -> Any:
    """For a while the server tells a status that we do not know."""
    name = stage.stopped("dunheard")
    row = resource(stage.hook, name) | {"status": "Hibernating"}
    unknown = RequestFault("GET", "/project/*/serving", status=200, body=row, times=2)
    stage.serving.faults.add(unknown)
    stage.later(stage.hook.start_deployment, name, wait=False)
    return status(name, **stage.how)


def clock_jumps_ahead(stage: Stage) -> Any:
    """The machine's clock is set while the sensor waits, before what it waits for comes."""
    sensor = comes(stage, after=1.5)
    stage.later(stage.jumps, 3600, after=0.1)
    return sensor


def clock_jumps_back(stage: Stage) -> Any:
    """The same, and what it waits for does not come."""
    sensor = never_comes(stage)
    stage.later(stage.jumps, -3600, after=0.1)
    return sensor


def never_comes(stage: Stage) -> Any:
    """Nobody starts it."""
    return status(stage.stopped("dnever"), timeout=1.0, **stage.how)


def never_comes_and_may_be_skipped(stage: Stage) -> Any:
    """Nobody starts it, and that is no failure."""
    return status(stage.stopped("dnever"), timeout=1.0, soft_fail=True, **stage.how)


def fails_and_may_be_skipped(stage: Stage) -> Any:
    """It is deleted, and that is no failure."""
    stage.later(stage.hook.delete_deployment, stage.stopped("ddeleted"), force=True, poll_interval=0.1)
    return status("ddeleted", soft_fail=True, **stage.how)


def is_registered(stage: Stage) -> Any:
    """Somebody registers a good version; of the weak ones that are there none will do."""
    there = [model.version for model in stage.hook.get_models("dgrows")]
    stage.register("dgrows", 1, auc=0.5)
    stage.later(stage.register, "dgrows", 1, auc=0.9)
    return version("dgrows", newer_than=max(there, default=0), metric="auc", at_least="0.8", **stage.how)


def is_approved(stage: Stage) -> Any:
    """A person sets a tag."""
    number = stage.register("dasked", 1)
    stage.later(stage.hook.set_model_tag, "dasked", number, "approval", "approved")
    return version("dasked", model_version=number, tag={"approval": "approved"}, **stage.how)


def is_never_registered(stage: Stage) -> Any:
    """Nobody registers it."""
    return version("dnobodys", timeout=1.0, **stage.how)


SCENARIOS: dict[Callable[[Stage], Any], tuple[type[BaseException] | None, str]] = {
    comes: (None, "'status': 'Running'"),
    is_deleted: (AirflowFailException, "was deleted while it was waited for"),
    fails: (AirflowFailException, r"(?s)do not come up: .*no weights.*Last lines of the predictor's log:.*no weights"),
    finds_no_room: (DeploymentFailedError, "0/3 nodes"),
    key_is_revoked: (AirflowFailException, "errorCode 320002"),
    server_is_away: (None, "'status': 'Running'"),
    project_vanishes: (AirflowFailException, "errorCode 150004"),
    status_is_unknown: (None, "'status': 'Running'"),
    clock_jumps_ahead: (None, "'status': 'Running'"),
    clock_jumps_back: (AirflowSensorTimeout, "exceeds the specified timeout of 1.0"),
    never_comes: (AirflowSensorTimeout, "exceeds the specified timeout of 1.0"),
    never_comes_and_may_be_skipped: (AirflowSkipException, ""),
    fails_and_may_be_skipped: (AirflowSkipException, "Skipping due to soft_fail"),
    is_registered: (None, "'metrics': {'auc': 0.9}"),
    is_approved: (None, "'tags': {'approval': 'approved'}"),
    is_never_registered: (AirflowSensorTimeout, "exceeds the specified timeout of 1.0"),
}
ENDS = (comes, is_deleted, never_comes, never_comes_and_may_be_skipped, fails_and_may_be_skipped)


class TestParity:
    @pytest.mark.parametrize(
        "scenario",
        # How a sensor ends is Airflow's; what else happens is the same on each.
        [pytest.param(one, marks=pytest.mark.airflow if one in ENDS else (), id=one.__name__) for one in SCENARIOS],
    )
    def test_the_same_in_a_worker_and_in_the_triggerer(self, scenario: Callable[[Stage], Any], stage: Stage) -> None:
        kind, text = SCENARIOS[scenario]
        ended: list[tuple[type[BaseException] | None, str]] = []
        for is_deferrable in (False, True):
            stage.how = {"deferrable": is_deferrable}
            sensor = scenario(stage)
            stage.serving.requests.clear()
            try:
                ended.append((None, str(wait(sensor))))
            except BaseException as error:  # noqa: BLE001 - compared below
                ended.append((type(error), str(error)))
            for timer in stage.started:
                timer.join()
            stage.serving.faults.clear()
        (in_worker, said), (in_triggerer, said_too) = ended

        assert in_worker is in_triggerer is kind, ended
        assert re.search(text, said)
        assert re.search(text, said_too)
        assert plain(said) == plain(said_too) or kind is AirflowSkipException


@pytest.mark.airflow
class TestDeferring:
    def test_not_for_what_is_there(self, register: Callable[..., int], serving: LocalServing) -> None:
        register("dthere", 1)
        serving.requests.clear()

        assert begin(version("dthere", deferrable=True))["model_version"] == 1
        assert reads(serving) == 2, "the project, and the versions"

    @pytest.mark.parametrize(("default", "given", "defers"), [("True", None, True), ("True", False, False)])
    def test_by_default_as_airflow_is_configured(
        self, monkeypatch: pytest.MonkeyPatch, default: str, given: bool | None, defers: bool
    ) -> None:
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", default)

        assert version("x", deferrable=given).deferrable is defers

    def test_has_to_be_a_truth_value(self) -> None:
        with pytest.raises(ValueError, match="Task 'task': deferrable: expected true or false, got 'maybe'"):
            version("x", deferrable="maybe")

    def test_stores_names_and_numbers(self) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            begin(version("dnobodys", deferrable=True, newer_than="3", tag={"approval": "approved"}, timeout=60))
        path, kwargs = deferred.value.trigger.serialize()

        assert path == "airflow_provider_hsml.triggers.AwaitModelVersionTrigger"
        assert kwargs.pop("deadline") == pytest.approx(time.time() + 60, abs=10)
        assert kwargs == {
            "hsml_conn_id": "hsml_default",
            "project": None,
            "model_name": "dnobodys",
            "wanted": {"newer_than": 3, "tag": {"approval": "approved"}},
            "poll_interval": 0.1,
            "longest_interval": None,
        }

    def test_no_line_of_a_log(self, stage: Stage) -> None:
        stage.how = {"deferrable": True}
        sensor = fails(stage)
        with pytest.raises(TaskDeferred) as deferred:
            begin(sensor)
        event = asyncio.run(first_event(deferred.value.trigger))

        assert event["status"] == "error"
        assert "its instances do not come up" in event["message"]
        assert "Last lines" not in event["message"]

    def test_with_longer_intervals(self) -> None:
        how: Any = {"exponential_backoff": True, "poke_interval": 2.0, "max_wait": timedelta(seconds=9)}
        with pytest.raises(TaskDeferred) as deferred:
            begin(version("dnobodys", deferrable=True, **how))
        kwargs = deferred.value.trigger.serialize()[1]

        assert (kwargs["poll_interval"], kwargs["longest_interval"]) == (2.0, 9.0)

    def test_ends_before_airflow_cuts_it_off(self) -> None:
        """Airflow 2 does at the task's own timeout, and later ones not at all."""
        sensor = version("dnobodys", deferrable=True, timeout=60, execution_timeout=timedelta(seconds=20))
        with pytest.raises(TaskDeferred) as deferred:
            begin(sensor)
        assert deferred.value.trigger.deadline < time.time() + 20 - 4

        with pytest.raises(AirflowTaskTimeout, match="execution_timeout of 20 s"):
            sensor.execute_complete(context(), trigger_event.failure(DeadlineExceededError("")), time.time() + 40)

    def test_is_over_when_there_is_no_time(self) -> None:
        with pytest.raises(AirflowSensorTimeout):
            begin(version("dnobodys", deferrable=True, timeout=0))

    def test_does_not_begin_anew_with_the_triggerer(self) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            begin(version("dnobodys", deferrable=True, timeout=1.0))
        time.sleep(1.0)
        begun = time.monotonic()

        assert asyncio.run(first_event(deferred.value.trigger))["code"] == "deadline_exceeded"
        assert time.monotonic() - begun < 1.0

    def test_no_two_looks_at_once(self, serving: LocalServing) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            begin(version("dnobodys", deferrable=True, timeout=1.2, poke_interval=0))
        serving.requests.clear()
        asyncio.run(first_event(deferred.value.trigger))

        assert reads(serving) <= 1 + 4, "the project, and a look each half second"

    @pytest.mark.parametrize(
        "event",
        [None, {}, "success", {"status": "success"}, {"status": "done", "result": {}}, {"status": "error"}],
        ids=str,
    )
    @pytest.mark.parametrize("kind", [status, version])
    def test_what_is_not_known_is_no_success(self, stage: Stage, kind: Any, event: Any) -> None:
        more = {"newer_than": 1} if kind is version else {}
        sensor = kind(stage.stopped("dunknown"), deferrable=True, **more)

        with pytest.raises(AirflowSensorTimeout):
            sensor.execute_complete(context(), event, time.time() + 0.5)

    def test_after_what_is_not_known_it_waits_on_in_its_worker(self, register: Callable[..., int]) -> None:
        sensor = version("dlater", deferrable=True, poke_interval=0.1)
        later = threading.Timer(0.5, register, ("dlater", 1))
        later.start()

        assert sensor.execute_complete(context(), {"codec": 99}, time.time() + 20)["model_version"] == 1
        later.join()

    def test_an_error_of_the_triggerer_alone_is_one(self) -> None:
        event = trigger_event.failure(CertificateError("the certificate does not verify"))

        with pytest.raises(AirflowFailException, match="the certificate does not verify"):
            version("dnobodys", deferrable=True).execute_complete(context(), event, time.time() + 20)

    def test_one_that_has_passed_is_none(self, register: Callable[..., int]) -> None:
        register("dpassed", 1)
        event = trigger_event.failure(CertificateError("no"))

        assert version("dpassed").execute_complete(context(), event, time.time() + 20)["model_version"] == 1


def plain(text: str) -> str:
    """Leave out what differs from run to run: numbers of versions, durations, names of instances."""
    return re.sub(r"\d[\d.]*|-[0-9a-z]{5,}", "*", text)


@pytest.fixture
def stage(
    hook: HsmlHook,
    serving: LocalServing,
    register: Callable[..., int],
    model_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Stage]:
    monkeypatch.setattr(rollout_tracker, "UNSCHEDULABLE_STAYS", 1.0)
    monkeypatch.setattr(rollout_tracker, "FAILED_STAYS", 1.0)
    yield Stage(hook, serving, register, model_file, monkeypatch, {})
    serving.faults.clear()
