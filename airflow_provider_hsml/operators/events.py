"""Asset events of changed deployments and models, for tasks with an ``AssetAlias`` among their outlets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.promotion.record import Record

    from .base import HsmlOperator

log = logging.getLogger(__name__)

_KEYS = (
    "action",
    "deployment_id",
    "model_name",
    "model_version",
    "previous_model_version",
    "metric",
    "metric_value",
    "verified_by",
)


def emit_promotion(operator: HsmlOperator, context: Context, record: Record) -> None:
    """Emit an event of a deployment, if the promotion changed it."""
    if record.has_changed:
        extra = {key: getattr(record, key) for key in _KEYS}
        emit(operator, context, f"deployments/{record.deployment_name}", extra)


def emit_registration(operator: HsmlOperator, context: Context, model: ModelVersion) -> None:
    """
    Emit an event of a new model version.

    Also when an earlier try registered the version: that try failed, so Airflow dropped its event.
    """
    metrics = {f"metrics.{name}": model.metric(name) for name in model.metrics}
    extra = {"model_name": model.name, "model_version": model.version, "model_id": model.id, **metrics}
    emit(operator, context, f"models/{model.name}", extra)


def emit(operator: HsmlOperator, context: Context, path: str, extra: Mapping[str, Any]) -> None:
    """
    Emit an event through each alias. Airflow stores it when the task succeeds.

    :param path: the changed deployment or model, within the project
    :param extra: details of the change; scalars only, since Airflow 3.0 loses an event with other values
    """
    from airflow.providers.common.compat.sdk import Asset, AssetAlias  # noqa: PLC0415 - not needed to parse a DAG

    for outlet in operator.outlets:
        if isinstance(outlet, AssetAlias):
            uri = f"hopsworks://{operator.hook.client.project.name}/{path}"
            context["outlet_events"][outlet].add(Asset(uri=uri), extra=dict(extra))
            key = getattr(context.get("dag_run"), "partition_key", None)
            if key is not None:
                log.info(
                    "%s: the event has the run's partition key %r: it starts only DAGs on a PartitionedAssetTimetable.",
                    uri,
                    key,
                )
