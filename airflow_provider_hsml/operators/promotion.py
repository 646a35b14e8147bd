"""Putting model versions into production."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import promotion, reading, registry
from airflow_provider_hsml.hopsworks.models import Direction, ModelVersion, check_model_name
from airflow_provider_hsml.hopsworks.specs import DeploymentSpec, Wanted

from .base import WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.deployments import Deployment


class _PromotingOperator(WaitingOperator):
    """What the operators that put a model version into a deployment have in common."""

    def __init__(
        self,
        *,
        model_name: str,
        deployment_name: str | None = None,
        spec: DeploymentSpec | Mapping[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.model_name = model_name
        self.deployment_name = deployment_name
        # Airflow renders, wires and masks a mapping, but not a dataclass.
        self.spec = spec.given() if isinstance(spec, DeploymentSpec) else spec

    def _wanted(self) -> Wanted:
        return DeploymentSpec.read(self.spec or {}).wanted()

    def _find_deployment(self) -> tuple[str, Deployment | None]:
        given = self.deployment_name or None
        return self.hook.run(
            promotion.find_deployment(self.hook.client.project, given, check_model_name(self.model_name))
        )

    def _promote(
        self,
        context: Context,
        name: str,
        live: Deployment | None,
        model: ModelVersion,
        wanted: Wanted,
        *,
        reason: str,
        champion: ModelVersion | None,
        metric: str | None = None,
        is_kept: bool = False,
    ) -> dict[str, Any]:
        """Bring it about, and make the record."""
        self.log.info("Deployment %r: %s.", name, reason)
        arrived = self.hook.converge(name, model, wanted, wait=self.wait_for_completion, **self._waits())
        record = promotion.Record(
            deployment_name=name,
            deployment_id=arrived.deployment.id,
            action="kept" if is_kept and arrived.action == "unchanged" else arrived.action,
            reason=reason,
            model_name=model.name,
            model_version=model.version,
            previous_model_version=live.model_version if live else None,
            metric=metric,
            metric_value=model.metric(metric) if metric else None,
            previous_metric_value=champion.metric(metric) if champion and metric else None,
            verified_by=arrived.verified_by,
            status=arrived.deployment.status.value,
            inference_url=self.hook.inference_url(name),
            url=self.hook.deployment_url(arrived.deployment),
        ).to_dict()
        self.log.info(
            "Deployment %r: %s, version %s of model %r. See %s",
            name,
            record["action"],
            model.version,
            model.name,
            record["url"],
        )
        context["ti"].xcom_push(key="promotion", value=record)
        return record


class DeployModelOperator(_PromotingOperator):
    """
    Serve one version of a model, and see that it really does.

    Creates, updates or starts the deployment, attaches to a rollout under way, or does nothing, by what is there.

    Use it when the version is known; ``DeployBestModelOperator`` chooses one by a metric.

    Returns the promotion record, each of its keys also under its own: ``deployment_name``, ``deployment_id``,
    ``action`` (created, updated, started, attached, unchanged), ``reason``, ``model_name``, ``model_version``,
    ``previous_model_version``, ``metric``, ``metric_value``, ``previous_metric_value``, ``verified_by``, ``status``,
    ``inference_url``, ``url``. The whole is also pushed under the key ``promotion``.

    :param model_name: the model in the registry
    :param model_version: its number, or ``"latest"``
    :param deployment_name: letters and digits; None for the model's name without other characters
    :param spec: how to configure the deployment; what is not given keeps what is live, or Hopsworks' default
    """

    template_fields: Sequence[str] = (
        *WaitingOperator.template_fields,
        "model_name",
        "model_version",
        "deployment_name",
        "spec",
    )
    template_fields_renderers = {"spec": "json"}  # noqa: RUF012

    def __init__(self, *, model_name: str, model_version: int | str = "latest", **kwargs: Any) -> None:
        super().__init__(model_name=model_name, **kwargs)
        self.model_version = model_version

    def act(self, context: Context) -> dict[str, Any]:
        """
        Deploy it.

        :param context: Airflow's
        """
        wanted = self._wanted()
        newest = self.model_version == "latest"
        number = None if newest else reading.integer("model_version", self.model_version, least=1)
        model = self.hook.run(registry.find_version(self.hook.client.project, self.model_name, number))
        name, live = self._find_deployment()
        reason = f"version {model.version} of model {model.name!r} {'is the newest' if newest else 'was asked for'}"
        return self._promote(context, name, live, model, wanted, reason=reason, champion=None)


class DeployBestModelOperator(_PromotingOperator):
    """
    Serve the best version of a model by a metric, if it beats the one being served, and see that it really does.

    The challenger is the best candidate that is newer than the served version and has a finite metric. A tie keeps what
    is served. Calling it again with nothing new changes nothing.

    Returns the promotion record, as ``DeployModelOperator`` does; ``action`` is ``kept`` when no candidate beats the
    served version.

    :param model_name: the model in the registry
    :param metric: name of the metric to compare by
    :param direction: ``max`` or ``min``: which end is the good one
    :param candidates: versions to choose from: numbers, or results of ``RegisterModelOperator``; None for all
    :param deployment_name: letters and digits; None for the model's name without other characters
    :param spec: how to configure the deployment; applied also when the served version is kept
    """

    template_fields: Sequence[str] = (
        *WaitingOperator.template_fields,
        "model_name",
        "metric",
        "direction",
        "candidates",
        "deployment_name",
        "spec",
    )
    template_fields_renderers = {"spec": "json", "candidates": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        model_name: str,
        metric: str,
        direction: str = "max",
        candidates: Sequence[int | Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name=model_name, **kwargs)
        self.metric = metric
        self.direction = direction
        self.candidates = candidates

    def act(self, context: Context) -> dict[str, Any]:
        """
        Decide, and deploy.

        :param context: Airflow's
        """
        wanted = self._wanted()
        direction = Direction(reading.choice("direction", self.direction, [one.value for one in Direction]))
        metric = reading.text("metric", self.metric)
        candidates = self._candidates()
        project = self.hook.client.project
        versions = self.hook.run(registry.list_versions(project, check_model_name(self.model_name)))
        if not versions:
            self.hook.get_model(self.model_name)  # Raises, and says what there is.
        name, live = self._find_deployment()
        champion = self.hook.run(promotion.find_champion(project, live, versions))
        decision = promotion.choose(versions, champion, metric=metric, direction=direction, candidates=candidates)
        return self._promote(
            context,
            name,
            live,
            decision.chosen,
            wanted,
            reason=decision.reason,
            champion=champion,
            metric=metric,
            is_kept=decision.is_kept,
        )

    def _candidates(self) -> list[int] | None:
        """Read version numbers from numbers or from results of registering."""
        given = self.candidates
        if given is None:
            return None
        rows = [
            row.get("model_version") if isinstance(row, Mapping) else row
            for row in reading.sequence("candidates", given)
        ]
        return [reading.integer("candidates", row, least=1) for row in rows]
