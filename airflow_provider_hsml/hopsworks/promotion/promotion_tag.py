"""The tag with which a model version records its last promotion."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import HopsworksError

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.promotion.record import Record
log = logging.getLogger(__name__)

PROMOTION = "hsml_promotion"
"""The name of the tag."""


async def tag_promotion(
    project: Project, model: ModelVersion | None, record: Record, *, at: float, run_key: str
) -> None:
    """
    Record a promotion as a tag of the model version, if Hopsworks has a schema for this tag.

    The tag is optional: without a schema, with another schema, or for another project's model, nothing fails.

    :param model: the version to serve; None for a script alone
    :param record: the result of the promotion
    :param at: the time of the promotion, in seconds since 1970
    :param run_key: the task and its round of tries
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
    filled = {name: item for name, item in value.items() if item is not None}
    try:
        await api.put_model_tag(project, model.name, model.version, PROMOTION, filled)
    except HopsworksError as error:
        log.debug("Tag %r was not set: %s", PROMOTION, error)
