"""
The script of the Hopsworks job ``train_fraud``: train on the newest training dataset, and register a version.

It runs in the project, in an environment with Hopsworks' SDK and scikit-learn. ``retrain_on_feature_view`` starts it.
"""

# [START train_fraud]
import argparse
import tempfile
from pathlib import Path

import hopsworks
import joblib
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

parser = argparse.ArgumentParser()
parser.add_argument("--feature-view", required=True)
parser.add_argument("--feature-view-version", type=int, required=True)
arguments = parser.parse_args()

project = hopsworks.login()
view = project.get_feature_store().get_feature_view(arguments.feature_view, arguments.feature_view_version)
newest = max(dataset.version for dataset in view.get_training_datasets())
train_features, test_features, train_labels, test_labels = view.get_train_test_split(newest)

classifier = RandomForestClassifier(random_state=0).fit(train_features, train_labels.to_numpy().ravel())
auc = float(roc_auc_score(test_labels, classifier.predict_proba(test_features)[:, 1]))

with tempfile.TemporaryDirectory() as folder:
    joblib.dump(classifier, Path(folder) / "model.pkl")
    model = project.get_model_registry().python.create_model(
        "fraud",
        metrics={"auc": auc},
        # A request as clients send it: a new version that does not answer it is rolled back.
        input_example=[{"cc_num": 1, "amount": 9.5}],
        # `deploy` needs these two to carry the deployment's request schema over.
        feature_view=view,
        training_dataset_version=newest,
    )
    model.save(folder)
print(f"Registered version {model.version} of {model.name}, trained on training dataset {newest}: auc {auc:.3f}")
# [END train_fraud]
