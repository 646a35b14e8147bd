"""The part of ``HsmlHook`` that reads deployments and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus
from airflow_provider_hsml.hopsworks.domain.deployment_schema import FORMATS
from airflow_provider_hsml.hopsworks.domain.model_version import check_model_name
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NotFoundError
from airflow_provider_hsml.hopsworks.inference import schemas
from airflow_provider_hsml.hopsworks.routes import Routes

from .base import HsmlBaseHook

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Endpoint
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, DeploymentVersion


class DeploymentQueriesMixin(HsmlBaseHook):
    """Read deployments: their status, logs, versions and the inference endpoints."""

    def get_deployments(self, model_name: str | None = None, status: str | None = None) -> list[Deployment]:
        """
        List deployments. Costly for a cluster with hundreds of them.

        :param model_name: only those of one model
        :param status: only those in one state, such as ``Running``
        """
        if model_name is not None:
            check_model_name(model_name)
        if status is not None:
            known = [one.value for one in DeploymentStatus if one is not DeploymentStatus.UNKNOWN]
            arguments.choice("status", status, known)
        found = self.client.send(api.get_deployments(self.client.project, model_name=model_name, status=status))
        return [deployment.public for deployment in found]

    def get_deployment_by_id(self, deployment_id: int) -> Deployment:
        """
        Return the deployment with this id.

        :param deployment_id: the number that Hopsworks gave it
        :raises NotFoundError: there is none
        """
        deployment_id = arguments.integer("deployment_id", deployment_id, least=1)
        deployment = self.client.send(api.get_deployment_by_id(self.client.project, deployment_id))
        if deployment is None:
            message = f"There is no deployment with id {deployment_id} in project {self.client.project.name!r}."
            raise NotFoundError(message)
        return deployment.public

    def get_deployment_state(self, name: str) -> str:
        """
        Return a deployment's state, such as ``Running``, ``Idle`` or ``Updating``.

        :param name: the deployment's name
        :raises NotFoundError: there is none; the message lists the names that exist
        """
        return self.get_deployment(name).status.value

    def get_deployment_logs(self, name: str, component: str = "predictor", tail: int = 10) -> dict[str, str]:
        """
        Return the end of each instance's log by the instance's name; empty in states that have no log.

        :param name: the deployment's name
        :param component: ``predictor`` or ``transformer``
        :param tail: number of lines of each log
        :raises NotFoundError: there is no such deployment; the message lists the names that exist
        """
        arguments.choice("component", component, ("predictor", "transformer"))
        tail = arguments.integer("tail", tail, least=1)
        logs = self.client.send(
            api.get_logs(self.client.project, self._find_deployment(name), component=component, tail=tail)
        )
        return {log.instance: log.content for log in logs or []}

    def get_deployment_versions(self, name: str) -> list[DeploymentVersion]:
        """
        List a deployment's configurations: the current one and those that it can be rolled back to, newest first.

        :param name: the deployment's name
        :raises InvalidInputError: this Hopsworks keeps no versions of deployments (5.2 and later do)
        """
        deployment = self._find_deployment(name)
        versions = self.run(Routes().versions(self.client.project, deployment))
        if versions is None:
            message = f"{deployment}: this Hopsworks keeps no versions of deployments; 5.2 and later do."
            raise InvalidInputError(message)
        return [version.public for version in versions]

    def get_deployment_schema(self, name: str, *, format: str = "schema") -> dict[str, Any] | None:  # noqa: A002 - as in Hopsworks' API
        """
        Return the published schema of a deployment's requests (Hopsworks 5.2 and later).

        :param name: the deployment's name
        :param format: ``schema``, the document; ``jsonschema``, JSON Schema of ``request`` and ``response``; or
            ``openapi``, an OpenAPI description
        :return: None if the deployment has no schema, or not in this format
        :raises NotFoundError: there is no such deployment; the message lists the names that exist
        """
        arguments.choice("format", format, FORMATS)
        deployment = self._find_deployment(name)
        return self.run(schemas.read_document(self.client.project, deployment, Routes(), format))

    def get_inference_endpoints(self) -> list[Endpoint]:
        """List the addresses where the cluster takes inference requests, beside Hopsworks' REST API."""
        return self.client.send(api.get_endpoints(self.client.project))
