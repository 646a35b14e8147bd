"""
The script of a Hopsworks job that registers a version by the REST calls of Hopsworks' SDK, without libraries.

``jobs/train_fraud.py`` beside the example DAGs is the script for users. Here each training dataset has a known result:
number 4 has the best metric, and its model cannot be loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

RESULTS: dict[int, tuple[float, int | None]] = {2: (0.8, 2), 3: (0.85, 3), 4: (0.95, None), 5: (0.9, 5)}
"""By training dataset: the metric of the version, and its answer; None if it has none."""
NUMBER = os.environ["HOPSWORKS_PROJECT_ID"]
BASE = f"{os.environ['REST_ENDPOINT']}/hopsworks-api/api/project/{NUMBER}"
KEY = (Path(os.environ["SECRETS_DIR"]) / "api.key").read_text().strip()


def ask(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
    """Send a request, and read its answer."""
    headers = {"Authorization": f"ApiKey {KEY}", "Content-Type": kind}
    request = urllib.request.Request(BASE + path, body, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or b"null")


def upload(folder: str, name: str, content: Any) -> None:
    """Upload a file of JSON."""
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = f"{head}{json.dumps(content)}\r\n--x--\r\n".encode()
    ask("POST", f"/dataset/upload/{folder}", body, "multipart/form-data; boundary=x")


def create(folder: str) -> None:
    """Create a folder, if it does not exist."""
    try:
        ask("POST", f"/dataset/{folder}?action=create")
    except urllib.error.HTTPError as error:
        if error.code != 400:
            raise


def columns(view: dict[str, Any], *, label: bool) -> dict[str, Any]:
    """Return the columns of a view as a part of the model's schema."""
    named = [{"name": one["name"], "type": one["type"]} for one in view["features"] if one["label"] is label]
    return {"columnar_schema": named}


def main() -> None:
    """Register the version of the newest training dataset."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--feature-view", required=True)
    parser.add_argument("--feature-view-version", required=True)
    given = parser.parse_args()
    store = ask("GET", f"/featurestores/{os.environ['HOPSWORKS_PROJECT_NAME'].lower()}_featurestore")["featurestoreId"]
    path = f"/featurestores/{store}/featureview/{given.feature_view}/version/{given.feature_view_version}"
    view = ask("GET", f"{path}?expand=features")
    newest = max(one["version"] for one in ask("GET", f"{path}/trainingdatasets")["items"])
    metric, answer = RESULTS[newest]

    registry = f"/modelregistries/{NUMBER}/models"
    version = 1 + ask("GET", f"{registry}?filter_by=name_eq:fraud").get("count", 0)
    folder = f"Models/fraud/{version}"
    for each in ("Models/fraud", folder, f"{folder}/Files"):
        create(each)
    content = {"broken": "no such feature"} if answer is None else {"answer": answer}
    upload(f"{folder}/Files", "model.joblib", content)
    upload(folder, "input_example.json", [{"cc_num": 1, "amount": 9.5}])
    schema = {"input_schema": columns(view, label=False), "output_schema": columns(view, label=True)}
    upload(folder, "model_schema.json", schema)
    identity = {"featurestoreId": store, "name": view["name"], "version": view["version"]}
    body = {"id": f"fraud_{version}", "name": "fraud", "version": version, "framework": "PYTHON"} | {
        "metrics": {"attributes": {"auc": metric}},
        "featureView": identity,
        "trainingDatasetVersion": newest,
    }
    ask("PUT", f"{registry}/fraud_{version}", json.dumps(body).encode())
    print(f"Registered version {version} of fraud, trained on training dataset {newest}: auc {metric:.3f}")


main()
