"""The end of a deferred task whose trigger never reports: a record, links, and a sentence that names the triggerer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_provider_hsml import (
    DeploymentStatusSensor,
    DeployModelOperator,
    HsmlHook,
    StartDeploymentOperator,
    StopDeploymentOperator,
)
from airflow_provider_hsml.deferral import DEFER_MARGIN
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError
from airflow_provider_hsml.local.cluster.faults import RequestFault, StartFault
from tests.support.tasks import FakeTaskInstance, begin, execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.airflow
TRIGGERER = "The triggerer has not reported the end of this"


def deferred(operator: Any, ti: FakeTaskInstance) -> TaskDeferred:
    """Begin a task that defers."""
    with pytest.raises(TaskDeferred) as caught:
        begin(operator, ti)
    return caught.value


def fail(operator: Any, ti: FakeTaskInstance) -> Any:
    """Resume a task as Airflow does after a trigger's timeout: what was kept for it is lost."""
    fresh = copy.copy(operator)
    fresh.__dict__.pop("hook", None)
    return fresh.resume_execution("__fail__", {"error": "Trigger timeout"}, {"ti": ti})


def test_a_promotion(hook: HsmlHook, serving: LocalServing, register: Callable[..., int]) -> None:
    register("unheard", 1)
    register("unheard", 2)
    hook.deploy_model("unheard", 1, poll_interval=0.1)
    operator = DeployModelOperator(
        task_id="deploy", model_name="unheard", deferrable=True, timeout=100, poll_interval=0.1
    )
    ti = FakeTaskInstance()
    left = deferred(operator, ti)
    assert left.timeout is not None
    assert 50 + DEFER_MARGIN < left.timeout.total_seconds() <= 100 + DEFER_MARGIN
    ti.pushed.clear()

    with pytest.raises(DeadlineExceededError, match=rf"{TRIGGERER}.*\(Trigger timeout\)") as caught:
        fail(operator, ti)

    assert caught.value.transient
    assert "airflow triggerer" in str(caught.value).splitlines()[1]
    record = ti.pushed["promotion"]
    assert (record["deployment_name"], record["model_version"], record["previous_model_version"]) == ("unheard", 2, 1)
    assert record["action"] == "unverified"
    assert TRIGGERER in record["failure"]
    assert {"hsml_deployment_url", "hsml_model_version_url", "url"} <= set(ti.pushed)
    again = execute(operator, ti)
    assert (again["action"], again["model_version"]) == ("attached", 2), "the change was pending"


def test_a_promotion_whose_project_cannot_be_read(
    hook: HsmlHook, register: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence is the same; only the record is missing."""
    register("unheardof", 1)
    operator = DeployModelOperator(task_id="deploy", model_name="unheardof", deferrable=True)
    monkeypatch.setattr(
        "airflow_provider_hsml.hopsworks.promotion.unreported.read_situation",
        lambda *_: (_ for _ in ()).throw(DeadlineExceededError("unreachable")),
    )
    assert hook.get_models("unheardof")

    with pytest.raises(DeadlineExceededError, match=TRIGGERER):
        fail(operator, FakeTaskInstance())


def test_a_promotion_while_hopsworks_is_down(
    hook: HsmlHook, serving: LocalServing, register: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    register("downunheard", 1)
    operator = DeployModelOperator(task_id="deploy", model_name="downunheard", deferrable=True)
    monkeypatch.setattr("airflow_provider_hsml.hopsworks.transport.request.ATTEMPTS", 1)
    serving.faults.add(RequestFault(status=503, body="<html>", times=None))

    with pytest.raises(DeadlineExceededError, match=TRIGGERER):
        fail(operator, FakeTaskInstance())
    serving.faults.clear()


def test_a_start(hook: HsmlHook, serving: LocalServing, register: Callable[..., int]) -> None:
    register("unstarted", 1)
    hook.save_deployment(deployment_name="unstarted", model_name="unstarted")
    hook.stop_deployment("unstarted", poll_interval=0.1)
    serving.faults.add(StartFault("unstarted", stage="SCHEDULED", lasts=30))
    operator = StartDeploymentOperator(task_id="start", deployment_name="unstarted", deferrable=True, timeout=60)
    ti = FakeTaskInstance()
    assert deferred(operator, ti).timeout is not None
    ti.pushed.clear()

    with pytest.raises(DeadlineExceededError, match=TRIGGERER):
        fail(operator, ti)

    assert set(ti.pushed) == {"hsml_deployment_url"}


def test_a_stop_reads_the_state(hook: HsmlHook, register: Callable[..., int]) -> None:
    register("unstopped", 1)
    hook.save_deployment(deployment_name="unstopped", model_name="unstopped")
    hook.stop_deployment("unstopped", poll_interval=0.1)
    operator = StopDeploymentOperator(task_id="stop", deployment_name="unstopped", deferrable=True)

    assert fail(operator, FakeTaskInstance())["status"] == "Stopped"


def test_a_sensor(hook: HsmlHook, register: Callable[..., int]) -> None:
    """Airflow decides how it ends, and its log names the triggerer."""
    register("unseen", 1)
    hook.save_deployment(deployment_name="unseen", model_name="unseen")
    sensor = DeploymentStatusSensor(task_id="wait", deployment_name="unseen", target_status="Failed", deferrable=True)
    deferred(sensor, FakeTaskInstance())

    with pytest.raises(AirflowException):
        fail(sensor, FakeTaskInstance())


def test_another_failure_of_airflow_is_not_ours() -> None:
    class Odd(StartDeploymentOperator):
        def resume(self, *_: Any, **__: Any) -> Any:
            raise AirflowException("something else")

    operator = Odd(task_id="start", deployment_name="x", deferrable=True)
    context: Any = {"ti": FakeTaskInstance()}

    with pytest.raises(AirflowException, match="something else"):
        operator.resume_execution("resume", {}, context)
