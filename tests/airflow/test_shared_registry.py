"""Train in one project, serve from another that it shares its model registry with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import DeployBestModelOperator, DeployModelOperator, HsmlHook, PredictOperator
from airflow_provider_hsml.hopsworks.domain.feature_view import Provenance
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NotFoundError
from airflow_provider_hsml.local import AccessOptions, LocalServing
from tests.conftest import HOPSWORKS, run_model
from tests.support.tasks import execute

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.hopsworks, pytest.mark.usefixtures("serving")]


@pytest.fixture(scope="module")
def local_serving() -> Iterator[LocalServing]:
    """Three projects; the first of them is allowed to read the models of the second."""
    access = AccessOptions(shared_registries={"training": ["example"]})
    with LocalServing(
        engine=run_model,
        project=["example", "training", "private"],
        access=access,
        hopsworks_version=HOPSWORKS,
    ) as serving:
        for answer, accuracy in ((1, 0.8), (2, 0.9)):
            content = f'{{"answer": {answer}}}'.encode()
            serving.world.register_model(
                "churn",
                {"model.joblib": content},
                metrics={"accuracy": accuracy},
                input_example=[[1]],
                project="training",
            )
        yield serving


def deploy(**more: Any) -> Any:
    arguments: dict[str, Any] = {"model_name": "churn", "model_project": "training", "poll_interval": 0.1} | more
    kind = DeployBestModelOperator if "metric" in arguments else DeployModelOperator
    return execute(kind(task_id="task", **arguments))


def test_its_models_are_served(hook: HsmlHook) -> None:
    first = deploy(model_version=1)
    best = deploy(metric="accuracy", direction="max")

    assert (first["action"], first["model_version"]) == ("created", 1)
    assert (best["action"], best["model_version"], best["previous_metric_value"]) == ("updated", 2, 0.8)
    assert deploy(metric="accuracy", direction="max")["action"] == "kept"
    deployment = hook.get_deployment("churn")
    assert deployment.model_project == "training"
    assert execute(PredictOperator(task_id="task", deployment_name="churn")) == {"predictions": [2]}, "its example"
    assert hook.restart_deployment("churn", poll_interval=0.1).status == "Running"
    assert hook.get_deployments() == [hook.get_deployment("churn")], "nothing is deployed in the other project"
    assert HsmlHook(project="training").get_deployments() == []


def test_a_model_that_another_project_serves_is_kept(hook: HsmlHook) -> None:
    """Hopsworks says so; nobody can see it from the project that owns the model."""
    deploy(model_version=1, deployment_name="keeper")

    done = HsmlHook(project="training").delete_model_versions("churn", keep=1)
    assert 1 in done.kept


def test_a_registry_that_is_not_shared() -> None:
    with pytest.raises(AirflowFailException, match=r"'private' is not shared with project 'example'.*are: training"):
        deploy(model_project="private")
    with pytest.raises(AirflowFailException, match="'nothere' is not shared"):
        deploy(model_project="nothere")


def test_the_provenance_of_its_models(hook: HsmlHook) -> None:
    assert hook.get_provenance("churn", 1, model_project="training") == Provenance()

    with pytest.raises(NotFoundError, match=r"Version 9 .*versions there: 1, 2"):
        hook.get_provenance("churn", 9, model_project="training")
    with pytest.raises(NotFoundError, match="not shared"):
        hook.get_provenance("churn", 1, model_project="private")
    with pytest.raises(NotFoundError):
        hook.get_provenance("churn", 1)
    with pytest.raises(InvalidInputError, match="model_project"):
        hook.get_provenance("churn", 1, model_project="")


def test_lineage_names_the_project_that_owns_the_model() -> None:
    operator = DeployModelOperator(
        task_id="task", model_name="churn", model_version=1, model_project="training", deployment_name="lineage"
    )
    execute(operator)

    lineage = operator.get_openlineage_facets_on_complete(None)

    assert [one.name for one in lineage.inputs] == ["training/models/churn"]
    assert [one.name for one in lineage.outputs] == ["example/deployments/lineage"]
