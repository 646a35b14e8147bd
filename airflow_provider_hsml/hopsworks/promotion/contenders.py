"""The two model versions of a comparison: the champion, which a deployment serves, and a challenger. Only reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments, preconditions
from airflow_provider_hsml.hopsworks.domain.comparison import check_not_the_same
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
from airflow_provider_hsml.hopsworks.domain.records import Shape
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.registry.trained_until import read_trained_until
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired

from .situation import find_champion, read_situation

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.rollout.inputs import Run

    from .situation import Situation


@dataclass(frozen=True, slots=True)
class Reference:
    """A model version as a user names it."""

    version: int
    model_name: str | None = None
    """None: the model that the deployment serves."""

    @classmethod
    def read(cls, what: str, value: object) -> Reference:
        """
        Read a version's number, or the result of registering a model.

        :param what: the argument's name, for messages
        """
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = arguments.json_mapping(what, value, '{"model_name": "churn", "model_version": 3}')
        if not isinstance(value, Mapping):
            return cls(arguments.integer(what, value, least=1))
        name = value.get("model_name")
        return cls(
            arguments.integer(f"{what}.model_version", value.get("model_version"), least=1),
            None if name is None else arguments.model_name(f"{what}.model_name", name),
        )


@dataclass(frozen=True, slots=True)
class Contender:
    """A model version that takes part in a comparison."""

    model: ModelVersion
    shape: Shape
    """What it takes as a row, as far as its registered example shows it."""
    key: str
    """The key of the rows in a request."""
    trained_until: str | None
    """ISO 8601; None if it was not registered."""

    @property
    def served(self) -> ServedVersion:
        """The version, as a journal has it."""
        return ServedVersion.of_model(self.model)

    @property
    def desired(self) -> Desired:
        """What a deployment is changed to that is to serve it."""
        return Desired(model_settings(self.model), self.model)


@dataclass(frozen=True, slots=True)
class Contenders:
    """The versions of a comparison, and the deployment that they are compared for."""

    live: Deployment | None
    champion: Contender | None
    """None where there is no version to compare with: no deployment, or one that never served."""
    challenger: Contender


async def find_contenders(run: Run, challenger: Reference, *, by_ingress: bool) -> Contenders:
    """
    Find the versions of a comparison.

    :param run: its name is the deployment's
    :param challenger: the version to compare with the one that the deployment serves
    :param by_ingress: whether predictions go straight to the ingress
    :raises InvalidInputError: they cannot be compared: they are the same, the deployment has another model server than
        the challenger needs, or its predictions have another form than rows
    """
    situation = await read_situation(run.project, [run.name])
    live = situation.live
    model = await _find_challenger(run, situation, challenger)
    if live is not None:
        predict.check_can_answer(live, by_ingress=by_ingress)
        preconditions.check_live(live, model, {})
    served = situation.to_compare_with
    check_not_the_same(served, ServedVersion.of_model(model))
    champion = await find_champion(run.project, served, [], run.name)
    return Contenders(
        live,
        None if champion is None else await _contender(run, champion),
        await _contender(run, model),
    )


async def _find_challenger(run: Run, situation: Situation, challenger: Reference) -> ModelVersion:
    live = situation.live
    if live is not None and live.model_name is None:
        message = f"deployment_name: {live} serves a script without a model: there are no versions to compare."
        raise InvalidInputError(message)
    name = challenger.model_name or (None if live is None else live.model_name)
    if name is None:
        message = (
            f"challenger: there is no deployment {run.name!r} that would tell the model.\nGive the result of "
            'registering it, or {"model_name": ..., "model_version": ...}.'
        )
        raise InvalidInputError(message)
    owner = live.model_project if live is not None and live.model_name == name else None
    registry = await lookup.find_registry(run.project, owner)
    return await lookup.find_version(run.project, name, challenger.version, registry)


async def _contender(run: Run, model: ModelVersion) -> Contender:
    probe = await predict.registered_probe(run.project, model, run.files)
    body: Mapping[str, Any] = {} if probe is None else probe.body
    until = await read_trained_until(run.project, model, run.files)
    key = "inputs" if isinstance(body.get("inputs"), list) else "instances"
    return Contender(model, Shape.of_example(body), key, None if until is None else until.isoformat())
