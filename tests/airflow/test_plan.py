"""A plan shows what would be done and does nothing; what is applied later is that plan, or nothing at all."""

from __future__ import annotations

import itertools
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_hsml import DeployBestModelOperator, DeployModelOperator
from airflow_provider_hsml.hopsworks.domain import rollout_tracker
from airflow_provider_hsml.hopsworks.promotion.guarded_change import GuardedChange
from airflow_provider_hsml.hopsworks.promotion.journal import OutdatedDecision
from airflow_provider_hsml.hopsworks.transport.client import Client
from tests.support.tasks import FakeTaskInstance, changes, execute, rendered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.hopsworks, pytest.mark.usefixtures("serving")]

SECRET = "open-sesame"
LARGER = {"resources": {"limits": {"memory": 2048}}}
CHANGED = "was changed, restarted or replaced since the plan was made"
_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"planned{next(_numbers)}"


def best(name: str, **more: Any) -> DeployBestModelOperator:
    return DeployBestModelOperator(
        task_id="task", model_name=name, metric="auc", poll_interval=0.1, **{"direction": "max", **more}
    )


def deploy(name: str | None, version: Any = "latest", **more: Any) -> DeployModelOperator:
    return DeployModelOperator(task_id="task", model_name=name, model_version=version, poll_interval=0.1, **more)


def planned(operator: Any, serving: LocalServing) -> dict[str, Any]:
    """Plan; nothing but reads may be sent."""
    serving.requests.clear()
    record: dict[str, Any] = execute(operator)
    assert changes(serving) == []
    assert record["action"] == "planned"
    json.dumps(record, allow_nan=False)
    return record


def apply(name: str, record: Any, **more: Any) -> dict[str, Any]:
    plan = record["plan"] if isinstance(record, dict) else json.loads(record)["plan"]
    done: dict[str, Any] = execute(deploy(name, plan["model_version"], plan=record, **more))
    return done


class TestPlanning:
    def test_of_a_deployment_that_is_not_there(
        self, name: str, hook: HsmlHook, serving: LocalServing, register: Callable[..., int]
    ) -> None:
        register(name, 1, auc=0.8)
        record = planned(best(name, plan_only=True), serving)

        assert (record["deployment_id"], record["previous_model_version"]) == (None, None)
        assert (record["model_version"], record["metric_value"]) == (1, 0.8)
        assert record["plan"]["changes"]["model_version"] == [None, 1]
        assert hook.get_deployments(name) == []

    @pytest.mark.parametrize("plan_only", [True, False])
    def test_what_cannot_be_verified_is_refused_as_it_would_be(
        self, plan_only: bool, name: str, serving: LocalServing, register: Callable[..., int]
    ) -> None:
        register(name, 1, auc=0.8)
        serving.requests.clear()
        with pytest.raises(AirflowFailException, match=r"health_path: .* the connection does not use the ingress"):
            execute(best(name, plan_only=plan_only, verification={"health_path": "/health"}))
        assert changes(serving) == []

    @pytest.mark.airflow
    def test_of_an_update(self, name: str, serving: LocalServing, register: Callable[..., int]) -> None:
        register(name, 1, auc=0.8)
        live = execute(best(name))
        register(name, 2, auc=0.9)
        record = planned(best(name, spec=LARGER, plan_only=True), serving)

        assert record["plan"]["changes"] == {"model_version": [1, 2], "resources.limits.memory": [1024, 2048]}
        assert (record["previous_model_version"], record["model_version"]) == (1, 2)
        assert (record["previous_metric_value"], record["metric_value"]) == (0.8, 0.9)
        assert (record["deployment_id"], record["status"]) == (live["deployment_id"], "Running")
        assert record["reason"] == "version 2 (auc 0.9) beats the served version 1 (auc 0.8)"
        assert record["verified_by"] is None

    def test_of_no_change(self, name: str, serving: LocalServing, register: Callable[..., int]) -> None:
        register(name, 1, auc=0.8)
        execute(best(name))

        assert planned(deploy(name, 1, plan_only=True), serving)["plan"]["changes"] == {}
        kept = planned(best(name, plan_only=True), serving)
        assert (kept["is_kept"], kept["plan"]["changes"]) == (True, {})

    @pytest.mark.airflow
    def test_skips_where_nobody_has_to_be_asked(
        self, name: str, serving: LocalServing, register: Callable[..., int]
    ) -> None:
        register(name, 1, auc=0.8)
        execute(best(name))
        ti = FakeTaskInstance()
        serving.requests.clear()

        with pytest.raises(AirflowSkipException, match="is the best already"):
            execute(best(name, plan_only=True, if_not_better="skip"), ti)
        assert ti.pushed["promotion"]["action"] == "planned"
        assert changes(serving) == []

    def test_of_another_configuration_for_a_champion_that_stays(
        self, name: str, hook: HsmlHook, serving: LocalServing, register: Callable[..., int]
    ) -> None:
        register(name, 1, auc=0.8)
        execute(best(name))
        register(name, 2, auc=0.7)
        spec = LARGER
        record = planned(best(name, spec=spec, plan_only=True), serving)
        done = apply(name, record, spec=spec)

        assert (record["is_kept"], record["model_version"]) == (True, 1)
        assert list(record["plan"]["changes"]) == ["resources.limits.memory"]
        assert (done["action"], done["model_version"]) == ("updated", 1)

    @pytest.mark.airflow
    def test_is_in_the_log(
        self,
        name: str,
        hook: HsmlHook,
        serving: LocalServing,
        register: Callable[..., int],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        register(name, 1)
        execute(deploy(name))
        register(name, 2)
        with caplog.at_level(logging.INFO):
            planned(deploy(name, plan_only=True), serving)
            planned(deploy(name, rollout="recreate", plan_only=True), serving)
            planned(deploy(name, 1, plan_only=True), serving)
            hook.stop_deployment(name, poll_interval=0.1)
            record = planned(deploy(name, 1, plan_only=True), serving)
        said = f"Deployment '{name}': planned, nothing is sent: "

        assert f"{said}model_version 1 -> 2." in caplog.messages
        assert f"{said}model_version 1 -> 2; it would be stopped for the change." in caplog.messages
        assert f"{said}no setting would change." in caplog.messages
        assert f"{said}no setting would change; it would be started." in caplog.messages
        assert record["status"] == "Stopped"
        assert apply(name, record)["action"] == "started"

    @pytest.mark.airflow
    @pytest.mark.since_hopsworks("5.2")
    def test_values_of_environment_variables_are_nowhere(
        self, name: str, serving: LocalServing, register: Callable[..., int], caplog: pytest.LogCaptureFixture
    ) -> None:
        register(name, 1)
        spec = {"env_vars": {"TOKEN": SECRET, "LEVEL": "1"}}
        ti = FakeTaskInstance()
        serving.requests.clear()
        with caplog.at_level(logging.DEBUG):
            first = execute(deploy(name, spec=spec, plan_only=True), ti)
            assert changes(serving) == []
            execute(deploy(name, spec={"env_vars": {"TOKEN": "other", "LEVEL": "1"}}))
            second = execute(deploy(name, spec=spec, plan_only=True), ti)

        assert first["plan"]["changes"]["env_vars"] == ["()", "(LEVEL, TOKEN)"]
        assert second["plan"]["changes"] == {"env_vars": ["(LEVEL, TOKEN)", "(LEVEL, TOKEN), values changed"]}
        for text in (json.dumps([first, second, ti.pushed]), caplog.text):
            assert "TOKEN" in text
            assert SECRET not in text

    def test_of_a_script_uploads_nothing(self, name: str, serving: LocalServing, tmp_path: Path) -> None:
        script = tmp_path / "program.py"
        script.write_text("print('up')\n")
        spec = {"script_file": str(script), "inference_logger": {"mode": "ALL"}}
        record = planned(deploy(None, deployment_name=name, spec=spec, plan_only=True), serving)

        assert record["plan"]["model_version"] is None
        assert record["plan"]["changes"]["script_file"][1].startswith("program-")

    @pytest.mark.airflow
    @pytest.mark.parametrize("flag", ["True", "true", True])
    def test_a_flag_from_a_template(
        self, name: str, flag: Any, serving: LocalServing, register: Callable[..., int]
    ) -> None:
        register(name, 1)

        planned(deploy(name, plan_only=flag), serving)

    @pytest.mark.airflow
    def test_no_flag_is_no_plan(self, name: str, register: Callable[..., int]) -> None:
        register(name, 1)

        with pytest.raises(AirflowFailException, match="plan_only: expected true or false, got 'maybe'"):
            execute(rendered(deploy(name), plan_only="maybe"))
        assert execute(deploy(name, plan_only="False"))["action"] == "created"


class TestApplying:
    @pytest.fixture
    def update(self, name: str, serving: LocalServing, register: Callable[..., int]) -> dict[str, Any]:
        """A plan from version 1, which serves, to version 2."""
        register(name, 1, auc=0.8)
        execute(best(name))
        register(name, 2, auc=0.9)
        return planned(best(name, plan_only=True), serving)

    @pytest.mark.airflow
    @pytest.mark.parametrize(
        "form",
        [json.dumps, lambda record: record["plan"], lambda record: json.loads(json.dumps(record))],
        ids=["JSON text", "the plan alone", "through XCom"],
    )
    def test_does_what_was_planned(
        self, name: str, hook: HsmlHook, update: dict[str, Any], form: Callable[[dict[str, Any]], Any]
    ) -> None:
        done = execute(deploy(name, 2, plan=form(update)))

        assert (done["action"], done["model_version"], done["previous_model_version"]) == ("updated", 2, 1)
        assert hook.predict(name, instances=[[0.0]]) == {"predictions": [2]}

    def test_creates_what_was_planned(self, name: str, serving: LocalServing, register: Callable[..., int]) -> None:
        register(name, 1, auc=0.8)
        spec = LARGER | {"description": "reviewed"}

        record = planned(best(name, spec=spec, plan_only=True), serving)
        assert apply(name, json.dumps(record), spec=spec)["action"] == "created"

    def test_a_better_version_that_came_meanwhile_is_not_deployed(
        self, name: str, update: dict[str, Any], register: Callable[..., int]
    ) -> None:
        register(name, 3, auc=0.99)

        assert apply(name, update)["model_version"] == 2

    def test_again_does_nothing(self, name: str, serving: LocalServing, update: dict[str, Any]) -> None:
        """A retry, or a task that was cleared."""
        apply(name, update)
        serving.requests.clear()

        assert apply(name, update)["action"] == "unchanged"
        assert {method for method, _ in changes(serving)} <= {"POST"}, "predictions"

    def test_a_task_that_was_cut_off_goes_on(
        self, name: str, hook: HsmlHook, serving: LocalServing, update: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its worker dies once the change is sent; the deployment is not what was planned against any more."""
        ti, send = FakeTaskInstance(), Client.send

        def die(self: Client, call: Any) -> Any:
            answer = send(self, call)
            if call.method == "PUT" and call.path.endswith("/serving"):
                raise KeyboardInterrupt
            return answer

        monkeypatch.setattr(Client, "send", die)
        with pytest.raises(KeyboardInterrupt):
            execute(deploy(name, 2, plan=update), ti)
        monkeypatch.setattr(Client, "send", send)
        serving.requests.clear()
        done = execute(deploy(name, 2, plan=update), ti)

        assert (done["action"], done["model_version"]) == ("attached", 2)
        assert hook.predict(name, instances=[[0.0]]) == {"predictions": [2]}
        assert serving.requests.where("PUT", f"/project/{serving.project_id}/serving") == []

    def test_what_was_taken_back_is_not_done_again(
        self,
        name: str,
        hook: HsmlHook,
        serving: LocalServing,
        register: Callable[..., int],
        model_file: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(rollout_tracker, "FAILED_STAYS", 0.3)
        register(name, 1)
        execute(deploy(name))
        hook.register_model(model_name=name, model_path=model_file(broken="no weights"), framework="SKLEARN")
        record = planned(deploy(name, plan_only=True), serving)

        with pytest.raises(AirflowFailException, match=r"(?s)no weights.*was rolled back"):
            apply(name, record)
        self.refused(serving, CHANGED, deploy(name, 2, plan=record))

    def refused(self, serving: LocalServing, message: str, operator: DeployModelOperator) -> None:
        """Try to apply; it is refused, and nothing is sent."""
        serving.requests.clear()
        ti = FakeTaskInstance()
        with pytest.raises(AirflowFailException, match=message) as refusal:
            execute(operator, ti)
        assert changes(serving) == []
        if message == CHANGED:
            record = ti.pushed["promotion"]
            assert (record["action"], record["failure"]) == ("failed", str(refusal.value))

    def test_one_that_is_changed_each_time_is_given_up_with_a_record(
        self, name: str, serving: LocalServing, update: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def apply(_: GuardedChange) -> Any:
            raise OutdatedDecision

        monkeypatch.setattr(GuardedChange, "apply", apply)
        serving.requests.clear()
        ti = FakeTaskInstance()
        with pytest.raises(AirflowFailException, match="was changed after each decision"):
            execute(deploy(name, 2, plan=update), ti)
        assert changes(serving) == []
        record = ti.pushed["promotion"]
        assert (record["action"], record["model_version"], record["previous_model_version"]) == ("superseded", 2, 1)

    def test_another_champion(
        self, name: str, hook: HsmlHook, serving: LocalServing, update: dict[str, Any], register: Callable[..., int]
    ) -> None:
        register(name, 3, auc=0.85)
        execute(deploy(name, 3))
        message = rf"version 3 of model '{name}'\) {CHANGED}; it served version 1 then\. .*\nMake a new plan"

        self.refused(serving, message, deploy(name, 2, plan=update))
        assert hook.get_deployment(name).model_version == 3

    def test_another_champion_between_the_check_and_the_write(
        self,
        name: str,
        hook: HsmlHook,
        serving: LocalServing,
        update: dict[str, Any],
        register: Callable[..., int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The deployment is looked at twice; somebody deploys another version between the two."""
        register(name, 3)
        looks = itertools.count(1)
        send = Client.send

        def slowly(self: Client, call: Any) -> Any:
            if call.what == f"get deployment {name!r}" and next(looks) == 2:
                hook.deploy_model(name, 3, poll_interval=0.1)
                serving.requests.clear()
            return send(self, call)

        monkeypatch.setattr(Client, "send", slowly)

        with pytest.raises(AirflowFailException, match=CHANGED):
            execute(deploy(name, 2, plan=update))
        assert next(looks) > 2
        assert {path for _method, path in changes(serving)} <= {f"{name}:predict"}
        assert hook.get_deployment(name).model_version == 3

    def test_another_configuration(self, name: str, serving: LocalServing, update: dict[str, Any]) -> None:
        execute(deploy(name, 1, spec=LARGER))

        self.refused(serving, CHANGED, deploy(name, 2, plan=update))

    def test_a_restart(self, name: str, hook: HsmlHook, serving: LocalServing, update: dict[str, Any]) -> None:
        """Nothing tells it from a change by another client."""
        hook.restart_deployment(name, poll_interval=0.1)

        self.refused(serving, CHANGED, deploy(name, 2, plan=update))

    def test_a_stop_is_no_change(self, name: str, hook: HsmlHook, update: dict[str, Any]) -> None:
        hook.stop_deployment(name, poll_interval=0.1)

        done = apply(name, update)
        assert (done["action"], done["model_version"], done["status"]) == ("updated", 2, "Running")

    def test_another_deployment_of_the_same_name(
        self, name: str, hook: HsmlHook, serving: LocalServing, update: dict[str, Any]
    ) -> None:
        hook.delete_deployment(name, force=True, poll_interval=0.1)
        execute(deploy(name, 1))

        self.refused(serving, CHANGED, deploy(name, 2, plan=update))

    def test_a_deployment_that_is_gone(
        self, name: str, hook: HsmlHook, serving: LocalServing, update: dict[str, Any]
    ) -> None:
        hook.delete_deployment(name, force=True, poll_interval=0.1)

        self.refused(serving, CHANGED, deploy(name, 2, plan=update))

    def test_a_deployment_that_came_meanwhile(
        self, name: str, serving: LocalServing, register: Callable[..., int]
    ) -> None:
        register(name, 1)
        record = planned(deploy(name, plan_only=True), serving)
        register(name, 2)
        execute(deploy(name, 2))

        self.refused(serving, f"{CHANGED}; it did not exist then", deploy(name, 1, plan=record))

    def test_another_version_than_planned(
        self, name: str, serving: LocalServing, update: dict[str, Any], register: Callable[..., int]
    ) -> None:
        register(name, 3)

        self.refused(
            serving,
            "it is for version 2 .* asks for version 3 .*\nUse the arguments of the plan",
            deploy(name, 3, plan=update),
        )

    def test_without_a_version_it_is_the_planned_one(
        self, name: str, update: dict[str, Any], register: Callable[..., int]
    ) -> None:
        register(name, 3)

        assert execute(deploy(name, plan=update))["model_version"] == 2

    def test_another_deployment_than_planned(self, name: str, serving: LocalServing, update: dict[str, Any]) -> None:
        other = deploy(name, 2, deployment_name="other", plan=update)

        self.refused(serving, f"in deployment '{name}', but .*in deployment 'other'", other)

    def test_another_spec_than_planned(self, name: str, serving: LocalServing, update: dict[str, Any]) -> None:
        other = deploy(name, 2, spec=LARGER, plan=update)

        self.refused(serving, "Give both tasks the same spec, or make a new plan", other)

    @pytest.mark.airflow
    @pytest.mark.parametrize("plan", ["yes", "[]", "{}", {"action": "planned"}, {"plan": None}, {"plan": {}}, 3])
    def test_what_is_no_plan(self, name: str, plan: Any, serving: LocalServing, register: Callable[..., int]) -> None:
        register(name, 1)

        self.refused(serving, r"plan: (expected |text as the whole value is read as JSON)", deploy(name, 1, plan=plan))
