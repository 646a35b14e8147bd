"""
Retrain, register, deploy the best candidate and predict: retrain_and_deploy with models that load instantly.

Four DAGs cover two Hopsworks servers, each with the wait in the worker and in the triggerer. Their runs, tasks and
models have the same names. Each model answers with its own name, so an answer from a wrong model is detected.
"""

# mypy: disable-error-code="arg-type, index"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected.

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, ObjectStoragePath, Param, Variable, get_current_context, task

from airflow_provider_hsml import DeployBestModelOperator, PredictOperator, RegisterModelOperator

CANDIDATES = [0, 1]
ROWS = [[0.0], [1.0]]


def answer(candidate: int) -> str:
    """Return the expected answer of a candidate of this run."""
    context: Any = get_current_context()
    return f"{context['dag'].dag_id}, {context['params']['model']}, candidate {candidate}"


@task
def train(candidate: int) -> dict[str, Any]:
    """Create a candidate; the run's parameter ``best`` decides which one has the best metric."""
    context: Any = get_current_context()
    folder = ObjectStoragePath(Variable.get("trained_models")) / context["dag"].dag_id / context["run_id"]
    folder /= str(candidate)
    (folder / "model.joblib").write_text(json.dumps({"answer": answer(candidate)}))
    return {
        "model_path": str(folder),
        "metrics": {"accuracy": 0.9 if candidate == context["params"]["best"] else 0.5},
        "expected": {"instances": ROWS, "predictions": [answer(candidate)] * len(ROWS)},
    }


@task
def check(promotion: dict[str, Any], response: dict[str, Any]) -> None:
    """Check that the promotion is verified, and that this run's best candidate answers."""
    context: Any = get_current_context()
    # A retry attaches to the change that the failed attempt has made.
    how = promotion["action"], promotion["verified_by"]
    assert how in {("created", "fingerprint"), ("attached", "fingerprint"), ("attached", "status")}, promotion
    assert response["predictions"] == [answer(context["params"]["best"])] * len(ROWS), response


for where in ("default", "other"):
    for how in ("worker", "triggerer"):
        with DAG(
            f"retrain_{where}_{how}",
            schedule=None,
            max_active_runs=10,
            default_args={"retries": 5, "retry_delay": timedelta(seconds=2)},
            params={"model": Param("model", type="string"), "best": Param(0, type="integer")},
        ):
            register = RegisterModelOperator.partial(
                task_id="register", hsml_conn_id=f"hsml_{where}", model_name="{{ params.model }}", framework="SKLEARN"
            ).expand_kwargs(train.expand(candidate=CANDIDATES))

            deploy = DeployBestModelOperator(
                task_id="deploy",
                hsml_conn_id=f"hsml_{where}",
                model_name="{{ params.model }}",
                metric="accuracy",
                direction="max",
                candidates=register.output,
                deferrable=how == "triggerer",
            )

            predict = PredictOperator(
                task_id="predict",
                hsml_conn_id=f"hsml_{where}",
                deployment_name=deploy.output["deployment_name"],
                instances=ROWS,
            )

            check(deploy.output, predict.output)
