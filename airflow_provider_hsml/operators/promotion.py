"""Putting model versions into production."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_hsml.hopsworks import reading

from .base import WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.gate import Gate
    from airflow_provider_hsml.hopsworks.promotion import Record
    from airflow_provider_hsml.hopsworks.specs import DeploymentSpec


class _PromotingOperator(WaitingOperator):
    """What the operators that put a model version into a deployment have in common."""

    def __init__(
        self,
        *,
        deployment_name: str | None = None,
        spec: DeploymentSpec | Mapping[str, Any] | str | None = None,
        model_project: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deployment_name = deployment_name
        self.model_project = model_project
        # Airflow renders, wires and masks a mapping, but not a dataclass.
        self.spec = spec.given() if is_dataclass(spec) else spec

    def _finish(self, context: Context, record: Record) -> dict[str, Any]:
        """
        Push the record, as a whole and key by key, and return it.

        Airflow's ``multiple_outputs`` would push the keys too, but on 3.0 it fails at the first that is None.
        """
        plain = record.to_dict()
        if record.url is not None:
            self.log.info("Deployment %r: see %s", record.deployment_name, record.url)
        given = {key: value for key, value in plain.items() if value is not None}
        for key, value in {"promotion": plain, **given}.items():
            context["ti"].xcom_push(key=key, value=value)
        return plain

    def _how(self) -> dict[str, Any]:
        return {
            "deployment_name": self.deployment_name or None,
            "spec": self.spec,
            "model_project": self.model_project,
            **self._waits(),
        }


class DeployModelOperator(_PromotingOperator):
    """
    Serve one version of a model, or a script without a model, and see that it really does.

    Creates, updates or starts the deployment, attaches to a rollout under way, or does nothing, by what is there.

    Use it when the version is known; ``DeployBestModelOperator`` chooses one by a metric.

    Returns the promotion record, each of its keys also under its own: ``deployment_name``, ``deployment_id``,
    ``action`` (created, updated, started, attached, unchanged), ``reason``, ``model_name``, ``model_version``,
    ``previous_model_version``, ``metric``, ``metric_value``, ``previous_metric_value``, ``verified_by``, ``status``,
    ``inference_url``, ``url``, ``is_kept``. The whole is also pushed under the key ``promotion``.

    :param model_name: the model in the registry; None to serve the ``script_file`` in ``spec`` alone, which needs
        ``deployment_name``
    :param model_version: its number, or ``"latest"``
    :param deployment_name: letters and digits; None for the model's name without other characters
    :param spec: how to configure the deployment; what is not given keeps what is live, or Hopsworks' default
    :param model_project: another project that owns the model and shares its registry with this one: train in one
        project, serve from another
    """

    template_fields: Sequence[str] = (
        *WaitingOperator.template_fields,
        "model_name",
        "model_version",
        "deployment_name",
        "spec",
        "model_project",
    )
    template_fields_renderers = {"spec": "json"}  # noqa: RUF012

    def __init__(self, *, model_name: str | None = None, model_version: int | str = "latest", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if model_name is None and not (self.deployment_name and self.spec):
            message = (
                f"Task {self.task_id!r}: without model_name it needs deployment_name, and spec with a script_file."
            )
            raise ValueError(message)
        self.model_name = model_name
        self.model_version = model_version

    def act(self, context: Context) -> dict[str, Any]:
        """
        Deploy it.

        :param context: Airflow's
        """
        return self._finish(context, self.hook.deploy_model(self.model_name, self.model_version, **self._how()))


class DeployBestModelOperator(_PromotingOperator):
    """
    Serve the best version of a model by a metric, if it beats the one being served, and see that it really does.

    The challenger is the best admissible candidate: with a finite metric, newer than the served version, within the
    gate's floor and guards. A tie keeps what is served. Calling it again with nothing new changes nothing.
    ``docs/promotion.md`` has the table of cases.

    Returns the promotion record, as ``DeployModelOperator`` does; ``is_kept`` says that no candidate took the place of
    the served version, and ``action`` is ``kept`` when nothing else changed either. The record is pushed before the
    task is skipped or fails.

    :param model_name: the model in the registry
    :param metric: name of the metric to compare by
    :param direction: ``max`` or ``min``: which end is the good one
    :param candidates: versions to choose from: numbers, or results of ``RegisterModelOperator``; None for all
    :param deployment_name: letters and digits; None for the model's name without other characters
    :param spec: how to configure the deployment; applied also when the served version is kept
    :param gate: what the challenger has to show, a ``Gate`` or a mapping of its fields; None: be better
    :param if_not_better: what becomes of the task when no candidate takes the place of what is served: ``keep``
        (success), ``skip`` or ``fail``
    :param model_project: another project that owns the model and shares its registry with this one: train in one
        project, serve from another
    """

    template_fields: Sequence[str] = (
        *WaitingOperator.template_fields,
        "model_name",
        "metric",
        "direction",
        "candidates",
        "deployment_name",
        "spec",
        "gate",
        "if_not_better",
        "model_project",
    )
    template_fields_renderers = {"spec": "json", "candidates": "json", "gate": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        model_name: str,
        metric: str,
        direction: str = "max",
        candidates: Sequence[int | Mapping[str, Any]] | None = None,
        gate: Gate | Mapping[str, Any] | str | None = None,
        if_not_better: str = "keep",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.metric = metric
        self.direction = direction
        self.candidates = candidates
        self.gate = gate.given() if is_dataclass(gate) else gate
        self.if_not_better = if_not_better

    def act(self, context: Context) -> dict[str, Any]:
        """
        Decide, and deploy.

        :param context: Airflow's
        """
        if_not_better = reading.choice("if_not_better", self.if_not_better, ("keep", "skip", "fail"))
        record = self.hook.deploy_best_model(
            self.model_name, self.metric, self.direction, candidates=self.candidates, gate=self.gate, **self._how()
        )
        plain = self._finish(context, record)
        if record.is_kept and if_not_better == "skip":
            raise AirflowSkipException(record.reason)
        if record.is_kept and if_not_better == "fail":
            raise AirflowFailException(record.reason)
        return plain
