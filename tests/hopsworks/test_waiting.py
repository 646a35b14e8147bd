"""What a wait says when it ends badly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.calls import Call, InstanceLog
from airflow_provider_hsml.hopsworks.deployments import Deployment
from airflow_provider_hsml.hopsworks.errors import DeploymentFailed
from airflow_provider_hsml.hopsworks.waiting import drive, explained

from .fake import PROJECT, row

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.waiting import Procedure


@pytest.mark.parametrize(
    ("reason", "component"),
    [("Failed to run: predictor terminated", "predictor"), ("Failed to run: transformer terminated", "transformer")],
)
def test_a_failure_carries_the_log_of_the_component_at_fault(reason: str, component: str) -> None:
    condition = {"type": "STARTED", "status": False, "reason": reason}
    failed = Deployment.from_json(row("Failed", condition=condition))

    def fail() -> Procedure[None]:
        yield from ()
        raise DeploymentFailed(failed)

    def send(call: Call[Any]) -> list[InstanceLog]:
        return [InstanceLog("pod-1", f"a line of the {dict(call.query)['component']}")]

    with pytest.raises(DeploymentFailed) as caught:
        drive(explained(PROJECT, fail()), send, lambda _seconds: None)
    assert str(caught.value).splitlines()[1:] == [
        f"Last lines of the {component}'s log:",
        "[pod-1]",
        f"a line of the {component}",
    ]
