"""Verbs that look at deployments and change nothing."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NotFoundError
from airflow_provider_hsml.hopsworks.flow import all_pages

from .models import ModelVerbs

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Endpoint
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentVersion


class DeploymentLooks(ModelVerbs):
    """What can be seen of deployments."""

    def get_deployments(self, model_name: str | None = None, status: str | None = None) -> list[Deployment]:
        """
        List deployments. Costly for a cluster with hundreds of them.

        :param model_name: only those of one model
        :param status: only those in one state, such as ``Running``
        """
        return self.client.send(api.get_deployments(self.client.project, model_name=model_name, status=status))

    def get_deployment(self, name: str) -> Deployment:
        """
        Get a deployment by its name.

        :param name: letter for letter
        :raises NotFoundError: there is none; the message names those that are
        """
        deployment = self.client.send(api.get_deployment(self.client.project, name))
        if deployment is None:
            known = ", ".join(sorted(other.name for other in self.get_deployments())) or "none"
            message = f"Deployment {name!r} does not exist in project {self.client.project.name!r}; there are: {known}."
            raise NotFoundError(message)
        return deployment

    def get_deployment_by_id(self, deployment_id: int) -> Deployment:
        """
        Get a deployment by its id.

        :param deployment_id: Hopsworks' number for it
        :raises NotFoundError: there is none
        """
        deployment = self.client.send(api.get_deployment_by_id(self.client.project, deployment_id))
        if deployment is None:
            message = f"There is no deployment with id {deployment_id} in project {self.client.project.name!r}."
            raise NotFoundError(message)
        return deployment

    def get_deployment_state(self, name: str) -> str:
        """
        Get a deployment's state: Running, Idle, Updating and so on.

        :param name: the deployment's name
        """
        return self.get_deployment(name).status.value

    def get_deployment_logs(self, name: str, component: str = "predictor", tail: int = 10) -> dict[str, str]:
        """
        Read the end of each instance's log; empty in states that have none.

        :param name: the deployment's name
        :param component: ``predictor`` or ``transformer``
        :param tail: lines of each
        """
        arguments.choice("component", component, ("predictor", "transformer"))
        logs = self.client.send(
            api.get_logs(self.client.project, self.get_deployment(name), component=component, tail=tail)
        )
        return {log.instance: log.content for log in logs or []}

    def get_deployment_versions(self, name: str) -> list[DeploymentVersion]:
        """
        List the configurations that a deployment has, or had and can be rolled back to; newest first.

        :param name: the deployment's name
        :raises InvalidInputError: this Hopsworks keeps none (5.2 and later do)
        """
        deployment = self.get_deployment(name)
        versions = self.run(all_pages(functools.partial(api.get_versions, self.client.project, deployment)))
        if versions is None:
            message = f"{deployment}: this Hopsworks keeps no versions of deployments; 5.2 and later do."
            raise InvalidInputError(message)
        return versions

    def get_inference_endpoints(self) -> list[Endpoint]:
        """List where the cluster takes requests to models, beside Hopsworks' REST API."""
        return self.client.send(api.get_endpoints(self.client.project))

    def inference_url(self, name: str) -> str:
        """
        Give the address that answers predictions.

        :param name: the deployment's name
        """
        project = self.client.project
        if project.ingress is not None:
            return self.run(project.ingress.prediction_url(project, check_deployment_name(name)))
        return f"{self.access.url}/{api.predict(project, name, {'instances': []}).path}"

    def deployment_url(self, deployment: Deployment | int) -> str:
        """
        Give the address of a deployment's page in the Hopsworks UI.

        :param deployment: the deployment, or its id
        """
        number = deployment if isinstance(deployment, int) else deployment.id
        return self.access.ui_url(self.client.project.id, "deployments", number)
