"""
Checks before a change is sent, which refuse settings that Hopsworks refuses, or whose instances cannot start.

``check_combination`` checks the whole body of the request, so that requested and live settings are checked together.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .settings import COMPUTE, SETTINGS
from .spec import VLLM_METRICS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from .deployment import Deployment
    from .model_version import ModelVersion

log = logging.getLogger(__name__)

_ELSEWHERE = "Deploy it under another deployment_name."


def check_combination(body: Mapping[str, Any], changes: Collection[str]) -> None:
    """
    Raise an error if settings contradict each other.

    :param body: the whole body of the request
    :param changes: names of the settings that change; a contradiction counts only if one of them takes part
    :raises InvalidInputError: the first contradiction; the message names the field
    """
    for bad, names, message in _rules(body):
        if bad and any(change.startswith(name) for name in names for change in changes):
            raise InvalidInputError(message)


_Rule = tuple[bool, tuple[str, ...], str]


def _rules(body: Mapping[str, Any]) -> Iterator[_Rule]:
    """Yield (is it violated, settings that take part, error message) for each rule."""
    server, framework = body.get("modelServer"), body.get("modelFramework")
    is_default = body.get("servingTool") == "DEFAULT"
    script, config = body.get("predictor"), body.get("configFile")
    on = "on the serving tool DEFAULT"
    yield (
        server == "TENSORFLOW_SERVING" and bool(script),
        ("script_file", "framework"),
        "spec.script_file: TensorFlow Serving takes no predictor script.\nLeave it out, or give False.",
    )
    yield (
        server == "PYTHON" and not script and framework in (None, "PYTHON", "TORCH"),
        ("script_file", "framework"),
        _needs_script(body),
    )
    yield (
        server == "PYTHON" and not script and is_default,
        ("script_file", "framework", "serving_tool"),
        f"spec.script_file: {on} a model of framework {framework} needs a predictor script.",
    )
    yield (
        bool(config) and server != "VLLM" and not script,
        ("config_file", "script_file"),
        "spec.config_file: only vLLM and predictor scripts read one.\nGive script_file as well, or leave it out.",
    )
    yield from _rules_of_tools(body, server=server, on=on, is_default=is_default)
    yield from _rules_of_components(body)


def _rules_of_tools(body: Mapping[str, Any], *, server: object, on: str, is_default: bool) -> Iterator[_Rule]:
    """Yield the rules about serving tool, server and protocol."""
    is_grpc = body.get("apiProtocol") == "GRPC"
    mode = SETTINGS["inference_logger.mode"].read(body)
    batching = dict(body.get("batchingConfiguration") or {})
    enabled = batching.pop("batchingEnabled", False)
    fine = [key for key, value in batching.items() if value is not None]
    yield (
        is_default and bool(body.get("transformer")),
        ("transformer.", "serving_tool"),
        f"spec.transformer: there are no transformers {on}; KSERVE has them.",
    )
    yield (
        is_default and server == "VLLM",
        ("framework", "serving_tool"),
        "spec.serving_tool: vLLM needs KSERVE.",
    )
    yield (
        is_default and is_grpc,
        ("api_protocol", "serving_tool"),
        f"spec.api_protocol: there is no GRPC {on}; KSERVE has it.",
    )
    yield (
        is_grpc and server == "VLLM",
        ("api_protocol", "framework"),
        "spec.api_protocol: vLLM serves OpenAI's API, by REST only.",
    )
    yield (
        is_default and SETTINGS["scaling.min_instances"].read(body) != 1,
        ("scaling.min_instances", "serving_tool"),
        f"spec.scaling.min_instances: {on} there is exactly one instance.",
    )
    yield (
        is_default and mode not in ("ALL", "NONE"),
        ("inference_logger.", "serving_tool"),
        f"spec.inference_logger.mode: {on} all is logged or nothing; expected ALL or NONE, got {mode!r}.",
    )
    yield (
        is_default and bool(enabled) and server == "PYTHON",
        ("inference_batcher.", "serving_tool"),
        f"spec.inference_batcher.enabled: Python deployments {on} have no batcher; KSERVE has it.",
    )
    yield (
        is_default and bool(fine),
        ("inference_batcher.", "serving_tool"),
        f"spec.inference_batcher: {on} it can only be enabled; {', '.join(fine)} need KSERVE.",
    )
    yield (
        bool(fine) and not enabled,
        tuple(f"inference_batcher.{name}" for name in ("max_batch_size", "max_latency", "timeout")),
        "spec.inference_batcher.enabled: expected true, since its other fields are given.",
    )
    vllm_only = [key for key in ("vllmVariant", "vllmImageTag") if body.get(key) is not None]
    yield (
        bool(vllm_only) and server != "VLLM",
        tuple(f"extra.{key}" for key in vllm_only),
        f"spec.extra: {', '.join(vllm_only)} is for models of framework LLM, which vLLM serves.",
    )


def _rules_of_components(body: Mapping[str, Any]) -> Iterator[_Rule]:
    """Yield the rules about the transformer, and about the resources of each component."""
    yield (
        not body.get("transformer"),
        tuple(name for name in SETTINGS if name.startswith("transformer.") and name != "transformer.script_file"),
        "spec.transformer.script_file: expected one, since the deployment has no transformer.",
    )
    for prefix in ("", "transformer."):
        for unit in COMPUTE:
            names = tuple(f"{prefix}resources.{kind}.{unit}" for kind in ("requests", "limits"))
            request, limit = (SETTINGS[name].read(body) for name in names)
            yield (
                request is not None and limit is not None and limit < request,
                names,
                f"spec.{names[1]}: expected at least what is requested ({request}), got {limit}.",
            )
        least, most, idle, metric = (
            SETTINGS[f"{prefix}scaling.{name}"].read(body)
            for name in ("min_instances", "max_instances", "idle_scale_to_zero", "metric")
        )
        yield (
            least is not None and most is not None and most < least,
            (f"{prefix}scaling.m",),
            f"spec.{prefix}scaling.max_instances: expected at least min_instances ({least}), got {most}.",
        )
        yield (
            bool(idle and least),
            (f"{prefix}scaling.min_instances", f"{prefix}scaling.idle_scale_to_zero"),
            f"spec.{prefix}scaling.min_instances: expected 0, since idle_scale_to_zero is given; got {least}.",
        )
        yield (
            metric in VLLM_METRICS and body.get("modelServer") != "VLLM",
            (f"{prefix}scaling.metric",),
            f"spec.{prefix}scaling.metric: {metric} is measured by vLLM only.",
        )


def _needs_script(body: Mapping[str, Any]) -> str:
    """Return why a model cannot be deployed without a predictor script."""
    if body.get("modelName") is None:
        return "spec.script_file: expected one, since a deployment without a model serves a script."
    return (
        f"spec.script_file: version {body.get('modelVersion')} of model {body['modelName']!r} is of framework "
        f"{body.get('modelFramework')}, which Hopsworks serves by a predictor script, and there is none.\nIf "
        "scikit-learn can load the model, register it as SKLEARN."
    )


def check_live(live: Deployment, model: ModelVersion | None, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """
    Raise an error if a change touches what Hopsworks cannot change in an existing deployment.

    :param model: the version to serve; None for a script alone
    :param changes: setting -> (live, desired)
    :raises InvalidInputError: the serving tool or the model server would change
    """
    if tool := changes.get("serving_tool"):
        message = (
            f"spec.serving_tool: {live} has {tool[0]}, and Hopsworks cannot change that to {tool[1]}.\n{_ELSEWHERE}"
        )
        raise InvalidInputError(message)
    framework = model.framework if model is not None else None
    if model is not None and framework is not None and framework.model_server != live.model_server:
        message = (
            f"{live} runs on {live.model_server}, and version {model.version} of model {model.name!r} "
            f"({framework.value}) needs {framework.model_server}: Hopsworks cannot change that.\n{_ELSEWHERE}"
        )
        raise InvalidInputError(message)


def check_minimum(body: Mapping[str, Any], *, must_be_zero: bool) -> None:
    """
    Raise an error if a new deployment keeps instances on a cluster that wants all to scale to zero.

    :param body: the body of the request
    :param must_be_zero: whether the cluster requires a minimum of 0 instances
    :raises InvalidInputError: a minimum above 0 is requested
    """
    least = SETTINGS["scaling.min_instances"].read(body)
    if must_be_zero and body.get("servingTool") == "KSERVE" and least:
        message = f"spec.scaling.min_instances: this Hopsworks wants 0 (scale to zero) of all deployments, got {least}."
        raise InvalidInputError(message)
