"""
Score a batch of images whenever another version of the model goes to production.

The DAG runs after a task has changed the deployment and emitted an asset event, through an ``AssetAlias`` among its
``outlets`` as in ``promote_on_new_version``. A promotion that keeps the serving version emits none. The event names the
promoted version; the predictions of each version go to a file of their own, together with the version number.

Requirements: the connection ``hsml_default``, and ``pip install scikit-learn`` where the tasks run. Set ``DEPLOYED`` to
your own project. A run triggered by hand scores with the serving version.
"""

# mypy: disable-error-code="arg-type, index"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected.

# [START score_on_promotion]
from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, get_current_context, task

from airflow_provider_hsml.operators import PredictOperator

DEPLOYED = Asset("hopsworks://example/deployments/digits")
FOLDER = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "scored"


@task(multiple_outputs=False)  # With multiple outputs, Airflow 3.0 fails if one of them is None.
def promoted() -> dict[str, Any]:
    """Return the serving version and its metric, from the newest asset event."""
    context: Any = get_current_context()
    # Airflow 2 calls assets datasets.
    by_asset = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
    events = [event for events in by_asset.values() for event in events]
    if not events:
        from airflow_provider_hsml.hooks import HsmlHook

        live = HsmlHook().get_deployment("digits")
        return {"model_version": live.model_version, "metric_value": None}
    newest = max(events, key=lambda event: event.timestamp)
    return {name: newest.extra[name] for name in ("model_version", "metric_value")}


@task
def new_images() -> list[list[int]]:
    """Return the images to score."""
    from sklearn.datasets import load_digits

    return [[int(pixel) for pixel in image] for image in load_digits().data[-20:]]


@task
def keep(promotion: dict[str, Any], answer: dict[str, Any]) -> str:
    """Write the predictions to a file and return its path."""
    path = FOLDER / f"digits_{promotion['model_version']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(promotion | {"predictions": answer["predictions"]}))
    print(f"Scored with version {promotion['model_version']}: {path}")
    return str(path)


with DAG(
    "score_on_promotion",
    schedule=[DEPLOYED],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    doc_md=__doc__,
    tags=["hsml"],
):
    # [START score_on_promotion_tasks]
    predict = PredictOperator(task_id="predict", deployment_name="digits", instances=new_images())

    keep(promoted(), predict.output)
    # [END score_on_promotion_tasks]
# [END score_on_promotion]
