"""
Run a deployment only while it is needed: start it, wait until it is ready, predict, and stop it.

Use this for models that are needed once a day, to avoid paying for instances around the clock. Trigger the DAG with the
name of an existing deployment, such as the one created by ``retrain_and_deploy``. The request is the registered input
example of its model.

``start`` is a setup task and ``stop`` its teardown: the deployment is stopped at the end even if the prediction fails,
or if the deployment was already running before. Only a run whose ``start`` fails leaves it as it is. The run succeeds
only with predictions and a stopped deployment. If you clear ``predict``, Airflow clears ``start`` and ``stop`` with it.
"""

# mypy: disable-error-code="arg-type, no-untyped-call"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected, and gives
# as_setup no types.

# [START start_predict_stop]
from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_hsml.operators import PredictOperator, StartDeploymentOperator, StopDeploymentOperator
from airflow_provider_hsml.sensors import DeploymentStatusSensor


@task
def report(answer: dict[str, Any]) -> int:
    """Print the predictions and return their number."""
    print(f"Predictions: {answer['predictions']}")
    return len(answer["predictions"])


with DAG(
    "start_predict_stop",
    schedule=None,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={"deployment_name": Param("digits", type="string", pattern="^[a-zA-Z0-9]+$", description="Which one")},
    doc_md=__doc__,
    tags=["hsml"],
):
    name = "{{ params.deployment_name }}"

    # [START start_predict_stop_tasks]
    # Only requests the start. The sensor waits for it and occupies no worker slot between its pokes.
    # [START start_predict_stop_start]
    start = StartDeploymentOperator(task_id="start", deployment_name=name, wait_for_completion=False)
    # [END start_predict_stop_start]
    # [START start_predict_stop_running]
    running = DeploymentStatusSensor(
        task_id="running", deployment_name=name, mode="reschedule", poke_interval=10, timeout=600
    )
    # [END start_predict_stop_running]
    # [START start_predict_stop_predict]
    predict = PredictOperator(task_id="predict", deployment_name=name)
    # [END start_predict_stop_predict]
    # [START start_predict_stop_stop]
    stop = StopDeploymentOperator(task_id="stop", deployment_name=name)
    # [END start_predict_stop_stop]

    start.as_setup() >> running >> predict >> stop.as_teardown(setups=start, on_failure_fail_dagrun=True)
    report(predict.output)
    # [END start_predict_stop_tasks]
# [END start_predict_stop]
