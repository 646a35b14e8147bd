"""Asking a deployment for predictions: the body, the wait for the route, and whether an answer is the expected one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.judge import Probe
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InvalidInput,
    ModelRefused,
    NoAnswer,
    NotUnderstood,
    Refused,
)
from airflow_provider_hsml.hopsworks.flow import Pause, Procedure, ask
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

INPUT_EXAMPLE = "input_example.json"
EXPECTED = "expected.json"


def request_body(
    what: str,
    *,
    instances: Any = None,
    inputs: Any = None,
    payload: Any = None,
) -> dict[str, Any] | None:
    """
    Make the body of a request from one of the three ways to give it; None when none was given.

    :param what: what the body is for, to begin messages with
    :param instances: a list of rows, each a list or a mapping
    :param inputs: one row or several, wrapped as the SDK wraps it
    :param payload: the whole body, with exactly one of the keys ``instances`` and ``inputs``
    :raises InvalidInput: more than one was given, or it cannot be a request
    """
    given = {
        key: value
        for key, value in (("instances", instances), ("inputs", inputs), ("payload", payload))
        if value is not None
    }
    if len(given) > 1:
        message = f"{what}: give one of instances, inputs and payload, not {' and '.join(given)}."
        raise InvalidInput(message)
    if inputs is not None:
        return {"instances": wrapped(inputs)}
    body = payload if payload is not None else given or None
    if body is None:
        return None
    if not isinstance(body, Mapping) or len({"instances", "inputs"} & set(body)) != 1:
        message = f"{what}: expected exactly one of the keys 'instances' and 'inputs' in the payload."
        raise InvalidInput(message)
    rows = body.get("instances", body.get("inputs"))
    if "instances" in body and (not isinstance(rows, list) or not rows):
        message = f"{what}: expected instances to be a list with at least one row, got {rows!r}."
        raise InvalidInput(message)
    return dict(body)


def wrapped(inputs: Any) -> list[Any]:
    """
    Make a list of rows of what may be one row: a mapping or a flat list is one row, a list of those is several.

    :param inputs: as the SDK's argument of that name
    """
    if not isinstance(inputs, list):
        return [inputs if isinstance(inputs, Mapping) else [inputs]]
    return inputs if inputs and all(isinstance(row, list | Mapping) for row in inputs) else [inputs]


def check_can_answer(deployment: Deployment, *, by_ingress: bool = False) -> None:
    """
    Refuse to ask a deployment that has no predictions to give on this way.

    :param deployment: the deployment
    :param by_ingress: whether it is asked straight at the ingress, not through Hopsworks' REST API
    :raises InvalidInput: what it serves, and how that is asked
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
    raise InvalidInput(message)


def example_body(example: Any) -> dict[str, Any]:
    """
    Make the body of a request from a registered input example, which may be a whole body, a row, or rows.

    :param example: the content of the example's file
    """
    if isinstance(example, Mapping) and {"instances", "inputs"} & set(example):
        return dict(example)
    return {"instances": wrapped(example)}


def registered_probe(project: Project, model: ModelVersion) -> Procedure[Probe | None]:
    """
    Find what to ask of a model version: its expected answers, else its input example; None when it has neither.

    :param project: the project that owns the model
    :param model: the version
    """
    expected = yield from recorded_probe(project, model)
    if expected is not None:
        return expected
    example = yield from input_example(project, model)
    return None if example is None else Probe(example)


def recorded_probe(project: Project, model: ModelVersion) -> Procedure[Probe | None]:
    """
    Read the answers that were recorded when a model version was registered; None when there are none.

    :param project: the project that owns the model
    :param model: the version
    """
    expected = yield from _read_json(project, f"{lookup.model_folder(project, model)}/{EXPECTED}")
    if isinstance(expected, Mapping) and isinstance(expected.get("predictions"), list):
        return Probe({"instances": expected.get("instances")}, expected["predictions"])
    return None


def input_example(project: Project, model: ModelVersion) -> Procedure[dict[str, Any] | None]:
    """
    Read a model version's input example as the body of a request; None when it has none.

    :param project: the project that owns the model
    :param model: the version
    """
    example = yield from _read_json(project, f"{lookup.model_folder(project, model)}/{INPUT_EXAMPLE}")
    return None if example is None else example_body(example)


def _read_json(project: Project, path: str) -> Procedure[Any]:
    content = yield from ask(api.download(project, path))
    if content is None:
        return None
    try:
        return json.loads(content)
    except ValueError as error:
        message = (
            f"{path!r} in project {project.name!r}: expected JSON, which is what registering writes there ({error})."
        )
        raise InvalidInput(message) from error


def is_unreached(error: HopsworksError) -> bool:
    """
    Tell whether a request did not get to the model, so that it may be sent again.

    :param error: how it ended
    """
    if isinstance(error, ModelRefused):
        return error.not_ready
    if isinstance(error, Refused):
        return error.not_ready or error.code == _INTERNAL_ERROR
    return isinstance(error, NoAnswer | NotUnderstood) and error.transient


def ask_model(
    project: Project, name: str, body: Mapping[str, Any], *, seconds: float | None = None
) -> Procedure[dict[str, Any]]:
    """
    Send one request, by the way that the connection goes: through Hopsworks or straight to the ingress.

    :param project: the deployment's project
    :param name: the deployment's name
    :param body: the request
    :param seconds: how long to wait for the answer
    """
    if project.ingress is not None:
        return (yield from project.ingress.predict(project, name, body, seconds=seconds))
    return (yield from ask(api.predict(project, name, body, seconds=seconds)))


def predict(
    project: Project, name: str, body: Mapping[str, Any], *, timeout: float, clock: Clock
) -> Procedure[dict[str, Any]]:
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
    return (
        yield from until_reached(
            project, name, lambda seconds: ask_model(project, name, body, seconds=seconds), timeout=timeout, clock=clock
        )
    )


def until_reached(
    project: Project, name: str, ask_once: Callable[[float], Procedure[T]], *, timeout: float, clock: Clock
) -> Procedure[T]:
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
            answer = yield from ask_once(max(left, 1.0))
        except HopsworksError as error:
            waited = clock() - begun
            if not is_unreached(error) or waited >= timeout:
                raise
            if waited >= min(ROUTE_BUDGET, timeout):
                deployment = yield from ask(api.get_deployment(project, name))
                if deployment is None or deployment.status.is_down or deployment.status.value in ("Running", "Failed"):
                    raise
            yield Pause(BETWEEN_PROBES)
        else:
            return answer
