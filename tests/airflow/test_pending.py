"""A change that is live and could not be verified stays pending: not rolled back, not rejected, not forgotten."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml import DeployBestModelOperator, DeployModelOperator
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, InvalidInputError, RequestRefusedError
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.promotion.guarded_change import GuardedChange
from airflow_provider_hsml.hopsworks.promotion.way_back import WayBack
from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch
from airflow_provider_hsml.local import RequestFault
from tests.support.tasks import FakeTaskInstance, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

_numbers = itertools.count()
QUICK: dict[str, Any] = {"poll_interval": 0.1, "timeout": 20.0}


def deploy(name: str, version: int, **more: Any) -> DeployModelOperator:
    return DeployModelOperator(task_id="deploy", model_name=name, model_version=version, **QUICK, **more)


def best(name: str, **more: Any) -> DeployBestModelOperator:
    return DeployBestModelOperator(task_id="best", model_name=name, metric="accuracy", direction="max", **QUICK, **more)


@pytest.fixture
def refused(serving: LocalServing) -> Callable[[], None]:
    """Refuses the reads of one deployment by its id, as while its rollout is polled, with a 403 of Hopsworks' own."""

    def refuse() -> None:
        body = {"errorCode": 200014, "usrMsg": "not now"}
        serving.faults.add(RequestFault("GET", "/project/*/serving/*", status=403, body=body, times=3))

    return refuse


class TestARefusedReadDuringARollout:
    def test_leaves_the_change_live_and_pending(
        self,
        hook: HsmlHook,
        register: Callable[..., int],
        refused: Callable[[], None],
        serving: LocalServing,
        request: pytest.FixtureRequest,
    ) -> None:
        name = "pendingread"
        calls: list[Any] = []
        register(name, 1, accuracy=0.8)
        register(name, 2, accuracy=0.9)
        execute(deploy(name, 1))
        refused()
        ti = FakeTaskInstance()

        with pytest.raises(RequestRefusedError, match="live but unverified") as caught:
            execute(deploy(name, 2, on_unverified=calls.append, on_rollback=calls.append), ti)

        assert caught.value.transient, "Airflow is to retry the task"
        record = ti.pushed["promotion"]
        assert (record["action"], record["model_version"], record["previous_model_version"]) == ("unverified", 2, 1)
        assert [context["promotion"]["action"] for context in calls] == ["unverified"]
        assert hook.get_deployment(name).model_version == 2
        state = hook.get_promotion_state(name)
        assert (state.state, state.is_pending, state.model_version, state.rejected) == ("promoting", True, 2, ())

        serving.faults.clear()
        assert execute(deploy(name, 2))["action"] == "attached"
        assert hook.get_promotion_state(name).state == "verified"

    def test_is_settled_before_another_candidate_is_considered(
        self, hook: HsmlHook, register: Callable[..., int], refused: Callable[[], None], serving: LocalServing
    ) -> None:
        name = "pendingsettled"
        for version, accuracy in ((1, 0.8), (2, 0.9)):
            register(name, version, accuracy=accuracy)
        execute(deploy(name, 1))
        refused()
        with pytest.raises(RequestRefusedError, match="live but unverified"):
            execute(deploy(name, 2))
        serving.faults.clear()
        register(name, 3, accuracy=0.85)

        record = execute(best(name, candidates=[3]))

        assert (record["action"], record["model_version"]) == ("kept", 2), "it was verified, and is the champion"
        assert hook.get_promotion_state(name).state == "verified"

    def test_another_candidate_does_not_replace_one_that_cannot_be_verified(
        self, hook: HsmlHook, register: Callable[..., int], refused: Callable[[], None], serving: LocalServing
    ) -> None:
        name = "pendingkept"
        for version, accuracy in ((1, 0.8), (2, 0.9)):
            register(name, version, accuracy=accuracy)
        execute(deploy(name, 1))
        refused()
        with pytest.raises(RequestRefusedError, match="live but unverified"):
            execute(deploy(name, 2))
        register(name, 3, accuracy=0.95)
        serving.faults.clear()
        refused()

        with pytest.raises(RequestRefusedError, match="live but unverified"):
            execute(best(name))
        assert hook.get_deployment(name).model_version == 2
        serving.faults.clear()
        assert execute(best(name))["model_version"] == 3


PAGE = RequestFault("POST", "**/inference/**", status=502, body="<html>bad gateway</html>", times=None)
DEAD = RequestFault(
    "POST", "**/inference/**", status=500, body={"errorCode": 250007, "usrMsg": "no healthy upstream"}, times=None
)


class TestAModelThatCannotBeReached:
    @pytest.fixture(autouse=True)
    def deployed(
        self, serving: LocalServing, register: Callable[..., int], monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[str]:
        """A deployment of version 1, with a version 2 to deploy."""
        monkeypatch.setattr(predict, "ROUTE_BUDGET", 0.5)
        name = f"unreachable{next(_numbers)}"
        register(name, 1, accuracy=0.8)
        register(name, 2, accuracy=0.9)
        execute(deploy(name, 1))
        yield name
        serving.faults.clear()

    @pytest.mark.parametrize("fault", [PAGE, DEAD], ids=["a proxy's page", "as the previous version was"])
    def test_from_the_start(self, hook: HsmlHook, deployed: str, serving: LocalServing, fault: RequestFault) -> None:
        serving.faults.add(fault)

        with pytest.raises(
            DeadlineExceededError, match=r"does not answer(.|\n)*did not answer either(.|\n)*unverified"
        ):
            execute(deploy(deployed, 2))
        state = hook.get_promotion_state(deployed)
        assert (state.is_pending, state.rejected) == (True, ())
        assert hook.get_deployment(deployed).model_version == 2

        serving.faults.clear()
        assert execute(deploy(deployed, 2))["action"] == "attached"

    def test_behind_a_proxy_that_fails_after_the_change(
        self, hook: HsmlHook, deployed: str, serving: LocalServing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        after_the_change(monkeypatch, lambda: serving.faults.add(PAGE))

        with pytest.raises(DeadlineExceededError, match=r"does not answer(.|\n)*live but unverified"):
            execute(deploy(deployed, 2))
        assert hook.get_promotion_state(deployed).rejected == ()

    @pytest.mark.parametrize("comes_back", [True, False])
    def test_after_the_change(
        self,
        hook: HsmlHook,
        deployed: str,
        serving: LocalServing,
        monkeypatch: pytest.MonkeyPatch,
        comes_back: bool,
    ) -> None:
        """Evidence against the version, if the previous one answers after the rollback."""
        after_the_change(monkeypatch, lambda: serving.faults.add(DEAD))
        if comes_back:
            monkeypatch.setattr(GuardedChange, "roll_back", first(serving.faults.clear, GuardedChange.roll_back))

        with pytest.raises(Exception, match=r"does not answer, although it should"):
            execute(deploy(deployed, 2))
        state = hook.get_promotion_state(deployed)
        assert [rejection.version for rejection in state.rejected] == ([2] if comes_back else [])
        assert hook.get_deployment(deployed).model_version == 1


def first(act: Callable[[], object], then: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that acts before it calls another."""

    def both(*args: Any, **more: Any) -> Any:
        act()
        return then(*args, **more)

    return both


def after_the_change(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act when the first rollout is watched; a rollback is another one."""
    acts = [act]
    monkeypatch.setattr(RolloutWatch, "run", first(lambda: [one() for one in acts], RolloutWatch.run))
    monkeypatch.setattr(WayBack, "restore", first(acts.clear, WayBack.restore))


class TestByHand:
    def test_a_pending_change_is_accepted(
        self, hook: HsmlHook, register: Callable[..., int], refused: Callable[[], None], serving: LocalServing
    ) -> None:
        name = "pendingaccepted"
        register(name, 1, accuracy=0.8)
        register(name, 2, accuracy=0.9)
        execute(deploy(name, 1))
        with pytest.raises(InvalidInputError, match="expected a pending change to accept; there is none"):
            hook.accept_pending(name)
        refused()
        with pytest.raises(RequestRefusedError):
            execute(deploy(name, 2))
        serving.faults.clear()

        state = hook.accept_pending(name)

        assert (state.state, state.is_pending, state.reason) == ("verified", False, "accepted by hand")
        hook.start_deployment(name, poll_interval=0.1)  # It waits for the rollout, which may still be in progress.
        assert execute(deploy(name, 2))["action"] == "unchanged"

    def test_a_rejection_is_forgotten(self, hook: HsmlHook, register: Callable[..., int]) -> None:
        name = "pendingforgotten"
        register(name, 1, accuracy=0.8)
        register(name, 2, accuracy=0.9)
        execute(deploy(name, 1))
        execute(deploy(name, 2))
        hook.rollback_deployment(name)
        assert [one.version for one in hook.get_promotion_state(name).rejected] == [2]
        with pytest.raises(InvalidInputError, match="version 7 was not rejected; rejected versions: 2"):
            hook.forget_rejection(name, 7)

        assert hook.forget_rejection(name, 2).rejected == ()
        assert execute(best(name))["model_version"] == 2
