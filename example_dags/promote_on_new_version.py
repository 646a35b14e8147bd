"""
A new version in the Model Registry, registered by whoever, goes to production if it is better than the one there.

Airflow 3 watches the registry, not a schedule: a notebook, a Hopsworks job or another DAG registers a version, and a
minute later this runs. Each version starts it once; several that come together may share a run, which looks at them
all. What is worse than what serves, or has not got the metric, changes nothing.

What you need: the connection ``hsml_default``, and a triggerer. On Airflow 3.3 and later a version that comes while no
triggerer runs is noticed afterwards, earlier ones miss it: then run the DAG by hand.
"""

# [START promote_on_new_version]
from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias
from airflow.sdk import AssetWatcher

from airflow_provider_hsml.operators import DeployBestModelOperator
from airflow_provider_hsml.triggers import ModelVersionTrigger

MODEL = "digits"

# The asset has a name of its own: the one that RegisterModelOperator tells of, hopsworks://<project>/models/digits, is
# another, so that what a DAG registers is not told of twice.
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
        task_id="deploy", model_name=MODEL, metric="accuracy", outlets=[AssetAlias("digits_in_production")]
    )
# [END promote_on_new_version]
