"""A version is tried in a temporary deployment first: a bad one answers no user, and production is untouched."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks import DeploymentSpec, InferenceLogger, Scaling, Verification
from airflow_provider_hsml.hopsworks.domain.side_deployment import Lease, is_lease_file, side_name
from airflow_provider_hsml.hopsworks.errors import (
    AmbiguousVerificationError,
    HopsworksError,
    InvalidInputError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.promotion import leases as leases_module
from airflow_provider_hsml.hopsworks.promotion import side_deployment
from airflow_provider_hsml.hopsworks.promotion.journal import FOLDER, list_files
from airflow_provider_hsml.hopsworks.promotion.leases import remove_expired
from airflow_provider_hsml.hopsworks.promotion.preflight import PreflightMode
from airflow_provider_hsml.hopsworks.promotion.side_deployment import SideDeployment
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes
from airflow_provider_hsml.hopsworks.rollout import update
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from airflow_provider_hsml.local import AccessOptions, Administration, LocalServing, Quota
from airflow_provider_hsml.local.cluster.faults import Hold, RequestFault, StartFault
from airflow_provider_hsml.local.world import deployments, wire
from airflow_provider_hsml.operators import DeployBestModelOperator, DeployModelOperator
from tests.conftest import HOPSWORKS, run_model
from tests.support.request_schemas import FILES, ROW, Scene, declare
from tests.support.tasks import FakeTaskInstance, change_by_rest, execute, rendered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.hopsworks

_numbers = itertools.count()
ROWS = [[0.0], [1.0]]
HOW: dict[str, Any] = {"task_id": "deploy", "timeout": 30, "poll_interval": 0.1}


@pytest.fixture
def name(register: Callable[..., int]) -> str:
    """A deployment that serves version 1 of its model, which answers 1."""
    found = f"tried{next(_numbers)}"
    register(found, 1, auc=0.8)
    HsmlHook().deploy_model(found, 1, poll_interval=0.1)
    return found


@pytest.fixture
def liar(hook: HsmlHook, model_file: Callable[..., Path]) -> Callable[[str], int]:
    """Registers versions with a better metric that answer otherwise than recorded."""

    def make(name: str) -> int:
        return hook.register_model(
            model_name=name,
            model_path=model_file(answer=6),
            framework="SKLEARN",
            metrics={"auc": 0.9},
            input_example=ROWS,
            expected={"instances": ROWS, "predictions": [66, 66]},
        ).version

    return make


def best(name: str, **given: Any) -> DeployBestModelOperator:
    how = HOW | {"model_name": name, "metric": "auc", "direction": "max", "preflight": True}
    return DeployBestModelOperator(**how | given)


def deploy(name: str, version: int | str = "latest", **given: Any) -> DeployModelOperator:
    return DeployModelOperator(**HOW | {"model_name": name, "model_version": version, "preflight": True} | given)


def side_of(name: str) -> str:
    return side_name(name, "preflight")


def sent(serving: LocalServing) -> list[Any]:
    """Give the creations and updates of deployments that were asked for."""
    return serving.requests.where("PUT", "/project/119/serving")


def created(serving: LocalServing, name: str) -> dict[str, Any]:
    """Give the body with which the temporary deployment was created."""
    (body,) = [asked.body for asked in sent(serving) if asked.body["name"] == side_of(name)]
    return dict(body)


def leases(hook: HsmlHook, name: str) -> list[str]:
    found = hook.run(list_files(hook.client.project, name)) or {}
    return [file for file in found if is_lease_file(file)]


def is_left(serving: LocalServing, hook: HsmlHook, name: str) -> bool:
    """Tell whether a temporary deployment, its files or its lease are left."""
    names = [row["name"] for row in serving.world.project(119).deployments.all_shown()]
    files = serving.world.project(119).files.folder(f"/Projects/example/Deployments/{side_of(name)}")
    return bool(side_of(name) in names or leases(hook, name) or files)


def production(serving: LocalServing, name: str) -> Any:
    """Give what production is: its configuration, and who answers."""
    shown = serving.world.project(119).deployments.all_shown()
    return [(row.get("version"), row["revision"], row["answering"]) for row in shown if row["name"] == name]


def when_starting(serving: LocalServing, name: str, act: Callable[[], object]) -> threading.Thread:
    """Have something happen once the temporary deployment is starting."""

    def watch() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            rows = serving.world.project(119).deployments.all_shown()
            if any(row["name"] == side_of(name) and row["status"] == "Starting" for row in rows):
                act()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def until(holds: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lend(hook: HsmlHook, name: str, *, run: str, expires: float, number: int | None = None) -> Lease:
    """Write the lease of another task."""
    lease = Lease(uuid.uuid4().hex, "preflight", side_of(name), name, run, expires, 600.0, number)
    content = json.dumps(lease.to_json()).encode()
    hook.run(upload_bytes(hook.client.project, f"{FOLDER}/{name}/{lease.file_name}", content))
    return lease


@pytest.mark.airflow
@pytest.mark.parametrize("deferrable", [False, True])
class TestAGoodVersion:
    def test_is_tried_apart_and_then_promoted(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, deferrable: bool
    ) -> None:
        register(name, 2, auc=0.9)
        serving.requests.clear()

        record = execute(best(name, deferrable=deferrable))

        assert (record["action"], record["preflight"], record["model_version"]) == ("updated", "passed", 2)
        assert hook.predict(name, instances=[[0.0]]) == {"predictions": [2]}
        assert not is_left(serving, hook, name)
        asked = [(one.method, one.path) for one in serving.requests]
        (deleted,) = [at for at, (method, path) in enumerate(asked) if method == "DELETE" and "/serving/" in path]
        puts = [(at, one.body) for at, one in enumerate(serving.requests) if one in sent(serving)]
        updated = [at for at, body in puts if body["name"] == name]
        assert len(updated) == 1
        assert deleted < updated[0], "production is touched once the temporary deployment is gone"
        probes = [at for at, (_, path) in enumerate(asked) if path.endswith(f"/{side_of(name)}:predict")]
        assert probes
        assert max(probes) < deleted

    def test_may_be_the_first(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], deferrable: bool
    ) -> None:
        name = f"tried{next(_numbers)}"
        register(name, 1, auc=0.8)

        record = execute(best(name, deferrable=deferrable))

        assert (record["action"], record["preflight"]) == ("created", "passed")
        assert not is_left(serving, hook, name)


@pytest.mark.airflow
@pytest.mark.parametrize("deferrable", [False, True])
class TestABadVersion:
    def test_answers_no_user_and_is_rejected(
        self, serving: LocalServing, hook: HsmlHook, liar: Callable[[str], int], name: str, deferrable: bool
    ) -> None:
        liar(name)
        before, ti, told = production(serving, name), FakeTaskInstance(), []
        serving.requests.clear()
        bad = best(name, deferrable=deferrable, on_rollback=lambda context: told.append(context["promotion"]))

        with pytest.raises(AirflowFailException, match=r"answers otherwise than recorded(.|\n)*which was not changed"):
            execute(bad, ti)

        record = ti.pushed["promotion"]
        assert (record["action"], record["preflight"], record["model_version"]) == ("failed", "failed", 2)
        assert record["previous_model_version"] == 1
        assert [one["action"] for one in told] == ["failed"]
        assert production(serving, name) == before
        assert [asked.body["name"] for asked in sent(serving)] == [side_of(name)]
        assert not is_left(serving, hook, name)
        (rejected,) = hook.get_promotion_state(name).rejected
        assert rejected.version == 2
        again = execute(best(name, preflight=False))
        assert again["action"] == "kept"
        assert "rejected" in again["reason"]

    def test_of_a_first_deployment_creates_none(
        self, serving: LocalServing, hook: HsmlHook, liar: Callable[[str], int], deferrable: bool
    ) -> None:
        name, ti = f"tried{next(_numbers)}", FakeTaskInstance()
        liar(name)

        with pytest.raises(AirflowFailException, match="answers otherwise than recorded"):
            execute(best(name, deferrable=deferrable), ti)

        assert ti.pushed["promotion"]["action"] == "failed"
        assert production(serving, name) == []
        assert not is_left(serving, hook, name)
        assert execute(best(name))["action"] == "kept", "it is rejected, though there is no deployment"
        assert production(serving, name) == []


class TestEvidence:
    def test_instances_that_do_not_come_up_reject_with_these_resources(
        self, serving: LocalServing, hook: HsmlHook, model_file: Callable[..., Path], name: str
    ) -> None:
        hook.register_model(
            model_name=name, model_path=model_file(broken="no wheel"), framework="SKLEARN", metrics={"auc": 0.9}
        )
        before = production(serving, name)

        with pytest.raises(VerificationError, match=r"do not come up(.|\n)*which was not changed") as caught:
            hook.deploy_best_model(name, "auc", "max", preflight=True, timeout=30, poll_interval=0.1)

        assert not caught.value.transient
        assert production(serving, name) == before
        assert hook.deploy_best_model(name, "auc", "max").action == "kept"
        more = {"resources": {"limits": {"memory": 2048}}}
        with pytest.raises(VerificationError, match="do not come up"):
            hook.deploy_best_model(name, "auc", "max", spec=more, preflight=True, timeout=30, poll_interval=0.1)

    def test_an_expectation_and_a_latency_are_checked_there(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
    ) -> None:
        register(name, 2, auc=0.9)
        before = production(serving, name)

        for check in (
            Verification(expect="tests.airflow.test_preflight.refuses"),
            Verification(max_latency_ms=0.000001),
        ):
            with pytest.raises(VerificationError, match="which was not changed"):
                hook.deploy_model(name, 2, preflight=True, verification=check, timeout=30, poll_interval=0.1)
            assert production(serving, name) == before

    def test_a_bake_is_left_to_production(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
    ) -> None:
        register(name, 2)
        check = Verification(bake_seconds=0.5, probe_interval=0.1)
        begun = time.monotonic()

        record = hook.deploy_model(name, 2, preflight=True, verification=check, timeout=30, poll_interval=0.1)

        assert record.preflight == "passed"
        assert record.seconds is not None
        assert record.seconds["bake"] >= 0.5
        assert time.monotonic() - begun >= 0.5
        assert not is_left(serving, hook, name)

    def test_of_a_change_of_the_configuration_rejects_no_version(
        self, serving: LocalServing, hook: HsmlHook, name: str, tmp_path: Path
    ) -> None:
        before = production(serving, name)
        serving.faults.add(StartFault(side_of(name), "STARTED", reason="no such module"))
        (tmp_path / "serve.py").write_text("import nothing")

        with pytest.raises(VerificationError, match="no such module"):
            hook.deploy_model(
                name, 1, spec={"script_file": str(tmp_path / "serve.py")}, preflight=True, timeout=30, poll_interval=0.1
            )

        assert production(serving, name) == before
        assert hook.get_promotion_state(name).rejected == ()


def refuses(predictions: list[Any], rows: list[Any]) -> bool:
    """Accept nothing."""
    return False


class TestNoEvidence:
    def test_a_timeout_rejects_nothing_and_is_retried(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
    ) -> None:
        register(name, 2, auc=0.9)
        held = serving.faults.add(Hold(side_of(name), "Running"))
        before = production(serving, name)
        try:
            with pytest.raises(HopsworksError, match="which was not changed") as caught:
                hook.deploy_model(name, 2, preflight=True, run_key="task@1", timeout=1, poll_interval=0.1)
        finally:
            serving.faults.remove(held)

        assert caught.value.transient
        assert caught.value.record.preflight == "not finished"
        assert production(serving, name) == before
        assert hook.get_promotion_state(name).rejected == ()
        assert hook.deploy_model(name, 2, preflight=True, run_key="task@1", timeout=30).action == "updated"
        assert not is_left(serving, hook, name)

    def test_an_ambiguous_verification_is_retried(
        self, hook: HsmlHook, register: Callable[..., int], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def serve(*_: Any, **__: Any) -> None:
            raise AmbiguousVerificationError("The change was stored, but never applied to the cluster.")

        register(name, 2)
        monkeypatch.setattr(SideDeployment, "serve", serve)

        with pytest.raises(HopsworksError, match="which was not changed") as caught:
            hook.deploy_model(name, 2, preflight=True, timeout=30, poll_interval=0.1)

        assert caught.value.transient
        assert caught.value.record.preflight == "not finished"

    @pytest.mark.parametrize("whole", [True, False])
    def test_no_answer_counts_if_production_answers(
        self,
        serving: LocalServing,
        hook: HsmlHook,
        register: Callable[..., int],
        name: str,
        whole: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Else it is the route to the models that fails."""
        monkeypatch.setattr(predict, "ROUTE_BUDGET", 0.5)
        register(name, 2, auc=0.9)
        path = f"/project/*/inference/models/{'*' if whole else f'{side_of(name)}:predict'}"
        answer = {"errorCode": 250007, "usrMsg": "no healthy upstream"}
        dead = RequestFault("POST", path, status=500, body=answer, times=None)
        before, fault = production(serving, name), serving.faults.add(dead)
        try:
            with pytest.raises(HopsworksError, match=r"does not answer(.|\n)*which was not changed") as caught:
                hook.deploy_model(name, 2, preflight=True, timeout=30, poll_interval=0.1)
        finally:
            serving.faults.remove(fault)

        assert caught.value.transient is whole
        assert ("It does not answer either" in str(caught.value)) is whole
        assert isinstance(caught.value, VerificationError) is not whole
        assert caught.value.record.preflight == ("not finished" if whole else "failed")
        assert production(serving, name) == before
        assert [one.version for one in hook.get_promotion_state(name).rejected] == ([] if whole else [2])
        assert not is_left(serving, hook, name)

    @pytest.mark.parametrize("live", ["none", "stopped", "without an example"])
    def test_no_answer_counts_for_nothing_where_production_cannot_be_asked(
        self,
        serving: LocalServing,
        hook: HsmlHook,
        register: Callable[..., int],
        model_file: Callable[..., Path],
        live: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It may be the route to the models that fails."""
        monkeypatch.setattr(predict, "ROUTE_BUDGET", 0.5)
        name = f"tried{next(_numbers)}"
        hook.register_model(model_name=name, model_path=model_file(answer=1), framework="SKLEARN")
        register(name, 2, auc=0.9)
        if live != "none":
            hook.deploy_model(name, 1, poll_interval=0.1)
        if live == "stopped":
            hook.stop_deployment(name, poll_interval=0.1)
        answer = {"errorCode": 250007, "usrMsg": "no healthy upstream"}
        dead = RequestFault("POST", "/project/*/inference/models/*", status=500, body=answer, times=None)
        before, fault = production(serving, name), serving.faults.add(dead)
        try:
            with pytest.raises(HopsworksError, match=r"does not answer(.|\n)*which was not changed") as caught:
                hook.deploy_model(name, 2, preflight=True, run_key="task@1", timeout=30, poll_interval=0.1)
        finally:
            serving.faults.remove(fault)

        assert caught.value.transient
        assert not isinstance(caught.value, VerificationError)
        assert caught.value.record.preflight == "not finished"
        assert production(serving, name) == before
        assert hook.get_promotion_state(name).rejected == ()
        assert not is_left(serving, hook, name)
        again = hook.deploy_model(name, 2, preflight=True, run_key="task@1", timeout=30, poll_interval=0.1)
        assert again.preflight == "passed"

    @pytest.mark.since_hopsworks("4.6")
    def test_who_deletes_it_meanwhile_stops_the_preflight(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
    ) -> None:
        register(name, 2)
        serving.faults.add(Hold(side_of(name), "Running"))
        thread = when_starting(serving, name, lambda: HsmlHook().delete_deployment(side_of(name), force=True))
        with pytest.raises(HopsworksError, match="which was not changed") as caught:
            hook.deploy_model(name, 2, preflight=True, timeout=20, poll_interval=0.1)
        thread.join()

        assert caught.value.transient
        assert caught.value.record.action == "failed"
        assert hook.get_promotion_state(name).rejected == ()
        assert not is_left(serving, hook, name)


class TestWhatGoesWrongBesideIt:
    def test_a_change_of_production_meanwhile_is_decided_on_anew(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
    ) -> None:
        register(name, 2)
        other = HsmlHook()
        thread = when_starting(
            serving, name, lambda: change_by_rest(other, name, lambda row: row.update(description="theirs"))
        )
        serving.requests.clear()

        record = hook.deploy_model(name, 2, preflight=True, timeout=30, poll_interval=0.1)
        thread.join()

        assert (record.action, record.preflight) == ("updated", "passed")
        assert production(serving, name)[0][2] == 2
        tries = [asked for asked in sent(serving) if asked.body["name"] == side_of(name)]
        assert len(tries) == 2, "what was tried beside another configuration"
        assert not is_left(serving, hook, name)

    @pytest.mark.parametrize("theirs_is_bad", [False, True])
    def test_the_end_of_a_change_of_another_run_is_recorded(
        self,
        serving: LocalServing,
        hook: HsmlHook,
        register: Callable[..., int],
        liar: Callable[[str], int],
        name: str,
        theirs_is_bad: bool,
    ) -> None:
        """A rejection that is found while it is pending may be lost, but not what the other run finds out."""
        bad = liar(name)
        theirs = liar(name) if theirs_is_bad else register(name, 3, auc=0.95)
        tried = serving.faults.add(Hold(side_of(name), "Running"))
        served = serving.faults.add(Hold(name, "Running"))
        ends: list[str] = []

        def change() -> None:
            try:
                record = HsmlHook().deploy_model(name, theirs, run_key="theirs@0", timeout=30, poll_interval=0.1)
            except HopsworksError as error:
                ends.append(error.record.action)
            else:
                ends.append(record.action)

        other = threading.Thread(target=change)

        def go_on() -> None:
            other.start()
            until(lambda: (state := hook.get_promotion_state(name)).is_pending and state.run == "theirs@0")
            serving.faults.remove(tried)

        thread = when_starting(serving, name, go_on)

        with pytest.raises(VerificationError, match="which was not changed") as caught:
            HsmlHook().deploy_model(name, bad, preflight=True, run_key="ours@0", timeout=30, poll_interval=0.1)

        thread.join()
        serving.faults.remove(served)
        other.join()
        assert ends == ["rolled_back" if theirs_is_bad else "updated"]
        state = hook.get_promotion_state(name)
        assert not state.is_pending
        assert [one.version for one in state.rejected] == ([theirs] if theirs_is_bad else [])
        assert "is rejected" not in str(caught.value), "it was not recorded"
        assert not is_left(serving, hook, name)

    @pytest.mark.parametrize("is_bad", [False, True])
    def test_a_deletion_that_is_refused(
        self,
        serving: LocalServing,
        hook: HsmlHook,
        register: Callable[..., int],
        liar: Callable[[str], int],
        name: str,
        is_bad: bool,
    ) -> None:
        """Production is touched only once the temporary deployment is gone; the verdict on a version stands."""
        liar(name) if is_bad else register(name, 2, auc=0.9)
        refusal = {"errorCode": 160000, "errorMsg": "No valid role for this invocation"}
        fault = serving.faults.add(RequestFault("DELETE", "/project/*/serving/*", status=403, body=refusal, times=None))
        before = production(serving, name)

        with pytest.raises(HopsworksError, match="which was not changed") as caught:
            hook.deploy_model(name, 2, preflight=True, timeout=30, poll_interval=0.1)

        serving.faults.remove(fault)
        assert isinstance(caught.value, VerificationError) is is_bad
        assert caught.value.record.preflight == ("failed" if is_bad else "not finished")
        assert production(serving, name) == before
        assert is_left(serving, hook, name)
        assert hook.run(remove_expired(hook.client.project, name, lambda: time.time() + 601)) == [side_of(name)]
        assert not is_left(serving, hook, name)

    @pytest.mark.parametrize("ends_with_it", [False, True])
    def test_a_task_that_fails_leaves_the_documents_of_another_one(
        self, serving: LocalServing, hook: HsmlHook, name: str, ends_with_it: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both have written a lease, and the other one has published its schema. The last one deletes it."""
        files = serving.world.project(119).files
        document = f"Deployments/{side_of(name)}/resources/schema/one.json"
        side = SideDeployment(Run(hook.client.project, name, 20.0, 0.1, key="ours@0"), "preflight")
        ours = hook.run(side.claim())
        theirs = lend(hook, name, run="theirs@0", expires=time.time() + 600)
        files.write(document, b"{}")
        send = hook.client.send

        def meanwhile(call: Any) -> Any:
            if ends_with_it and call.method == "DELETE" and call.path.endswith(ours.file_name):
                files.delete(f"{FOLDER}/{name}/{theirs.file_name}")
            return send(call)

        monkeypatch.setattr(hook.client, "send", meanwhile)

        hook.run(side.remove())

        if not ends_with_it:
            assert files.exists(document)
            assert leases(hook, name) == [theirs.file_name]
            hook.run(remove_expired(hook.client.project, name, lambda: time.time() + 601))
        assert not is_left(serving, hook, name)

    @pytest.mark.parametrize("times", [1, None])
    def test_an_answer_to_a_deletion_that_is_lost(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, times: int | None
    ) -> None:
        """Of the deployment, and of its folder, which may stay."""
        register(name, 2)
        path = "/project/*/serving/*" if times else f"/project/*/dataset/Deployments/{side_of(name)}"
        serving.faults.add(RequestFault("DELETE", path, drop="after", times=times))

        record = hook.deploy_model(name, 2, preflight=True, timeout=30, poll_interval=0.1)

        serving.faults.clear()
        assert (record.action, record.preflight) == ("updated", "passed")
        assert leases(hook, name) == []

    def test_a_creation_in_doubt_keeps_its_lease(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(update, "IN_DOUBT", 0.2)
        register(name, 2)
        serving.faults.add(RequestFault("PUT", "/project/*/serving", drop="before"))

        with pytest.raises(HopsworksError, match="which was not changed") as caught:
            hook.deploy_model(name, 2, preflight=True, run_key="task@1", timeout=30, poll_interval=0.1)

        assert caught.value.transient
        assert len(leases(hook, name)) == 1, "it may still be created"
        assert hook.deploy_model(name, 2, preflight=True, run_key="task@1", timeout=30).preflight == "passed"
        assert not is_left(serving, hook, name)

    def test_another_task_that_creates_it_at_the_same_time(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, monkeypatch: Any
    ) -> None:
        register(name, 2)
        make = SideDeployment._template

        async def late(*given: Any) -> Any:
            HsmlHook().save_deployment(deployment_name=side_of(name), model_name=name, model_version=1)
            return await make(*given)

        monkeypatch.setattr(SideDeployment, "_template", late)
        before = production(serving, name)

        with pytest.raises(HopsworksError, match="another task has created this temporary deployment") as caught:
            hook.deploy_model(name, 2, preflight=True, timeout=30, poll_interval=0.1)

        assert caught.value.transient
        assert production(serving, name) == before
        assert hook.get_deployment(side_of(name)).model_version == 1
        assert leases(hook, name) == []
        hook.delete_deployment(side_of(name), force=True)


class TestNoRoom:
    @pytest.fixture
    def small(self, monkeypatch: pytest.MonkeyPatch, serving: LocalServing, tmp_path: Path) -> Any:
        """A server with a quota of one deployment, and one version that serves."""
        del serving  # Its fixture sets how long everything waits.
        quota = Administration(quota=Quota(deployments=1))
        with LocalServing(
            root=tmp_path / "small", engine=run_model, hopsworks_version=HOPSWORKS, administration=quota
        ) as small:
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", small.connection)
            yield small

    def test_says_what_to_do_or_goes_on_without(self, small: LocalServing, register: Callable[..., int]) -> None:
        hook = HsmlHook()
        small.world.register_model("room", {"model.joblib": b'{"answer": 1}'})
        small.world.register_model("room", {"model.joblib": b'{"answer": 2}'})
        hook.deploy_model("room", 1, poll_interval=0.1)
        before = production(small, "room")

        with pytest.raises(HopsworksError, match=r'needs room for one more(.|\n)*preflight="if_possible"') as caught:
            hook.deploy_model("room", 2, preflight=True, poll_interval=0.1)

        assert caught.value.is_out_of_capacity
        assert caught.value.record.action == "failed"
        assert production(small, "room") == before
        assert leases(hook, "room") == []
        assert hook.get_promotion_state("room").rejected == ()

        record = hook.deploy_model("room", 2, preflight="if_possible", poll_interval=0.1)

        assert (record.action, record.preflight) == (
            "updated",
            "left out, since there is no room for a temporary deployment",
        )
        assert "left out" in record.summary()
        del register

    def test_or_no_right_to_write_a_lease(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        del serving  # Its fixture sets how long everything waits.
        keys = {"read.only-the-files": {"PROJECT", "SERVING", "MODELREGISTRY", "DATASET_VIEW"}}
        with LocalServing(engine=run_model, access=AccessOptions(keys), hopsworks_version=HOPSWORKS) as other:
            connection = json.loads(other.connection) | {"password": "read.only-the-files"}
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(connection))
            other.world.register_model("room", {"model.joblib": b'{"answer": 1}'})
            hook = HsmlHook()

            with pytest.raises(InvalidInputError, match="DATASET_VIEW, DATASET_CREATE and DATASET_DELETE"):
                hook.deploy_model("room", 1, preflight=True, poll_interval=0.1)
            assert production(other, "room") == []

            record = hook.deploy_model("room", 1, preflight="if_possible", poll_interval=0.1)
            assert (record.action, (record.preflight or "")[:8]) == ("created", "left out")

    @pytest.mark.parametrize("mode", [True, "if_possible"])
    def test_for_the_instance(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, mode: bool | str
    ) -> None:
        register(name, 2)
        fault = serving.faults.add(StartFault(side_of(name), "SCHEDULED", reason="no node has a GPU"))
        how: dict[str, Any] = {"unschedulable_grace": 0.2, "timeout": 30, "poll_interval": 0.1, "run_key": "task@1"}
        try:
            if mode is True:
                with pytest.raises(HopsworksError, match="needs room for one more") as caught:
                    hook.deploy_model(name, 2, preflight=mode, **how)
                assert (caught.value.transient, caught.value.is_out_of_capacity) == (True, True)
                assert hook.get_promotion_state(name).rejected == ()
            else:
                record = hook.deploy_model(name, 2, preflight=mode, **how)
                assert (record.action, (record.preflight or "")[:8]) == ("updated", "left out")
        finally:
            serving.faults.remove(fault)
        assert not is_left(serving, hook, name)


class TestTheTemporaryDeployment:
    def test_has_the_configuration_of_the_update_and_nothing_of_production(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, tmp_path: Path
    ) -> None:
        register(name, 2)
        (tmp_path / "serve.py").write_text("...")
        spec = DeploymentSpec(
            script_file=str(tmp_path / "serve.py"),
            scaling=Scaling(min_instances=1),
            inference_logger=InferenceLogger(mode="ALL", kafka_topic="CREATE"),
            description="of the team",
            env_vars={"OWN": "1"} if HOPSWORKS == "5.2" else None,
        )
        hook.deploy_model(name, 1, spec=spec, poll_interval=0.1)
        serving.requests.clear()

        record = hook.deploy_model(name, 2, preflight=True, poll_interval=0.1)

        assert record.preflight == "passed"
        body = created(serving, name)
        assert body["requestedInstances"] == 0
        assert body["predictorScalingConfig"] == {"minInstances": 0, "maxInstances": 1}
        assert body.get("inferenceLogging", "NONE") == "NONE"
        assert not {"kafkaTopicDTO", "tags", "featureLogging", "id", "version", "revision"} & set(body)
        assert body["modelVersion"] == 2
        assert body["predictor"].rpartition("/")[2].endswith(".py")
        assert body["description"].startswith("Temporary, for the preflight of")
        if HOPSWORKS == "5.2":
            assert body["predictorEnvVars"] == ["OWN=1"]

    def test_has_an_instance_where_the_cluster_or_the_tool_needs_one(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, monkeypatch: Any
    ) -> None:
        register(name, 2)
        variables = serving.world.administration.variables
        monkeypatch.setitem(variables, "kube_serving_min_num_instances", "1")
        serving.requests.clear()

        assert hook.deploy_model(name, 2, preflight=True, poll_interval=0.1).preflight == "passed"

        assert created(serving, name)["requestedInstances"] == 1

    def test_on_the_serving_tool_default(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], tmp_path: Path
    ) -> None:
        name = f"tried{next(_numbers)}"
        register(name, 1)
        register(name, 2)
        (tmp_path / "serve.py").write_text("...")
        spec = {"serving_tool": "DEFAULT", "script_file": str(tmp_path / "serve.py")}
        hook.deploy_model(name, 1, spec=spec, poll_interval=0.1)
        serving.requests.clear()

        assert hook.deploy_model(name, 2, preflight=True, poll_interval=0.1).preflight == "passed"

        body = created(serving, name)
        assert (body["requestedInstances"], body["servingTool"]) == (1, "DEFAULT")

    @pytest.mark.since_hopsworks("5.2")
    def test_has_the_tags_that_hopsworks_demands_and_no_others(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, monkeypatch: Any
    ) -> None:
        register(name, 2)
        hook.deploy_model(name, 1, spec={"tags": {"team": "risk", "other": "x"}}, poll_interval=0.1)
        missing = {"missingMandatoryTags": ["team", "unknown"]}
        monkeypatch.setattr(deployments, "on_the_wire", lambda *given: wire.on_the_wire(*given) | missing)
        serving.requests.clear()

        assert hook.deploy_model(name, 2, preflight=True, poll_interval=0.1).preflight == "passed"

        tagged = [(asked.path.rpartition("/")[2], asked.body) for asked in serving.requests if "/tags/" in asked.path]
        assert ("team", "risk") in tagged
        assert "other" not in dict(tagged)

    @pytest.mark.since_hopsworks("5.2")
    def test_has_its_own_request_schema(
        self, hook: HsmlHook, serving: LocalServing, model_file: Callable[..., Path]
    ) -> None:
        serving.world.project(serving.project_id).features.clear()
        declare(serving)
        scene = Scene(hook, serving, f"tried{next(_numbers)}", model_file)
        scene.publish()
        scene.deploy(scene.register(2), own=("OWN=1", "SERVING_FEATURE_LOGGING=job"))
        scene.register(3, answer=2)
        serving.requests.clear()

        record = hook.deploy_model(scene.name, 2, preflight=True, poll_interval=0.1)

        assert (record.action, record.preflight) == ("updated", "passed")
        variables = created(serving, scene.name)["predictorEnvVars"]
        assert f"SERVING_SCHEMA_ID={FILES['td3']['id']}" in variables
        assert "SERVING_TRAINING_DATASET_VERSION=3" in variables
        assert not any(text.startswith("SERVING_FEATURE_LOGGING") for text in variables)
        folder = f"Deployments/{side_of(scene.name)}/resources/schema"
        uploads = [asked.path for asked in serving.requests if "/upload/" in asked.path and folder in asked.path]
        assert len(uploads) == 3
        assert hook.predict(scene.name, instances=[ROW])["predictions"] == [2]
        assert not is_left(serving, hook, scene.name)

    @pytest.mark.since_hopsworks("5.2")
    def test_has_a_copy_of_a_schema_that_stays(
        self, hook: HsmlHook, serving: LocalServing, model_file: Callable[..., Path]
    ) -> None:
        serving.world.project(serving.project_id).features.clear()
        declare(serving)
        scene = Scene(hook, serving, f"tried{next(_numbers)}", model_file)
        scene.publish()
        scene.deploy(scene.register(2))
        serving.requests.clear()

        record = hook.deploy_model(scene.name, 1, spec={"env_vars": {"OWN": "2"}}, preflight=True, poll_interval=0.1)

        assert (record.action, record.preflight) == ("updated", "passed")
        assert f"SERVING_SCHEMA_ID={FILES['td2']['id']}" in created(serving, scene.name)["predictorEnvVars"]
        assert not is_left(serving, hook, scene.name)

    @pytest.mark.since_hopsworks("5.2")
    def test_of_a_script_alone(self, hook: HsmlHook, serving: LocalServing, tmp_path: Path) -> None:
        name = f"tried{next(_numbers)}"
        for number in (1, 2):
            (tmp_path / "serve.py").write_text(f"# {number}")
            spec = {"script_file": str(tmp_path / "serve.py")}
            record = hook.deploy_model(
                None, deployment_name=name, spec=spec, preflight=True, timeout=30, poll_interval=0.1
            )
            assert (record.action, record.preflight) == (("created", "updated")[number - 1], "passed")
        assert not is_left(serving, hook, name)

    def test_of_a_script_that_is_nowhere_is_refused(
        self, hook: HsmlHook, serving: LocalServing, register: Callable[..., int], name: str
    ) -> None:
        project = serving.world.project(119)
        project.files.write("Resources/mine/own.py", b"...")
        hook.deploy_model(name, 1, spec={"script_file": "/Projects/example/Resources/mine/own.py"}, poll_interval=0.1)
        register(name, 2)
        before = production(serving, name)
        shutil_name = f"/Projects/example/Deployments/{name}"
        if HOPSWORKS == "3.7":
            assert hook.deploy_model(name, 2, preflight=True, poll_interval=0.1).preflight == "passed"
            return
        project.files.delete(shutil_name)

        with pytest.raises(InvalidInputError, match=r"its script 'own.py' was not found(.|\n)*Give the script in spec"):
            hook.deploy_model(name, 2, preflight=True, poll_interval=0.1)

        assert production(serving, name) == before
        assert not is_left(serving, hook, name)


class TestNothingToTry:
    def test_of_what_serves_already(self, serving: LocalServing, name: str) -> None:
        serving.requests.clear()

        for record in (execute(deploy(name, 1)), execute(best(name))):
            assert record["action"] in ("unchanged", "kept")
            assert record["preflight"] is None
        assert sent(serving) == []

    def test_of_a_pending_change(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
    ) -> None:
        register(name, 2)
        held = serving.faults.add(Hold(name, "Running"))
        with pytest.raises(HopsworksError, match="stays pending"):
            hook.deploy_model(name, 2, run_key="task@1", timeout=0.5, poll_interval=0.1)
        serving.faults.remove(held)
        serving.requests.clear()

        record = hook.deploy_model(name, 2, run_key="task@1", preflight=True, timeout=30, poll_interval=0.1)

        assert (record.action, record.preflight) == ("attached", None)
        assert sent(serving) == []

    def test_of_a_plan(self, serving: LocalServing, register: Callable[..., int], name: str) -> None:
        register(name, 2)
        serving.requests.clear()

        record = execute(rendered(deploy(name, 2, plan_only="{{ params.dry }}"), plan_only="True"))

        assert (record["action"], record["preflight"]) == ("planned", None)
        assert sent(serving) == []


class TestTheLease:
    def test_of_another_task_is_respected(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
    ) -> None:
        register(name, 2)
        lease = lend(hook, name, run="dag/run/other/-1@0", expires=time.time() + 60)
        before = production(serving, name)
        serving.requests.clear()

        with pytest.raises(HopsworksError, match=r"in use by task dag/run/other/-1@0: its lease expires in [56]\d s"):
            execute(deploy(name, 2))

        assert production(serving, name) == before
        assert sent(serving) == []
        assert leases(hook, name) == [lease.file_name]
        assert [one for one in serving.requests if one.method == "DELETE"] == []

    def test_of_the_same_task_is_taken_over(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
    ) -> None:
        register(name, 2)
        ti = FakeTaskInstance()
        lend(hook, name, run=f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/-1@7", expires=time.time() + 60)

        assert execute(deploy(name, 2), ti)["preflight"] == "passed"

        assert not is_left(serving, hook, name)

    def test_that_has_expired_is_ended_whatever_the_task_does(
        self, serving: LocalServing, hook: HsmlHook, name: str
    ) -> None:
        hook.save_deployment(deployment_name=side_of(name), model_name=name, model_version=1)
        number = hook.get_deployment(side_of(name)).id
        lend(hook, name, run="dag/run/other/-1@0", expires=time.time() - 1, number=number)

        assert execute(deploy(name, 1, preflight=False))["action"] == "unchanged"

        assert not is_left(serving, hook, name)

    def test_of_a_deployment_that_is_somebody_elses_by_now_deletes_the_lease_only(
        self, serving: LocalServing, hook: HsmlHook, name: str
    ) -> None:
        hook.save_deployment(deployment_name=side_of(name), model_name=name, model_version=1)
        theirs = hook.get_deployment(side_of(name)).id
        other = hook.get_deployment(name).id
        for number in (None, other, theirs + 1000):
            lend(hook, name, run="dag/run/other/-1@0", expires=time.time() - 1, number=number)

            hook.remove_expired_side_deployments(name)

            assert leases(hook, name) == []
            assert (hook.get_deployment(side_of(name)).id, hook.get_deployment(name).id) == (theirs, other)
        hook.delete_deployment(side_of(name), force=True)

    def test_without_an_id_outlives_the_task_that_was_killed(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
    ) -> None:
        """Its request to create the deployment may still be carried out: only the lease says whose it is then."""
        register(name, 2)
        lease = lend(hook, name, run="task@1", expires=time.time() + 600)
        run = Run(hook.client.project, name, 60, 0.1, time.time, "task@1")
        hook.run(leases_module.remove_of(run, 5))
        assert leases(hook, name) == [lease.file_name]
        hook.save_deployment(deployment_name=side_of(name), model_name=name, model_version=1)
        change_by_rest(hook, side_of(name), lambda row: row.update(description=lease.description))

        record = hook.deploy_model(name, 2, preflight=True, run_key="task@2", timeout=30, poll_interval=0.1)

        assert record.preflight == "passed"
        assert not is_left(serving, hook, name)

    def test_without_an_id_is_known_when_the_deployment_is_created_meanwhile(
        self, hook: HsmlHook, register: Callable[..., int], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register(name, 2)
        lease = lend(hook, name, run="task@1", expires=time.time() + 600)
        end = leases_module.end_lease

        async def late(*given: Any, **how: Any) -> bool:
            is_ended = await end(*given, **how)
            if not is_ended:
                other = HsmlHook()
                other.save_deployment(deployment_name=side_of(name), model_name=name, model_version=1)
                change_by_rest(other, side_of(name), lambda row: row.update(description=lease.description))
            return is_ended

        monkeypatch.setattr(leases_module, "end_lease", late)

        with pytest.raises(HopsworksError, match="created by an earlier try just now") as caught:
            hook.deploy_model(name, 2, preflight=True, run_key="task@2", timeout=30, poll_interval=0.1)
        assert caught.value.transient
        monkeypatch.undo()
        assert hook.deploy_model(name, 2, preflight=True, run_key="task@3", timeout=30).preflight == "passed"

    def test_is_not_ended_by_one_answer_that_its_deployment_does_not_exist(
        self, serving: LocalServing, hook: HsmlHook, name: str
    ) -> None:
        number = hook.save_deployment(deployment_name=side_of(name), model_name=name, model_version=1).id
        lend(hook, name, run="dag/run/other/-1@0", expires=time.time() - 1, number=number)
        absent = {"errorCode": 240000, "errorMsg": "Serving instance not found."}
        serving.faults.add(RequestFault("GET", f"/project/*/serving/{number}", status=404, body=absent))

        hook.remove_expired_side_deployments(name)

        assert not is_left(serving, hook, name)

    def test_without_one_a_deployment_of_the_name_is_refused(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
    ) -> None:
        register(name, 2)
        hook.save_deployment(deployment_name=side_of(name), model_name=name, model_version=1)
        before = production(serving, name)

        with pytest.raises(AirflowFailException, match="Delete it if nobody needs it"):
            execute(deploy(name, 2))

        assert production(serving, name) == before
        assert hook.get_deployment(side_of(name)).model_version == 1
        assert leases(hook, name) == []
        hook.delete_deployment(side_of(name), force=True)

    def test_needs_the_scopes_of_files(
        self, serving: LocalServing, register: Callable[..., int], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register(name, 2)
        connection = json.loads(serving.connection) | {"password": "no.scope-of-files"}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(connection))
        before = production(serving, name)

        with pytest.raises(AirflowFailException, match="DATASET_VIEW, DATASET_CREATE and DATASET_DELETE"):
            execute(deploy(name, 2))
        assert production(serving, name) == before

        record = execute(deploy(name, 2, preflight="if_possible"))
        assert (record["action"], record["preflight"][:8]) == ("updated", "left out")

    def test_that_cannot_be_read_is_not_taken_for_none(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(leases_module, "_READ_AGAIN", 0.0)
        register(name, 2)
        lease = Lease("a" * 32, "preflight", side_of(name), name, "", 0.0)
        path = f"{FOLDER}/{name}/{lease.file_name}"
        hook.run(upload_bytes(hook.client.project, path, b'{"id": "a'))

        with pytest.raises(HopsworksError, match="delete the file"):
            HsmlHook(sleep=lambda _: None).deploy_model(name, 2, preflight=True, poll_interval=0.1)

        serving.world.project(119).files.delete(f"/Projects/example/{path}")
        assert hook.deploy_model(name, 2, preflight=True, poll_interval=0.1).preflight == "passed"

    def test_is_renewed_while_the_task_waits(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(side_deployment, "SECONDS", 1.5)
        register(name, 2)
        held = serving.faults.add(Hold(side_of(name), "Running"))
        threading.Timer(3.0, lambda: serving.faults.remove(held)).start()
        serving.requests.clear()

        record = hook.deploy_model(name, 2, preflight=True, timeout=30, poll_interval=0.1)

        assert record.preflight == "passed"
        uploads = [one for one in serving.requests if one.method == "POST" and f"journal/{name}" in one.path]
        assert len(uploads) > 4
        assert not is_left(serving, hook, name)

    def test_that_could_not_be_renewed_in_time_ends_the_preflight(
        self, serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(side_deployment, "SECONDS", 1.5)
        monkeypatch.setattr(side_deployment, "_RENEW_AGAIN", 0.2)
        register(name, 2)
        held = serving.faults.add(Hold(side_of(name), "Running"))

        def refuse() -> None:
            path = f"/project/*/dataset/upload/**/{name}"
            serving.faults.add(RequestFault("POST", path, status=503, times=None))
            if HOPSWORKS == "3.7":  # It deletes nothing that is starting.
                threading.Timer(3.0, lambda: serving.faults.remove(held)).start()

        when_starting(serving, name, refuse)

        with pytest.raises(HopsworksError, match="its lease could not be renewed in time") as caught:
            hook.deploy_model(name, 2, preflight=True, timeout=30, poll_interval=0.1)

        assert caught.value.transient
        serving.faults.clear()
        assert hook.get_promotion_state(name).rejected == ()

    def test_two_at_once_use_one_after_the_other(
        self, serving: LocalServing, register: Callable[..., int], name: str
    ) -> None:
        register(name, 2)
        ends: list[str] = []

        def run(number: int) -> None:
            try:
                record = HsmlHook().deploy_model(
                    name, 2, preflight=True, run_key=f"task{number}@0", timeout=30, poll_interval=0.1
                )
            except HopsworksError as error:
                ends.append("retry" if error.transient else f"{error}")
            else:
                ends.append(record.action)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert set(ends) <= {"updated", "retry", "attached", "unchanged"}, ends
        assert not is_left(serving, HsmlHook(), name)
        done = HsmlHook().deploy_model(name, 2, preflight=True, run_key="task9@0", poll_interval=0.1)
        assert done.action in ("unchanged", "updated")


@pytest.mark.airflow
def test_a_task_that_is_killed_deletes_it(
    serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str
) -> None:
    register(name, 2)
    held = serving.faults.add(Hold(side_of(name), "Running"))
    task = deploy(name, 2)

    def kill() -> None:
        task.on_kill()
        if HOPSWORKS == "3.7":  # It deletes nothing that is starting.
            serving.faults.remove(held)

    thread = when_starting(serving, name, kill)
    with pytest.raises(AirflowException, match="killed"):
        execute(task)
    thread.join()
    serving.faults.clear()

    assert not is_left(serving, hook, name)
    assert hook.get_deployment(name).model_version == 1


@pytest.mark.airflow
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_task_that_is_killed_starts_production_before_it_deletes_it(
    serving: LocalServing, hook: HsmlHook, register: Callable[..., int], name: str, is_refused: bool
) -> None:
    """And it does so even if the temporary deployment cannot be deleted."""
    register(name, 2)
    number = hook.get_deployment(name).id
    ti, task = FakeTaskInstance(), deploy(name, 2, rollout="recreate")
    held = serving.faults.add(Hold(name, "Stopped"))
    left: list[int] = []

    def kill() -> None:
        until(lambda: hook.get_deployment(name).status == "Stopping")
        left.append(hook.save_deployment(deployment_name=side_of(name), model_name=name, model_version=1).id)
        run = f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/-1@0"
        lend(hook, name, run=run, expires=time.time() + 600, number=left[0])
        if is_refused:
            serving.faults.add(RequestFault("DELETE", f"/project/*/serving/{left[0]}", status=403, times=None))
        serving.requests.clear()
        task.on_kill()
        until(lambda: [one for one in serving.requests if one.path.endswith(f"{FOLDER}/{name}")])
        serving.faults.remove(held)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(AirflowException, match="killed"):
        execute(task, ti)
    thread.join()
    serving.faults.clear()

    asked = [(one.method, one.path, one.query) for one in serving.requests]
    started = asked.index(("POST", f"/project/119/serving/{number}", "action=START"))
    assert started < asked.index(("DELETE", f"/project/119/serving/{left[0]}", ""))
    assert is_left(serving, hook, name) is is_refused
    assert hook.get_deployment(name).model_version == 1
    hook.run(remove_expired(hook.client.project, name, lambda: time.time() + 601))


class TestTheArgument:
    @pytest.mark.parametrize("kind", [best, deploy])
    @pytest.mark.parametrize("wrong", ["yes", 1, "", "if possible"])
    def test_is_a_flag_or_a_word(self, kind: Any, wrong: Any) -> None:
        if wrong == "":
            with pytest.raises(InvalidInputError, match="preflight: expected true, false or 'if_possible'"):
                PreflightMode.read("preflight", wrong)
            return
        with pytest.raises(ValueError, match="preflight: expected true, false or 'if_possible'"):
            kind("digits", preflight=wrong)

    @pytest.mark.parametrize(
        ("given", "mode"),
        [
            (False, "off"),
            ("False", "off"),
            (True, "required"),
            ("true", "required"),
            ("if_possible", "if_possible"),
        ],
    )
    def test_may_come_from_a_template(self, given: Any, mode: str) -> None:
        assert PreflightMode.read("preflight", given).value == mode

    @pytest.mark.parametrize("kind", [best, deploy])
    @pytest.mark.parametrize("preflight", [True, "if_possible"])
    def test_excludes_what_tries_nothing(self, kind: Any, preflight: Any) -> None:
        with pytest.raises(ValueError, match="preflight needs wait_for_completion=True"):
            kind("digits", preflight=preflight, wait_for_completion=False)
        with pytest.raises(ValueError, match="a plan tries nothing"):
            kind("digits", preflight=preflight, plan_only=True)
        kind("digits", preflight=False, plan_only=True, wait_for_completion=False)

    def test_needs_a_wait_in_the_hook(self, hook: HsmlHook) -> None:
        for method, given in ((hook.deploy_model, ("digits",)), (hook.deploy_best_model, ("digits", "auc", "max"))):
            with pytest.raises(InvalidInputError, match="preflight: it needs wait=True"):
                method(*given, preflight="if_possible", wait=False)
