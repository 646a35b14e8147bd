"""The part of ``HsmlHook`` that sends prediction requests."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments, verification
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.errors import DeploymentError, HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.flow import steady, within
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.promotion.journal import open_journal
from airflow_provider_hsml.hopsworks.registry import lookup

from .base import HsmlBaseHook, in_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

log = logging.getLogger(__name__)


class PredictionsMixin(HsmlBaseHook):
    """Send prediction requests to deployments."""

    @in_time
    def predict(
        self,
        name: str,
        *,
        instances: Any = None,
        inputs: Any = None,
        payload: Any = None,
        timeout: float | timedelta = 600.0,
    ) -> Any:
        """
        Send a prediction request and return the response.

        Give at most one of ``instances``, ``inputs`` and ``payload``. Without any, the served model's input example is
        sent.

        :param name: the deployment's name
        :param instances: rows, sent as ``{"instances": ...}``
        :param inputs: one row or several, as in the SDK's argument of the same name
        :param payload: the whole request body
        :param timeout: seconds, or a ``timedelta``; an Idle deployment has to wake up within them
        :return: the response, such as ``{"predictions": [...]}``; any JSON that the model answers
        :raises InvalidInputError: the deployment serves GRPC, a language model, or a script without a model
        """
        check_deployment_name(name)
        seconds = arguments.seconds("timeout", timeout)
        body: Mapping[str, Any] | None = verification.request_body(
            "", instances=instances, inputs=inputs, payload=payload
        )
        if body is None or name not in self._can_answer:
            deployment = self._find_deployment(name)
            predict.check_can_answer(deployment, by_ingress=self.access.inference_route == "istio")
            self._can_answer.add(name)
            body = body or self._input_example(deployment)
        clock = steady()
        deadline = clock() + seconds
        while True:
            try:
                left = max(deadline - clock(), 0.0)
                return self.run(predict.predict(self.client.project, name, body, timeout=left, clock=clock))
            except DeploymentError as error:
                if clock() >= deadline or not self.run(within(self._is_changing(name), deadline, clock)):
                    raise
                log.info("%s", f"{error}".partition("\n")[0] + " A change of it is in progress; retrying")

    async def _is_changing(self, name: str) -> bool:
        """Return whether the journal shows a change in progress, such as a stop that a start follows."""
        try:
            newest = (await open_journal(self.client.project, name)).newest
        except HopsworksError as error:
            log.warning("%s; whether a change is in progress is unknown", error)
            return False
        return newest is not None and newest.is_in_progress(time.time())

    def _input_example(self, deployment: Deployment) -> Mapping[str, Any]:
        """Return the registered input example of the served model."""
        model = self.run(lookup.served_model(self.client.project, deployment))
        if model is not None:
            example = self.run(predict.input_example(self.client.project, model))
            if example is not None:
                return example
        message = f"{deployment} has no registered input example.\nGive instances, inputs or payload."
        raise InvalidInputError(message)
