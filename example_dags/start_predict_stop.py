"""
A deployment that runs only while it is needed: start it, wait, ask for predictions, stop it.

Serves models that are asked once a day, without paying for instances around the clock. Trigger it with the name of a
deployment that exists, such as the one that ``retrain_and_deploy`` makes; its model's input example is what is asked.

The deployment is stopped whatever happened before, even if it ran already: ``stop`` runs also when the prediction
fails. The run is green only when there were predictions and the deployment is stopped, because ``report`` needs both.
"""

# mypy: disable-error-code="arg-type"
# Airflow types what a task will return as XComArg, wherever a value is expected.

# [START start_predict_stop]
from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_hsml.operators import PredictOperator, StartDeploymentOperator, StopDeploymentOperator
from airflow_provider_hsml.sensors import DeploymentStatusSensor


@task
def report(answer: dict[str, Any]) -> int:
    """Say what was answered; returns how many predictions there were."""
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
    # Asks for the start only; the sensor waits for it, without a worker in between.
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
    stop = StopDeploymentOperator(task_id="stop", deployment_name=name, trigger_rule="all_done")
    # [END start_predict_stop_stop]

    start >> running >> predict >> stop >> report(predict.output)
    # [END start_predict_stop_tasks]
# [END start_predict_stop]
