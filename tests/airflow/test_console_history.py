"""The console of the local Model Serving reads the journal that the provider writes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml.local.console import promotions
from airflow_provider_hsml.operators import DeployModelOperator, RollbackDeploymentOperator
from tests.support.tasks import FakeTaskInstance, execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.hopsworks


def test_a_history_with_each_way_to_fail(
    serving: LocalServing, hook: HsmlHook, register: Callable[..., int], model_file: Callable[..., Any]
) -> None:
    rows = [[0.0], [1.0]]
    for answer in (1, 2):
        register("history", answer)
    for _ in range(2):
        hook.register_model(
            model_name="history",
            model_path=model_file(answer=6),
            framework="SKLEARN",
            input_example=rows,
            expected={"instances": rows, "predictions": [66, 66]},
        )

    def deploy(version: int, **given: Any) -> None:
        task = DeployModelOperator(task_id="deploy", model_name="history", model_version=version, **given)
        execute(task, FakeTaskInstance())

    deploy(1)
    deploy(2)
    execute(RollbackDeploymentOperator(task_id="back", deployment_name="history", to="previous"), FakeTaskInstance())
    for version, preflight in ((3, True), (4, False)):
        with pytest.raises(AirflowFailException, match="answers otherwise than recorded"):
            deploy(version, preflight=preflight)

    history = promotions.promotions(serving.world.project(119).files, "history", time.time())
    assert [(each.result, each.served.version, each.before.version) for each in history] == [
        ("rolled back", 4, 1),
        ("rejected", 3, None),
        ("verified", 1, 2),
        ("verified", 2, 1),
        ("verified", 1, None),
    ]
    assert [each.is_rollback for each in history] == [False, False, True, False, False]
    assert history[0].task.count("/") == 3
    marks = promotions.marks(history)
    assert {each.version: mark.result for each, mark in marks.items()} == {
        2: "rolled back",
        3: "rejected",
        4: "rolled back",
    }
    assert all(each.project == serving.project for each in marks)
    page = requests.get(f"{serving.url}/p/{serving.project_id}/models/history", timeout=30)
    assert page.text.count('class="status failed"') == 3
    assert "row 1 of 2: expected 66, got 6" in page.text
