"""
Train a model every night, compare it with the one in production on the same rows, and deploy it if it is better.

A classifier learns to read the handwritten digits that ship with scikit-learn. The training reports an accuracy on a
few images of the night, so that number is partly luck. The comparison starts the version in production and the new one
as one temporary deployment beside production, one after the other, and sends both the same held-out images, with the
true digits. The gate passes only if the difference is no noise. Before production is changed, the new version is tried
on its own (``preflight``). If it is not better, production is kept.

Requirements: the connection ``hsml_default``, and ``pip install 'airflow-provider-hsml[metrics]' joblib`` where the
tasks run. The API key needs the scopes DATASET_VIEW, DATASET_CREATE and DATASET_DELETE as well. The trained models, the
rows and the reports are in a local folder. If your workers share no files, set the Airflow variable ``trained_models``
to a bucket, such as ``s3://aws_default@models/trained``, and install its provider.

Trigger the DAG with ``{"training_images": 100}`` for a weak model, and with another ``luck`` for another number of the
same model. Read ``report.html``, whose path the task ``compare`` links, before you trust a number.

Tasks can be retried or cleared. Within a run, the answers of both versions are stored and used again. Only ``compare``
cannot be cleared once ``deploy`` has deployed its challenger: it would compare that version with itself, and fails.
"""

# mypy: disable-error-code="arg-type, index, no-untyped-call"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected, and gives the files
# of object storage no types.

# [START retrain_compare_deploy]
from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, Param, Variable, get_current_context, task

from airflow_provider_hsml.operators import CompareModelsOperator, DeployBestModelOperator, RegisterModelOperator

MODEL = "numerals"
# Workers that share no files need a bucket, such as s3://aws_default@models/trained.
FOLDER = f"file://{Path(os.environ.get('AIRFLOW_HOME', '~/airflow')).expanduser()}/trained"


@task
def train() -> dict[str, Any]:
    """Train and save a model and the rows to compare on; return their places, and what the registry is to know."""
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import train_test_split

    context = get_current_context()
    params = context["params"]
    pixels, digits = load_digits(return_X_y=True)
    # No model is ever trained on the held-out images: they are the same every night.
    images, held_out, labels, truth = train_test_split(pixels.astype(int), digits, test_size=600, random_state=0)
    used = params["training_images"]
    model = RandomForestClassifier(params["trees"], random_state=params["luck"]).fit(images[:used], labels[:used])
    # A number of a few images of the night, as trainings often report it. It has luck in it.
    _, few, _, their_labels = train_test_split(images[used:], labels[used:], test_size=40, random_state=params["luck"])

    folder = ObjectStoragePath(Variable.get("trained_models", FOLDER)) / context["dag"].dag_id / context["run_id"]
    (folder / "model").mkdir(parents=True, exist_ok=True)
    with (folder / "model" / "model.joblib").open("wb") as file:
        joblib.dump(model, file)
    rows = zip(held_out.tolist(), truth.tolist(), strict=True)
    (folder / "rows.jsonl").write_text(
        "".join(f"{json.dumps({'instance': image, 'digit': digit})}\n" for image, digit in rows)
    )
    return {
        "model_path": str(folder / "model"),
        "metrics": {"accuracy": float(model.score(few, their_labels))},
        "expected": {"instances": held_out[:30].tolist(), "predictions": model.predict(held_out[:30]).tolist()},
        "rows": str(folder / "rows.jsonl"),
        "results": str(folder / "comparison"),
    }


@task
def tell(comparison: dict[str, Any], promotion: dict[str, Any]) -> None:
    """Report the decision. This example prints to the task log; notify your team here."""
    accuracy = comparison["metrics"].get("accuracy")
    print(json.dumps({"promotion": promotion, "accuracy": accuracy, "report": comparison["report"]}))


with DAG(
    "retrain_compare_deploy",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={
        "training_images": Param(1100, type="integer", minimum=50, maximum=1100, description="How many to learn from"),
        "trees": Param(50, type="integer", minimum=1, maximum=500, description="How many trees are in the forest"),
        "luck": Param(0, type="integer", minimum=0, description="The seed of the training and of its own number"),
    },
    doc_md=__doc__,
    tags=["hsml"],
):
    # [START retrain_compare_deploy_tasks]
    trained = train()
    register = RegisterModelOperator(
        task_id="register",
        model_name=MODEL,
        model_path=trained["model_path"],
        framework="SKLEARN",
        metrics=trained["metrics"],
        expected=trained["expected"],
    )

    # [START retrain_compare_deploy_compare]
    compare = CompareModelsOperator(
        task_id="compare",
        deployment_name=MODEL,
        challenger=register.output,
        input=trained["rows"],
        label_column="digit",
        metrics=["accuracy", "f1"],
        result_path=trained["results"],
    )
    # [END retrain_compare_deploy_compare]

    deploy = DeployBestModelOperator(
        task_id="deploy",
        model_name=MODEL,
        metric="accuracy",
        direction="max",
        candidates=[register.output["model_version"]],
        gate={"measured": compare.output},
        preflight=True,
    )

    tell(compare.output, deploy.output)
    # [END retrain_compare_deploy_tasks]
# [END retrain_compare_deploy]
