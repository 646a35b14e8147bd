"""Prediction requests: their bodies, the examples registered with models, and retries until the route is ready."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import check_model
from airflow_provider_hsml.hopsworks.domain.judge import Probe
from airflow_provider_hsml.hopsworks.domain.model_version import EXPECTED, INPUT_EXAMPLE, RECORDED, is_recorded
from airflow_provider_hsml.hopsworks.domain.verification import wrapped
from airflow_provider_hsml.hopsworks.errors import (
    MODEL_4XX,
    MODEL_5XX,
    DeploymentError,
    HopsworksError,
    InferenceError,
    InvalidInputError,
    NoResponseError,
    RequestRefusedError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.flow import Flow, Heartbeat, Sleep, bounded, within
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.registry.version_files import VersionFiles

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.flow import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

ROUTE_BUDGET = 60.0
"""Seconds for which a running deployment may be unreachable: its route is set up after its instances."""
BETWEEN_PROBES = 1.0
STOPPED_SECONDS = 10.0
"""Seconds after which a stopped deployment is expected to stay stopped."""
TOO_LARGE = 413
INGRESS_LIMITS = frozenset({TOO_LARGE, 414, 421, 431})
"""Statuses with which Envoy refuses a request before any model sees it: its size, address, host or headers."""
_INTERNAL_ERROR = 120000
_WITHOUT_FEATURES = ("ENTITY_NOT_FOUND", "FEATURE_LOOKUP_FAILED", "FEATURE_STORE_UNAVAILABLE")
"""The codes with which a deployment that looks features up says that it has none for a row."""


def check_can_answer(deployment: Deployment, *, by_ingress: bool = False) -> None:
    """
    Raise an error if a deployment has no predictions on this route.

    :param by_ingress: whether the request goes straight to the ingress, not through Hopsworks' REST API
    :raises InvalidInputError: it has none; the message names the route that it serves
    :raises UnexpectedResponseError: it is unclear whether it serves a model
    """
    if deployment.api_protocol == "GRPC":
        what = "serves GRPC, which needs a GRPC client"
    elif deployment.model_server == "VLLM":
        what = "serves a language model, which is asked in the words of OpenAI's API at its ingress address"
    elif deployment.model_name is None and not by_ingress:
        check_model(deployment)
        what = "serves a script without a model, which answers at its ingress address only"
    else:
        return
    message = f"{deployment} {what}: it has no predictions to give here."
    raise InvalidInputError(message)


def example_body(example: Any) -> dict[str, Any]:
    """
    Return the body of a request with a registered input example, which may be a whole body, a row, or rows.

    :param example: the parsed content of the example's file
    """
    if isinstance(example, Mapping) and {"instances", "inputs"} & set(example):
        return dict(example)
    return {"instances": wrapped(example)}


async def registered_probe(project: Project, model: ModelVersion, files: VersionFiles) -> Probe | None:
    """
    Return the probe of a model version: its recorded answers, else its input example; None when it has neither.

    One that cannot be sent, or has no rows, counts as none, with a warning: it says nothing about a model.

    :param files: the listings that the task has already
    """
    sizes = await files.sizes(project, model)
    expected = await _recorded_probe(project, model, sizes)
    if expected is not None and _is_sendable(model, EXPECTED, expected.body):
        return expected
    body = await _example(project, model, sizes)
    return None if body is None else Probe(body)


async def recorded_probe(project: Project, model: ModelVersion, files: VersionFiles) -> Probe | None:
    """
    Read the answers that were recorded when a model version was registered; None when there are none.

    :param files: the listings that the task has already
    """
    return await _recorded_probe(project, model, await files.sizes(project, model))


async def _recorded_probe(project: Project, model: ModelVersion, sizes: Mapping[str, int | None]) -> Probe | None:
    expected = await _read_json(project, model, EXPECTED, sizes)
    if expected is None:
        return None
    if not is_recorded(expected):
        message = (
            f"read {lookup.model_folder(project, model)}/{EXPECTED}: expected {RECORDED}.\nRegister the version again, "
            "or correct the file."
        )
        raise UnexpectedResponseError(message, status=200)
    return Probe({"instances": expected["instances"]}, expected["predictions"])


async def input_example(project: Project, model: ModelVersion) -> dict[str, Any] | None:
    """Read a model version's input example as the body of a request; None when it has none that can be sent."""
    return await _example(project, model, await VersionFiles().sizes(project, model))


async def _example(project: Project, model: ModelVersion, sizes: Mapping[str, int | None]) -> dict[str, Any] | None:
    example = await _read_json(project, model, INPUT_EXAMPLE, sizes)
    if example is None:
        return None
    body = example_body(example)
    return body if _is_sendable(model, INPUT_EXAMPLE, body) else None


def _is_sendable(model: ModelVersion, name: str, body: Mapping[str, Any]) -> bool:
    """Return whether a registered request can be sent, and log why not."""
    if fault := fault_of(body):
        log.warning("Version %s of model %r: %s is not sent as a request: %s", model.version, model.name, name, fault)
    return not fault


def fault_of(body: Mapping[str, Any]) -> str:
    """
    Return why the body of a request cannot be sent, or asks for nothing; an empty text if it can be sent.

    :param body: the body, with at least one of the keys ``instances`` and ``inputs``
    """
    if {"instances", "inputs"} <= set(body):
        return "it has both of the keys 'instances' and 'inputs'"
    if _is_empty(body.get("instances", body.get("inputs"))):
        return "it has no rows"
    try:
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"{error}"
    return ""


def _is_empty(rows: Any) -> bool:
    if isinstance(rows, list):
        return all(row in ([], {}) for row in rows)
    if isinstance(rows, Mapping):
        return all(column == [] for column in rows.values())
    return rows in (None, "")


async def _read_json(project: Project, model: ModelVersion, name: str, sizes: Mapping[str, int | None]) -> Any:
    """
    Read a metadata file of a version; None when it is not among the listed ones, or holds null.

    :raises UnexpectedResponseError: it is listed, and cannot be found
    """
    if name not in sizes:
        return None
    path = f"{lookup.model_folder(project, model)}/{name}"
    read = await api.read_json(project, path, lambda data: (data,), size=sizes[name])
    if read is None:
        message = f"read {path!r}: the file is listed, and does not exist.\nRun the task again."
        raise UnexpectedResponseError(message, status=404)
    return read[0]


def is_model_refusal(error: HopsworksError) -> bool:
    """
    Return whether the model itself refused a request, and not Hopsworks, the ingress or our own client.

    :param error: the error of the request
    """
    if isinstance(error, InferenceError):
        # The ingress checks the API key and limits the rate and the size before the request reaches the model.
        is_ingress = error.status in (401, 403, 408, 429) or error.status in INGRESS_LIMITS
        return not is_ingress and not is_without_features(error)
    is_models = isinstance(error, RequestRefusedError) and error.code in (MODEL_4XX, MODEL_5XX)
    return is_models and not is_without_features(error)


def is_without_features(error: HopsworksError) -> bool:
    """
    Return whether a deployment found no online features for the rows of a request, so that no model saw them.

    This says nothing about the model: an entity has left the online store, or the store does not answer.

    :param error: the error of the request
    """
    text = error.text if isinstance(error, InferenceError | RequestRefusedError) and error.is_from_deployment else ""
    return any(code in text for code in _WITHOUT_FEATURES)


def is_schema_refusal(error: HopsworksError) -> bool:
    """
    Return whether a deployment's schema refused the rows of a request, before the model saw them.

    :param error: the error of the request
    """
    text = error.text if isinstance(error, InferenceError | RequestRefusedError) else ""
    return "SCHEMA_VALIDATION" in text or "BATCH_TOO_LARGE" in text


def is_refused_before_the_model(error: HopsworksError) -> bool:
    """
    Return whether Hopsworks or the ingress refused a request for its key, its form or its size, for any version.

    :param error: the error of the request
    """
    return _has_status(error, {401, 403, 422, *INGRESS_LIMITS}) and not is_model_refusal(error)


def is_too_large(error: HopsworksError) -> bool:
    """
    Return whether a request was refused for its size, before any model saw it.

    :param error: the error of the request
    """
    return _has_status(error, {TOO_LARGE}) and not is_model_refusal(error)


def _has_status(error: HopsworksError, statuses: Collection[int]) -> bool:
    return isinstance(error, InferenceError | RequestRefusedError) and error.status in statuses


def is_unreached(error: HopsworksError) -> bool:
    """
    Return whether a request did not reach the model, so that it may be retried.

    :param error: the error of the request
    """
    if isinstance(error, InferenceError):
        return error.not_ready
    if isinstance(error, RequestRefusedError):
        return error.not_ready or error.code == _INTERNAL_ERROR
    return isinstance(error, NoResponseError | UnexpectedResponseError) and error.transient


async def ask_model(
    project: Project,
    name: str,
    body: Mapping[str, Any] | bytes,
    *,
    seconds: float | None = None,
    request_id: str | None = None,
) -> Any:
    """
    Send one request by the connection's route: through Hopsworks, or straight to the ingress.

    :param body: as for ``api.predict``
    :param seconds: timeout of the response
    :param request_id: the same for a request that is sent again; Hopsworks' proxy drops it, so that only the ingress
        gets it
    """
    if project.ingress is not None:
        return await project.ingress.predict(project, name, body, seconds=seconds, request_id=request_id)
    return await api.predict(project, name, body, seconds=seconds)


async def predict(project: Project, name: str, body: Mapping[str, Any], *, timeout: float, clock: Clock) -> Any:
    """
    Request predictions, and retry while the deployment is unreachable.

    Retries last a minute; while the deployment wakes up or starts, they last until the timeout.

    :param timeout: seconds
    :param clock: returns the seconds since 1970
    :raises DeploymentError: the deployment is Stopped, and stays so for ten seconds or until the timeout
    :raises HopsworksError: the last error at the timeout; or at once, if the model itself refused the request
    """
    stopped_since: float | None = None
    ends = clock() + timeout

    async def ask_once(seconds: float) -> Any:
        nonlocal stopped_since
        try:
            return await ask_model(project, name, body, seconds=seconds)
        except HopsworksError as error:
            if not is_unreached(error):
                raise
            if not await _is_stopped(project, name):
                stopped_since = None
                raise
            now = clock()
            stopped_since = now if stopped_since is None else stopped_since
            if now >= min(stopped_since + STOPPED_SECONDS, ends):
                raise _stopped(name) from error
            raise

    return await until_reached(project, name, ask_once, timeout=timeout, clock=clock)


async def _is_stopped(project: Project, name: str) -> bool:
    """Return whether a deployment has no instances, as far as it can be read."""
    try:
        deployment = await api.get_deployment(project, name)
    except HopsworksError:
        return False
    return deployment is not None and deployment.status.is_down


def _stopped(name: str) -> DeploymentError:
    """Return the error for a deployment that is stopped. A retry may succeed, if it is started meanwhile."""
    message = (
        f"Deployment {name!r} is stopped, so it answers no requests.\nStart it with StartDeploymentOperator before "
        "this task."
    )
    error = DeploymentError(message)
    error.transient = True
    return error


async def until_reached(
    project: Project, name: str, ask_once: Callable[[float], Flow[T]], *, timeout: float, clock: Clock
) -> T:
    """
    Send any request to a deployment, and retry while it is unreachable, as ``predict`` does.

    :param ask_once: sends the request once, with a timeout in seconds
    :param timeout: seconds
    :param clock: returns the seconds since 1970
    """
    begun, heartbeat = clock(), Heartbeat(clock)
    while True:
        left = begun + timeout - clock()
        try:
            answer = await within(ask_once(max(left, 1.0)), begun + timeout, clock)
        except HopsworksError as error:
            waited = clock() - begun
            if not is_unreached(error) or waited >= timeout:
                raise
            if waited >= min(ROUTE_BUDGET, timeout):
                deployment = await bounded(api.get_deployment(project, name), begun + timeout, clock)
                if deployment is None or deployment.status.is_down or deployment.status.value in ("Running", "Failed"):
                    raise
            left = max(begun + timeout - clock(), 0.0)
            heartbeat.log(f"Deployment {name!r}", begun + timeout)
            await Sleep(min(max(BETWEEN_PROBES, error.retry_after or 0.0), max(left, BETWEEN_PROBES)))
        else:
            return answer
