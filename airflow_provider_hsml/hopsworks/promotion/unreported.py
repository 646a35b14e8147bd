"""The end of a promotion whose trigger never reported: nothing is known, so its change stays pending."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.domain.gate import Decision
from airflow_provider_hsml.hopsworks.errors import HopsworksError

from .record import PromotionResult
from .settle import find_model
from .situation import read_situation

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.project import Project

    from .promote import Promotion
    from .record import Record

log = logging.getLogger(__name__)


async def add_record(promotion: Promotion, error: HopsworksError) -> HopsworksError:
    """
    Return an error with the record of the change that is pending, as far as deployment and journal tell.

    Nothing is changed: the next run settles the change.

    :param promotion: the run, and the model that was promoted
    :param error: the error that the task ends with
    """
    try:
        error.record = await _record(promotion, error)
    except HopsworksError as unread:
        log.warning("%s; the task ends without a record", unread)
    return error


async def _record(promotion: Promotion, error: HopsworksError) -> Record:
    project: Project = promotion.run.project
    name, _ = await promotion.read_journal()
    situation = await read_situation(project, [name])
    entry, decision = situation.pending, None
    error.is_unverified = entry is not None
    model = None if entry is None else await find_model(project, entry.challenger)
    if model is not None:
        promotion.on_decided(model)
        decision = Decision(model, f"version {model.version} of model {model.name!r} was sent")
    live = situation.live
    result = PromotionResult(name, None, decision, None, live, situation.previous, failure=error)
    return result.record(promotion.selection.by)
