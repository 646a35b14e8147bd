"""The operator that sends a prediction request."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.plain import finite
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.links import DeploymentLink

from .base import HsmlOperator

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context


class PredictOperator(HsmlOperator):
    """
    Send a prediction request to a deployment.

    The request wakes up an Idle deployment, and is retried when no response arrives. Give at most one of ``instances``,
    ``inputs`` and ``payload``. Without any, the served model's input example is sent.

    Returns the response, such as ``{"predictions": [...]}``, or any other JSON that the model answers; with
    ``output_path`` only ``{"rows", "output_path"}``. NaN and infinity in the response become null. A deployment that is
    Stopped for ten seconds fails the task, which Airflow may retry, unless a change of it is in progress.

    Fails for a deployment of GRPC, of a language model, or of a script without a model: these answer no such request.

    :param deployment_name: the name of the deployment
    :param instances: rows, sent as ``{"instances": ...}``
    :param inputs: one row or several, as in the SDK's argument of the same name
    :param payload: the whole request body, with exactly one of the keys ``instances`` and ``inputs``
    :param timeout: seconds, or a ``timedelta``, for the request with its retries
    :param validate: whether the rows are checked against the schema of the deployment's requests before they are sent,
        if it has one; a fault fails the task, naming each row, from 0, and field
    :param output_path: a file or object storage URL for the response as JSON, when it is too large for XCom
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (
        *HsmlOperator.template_fields,
        "deployment_name",
        "instances",
        "inputs",
        "payload",
        "output_path",
        "validate",
    )
    template_fields_renderers = {"instances": "json", "inputs": "json", "payload": "json"}  # noqa: RUF012

    exclusive = ("instances", "inputs", "payload")

    def __init__(
        self,
        *,
        deployment_name: str,
        instances: Any = None,
        inputs: Any = None,
        payload: Any = None,
        timeout: float | timedelta = 600.0,
        output_path: str | os.PathLike[str] | None = None,
        validate: bool | str = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        self._check_exclusive(instances=instances, inputs=inputs, payload=payload)
        self.deployment_name = deployment_name
        self.instances = instances
        self.inputs = inputs
        self.payload = payload
        self.timeout = self._check_argument(arguments.seconds, "timeout", timeout)
        self.output_path = output_path
        self._check_literal(arguments.boolean, "validate", validate)
        self.validate = validate

    def act(self, context: Context) -> Any:  # noqa: ARG002
        """Send the request."""
        from airflow_provider_hsml.hooks.object_storage import writable  # noqa: PLC0415 - not needed to parse a DAG

        # A path that cannot be written to is found before the model is asked.
        path = None if self.output_path is None else writable("output_path", self.output_path)
        answer = self._ask()
        if path is None:
            return answer
        path.write_text(json.dumps(answer))
        return {"rows": _count(answer), "output_path": str(self.output_path)}

    def _ask(self) -> Any:
        """Request the predictions, and log the number of rows, the time and the status."""
        begun, rows, status = time.monotonic(), None, "ok"
        try:
            answer, replaced = finite(
                self.hook.predict(
                    self.deployment_name,
                    instances=self.instances,
                    inputs=self.inputs,
                    payload=self.payload,
                    timeout=self.timeout,
                    validate=arguments.boolean("validate", self.validate),
                )
            )
            rows = _count(answer)
        except HopsworksError as error:
            status = str(getattr(error, "status", None) or type(error).__name__)
            raise
        finally:
            taken = (time.monotonic() - begun) * 1000
            self.log.info("Deployment %r: rows %s, %.0f ms, status %s", self.deployment_name, rows, taken, status)
        if replaced:
            self.log.warning(
                "Deployment %r: %s values of the response that XCom cannot hold were replaced, such as NaN by null",
                self.deployment_name,
                replaced,
            )
        return answer


def _count(answer: Any) -> int | None:
    """Return the number of predictions; None if the response has no list of them."""
    predictions = answer.get("predictions") if isinstance(answer, Mapping) else answer
    return len(predictions) if isinstance(predictions, list) else None
