"""Fit the probe of a deployment to the schema of its requests."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.domain.judge import Checks, Probe
from airflow_provider_hsml.hopsworks.domain.schema_rows import check_body
from airflow_provider_hsml.hopsworks.domain.verification import AS_MANY_AND_FINITE
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.inference import schemas

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Backoff
    from airflow_provider_hsml.hopsworks.routes import Routes

log = logging.getLogger(__name__)


async def fit_to_schema(
    project: Project,
    live: Deployment | None,
    probe: Probe | None,
    checks: Checks,
    routes: Routes,
    *,
    backoff: Backoff | None,
) -> tuple[Checks, Probe | None]:
    """
    Return the checks and the probe for a deployment, whose schema may refuse rows or look features up.

    A schema with serving keys looks features up, so the answers to the same rows change: recorded ones identify no
    version, and only the number of the predictions and their finiteness are checked in their place.

    :param live: the deployment, whose schema an update keeps but for its training dataset; None before it is created
    :param probe: the request; None if there is none
    :param checks: the requested checks
    :param routes: the optional routes, as far as the task knows them
    :param backoff: how often to retry the read of the schema; None if the probe is left out when it cannot be read
    :return: no probe if the schema refuses a registered example
    :raises InvalidInputError: the schema refuses the rows of ``verification``
    """
    if live is None or probe is None:
        return checks, probe
    try:
        schema = await schemas.read_for_checks(project, live, routes, backoff)
    except HopsworksError as error:
        if backoff is not None:
            raise
        log.warning("%s; the deployment is not probed", error)
        return checks, None
    if schema is None:
        return checks, probe
    is_registered = checks.body is None
    try:
        check_body(schema, probe.body, f"{live}, registered example" if is_registered else "verification")
    except InvalidInputError as error:
        if not is_registered:
            raise
        log.warning("%s\nThe example is not sent", f"{error}".partition("\n")[0])
        return checks, None
    if not schema.serving_keys:
        return checks, probe
    is_recorded, expect = probe.predictions is not None, checks.expect
    if is_recorded:
        log.info("%s looks features up, so its predictions are not compared with the recorded ones", live)
    # In place of a comparison only: without one, any answer is right.
    if (is_recorded and expect is None) or (expect is not None and expect.holds is None):
        checks = replace(checks, expect=AS_MANY_AND_FINITE)
    return checks, Probe(probe.body)
