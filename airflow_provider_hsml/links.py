"""
Links from a task's page: to the deployment, the model version or the job in the Hopsworks UI, and to a report.

A task pushes each URL as an XCom as soon as it knows the URL. Showing a link reads that XCom and sends no request to
Hopsworks.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskInstanceKey

log = logging.getLogger(__name__)


class _PushedLink(BaseOperatorLink):
    """A link whose URL the task has pushed. Airflow 3 reads the XCom itself, Airflow 2 calls ``get_link``."""

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the URL, or an empty text if the task has not pushed it."""
        from airflow.providers.common.compat.sdk import XCom  # noqa: PLC0415 - not needed to parse a DAG

        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""


class DeploymentLink(_PushedLink):
    """The link to the deployment."""

    name = "Deployment"
    xcom_key = "hsml_deployment_url"


class ModelVersionLink(_PushedLink):
    """The link to the model version."""

    name = "Model version"
    xcom_key = "hsml_model_version_url"


class ExecutionLink(_PushedLink):
    """The link to the executions of the job."""

    name = "Job executions"
    xcom_key = "hsml_execution_url"


class ReportLink(_PushedLink):
    """The link to the report of the comparison."""

    name = "Comparison report"
    xcom_key = "hsml_report_url"


class Links:
    """The links of one try of a task. It pushes their URLs."""

    def __init__(self, ti: Any) -> None:
        """Start without links of the task instance ``ti``."""
        self.ti = ti
        self._urls: dict[str, str] = {}

    def push(self, link: _PushedLink, url: str) -> None:
        """Push the URL of a link, if it has changed. An exception is only logged: no task fails because of a link."""
        if self._urls.get(link.xcom_key) == url:
            return
        self._urls[link.xcom_key] = url
        try:
            self.ti.xcom_push(key=link.xcom_key, value=url)
        except Exception:
            log.exception("The link %r could not be pushed", link.name)
