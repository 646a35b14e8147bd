"""
The Airflow connection to Hopsworks Model Serving, and its verbs in the user's words.

One class in several files, each on top of the one before: ``connection``, ``models``, ``looks``, ``deployments``,
``promotions``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import verification
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.flow import steady
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.registry import lookup

from .promotions import PromotionVerbs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

__all__ = ["HsmlHook"]


class HsmlHook(PromotionVerbs):
    """
    Talk to Hopsworks Model Serving from a task: look at models and deployments, change them, ask for predictions.

    Takes names, returns ``ModelVersion`` and ``Deployment``, and raises from
    ``airflow_provider_hsml.hopsworks.errors``. Operators are made of this; use it by itself in a ``@task`` for what no
    operator does.

    :param hsml_conn_id: the Airflow connection. Where it does not exist at all, the environment is used as a whole:
        ``HOPSWORKS_HOST``, ``HOPSWORKS_PROJECT``, ``HOPSWORKS_API_KEY`` and so on.
    :param project: another project than the connection's
    :param sleep: how to wait, in seconds; one that raises ends what waits
    :param leave: tells whether a long wait is to be left to somebody else; then what waits ends with ``Deferred``
    :param on_answer: is given what each answer of Hopsworks says
    :param on_decided: is given the model version that a promotion or a rollback has decided for
    """

    @staticmethod
    def get_connection_form_widgets() -> dict[str, Any]:
        """Give the fields of the connection's form, to Airflow up to 3.1, which looks for it in this very class."""
        from .form import widgets  # noqa: PLC0415 - only for who shows a form

        return widgets()

    @staticmethod
    def get_ui_field_behaviour() -> dict[str, Any]:
        """Give what is hidden in that form, and what is called otherwise."""
        from .form import behaviour  # noqa: PLC0415 - only for who shows a form

        return behaviour()

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
        Ask a deployment for predictions. Give at most one of the three; none sends the served model's input example.

        :param name: the deployment's name
        :param instances: rows, sent as ``{"instances": ...}``
        :param inputs: one row or several, as the SDK's argument of that name
        :param payload: the whole body
        :param timeout: seconds; an Idle deployment is woken within them
        :return: the answer, such as ``{"predictions": [...]}``
        :raises InvalidInputError: it cannot be asked so: it serves GRPC, a language model, or a script without a model
        """
        check_deployment_name(name)
        body: Mapping[str, Any] | None = verification.request_body(
            f"Request to deployment {name!r}", instances=instances, inputs=inputs, payload=payload
        )
        if body is None or name not in self._can_answer:
            deployment = self.get_deployment(name)
            predict.check_can_answer(deployment, by_ingress=self.access.inference_route == "istio")
            self._can_answer.add(name)
            body = body or self._example(deployment)
        return self.run(predict.predict(self.client.project, name, body, timeout=timeout, clock=steady()))

    def _example(self, deployment: Deployment) -> Mapping[str, Any]:
        """Find the input example of the model being served."""
        model = self.run(lookup.served_model(self.client.project, deployment))
        if model is not None:
            example = self.run(predict.input_example(self.client.project, model))
            if example is not None:
                return example
        message = f"{deployment} has no registered input example. Give instances, inputs or payload."
        raise InvalidInputError(message)
