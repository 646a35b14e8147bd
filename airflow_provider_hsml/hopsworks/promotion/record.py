"""The record of a promotion: what was decided and done, for XCom, the task's log, and a tag of the model version."""

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

_SCRIPT = "the script was asked for"


@dataclass(frozen=True, slots=True)
class EarlierTry:
    """What an earlier try of the same task brought about; its worker died before it could tell."""

    action: str
    previous_model_version: int | None
    is_kept: bool


@dataclass(frozen=True, slots=True)
class PromotionResult:
    """How a promotion ended."""

    name: str
    """The deployment's."""
    outcome: Outcome | None
    """None: no candidate is good enough to be the first, and there is no deployment."""
    decision: Decision | None
    """None for a script alone."""
    champion: ModelVersion | None
    """The version that was served before, where it was compared with."""
    before: Deployment | None
    """The deployment as it was."""
    former: ServedVersion | None = None
    """What served then, verified."""
    plan: Plan | None = None
    """What would be done, where that was all that was asked for."""
    failure: HopsworksError | None = None
    """How it failed."""
    now: Deployment | None = None
    """As it is after a failure, where that is known."""
    done: EarlierTry | None = None
    """What this one finds done."""

    def record(self, by: Metric | None, *, inference_url: str | None = None, url: str | None = None) -> Record:
        """
        Make the record of it.

        :param by: what was compared by
        :param inference_url: the address that answers predictions
        :param url: the deployment's page
        """
        outcome, model = self.outcome, self.decision.chosen if self.decision else None
        deployment = outcome.deployment if outcome else self.now or self.before
        reason = self.decision.reason if self.decision else _SCRIPT
        done = self._done
        if done is not None:
            reason = "an earlier try of this task has brought it about"
        return Record(
            deployment_name=self.name,
            deployment_id=deployment.id if deployment else None,
            action=self._action(),
            reason=reason if self.failure is None else f"{reason}; {self.failure.kept_text}",
            model_name=model.name if model else None,
            model_version=model.version if model else None,
            model_project=model.project if model else None,
            previous_model_version=done.previous_model_version
            if done
            else self.former.version
            if self.former
            else None,
            metric=by.name if by else None,
            metric_value=model.metric(by.name) if by and model else None,
            previous_metric_value=self.champion.metric(by.name) if by and self.champion and not done else None,
            verified_by=outcome.verified_by if outcome else None,
            status=deployment.status.value if deployment else None,
            inference_url=inference_url,
            url=url,
            is_kept=done.is_kept if done else self.decision is not None and self.decision.is_kept,
            plan=self.plan.to_dict() if self.plan else None,
            downtime_seconds=outcome.downtime if outcome else None,
            failure=self.failure.kept_text if self.failure else None,
        )

    def resume_context(self, by: Metric | None) -> dict[str, Any]:
        """
        Give it as plain JSON, for another process to go on with.

        :param by: what was compared by
        """
        decision = self.decision
        return {
            "deployment_name": self.name,
            "decision": None
            if decision is None
            else {"reason": decision.reason, "is_kept": decision.is_kept, "chosen": _served(decision.chosen)},
            "champion": _served(self.champion),
            "former": None if self.former is None else asdict(self.former),
            "metric": by.name if by else None,
            "done": None if self.done is None else asdict(self.done),
        }

    @property
    def _done(self) -> EarlierTry | None:
        """What is told of an earlier try, where this one had nothing to do."""
        is_idle = self.failure is None and self.outcome is not None and self.outcome.action == "unchanged"
        return self.done if is_idle else None

    def _action(self) -> str:
        if self.failure is not None:
            if isinstance(self.failure, RolledBackError):
                return "rolled_back"
            return "superseded" if isinstance(self.failure, SupersededError) else "failed"
        if self.plan is not None:
            return "planned"
        if self._done is not None:
            return self._done.action
        is_kept = self.decision is not None and self.decision.is_kept
        if self.outcome is None or (is_kept and self.outcome.action == "unchanged"):
            return "kept"
        return self.outcome.action


def _served(model: ModelVersion | None) -> dict[str, Any] | None:
    return None if model is None else asdict(ServedVersion(model.project, model.name, model.version))


@dataclass(frozen=True, slots=True)
class Record:
    """What a deploying task did: pushed to XCom as plain JSON."""

    deployment_name: str
    deployment_id: int | None
    """None: there is no deployment, since no candidate was good enough to be the first."""
    action: str
    """created, updated, started, attached, unchanged, kept; planned; rolled_back, superseded or failed."""
    reason: str
    model_name: str | None
    model_version: int | None
    previous_model_version: int | None
    metric: str | None
    metric_value: float | None
    previous_metric_value: float | None
    verified_by: str | None
    """fingerprint, instances, status, or None when nothing was waited for."""
    status: str | None
    inference_url: str | None
    url: str | None
    """The deployment's page in the Hopsworks UI."""
    is_kept: bool = False
    """Whether no candidate took the place of what is served, be its configuration changed or not."""
    plan: dict[str, Any] | None = None
    """What would be done, where a plan was all that was asked for."""
    model_project: str | None = None
    """The one that owns the model."""
    downtime_seconds: float | None = None
    """For how long it did not answer, where it was stopped for the change."""
    failure: str | None = None
    """What it failed with, and what was done about it."""

    @property
    def has_changed(self) -> bool:
        """Whether something else serves than before, or failed to."""
        return self.action in ("created", "updated", "started", "attached", "rolled_back")

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON values."""
        return asdict(self)

    def summary(self) -> str:
        """Give it as a few lines for people."""
        kept = " (what was served is kept)" if self.is_kept and self.action != "kept" else ""
        rows = {
            "action": f"{self.action}{kept}",
            "model": self._model(),
            "verified by": self.verified_by,
            "downtime": None if self.downtime_seconds is None else f"{self.downtime_seconds:.0f} s",
            "state": self.status,
            "failure": None if self.failure is None else self.failure.replace("\n", f"\n{'':14}"),
            "why" if self.failure is None else "was tried": self.reason.removesuffix(f"; {self.failure}"),
            "ask it at": self.inference_url if self.action not in ("planned", "kept") else None,
            "see": self.url,
        }
        lines = [f"  {name:<12}{value}" for name, value in rows.items() if value is not None]
        return "\n".join([f"Deployment {self.deployment_name!r}:", *lines])

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
            return f"{self.model_name!r}: {chosen} failed; {serves}"
        return f"{self.model_name!r}: {chosen}; before: {before}"
