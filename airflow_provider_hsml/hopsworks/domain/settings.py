"""
The table of a deployment's settings, with the place of each in the deployment resource.

A setting may be in two places, or be written in one form and read back in another. Reading the live deployment,
comparing it and writing an update all use ``SETTINGS``, so they cannot disagree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .deployment_schema import RESERVED
from .model_version import model_of_path

COMPUTE = ("cores", "memory", "gpus")
RESTARTED = "HSML_RESTARTED_AT"
"""Our environment variable that triggers a new rollout for a restart without a stop. Users do not set it."""
CREATE_TOPIC = "CREATE"
_COPIED = re.compile(r"^(?:predictor-|transformer-)+")
"""Prefixes that servers which copy scripts add to their file names."""

SCALING = {
    "max_instances": "maxInstances",
    "metric": "scaleMetric",
    "target": "target",
    "panic_window_percentage": "panicWindowPercentage",
    "panic_threshold_percentage": "panicThresholdPercentage",
    "stable_window_seconds": "stableWindowSeconds",
    "scale_to_zero_retention_seconds": "scaleToZeroRetentionSeconds",
    "log_persistence": "logPersistence",
    "autoscaler": "autoscaler",
    "scale_down_stabilization_window_seconds": "scaleDownStabilizationWindowSeconds",
    "scale_up_stabilization_window_seconds": "scaleUpStabilizationWindowSeconds",
    "additional_metrics": "additionalScaleMetrics",
    "idle_scale_to_zero": "idleScaleToZero",
    "idle_cooldown_seconds": "idleCooldownSeconds",
    "cold_start_timeout_seconds": "coldStartTimeoutSeconds",
}
_BATCHER = {
    "enabled": "batchingEnabled",
    "max_batch_size": "maxBatchSize",
    "max_latency": "maxLatency",
    "timeout": "timeout",
}
EXTRA = "extra."
_UNVERSIONED_EXTRA = frozenset({"knativeMode"})
SET_BY_THE_SERVER = frozenset(
    {"id", "name", "version", "created", "creator", "status", "condition", "deployed", "revision", "projectNamespace"}
    | {"availableInstances", "availableTransformerInstances", "internalPort", "hopsworksInferencePath"}
    | {"modelServerInferencePath", "missingMandatoryTags", "gitCurrentCommit", "gitResolvedBranch", "artifactVersion"}
    | {"modelName", "modelVersion", "modelPath", "modelFramework", "modelServer"}
)
"""Keys that the server derives, or that follow from other settings. They cannot be set by ``extra``."""

SettingValues = dict[str, Any]
"""Desired values by setting name. Settings that were not requested are left out; None means that one is removed."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script or configuration file of a deployment: in the project, or on this machine and about to be uploaded."""

    path: str
    """``/Projects/<project>/...``; relative to the project's folder for a file that is yet to be uploaded."""
    content: bytes | None = field(default=None, repr=False)
    """The content to upload; None for a file that is in the project already."""

    @property
    def name(self) -> str:
        """The last part of the path: the only part that all servers return."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Topic:
    """The Kafka topic of the inference logger: an existing one, or ``CREATE`` for a new one."""

    name: str
    partitions: int = 1
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """How the values of a setting are read, written and compared."""

    decode: Callable[[Any], Any] = lambda wire: wire
    encode: Callable[[Any, Any], Any] = lambda value, _live: value
    """Convert a desired value, and the live one, to JSON for the server."""
    alike: Callable[[Any, Any, Mapping[str, Any]], bool] = lambda live, value, _raw: bool(live == value)
    """Whether the live value, decoded, matches the desired value, given the whole deployment resource."""
    show: Callable[[Any], str] = repr


def base_name(path: Any) -> str | None:
    """
    Return the name by which scripts are compared.

    Some servers return a script's path, some its name, and some the name of a copy.

    :param path: the value in the deployment resource
    """
    return _COPIED.sub("", path.rpartition("/")[2]) or None if isinstance(path, str) else None


def _env_vars(wire: Any) -> dict[str, str]:
    texts = (text.partition("=") for text in wire or [] if not _is_set_aside(text))
    return {name: value for name, _, value in texts}


def _is_set_aside(text: str) -> bool:
    """Return whether an environment variable is set by Hopsworks or by a restart, not by users."""
    return text.partition("=")[0] in {*RESERVED, RESTARTED}


def _env_vars_to_wire(value: Mapping[str, str], live: Any) -> list[str]:
    """Convert variables to JSON; those that Hopsworks or a restart has set are kept."""
    own = [text for text in live or [] if _is_set_aside(text)]
    return [*own, *(f"{name}={text}" for name, text in value.items())]


def _is_topic(live: Any, value: Topic | None, raw: Mapping[str, Any]) -> bool:
    name = live.get("name") if isinstance(live, Mapping) else None
    if value is None or name in (None, "NONE"):
        return value is None and name in (None, "NONE")
    if value.name == CREATE_TOPIC:
        return re.fullmatch(rf"{re.escape(str(raw.get('name')))}-inf\d+", name) is not None
    return bool(name == value.name)


def _merged(value: Any, live: Any) -> Any:
    """Merge a value into the live one: of a mapping, only the given keys are replaced."""
    if not isinstance(value, Mapping) or not isinstance(live, Mapping):
        return value
    return {**live, **{key: _merged(inner, live.get(key)) for key, inner in value.items()}}


def _holds(live: Any, value: Any) -> bool:
    """Return whether the live value has all of a value; the server may have filled in more keys."""
    if isinstance(value, Mapping):
        there = live if isinstance(live, Mapping) else {}
        return all(_holds(there.get(key), inner) for key, inner in value.items())
    return bool(live == value)


def _is_model_path(live: Any, value: Any, raw: Mapping[str, Any]) -> bool:
    """Compare by project and model. A path that a server leaves out is unknown, and no other path."""
    if live is None or value is None:
        return live == value or raw.get("modelName") is not None
    one, other = model_of_path(live), model_of_path(value)
    if one is None or other is None:
        return bool(live == value)
    return (one[0].lower(), one[1]) == (other[0].lower(), other[1])


PLAIN = Kind()
MODEL_PATH = Kind(alike=_is_model_path)
SCRIPT = Kind(
    encode=lambda value, _live: None if value is None else value.path,
    alike=lambda live, value, _raw: base_name(live) == (value and base_name(value.path)),
    show=lambda value: str(value and getattr(value, "name", base_name(value))),
)
ENV_VARS = Kind(_env_vars, _env_vars_to_wire, show=lambda value: f"({', '.join(sorted(value or {}))})")
TOPIC = Kind(
    encode=lambda value, _live: (
        value and {"name": value.name, "numOfReplicas": value.replicas, "numOfPartitions": value.partitions}
    ),
    alike=_is_topic,
    show=lambda value: str(value and (value.name if isinstance(value, Topic) else value.get("name"))),
)
TAGS = Kind(
    encode=lambda value, _live: {
        "count": len(value),
        "items": [{"name": name, "value": tag_text(tag)} for name, tag in value.items()],
    },
)
PARTIAL = Kind(encode=_merged, alike=lambda live, value, _raw: _holds(live, value))


def tag_text(value: Any) -> str:
    """Return the value of a tag as text: a string unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a deployment and its place in the deployment resource."""

    name: str
    """The name in ``spec``, in a plan and in messages: ``resources.requests.cores``."""
    paths: tuple[tuple[str, ...], ...]
    """All paths are written; the first one that has a value is read."""
    kind: Kind = PLAIN
    default: Any = None
    """The value that a missing setting stands for."""
    versioned: bool = True
    """Whether a deployment version (5.2) keeps this setting, so that a rollback restores it."""
    compared: bool = True
    """Whether a difference is a reason to send an update."""

    @property
    def field(self) -> str:
        """The argument that sets it, for messages."""
        return self.name if self.name.startswith(("model_", "framework")) else f"spec.{self.name}"

    def wire(self, raw: Mapping[str, Any]) -> Any:
        """Return the raw value in a deployment resource; None when there is none."""
        for path in self.paths:
            value: Any = raw
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return value
        return None

    def read(self, raw: Mapping[str, Any]) -> Any:
        """Return the decoded value in a deployment resource; the default when there is none."""
        wire = self.wire(raw)
        return self.default if wire is None else self.kind.decode(wire)

    def is_met(self, raw: Mapping[str, Any], value: Any) -> bool:
        """Return whether a deployment resource has this value, in any form that servers return it in."""
        return self.kind.alike(self.read(raw), value, raw)

    def write(self, raw: dict[str, Any], value: object) -> None:
        """
        Write a value into the body of a request.

        :param raw: the body; modified in place
        """
        wire = self.kind.encode(value, self.wire(raw))
        for path in self.paths:
            place = raw
            for key in path[:-1]:
                if not isinstance(place.get(key), dict):
                    place[key] = {}
                place = place[key]
            place[path[-1]] = wire


def _of_component(prefix: str, component: str, instances: str) -> tuple[Setting, ...]:
    """Build the settings that predictor and transformer have in common."""
    return (
        Setting(f"{prefix}env_vars", ((f"{component}EnvVars",),), ENV_VARS, {}),
        *(
            Setting(f"{prefix}resources.{kind}.{unit}", ((f"{component}Resources", kind, unit),))
            for kind in ("requests", "limits")
            for unit in COMPUTE
        ),
        # In two places since 4.6: both are written, and the newer one is read.
        Setting(f"{prefix}scaling.min_instances", ((f"{component}ScalingConfig", "minInstances"), (instances,))),
        *(
            Setting(
                f"{prefix}scaling.{name}",
                ((f"{component}ScalingConfig", key),),
                default=False if name == "idle_scale_to_zero" else None,
            )
            for name, key in SCALING.items()
        ),
    )


# A new setting also needs its field in domain/spec.py and its row in docs/deployments.md. For the local server, add its
# key to local/world/configuration.py, and the release that introduced it to local/lines.py. For the test of every
# setting, add two values to tests/airflow/test_settings.py.
SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("model_name", (("modelName",),)),
        Setting("model_version", (("modelVersion",),)),
        Setting("model_path", (("modelPath",),), MODEL_PATH),
        Setting("framework", (("modelFramework",),)),
        Setting("script_file", (("predictor",),), SCRIPT),
        Setting("config_file", (("configFile",),), SCRIPT),
        Setting("environment", (("predictorEnvironment", "name"), ("environmentDTO", "name"))),
        *_of_component("", "predictor", "requestedInstances"),
        Setting("transformer.script_file", (("transformer",),), SCRIPT),
        Setting("transformer.environment", (("transformerEnvironment", "name"),)),
        *_of_component("transformer.", "transformer", "requestedTransformerInstances"),
        Setting("inference_logger.mode", (("inferenceLogging",),), default="NONE", versioned=False),
        Setting("inference_logger.kafka_topic", (("kafkaTopicDTO",),), TOPIC, versioned=False),
        *(
            Setting(
                f"inference_batcher.{name}",
                (("batchingConfiguration", key),),
                default=False if name == "enabled" else None,
                versioned=False,
            )
            for name, key in _BATCHER.items()
        ),
        Setting("api_protocol", (("apiProtocol",),), default="REST", versioned=False),
        Setting("serving_tool", (("servingTool",),), default="KSERVE", versioned=False),
        # A PUT of the description alone would restart the instances.
        Setting("description", (("description",),), versioned=False, compared=False),
        # Sent with the request that creates a deployment; afterwards tags have an endpoint of their own.
        Setting("tags", (("tags",),), TAGS, {}, versioned=False, compared=False),
    )
}

ENV_VAR_SETTINGS = ("env_vars", "transformer.env_vars")
"""The settings whose values are never stored, since they may be secrets."""
ENV_VAR_KEYS = frozenset(path[0] for name in ENV_VAR_SETTINGS for path in SETTINGS[name].paths)
"""The keys of those settings in the deployment resource."""


def _restarted(wire: Any) -> str | None:
    return next((text.partition("=")[2] for text in wire or [] if text.startswith(f"{RESTARTED}=")), None)


RESTART = Setting(
    "restarted_at",
    (("predictorEnvVars",),),
    Kind(
        _restarted,
        lambda value, live: [
            *(text for text in live or [] if not text.startswith(f"{RESTARTED}=")),
            f"{RESTARTED}={value}",
        ],
    ),
    # Changed in place: a rollback must not go back to a deployment version that only records a restart.
    versioned=False,
)
"""The time at which a restart without a stop was requested. Users do not set it, so it is not in ``SETTINGS``."""


def setting_of(name: str) -> Setting:
    """
    Return the setting of a name.

    :param name: a name in ``SETTINGS``, or ``extra.<key>`` for a key of the deployment resource without such a name
    """
    if name == RESTART.name:
        return RESTART
    key = name.removeprefix(EXTRA)
    if key == name:
        return SETTINGS[name]
    return Setting(name, ((key,),), PARTIAL, versioned=key not in _UNVERSIONED_EXTRA)


def named(key: str) -> str | None:
    """
    Return the name of the setting that a key of the deployment resource belongs to; None when there is none.

    :param key: for example ``predictorResources``
    """
    return next((name for name, setting in SETTINGS.items() if any(path[0] == key for path in setting.paths)), None)
