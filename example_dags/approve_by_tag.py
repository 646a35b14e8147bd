"""
Retrain every week, and let a person decide in Hopsworks' UI whether the new model goes to production.

Each run trains and registers one candidate. If it beats the serving version, the run prints the planned changes and
waits for the tag ``approval`` of the new version to become ``approved``. Then exactly the planned version is deployed.
Without the tag, the run ends after a week and deploys nothing. A candidate that is not better needs no decision.

Only the approved plan is carried out. If the deployment has changed since the plan was made, ``deploy`` fails without
changing anything; run the DAG again.

Requirements: the connection ``hsml_default``; a tag schema ``approval`` of type string, created by a Hopsworks
administrator; and ``pip install scikit-learn joblib`` where the tasks run. Works on every supported Airflow version. On
Airflow 3.1 or later, ``approve_in_airflow`` asks in Airflow's own UI instead.
"""

# mypy: disable-error-code="arg-type, index, list-item, no-untyped-call"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected, and gives the files
# of object storage no types.

# [START approve_by_tag]
from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, Param, Variable, get_current_context, task

from airflow_provider_hsml.operators import DeployBestModelOperator, DeployModelOperator, RegisterModelOperator
from airflow_provider_hsml.sensors import ModelVersionSensor

MODEL = "reviewed_digits"

# Trained models are here until they are registered, unless the Airflow variable `trained_models` names another place.
# Workers that share no files need a bucket, such as s3://aws_default@models/trained.
FOLDER = f"file://{Path(os.environ.get('AIRFLOW_HOME', '~/airflow')).expanduser()}/trained"


@task(multiple_outputs=True)
def train() -> dict[str, Any]:
    """Train a candidate and save it. A retry of the same run produces the same model."""
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neighbors import KNeighborsClassifier

    context = get_current_context()
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images.astype(int), labels, test_size=200, random_state=0, stratify=labels)
    images, held_out, labels, held_out_labels = split
    used = context["params"]["training_images"]
    model = KNeighborsClassifier(3).fit(images[:used], labels[:used])

    folder = ObjectStoragePath(Variable.get("trained_models", FOLDER)) / context["dag"].dag_id / context["run_id"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.joblib").open("wb") as file:
        joblib.dump(model, file)
    return {
        "path": str(folder),
        "metrics": {"accuracy": float(model.score(held_out, held_out_labels))},
        "expected": {"instances": held_out[:50].tolist(), "predictions": model.predict(held_out[:50]).tolist()},
    }


@task
def ask(record: dict[str, Any], url: str) -> None:
    """Print the plan and ask for a decision. In production, send it by mail or chat instead."""
    print(f"{record['reason']}. To have it deployed, set the tag 'approval' to 'approved' at {url}")
    for setting, (now, then) in record["plan"]["changes"].items():
        print(f"  {setting}: {now} -> {then}")


with DAG(
    "approve_by_tag",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={"training_images": Param(1597, type="integer", minimum=20, maximum=1597, description="To learn from")},
    doc_md=__doc__,
    tags=["hsml"],
):
    candidate = train()

    # [START approve_by_tag_register]
    register = RegisterModelOperator(
        task_id="register",
        model_name=MODEL,
        framework="SKLEARN",
        model_path=candidate["path"],
        metrics=candidate["metrics"],
        expected=candidate["expected"],
    )
    # [END approve_by_tag_register]

    # [START approve_by_tag_tasks]
    plan = DeployBestModelOperator(
        task_id="plan",
        model_name=MODEL,
        metric="accuracy",
        direction="max",
        candidates=[register.output],
        plan_only=True,
        if_not_better="skip",
    )
    # [START approve_by_tag_approved]
    approved = ModelVersionSensor(
        task_id="approved",
        model_name=MODEL,
        model_version=plan.output["model_version"],
        tag={"approval": "approved"},
        mode="reschedule",
        poke_interval=60,
        timeout=timedelta(days=7).total_seconds(),
        soft_fail=True,
    )
    # [END approve_by_tag_approved]
    deploy = DeployModelOperator(
        task_id="deploy", model_name=MODEL, model_version=plan.output["model_version"], plan=plan.output
    )

    ask(plan.output, register.output["url"]) >> approved >> deploy
    # [END approve_by_tag_tasks]
# [END approve_by_tag]
