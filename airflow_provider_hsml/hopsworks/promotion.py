"""
The promotion of a model version: which one is to serve, and the record of what was done.

The decision is a pure function of the candidates and the champion (the version being served); bringing it about is
``arrival``'s.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from . import calls
from .deployments import Deployment, default_deployment_names
from .errors import InvalidInput, NotFound
from .models import Direction, ModelVersion, best_of
from .waiting import Procedure, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .calls import Project


@dataclass(frozen=True, slots=True)
class Decision:
    """Which version is to serve, and why."""

    chosen: ModelVersion
    reason: str
    """One sentence."""
    is_kept: bool = False
    """Whether the champion stays because no candidate beats it."""


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


def find_deployment(project: Project, name: str | None, model_name: str) -> Procedure[tuple[str, Deployment | None]]:
    """
    Find a model's deployment: the one that was named, else the one that the SDK would have made, else ours.

    :param project: the project
    :param name: the deployment's name, where one was given
    :param model_name: the model's name
    :return: the name to use, and the deployment where there is one
    """
    names = [name] if name is not None else default_deployment_names(model_name)
    for candidate in names:
        deployment = yield from ask(calls.get_deployment(project, candidate))
        if deployment is not None:
            return candidate, deployment
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
    champion = next(
        (model for model in known if (model.name, model.version) == (live.model_name, live.model_version)), None
    )
    if champion is None:
        champion = yield from ask(calls.get_model(project, live.model_name, live.model_version))
    if champion is None:
        message = (
            f"{live} is set to a version that is not in the registry any more, so nothing can be compared with it. "
            "Deploy a version "
            "by number with DeployModelOperator."
        )
        raise NotFound(message)
    return champion


def choose(
    versions: Sequence[ModelVersion],
    champion: ModelVersion | None,
    *,
    metric: str,
    direction: Direction,
    candidates: Sequence[int] | None = None,
) -> Decision:
    """
    Decide which version is to serve.

    The challenger is the best admissible candidate: not the served version, with a finite metric, and newer than the
    served one. It has to be better than the champion; a tie keeps the champion.

    :param versions: all versions of the model
    :param champion: the version being served; None at a first deployment
    :param metric: the metric to compare by
    :param direction: which end of it is the good one
    :param candidates: the numbers of the versions to choose from; None for all
    :raises NotFound: there is no version, or a candidate does not exist
    :raises InvalidInput: no version has the metric, or the champion has not
    """
    rows = _candidates(versions, candidates)
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
        [row for row in rows if row.name != champion.name or row.version > champion.version], metric, direction
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
        if not known:
            message = "The model has no version in the registry. Register one first."
            raise NotFound(message)
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
