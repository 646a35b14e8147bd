"""
A deployment's configuration: its fields and their defaults.

The keys are those on the wire. ``VERSIONED`` fields belong to a version and are restored by a rollback. ``UNVERSIONED``
fields belong to the deployment and are always edited in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import malformed

from .shapes import check_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.local.lines import Line

_MODEL = ("modelPath", "modelName", "modelVersion", "modelFramework")
KEPT_WHEN_NULL = frozenset({*_MODEL, "description", "modelServer", "servingTool", "requestedInstances"})
VERSIONED = (
    *_MODEL,
    *("modelServer", "predictor", "transformer", "configFile", "requestedInstances", "requestedTransformerInstances"),
    *("predictorResources", "transformerResources", "predictorScalingConfig", "transformerScalingConfig"),
    *("environmentDTO", "predictorEnvironment", "transformerEnvironment", "predictorEnvVars", "transformerEnvVars"),
    *("artifactVersion", "vllmVariant", "vllmImageTag", "tracing", "featureLogging"),
    *("gitUrl", "gitProvider", "gitBranch", "gitAutoRedeploy"),
)
UNVERSIONED = (
    *("description", "servingTool", "apiProtocol", "batchingConfiguration", "inferenceLogging", "kafkaTopicDTO"),
    "knativeMode",
)
_SET_BY_THE_SERVER = frozenset(
    {"id", "name", "version", "created", "creator", "status", "condition", "deployed", "revision", "projectNamespace"}
    | {"availableInstances", "availableTransformerInstances", "internalPort", "hopsworksInferencePath"}
    | {"modelServerInferencePath", "missingMandatoryTags", "gitCurrentCommit", "gitResolvedBranch"}
    | {"modelRegistryId", "projectName", "tags"},
)
FIELDS = frozenset({*VERSIONED, *UNVERSIONED}) | _SET_BY_THE_SERVER

_TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(
        ("description", "modelPath", "modelName", "predictor", "transformer", "configFile"), (str, "a text")
    ),
    **dict.fromkeys(("tracing", "featureLogging"), (dict, "an object")),
    **dict.fromkeys(("predictorEnvVars", "transformerEnvVars"), (list, "a list")),
}
_ENVIRONMENTS = {
    "PYTHON": "pandas-inference-pipeline",
    "VLLM": "vllm-inference-pipeline",
    "TENSORFLOW_SERVING": "tensorflow-inference-pipeline",
}


def completed(body: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Return the configuration in a body, with the server's defaults. Fields that the line does not have are None."""
    config = {key: body.get(key) if line.knows(key) else None for key in (*VERSIONED, *UNVERSIONED)}
    _check_types(config)
    check_shapes(config)
    if config["requestedInstances"] is None and config["predictorScalingConfig"]:
        config["requestedInstances"] = config["predictorScalingConfig"].get("minInstances")
    server = config["modelServer"]
    has_model = any(config[key] is not None for key in ("modelPath", "modelName", "modelVersion"))
    if has_model and config["modelName"] is None and isinstance(config["modelPath"], str):
        config["modelName"] = (config["modelPath"].split("/") + [""] * 5)[4]
    if has_model and config["modelFramework"] is None:
        config["modelFramework"] = "TENSORFLOW" if server == "TENSORFLOW_SERVING" else "SKLEARN"
    environment = config["predictorEnvironment"] or config["environmentDTO"]
    environment = environment or {"name": _ENVIRONMENTS.get(str(server), _ENVIRONMENTS["PYTHON"])}
    defaults: dict[str, Any] = {
        "predictorEnvironment": environment,
        "environmentDTO": environment,
        "predictorResources": _default_resources(line),
        "predictorScalingConfig": {"minInstances": config["requestedInstances"]},
        "batchingConfiguration": {"batchingEnabled": False},
        "apiProtocol": "REST",
        "inferenceLogging": "NONE",
    }
    if config["transformer"]:
        defaults["transformerResources"] = _default_resources(line)
        defaults["transformerScalingConfig"] = {"minInstances": config["requestedTransformerInstances"]}
    for key, value in defaults.items():
        if line.knows(key):
            config[key] = config[key] or value
    for key in ("predictorScalingConfig", "transformerScalingConfig"):
        scaling = config[key] or {}
        config[key] = {name: value for name, value in scaling.items() if line.knows_scaling(name)} or None
    if config["servingTool"] == "DEFAULT" and config["requestedInstances"] is not None:
        _make_single(config)
    return config


def _make_single(config: dict[str, Any]) -> None:
    """Set the number of instances to 1, which the serving tool DEFAULT enforces."""
    config["requestedInstances"] = 1
    if config["predictorScalingConfig"]:
        config["predictorScalingConfig"] = {**config["predictorScalingConfig"], "minInstances": 1}


def _check_types(config: dict[str, Any]) -> None:
    for key, (kind, description) in _TYPES.items():
        if config[key] is not None and not isinstance(config[key], kind):
            raise malformed(f"{key} {config[key]!r} is not {description}.")


def _default_resources(line: Line) -> dict[str, Any]:
    return {
        "requests": {"cores": 0.2, "memory": 32, "gpus": 0},
        "limits": {"cores": line.limit_cores, "memory": 1024, "gpus": 0},
    }
