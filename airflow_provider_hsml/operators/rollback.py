"""Putting back what a deployment served before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments

from .base import WaitingOperator
from .recording import RecordingOperator, run_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context


class RollbackDeploymentOperator(RecordingOperator):
    """
    Have a deployment serve what it served before, and see that it does. The old instances answer until the new ones do.

    Use it by hand, or as a task that runs when what comes after a promotion fails; a promotion that fails by itself
    rolls back by itself. If what is rolled back to does not serve, what served before this serves again.

    Returns the promotion record, as ``DeployModelOperator`` does, with the action ``rolled_back`` (or ``unchanged``).

    :param deployment_name: the deployment
    :param to: ``previous``: what it was before the last promotion; or the number of a deployment version (Hopsworks
        5.2 and later keep them)
    :param model_version: serve this version of the model instead, with the configuration as it is
    :param reject: whether ``DeployBestModelOperator`` is not to choose the version again that is taken away (its gate's
        ``retry_rejected`` does); nothing is rejected with ``model_version``
    :param promotion: the record of a promoting task, ``deploy.output["promotion"]``: what that one has changed is
        rolled back, and nothing where it changed nothing, was taken back already, or is not what is live any more. For
        a task that runs when a later check fails
    """

    template_fields: Sequence[str] = (
        *WaitingOperator.template_fields,
        "deployment_name",
        "to",
        "model_version",
        "reject",
        "promotion",
    )
    template_fields_renderers = {"promotion": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        deployment_name: str,
        to: int | str = "previous",
        model_version: int | str | None = None,
        reject: bool | str = True,
        promotion: Mapping[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._written(arguments.deployment_name, "deployment_name", deployment_name)
        if to != "previous":
            self._written(arguments.integer, "to", to, least=1)
        self._written(arguments.integer, "model_version", model_version, least=1)
        self._written(arguments.boolean, "reject", reject)
        self.deployment_name = deployment_name
        self.to = to
        self.model_version = model_version
        self.reject = reject
        self.promotion = promotion

    def act(self, context: Context) -> dict[str, Any]:
        """
        Roll it back.

        :param context: Airflow's
        """
        record = self._promote(
            context,
            self.hook.rollback_deployment,
            self.deployment_name,
            self.to,
            model_version=self.model_version,
            reject=self.reject,
            promotion=self.promotion,
            run_key=run_key(context),
            **self._waits(),
        )
        return self._finish(context, record)
