"""
Train candidates every night, and deploy the best one if it beats the model in production.

Three algorithms learn to read the handwritten digits that ship with scikit-learn. Each candidate becomes a version of
the model ``digits`` in the Model Registry, with its accuracy on the same held-out images every night. The best
candidate is deployed if it beats the serving version. The last task measures the accuracy of the deployment itself. If
no candidate is better, production is kept. If the new version answers differently than in training, it is rolled back,
and the task fails and gives the reason. With the parameter ``preflight``, each version is tried in a temporary
deployment first: one that answers differently is found there, and never answers in production.

Requirements: the connection ``hsml_default``, and ``pip install scikit-learn joblib`` where the tasks run. The trained
models are in a local folder until they are registered. If your workers share no files, set the Airflow variable
``trained_models`` to a bucket, such as ``s3://aws_default@models/trained``, and install its provider. Trigger the DAG
with fewer training images to see weak candidates. Trigger it with ``{"scaling": "forgotten", "gamma": 0.3}`` to see
a rollback: the candidate with the best metric is saved without its preprocessing step. Add ``"preflight": true`` to see
how production never notices.

Every task can be retried or cleared at any time. Training is deterministic and writes to a folder of its own, so the
same run produces the same file. Registering the same file again returns the same version. Deploying the serving version
again changes nothing.
"""

# mypy: disable-error-code="arg-type, index, no-untyped-call"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected, and gives the files
# of object storage no types.

# [START retrain_and_deploy]
from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, Param, Variable, get_current_context, task

from airflow_provider_hsml.operators import DeployBestModelOperator, PredictOperator, RegisterModelOperator

MODEL = "digits"
ALGORITHMS = ["nearest_neighbors", "random_forest", "support_vectors"]

# Trained models are here until they are registered, unless the Airflow variable `trained_models` names another place.
# Workers that share no files need a bucket, such as s3://aws_default@models/trained.
# Each run leaves about 4 MB; delete old runs that you will not clear any more.
FOLDER = f"file://{Path(os.environ.get('AIRFLOW_HOME', '~/airflow')).expanduser()}/trained"


def load_images() -> list[Any]:
    """Return the training images, 200 held-out images, and the labels of both; the same split every night."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    split: list[Any] = train_test_split(images.astype(int), labels, test_size=200, random_state=0, stratify=labels)
    return split


@task(map_index_template="{{ task.op_kwargs['algorithm'] }}")
def train(algorithm: str) -> dict[str, Any]:
    """Train and save one candidate; return the arguments for RegisterModelOperator."""
    import joblib
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from sklearn.svm import SVC

    context = get_current_context()
    params = context["params"]
    models = {
        "nearest_neighbors": KNeighborsClassifier(n_neighbors=params["neighbors"]),
        "random_forest": RandomForestClassifier(n_estimators=params["trees"], random_state=0),
        "support_vectors": SVC(gamma=params["gamma"]),
    }
    images, held_out, labels, held_out_labels = load_images()
    used = params["training_images"]
    steps = [models[algorithm]] if params["scaling"] == "none" else [MinMaxScaler(), models[algorithm]]
    model = make_pipeline(*steps).fit(images[:used], labels[:used])

    # One folder per run and map index: a retry overwrites its own file, and no other task writes to it.
    folder = ObjectStoragePath(Variable.get("trained_models", FOLDER)) / context["dag"].dag_id
    folder /= f"{context['run_id']}_{context['ti'].map_index}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.joblib").open("wb") as file:
        joblib.dump(model[-1] if params["scaling"] == "forgotten" else model, file)

    # Models disagree most on hard images, so verify with those: images that a weak classifier gets wrong come first.
    is_easy = KNeighborsClassifier(1).fit(images[:100], labels[:100]).predict(held_out) == held_out_labels
    hard = held_out[is_easy.argsort(kind="stable")[:30]]
    return {
        "model_path": str(folder),
        "description": f"{algorithm}, {used} images",
        "metrics": {"accuracy": float(model.score(held_out, held_out_labels))},
        "input_example": hard[:1].tolist(),
        "expected": {"instances": hard.tolist(), "predictions": model.predict(hard).tolist()},
    }


@task(show_return_value_in_logs=False)
def held_out_images() -> list[list[int]]:
    """Return the images that no candidate was trained on."""
    _, images, _, _ = load_images()
    rows: list[list[int]] = images.tolist()
    return rows


def tell(context: Any) -> None:
    """Report a rollback or a failed preflight. This example prints to the task log; notify your team here."""
    print(json.dumps({"promotion": context["promotion"]}))


@task
def check(promotion: dict[str, Any], answer: dict[str, Any]) -> float:
    """Check that the accuracy of the deployment's predictions equals the registered accuracy."""
    _, _, _, labels = load_images()
    accuracy = float((labels == answer["predictions"]).mean())
    print(json.dumps({"promotion": promotion, "served_accuracy": accuracy}))
    registered = promotion["metric_value"]
    if abs(accuracy - registered) > 1e-9:
        raise ValueError(f"The deployment answers with accuracy {accuracy}, but {registered} was registered.")
    return accuracy


with DAG(
    "retrain_and_deploy",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={
        "training_images": Param(1597, type="integer", minimum=20, maximum=1597, description="How many to learn from"),
        "neighbors": Param(3, type="integer", minimum=1, maximum=20, description="How many nearest neighbors vote"),
        "trees": Param(50, type="integer", minimum=1, maximum=500, description="How many trees are in the forest"),
        "gamma": Param(0.001, type="number", exclusiveMinimum=0, description="Less: support vectors reach farther"),
        "scaling": Param(
            "none",
            type="string",
            enum=["none", "saved", "forgotten"],
            description="Scale the pixels before learning; forgotten: and leave that step out of the saved file",
        ),
        "preflight": Param(False, type="boolean", description="Try the version in a temporary deployment first"),
    },
    doc_md=__doc__,
    tags=["hsml"],
):
    # [START retrain_and_deploy_tasks]
    register = RegisterModelOperator.partial(
        task_id="register", model_name=MODEL, framework="SKLEARN", map_index_template="{{ task.description }}"
    ).expand_kwargs(train.expand(algorithm=ALGORITHMS))

    # [START retrain_and_deploy_deploy]
    deploy = DeployBestModelOperator(
        task_id="deploy",
        model_name=MODEL,
        metric="accuracy",
        direction="max",
        candidates=register.output,
        preflight="{{ params.preflight }}",
        on_rollback=tell,
    )
    # [END retrain_and_deploy_deploy]

    predict = PredictOperator(
        task_id="predict", deployment_name=deploy.output["deployment_name"], instances=held_out_images()
    )

    check(deploy.output, predict.output)
    # [END retrain_and_deploy_tasks]
# [END retrain_and_deploy]
