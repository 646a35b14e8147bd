"""
Checks before a change is sent: for settings that Hopsworks refuses, or with which the instances cannot start.

``check_combination`` checks the whole body of the request, so that requested and live settings are checked together.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from .settings import COMPUTE, SETTINGS
from .spec import VLLM_METRICS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from .deployment import Deployment
    from .model_version import ModelVersion

_ELSEWHERE = "Deploy it under another deployment_name."


def check_combination(body: Mapping[str, Any], changes: Collection[str]) -> None:
    """
    Raise an error if settings contradict each other.

    :param body: the whole body of the request
    :param changes: names of the settings that change; a contradiction counts only if one of them takes part
    :raises InvalidInputError: the first contradiction; the message names the field
    """
    is_default = body.get("servingTool") == "DEFAULT"
    rules = itertools.chain(
        _rules_of_scripts(body, is_default=is_default),
        _rules_of_tools(body, is_default=is_default),
        _rules_of_components(body),
    )
    for is_violated, names, message in rules:
        if is_violated and any(change.startswith(name) for name in names for change in changes):
            raise InvalidInputError(message)


def check_changes(body: Mapping[str, Any], changes: Mapping[str, tuple[Any, Any]]) -> None:
    """
    Raise an error if the settings of an update contradict each other.

    A deployment without a transformer has none of its settings: None for one of them, as in a rollback that removes a
    transformer, is no request.

    :param body: the whole body of the request
    :param changes: setting -> (live, desired)
    :raises InvalidInputError: the first contradiction; the message names the field
    """
    is_gone = not body.get("transformer")
    requested = [
        name
        for name, (_live, desired) in changes.items()
        if not (is_gone and desired is None and name.startswith("transformer."))
    ]
    check_combination(body, requested)


_Rule = tuple[bool, tuple[str, ...], str]
"""Whether the rule is violated, the settings that take part, and the error message."""
_ON_DEFAULT = "on the serving tool DEFAULT"


def _rules_of_scripts(body: Mapping[str, Any], *, is_default: bool) -> Iterator[_Rule]:
    """Yield the rules about the predictor script and the configuration file."""
    server, framework = body.get("modelServer"), body.get("modelFramework")
    script, config = body.get("predictor"), body.get("configFile")
    yield (
        server == "TENSORFLOW_SERVING" and bool(script),
        ("script_file", "framework"),
        "spec.script_file: TensorFlow Serving takes no predictor script.\nLeave it out, or set it to False.",
    )
    yield (
        server == "PYTHON" and not script and framework in (None, "PYTHON", "TORCH"),
        ("script_file", "framework"),
        _needs_script(body),
    )
    yield (
        server == "PYTHON" and not script and is_default,
        ("script_file", "framework", "serving_tool"),
        f"spec.script_file: expected one, since {framework} models need a predictor script {_ON_DEFAULT}.",
    )
    yield (
        bool(config) and server != "VLLM" and not script,
        ("config_file", "script_file"),
        "spec.config_file: only vLLM and predictor scripts read one.\nAdd a script_file, or leave the config_file out.",
    )


def _rules_of_tools(body: Mapping[str, Any], *, is_default: bool) -> Iterator[_Rule]:
    """Yield the rules about serving tool, server and protocol."""
    server = body.get("modelServer")
    is_grpc = body.get("apiProtocol") == "GRPC"
    mode = SETTINGS["inference_logger.mode"].read(body)
    batching = dict(body.get("batchingConfiguration") or {})
    enabled = batching.pop("batchingEnabled", False)
    tuning = [key for key, value in batching.items() if value is not None]
    yield (
        is_default and bool(body.get("transformer")),
        ("transformer.", "serving_tool"),
        f"spec.transformer: there are no transformers {_ON_DEFAULT}.\nUse KSERVE.",
    )
    yield (
        is_default and server == "VLLM",
        ("framework", "serving_tool"),
        "spec.serving_tool: expected KSERVE, since vLLM serves the model.",
    )
    yield (
        is_default and is_grpc,
        ("api_protocol", "serving_tool"),
        f"spec.api_protocol: there is no GRPC {_ON_DEFAULT}.\nUse KSERVE.",
    )
    yield (
        is_grpc and server == "VLLM",
        ("api_protocol", "framework"),
        "spec.api_protocol: expected REST, since vLLM serves OpenAI's API by REST only.",
    )
    yield (
        is_default and SETTINGS["scaling.min_instances"].read(body) != 1,
        ("scaling.min_instances", "serving_tool"),
        f"spec.scaling.min_instances: expected 1, since there is exactly one instance {_ON_DEFAULT}.",
    )
    yield (
        is_default and mode not in ("ALL", "NONE"),
        ("inference_logger.", "serving_tool"),
        f"spec.inference_logger.mode: expected ALL or NONE {_ON_DEFAULT}, got {mode!r}.",
    )
    yield (
        is_default and bool(enabled) and server == "PYTHON",
        ("inference_batcher.", "serving_tool"),
        f"spec.inference_batcher.enabled: Python deployments {_ON_DEFAULT} have no batcher.\nUse KSERVE.",
    )
    yield (
        is_default and bool(tuning),
        ("inference_batcher.", "serving_tool"),
        f"spec.inference_batcher: it can only be enabled {_ON_DEFAULT}; {', '.join(tuning)} need KSERVE.",
    )
    yield (
        bool(tuning) and not enabled,
        tuple(f"inference_batcher.{name}" for name in ("max_batch_size", "max_latency", "timeout")),
        "spec.inference_batcher.enabled: expected true, since its other fields are set.",
    )
    vllm_only = [key for key in ("vllmVariant", "vllmImageTag") if body.get(key) is not None]
    yield (
        bool(vllm_only) and server != "VLLM",
        tuple(f"extra.{key}" for key in vllm_only),
        f"spec.extra: {', '.join(vllm_only)} applies only to models of framework LLM, which vLLM serves.",
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
                f"spec.{names[1]}: expected at least the request ({request}), got {limit}.",
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
            f"spec.{prefix}scaling.min_instances: expected 0, since idle_scale_to_zero is set; got {least}.",
        )
        yield (
            metric in VLLM_METRICS and body.get("modelServer") != "VLLM",
            (f"{prefix}scaling.metric",),
            f"spec.{prefix}scaling.metric: only vLLM measures {metric}.",
        )


def _needs_script(body: Mapping[str, Any]) -> str:
    """Return why a model cannot be deployed without a predictor script."""
    if body.get("modelName") is None:
        return "spec.script_file: expected one, since a deployment without a model serves a script."
    return (
        f"spec.script_file: version {body.get('modelVersion')} of model {body['modelName']!r} is of framework "
        f"{body.get('modelFramework')}, which needs a predictor script.\nAdd one, or register the model as SKLEARN if "
        "scikit-learn can load it. For a model of a feature view, make the deployment with Hopsworks' SDK, once."
    )


def check_live(live: Deployment, model: ModelVersion | None, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """
    Raise an error if a change includes a setting that Hopsworks cannot change in an existing deployment.

    :param model: the version to serve; None for a script alone
    :param changes: setting -> (live, desired)
    :raises InvalidInputError: the serving tool or the model server would change
    """
    if tool := changes.get("serving_tool"):
        message = f"spec.serving_tool: {live} has {tool[0]}, which Hopsworks cannot change to {tool[1]}.\n{_ELSEWHERE}"
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
    Raise an error if a new deployment keeps instances on a cluster where all deployments must scale to zero.

    :param body: the body of the request
    :param must_be_zero: whether the cluster requires a minimum of 0 instances
    :raises InvalidInputError: a minimum above 0 is requested
    """
    least = SETTINGS["scaling.min_instances"].read(body)
    if must_be_zero and body.get("servingTool") == "KSERVE" and least:
        message = (
            f"spec.scaling.min_instances: expected 0, since all deployments of this Hopsworks must scale to zero; got "
            f"{least}."
        )
        raise InvalidInputError(message)
