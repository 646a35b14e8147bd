"""
Retrain every week, and let a person decide in Airflow's UI whether the new model goes to production.

Each run trains and registers one candidate. If it beats the serving version, the run shows the planned changes under
*Required Actions* and waits. After approval, exactly the planned version is deployed. After a rejection, or a week
without an answer, nothing is deployed. A candidate that is not better needs no decision.

Only the approved plan is carried out. If the deployment has changed since the plan was made, ``deploy`` fails without
changing anything; run the DAG again.

Requirements: Airflow 3.1 or later; the connection ``hsml_default``; and ``pip install scikit-learn joblib`` where the
tasks run. On an older Airflow, ``approve_by_tag`` does the same with a tag in Hopsworks.
"""

# mypy: disable-error-code="arg-type, index, list-item, no-untyped-call"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected, and gives the files
# of object storage no types.

# [START approve_in_airflow]
from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, Param, Variable, get_current_context, task
from airflow.providers.standard.operators.hitl import ApprovalOperator

from airflow_provider_hsml.operators import DeployBestModelOperator, DeployModelOperator, RegisterModelOperator

MODEL = "reviewed_digits"

# Trained models are here until they are registered, unless the Airflow variable `trained_models` names another place.
# Workers that share no files need a bucket, such as s3://aws_default@models/trained.
FOLDER = f"file://{Path(os.environ.get('AIRFLOW_HOME', '~/airflow')).expanduser()}/trained"

# The body of the approval request, in Markdown.
PLAN = """
{%- set record = ti.xcom_pull(task_ids="plan") -%}
{{ record.reason }}.
{% if record.measured %}
The report of the comparison: {{ record.measured.report }}
{% endif %}
| setting | now | then |
| --- | --- | --- |
{% for setting, (now, then) in record.plan.changes.items() -%}
| {{ setting }} | {{ now }} | {{ then }} |
{% endfor %}"""


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


with DAG(
    "approve_in_airflow",
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

    register = RegisterModelOperator(
        task_id="register",
        model_name=MODEL,
        framework="SKLEARN",
        model_path=candidate["path"],
        metrics=candidate["metrics"],
        expected=candidate["expected"],
    )

    # [START approve_in_airflow_tasks]
    plan = DeployBestModelOperator(
        task_id="plan",
        model_name=MODEL,
        metric="accuracy",
        direction="max",
        candidates=[register.output],
        plan_only=True,
        if_not_better="skip",
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Deploy version {{ ti.xcom_pull(task_ids='plan').model_version }} of " + MODEL + "?",
        body=PLAN,
        response_timeout=timedelta(days=7),
        defaults=ApprovalOperator.REJECT,
    )
    # [START approve_in_airflow_deploy]
    deploy = DeployModelOperator(
        task_id="deploy",
        model_name=MODEL,
        model_version=plan.output["model_version"],
        plan=plan.output,
        approved_by="{{ ti.xcom_pull(task_ids='approve').responded_by_user.name }}",
    )
    # [END approve_in_airflow_deploy]

    plan >> approve >> deploy
    # [END approve_in_airflow_tasks]
# [END approve_in_airflow]
