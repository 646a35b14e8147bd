"""A change that is live and could not be verified stays pending: not rolled back, not rejected, not forgotten."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import DeployBestModelOperator, DeployModelOperator
from airflow_provider_hsml.hopsworks.domain import rollout_tracker
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    InvalidInputError,
    RequestRefusedError,
    SupersededError,
)
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.promotion import state as promotion_state
from airflow_provider_hsml.hopsworks.promotion.guarded_change import GuardedChange
from airflow_provider_hsml.hopsworks.promotion.journal import open_journal
from airflow_provider_hsml.hopsworks.promotion.situation import read_situation
from airflow_provider_hsml.hopsworks.promotion.way_back import WayBack
from airflow_provider_hsml.hopsworks.rollout.bake import Bake
from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch
from airflow_provider_hsml.hopsworks.transport.client import Client
from airflow_provider_hsml.local import Hold, LostChange, RequestFault, StartFault
from tests.support.tasks import FakeTaskInstance, before_the_change, changes, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

    Pend: TypeAlias = Callable[..., None]

_numbers = itertools.count()
QUICK: dict[str, Any] = {"poll_interval": 0.1, "timeout": 20.0}


def deploy(name: str, version: int, **more: Any) -> DeployModelOperator:
    return DeployModelOperator(task_id="deploy", model_name=name, model_version=version, **QUICK, **more)


def best(name: str, **more: Any) -> DeployBestModelOperator:
    return DeployBestModelOperator(task_id="best", model_name=name, metric="accuracy", direction="max", **QUICK, **more)


def third(name: str, **more: Any) -> DeployBestModelOperator:
    """Return a task that considers version 3 only, so that a pending version 2 has to be settled first."""
    return best(name, candidates=[3], **more)


@pytest.fixture
def refused(serving: LocalServing) -> Callable[[], None]:
    """Refuses the reads of one deployment by its id, as while its rollout is polled, with a 403 of Hopsworks' own."""

    def refuse() -> None:
        body = {"errorCode": 200014, "usrMsg": "not now"}
        serving.faults.add(RequestFault("GET", "/project/*/serving/*", status=403, body=body, times=3))

    return refuse


class TestAWorkerThatStoodStill:
    """Between its decision and its entry in the journal; its retry began and ended meanwhile."""

    def test_leaves_nothing_pending(
        self, hook: HsmlHook, register: Callable[..., int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = "pendingstill"
        for version, accuracy in ((1, 0.8), (2, 0.9)):
            register(name, version, accuracy=accuracy)
        execute(deploy(name, 1))

        ti = FakeTaskInstance()
        before_the_change(monkeypatch, lambda: execute(deploy(name, 2), ti))
        execute(deploy(name, 2), ti)

        assert ti.pushed["promotion"]["model_version"] == 2
        state = hook.get_promotion_state(name)
        assert (state.state, state.is_pending, state.model_version) == ("verified", False, 2)

    def test_does_not_deploy_again_what_its_retry_has_rolled_back(
        self,
        hook: HsmlHook,
        serving: LocalServing,
        register: Callable[..., int],
        model_file: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        name = "pendingbroken"
        monkeypatch.setattr(rollout_tracker, "FAILED_STAYS", 0.3)
        register(name, 1, accuracy=0.8)
        execute(deploy(name, 1))
        hook.register_model(model_name=name, model_path=model_file(broken="no weights"), framework="SKLEARN")

        ti = FakeTaskInstance()

        def retry() -> None:
            with pytest.raises(AirflowFailException, match="no weights"):
                execute(deploy(name, 2), ti)
            serving.requests.clear()

        before_the_change(monkeypatch, retry)
        with pytest.raises(AirflowFailException, match="rolled back by an earlier try of this task"):
            execute(deploy(name, 2), ti)

        assert changes(serving) == []
        assert hook.get_deployment(name).model_version == 1


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

        with pytest.raises(DeadlineExceededError, match=r"does not answer(.|\n)*sent but unverified"):
            execute(deploy(deployed, 2))
        assert hook.get_promotion_state(deployed).rejected == ()

    @pytest.mark.parametrize("watched", [RolloutWatch, Bake])
    @pytest.mark.parametrize("comes_back", [True, False])
    def test_after_the_change(
        self,
        hook: HsmlHook,
        deployed: str,
        serving: LocalServing,
        monkeypatch: pytest.MonkeyPatch,
        comes_back: bool,
        watched: type,
    ) -> None:
        """Evidence against the version, if the previous one answers after the rollback."""
        after_the_change(monkeypatch, lambda: serving.faults.add(DEAD), watched)
        if comes_back:
            monkeypatch.setattr(GuardedChange, "roll_back", first(serving.faults.clear, GuardedChange.roll_back))

        with pytest.raises(Exception, match=r"does not answer, although it should|it is unreachable"):
            execute(deploy(deployed, 2, verification={"bake_seconds": 0.5, "probe_interval": 0.1}))
        state = hook.get_promotion_state(deployed)
        assert [rejection.version for rejection in state.rejected] == ([2] if comes_back else [])
        assert hook.get_deployment(deployed).model_version == 1


def first(act: Callable[[], object], then: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that acts before it calls another."""

    def both(*args: Any, **more: Any) -> Any:
        act()
        return then(*args, **more)

    return both


def after_the_change(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], watched: Any = RolloutWatch) -> None:
    """Act when the first rollout is watched, or baked; a rollback is another one."""
    acts = [act]
    monkeypatch.setattr(watched, "run", first(lambda: [one() for one in acts], watched.run))
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


@pytest.fixture
def pend(hook: HsmlHook, register: Callable[..., int], serving: LocalServing) -> Pend:
    """Leaves version 2 of a model live and pending, above version 1; a third version is between them by its metric."""

    def leave_pending(name: str, *, before: Callable[[], None] = lambda: None, **given: Any) -> None:
        for version, accuracy in ((1, 0.8), (2, 0.9), (3, 0.85)):
            register(name, version, accuracy=accuracy)
        execute(deploy(name, 1, **{key: value for key, value in given.items() if key == "spec"}))
        before()
        body = {"errorCode": 200014, "usrMsg": "not now"}
        serving.faults.add(RequestFault("GET", "/project/*/serving/*", status=403, body=body))
        with pytest.raises(RequestRefusedError, match="live but unverified"):
            execute(deploy(name, 2, **given))
        assert hook.get_promotion_state(name).is_pending

    return leave_pending


class TestAnotherChangeThatWasNotSent:
    """It was recorded over the pending one, and refused: the pending one is still what is live."""

    @pytest.fixture
    def over(self, pend: Pend, serving: LocalServing) -> Callable[[str], None]:
        def refuse_another(name: str) -> None:
            pend(name)
            body = {"errorCode": 240003, "usrMsg": "quota exceeded"}
            serving.faults.add(RequestFault("PUT", "/project/*/serving", status=400, body=body))
            with pytest.raises(AirflowFailException, match="quota exceeded"):
                execute(deploy(name, 3))
            serving.requests.clear()

        return refuse_another

    def test_is_not_sent_by_the_next_run(
        self, over: Callable[[str], None], hook: HsmlHook, serving: LocalServing
    ) -> None:
        over("overrefused")

        record = execute(best("overrefused"))

        assert (record["action"], record["model_version"]) == ("attached", 2)
        assert "PUT" not in [method for method, what in changes(serving) if what == "serving"]
        assert hook.get_promotion_state("overrefused").state == "verified"

    def test_leaves_the_journal_as_it_was(
        self, register: Callable[..., int], hook: HsmlHook, serving: LocalServing
    ) -> None:
        """There is no pending change under it."""
        name = "refusedonce"
        for version in (1, 2):
            register(name, version, accuracy=0.8)
        execute(deploy(name, 1))
        body = {"errorCode": 240003, "usrMsg": "quota exceeded"}
        serving.faults.add(RequestFault("PUT", "/project/*/serving", status=400, body=body))
        with pytest.raises(AirflowFailException, match="quota exceeded"):
            execute(deploy(name, 2))

        state = hook.get_promotion_state(name)
        assert (state.state, state.model_version) == ("verified", 1)
        assert execute(deploy(name, 1))["action"] == "unchanged"

    def test_one_read_that_is_refused_after_it_does_not_make_it_one(
        self, register: Callable[..., int], hook: HsmlHook, serving: LocalServing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = "refusedread"
        calls: list[Any] = []
        for version in (1, 2):
            register(name, version, accuracy=0.8)
        execute(deploy(name, 1))
        send = Client.send

        def send_and_refuse(client: Client, call: Any) -> Any:
            answer = send(client, call)
            if call.method == "PUT" and call.path.endswith("serving"):
                body = {"errorCode": 200014, "usrMsg": "not now"}
                serving.faults.add(RequestFault("GET", "/project/*/serving", status=403, body=body))
            return answer

        monkeypatch.setattr(Client, "send", send_and_refuse)
        with pytest.raises(RequestRefusedError, match="live but unverified"):
            execute(deploy(name, 2, on_unverified=calls.append))

        assert [context["promotion"]["action"] for context in calls] == ["unverified"]
        assert hook.get_promotion_state(name).is_pending

    def test_is_not_accepted(self, over: Callable[[str], None], hook: HsmlHook) -> None:
        over("overaccepted")
        hook.start_deployment("overaccepted", poll_interval=0.1)

        assert hook.accept_pending("overaccepted").model_version == 2
        assert hook.get_deployment("overaccepted").model_version == 2


class TestSettling:
    @pytest.fixture(autouse=True)
    def _budget(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(predict, "ROUTE_BUDGET", 3.0)

    def test_waits_in_the_worker(self, pend: Pend, hook: HsmlHook) -> None:
        pend("settledeferred")

        assert execute(third("settledeferred", deferrable=True))["action"] == "kept"
        assert hook.get_promotion_state("settledeferred").state == "verified"

    def test_uses_the_checks_that_the_change_was_made_with(self, pend: Pend, hook: HsmlHook) -> None:
        pend("settlechecks", verification={"max_latency_ms": 0.0001, "on_failure": "leave"})
        ti = FakeTaskInstance()

        with pytest.raises(AirflowFailException, match=r"0\.0001 ms are allowed"):
            execute(third("settlechecks"), ti)

        state = hook.get_promotion_state("settlechecks")
        assert (state.state, state.rejected) == ("failed", ()), "it is left, as was asked for"
        assert hook.get_deployment("settlechecks").model_version == 2
        record = ti.pushed["promotion"]
        assert (record["action"], record["model_version"], record["previous_model_version"]) == ("failed", 2, 1)

    def test_needs_the_function_that_the_change_was_made_with(
        self, pend: Pend, hook: HsmlHook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name, below = "settlefunction", {"expect": f"{__name__}.is_below_two"}
        pend(name, verification=below)
        calls: list[Any] = []

        with pytest.raises(AirflowFailException, match=r"cannot be verified here(.|\n)*accept_pending"):
            execute(third(name, on_unverified=calls.append))
        assert [context["promotion"]["model_version"] for context in calls] == [2]
        assert hook.get_promotion_state(name).is_pending

        record = execute(third(name, verification=below, on_rollback=calls.append, gate={"floor": 0.86}))

        assert (record["action"], record["model_version"]) == ("kept", 1)
        assert "version 2, which an earlier run had not verified, was rolled back first" in record["reason"]
        assert (record["rolled_back"]["action"], record["rolled_back"]["model_version"]) == ("rolled_back", 2)
        assert [context["promotion"]["action"] for context in calls] == ["unverified", "rolled_back"]
        assert hook.get_deployment(name).model_version == 1

    @pytest.mark.since_hopsworks("4.6")
    def test_of_a_deployment_that_cannot_be_probed(self, pend: Pend, hook: HsmlHook) -> None:
        pend("settlegrpc", spec={"api_protocol": "GRPC"})

        assert execute(third("settlegrpc"))["action"] == "kept"
        assert hook.get_promotion_state("settlegrpc").state == "verified"

    @pytest.mark.parametrize("retries", [True, False])
    def test_remembers_the_previous_versions_answer(
        self,
        retries: bool,
        pend: Pend,
        hook: HsmlHook,
        serving: LocalServing,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The new version is slow to arrive, and the old instances answer until then."""
        monkeypatch.setattr(predict, "ROUTE_BUDGET", 0.5)
        name = f"settleslow{retries}".lower()
        pend(name, before=lambda: serving.faults.add(Hold(name, "Updating")))
        threading.Timer(4.0, serving.faults.clear).start()

        record = execute(deploy(name, 2) if retries else third(name))

        assert (record["action"], record["model_version"]) == ("attached" if retries else "kept", 2)
        assert hook.get_promotion_state(name).state == "verified"

    def test_waits_for_room_as_long_as_was_asked_for(
        self, pend: Pend, hook: HsmlHook, serving: LocalServing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rollout_tracker, "UNSCHEDULABLE_STAYS", 1.0)
        name = "settleroom"
        no_room = StartFault(name, stage="SCHEDULED", reason="schedule: no nodes", lasts=5.0)
        pend(name, before=lambda: serving.faults.add(no_room))

        assert execute(third(name, unschedulable_grace=30))["action"] == "kept"
        assert hook.get_deployment(name).model_version == 2


class TestAChangeThatNeverReachesTheCluster:
    def test_is_rolled_back_and_rejects_nothing(
        self, hook: HsmlHook, register: Callable[..., int], serving: LocalServing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its instances were never started, so nothing is known about the version."""
        monkeypatch.setattr(rollout_tracker, "NEVER_APPLIED", 1.0)
        cluster, name = serving.world.cluster, "pendingidle"
        register(name, 1)
        register(name, 2)
        execute(deploy(name, 1))
        monkeypatch.setattr(cluster, "profile", dataclasses.replace(cluster.profile, stale_status="Idle"))
        serving.faults.add(LostChange(name))

        with pytest.raises(AirflowFailException, match=r"never applied to the cluster(.|\n)*It was rolled back"):
            execute(deploy(name, 2))

        state = hook.get_promotion_state(name)
        assert (state.state, state.rejected) == ("rolled_back", ())


class TestNoRoom:
    def test_rejects_nothing_when_the_change_is_adopted(
        self, pend: Pend, hook: HsmlHook, serving: LocalServing
    ) -> None:
        name = "pendingroom"
        no_room = StartFault(name, stage="SCHEDULED", reason="schedule: no nodes")
        pend(name, before=lambda: serving.faults.add(no_room))
        wait_until_failed(hook, name)

        with pytest.raises(AirflowFailException, match=r"no nodes(.|\n)*It was rolled back"):
            execute(deploy(name, 2, unschedulable_grace=0.5))

        state = hook.get_promotion_state(name)
        assert (state.state, state.rejected) == ("rolled_back", ())
        assert hook.predict(name, instances=[[0.0]]) == {"predictions": [1]}


class TestAcceptingWhatIsNotSo:
    def test_of_a_deployment_that_does_not_serve(self, pend: Pend, hook: HsmlHook, serving: LocalServing) -> None:
        name = "acceptfailed"
        pend(name, before=lambda: serving.faults.add(StartFault(name, reason="boom")))
        wait_until_failed(hook, name)

        with pytest.raises(InvalidInputError, match="it does not serve: "):
            hook.accept_pending(name)
        assert hook.get_promotion_state(name).is_pending

    def test_of_a_journal_that_another_run_writes_meanwhile(
        self, pend: Pend, hook: HsmlHook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pend("acceptraced")
        hook.start_deployment("acceptraced", poll_interval=0.1)

        async def read_and_lose(project: Any, names: Any) -> Any:
            found = await read_situation(project, names)
            assert found.journal.newest is not None
            await (await open_journal(project, found.name)).write(found.journal.newest)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(promotion_state, "read_situation", read_and_lose)
            with pytest.raises(SupersededError, match="nothing was recorded"):
                hook.accept_pending("acceptraced")
        assert hook.get_promotion_state("acceptraced").is_pending


def wait_until_failed(hook: HsmlHook, name: str) -> None:
    deadline = time.monotonic() + 20.0
    while hook.get_deployment_state(name) != "Failed" and time.monotonic() < deadline:
        time.sleep(0.1)


def is_below_two(predictions: list[Any], _rows: list[Any]) -> bool:
    """Expect what only version 1 answers."""
    return bool(max(predictions) < 2)
