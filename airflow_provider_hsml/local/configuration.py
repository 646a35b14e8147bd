"""
A deployment's configuration: which fields there are, and what those stand for that are not given.

It is held by its keys on the wire. ``VERSIONED`` belongs to a version and comes back with a rollback; ``UNVERSIONED``
lives on the deployment and is edited in place either way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODEL = ("modelPath", "modelName", "modelVersion", "modelFramework")
KEPT_WHEN_NULL = frozenset({*_MODEL, "description", "modelServer", "servingTool", "requestedInstances"})
VERSIONED = (
    *_MODEL,
    *("modelServer", "predictor", "transformer", "configFile", "requestedInstances", "requestedTransformerInstances"),
    *("predictorResources", "transformerResources", "predictorScalingConfig", "transformerScalingConfig"),
    *("environmentDTO", "predictorEnvironment", "transformerEnvironment", "predictorEnvVars", "transformerEnvVars"),
    *("vllmVariant", "vllmImageTag", "tracing", "featureLogging"),
    *("gitUrl", "gitProvider", "gitBranch", "gitAutoRedeploy"),
)
UNVERSIONED = (
    *("description", "servingTool", "apiProtocol", "batchingConfiguration", "inferenceLogging", "kafkaTopicDTO"),
    *("knativeMode", "tags"),
)
_SET_BY_THE_SERVER = frozenset(
    {"id", "name", "version", "created", "creator", "status", "condition", "deployed", "revision", "projectNamespace"}
    | {"availableInstances", "availableTransformerInstances", "internalPort", "hopsworksInferencePath"}
    | {"modelServerInferencePath", "missingMandatoryTags", "gitCurrentCommit", "gitResolvedBranch", "artifactVersion"}
    | {"modelRegistryId", "projectName"},
)
FIELDS = frozenset({*VERSIONED, *UNVERSIONED}) | _SET_BY_THE_SERVER

_TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(
        ("description", "modelPath", "modelName", "predictor", "transformer", "configFile"), (str, "a text")
    ),
    **dict.fromkeys((key for key in VERSIONED if key.endswith(("Resources", "ScalingConfig"))), (dict, "an object")),
    **dict.fromkeys(("predictorEnvironment", "transformerEnvironment", "environmentDTO"), (dict, "an object")),
    **dict.fromkeys(("batchingConfiguration", "kafkaTopicDTO", "tracing", "featureLogging"), (dict, "an object")),
    **dict.fromkeys(("predictorEnvVars", "transformerEnvVars"), (list, "a list")),
}
_ENVIRONMENTS = {
    "PYTHON": "pandas-inference-pipeline",
    "VLLM": "vllm-inference-pipeline",
    "TENSORFLOW_SERVING": "tensorflow-inference-pipeline",
}


def completed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Take what is known of a body, with the server's defaults."""
    config = {key: body.get(key) for key in (*VERSIONED, *UNVERSIONED)}
    _check_types(config)
    if config["requestedInstances"] is None and config["predictorScalingConfig"]:
        config["requestedInstances"] = config["predictorScalingConfig"].get("minInstances")
    server = config["modelServer"]
    has_model = any(config[key] is not None for key in ("modelPath", "modelName", "modelVersion"))
    if has_model and config["modelName"] is None and isinstance(config["modelPath"], str):
        config["modelName"] = (config["modelPath"].split("/") + [""] * 5)[4]
    if has_model and config["modelFramework"] is None:
        config["modelFramework"] = "TENSORFLOW" if server == "TENSORFLOW_SERVING" else "SKLEARN"
    environment = config["predictorEnvironment"] or config["environmentDTO"]
    config["predictorEnvironment"] = config["environmentDTO"] = environment or {
        "name": _ENVIRONMENTS.get(str(server), _ENVIRONMENTS["PYTHON"])
    }
    config["predictorResources"] = config["predictorResources"] or _default_resources()
    config["predictorScalingConfig"] = config["predictorScalingConfig"] or {
        "minInstances": config["requestedInstances"]
    }
    if config["transformer"]:
        config["transformerResources"] = config["transformerResources"] or _default_resources()
        config["transformerScalingConfig"] = config["transformerScalingConfig"] or {
            "minInstances": config["requestedTransformerInstances"]
        }
    config["batchingConfiguration"] = config["batchingConfiguration"] or {"batchingEnabled": False}
    config["apiProtocol"] = config["apiProtocol"] or "REST"
    config["inferenceLogging"] = config["inferenceLogging"] or "NONE"
    return config


def _check_types(config: dict[str, Any]) -> None:
    for key, (kind, what) in _TYPES.items():
        if config[key] is not None and not isinstance(config[key], kind):
            raise malformed(f"{key} {config[key]!r} is not {what}.")


def _default_resources() -> dict[str, Any]:
    return {
        "requests": {"cores": 0.2, "memory": 32, "gpus": 0},
        "limits": {"cores": 2, "memory": 1024, "gpus": 0},
    }
