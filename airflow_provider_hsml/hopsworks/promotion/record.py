"""The record of a promotion, its decision and its result, for XCom, the task's log and a tag of the model version."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
from airflow_provider_hsml.hopsworks.errors import HopsworksError, RolledBackError, SupersededError

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.gate import Decision, Metric
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome

    from .plan import Plan

ACTIONS = (
    *("created", "updated", "started", "attached", "unchanged", "kept", "planned"),
    *("rolled_back", "unverified", "superseded", "failed"),
)
"""The values of a record's ``action``. The last four are those of a promotion that failed."""
_SCRIPT = "the script was requested"


@dataclass(frozen=True, slots=True)
class EarlierTry:
    """The result of an earlier try of the same task, whose worker died before it could report."""

    action: str
    """The action of its record."""
    previous_model_version: int | None
    is_kept: bool
    """Whether it kept the champion."""


@dataclass(frozen=True, slots=True)
class PromotionResult:
    """The result of a promotion: its decision, the states before and after, and its failure."""

    name: str
    """The name of the deployment."""
    outcome: Outcome | None
    """The result of the rollout; None without one: not started, failed, or no candidate for a first deployment."""
    decision: Decision | None
    """None for a script alone."""
    champion: ModelVersion | None
    """The previous version, if the candidates were compared with it."""
    seen: Deployment | None
    """The deployment before the promotion or, as far as it is known, after a failure; None when there was none."""
    previous: ServedVersion | None = None
    """The version that served before the promotion. An unverified change before it does not count."""
    plan: Plan | None = None
    """The plan, if only a plan was requested."""
    failure: HopsworksError | None = None
    """The error that the promotion failed with."""
    earlier_try: EarlierTry | None = None
    """The result of an earlier try of the same task, if that had made this change already."""
    script: str | None = None
    """The change in words, if it failed and replaced a script only: ``script a.py -> b.py``."""
    rolled_back: Record | None = None
    """The record of an earlier run's change that was rolled back first."""
    preflight: str | None = None
    """The end of the preflight, as in the record; None without one."""

    def record(self, by: Metric | None, *, inference_url: str | None = None, url: str | None = None) -> Record:
        """
        Build the record.

        :param by: the metric that versions were compared by
        :param inference_url: the address for inference requests
        :param url: the deployment's page in the Hopsworks UI
        """
        outcome, model = self.outcome, self.decision.chosen if self.decision else None
        deployment = outcome.deployment if outcome else self.seen
        reason = self.decision.reason if self.decision else _SCRIPT
        earlier = self._reported_try
        if earlier is not None:
            reason = "an earlier try of this task made the change"
        first = self.rolled_back
        if first is not None:
            reason += f"; version {first.model_version}, which an earlier run had not verified, was rolled back first"
        return Record(
            deployment_name=self.name,
            deployment_id=deployment.id if deployment else None,
            action=self._action(),
            reason=reason if self.failure is None else f"{reason}; {self.failure.kept_text}",
            model_name=model.name if model else None,
            model_version=model.version if model else None,
            model_project=model.project if model else None,
            previous_model_version=earlier.previous_model_version
            if earlier
            else self.previous.version
            if self.previous
            else None,
            metric=by.name if by else None,
            metric_value=self._metric_value(by, model),
            previous_metric_value=None if earlier else self._metric_value(by, self.champion),
            verified_by=outcome.verified_by if outcome else None,
            status=deployment.status.value if deployment else None,
            inference_url=inference_url,
            url=url,
            is_kept=earlier.is_kept if earlier else self.decision is not None and self.decision.is_kept,
            plan=self.plan.to_dict() if self.plan else None,
            downtime_seconds=outcome.downtime if outcome else None,
            failure=self.failure.kept_text if self.failure else None,
            script=self.script,
            rolled_back=first.to_dict() if first else None,
            seconds=dict(outcome.seconds) if outcome and outcome.seconds else None,
            failed_probes=outcome.failed_probes if outcome else self.failure.failed_probes if self.failure else 0,
            champion_created=self._champion_created(),
            preflight=self.preflight,
            measured=dict(self.decision.measured) if self.decision and self.decision.measured else None,
        )

    def _metric_value(self, by: Metric | None, model: ModelVersion | None) -> float | None:
        """Return the metric of a version: the measured one where a comparison decided, else that of the registry."""
        if by is None or model is None:
            return None
        measured = self.decision.measured if self.decision else None
        if measured is None:
            return model.metric(by.name)
        value: float | None = measured.get("champion" if _served(model) == _served(self.champion) else "challenger")
        return value

    def _champion_created(self) -> float | None:
        """Return when the version that serves now was registered, as far as that is known."""
        champion = self.decision.chosen if self.decision else None
        if self.plan is not None or self.failure is not None:
            is_previous = self.plan is not None or isinstance(self.failure, RolledBackError)
            champion = self.champion if is_previous else None
        return None if champion is None or champion.created is None else champion.created / 1000

    def resume_context(self, by: Metric | None) -> dict[str, Any]:
        """
        Return the decision as plain JSON, for another process to continue with.

        :param by: the metric that versions were compared by
        """
        decision = self.decision
        return {
            "deployment_name": self.name,
            "decision": None
            if decision is None
            else {
                "reason": decision.reason,
                "is_kept": decision.is_kept,
                "chosen": _served(decision.chosen),
                "measured": None if decision.measured is None else dict(decision.measured),
            },
            "champion": _served(self.champion),
            "former": None if self.previous is None else asdict(self.previous),
            "metric": by.name if by else None,
            "rolled_back": None if self.rolled_back is None else self.rolled_back.to_dict(),
            "done": None if self.earlier_try is None else asdict(self.earlier_try),
            "preflight": self.preflight,
        }

    @property
    def _reported_try(self) -> EarlierTry | None:
        """The earlier try to report, if this try had nothing to do."""
        is_idle = self.failure is None and self.outcome is not None and self.outcome.action == "unchanged"
        return self.earlier_try if is_idle else None

    def _action(self) -> str:
        if self.failure is not None:
            return _failed_action(self.failure)
        if self.plan is not None:
            return "planned"
        if self._reported_try is not None:
            return self._reported_try.action
        is_kept = self.decision is not None and self.decision.is_kept
        if self.outcome is None or (is_kept and self.outcome.action == "unchanged"):
            return "kept"
        return self.outcome.action


def _failed_action(failure: HopsworksError) -> str:
    if failure.is_unverified:
        return "unverified"
    if isinstance(failure, RolledBackError):
        return "rolled_back"
    return "superseded" if isinstance(failure, SupersededError) else "failed"


def _served(model: ModelVersion | None) -> dict[str, Any] | None:
    return None if model is None else asdict(ServedVersion.of_model(model))


@dataclass(frozen=True, slots=True)
class Record:
    """The record of a promotion. A task pushes it to XCom as plain JSON, so its field names are public."""

    deployment_name: str
    deployment_id: int | None
    """None when there is no deployment, since no candidate was good enough to be the first."""
    action: str
    """One of ``ACTIONS``."""
    reason: str
    model_name: str | None
    model_version: int | None
    previous_model_version: int | None
    metric: str | None
    metric_value: float | None
    previous_metric_value: float | None
    verified_by: str | None
    """The evidence that the change is live: fingerprint, instances or status; None without a wait."""
    status: str | None
    inference_url: str | None
    url: str | None
    """The deployment's page in the Hopsworks UI."""
    is_kept: bool = False
    """Whether the champion was kept, with or without a change of the configuration."""
    plan: dict[str, Any] | None = None
    """The plan, if only a plan was requested."""
    model_project: str | None = None
    """The project that owns the model."""
    downtime_seconds: float | None = None
    """Seconds without answers, if the deployment was stopped for the change."""
    failure: str | None = None
    """The error that the promotion failed with, and how the failure was handled."""
    script: str | None = None
    """The change in words, if it failed and replaced a script only: ``script a.py -> b.py``."""
    rolled_back: dict[str, Any] | None = None
    """The record of an earlier run's change that was rolled back first, as it failed its verification."""
    seconds: dict[str, float] | None = None
    """The durations of the phases ``rollout``, ``verification`` and ``bake``; None when none was waited for."""
    failed_probes: int = 0
    """Probes of the new version that failed."""
    champion_created: float | None = None
    """When the version that serves now was registered, in seconds since 1970; None if that is unknown."""
    kept_in_a_row: int | None = None
    """How many runs of the task, this one included, have kept the champion; None if it compares no versions."""
    preflight: str | None = None
    """The end of the preflight: ``passed``, ``failed``, or why it was left out; None without one."""
    audit: dict[str, Any] | None = None
    """The task's try, and who approved its plan; None outside of Airflow."""
    measured: dict[str, Any] | None = None
    """What a comparison showed of the candidate that decided; None where none decided."""

    @property
    def has_changed(self) -> bool:
        """Whether the deployment was changed, or a change of it was rolled back."""
        return self.action in ("created", "updated", "started", "attached", "rolled_back")

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return asdict(self)

    def summary(self) -> str:
        """Return the record as a few lines for people."""
        kept = " (the served version is kept)" if self.is_kept and self.action != "kept" else ""
        rows = {
            "action": f"{self.action}{kept}",
            "model": self._model(),
            "verified by": self.verified_by,
            "preflight": self.preflight,
            "downtime": None if self.downtime_seconds is None else f"{self.downtime_seconds:.0f} s",
            "state": self.status,
            "failure": None if self.failure is None else self.failure.replace("\n", f"\n{'':14}"),
            "why" if self.failure is None else "attempted": self.reason.removesuffix(f"; {self.failure}"),
            **self._measured(),
            "inference": self.inference_url if self.action not in ("planned", "kept") else None,
            "see": self.url,
        }
        lines = [f"  {name:<12}{value}" for name, value in rows.items() if value is not None]
        return "\n".join([f"Deployment {self.deployment_name!r}:", *lines])

    def _measured(self) -> dict[str, Any]:
        """Return the lines of a comparison: its numbers, its warnings and its report."""
        measured = self.measured
        if measured is None:
            return {}
        low, high = measured["interval"]
        interval = "" if low is None or high is None else f", 95 % of the resamples between {low:g} and {high:g}"
        shown = f"{measured['metric']} of version {measured['model_version']}: {measured['challenger']:g}"
        if measured["champion"] is not None:
            shown += f", served: {measured['champion']:g}{interval}"
        return {
            "measured": f"{shown}, on {measured['rows']} rows",
            "note": "\n".join(measured["warnings"]).replace("\n", f"\n{'':14}") or None,
            "report": measured["report"],
        }

    def _model(self) -> str | None:
        if self.model_name is None:
            return None
        metric = "" if self.metric_value is None else f" ({self.metric} {self.metric_value:g})"
        before = "none" if self.previous_model_version is None else f"version {self.previous_model_version}"
        if self.previous_metric_value is not None:
            before += f" ({self.metric} {self.previous_metric_value:g})"
        chosen = "none" if self.model_version is None else f"version {self.model_version}{metric}"
        if self.model_version == self.previous_model_version and (self.is_kept or self.action == "unchanged"):
            return f"{self.model_name!r}: {chosen}, as before"
        if self.failure is not None and self.action == "rolled_back":
            serves = "nothing served before" if self.previous_model_version is None else f"{before} serves again"
            return f"{self.model_name!r}: {self.script or chosen} failed; {serves}"
        return f"{self.model_name!r}: {chosen}; before: {before}"
