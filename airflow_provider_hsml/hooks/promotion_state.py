"""The methods of the hook that show and settle the state of promotions by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.flow import steady
from airflow_provider_hsml.hopsworks.promotion import leases, state

from .base import HsmlBaseHook

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.promotion.state import PromotionState


class PromotionStateMixin(HsmlBaseHook):
    """Show the state of a deployment's promotions, and settle it by hand."""

    def get_promotion_state(self, name: str) -> PromotionState:
        """
        Return the last promotion of a deployment, whether it is pending, and the rejected versions.

        :param name: the deployment's name
        """
        return self.run(state.read_state(self.client.project, check_deployment_name(name)))

    def accept_pending(self, name: str) -> PromotionState:
        """
        Record a change that is live but unverified as verified, after you have checked that it serves well.

        :param name: the deployment's name
        :raises InvalidInputError: there is no such change, or it is being rolled back
        """
        return self.run(state.accept_pending(self.client.project, check_deployment_name(name)))

    def forget_rejection(self, name: str, version: int | str) -> PromotionState:
        """
        Remove the rejections of a model version, so that the gate may choose it again.

        :param name: the deployment's name
        :param version: the model version
        :raises InvalidInputError: that version was not rejected
        """
        number = arguments.integer("version", version, least=1)
        return self.run(state.forget_rejection(self.client.project, check_deployment_name(name), number))

    def remove_expired_side_deployments(self, name: str | None = None) -> list[str]:
        """
        Delete the temporary deployments that killed tasks have left, once their leases have expired.

        The next promotion or rollback of a deployment does the same for that deployment. Call this for those that are
        promoted seldom, for example in a weekly task.

        :param name: the name of the live deployment; None for all deployments of the project
        :return: the names of the temporary deployments that were deleted, or were gone already
        :raises HopsworksError: one could not be deleted
        """
        project = self.client.project
        if name is None:
            return self.run(leases.remove_all_expired(project, steady()))
        return self.run(leases.remove_expired(project, check_deployment_name(name), steady()))
