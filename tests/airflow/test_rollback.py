"""A challenger that fails is taken back, and production is as it was; by hand, too."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentVersion
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState
from airflow_provider_hsml.hopsworks.errors import RequestRefusedError, SupersededError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.flow import Sleep
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.promotion.journal import open_journal
from airflow_provider_hsml.hopsworks.rollout import watch
from airflow_provider_hsml.local import Administration, LocalServing
from airflow_provider_hsml.local.cluster.faults import RequestFault
from airflow_provider_hsml.operators import (
    DeployBestModelOperator,
    DeployModelOperator,
    RollbackDeploymentOperator,
)
from tests.conftest import HOPSWORKS, run_model
from tests.support.tasks import FakeTaskInstance, before_the_change, change_by_rest, changes, execute, resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_hsml.hopsworks.domain.judge import ProbeResult


pytestmark = pytest.mark.hopsworks

_numbers = itertools.count()


@pytest.fixture
def liar(hook: HsmlHook, model_file: Callable[..., Any]) -> Callable[..., int]:
    """Registers models that answer otherwise than was recorded."""

    def make(name: str, *, says: int = 66, answers: int = 6, **metrics: float) -> int:
        rows = [[0.0], [1.0]]
        return hook.register_model(
            model_name=name,
            model_path=model_file(answer=answers),
            framework="SKLEARN",
            metrics=metrics,
            input_example=rows,
            expected={"instances": rows, "predictions": [says] * 2},
        ).version

    return make


PATHS = (
    None,
    "/Projects/example/Models/{name}/",
    "/Projects/example/Models/{name}/2",
    "hdfs:///Projects/example/Models/{name}",
    "/Projects/EXAMPLE/Models/{name}",
)
"""Forms in which a server may write the path of a model of the project ``example``."""


def _read_with_path(read: Callable[..., Any], path: str | None, data: Mapping[str, Any]) -> Any:
    return read({**data, "modelPath": path})


def serving_version(serving: LocalServing, name: str) -> Any:
    """Ask the process which version it has."""
    shown = serving.world.project(119).deployments.all_shown()
    return next(row["answering"] for row in shown if row["name"] == name)


def best(name: str, **given: Any) -> DeployBestModelOperator:
    return DeployBestModelOperator(task_id="deploy", model_name=name, metric="auc", **{"direction": "max", **given})


class TestAChallengerThatFails:
    @pytest.mark.airflow
    def test_is_taken_back_and_not_tried_again(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], liar: Callable[..., int]
    ) -> None:
        register("back1", 1, auc=0.8)
        execute(best("back1"))
        liar("back1", auc=0.9)
        ti = FakeTaskInstance()

        with pytest.raises(AirflowFailException, match=r"answers otherwise than recorded(.|\n)*It was rolled back"):
            execute(best("back1"), ti)

        record = ti.pushed["promotion"]
        assert (record["action"], record["model_version"], record["previous_model_version"]) == ("rolled_back", 2, 1)
        assert record["status"] == "Running"
        assert serving_version(serving, "back1") == 1
        assert hook.predict("back1", instances=[[0.0]]) == {"predictions": [1]}
        serving.requests.clear()

        again = execute(best("back1"))

        assert again["action"] == "kept"
        assert "rejected" in again["reason"]
        assert [method for method, _ in changes(serving)] == ["POST"], "one probe"

    def test_a_first_deployment_is_stopped(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], liar: Callable[..., int]
    ) -> None:
        liar("back2", auc=0.9)
        ti = FakeTaskInstance()

        with pytest.raises(AirflowFailException, match="It was stopped"):
            execute(best("back2"), ti)

        assert ti.pushed["promotion"]["action"] == "rolled_back"
        assert hook.get_deployment_state("back2") == "Stopped"
        serving.requests.clear()

        assert execute(best("back2"))["action"] == "kept", "what failed is not started again"
        assert changes(serving) == []

        register("back2", 5, auc=0.7)
        assert execute(best("back2"))["action"] == "updated", "there is no champion that it would have to beat"
        assert serving_version(serving, "back2") == 2

    def test_that_does_not_come_up(
        self,
        serving: LocalServing,
        hook: HsmlHook,
        register: Callable[..., int],
        model_file: Callable[..., Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        register("back3", 1, auc=0.8)
        execute(best("back3"))
        hook.register_model(
            model_name="back3", model_path=model_file(broken="no such layer"), framework="SKLEARN", metrics={"auc": 1}
        )

        ti = FakeTaskInstance()
        with pytest.raises(AirflowFailException, match=r"no such layer\nIt was rolled back: .* serves again"):
            execute(best("back3"), ti)
        assert "Last lines of" in caplog.text
        assert "Last lines of" not in ti.pushed["promotion"]["reason"], "what a script prints is not kept"
        assert "serves again" in ti.pushed["promotion"]["reason"]
        assert hook.predict("back3", instances=[[0.0]]) == {"predictions": [1]}

    def test_configuration_comes_back_too(
        self, hook: HsmlHook, register: Callable[..., int], liar: Callable[..., int]
    ) -> None:
        register("back4", 1, auc=0.8)
        execute(best("back4", spec={"resources": {"instances": 1}, "inference_batcher": {"enabled": False}}))
        before = resource(hook, "back4")
        liar("back4", auc=0.9)

        with pytest.raises(AirflowFailException, match="serves again"):
            execute(best("back4", spec={"resources": {"instances": 2}, "inference_batcher": {"enabled": True}}))

        after = resource(hook, "back4")
        for key in ("requestedInstances", "batchingConfiguration", "modelVersion"):
            assert after[key] == before[key]


def test_reads_that_lack_the_revision_now_and_then(
    hook: HsmlHook, register: Callable[..., int], liar: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no other client's change: the bad version is rolled back."""
    name, reads, read = f"lacks{next(_numbers)}", itertools.count(1), Deployment.from_json

    def spoilt(data: dict[str, Any]) -> Deployment:
        return read(data | {"revision": None} if next(reads) % 6 == 0 else data)

    register(name, 1, auc=0.8)
    execute(best(name))
    liar(name, auc=0.9)
    monkeypatch.setattr(Deployment, "from_json", spoilt)

    with pytest.raises(AirflowFailException, match="It was rolled back"):
        execute(best(name))
    assert next(reads) > 8
    monkeypatch.undo()
    state = hook.get_promotion_state(name)
    assert (state.state, [one.version for one in state.rejected]) == ("rolled_back", [2])


class TestWhatWasNeverVerified:
    """Whatever left it there: the next run does not take it for what serves well."""

    @pytest.fixture(autouse=True)
    def _budget(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(predict, "ROUTE_BUDGET", 5.0)

    def test_because_it_was_left_by_choice(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], liar: Callable[..., int]
    ) -> None:
        register("left1", 1, auc=0.8)
        execute(best("left1"))
        liar("left1", auc=0.9)
        leave = {"on_failure": "leave"}
        ti = FakeTaskInstance()

        with pytest.raises(AirflowFailException, match="answers otherwise"):
            execute(best("left1", verification=leave), ti)
        assert ti.pushed["promotion"]["action"] == "failed"
        assert serving_version(serving, "left1") == 2
        with pytest.raises(AirflowFailException, match="answers otherwise"):
            execute(best("left1", verification=leave))

        with pytest.raises(AirflowFailException, match="serves again"):
            execute(best("left1"))
        assert hook.predict("left1", instances=[[0.0]]) == {"predictions": [1]}

    def test_because_somebody_interfered(
        self,
        serving: LocalServing,
        hook: HsmlHook,
        register: Callable[..., int],
        liar: Callable[..., int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        register("left2", 1, auc=0.8)
        execute(best("left2"))
        liar("left2", auc=0.9)

        async def stop_and_start(*_: object, **__: object) -> ProbeResult:
            hook.stop_deployment("left2")
            hook.start_deployment("left2", wait=False)
            await Sleep(0.0)
            raise SupersededError("somebody else did it")

        with monkeypatch.context() as patch:
            for probes in ("probe_early", "probe_rollout"):
                patch.setattr(watch, probes, stop_and_start)
            with pytest.raises(AirflowFailException, match="somebody else"):
                execute(best("left2"))
        with pytest.raises(AirflowFailException, match="answers otherwise"):
            execute(best("left2"))


class TestByHand:
    @pytest.mark.airflow
    def test_to_what_it_was_and_forth_again(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int]
    ) -> None:
        register("hand1", 1, auc=0.8)
        execute(best("hand1"))
        register("hand1", 2, auc=0.9)
        execute(best("hand1"))
        back = RollbackDeploymentOperator(task_id="back", deployment_name="hand1")

        ti = FakeTaskInstance()
        record = execute(back, ti)
        again = execute(back, ti)
        cleared = execute(back, dataclasses.replace(ti, max_tries=1))

        assert (record["action"], record["model_version"], record["previous_model_version"]) == ("rolled_back", 1, 2)
        assert record["verified_by"] == "fingerprint"
        assert (again["action"], again["model_version"], again["previous_model_version"]) == ("rolled_back", 1, 2)
        assert (cleared["action"], cleared["model_version"]) == ("unchanged", 1)
        assert serving_version(serving, "hand1") == 1
        assert execute(back)["model_version"] == 2
        assert serving_version(serving, "hand1") == 2

    def test_while_a_person_forgets_a_rejection(
        self,
        serving: LocalServing,
        hook: HsmlHook,
        register: Callable[..., int],
        liar: Callable[..., int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        register("hand8", 1, auc=0.7)
        execute(best("hand8"))
        liar("hand8", auc=0.8)
        with pytest.raises(AirflowFailException, match="serves again"):
            execute(best("hand8"))
        register("hand8", 3, auc=0.9)
        execute(best("hand8"))
        before_the_change(monkeypatch, lambda: hook.forget_rejection("hand8", 2))
        record = execute(RollbackDeploymentOperator(task_id="back", deployment_name="hand8"))

        assert (record["action"], record["model_version"]) == ("rolled_back", 1)
        assert serving_version(serving, "hand8") == 1
        assert [one.version for one in hook.get_promotion_state("hand8").rejected] == [3]

    def test_what_was_taken_back_already_is_not_rolled_back_further(
        self, serving: LocalServing, register: Callable[..., int], liar: Callable[..., int]
    ) -> None:
        for number in (1, 2):
            register("hand5", number, auc=0.8 + number / 100)
            execute(best("hand5"))
        liar("hand5", auc=0.9)
        with pytest.raises(AirflowFailException):
            execute(best("hand5"))

        record = execute(RollbackDeploymentOperator(task_id="back", deployment_name="hand5"))

        assert (record["action"], record["model_version"]) == ("unchanged", 2)
        assert serving_version(serving, "hand5") == 2

    @pytest.mark.parametrize("reject", [True, "False"])
    def test_what_was_taken_away_is_not_chosen_again_unless_it_may_be(
        self, reject: bool | str, serving: LocalServing, register: Callable[..., int]
    ) -> None:
        name = f"hand4{reject}".lower()
        register(name, 1, auc=0.8)
        execute(best(name))
        register(name, 2, auc=0.9)
        execute(best(name))
        execute(RollbackDeploymentOperator(task_id="back", deployment_name=name, reject=reject))

        record = execute(best(name))

        assert record["action"] == ("kept" if reject is True else "updated")
        assert ("rolled back from by hand" in record["reason"]) == (reject is True)
        assert serving_version(serving, name) == (1 if reject is True else 2)

    def test_one_that_another_client_interrupted_does_not_lead_back_again(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A nightly run confirms what serves since; then the rollback is cleared, and repeated by another run."""
        for number in (1, 2):
            register("hand6", number, auc=0.8 + number / 100)
            execute(best("hand6"))
        back, ti = RollbackDeploymentOperator(task_id="back", deployment_name="hand6"), FakeTaskInstance()

        async def change_it(*_: object, **__: object) -> ProbeResult:
            change_by_rest(hook, "hand6", take_less_memory)
            await Sleep(0.0)
            raise SupersededError("somebody else did it")

        with monkeypatch.context() as patch:
            for probes in ("probe_early", "probe_rollout"):
                patch.setattr(watch, probes, change_it)
            with pytest.raises(AirflowFailException, match="somebody else"):
                execute(back, ti)
        assert execute(best("hand6"))["action"] in ("kept", "attached")

        for again in (dataclasses.replace(ti, max_tries=1), dataclasses.replace(ti, max_tries=2), FakeTaskInstance()):
            assert execute(back, again)["model_version"] == 1
            assert serving_version(serving, "hand6") == 1

    def test_one_whose_outcome_was_confirmed_since_does_not_lead_back_when_it_is_cleared(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int]
    ) -> None:
        for number in (1, 2):
            register("hand7", number, auc=0.8 + number / 100)
            execute(best("hand7"))
        back, ti = RollbackDeploymentOperator(task_id="back", deployment_name="hand7"), FakeTaskInstance()
        execute(back, ti)
        change_by_rest(hook, "hand7", take_less_memory)
        assert execute(best("hand7"))["model_version"] == 1

        assert execute(back, dataclasses.replace(ti, max_tries=1))["model_version"] == 1
        assert serving_version(serving, "hand7") == 1

    def test_to_a_model_version(self, serving: LocalServing, register: Callable[..., int]) -> None:
        register("hand2", 1, auc=0.8)
        register("hand2", 2, auc=0.9)
        execute(DeployModelOperator(task_id="deploy", model_name="hand2", model_version=2))

        record = execute(RollbackDeploymentOperator(task_id="back", deployment_name="hand2", model_version="1"))

        assert record["model_version"] == 1
        assert serving_version(serving, "hand2") == 1

    @pytest.mark.since_hopsworks("5.2")
    def test_to_a_version_of_the_deployment(self, serving: LocalServing, register: Callable[..., int]) -> None:
        for number in (1, 2, 3):
            register("hand3", number, auc=0.8 + number / 100)
            execute(best("hand3"))

        record = execute(RollbackDeploymentOperator(task_id="back", deployment_name="hand3", to="1"))

        assert record["model_version"] == 1
        assert serving_version(serving, "hand3") == 1

        with pytest.raises(AirflowFailException, match="has no deployment version 9: it has"):
            execute(RollbackDeploymentOperator(task_id="back", deployment_name="hand3", to=9))

    @pytest.mark.since_hopsworks("5.2")
    @pytest.mark.parametrize("body", [{"count": 0}, []], ids=str)
    def test_a_list_of_versions_that_was_not_read_ends_no_rollback(
        self, body: Any, serving: LocalServing, hook: HsmlHook, register: Callable[..., int]
    ) -> None:
        """The journal holds no values of environment variables: the kept version does."""
        name = f"env{next(_numbers)}"
        for number in (1, 2):
            register(name, number, auc=0.8 + number / 100)
            execute(best(name, spec={"env_vars": {"LEVEL": str(number)}}))
        back, ti = RollbackDeploymentOperator(task_id="back", deployment_name=name), FakeTaskInstance()
        serving.faults.add(RequestFault("GET", "/project/*/serving/*/versions", status=200, body=body))
        with pytest.raises(UnexpectedResponseError, match="the active one"):
            execute(back, ti)

        assert execute(back, ti)["model_version"] == 1
        assert resource(hook, name)["predictorEnvVars"] == ["LEVEL=1"]


class TestOfOnePromotion:
    """In a task that runs when a later check fails, whatever it was that failed."""

    @pytest.fixture
    def promoted(self, register: Callable[..., int]) -> tuple[str, dict[str, Any]]:
        """Give a deployment that serves the second version, and the record of that."""
        name = f"one{next(_numbers)}"
        register(name, 1, auc=0.8)
        execute(best(name))
        register(name, 2, auc=0.81)
        return name, execute(best(name))

    @staticmethod
    def roll_back(name: str, promotion: Any) -> dict[str, Any]:
        back = RollbackDeploymentOperator(task_id="back", deployment_name=name, promotion=promotion)
        record: dict[str, Any] = execute(back)
        return record

    @pytest.mark.airflow
    def test_what_it_has_changed_is_rolled_back(
        self, promoted: tuple[str, dict[str, Any]], serving: LocalServing
    ) -> None:
        name, record = promoted

        record = self.roll_back(name, json.dumps(record))

        assert (record["action"], record["model_version"]) == ("rolled_back", 1)
        assert serving_version(serving, name) == 1

    @pytest.mark.parametrize("form", PATHS)
    def test_whatever_the_server_writes_as_the_path_of_the_model(
        self,
        form: str | None,
        promoted: tuple[str, dict[str, Any]],
        serving: LocalServing,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """An unknown owner is no other owner: what was promoted is rolled back, rejected, and not chosen again."""
        name, record = promoted
        path = form and form.format(name=name)
        for kind in (Deployment, DeploymentVersion):
            monkeypatch.setattr(kind, "from_json", functools.partial(_read_with_path, kind.from_json, path))

        record = self.roll_back(name, record)

        assert (record["action"], record["model_version"]) == ("rolled_back", 1)
        assert serving_version(serving, name) == 1
        again = execute(best(name))
        assert again["action"] == "kept"
        assert "rolled back from by hand" in again["reason"]

    def test_what_it_has_left_pending(self, promoted: tuple[str, dict[str, Any]], serving: LocalServing) -> None:
        name, _ = promoted
        body = {"errorCode": 200014, "usrMsg": "not now"}
        serving.faults.add(RequestFault("GET", "/project/*/serving/*", status=403, body=body))
        ti = FakeTaskInstance()
        spec = {"inference_batcher": {"enabled": True}}
        with pytest.raises(RequestRefusedError, match="live but unverified"):
            execute(best(name, spec=spec), ti)

        record = self.roll_back(name, ti.pushed["promotion"])

        assert (ti.pushed["promotion"]["action"], record["action"]) == ("unverified", "rolled_back")
        assert serving_version(serving, name) == 2
        assert resource(HsmlHook(), name)["batchingConfiguration"]["batchingEnabled"] is False

    def test_what_it_has_left_unverified_by_choice(
        self, promoted: tuple[str, dict[str, Any]], serving: LocalServing, liar: Callable[..., int]
    ) -> None:
        name, _ = promoted
        liar(name, auc=0.9)
        ti = FakeTaskInstance()
        with pytest.raises(AirflowFailException):
            execute(best(name, verification={"on_failure": "leave"}), ti)

        record = self.roll_back(name, ti.pushed["promotion"])

        assert (record["action"], record["model_version"]) == ("rolled_back", 2)
        assert serving_version(serving, name) == 2

    def test_nothing_where_it_changed_nothing(
        self, promoted: tuple[str, dict[str, Any]], serving: LocalServing
    ) -> None:
        name, _ = promoted

        record = self.roll_back(name, execute(best(name)))

        assert (record["action"], record["model_version"]) == ("unchanged", 2)
        assert "ended with 'kept'" in record["reason"]
        assert serving_version(serving, name) == 2

    def test_nothing_where_it_failed_without_a_change(
        self, promoted: tuple[str, dict[str, Any]], serving: LocalServing
    ) -> None:
        name, _ = promoted
        ti = FakeTaskInstance()
        body = {"errorCode": 240026, "errorMsg": "quota"}
        serving.faults.add(RequestFault(method="PUT", path="/project/*/serving", status=400, body=body, times=1))
        with pytest.raises(AirflowFailException, match="240026"):
            execute(best(name, spec={"inference_batcher": {"enabled": True}}), ti)

        record = self.roll_back(name, ti.pushed["promotion"])

        assert (record["action"], record["model_version"]) == ("unchanged", 2)
        assert "failed" in record["reason"]
        assert serving_version(serving, name) == 2

    def test_nothing_where_it_was_taken_back(
        self, promoted: tuple[str, dict[str, Any]], serving: LocalServing, liar: Callable[..., int]
    ) -> None:
        name, _ = promoted
        liar(name, auc=0.9)
        ti = FakeTaskInstance()
        with pytest.raises(AirflowFailException):
            execute(best(name), ti)

        record = self.roll_back(name, ti.pushed["promotion"])

        assert (record["action"], record["model_version"]) == ("unchanged", 2)
        assert serving_version(serving, name) == 2

    def test_nothing_where_another_was_promoted_since(
        self, promoted: tuple[str, dict[str, Any]], serving: LocalServing, register: Callable[..., int]
    ) -> None:
        name, earlier = promoted
        register(name, 3, auc=0.9)
        execute(best(name))

        record = self.roll_back(name, earlier)

        assert (record["action"], record["model_version"]) == ("unchanged", 3)
        assert "changed again since" in record["reason"]
        assert serving_version(serving, name) == 3

    def test_before_the_first_there_was_nothing(self, serving: LocalServing, register: Callable[..., int]) -> None:
        register("one", 1, auc=0.8)
        record = execute(best("one"))

        with pytest.raises(AirflowFailException, match="nothing served before"):
            self.roll_back("one", record)
        assert serving_version(serving, "one") == 1

    @pytest.mark.airflow
    @pytest.mark.parametrize("promotion", ["", "None", "[]", {"action": "updated"}])
    def test_what_is_no_record_is_refused(self, promotion: Any, promoted: tuple[str, dict[str, Any]]) -> None:
        with pytest.raises(
            AirflowFailException, match=r"promotion: (expected|text as the whole value is read as JSON)"
        ):
            self.roll_back(promoted[0], promotion)

    def test_of_another_deployment_or_beside_a_model_version(self, promoted: tuple[str, dict[str, Any]]) -> None:
        name, record = promoted
        with pytest.raises(AirflowFailException, match=f"of deployment {name!r}; expected one of 'other'"):
            self.roll_back("other", record)
        back = RollbackDeploymentOperator(task_id="back", deployment_name=name, promotion=record, model_version=1)
        with pytest.raises(AirflowFailException, match="no model_version beside it"):
            execute(back)


class TestWhatRetentionLeaves:
    """The versions that a rollback needs, also where only the journal names them: before Hopsworks 5.2."""

    def test_the_version_before_a_pending_change(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], liar: Callable[..., int]
    ) -> None:
        register("rest1", 1, auc=0.8)
        execute(best("rest1"))
        liar("rest1", auc=0.9)
        body = {"errorCode": 200014, "usrMsg": "not now"}
        serving.faults.add(RequestFault("GET", "/project/*/serving/*", status=403, body=body))
        with pytest.raises(RequestRefusedError, match="live but unverified"):
            execute(best("rest1"))
        serving.faults.clear()

        assert hook.delete_model_versions("rest1", keep=1).deleted == ()

        with pytest.raises(AirflowFailException, match="serves again"):
            execute(best("rest1"))
        assert serving_version(serving, "rest1") == 1

    def test_the_version_before_a_change_that_is_verified(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int]
    ) -> None:
        for number in (1, 2, 3):
            register("rest2", number, auc=0.8 + number / 100)
        for number in (2, 3):
            execute(DeployModelOperator(task_id="deploy", model_name="rest2", model_version=number))

        assert hook.delete_model_versions("rest2", keep=1).deleted == (1,)

        back = RollbackDeploymentOperator(task_id="back", deployment_name="rest2")
        assert execute(back)["model_version"] == 2
        assert hook.delete_model_versions("rest2", keep=1).deleted == ()
        assert execute(back)["model_version"] == 3, "and forth again"
        assert serving_version(serving, "rest2") == 3


class TestRecreate:
    def test_is_stopped_for_the_change(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int]
    ) -> None:
        register("anew1", 1, auc=0.8)
        execute(best("anew1"))
        register("anew1", 2, auc=0.9)
        serving.requests.clear()

        record = execute(best("anew1", rollout="recreate"))

        assert record["action"] == "updated"
        assert record["downtime_seconds"] > 0
        assert serving_version(serving, "anew1") == 2
        assert hook.predict("anew1", instances=[[0.0]]) == {"predictions": [2]}

    def test_a_challenger_that_fails(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], liar: Callable[..., int]
    ) -> None:
        register("anew2", 1, auc=0.8)
        execute(best("anew2"))
        liar("anew2", auc=0.9)

        with pytest.raises(AirflowFailException, match="serves again"):
            execute(best("anew2", rollout="recreate"))
        assert hook.predict("anew2", instances=[[0.0]]) == {"predictions": [1]}

    def test_a_change_that_is_refused_after_the_stop(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int]
    ) -> None:
        register("anew3", 1, auc=0.8)
        execute(best("anew3"))
        register("anew3", 2, auc=0.9)
        body = {"errorCode": 240026, "errorMsg": "quota"}
        serving.faults.add(RequestFault(method="PUT", path="/project/*/serving", status=400, body=body, times=1))

        with pytest.raises(AirflowFailException, match="240026"):
            execute(best("anew3", rollout="recreate"))
        assert execute(best("anew3"))["action"] == "updated"


def test_what_an_older_hopsworks_leaves_out_is_in_no_way_back_either(
    serving: LocalServing, model_file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 4.7 there are no environment variables: the change is not what was asked for."""
    with LocalServing(engine=run_model, hopsworks_version="4.6") as older:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", older.connection)
        hook = HsmlHook()
        for answer in (1, 2):
            hook.register_model(model_name="older", model_path=model_file(answer=answer), framework="SKLEARN")
        execute(DeployModelOperator(task_id="deploy", model_name="older", model_version=1))

        with pytest.raises(AirflowFailException, match=r"does not know spec\.env_vars(.|\n)*serves again"):
            execute(DeployModelOperator(task_id="deploy", model_name="older", spec={"env_vars": {"LEVEL": "1"}}))

        assert serving_version(older, "older") == 1


class TestTheNoteOnTheModelVersion:
    def test_is_a_tag_where_there_is_a_schema_for_it(
        self, serving: LocalServing, model_file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page = (Path(__file__).parents[2] / "docs" / "reference" / "record.md").read_text()
        _, _, rest = page.partition("schema of the tag `hsml_promotion`:\n\n```json\n")
        schemas = {"hsml_promotion": json.loads(rest.partition("```")[0])}
        administration = Administration(tag_schemas=schemas)
        with LocalServing(engine=run_model, administration=administration, hopsworks_version=HOPSWORKS) as tagged:
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", tagged.connection)
            hook = HsmlHook()
            for number, answer in ((1, 1), (2, 66)):
                hook.register_model(
                    model_name="noted",
                    model_path=model_file(answer=answer),
                    framework="SKLEARN",
                    metrics={"auc": number / 10},
                    expected={"instances": [[0.0]], "predictions": [number]},
                )
            execute(best("noted", candidates=[1]))
            with pytest.raises(AirflowFailException, match="serves again"):
                execute(best("noted"))

            good, bad = (hook.get_model_tags("noted", number)["hsml_promotion"] for number in (1, 2))
        assert set(good) == {*schemas["hsml_promotion"]["properties"]} - {"previous_model_version"}, "it was the first"
        assert (good["action"], good["deployment"], good["verified_by"]) == ("created", "noted", "fingerprint")
        assert (bad["action"], bad["previous_model_version"]) == ("rolled_back", 1)
        assert "answers otherwise" in bad["reason"]


def test_one_that_ended_as_superseded_is_resumed_and_never_turned_around(
    hook: HsmlHook, serving: LocalServing, register: Callable[..., int]
) -> None:
    """Another client scales the deployment meanwhile. Run again, "previous" must not lead to what was rolled back."""
    name = "supersededback"
    for answer in (1, 2):
        register(name, answer, accuracy=0.8)
        hook.deploy_model(name, answer, poll_interval=0.1)
    hook.rollback_deployment(name, poll_interval=0.1)
    journal = hook.run(open_journal(hook.client.project, name))
    assert journal.newest is not None
    hook.run(journal.write(dataclasses.replace(journal.newest, state=EntryState.SUPERSEDED)))

    record = hook.rollback_deployment(name, poll_interval=0.1)
    assert (record.model_version, hook.get_deployment(name).model_version) == (1, 1)

    journal = hook.run(open_journal(hook.client.project, name))
    assert journal.newest is not None
    hook.run(journal.write(dataclasses.replace(journal.newest, state=EntryState.SUPERSEDED)))
    register(name, 3, accuracy=0.8)
    hook.save_deployment(deployment_name=name, model_name=name, model_version=3)
    with pytest.raises(SupersededError, match="another version serves meanwhile"):
        hook.rollback_deployment(name, poll_interval=0.1)
    assert hook.get_deployment(name).model_version == 3


def take_less_memory(row: dict[str, Any]) -> None:
    """Change a deployment in what has no part in its version."""
    row["predictorResources"]["limits"]["memory"] = 2048
