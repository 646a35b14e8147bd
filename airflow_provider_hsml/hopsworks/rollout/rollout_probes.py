"""The probes that verify a rollout: several in a row, after its settle time or early, and what their answers prove."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.domain.judge import Attribution
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import EarlyProbes, RolloutCause
from airflow_provider_hsml.hopsworks.errors import HopsworksError, VerificationError
from airflow_provider_hsml.hopsworks.flow import Sleep, timed
from airflow_provider_hsml.hopsworks.inference import predict

from .probe import PROBES

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.judge import ProbeResult
    from airflow_provider_hsml.hopsworks.domain.rollout_tracker import RolloutTracker

    from .probe import Prober

log = logging.getLogger(__name__)

EARLY_SECONDS = 5.0
"""Timeout of an early probe, which is not retried: the probes after the settle time have more time."""


async def probe_early(prober: Prober, *, all_new: bool) -> EarlyProbes:
    """
    Send the probes during the settle time. Nothing but success counts, since previous instances may still answer.

    :param all_new: whether all instances are new
    """
    conclusive = 0
    for number in range(PROBES):
        if number:
            await Sleep(predict.BETWEEN_PROBES)
        try:
            answer, seconds = await timed(prober.send(EARLY_SECONDS), prober.clock)
        except HopsworksError as error:
            log.info("An early probe of deployment %r failed: %s", prober.name, error)
            return EarlyProbes.SENT
        result = prober.judge.judge(answer, seconds)
        is_fingerprint = prober.judge.is_fingerprint(result.attribution, can_be_old=True)
        if result.wrong or result.attribution is Attribution.CHAMPION or not (is_fingerprint or all_new):
            log.info("Deployment %r: the early probes do not show which version answers", prober.name)
            return EarlyProbes.SENT
        conclusive += is_fingerprint
    return EarlyProbes.PROVED if all_new and conclusive == PROBES else EarlyProbes.PASSED


async def probe_rollout(prober: Prober, deployment: Deployment, tracker: RolloutTracker) -> Attribution:
    """
    Send several probes in a row after a rollout.

    :param deployment: the deployment as it was read last
    :param tracker: the rollout, which is over as far as the polls show
    :return: the version that gave the last answer. ``CHAMPION`` means that the rollout is not over: the previous
        version answered, or an answer is wrong that may be the previous version's
    :raises VerificationError: an answer is wrong, and cannot be the previous version's
    """
    attribution = Attribution.UNKNOWN
    for number in range(PROBES if prober.can_probe else 0):
        if number:
            await Sleep(predict.BETWEEN_PROBES)
        result = await prober.probe_once(deployment)
        attribution = result.attribution
        if result.wrong and not _may_be_previous(prober, result, tracker):
            message = f"{deployment} {result.wrong}"
            raise VerificationError(message)
        if result.wrong or attribution is Attribution.CHAMPION:
            prober.fault = result.wrong
            return Attribution.CHAMPION
    return attribution


def _may_be_previous(prober: Prober, result: ProbeResult, tracker: RolloutTracker) -> bool:
    """Return whether an answer may be the previous version's: soon after a change, unless evidence excludes it."""
    is_recent = prober.clock() - tracker.since < predict.ROUTE_BUDGET
    is_known = result.attribution is Attribution.CHALLENGER or (
        result.attribution is Attribution.NEITHER and prober.judge.champion is not None
    )
    return is_recent and tracker.cause is RolloutCause.CHANGE and not tracker.instances.all_new and not is_known
