"""The example DAGs, one after another, since most use the same deployment; and the approvals that two of them need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from integration.scene import Scene

FOLDER = Path(__file__).parents[1] / "example_dags"
CHANGED = (
    # Triggered by hand, with parameters.
    ("approve_by_tag", 'schedule="@weekly"', "schedule=None"),
    ("approve_in_airflow", 'schedule="@weekly"', "schedule=None"),
    ("maintenance", 'schedule="@weekly"', "schedule=None"),
    # Training and registering on different workers.
    ("retrain_and_deploy", "@task(map_index_template=", '@task(queue="one", map_index_template='),
    ("retrain_and_deploy", 'task_id="register",', 'task_id="register", queue="two",'),
    ("approve_by_tag", "@task(multiple_outputs=True)", '@task(multiple_outputs=True, queue="one")'),
    ("approve_by_tag", 'task_id="register",', 'task_id="register", queue="two",'),
    ("approve_in_airflow", "@task(multiple_outputs=True)", '@task(multiple_outputs=True, queue="one")'),
    ("approve_in_airflow", 'task_id="register",', 'task_id="register", queue="two",'),
    # Polls every second, not every minute.
    ("approve_by_tag", "poke_interval=60", "poke_interval=1"),
    ("promote_on_new_version", 'metric="accuracy"))', 'metric="accuracy", poll_interval=1))'),
)
"""Replacements in the examples: name, text, and the text here."""
ELSEWHERE = ("nightly_scoring", "retrain_compare_deploy", "retrain_on_feature_view")
"""Examples that are parsed here, and run by tests of their own: they need jobs, feature views or extras."""


def files() -> dict[str, str]:
    """Return the texts of the examples by file name."""
    texts = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.py"))}
    for name, text, other in CHANGED:
        assert text in texts[name], f"{name} no longer contains {text}"
        texts[name] = texts[name].replace(text, other)
    return {f"{name}.py": text for name, text in texts.items()}


def run(scene: Scene) -> str:
    """Run the examples and return a summary."""
    serving = scene.servings["hsml_default"]
    scene.trigger("approve_by_tag", "by_hand", training_images=100)
    scene.unpause("retrain_and_deploy", "approve_by_tag")  # The scheduler starts the first.

    # Approve in Hopsworks, after the sensor's first poke without the tag.
    scene.until(lambda: scene.state("approve_by_tag", "approved") == "up_for_reschedule")
    registry = f"/project/{serving.project_id}/modelregistries/{serving.project_id}"
    tagged = requests.put(
        f"{serving.url}/hopsworks-api/api{registry}/models/reviewed_digits_1/tags/approval",
        data=json.dumps("approved"),
        headers={"Authorization": f"ApiKey {serving.api_key}", "Content-Type": "application/json"},
        timeout=60,
        verify=True,
    )
    assert tagged.ok, tagged.text
    scene.until_succeeded("approve_by_tag")
    assert live(scene, "revieweddigits") == (1, "Running")

    # Approve in Airflow.
    scene.trigger("approve_in_airflow", "by_hand", training_images=1597)
    scene.unpause("approve_in_airflow")
    scene.until(lambda: scene.has_left_worker("approve_in_airflow", "approve"))
    decision = {"chosen_options": ["Approve"], "params_input": {}}
    scene.tell("PATCH", "dags/approve_in_airflow/dagRuns/by_hand/taskInstances/approve/-1/hitlDetails", decision)
    scene.until_succeeded("approve_in_airflow")
    assert live(scene, "revieweddigits") == (2, "Running")

    scene.until_succeeded("retrain_and_deploy")
    promoted, status = live(scene, "digits") or (0, "")
    assert status == "Running"
    links = scene.links("retrain_and_deploy", "deploy")
    assert all((links[name] or "").startswith(serving.url) for name in ("Deployment", "Model version")), links
    scene.trigger("start_predict_stop", "by_hand")
    scene.unpause("start_predict_stop")
    scene.until_succeeded("start_predict_stop")
    assert live(scene, "digits") == (promoted, "Stopped")

    # Register a better version, which is promoted and then scores.
    scene.unpause("score_on_promotion", "promote_on_new_version")
    polls = len(serving.requests.where("GET", f"{registry}/models"))
    scene.until(lambda: len(serving.requests.where("GET", f"{registry}/models")) > polls + 1)
    model = {"model.joblib": json.dumps({"answer": 7}).encode()}
    version = serving.world.register_model("digits", model, metrics={"accuracy": 0.9999})
    scene.until_succeeded("promote_on_new_version", "score_on_promotion")
    scored = json.loads(scene.written(f"scored/digits_{version}.json").read_text())
    assert set(scored["predictions"]) == {7}
    assert live(scene, "digits") == (version, "Running")

    # Roll the promotion back; then retire one deployment and restart the other.
    scene.trigger("roll_back", "by_hand")
    scene.unpause("roll_back")
    scene.until_succeeded("roll_back")
    assert live(scene, "digits") == (promoted, "Running")
    scene.trigger("maintenance", "by_hand", retire=["revieweddigits"], restart=["digits"])
    scene.unpause("maintenance")
    scene.until_succeeded("maintenance")
    assert live(scene, "revieweddigits") is None
    assert live(scene, "digits") == (promoted, "Running")

    names = [name for name in (file.removesuffix(".py") for file in files()) if name not in ELSEWHERE]
    runs = scene.until_succeeded(*names)
    models = [key for key in scene.bucket.objects() if key.endswith("/model.joblib")]
    assert len(models) == 5, f"expected three models of retrain_and_deploy and one of each approved DAG: {models}"
    return f"{len(names)} example DAGs, {len(runs)} runs, {len(models)} models through the bucket"


def live(scene: Scene, deployment: str) -> tuple[int, str] | None:
    """Return the model version and the status of a deployment; None if it does not exist."""
    serving = scene.servings["hsml_default"]
    rows: Any = serving.world.project(serving.project_id).deployments.all_shown()
    return next(((row["modelVersion"], row["status"]) for row in rows if row["name"] == deployment), None)
