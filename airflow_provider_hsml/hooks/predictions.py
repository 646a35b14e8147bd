"""The part of ``HsmlHook`` that sends prediction requests."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments, verification
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.domain.schema_rows import check_body
from airflow_provider_hsml.hopsworks.errors import DeploymentError, HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.flow import steady, within
from airflow_provider_hsml.hopsworks.inference import predict, schemas
from airflow_provider_hsml.hopsworks.promotion.journal import open_journal
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.routes import Routes

from .base import HsmlBaseHook, in_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.deployment_schema import DeploymentSchema

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
        validate: bool = True,
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
        :param validate: whether the rows are checked before they are sent, if the deployment has a schema of its
            requests. Times, dates, bytes and decimals are then sent as text, as Hopsworks' SDK sends them
        :return: the response, such as ``{"predictions": [...]}``; any JSON that the model answers
        :raises InvalidInputError: the deployment serves GRPC, a language model, or a script without a model; or its
            schema does not accept the rows: the message names each row, from 0, and field
        """
        check_deployment_name(name)
        seconds = arguments.seconds("timeout", timeout)
        read = functools.partial(verification.request_body, "", instances=instances, inputs=inputs, payload=payload)
        # A deployment that is not known yet may have a schema: that takes the values that JSON has, and more.
        encodes = validate and self._request_schemas.get(name, self) is not None
        body: Mapping[str, Any] | None = read(encodes=encodes)
        # The served version may have changed since, and with it the example.
        deployment = None if body is None else self._can_answer.get(name)
        if deployment is None:
            deployment = self._find_deployment(name)
            predict.check_can_answer(deployment, by_ingress=self.access.inference_route == "istio")
            self._can_answer[name] = deployment
        schema = self._request_schema(deployment) if validate else None
        if encodes and schema is None:
            body = read(encodes=False)
        body = body or self._input_example(deployment)
        if schema is not None:
            check_body(schema, body, f"{deployment}")
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

    def _request_schema(self, deployment: Deployment) -> DeploymentSchema | None:
        """Return the schema of a deployment's requests, read once; None if it has none."""
        if deployment.name not in self._request_schemas:
            flow = schemas.read_for_checks(self.client.project, deployment, Routes())
            self._request_schemas[deployment.name] = self.run(flow)
        return self._request_schemas[deployment.name]

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
