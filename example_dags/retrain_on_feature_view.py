"""
Retrain on a feature view every night: a Hopsworks job trains and registers a version, and the DAG deploys the best one.

Use this when the model is trained on a feature view: that needs Hopsworks' SDK, which cannot be installed beside
Airflow 3.2 or later. The job ``train_fraud`` runs the script ``jobs/train_fraud.py`` in the project. It trains on the
newest training dataset of the feature view, and registers a version of the model ``fraud`` with the metric ``auc``.

``deploy`` finds that version in the model registry, compares it with the serving one, carries the deployment's request
schema over to the new training dataset, and verifies that the new instances answer the registered input example. A
version that does not is rolled back, and the task fails. The deployment exists already: its first request schema is
published with Hopsworks' SDK. ``docs/guides/feature-views.md`` has the steps.

A retry, or a worker that dies, does not train twice: the task attaches to the execution that it has started.
"""

# [START retrain_on_feature_view]
from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_hsml.operators import DeployBestModelOperator, RunHopsworksJobOperator

with DAG(
    "retrain_on_feature_view",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    doc_md=__doc__,
    tags=["hsml"],
):
    # [START retrain_on_feature_view_tasks]
    # [START retrain_on_feature_view_train]
    train = RunHopsworksJobOperator(
        task_id="train",
        job_name="train_fraud",
        args=["--feature-view", "transactions_view", "--feature-view-version", "1"],
        timeout=timedelta(hours=4),
        deferrable=True,
    )
    # [END retrain_on_feature_view_train]
    deploy = DeployBestModelOperator(
        task_id="deploy", model_name="fraud", metric="auc", direction="max", gate={"floor": 0.7}
    )

    train >> deploy
    # [END retrain_on_feature_view_tasks]
# [END retrain_on_feature_view]
