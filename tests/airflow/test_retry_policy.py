"""``HopsworksRetryPolicy``: its decisions, and the errors that operators leave to it."""

from __future__ import annotations

import importlib
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import DeployModelOperator, StartDeploymentOperator
from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    DeploymentFailedError,
    HopsworksError,
    InvalidInputError,
    RequestRefusedError,
    RolledBackError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.local.cluster.faults import RequestFault, StartFault
from tests.support.tasks import FakeTaskInstance, execute
from tests.system.test_example_dags import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.airflow
HAS_POLICIES = AIRFLOW >= (3, 3)
CAN_RESCHEDULE = AIRFLOW >= (3, 4)
MODULE = "airflow_provider_hsml.retry_policy"
QUOTA = RequestRefusedError("start", status=400, code=240003, text="Running deployments quota reached")
NO_ROOM = DeploymentFailedError(
    SimpleNamespace(id=1, name="digits", reason="no nodes", failed_component="predictor", is_unschedulable=True, raw={})
)


def _error_of(event: Any) -> HopsworksError:
    failure = trigger_event.read(event)
    assert isinstance(failure, trigger_event.Failure)
    return failure.error()


REPORTED = _error_of(trigger_event.failure(NO_ROOM))


@pytest.mark.skipif(HAS_POLICIES, reason="Airflow 3.3 and later have retry policies")
def test_an_earlier_airflow_is_named() -> None:
    with pytest.raises(ImportError, match=r"needs Airflow 3\.3 or later; this is Airflow [23]\.\d+\.\d+"):
        importlib.import_module(MODULE)


@pytest.mark.skipif(not HAS_POLICIES, reason="Airflow 3.3 and later have retry policies")
class TestDecisions:
    def decide(self, error: BaseException, retry_delay: float = 300.0, **given: Any) -> Any:
        policy = importlib.import_module(MODULE).HopsworksRetryPolicy(**given)
        context = {"task": SimpleNamespace(retry_delay=timedelta(seconds=retry_delay))}
        return policy.evaluate(exception=error, try_number=1, max_tries=2, context=context)

    @pytest.mark.parametrize("error", [QUOTA, NO_ROOM, REPORTED], ids=["quota", "no room", "by a trigger"])
    def test_without_capacity_the_task_runs_later(self, error: HopsworksError) -> None:
        decision = self.decide(error, capacity_delay=timedelta(minutes=5), capacity_timeout=3600)

        assert decision.action.value == ("reschedule" if CAN_RESCHEDULE else "retry")
        assert decision.retry_delay == timedelta(minutes=5)
        if CAN_RESCHEDULE:
            assert (decision.reschedule_timeout, decision.max_reschedules) == (timedelta(hours=1), None)

    @pytest.mark.parametrize(
        ("requested", "delay"), [(None, None), (299, None), (600, 600), (1e9, 3600), (float("inf"), 3600)]
    )
    def test_a_retry_is_never_before_the_time_that_the_server_asks_for(
        self, requested: float | None, delay: float | None
    ) -> None:
        decision = self.decide(UnexpectedResponseError("busy", status=503, retry_after=requested))

        assert decision.action.value == ("retry" if delay else "default")
        assert decision.retry_delay == (timedelta(seconds=delay) if delay else None)

    @pytest.mark.parametrize(
        ("error", "action", "delay"),
        [
            (UnexpectedResponseError("busy", status=503, retry_after=1200), "retry", 1200),
            (UnexpectedResponseError("busy", status=503, retry_after=float("inf")), "retry", 3600),
            (UnexpectedResponseError("busy", status=503), "default", None),
            (QUOTA, "reschedule" if CAN_RESCHEDULE else "retry", 600),
            (NO_ROOM, "reschedule" if CAN_RESCHEDULE else "retry", 600),
        ],
        ids=["after 1200 s", "after for ever", "busy", "quota", "no room"],
    )
    def test_of_a_deferred_wait_are_the_same(self, error: HopsworksError, action: str, delay: float | None) -> None:
        event = json.loads(json.dumps(trigger_event.failure(error), allow_nan=False))

        decision = self.decide(_error_of(event))

        assert decision.action.value == action
        assert decision.retry_delay == (None if delay is None else timedelta(seconds=delay))

    def test_of_an_event_of_an_older_version(self) -> None:
        event = trigger_event.failure(NO_ROOM)
        event["result"] = {}

        assert self.decide(_error_of(event)).retry_delay == timedelta(seconds=600)

    def test_of_an_event_whose_delay_is_none(self) -> None:
        event = trigger_event.failure(UnexpectedResponseError("busy", status=503, retry_after=1200))
        event["result"]["requested_delay"] = "soon"

        assert self.decide(_error_of(event)).action.value == "default"

    @pytest.mark.parametrize(
        ("error", "action"),
        [
            (InvalidInputError("wrong"), "fail"),
            (RequestRefusedError("start", status=403, code=320004, text="no scope"), "fail"),
            (RequestRefusedError("create", status=400, code=240026, text="no such script"), "fail"),
            (DeadlineExceededError("late"), "default"),
            (RuntimeError("of another kind"), "default"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_of_other_errors(self, error: BaseException, action: str) -> None:
        assert self.decide(error).action.value == action

    def test_without_a_context(self) -> None:
        policy = importlib.import_module(MODULE).HopsworksRetryPolicy()
        error = UnexpectedResponseError("busy", status=503, retry_after=5)

        assert policy.evaluate(error, 1, 2).retry_delay == timedelta(seconds=5)

    @pytest.mark.parametrize("name", ["capacity_delay", "capacity_timeout"])
    def test_wrong_arguments_are_errors_where_it_is_made(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match=name):
            importlib.import_module(MODULE).HopsworksRetryPolicy(**{name: -1})

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_a_promotion_that_was_rolled_back_for_want_of_room_is_tried_again(
        self, serving: LocalServing, register: Callable[..., int], hook: HsmlHook, deferrable: bool
    ) -> None:
        name = f"crowded{deferrable:d}"
        register(name, 1)
        hook.deploy_model(name, 1, poll_interval=0.1)
        register(name, 2)
        ti = FakeTaskInstance()
        policy = importlib.import_module(MODULE).HopsworksRetryPolicy()

        def promote(**given: Any) -> Any:
            how: dict[str, Any] = {"poll_interval": 0.1, "timeout": 30, "unschedulable_grace": 0.3} | given
            operator = DeployModelOperator(task_id="deploy", model_name=name, deferrable=deferrable, **how)
            return execute(operator, ti)

        no_room = StartFault(name, stage="SCHEDULED", reason="schedule: no nodes")
        serving.faults.add(no_room)
        with pytest.raises(AirflowFailException, match=r"no nodes(.|\n)*It was rolled back"):
            promote()
        serving.faults.add(no_room)
        with pytest.raises(RolledBackError) as caught:
            promote(retry_policy=policy)

        assert self.decide(caught.value).action.value == ("reschedule" if CAN_RESCHEDULE else "retry")
        assert hook.get_deployment(name).model_version == 1
        assert promote(retry_policy=policy)["model_version"] == 2

    def test_a_promotion_that_was_rolled_back_for_its_answers_is_not(
        self, serving: LocalServing, register: Callable[..., int], hook: HsmlHook
    ) -> None:
        name = "wrong"
        register(name, 1)
        hook.deploy_model(name, 1, poll_interval=0.1)
        register(name, 2)
        policy = importlib.import_module(MODULE).HopsworksRetryPolicy()
        serving.faults.add(StartFault(name))
        operator = DeployModelOperator(
            task_id="deploy", model_name=name, poll_interval=0.1, timeout=30, retry_policy=policy
        )

        with pytest.raises(AirflowFailException, match="It was rolled back"):
            execute(operator)

    def test_an_operator_leaves_a_quota_to_it_and_nothing_else(
        self, serving: LocalServing, register: Callable[..., int], hook: Any
    ) -> None:
        register("limited", 1)
        hook.save_deployment(deployment_name="limited", model_name="limited")
        hook.stop_deployment("limited")
        policy = importlib.import_module(MODULE).HopsworksRetryPolicy()

        def start(code: int, reason: str, **given: Any) -> None:
            body = {"errorCode": code, "usrMsg": reason}
            serving.faults.add(RequestFault("POST", "**/serving/*?action=START", status=400, body=body))
            execute(StartDeploymentOperator(task_id="start", deployment_name="limited", **given))

        with pytest.raises(AirflowFailException, match="quota reached"):
            start(240003, "quota reached")
        with pytest.raises(RequestRefusedError, match="quota reached") as caught:
            start(240003, "quota reached", retry_policy=policy)
        assert caught.value.is_out_of_capacity
        with pytest.raises(AirflowFailException, match="no such version"):
            start(240006, "no such version", retry_policy=policy)
