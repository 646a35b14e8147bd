"""One run of the doctor on a connection: finds the project, asks everything, and fills the report."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow import __version__ as airflow_version

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.inference.ingress import Ingress

from .asking import brief
from .checks import CHECKS, OF_ONE
from .examine import examine
from .known import Known
from .own_model import NAME
from .report import Report
from .trial import Trial, leftovers
from .unasked import unasked
from .write import Steps, not_asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.api import Project

    from .asking import Look, Reply
    from .redact import Redactor


def new_report() -> Report:
    """Return an empty report with the versions of this installation."""
    own = {
        "airflow-provider-hsml": importlib.metadata.version("airflow-provider-hsml"),
        "apache-airflow": airflow_version,
    }
    return Report({**own, "python": platform.python_version()})


def diagnose(hook: HsmlHook, report: Report, redactor: Redactor, *, writes: bool = False) -> None:
    """
    Ask everything, and add the findings to the report.

    :param hook: a hook on the connection
    :param report: filled while the questions are asked, so that it holds what is known when the run is interrupted
    :param redactor: learns the names that the report must not hold
    :param writes: whether to make a model and a deployment, and to delete them at the end
    :raises HopsworksError: the connection is wrong, its project cannot be found, or nothing may be made in it
    """
    access = hook.access
    redactor.learn(urlsplit(access.url).hostname, "host")
    redactor.learn(access.project, "project")
    project = hook.client.project
    known = Known(project)
    _find_ingress(hook, project, known)
    redactor.learn(urlsplit(known.ingress or "").hostname, "host")
    ask = _sender(hook, redactor)
    for finding in examine(CHECKS, known, ask):
        report.findings.append(finding)
        report.version, report.sdk = known.version, known.sdk
    redactor.learn(known.namespace, "namespace")
    redactor.learn(known.domain, "domain")
    for kind, row in (("model", known.model or {}), ("deployment", known.deployment or {})):
        for name in (row.get("id"), row.get("name")):
            if not str(name).startswith(NAME):  # The doctor's own may be named.
                redactor.learn(name, kind)
    if writes:
        _try_out(hook, report, known, ask)
    else:
        report.remarks += leftovers(known, ask)
        report.findings += examine(OF_ONE, known, ask)
        report.findings += not_asked(known, "it needs --write")
    report.findings += unasked(known)


def _try_out(hook: HsmlHook, report: Report, known: Known, ask: Callable[[Look], Reply]) -> None:
    """Take the steps with a model and a deployment of the doctor's own, and delete both whatever happens."""
    trial = Trial(hook, known, ask)
    steps = Steps(trial, known, ask)
    try:
        trial.prepare()
        steps.run()
    finally:
        report.findings += steps.findings
        report.timeline += trial.timeline.moments
        trial.clean(report.leftovers)


def _sender(hook: HsmlHook, redactor: Redactor) -> Callable[[Look], Reply]:
    """Return a function that sends a request with the hook's client, and lets the redactor learn from the answer."""

    def send(call: Look) -> Reply:
        reply = hook.client.send(call)
        redactor.learn_from(reply.data)
        return reply

    return send


def _find_ingress(hook: HsmlHook, project: Project, known: Known) -> None:
    """Find the ingress that the API key may be sent to, by the rule of the hook."""
    try:
        endpoints = [] if hook.access.ingress_url else hook.client.send(api.get_endpoints(project))
        known.ingress = Ingress.of(hook.access, endpoints).url
    except HopsworksError as error:
        reason = error if isinstance(error, InvalidInputError) else brief(error)
        known.no_ingress = f"the API key is not sent to the ingress: {reason}"
