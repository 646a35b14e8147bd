"""
Roll a deployment back by hand, and ask it for a prediction afterwards.

Use this when the metrics were good but the model misbehaves in production. Trigger the DAG with the name of the
deployment to restore the version that was serving before the last promotion. The current instances keep answering until
the restored version is ready. The rejected version is recorded, so no later run promotes it again.

On Hopsworks 5.2 or later, ``to`` can also name the deployment version to restore. A promotion that fails verification
does not need this DAG: its task rolls back by itself.
"""

# mypy: disable-error-code="index"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected.

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
