"""The operator that sends a prediction request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.links import DeploymentLink

from .base import HsmlOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context


class PredictOperator(HsmlOperator):
    """
    Send a prediction request to a deployment.

    The request wakes up an Idle deployment, and is retried when no response arrives. Give at most one of ``instances``,
    ``inputs`` and ``payload``. Without any, the served model's input example is sent.

    Returns the response, such as ``{"predictions": [...]}``, or any other JSON that the model answers. With
    ``output_path`` it returns ``{"rows", "output_path"}`` only.
    Fails for a deployment of GRPC, of a language model, or of a script without a model: these answer no such request.

    :param deployment_name: the name of the deployment
    :param instances: rows, sent as ``{"instances": ...}``
    :param inputs: one row or several, as in the SDK's argument of the same name
    :param payload: the whole request body, with exactly one of the keys ``instances`` and ``inputs``
    :param timeout: seconds for the request with its retries
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
    )
    template_fields_renderers = {"instances": "json", "inputs": "json", "payload": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        deployment_name: str,
        instances: Any = None,
        inputs: Any = None,
        payload: Any = None,
        timeout: float = 600.0,
        output_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name
        self.instances = instances
        self.inputs = inputs
        self.payload = payload
        self.timeout = self._check_argument(arguments.number, "timeout", timeout, least=0)
        self.output_path = output_path

    def act(self, context: Context) -> Any:  # noqa: ARG002
        """Send the request."""
        answer = self.hook.predict(
            self.deployment_name,
            instances=self.instances,
            inputs=self.inputs,
            payload=self.payload,
            timeout=self.timeout,
        )
        if self.output_path is None:
            return answer
        from airflow.providers.common.compat.sdk import ObjectStoragePath  # noqa: PLC0415 - not needed to parse a DAG

        path = ObjectStoragePath(self.output_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(answer))
        predictions = answer.get("predictions") if isinstance(answer, dict) else answer
        return {"rows": len(predictions) if isinstance(predictions, list) else None, "output_path": self.output_path}
