"""
The promotion of a model version: which one is to serve, and the record of what was done.

The decision is a pure function of the candidates and the champion (the version being served); bringing it about is
``arrival``'s.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from . import calls, registry
from .arrival import Arrival, Arrived
from .changes import model_wanted
from .deployments import Deployment, check_deployment_name, default_deployment_names
from .errors import InvalidInput, NotFound
from .models import Direction, ModelVersion, best_of, check_model_name
from .waiting import Procedure, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .calls import Project
    from .settings import Wanted
    from .waiting import Clock

log = logging.getLogger(__name__)

_SCRIPT = "the script was asked for"


@dataclass(frozen=True, slots=True)
class Decision:
    """Which version is to serve, and why."""

    chosen: ModelVersion
    reason: str
    """One sentence."""
    is_kept: bool = False
    """Whether the champion stays because no candidate beats it."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What versions are compared by, and which of them take part."""

    name: str
    direction: Direction
    candidates: Sequence[int] | None = None
    """Numbers of versions; None for all."""


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
    version: int | None = None
    """None: the newest."""
    model_project: str | None = None
    """The project that owns the model and shares its registry; None: the deployment's own."""
    wait: bool = True

    def run(self, project: Project) -> Procedure[Promoted]:
        """
        Decide, and bring it about.

        :param project: the project
        """
        name, live, decision, champion = yield from self._decide(project)
        chosen = decision.chosen if decision else None
        log.info("Deployment %r: %s.", name, decision.reason if decision else _SCRIPT)
        arrived = yield from Arrival(
            project,
            name,
            self.wanted | (model_wanted(chosen) if chosen else {}),
            timeout=self.timeout,
            interval=self.interval,
            model=chosen,
            wait=self.wait,
            clock=self.clock,
        ).run()
        log.info("Deployment %r: %s; %s.", name, arrived.action, arrived.deployment)
        return Promoted(arrived, decision, champion, live)

    def _decide(
        self, project: Project
    ) -> Procedure[tuple[str, Deployment | None, Decision | None, ModelVersion | None]]:
        """Give the deployment's name, as it is, what is to serve, and the champion where one was compared with."""
        given = self.deployment_name and check_deployment_name(self.deployment_name)
        if self.model_name is None:
            if not given:
                message = "deployment_name: expected one, since there is no model to name the deployment after."
                raise InvalidInput(message)
            name, live = yield from find_deployment(project, [given])
            if live is not None and live.model_name is not None:
                message = f"model_name: {live} serves a model and cannot be made to serve a script alone: name one."
                raise InvalidInput(message)
            return name, live, None, None
        names = [given] if given else default_deployment_names(check_model_name(self.model_name))
        source = yield from registry.find_registry(project, self.model_project)
        if self.by is None:
            model = yield from registry.find_version(project, check_model_name(self.model_name), self.version, source)
            name, live = yield from find_deployment(project, names)
            why = "is the newest" if self.version is None else "was asked for"
            return name, live, Decision(model, f"version {model.version} of model {model.name!r} {why}"), None
        versions = yield from registry.list_versions(project, check_model_name(self.model_name), source)
        name, live = yield from find_deployment(project, names)
        champion = yield from find_champion(project, live, versions)
        owner = source.name if source else project.name
        decision = choose(versions, champion, self.by, model_name=self.model_name, project_name=owner)
        return name, live, decision, champion


@dataclass(frozen=True, slots=True)
class Promoted:
    """How a promotion ended."""

    arrived: Arrived
    decision: Decision | None
    """None for a script alone."""
    champion: ModelVersion | None
    """The version that was served before, where it was compared with."""
    before: Deployment | None
    """The deployment as it was."""

    def record(self, by: Metric | None, *, inference_url: str, url: str) -> Record:
        """
        Make the record of it.

        :param by: what was compared by
        :param inference_url: the address that answers predictions
        :param url: the deployment's page
        """
        deployment, model = self.arrived.deployment, self.decision.chosen if self.decision else None
        is_kept = self.decision is not None and self.decision.is_kept and self.arrived.action == "unchanged"
        return Record(
            deployment_name=deployment.name,
            deployment_id=deployment.id,
            action="kept" if is_kept else self.arrived.action,
            reason=self.decision.reason if self.decision else _SCRIPT,
            model_name=model.name if model else None,
            model_version=model.version if model else None,
            previous_model_version=self.before.model_version if self.before else None,
            metric=by.name if by else None,
            metric_value=model.metric(by.name) if by and model else None,
            previous_metric_value=self.champion.metric(by.name) if by and self.champion else None,
            verified_by=self.arrived.verified_by,
            status=deployment.status.value,
            inference_url=inference_url,
            url=url,
        )


@dataclass(frozen=True, slots=True)
class Record:
    """What a deploying task did: pushed to XCom as plain JSON."""

    deployment_name: str
    deployment_id: int
    action: str
    """created, updated, started, attached, unchanged or kept."""
    reason: str
    model_name: str | None
    model_version: int | None
    previous_model_version: int | None
    metric: str | None
    metric_value: float | None
    previous_metric_value: float | None
    verified_by: str | None
    """fingerprint, instances, status, or None when nothing was waited for."""
    status: str
    inference_url: str
    url: str
    """The deployment's page in the Hopsworks UI."""

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
    project: Project, live: Deployment | None, known: Sequence[ModelVersion]
) -> Procedure[ModelVersion | None]:
    """
    Find the version that a deployment is set to serve; None when there is no deployment, or it serves no model.

    :param project: the project
    :param live: the deployment
    :param known: versions that were read already
    :raises NotFound: the registry does not have it any more
    """
    if live is None or live.model_name is None or live.model_version is None:
        return None
    served = (live.model_project or project.name, live.model_name, live.model_version)
    champion = next((model for model in known if (model.project, model.name, model.version) == served), None)
    if champion is None:
        champion = yield from registry.served_model(project, live)
    if champion is None:
        message = (
            f"{live} is set to a version that is not in the registry any more, so nothing can be compared with it. "
            "Deploy a version by number with DeployModelOperator."
        )
        raise NotFound(message)
    return champion


def choose(
    versions: Sequence[ModelVersion], champion: ModelVersion | None, by: Metric, *, model_name: str, project_name: str
) -> Decision:
    """
    Decide which version is to serve.

    The challenger is the best admissible candidate: not the served version, with a finite metric, and newer than the
    served one. It has to be better than the champion; a tie keeps the champion.

    :param versions: all versions of the model
    :param champion: the version being served; None at a first deployment
    :param by: what to compare by
    :param model_name: the model, for messages
    :param project_name: the project, for messages
    :raises NotFound: there is no version, or a candidate does not exist
    :raises InvalidInput: no version has the metric, or the champion has not
    """
    if not versions:
        raise registry.no_version(model_name, project_name)
    metric, direction = by.name, by.direction
    rows = _candidates(versions, by.candidates)
    best = best_of(rows, metric, direction)
    if best is None:
        known = sorted({name for row in rows for name in row.metrics if row.metric(name) is not None})
        message = (
            f"No candidate version of model {rows[0].name!r} has a finite metric {metric!r}; metrics there: "
            f"{', '.join(known) or 'none'}."
        )
        raise InvalidInput(message)
    if champion is None:
        return Decision(
            best,
            f"version {best.version} is the best of {len(rows)} by {metric} ({best.metric(metric):g}), and none is "
            "served yet",
        )
    mark = champion.metric(metric)
    if mark is None:
        message = (
            f"The served version {champion.version} of model {champion.name!r} has no finite metric {metric!r}, so "
            "nothing can be compared "
            "with it. Compare by a metric that it has, or deploy a version by number with DeployModelOperator."
        )
        raise InvalidInput(message)
    challenger = best_of(
        [row for row in rows if row.path != champion.path or row.version > champion.version], metric, direction
    )
    served = f"the served version {champion.version} ({metric} {mark:g})"
    if challenger is None:
        if best.version == champion.version:
            return Decision(champion, f"{served} is the best already", is_kept=True)
        return Decision(
            champion,
            f"{served} is kept: no candidate is newer; the best one left out is version {best.version} "
            f"({best.metric(metric):g}), which is older",
            is_kept=True,
        )
    value = challenger.metric(metric)
    better = value is not None and (value > mark if direction is Direction.MAX else value < mark)
    if better:
        return Decision(challenger, f"version {challenger.version} ({metric} {value:g}) beats {served}")
    word = "equals" if value == mark else "does not beat"
    return Decision(
        champion, f"version {challenger.version} ({metric} {value:g}) {word} {served}, which is kept", is_kept=True
    )


def _candidates(versions: Sequence[ModelVersion], numbers: Sequence[int] | None) -> list[ModelVersion]:
    """Give the versions to choose from."""
    known = {model.version: model for model in versions}
    if numbers is None:
        return list(versions)
    if not numbers:
        message = (
            "candidates: expected at least one version. An empty list often means that no training task before this "
            "one succeeded."
        )
        raise InvalidInput(message)
    if missing := sorted(set(numbers) - set(known)):
        message = f"candidates: versions {missing} are not in the registry; those there: {sorted(known)}."
        raise NotFound(message)
    return [known[number] for number in dict.fromkeys(numbers)]
