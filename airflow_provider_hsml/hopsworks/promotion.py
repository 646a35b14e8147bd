"""
The promotion of a model version: which one is to serve, and the record of what was done.

The decision is a pure function of the candidates, the champion (the version being served) and what the journal says of
earlier ones; bringing it about is ``transition``'s.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from . import calls, changes, gate, preconditions, registry, restoring, scripts
from .arrival import STRANGERS
from .changes import model_wanted
from .deployments import Deployment, check_deployment_name, default_deployment_names
from .errors import DeploymentError, HopsworksError, InvalidInput, NotFound, Superseded, TakenBack
from .gate import Decision, Metric, Rules
from .journal import Before, Entry, Journal, Served, State, open_journal
from .models import ModelVersion, check_model_name
from .plan import Plan
from .transition import Outdated, Transition
from .waiting import Procedure, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .arrival import Arrived
    from .calls import Project
    from .settings import Wanted
    from .verification import Checks
    from .waiting import Clock

log = logging.getLogger(__name__)

_SCRIPT = "the script was asked for"


@dataclass(frozen=True, slots=True)
class Promotion:
    """A wish to have a version of a model, or a script without one, in production."""

    model_name: str | None
    """None: a script alone."""
    wanted: Wanted
    """Settings asked for beside the model."""
    timeout: float
    """Seconds for one change."""
    interval: float
    """Seconds between looks."""
    clock: Clock
    deployment_name: str | None = None
    """None: the model's own."""
    by: Metric | None = None
    """Choose the best version by this; None: the one that ``version`` names."""
    rules: Rules = Rules()  # noqa: RUF009 - it is frozen
    """What the best one has to show."""
    version: int | None = None
    """None: the newest."""
    model_project: str | None = None
    """The project that owns the model and shares its registry; None: the deployment's own."""
    wait: bool = True
    checks: Checks | None = None
    """How it is verified; None: by the registered answers or example."""
    recreate: bool = False
    """Whether to stop the deployment for the change, where there is no room for old and new at once."""
    plan_only: bool = False
    """Whether to decide only, and say what would change."""
    plan: Plan | None = None
    """What was planned, and is now to be done: that and nothing else."""
    run_key: str = ""
    """Which task this is, the same in its retries; empty outside of Airflow."""

    def run(self, project: Project) -> Procedure[Promoted]:
        """
        Decide, and bring it about.

        :param project: the project
        :raises HopsworksError: with the record of what was decided and done, where it came to that
        """
        for _ in range(STRANGERS + 1):
            try:
                return (yield from self._run(project))
            except Outdated:
                log.info("The deployment was changed since this was decided on; deciding anew")
        message = (
            f"{self.deployment_name or self.model_name!r}: its deployment was changed each time it was decided on."
        )
        raise Superseded(message)

    def look(self, project: Project) -> Procedure[tuple[str, Journal]]:
        """
        Give the deployment's name and its journal.

        :param project: the project
        """
        name, _ = yield from find_deployment(project, self._names())
        return name, (yield from open_journal(project, name))

    def _names(self) -> list[str]:
        """Give the names that the deployment may have."""
        if self.deployment_name:
            return [check_deployment_name(self.deployment_name)]
        if self.model_name is None:
            message = "deployment_name: expected one, since there is no model to name the deployment after."
            raise InvalidInput(message)
        return default_deployment_names(check_model_name(self.model_name))

    def _run(self, project: Project) -> Procedure[Promoted]:
        found = yield from self._decide(project)
        if found.unfinished is not None and not self.plan_only and found.is_to_be_taken_back:
            yield from self._take_back(project, found)
            found = yield from self._decide(project)
        promoted = Promoted(found.name, None, found.decision, found.champion, found.live, found.former)
        chosen = found.decision.chosen if found.decision else None
        log.info("Deployment %r: %s.", found.name, found.decision.reason if found.decision else _SCRIPT)
        if found.decision is not None and chosen is None:
            return promoted
        wanted = self.wanted | (model_wanted(chosen) if chosen else {})
        differing = _differing(project, found, wanted)
        if self.plan is not None:
            self.plan.check(found, differing)
        if self.plan_only:
            what = changes.described(differing) or "no setting would change"
            if found.live is not None and found.live.status.is_down:
                what += "; it would be started"
            elif found.live is not None and self.recreate and differing:
                what += "; it would be stopped for the change"
            log.info("Deployment %r: planned, nothing is sent: %s.", found.name, what)
            return dataclasses.replace(promoted, plan=Plan.of(found, chosen, differing))
        transition = Transition(
            project,
            found.name,
            wanted,
            id=found.unfinished.id if found.unfinished and found.attaches else uuid.uuid4().hex,
            run_key=self.run_key,
            journal=found.journal,
            decided_on=found.live,
            timeout=self.timeout,
            interval=self.interval,
            model=chosen,
            checks=self.checks,
            wait=self.wait,
            recreate=self.recreate,
            unfinished=found.unfinished,
            attaches=found.attaches,
            clock=self.clock,
        )
        try:
            arrived = yield from transition.run()
        except HopsworksError as error:
            failed = dataclasses.replace(promoted, failure=error, now=transition.returned_to or transition.seen)
            error.record = failed.record(self.by)
            raise
        log.info("Deployment %r: %s; %s.", found.name, arrived.action, arrived.deployment)
        return dataclasses.replace(promoted, arrived=arrived)

    def _take_back(self, project: Project, found: Found) -> Procedure[None]:
        """
        Take back what an earlier run has left unverified.

        :raises TakenBack: that was a task's own earlier try, which had begun to take it back: it has failed for good
        """
        entry = found.unfinished
        if entry is None or found.live is None:
            return
        is_begun = entry.state is State.ROLLING_BACK
        reason = (
            entry.reason if is_begun else "An earlier run has left it unverified, and the gate keeps what was served"
        )
        transition = Transition(
            project,
            found.name,
            {},
            id=entry.id,
            run_key=entry.run,
            journal=found.journal,
            decided_on=found.live,
            timeout=self.timeout,
            interval=self.interval,
            recreate=self.recreate,
            unfinished=entry,
            attaches=True,
            clock=self.clock,
        )
        try:
            yield from transition.take_back(DeploymentError(reason), found.live)
        except TakenBack as error:
            if is_begun and self.run_key and entry.run == self.run_key:
                promoted = Promoted(found.name, None, found.decision, found.champion, found.live, found.former)
                error.record = dataclasses.replace(promoted, failure=error, now=transition.returned_to).record(self.by)
                raise
            log.warning("%s", error)

    def _decide(self, project: Project) -> Procedure[Found]:
        """Find the deployment as it is, and what is to serve."""
        names = self._names()
        if self.model_name is None:
            found = yield from _find(project, names)
            if found.live is not None and found.live.model_name is not None:
                message = (
                    f"model_name: {found.live} serves a model and cannot be made to serve a script alone: name one."
                )
                raise InvalidInput(message)
            return found
        source = yield from registry.find_registry(project, self.model_project)
        if self.by is None:
            model = yield from registry.find_version(project, check_model_name(self.model_name), self.version, source)
            found = yield from _find(project, names)
            why = "is the newest" if self.version is None else "was asked for"
            decision = Decision(model, f"version {model.version} of model {model.name!r} {why}")
            return dataclasses.replace(found, decision=decision)
        versions = yield from registry.list_versions(project, check_model_name(self.model_name), source)
        found = yield from _find(project, names)
        owner = source.name if source else project.name
        if not versions:
            raise registry.no_version(self.model_name, owner)
        failed = found.journal.newest.rejected if found.journal.newest else ()
        rejected = {
            one.served.version: one.reason
            for one in failed
            if (one.served.project, one.served.name) == (owner, self.model_name) and one.served.version is not None
        }
        # One that failed and is down is what a first deployment has left: it is nothing to compare with.
        is_left = (
            found.live is not None and found.live.status.is_down and found.former in [one.served for one in failed]
        )
        former = None if is_left else found.former
        champion = yield from find_champion(project, former, versions, found.name)
        decision = gate.decide(versions, champion, self.by, self.rules, rejected)
        return dataclasses.replace(found, decision=decision, champion=champion)


@dataclass(frozen=True, slots=True)
class Found:
    """What there is, and what is to become of it."""

    name: str
    """The deployment's."""
    live: Deployment | None
    """As it is."""
    journal: Journal
    unfinished: Entry | None
    """A change of ours that is live, and that nobody has verified."""
    decision: Decision | None = None
    """None for a script alone."""
    champion: ModelVersion | None = None
    """The version to compare with."""

    @property
    def former(self) -> Served | None:
        """What was verified last: what is served, or was before an unfinished change; None: nothing."""
        if self.unfinished is not None:
            before = self.unfinished.before
        else:
            before = None if self.live is None else Before.of(self.live)
        return None if before is None else before.served

    @property
    def attaches(self) -> bool:
        """Whether what is to serve is what an unfinished change has put there."""
        chosen = self.decision.chosen if self.decision else None
        entry = self.unfinished
        if entry is None or entry.state is State.ROLLING_BACK:
            return False
        return entry.challenger == (Served(chosen.project, chosen.name, chosen.version) if chosen else Served())

    @property
    def is_to_be_taken_back(self) -> bool:
        """Whether the unfinished change is to be undone before anything else."""
        if self.unfinished is None or self.attaches:
            return False
        return self.unfinished.state is State.ROLLING_BACK or (self.decision is not None and self.decision.is_kept)


def _find(project: Project, names: Sequence[str]) -> Procedure[Found]:
    """Find a deployment under one of its names, and what an earlier run may have left of it."""
    name, live = yield from find_deployment(project, names)
    journal = yield from open_journal(project, name)
    return Found(name, live, journal, _unfinished(project, journal, live))


def _unfinished(project: Project, journal: Journal, live: Deployment | None) -> Entry | None:
    """Give the last entry where it tells of a change that is live, or half taken back, and not verified."""
    entry = journal.newest
    if entry is None or live is None or not entry.is_unfinished:
        return None
    before = entry.before
    if before is not None and before.deployment_id != live.id:
        return None
    is_untouched = before is not None and (before.version, before.revision) == live.signature
    if not is_untouched and not changes.differences(live.raw, restoring.from_stored(entry.wanted)):
        return entry
    if entry.state is State.ROLLING_BACK and before is not None:
        former = restoring.configuration(project, before.row, also=entry.wanted)
        return None if changes.differences(live.raw, former) else entry
    return None


def _differing(project: Project, found: Found, wanted: Wanted) -> dict[str, tuple[Any, Any]]:
    """Tell what would change; where that is refused, before anything is sent."""
    wanted = scripts.absolute(project, wanted)
    if found.live is None:
        return {name: (None, value) for name, value in wanted.items() if value is not None}
    differing = changes.differences(found.live.raw, wanted)
    preconditions.check_live(found.live, found.decision.chosen if found.decision else None, differing)
    preconditions.check_combination(changes.changed(found.live.raw, wanted), differing)
    return differing


@dataclass(frozen=True, slots=True)
class Promoted:
    """How a promotion ended."""

    name: str
    """The deployment's."""
    arrived: Arrived | None
    """None: no candidate is good enough to be the first, and there is no deployment."""
    decision: Decision | None
    """None for a script alone."""
    champion: ModelVersion | None
    """The version that was served before, where it was compared with."""
    before: Deployment | None
    """The deployment as it was."""
    former: Served | None = None
    """What served then, verified."""
    plan: Plan | None = None
    """What would be done, where that was all that was asked for."""
    failure: HopsworksError | None = None
    """How it failed."""
    now: Deployment | None = None
    """As it is after a failure, where that is known."""

    def record(self, by: Metric | None, *, inference_url: str | None = None, url: str | None = None) -> Record:
        """
        Make the record of it.

        :param by: what was compared by
        :param inference_url: the address that answers predictions
        :param url: the deployment's page
        """
        arrived, model = self.arrived, self.decision.chosen if self.decision else None
        deployment = arrived.deployment if arrived else self.now or self.before
        reason = self.decision.reason if self.decision else _SCRIPT
        return Record(
            deployment_name=self.name,
            deployment_id=deployment.id if deployment else None,
            action=self._action(),
            reason=reason if self.failure is None else f"{reason}; {self.failure}",
            model_name=model.name if model else None,
            model_version=model.version if model else None,
            previous_model_version=self.former.version if self.former else None,
            metric=by.name if by else None,
            metric_value=model.metric(by.name) if by and model else None,
            previous_metric_value=self.champion.metric(by.name) if by and self.champion else None,
            verified_by=arrived.verified_by if arrived else None,
            status=deployment.status.value if deployment else None,
            inference_url=inference_url,
            url=url,
            is_kept=self.decision is not None and self.decision.is_kept,
            plan=self.plan.to_dict() if self.plan else None,
            downtime_seconds=arrived.downtime if arrived else None,
        )

    def _action(self) -> str:
        if self.failure is not None:
            if isinstance(self.failure, TakenBack):
                return "rolled_back"
            return "superseded" if isinstance(self.failure, Superseded) else "failed"
        if self.plan is not None:
            return "planned"
        is_kept = self.decision is not None and self.decision.is_kept
        if self.arrived is None or (is_kept and self.arrived.action == "unchanged"):
            return "kept"
        return self.arrived.action


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
    downtime_seconds: float | None = None
    """For how long it did not answer, where it was stopped for the change."""

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON values."""
        return asdict(self)


def find_deployment(project: Project, names: Sequence[str]) -> Procedure[tuple[str, Deployment | None]]:
    """
    Find a model's deployment under one of the names that it may have.

    :param project: the project
    :param names: the first that exists counts; the last is the one to create
    :return: the name to use, and the deployment where there is one
    """
    for name in names:
        deployment = yield from ask(calls.get_deployment(project, name))
        if deployment is not None:
            return name, deployment
    return names[-1], None


def find_champion(
    project: Project, served: Served | None, known: Sequence[ModelVersion], deployment_name: str
) -> Procedure[ModelVersion | None]:
    """
    Find the version that a deployment serves; None when there is no deployment, or it serves no model.

    :param project: the project
    :param served: what it serves
    :param known: versions that were read already
    :param deployment_name: the deployment's name
    :raises NotFound: the registry does not have it any more
    """
    if served is None or served.name is None or served.version is None:
        return None
    champion = next((model for model in known if Served(model.project, model.name, model.version) == served), None)
    if champion is None:
        champion = yield from registry.find_served(project, served.project, served.name, served.version)
    if champion is None:
        message = (
            f"Deployment {deployment_name!r} is set to version {served.version} of model {served.name!r}, which is not "
            "in the registry any more, so nothing can be compared with it. Deploy a version by number with "
            "DeployModelOperator."
        )
        raise NotFound(message)
    return champion
