"""Start deployments, and give a START the time to show."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import rollout_tracker
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, HopsworksError
from airflow_provider_hsml.hopsworks.flow import Sleep

from . import inputs
from .reads import read_again
from .update import Replan

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Backoff

    from .inputs import Run

log = logging.getLogger(__name__)


async def send_start(run: Run, live: Deployment, backoff: Backoff) -> None:
    """
    Send a START until the server has accepted it, as far as is known.

    After a START that was refused for now the deployment is read, and after one with an unknown outcome for
    ``START_GRACE`` seconds. Only if it is still stopped then, the START is sent again: nothing else starts it.

    :param run: the run
    :param live: the deployment, which is stopped
    :param backoff: how often to retry, and until when
    :raises DeadlineExceededError: no START was accepted until the deadline
    :raises HopsworksError: the START was refused for good
    """
    log.info("Starting %s", live)
    while True:
        try:
            await api.start_deployment(run.project, live)
        except HopsworksError as error:
            if not (error.outcome_unknown or error.transient):
                raise
            log.warning("%s; checking whether it was carried out", error)
            until = run.clock() + (rollout_tracker.START_GRACE if error.outcome_unknown else 0.0)
            too_late = f"{live} could not be started within {run.timeout:g} s: {error}"
            await backoff.wait(too_late, at_least=max(1.0, error.retry_after or 0.0), about=live)
            now = await _read_until(run, live, backoff, min(until, backoff.deadline))
            if now is None or not now.status.is_down:
                return
            if run.clock() < until:
                raise DeadlineExceededError(too_late) from error
        else:
            return


async def wait_for_start(run: Run, live: Deployment, backoff: Backoff) -> Deployment:
    """
    Wait for a START that a killed worker may have sent just before.

    :param run: the run
    :param live: the deployment, which is stopped as far as is known
    :param backoff: how often to retry a read that fails, and until when
    :return: the deployment as it was read last
    :raises Replan: it was deleted meanwhile
    """
    until = run.clock() + rollout_tracker.START_GRACE
    await Sleep(inputs.FIRST_DELAY_UPDATE)
    now = await _read_until(run, live, backoff, until)
    if now is None:
        raise Replan
    return now


async def _read_until(run: Run, live: Deployment, backoff: Backoff, until: float) -> Deployment | None:
    """
    Read a stopped deployment until it is not stopped any more, or the time is over; at least once.

    :param until: seconds since 1970
    """
    while True:
        now = await read_again(api.get_deployment(run.project, run.name), backoff, live)
        if now is None or not now.status.is_down or run.clock() >= until:
            return now
        await Sleep(inputs.FIRST_DELAY_UPDATE)
