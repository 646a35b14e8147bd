"""The part of ``HsmlHook`` that sends prediction requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import verification
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.flow import steady
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.registry import lookup

from .base import HsmlBaseHook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment


class PredictionsMixin(HsmlBaseHook):
    """Send prediction requests to deployments."""

    def predict(
        self,
        name: str,
        *,
        instances: Any = None,
        inputs: Any = None,
        payload: Any = None,
        timeout: float = 600.0,
    ) -> dict[str, Any]:
        """
        Send a prediction request and return the response.

        Give at most one of ``instances``, ``inputs`` and ``payload``. Without any, the served model's input example is
        sent.

        :param name: the deployment's name
        :param instances: rows, sent as ``{"instances": ...}``
        :param inputs: one row or several, as in the SDK's argument of the same name
        :param payload: the whole request body
        :param timeout: seconds; an Idle deployment has to wake up within them
        :return: the response, such as ``{"predictions": [...]}``
        :raises InvalidInputError: the deployment serves GRPC, a language model, or a script without a model
        """
        check_deployment_name(name)
        body: Mapping[str, Any] | None = verification.request_body(
            f"Request to deployment {name!r}", instances=instances, inputs=inputs, payload=payload
        )
        if body is None or name not in self._can_answer:
            deployment = self._find_deployment(name)
            predict.check_can_answer(deployment, by_ingress=self.access.inference_route == "istio")
            self._can_answer.add(name)
            body = body or self._input_example(deployment)
        return self.run(predict.predict(self.client.project, name, body, timeout=timeout, clock=steady()))

    def _input_example(self, deployment: Deployment) -> Mapping[str, Any]:
        """Return the registered input example of the served model."""
        model = self.run(lookup.served_model(self.client.project, deployment))
        if model is not None:
            example = self.run(predict.input_example(self.client.project, model))
            if example is not None:
                return example
        message = f"{deployment} has no registered input example.\nGive instances, inputs or payload."
        raise InvalidInputError(message)
