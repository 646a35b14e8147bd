"""Deploying and predicting by the ingress of the local Model Serving, past its REST API."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import DeployModelOperator, HsmlHook, PredictOperator
from airflow_provider_hsml.hopsworks.errors import InferenceError
from airflow_provider_hsml.hopsworks.inference import predict
from tests.support.tasks import execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.hopsworks

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"straight{next(_numbers)}"


@pytest.fixture
def by_ingress(serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes the connection so that predictions go to the ingress."""

    def connect(**extra: Any) -> None:
        fields = json.loads(serving.connection)
        fields["extra"] |= {"inference_route": "istio"} | extra
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(fields))

    connect(ingress_url=serving.ingress_url)
    return connect


def asked(serving: LocalServing) -> set[str]:
    """Give the paths that predictions were sent to."""
    return {one.path for one in serving.requests if one.path.endswith(":predict")}


@pytest.mark.usefixtures("by_ingress")
def test_probes_and_predictions_go_there(serving: LocalServing, name: str, register: Callable[..., int]) -> None:
    register(name, 5)
    record = execute(DeployModelOperator(task_id="task", model_name=name, poll_interval=0.1))
    register(name, 6)
    record = execute(DeployModelOperator(task_id="task", model_name=name, poll_interval=0.1))

    assert (record["action"], record["verified_by"]) == ("updated", "fingerprint")
    newer, older = f"/v1/example/{name}/v1/models/{name}:predict", f"/v1/models/{name}:predict"
    path = newer if serving.world.ingress_by_path else older
    assert path in asked(serving)
    # Until the route is there, the other address is tried as well.
    assert asked(serving) <= {newer, older}
    assert record["inference_url"] == f"{serving.ingress_url}{path}"
    assert execute(PredictOperator(task_id="task", deployment_name=name)) == {"predictions": [6, 6]}


def test_the_one_that_the_server_names(
    serving: LocalServing, name: str, register: Callable[..., int], by_ingress: Callable[..., None]
) -> None:
    """It is on the connection's own host."""
    by_ingress(ingress_url=None)
    register(name, 5)
    execute(DeployModelOperator(task_id="task", model_name=name, poll_interval=0.1))

    assert HsmlHook().inference_url(name).startswith(serving.ingress_url)
    assert HsmlHook().predict(name, inputs=[1]) == {"predictions": [5]}
    assert HsmlHook().get_inference_endpoints()[0].hosts == ("127.0.0.1",)
    assert HsmlHook().test_connection()[0]


@pytest.mark.usefixtures("by_ingress")
def test_by_the_host_header(
    serving: LocalServing, name: str, register: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before 4.8, where nothing is addressed by its path."""
    monkeypatch.setattr(serving.world, "ingress_by_path", False)
    register(name, 5)

    assert execute(DeployModelOperator(task_id="task", model_name=name, poll_interval=0.1))["status"] == "Running"
    assert f"/v1/models/{name}:predict" in asked(serving)


@pytest.mark.usefixtures("by_ingress")
def test_what_the_ingress_refuses(
    serving: LocalServing, name: str, register: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AirflowFailException, match="'nothere' does not exist"):
        execute(PredictOperator(task_id="task", deployment_name="nothere", instances=[[1]]))
    register(name, 5)
    hook = HsmlHook()
    hook.save_deployment(deployment_name=name, model_name=name)
    hook.stop_deployment(name, poll_interval=0.1)
    monkeypatch.setattr(predict, "ROUTE_BUDGET", 0.2)

    with pytest.raises(InferenceError):
        hook.predict(name, inputs=[1])
