"""
Roll a deployment back by hand, and see what it answers then.

For when the numbers were good and people complain all the same. Trigger it with the name of the deployment: it serves
again what it served before the last promotion, while the instances of now answer until the others do. The version that
is taken away is remembered: no later run chooses it as the best one again.

Or name a deployment version to go back to (Hopsworks 5.2 and later keep them). A promotion that fails by itself needs
none of this: it is taken back in the task.
"""

# mypy: disable-error-code="index"
# Airflow types what a task will return as XComArg, wherever a value is expected.

# [START roll_back]
from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_hsml.operators import PredictOperator, RollbackDeploymentOperator

with DAG(
    "roll_back",
    schedule=None,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={
        "deployment_name": Param("digits", type="string", pattern="^[a-zA-Z0-9]+$", description="Which one"),
        "to": Param("previous", type="string", pattern="^(previous|[0-9]+)$", description="Or a deployment version"),
    },
    doc_md=__doc__,
    tags=["hsml"],
):
    # [START roll_back_tasks]
    roll_back = RollbackDeploymentOperator(
        task_id="roll_back", deployment_name="{{ params.deployment_name }}", to="{{ params.to }}"
    )
    predict = PredictOperator(task_id="predict", deployment_name=roll_back.output["deployment_name"])
    # [END roll_back_tasks]
# [END roll_back]
