"""
``HsmlHook``: the Airflow connection to Hopsworks Model Serving.

The hook is one class, combined from a base (``base``: the connection and the client) and one mixin for each subject:
``models``, ``jobs``, ``deployment_queries``, ``deployment_changes``, ``promotions``, ``comparisons``,
``predictions`` and ``batches``.
"""

from __future__ import annotations

from typing import Any

from .base import HsmlBaseHook
from .batches import BatchesMixin
from .comparisons import ComparisonsMixin
from .deployment_changes import DeploymentChangesMixin
from .deployment_queries import DeploymentQueriesMixin
from .jobs import JobsMixin
from .models import ModelsMixin
from .predictions import PredictionsMixin
from .promotion_state import PromotionStateMixin
from .promotions import PromotionsMixin

__all__ = ["HsmlHook"]


class HsmlHook(
    PromotionsMixin,
    PromotionStateMixin,
    ComparisonsMixin,
    BatchesMixin,
    PredictionsMixin,
    DeploymentChangesMixin,
    DeploymentQueriesMixin,
    JobsMixin,
    ModelsMixin,
    HsmlBaseHook,
):
    """
    A client for Hopsworks Model Serving: read and change models and deployments, and send prediction requests.

    Methods take names and return ``ModelVersion`` and ``Deployment``. They raise the exceptions of
    ``airflow_provider_hsml.hopsworks.errors``. The operators use this hook; use it directly in a ``@task`` for work
    that no operator does.

    :param hsml_conn_id: the Airflow connection. If the default one does not exist and no secrets backend is configured,
        all values come from the environment: ``HOPSWORKS_HOST``, ``HOPSWORKS_PROJECT``, ``HOPSWORKS_API_KEY`` and so on
    :param project: the project to use instead of the connection's
    :param sleep: called with seconds to wait; an exception that it raises ends the wait
    :param leave: called with a long wait; if it returns true, the method raises ``Deferred``, so that a trigger waits
    :param on_answer: called with each parsed response of Hopsworks
    :param on_decided: called with the model version that a promotion or rollback has chosen
    """

    @staticmethod
    def get_connection_form_widgets() -> dict[str, Any]:
        """Return the fields of the connection form. Airflow up to 3.1 looks for this method in this very class."""
        from .connection_form import widgets  # noqa: PLC0415 - only needed to show the form

        return widgets()

    @staticmethod
    def get_ui_field_behaviour() -> dict[str, Any]:
        """Return which standard fields the form hides and which it relabels."""
        from .connection_form import behaviour  # noqa: PLC0415 - only needed to show the form

        return behaviour()
