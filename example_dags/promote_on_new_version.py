"""
Promote every new version in the Model Registry that beats production, no matter who registered it.

Airflow 3 watches the registry instead of a schedule: about a minute after a notebook, a Hopsworks job or another DAG
registers a version, this DAG runs. Each version triggers one run. Versions registered at about the same time may share
a run, which considers all of them. A version that is worse than the serving one, or lacks the metric, changes nothing.

Requirements: the connection ``hsml_default`` and a running triggerer. Airflow 3.3 and later also detect versions that
were registered while no triggerer was running. Earlier releases miss those; run the DAG by hand.
"""

# [START promote_on_new_version]
from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias
from airflow.sdk import AssetWatcher

from airflow_provider_hsml.operators import DeployBestModelOperator
from airflow_provider_hsml.triggers import ModelVersionTrigger

MODEL = "digits"

# The name differs on purpose from the asset of RegisterModelOperator, hopsworks://<project>/models/digits. Otherwise a
# version that a DAG registers would trigger two runs.
# [START promote_on_new_version_asset]
new_version = Asset(
    "new_version_of_digits",
    watchers=[AssetWatcher(name="registry", trigger=ModelVersionTrigger(model_name=MODEL, metric="accuracy"))],
)
# [END promote_on_new_version_asset]

with DAG(
    "promote_on_new_version",
    schedule=[new_version],
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    doc_md=__doc__,
    tags=["hsml"],
):
    DeployBestModelOperator(
        task_id="deploy",
        model_name=MODEL,
        metric="accuracy",
        direction="max",
        outlets=[AssetAlias("digits_in_production")],
    )
# [END promote_on_new_version]
