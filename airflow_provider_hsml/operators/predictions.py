"""Asking deployments for predictions."""

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
    Ask a deployment for predictions. An Idle one is woken; answers that have not got through are asked for again.

    A deployment of GRPC, of a language model, or of a script without a model has no predictions to give here, and is
    refused with a sentence.

    Returns the answer, such as ``{"predictions": [...]}``; with ``output_path`` only ``{"rows", "output_path"}``.

    :param deployment_name: the deployment
    :param instances: rows, sent as ``{"instances": ...}``. Give at most one of this, ``inputs`` and ``payload``; none
        sends the served model's input example
    :param inputs: one row or several, as the argument of that name in Hopsworks' SDK
    :param payload: the whole body, with exactly one of the keys ``instances`` and ``inputs``
    :param timeout: seconds
    :param output_path: a file or object storage URL to write the answer to as JSON: for answers too large for XCom
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
        self._written(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name
        self.instances = instances
        self.inputs = inputs
        self.payload = payload
        self.timeout = self._given(arguments.number, "timeout", timeout, least=0)
        self.output_path = output_path

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """
        Ask.

        :param context: Airflow's
        """
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
        predictions = answer.get("predictions")
        return {"rows": len(predictions) if isinstance(predictions, list) else None, "output_path": self.output_path}
