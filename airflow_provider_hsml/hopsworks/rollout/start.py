"""Start deployments, and give a START the time to show."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import rollout_tracker
from airflow_provider_hsml.hopsworks.errors import BUSY_CODES, HopsworksError, RequestRefusedError
from airflow_provider_hsml.hopsworks.flow import Sleep

from . import inputs

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Backoff

    from .inputs import Run
    from .update import Update

log = logging.getLogger(__name__)


async def send_start(run: Run, live: Deployment, backoff: Backoff) -> None:
    """
    Send a START; retry one that was refused because the deployment is busy.

    A START with an unknown outcome is not sent again here: the polls that follow show whether it was carried out, and
    ``RolloutTracker`` asks for another one if it was not.

    :param run: the run
    :param live: the deployment, which is stopped
    :param backoff: how often to retry, and until when
    :raises DeadlineExceededError: it was busy until the deadline
    """
    log.info("Starting %s", live)
    while True:
        try:
            await api.start_deployment(run.project, live)
        except HopsworksError as error:
            if isinstance(error, RequestRefusedError) and error.code in BUSY_CODES:
                log.warning("%s; retrying", error)
                too_late = f"{live} could not be started within {run.timeout:g} s: {error}"
                await backoff.wait(too_late, at_least=max(1.0, error.retry_after or 0.0), about=live)
            elif error.outcome_unknown or error.transient:
                log.warning("%s; checking whether it was carried out", error)
                return
            else:
                raise
        else:
            return


async def wait_for_start(update: Update, live: Deployment) -> Deployment:
    """
    Wait for a START that a killed worker may have sent just before.

    :param update: reads the deployment
    :param live: the deployment, which is stopped as far as is known
    :return: the deployment as it was read last
    """
    clock = update.run.clock
    until = clock() + rollout_tracker.START_GRACE
    while live.status.is_down and clock() < until:
        await Sleep(inputs.FIRST_DELAY_UPDATE)
        live = await update.read() or live
    return live
