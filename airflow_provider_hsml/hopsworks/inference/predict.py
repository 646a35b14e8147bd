"""Asking a deployment for predictions: the body, the wait for the route, and whether an answer is the expected one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.judge import Probe
from airflow_provider_hsml.hopsworks.domain.model_version import EXPECTED, INPUT_EXAMPLE
from airflow_provider_hsml.hopsworks.domain.verification import wrapped
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InferenceError,
    InvalidInputError,
    NoResponseError,
    RequestRefusedError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.flow import Flow, Sleep
from airflow_provider_hsml.hopsworks.registry import lookup

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.flow import Clock

T = TypeVar("T")

ROUTE_BUDGET = 60.0
"""Seconds for which a running deployment may not be reached yet: its route is set up after its instances."""
BETWEEN_PROBES = 1.0
_INTERNAL_ERROR = 120000


def check_can_answer(deployment: Deployment, *, by_ingress: bool = False) -> None:
    """
    Refuse to ask a deployment that has no predictions to give on this way.

    :param deployment: the deployment
    :param by_ingress: whether it is asked straight at the ingress, not through Hopsworks' REST API
    :raises InvalidInputError: what it serves, and how that is asked
    """
    if deployment.api_protocol == "GRPC":
        what = "serves GRPC, which needs a GRPC client"
    elif deployment.model_server == "VLLM":
        what = "serves a language model, which is asked in the words of OpenAI's API at its ingress address"
    elif deployment.model_name is None and not by_ingress:
        what = "serves a script without a model, which answers at its ingress address only"
    else:
        return
    message = f"{deployment} {what}: it has no predictions to give here."
    raise InvalidInputError(message)


def example_body(example: Any) -> dict[str, Any]:
    """
    Make the body of a request from a registered input example, which may be a whole body, a row, or rows.

    :param example: the content of the example's file
    """
    if isinstance(example, Mapping) and {"instances", "inputs"} & set(example):
        return dict(example)
    return {"instances": wrapped(example)}


async def registered_probe(project: Project, model: ModelVersion) -> Probe | None:
    """
    Find what to ask of a model version: its expected answers, else its input example; None when it has neither.

    :param project: the project that owns the model
    :param model: the version
    """
    expected = await recorded_probe(project, model)
    if expected is not None:
        return expected
    example = await input_example(project, model)
    return None if example is None else Probe(example)


async def recorded_probe(project: Project, model: ModelVersion) -> Probe | None:
    """
    Read the answers that were recorded when a model version was registered; None when there are none.

    :param project: the project that owns the model
    :param model: the version
    """
    expected = await _read_json(project, f"{lookup.model_folder(project, model)}/{EXPECTED}")
    if isinstance(expected, Mapping) and isinstance(expected.get("predictions"), list):
        return Probe({"instances": expected.get("instances")}, expected["predictions"])
    return None


async def input_example(project: Project, model: ModelVersion) -> dict[str, Any] | None:
    """
    Read a model version's input example as the body of a request; None when it has none.

    :param project: the project that owns the model
    :param model: the version
    """
    example = await _read_json(project, f"{lookup.model_folder(project, model)}/{INPUT_EXAMPLE}")
    return None if example is None else example_body(example)


async def _read_json(project: Project, path: str) -> Any:
    content = await api.download(project, path)
    if content is None:
        return None
    try:
        return json.loads(content)
    except ValueError as error:
        message = (
            f"{path!r} in project {project.name!r}: expected JSON, which is what registering writes there ({error})."
        )
        raise InvalidInputError(message) from error


def is_unreached(error: HopsworksError) -> bool:
    """
    Tell whether a request did not get to the model, so that it may be sent again.

    :param error: how it ended
    """
    if isinstance(error, InferenceError):
        return error.not_ready
    if isinstance(error, RequestRefusedError):
        return error.not_ready or error.code == _INTERNAL_ERROR
    return isinstance(error, NoResponseError | UnexpectedResponseError) and error.transient


async def ask_model(
    project: Project, name: str, body: Mapping[str, Any], *, seconds: float | None = None
) -> dict[str, Any]:
    """
    Send one request, by the way that the connection goes: through Hopsworks or straight to the ingress.

    :param project: the deployment's project
    :param name: the deployment's name
    :param body: the request
    :param seconds: how long to wait for the answer
    """
    if project.ingress is not None:
        return await project.ingress.predict(project, name, body, seconds=seconds)
    return await api.predict(project, name, body, seconds=seconds)


async def predict(
    project: Project, name: str, body: Mapping[str, Any], *, timeout: float, clock: Clock
) -> dict[str, Any]:
    """
    Ask for predictions, again while the deployment cannot be reached.

    For a minute; while it wakes up or starts, until the timeout.

    :param project: the deployment's project
    :param name: the deployment's name
    :param body: the request
    :param timeout: seconds
    :param clock: tells the seconds since 1970
    :raises HopsworksError: the last answer, when the time is up; or the model's own refusal, at once
    """
    return await until_reached(
        project, name, lambda seconds: ask_model(project, name, body, seconds=seconds), timeout=timeout, clock=clock
    )


async def until_reached(
    project: Project, name: str, ask_once: Callable[[float], Flow[T]], *, timeout: float, clock: Clock
) -> T:
    """
    Ask a deployment, again while it cannot be reached: as ``predict``, whatever is asked.

    :param project: the deployment's project
    :param name: the deployment's name
    :param ask_once: asks, given the seconds to wait for the answer
    :param timeout: seconds
    :param clock: tells the seconds since 1970
    """
    begun = clock()
    while True:
        left = begun + timeout - clock()
        try:
            answer = await ask_once(max(left, 1.0))
        except HopsworksError as error:
            waited = clock() - begun
            if not is_unreached(error) or waited >= timeout:
                raise
            if waited >= min(ROUTE_BUDGET, timeout):
                deployment = await api.get_deployment(project, name)
                if deployment is None or deployment.status.is_down or deployment.status.value in ("Running", "Failed"):
                    raise
            await Sleep(BETWEEN_PROBES)
        else:
            return answer
