"""
Links on a task's page to the pages of the deployment and of the model version that it is about.

A task pushes each address as an XCom as soon as it knows it; showing a link reads that, and asks nobody else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskInstanceKey

log = logging.getLogger(__name__)


class _PushedLink(BaseOperatorLink):
    """A link whose address the task has pushed. Airflow 3 reads the XCom by itself, Airflow 2 asks ``get_link``."""

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """
        Give the address; empty while it is not known.

        :param operator: the task's operator
        :param ti_key: the task instance
        """
        from airflow.providers.common.compat.sdk import XCom  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""


class DeploymentLink(_PushedLink):
    """To the deployment."""

    name = "Deployment"
    xcom_key = "hsml_deployment_url"


class ModelVersionLink(_PushedLink):
    """To the model version."""

    name = "Model version"
    xcom_key = "hsml_model_version_url"


class Links:
    """Where the links of one try of a task lead."""

    def __init__(self, ti: Any) -> None:
        """
        Begin with none.

        :param ti: the task instance
        """
        self._ti = ti
        self._urls: dict[str, str] = {}

    def lead(self, link: _PushedLink, url: str) -> None:
        """
        Have a link lead somewhere; a request only where that is new. No task fails for its links.

        :param link: which one
        :param url: where to
        """
        if self._urls.get(link.xcom_key) == url:
            return
        self._urls[link.xcom_key] = url
        try:
            self._ti.xcom_push(key=link.xcom_key, value=url)
        except Exception:
            log.exception("The link %r could not be pushed", link.name)
