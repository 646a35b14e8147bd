"""The operator that rolls a deployment back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments

from .base import WaitingOperator
from .promotion_record import PromotionRecordOperator, audit, run_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context


class RollbackDeploymentOperator(PromotionRecordOperator):
    """
    Roll a deployment back to its previous version, and verify that it serves.

    Use it by hand, or in a task that runs when a check after a promotion fails. A promotion that fails itself rolls
    back by itself. The old instances answer until the new ones do. If the previous version does not serve, the version
    that this task replaced serves again.

    Returns the promotion record, as ``DeployModelOperator`` does, with the action ``rolled_back`` (or ``unchanged``).

    :param deployment_name: the name of the deployment
    :param to: ``previous``: the version before the last promotion; or the number of a deployment version (Hopsworks 5.2
        and later keep them)
    :param model_version: deploy this version of the model instead, and keep the configuration
    :param reject: whether ``DeployBestModelOperator`` must not choose the removed version again, unless its gate sets
        ``retry_rejected``. With ``model_version`` nothing is rejected
    :param promotion: the record of a promotion task, ``deploy.output["promotion"]``: only that promotion is rolled
        back. Nothing happens if it changed nothing, was rolled back already, or is no longer live
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
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        if to != "previous":
            self._check_literal(arguments.integer, "to", to, least=1)
        self._check_literal(arguments.integer, "model_version", model_version, least=1)
        self._check_literal(arguments.boolean, "reject", reject)
        self.deployment_name = deployment_name
        self.to = to
        self.model_version = model_version
        self.reject = reject
        self.promotion = promotion

    def act(self, context: Context) -> dict[str, Any]:
        """Roll the deployment back."""
        record = self._promote(
            context,
            self.hook.rollback_deployment,
            self.deployment_name,
            self.to,
            model_version=self.model_version,
            reject=self.reject,
            promotion=self.promotion,
            run_key=run_key(context),
            audit=audit(context),
            **self._wait_arguments(),
        )
        return self._push_record(context, record)
