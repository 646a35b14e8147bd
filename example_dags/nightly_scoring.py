"""
Score a table every time another version of the model goes to production, on a deployment of its own.

The DAG runs after a task has changed the deployment ``digits`` and emitted an asset event, as in
``promote_on_new_version``. It starts a second deployment with the promoted version, cuts the table into shards, scores
them in mapped tasks, puts their manifests together, and deletes the second deployment in any case. Production gets no
request: its load, its promotions and its monitoring stay as they are.

Each mapped task resumes when it is retried or cleared. They share the pool ``hopsworks_predictions``: through Hopsworks
there are about ten connections to models for everybody, and one task uses four of them. Make the pool with two slots:
``airflow pools set hopsworks_predictions 2 'tables that are scored at a time'``.

Requirements: the connection ``hsml_default``, and ``pip install scikit-learn`` where the tasks run. The API key needs
the scopes DATASET_VIEW, DATASET_CREATE and DATASET_DELETE as well. The rows and the results are in a local folder. If
your workers share no files, set the Airflow variable ``trained_models`` to a bucket, such as
``s3://aws_default@models/trained``, and install its provider. A run triggered by hand scores with the serving version.
"""

# mypy: disable-error-code="arg-type, index, no-untyped-call"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected, and gives the files
# of object storage no types.

# [START nightly_scoring]
from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, ObjectStoragePath, Variable, get_current_context, task

from airflow_provider_hsml.operators import BatchPredictOperator, DeleteDeploymentOperator, DeployModelOperator

MODEL = "digits"
DEPLOYED = Asset("hopsworks://demo/deployments/digits")
POOL = "hopsworks_predictions"
# Workers that share no files need a bucket, such as s3://aws_default@models/trained.
FOLDER = f"file://{Path(os.environ.get('AIRFLOW_HOME', '~/airflow')).expanduser()}/trained"


@task
def promoted() -> int:
    """Return the serving version, from the newest asset event."""
    context: Any = get_current_context()
    # Airflow 2 calls assets datasets.
    by_asset = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
    events = [event for events in by_asset.values() for event in events]
    if events:
        return int(max(events, key=lambda event: event.timestamp).extra["model_version"])
    from airflow_provider_hsml.hooks import HsmlHook

    return int(HsmlHook().get_deployment(MODEL).model_version or 0)


@task
def shards() -> list[dict[str, Any]]:
    """Write the table, in place of a query, and return the arguments of each mapped task."""
    from sklearn.datasets import load_digits

    from airflow_provider_hsml.tables import split_input

    context = get_current_context()
    folder = ObjectStoragePath(Variable.get("trained_models", FOLDER)) / context["dag"].dag_id / context["run_id"]
    rows = [{"id": number, "instance": image} for number, image in enumerate(load_digits().data.astype(int).tolist())]
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    for first in range(0, len(rows), 500):
        path = folder / "rows" / f"{first:06}.jsonl"
        if not path.exists():  # A changed file counts as another table, also for a task that is cleared.
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows[first : first + 500]))
    several = split_input(str(folder / "rows"), rows_per_shard=1000)
    return [
        {"input": shard, "result_path": str(folder / "results" / str(number))} for number, shard in enumerate(several)
    ]


@task
def join(manifests: Any) -> dict[str, Any]:
    """Put the manifests together, and write them beside the results."""
    from airflow_provider_hsml.tables import join_manifests

    manifest = join_manifests(manifests)
    print(json.dumps({"scored": manifest}))
    return manifest


with DAG(
    "nightly_scoring",
    schedule=[DEPLOYED],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    doc_md=__doc__,
    tags=["hsml"],
):
    # [START nightly_scoring_tasks]
    deploy = DeployModelOperator(
        task_id="deploy", model_name=MODEL, model_version=promoted(), deployment_name="digitsnightly"
    ).as_setup()

    score = BatchPredictOperator.partial(
        task_id="score", deployment_name="digitsnightly", key_columns=["id"], pool=POOL
    ).expand_kwargs(shards())

    delete = DeleteDeploymentOperator(task_id="delete", deployment_name="digitsnightly", force=True)

    deploy >> score >> delete.as_teardown(setups=deploy)
    join(score.output)
    # [END nightly_scoring_tasks]
# [END nightly_scoring]
