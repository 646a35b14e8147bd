"""The part of ``HsmlHook`` that sends prediction requests."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments, verification
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.domain.deployment_schema import schema_id_of
from airflow_provider_hsml.hopsworks.domain.schema_rows import encoded, matching_body
from airflow_provider_hsml.hopsworks.errors import DeploymentError, HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.flow import steady, within
from airflow_provider_hsml.hopsworks.inference import predict, schemas
from airflow_provider_hsml.hopsworks.promotion.journal import open_journal
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.routes import Routes

from .base import HsmlBaseHook, in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.deployment_schema import DeploymentSchema

    _Read = Callable[[Callable[[Any], Any] | None], Any]

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
            requests. Times, dates and bytes are then sent as text, as Hopsworks' SDK sends them, and decimals for
            fields of decimals
        :return: the response, such as ``{"predictions": [...]}``; any JSON that the model answers
        :raises InvalidInputError: the deployment serves GRPC, a language model, or a script without a model; or its
            schema does not accept the rows: the message names each row, from 0, and field
        """
        check_deployment_name(name)
        seconds = arguments.seconds("timeout", timeout)

        def read(encode: Callable[[Any], Any] | None) -> Mapping[str, Any] | None:
            return verification.request_body("", instances=instances, inputs=inputs, payload=payload, encode=encode)

        body = self._body(name, read, validate=validate)
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

    def _body(self, name: str, read: _Read, *, validate: bool) -> Mapping[str, Any]:
        """
        Return the body of a request: the given rows, or the input example of the served model.

        :param read: reads the given rows with an encoding, or without; returns None if none were given
        :param validate: whether the deployment's schema has to accept them
        """
        # As long as nothing is known of a deployment it may have a schema, which takes values that JSON lacks.
        may_have_schema = validate and (name not in self._request_schemas or self._request_schemas[name] is not None)
        body = read(encoded if may_have_schema else None)
        # The served version may have changed since, and with it the example.
        deployment = None if body is None else self._can_answer.get(name)
        if deployment is None:
            deployment = self._find_deployment(name)
            predict.check_can_answer(deployment, by_ingress=self.access.inference_route == "istio")
            self._can_answer[name] = deployment
        if body is None:
            body = example = self._input_example(deployment)
            return self._accepted(deployment, lambda _: example) if may_have_schema else body
        return self._accepted(deployment, read) if may_have_schema else body

    def _accepted(self, deployment: Deployment, read: _Read) -> Mapping[str, Any]:
        """
        Return the body of a request as the deployment's schema accepts it.

        :raises InvalidInputError: the schema does not accept the rows; one that was known before is read again first
        """
        was_known = deployment.name in self._request_schemas
        try:
            schema = self._request_schema(deployment)
            return self._unchecked(deployment, read) if schema is None else matching_body(schema, read, f"{deployment}")
        except InvalidInputError:
            if not was_known:
                raise
        # Another client may have published another one since.
        del self._request_schemas[deployment.name]
        deployment = self._can_answer[deployment.name] = self._find_deployment(deployment.name)
        return self._accepted(deployment, read)

    @staticmethod
    def _unchecked(deployment: Deployment, read: _Read) -> Mapping[str, Any]:
        """Return the body of a request without its schema: values that JSON lacks are encoded only if there is one."""
        try:
            body: Mapping[str, Any] = read(None)
        except InvalidInputError:
            if schema_id_of(deployment) is None:
                raise
            body = read(encoded)
        return body

    def _request_schema(self, deployment: Deployment) -> DeploymentSchema | None:
        """Return the schema of a deployment's requests, read once; None if it has none, or it cannot be read now."""
        if deployment.name not in self._request_schemas:
            flow = schemas.read_for_checks(self.client.project, deployment, Routes())
            try:
                self._request_schemas[deployment.name] = self.run(flow)
            except HopsworksError as error:
                log.warning("%s\nThe rows are not checked before they are sent", error)
                return None
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
