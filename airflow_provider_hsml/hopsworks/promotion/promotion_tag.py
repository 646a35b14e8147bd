"""The tag with which a model version records its last promotion."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.rollout.tags import log

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.promotion.record import Record


PROMOTION = "hsml_promotion"
"""The tag that notes a promotion on a model version."""


async def tag_promotion(
    project: Project, model: ModelVersion | None, record: Record, *, at: float, run_key: str
) -> None:
    """
    Put what became of a promotion on the model version, as a tag, where Hopsworks has a schema for it.

    It is a note: where it cannot be made (no schema, another shape, another project's model), nothing fails.

    :param project: the project
    :param model: the version that was to be served
    :param record: what became of it
    :param at: when, in seconds since 1970
    :param run_key: which task it was
    """
    if not record.has_changed or model is None or model.project != project.name:
        return
    value = {
        "deployment": record.deployment_name,
        "action": record.action,
        "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
        "run": run_key,
        "previous_model_version": record.previous_model_version,
        "verified_by": record.verified_by,
        "reason": record.reason,
    }
    given = {name: item for name, item in value.items() if item is not None}
    try:
        await api.put_model_tag(project, model.name, model.version, PROMOTION, given)
    except HopsworksError as error:
        log.debug("No tag %r: %s", PROMOTION, error)
