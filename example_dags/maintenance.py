"""
Weekly maintenance: delete retired deployments and old model versions, and restart deployments on request.

Scheduled runs delete old versions of the models in ``MODELS``. The newest and the best version are kept, and so is
every version that a deployment serves or can be rolled back to. Temporary deployments that killed tasks have left are
deleted, once nobody uses them. Trigger the DAG by hand to delete deployments
(``retire``) or to restart them (``restart``), for example after replacing a secret or installing a library in their
environment.

Each name has its own mapped task, labelled with the name in Airflow's UI, so one failure does not affect the others.
"""

# mypy: disable-error-code="arg-type"
# Airflow types the future return value of a task as XComArg, even where a plain value is expected.

# [START maintenance]
from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param, get_current_context, task

from airflow_provider_hsml.operators import (
    DeleteDeploymentOperator,
    DeleteModelVersionsOperator,
    RestartDeploymentOperator,
)

MODELS = ["digits"]


@task
def remove_side_deployments() -> list[str]:
    """Delete the temporary deployments of preflights that were killed, once their leases have expired."""
    from airflow_provider_hsml.hooks import HsmlHook

    return HsmlHook().remove_expired_side_deployments()


@task
def names(param: str) -> list[str]:
    """Return the names that this run was triggered with."""
    value: list[str] = get_current_context()["params"][param]
    return value


with DAG(
    "maintenance",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={
        "retire": Param([], type="array", items={"type": "string"}, description="Deployments to delete"),
        "restart": Param([], type="array", items={"type": "string"}, description="Deployments to restart"),
        "keep": Param(5, type="integer", minimum=1, description="How many of the newest versions of a model to keep"),
    },
    doc_md=__doc__,
    tags=["hsml"],
):
    # [START maintenance_tasks]
    # [START maintenance_retire]
    retire = DeleteDeploymentOperator.partial(task_id="retire", force=True).expand(
        deployment_name=names.override(task_id="to_retire")("retire")
    )
    # [END maintenance_retire]
    # [START maintenance_clear_up]
    # Without names, `retire` is skipped; this task must run all the same.
    clear_up = DeleteModelVersionsOperator.partial(
        task_id="clear_up", keep="{{ params.keep }}", keep_best=("accuracy", "max"), trigger_rule="none_failed"
    ).expand(model_name=MODELS)
    # [END maintenance_clear_up]
    # [START maintenance_restart]
    restart = RestartDeploymentOperator.partial(task_id="restart", max_active_tis_per_dagrun=1).expand(
        deployment_name=names.override(task_id="to_restart")("restart")
    )
    # [END maintenance_restart]

    retire >> clear_up
    remove_side_deployments()
    # [END maintenance_tasks]
# [END maintenance]
