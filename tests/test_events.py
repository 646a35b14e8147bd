"""What others are told of a promotion: callbacks after a rollback, and asset events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseNotifier

from airflow_provider_hsml.operators import DeployBestModelOperator, DeployModelOperator

from .tasks import FakeTaskInstance, execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.airflow


class Notifier(BaseNotifier):
    """Renders its message, as those of Slack or mail do."""

    template_fields = ("message",)

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message
        self.sent: list[str] = []

    def notify(self, context: Any) -> None:
        self.sent.append(self.message)


def run(operator: Any, ti: FakeTaskInstance | None = None) -> Any:
    """Execute an operator with as much of a context as a notifier renders with."""
    with DAG("promote", schedule=None) as dag:
        return operator.execute({"ti": ti or FakeTaskInstance(), "dag": dag})


class TestOnRollback:
    @pytest.fixture
    def failing(
        self, register: Callable[..., int], hook: HsmlHook, model_file: Callable[..., Path]
    ) -> Callable[[str], None]:
        """Have version 1 of a model serve, and register a better one that answers otherwise than was recorded."""

        def make(name: str) -> None:
            register(name, 1, auc=0.8)
            execute(DeployModelOperator(task_id="first", model_name=name))
            rows = [[0.0], [1.0]]
            hook.register_model(
                model_name=name,
                model_path=model_file(answer=6),
                framework="SKLEARN",
                metrics={"auc": 0.9},
                input_example=rows,
                expected={"instances": rows, "predictions": [66, 66]},
            )

        return make

    def test_notifiers_and_functions_get_the_record(self, failing: Callable[[str], None]) -> None:
        failing("told1")
        notifier, ti = Notifier("{{ promotion.model_version }}: {{ promotion.reason }}"), FakeTaskInstance()
        called: list[Any] = []
        operator = DeployBestModelOperator(
            task_id="deploy", model_name="told1", metric="auc", on_rollback=[called.append, notifier]
        )

        with pytest.raises(AirflowFailException, match="serves again"):
            run(operator, ti)

        record = ti.pushed["promotion"]
        assert record["action"] == "rolled_back"
        assert notifier.sent == [f"2: {record['reason']}"]
        assert [context["promotion"] for context in called] == [record]
        assert called[0]["ti"] is ti

    def test_that_raises_changes_nothing(
        self,
        failing: Callable[[str], None],
        hook: HsmlHook,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        failing("told2")
        notifier = Notifier("still told")

        def raises(context: Any) -> None:
            raise RuntimeError("no such channel")

        with pytest.raises(AirflowFailException, match="serves again"):
            run(DeployModelOperator(task_id="deploy", model_name="told2", on_rollback=(raises, notifier)))

        assert "no such channel" in caplog.text + capsys.readouterr().out, "Airflow 3 logs past Python's logging"
        assert notifier.sent == ["still told"]
        assert hook.predict("told2", instances=[[0.0]]) == {"predictions": [1]}

    def test_is_not_called_otherwise(self, serving: LocalServing, register: Callable[..., int]) -> None:
        register("told3", 1, auc=0.8)
        called: list[Any] = []

        def operator(version: int) -> DeployModelOperator:
            return DeployModelOperator(
                task_id="deploy", model_name="told3", model_version=version, on_rollback=called.append
            )

        execute(operator(1))
        with pytest.raises(AirflowFailException, match="versions there: 1"):
            execute(operator(9))

        assert called == []

    @pytest.mark.parametrize("given", ["page", 5, [print, "page"], {"a": 1}])
    def test_has_to_be_callable(self, given: Any) -> None:
        with pytest.raises(ValueError, match=r"'deploy': on_rollback: expected a callable or a list of them, got"):
            DeployModelOperator(task_id="deploy", model_name="told4", on_rollback=given)
