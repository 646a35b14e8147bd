"""
Train in Hopsworks, deploy from Airflow: run a job that trains and registers a model, then deploy the best version.

Use this when the training needs Hopsworks' SDK, for example to read a feature view: the SDK cannot be installed beside
Airflow 3.2 or later. The job ``train_churn`` has to exist in the project. It registers a version of the model ``churn``
with the metric ``auc``, and gets the day of the run as its argument: trigger the DAG by hand with a logical date.

A retry, or a worker that dies, does not train twice: the task attaches to the execution that it has started. The
execution keeps running if the task's timeout passes, and is stopped if a person kills the task.
"""

# [START train_in_hopsworks]
from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_hsml.operators import DeployBestModelOperator, RunHopsworksJobOperator

with DAG(
    "train_in_hopsworks",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    doc_md=__doc__,
    tags=["hsml"],
):
    # [START train_in_hopsworks_tasks]
    # [START train_in_hopsworks_train]
    train = RunHopsworksJobOperator(
        task_id="train",
        job_name="train_churn",
        args=["--day", "{{ ds }}"],
        timeout=timedelta(hours=4),
        deferrable=True,
    )
    # [END train_in_hopsworks_train]
    deploy = DeployBestModelOperator(task_id="deploy", model_name="churn", metric="auc", direction="max")

    train >> deploy
    # [END train_in_hopsworks_tasks]
# [END train_in_hopsworks]
