"""
Every night: train candidates, and let the best one replace the model in production if it is better.

Three algorithms learn to read the handwritten digits that ship with scikit-learn. Each candidate becomes a version of
the model ``digits`` in the Model Registry, with its accuracy on the same held-out images every night. The best one of
the night is deployed when it beats the version being served, and the last task asks the deployment itself how well it
reads. A weak night changes nothing: production is kept. A version that answers otherwise than it did in training is
taken back: production is what it was, and the task fails and tells why.

What you need: the connection ``hsml_default``, and ``pip install scikit-learn joblib`` where the tasks run. Trigger it
with fewer training images to see a weak night; with ``{"scaling": "forgotten", "gamma": 0.3}`` to see one on which the
best number belongs to a file that lacks a step.

Every task may be retried or cleared at any time. Training leaves nothing to chance and writes to a folder of its own,
so the same run gives the same file; registering the same file again gives the same version; deploying again what is
served changes nothing.
"""

# mypy: disable-error-code="arg-type, index"
# Airflow types what a task will return as XComArg, wherever a value is expected.

# [START retrain_and_deploy]
from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, get_current_context, task

from airflow_provider_hsml.operators import DeployBestModelOperator, PredictOperator, RegisterModelOperator

MODEL = "digits"
ALGORITHMS = ["nearest_neighbors", "random_forest", "support_vectors"]

# Between training and registering a model is a file. With several workers, name a folder here that all of them share;
# and delete from it, now and then, runs that nobody will clear any more: each leaves about 4 MB.
FOLDER = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "trained"


def load_images() -> list[Any]:
    """Load images to learn from, 200 held-out ones, and the labels of both; the same split every night."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    split: list[Any] = train_test_split(images.astype(int), labels, test_size=200, random_state=0, stratify=labels)
    return split


@task(map_index_template="{{ task.op_kwargs['algorithm'] }}")
def train(algorithm: str) -> dict[str, Any]:
    """Train and save one candidate; returns what RegisterModelOperator is to be given."""
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

    # One model file in its own folder, keyed by run and map index: a retry writes the same file, and nobody else does.
    folder = FOLDER / f"{context['run_id']}_{context['ti'].map_index}"
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(model[-1] if params["scaling"] == "forgotten" else model, folder / "model.joblib")

    # Models differ on hard images: what the nearest one of a hundred others gets wrong comes first.
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
    """Give the images that no candidate has learned from."""
    _, images, _, _ = load_images()
    rows: list[list[int]] = images.tolist()
    return rows


def tell(context: Any) -> None:
    """Tell of a version that was taken back: the log here, your people in yours."""
    print(json.dumps({"promotion": context["promotion"]}))


@task
def check(promotion: dict[str, Any], answer: dict[str, Any]) -> float:
    """Compare what the deployment answered with the labels: it must be as good as was registered."""
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
        task_id="deploy", model_name=MODEL, metric="accuracy", candidates=register.output, on_rollback=tell
    )
    # [END retrain_and_deploy_deploy]

    predict = PredictOperator(
        task_id="predict", deployment_name=deploy.output["deployment_name"], instances=held_out_images()
    )

    check(deploy.output, predict.output)
    # [END retrain_and_deploy_tasks]
# [END retrain_and_deploy]
