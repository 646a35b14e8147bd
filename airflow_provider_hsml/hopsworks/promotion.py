"""
The promotion of a model version: which one is to serve, and the record of what was done.

The decision is a pure function of the candidates and the champion (the version being served); bringing it about is
``arrival``'s.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from . import calls, gate, registry
from .arrival import Arrival, Arrived
from .changes import model_wanted
from .deployments import Deployment, check_deployment_name, default_deployment_names
from .errors import InvalidInput, NotFound
from .gate import Decision, Metric, Rules
from .models import ModelVersion, check_model_name
from .waiting import Procedure, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .calls import Project
    from .settings import Wanted
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

    def run(self, project: Project) -> Procedure[Promoted]:
        """
        Decide, and bring it about.

        :param project: the project
        """
        name, live, decision, champion = yield from self._decide(project)
        chosen = decision.chosen if decision else None
        log.info("Deployment %r: %s.", name, decision.reason if decision else _SCRIPT)
        if decision is not None and chosen is None:
            return Promoted(name, None, decision, champion, live)
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
        return Promoted(name, arrived, decision, champion, live)

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
        if not versions:
            raise registry.no_version(self.model_name, source.name if source else project.name)
        champion = yield from find_champion(project, live, versions)
        return name, live, gate.decide(versions, champion, self.by, self.rules), champion


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

    def record(self, by: Metric | None, *, inference_url: str | None = None, url: str | None = None) -> Record:
        """
        Make the record of it.

        :param by: what was compared by
        :param inference_url: the address that answers predictions
        :param url: the deployment's page
        """
        arrived, model = self.arrived, self.decision.chosen if self.decision else None
        is_kept = self.decision is not None and self.decision.is_kept
        action = "kept" if arrived is None or (is_kept and arrived.action == "unchanged") else arrived.action
        return Record(
            deployment_name=self.name,
            deployment_id=arrived.deployment.id if arrived else None,
            action=action,
            reason=self.decision.reason if self.decision else _SCRIPT,
            model_name=model.name if model else None,
            model_version=model.version if model else None,
            previous_model_version=self.before.model_version if self.before else None,
            metric=by.name if by else None,
            metric_value=model.metric(by.name) if by and model else None,
            previous_metric_value=self.champion.metric(by.name) if by and self.champion else None,
            verified_by=arrived.verified_by if arrived else None,
            status=arrived.deployment.status.value if arrived else None,
            inference_url=inference_url,
            url=url,
            is_kept=is_kept,
        )


@dataclass(frozen=True, slots=True)
class Record:
    """What a deploying task did: pushed to XCom as plain JSON."""

    deployment_name: str
    deployment_id: int | None
    """None: there is no deployment, since no candidate was good enough to be the first."""
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
    status: str | None
    inference_url: str | None
    url: str | None
    """The deployment's page in the Hopsworks UI."""
    is_kept: bool = False
    """Whether no candidate took the place of what is served, be its configuration changed or not."""

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
