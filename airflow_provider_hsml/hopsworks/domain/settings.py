"""
The one table of a deployment's settings, and where each stands on the wire.

The same setting may stand in two places, or be written in one way and read back in another. Reading what is live,
comparing, and writing an update all go by ``SETTINGS``, so they cannot disagree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

COMPUTE = ("cores", "memory", "gpus")
RESERVED = "SERVING_"
"""How the names of environment variables begin that Hopsworks sets itself, for deployments with a schema."""
RESTARTED = "HSML_RESTARTED_AT"
"""An environment variable of ours, by which a restart without a stop makes a new rollout: no setting of the user's."""
CREATE_TOPIC = "CREATE"
_COPIED = re.compile(r"^(?:predictor-|transformer-)+")
"""What servers that copy scripts put before their names."""

SettingValues = dict[str, Any]
"""Settings by their name: those that were asked for, no others. None: it is to be taken away."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script or configuration file of a deployment: in the project, or on this machine and about to be uploaded."""

    path: str
    """``/Projects/<project>/...``, or from the project's folder on where it is yet to be uploaded."""
    content: bytes | None = field(default=None, repr=False)
    """What to upload; None for one that is in the project already."""

    @property
    def name(self) -> str:
        """The last part of the path: the only part that all servers tell."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Topic:
    """Where inferences are logged to: a Kafka topic that is there, or ``CREATE`` for a new one."""

    name: str
    partitions: int = 1
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """How the values of a setting are read, written and compared."""

    decode: Callable[[Any], Any] = lambda wire: wire
    encode: Callable[[Any, Any], Any] = lambda value, _live: value
    """From the wanted value and what is live, to the wire."""
    alike: Callable[[Any, Any, Mapping[str, Any]], bool] = lambda live, value, _raw: bool(live == value)
    """Whether what is live, read, is what is wanted; in this deployment."""
    show: Callable[[Any], str] = repr


def base_name(path: Any) -> str | None:
    """
    Give the name by which scripts are compared: some servers tell a path, some a name, some that of a copy.

    :param path: as it stands on the wire
    """
    return _COPIED.sub("", path.rpartition("/")[2]) or None if isinstance(path, str) else None


def _env_vars(wire: Any) -> dict[str, str]:
    texts = (text.partition("=") for text in wire or [] if not _is_set_aside(text))
    return {name: value for name, _, value in texts}


def _is_set_aside(text: str) -> bool:
    """Tell whether a variable is not one that users set."""
    return text.startswith((RESERVED, f"{RESTARTED}="))


def _env_vars_to_wire(value: Mapping[str, str], live: Any) -> list[str]:
    """Write variables; those that Hopsworks, or a restart, has set stay."""
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
    """Put a value into what is live: of a mapping only the keys that were given."""
    if not isinstance(value, Mapping) or not isinstance(live, Mapping):
        return value
    return {**live, **{key: _merged(inner, live.get(key)) for key, inner in value.items()}}


def _holds(live: Any, value: Any) -> bool:
    """Tell whether all of a value is in what is live, where the server may have filled in more."""
    if isinstance(value, Mapping):
        there = live if isinstance(live, Mapping) else {}
        return all(_holds(there.get(key), inner) for key, inner in value.items())
    return bool(live == value)


PLAIN = Kind()
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
    """
    Write the value of a tag: a text as it is, anything else as JSON.

    :param value: what was given
    """
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a deployment and where it stands on the wire."""

    name: str
    """As it is called in ``spec``, in a plan and in messages: ``resources.requests.cores``."""
    paths: tuple[tuple[str, ...], ...]
    """All are written; the first that has a value is read."""
    kind: Kind = PLAIN
    default: Any = None
    """What it counts as when it is not there."""
    versioned: bool = True
    """Whether a deployment version (5.2) keeps it, so that a rollback brings it back."""
    compared: bool = True
    """Whether a difference is a reason to send an update."""

    @property
    def field(self) -> str:
        """What users gave it as, for messages."""
        return self.name if self.name.startswith(("model_", "framework")) else f"spec.{self.name}"

    def wire(self, raw: Mapping[str, Any]) -> Any:
        """
        Give what stands on the wire for it; None when there is nothing.

        :param raw: a deployment as the server gives it
        """
        for path in self.paths:
            value: Any = raw
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return value
        return None

    def read(self, raw: Mapping[str, Any]) -> Any:
        """
        Give the setting's value in an answer of the server; its default when it is not there.

        :param raw: a deployment as the server gives it
        """
        wire = self.wire(raw)
        return self.default if wire is None else self.kind.decode(wire)

    def is_met(self, raw: Mapping[str, Any], value: Any) -> bool:
        """
        Tell whether a deployment has a value of this setting, however the server writes it.

        :param raw: a deployment as the server gives it
        :param value: what was asked for
        """
        return self.kind.alike(self.read(raw), value, raw)

    def write(self, raw: dict[str, Any], value: object) -> None:
        """
        Put a value into a deployment that will be sent.

        :param raw: the deployment; changed in place
        :param value: the new value
        """
        wire = self.kind.encode(value, self.wire(raw))
        for path in self.paths:
            place = raw
            for key in path[:-1]:
                if not isinstance(place.get(key), dict):
                    place[key] = {}
                place = place[key]
            place[path[-1]] = wire


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


def _of_component(prefix: str, component: str, instances: str) -> tuple[Setting, ...]:
    """Make the settings that predictor and transformer have alike."""
    return (
        Setting(f"{prefix}env_vars", ((f"{component}EnvVars",),), ENV_VARS, {}),
        *(
            Setting(f"{prefix}resources.{kind}.{unit}", ((f"{component}Resources", kind, unit),))
            for kind in ("requests", "limits")
            for unit in COMPUTE
        ),
        # Two truths since 4.6: both are written, and the newer one is read.
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


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("model_name", (("modelName",),)),
        Setting("model_version", (("modelVersion",),)),
        Setting("model_path", (("modelPath",),)),
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
        # Sent with what creates a deployment; afterwards they have an endpoint of their own.
        Setting("tags", (("tags",),), TAGS, {}, versioned=False, compared=False),
    )
}
EXTRA = "extra."
_UNVERSIONED_EXTRA = frozenset({"knativeMode"})
SET_BY_THE_SERVER = frozenset(
    {"id", "name", "version", "created", "creator", "status", "condition", "deployed", "revision", "projectNamespace"}
    | {"availableInstances", "availableTransformerInstances", "internalPort", "hopsworksInferencePath"}
    | {"modelServerInferencePath", "missingMandatoryTags", "gitCurrentCommit", "gitResolvedBranch", "artifactVersion"}
    | {"modelName", "modelVersion", "modelPath", "modelFramework", "modelServer"}
)
"""Keys that follow from something else, and cannot be asked for."""


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
    # Changed in place: a version of its own would be what a rollback goes back to.
    versioned=False,
)
"""When a restart without a stop was asked for. None of the user's settings, so not in the table of them."""


def setting_of(name: str) -> Setting:
    """
    Find a setting.

    :param name: its name; ``extra.<key>`` for a key of the wire that has no name of its own
    """
    if name == RESTART.name:
        return RESTART
    key = name.removeprefix(EXTRA)
    if key == name:
        return SETTINGS[name]
    return Setting(name, ((key,),), PARTIAL, versioned=key not in _UNVERSIONED_EXTRA)


def named(key: str) -> str | None:
    """
    Tell which setting a key of the wire belongs to; None when it has no name of its own.

    :param key: a key of a deployment, such as ``predictorResources``
    """
    return next((name for name, setting in SETTINGS.items() if any(path[0] == key for path in setting.paths)), None)


ENV_VAR_SETTINGS = ("env_vars", "transformer.env_vars")
"""The settings whose values are never stored."""


ENV_VAR_KEYS = frozenset(path[0] for name in ENV_VAR_SETTINGS for path in SETTINGS[name].paths)
"""The same, as they are called on the wire."""
