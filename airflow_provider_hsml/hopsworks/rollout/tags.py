"""Tags: values by name, whose schemas Hopsworks knows; those of a deployment, and the note on a model version."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.model_version import tag_value
from airflow_provider_hsml.hopsworks.domain.settings import tag_text
from airflow_provider_hsml.hopsworks.errors import HopsworksError, NotUnderstood, Refused, Unsupported
from airflow_provider_hsml.hopsworks.flow import Procedure, ask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.promotion.record import Record

log = logging.getLogger(__name__)

PROMOTION = "hsml_promotion"
"""The tag that notes a promotion on a model version."""


def bring(project: Project, deployment: Deployment, wanted: Mapping[str, Any]) -> Procedure[bool]:
    """
    Give a deployment these tags, and no others. They are no part of what runs: nothing restarts.

    :param project: the project
    :param deployment: the deployment
    :param wanted: the values by name
    :return: whether anything had to be changed
    :raises Unsupported: this Hopsworks has no tags of deployments (before 5.0)
    :raises Refused: a tag has no schema, or not this value
    """
    try:
        live = yield from ask(api.get_deployment_tags(project, deployment))
    except (NotUnderstood, Refused) as error:
        if error.status != 404 or (isinstance(error, Refused) and error.code == api.INSTANCE_NOT_FOUND):
            raise
        if not wanted:
            return False
        message = f"spec.tags: this Hopsworks has no tags of deployments. Leave them out of spec. ({deployment})"
        raise Unsupported(message) from error
    added = {
        name: value for name, value in wanted.items() if name not in live or live[name] != tag_value(tag_text(value))
    }
    for name, value in added.items():
        log.info("Setting tag %r of %s", name, deployment)
        yield from ask(api.put_deployment_tag(project, deployment, name, value))
    removed = sorted(set(live) - set(wanted))
    for name in removed:
        log.info("Removing tag %r of %s", name, deployment)
        yield from ask(api.delete_deployment_tag(project, deployment, name))
    return bool(added or removed)


def note_promotion(
    project: Project, model: ModelVersion | None, record: Record, *, at: float, run_key: str
) -> Procedure[None]:
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
        yield from ask(api.put_model_tag(project, model.name, model.version, PROMOTION, given))
    except HopsworksError as error:
        log.debug("No tag %r: %s", PROMOTION, error)
