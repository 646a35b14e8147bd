"""
The configuration of a deployment as users write it, with the argument names of the SDK's ``model.deploy``.

Each dataclass below parses its fields strictly and returns the desired settings; ``settings`` maps those to the
deployment resource. A field that is None is not requested: an update keeps the live value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import arguments
from . import script_file as script_file_
from .arguments import Arguments
from .deployment_schema import RESERVED
from .settings import (
    COMPUTE,
    CREATE_TOPIC,
    EXTRA,
    SCALING,
    SET_BY_THE_SERVER,
    SettingValues,
    Topic,
    named,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_COMPUTE: dict[str, Callable[[str, object], float]] = {
    "cores": lambda what, value: arguments.number(what, value, least=0),
    "memory": lambda what, value: arguments.integer(what, value, least=1),
    "gpus": lambda what, value: arguments.integer(what, value, least=0),
}
METRICS = ("CONCURRENCY", "RPS", "CPU", "MEMORY")
VLLM_METRICS = (
    *("QUEUE_DEPTH", "RUNNING_REQUESTS", "KV_CACHE_USAGE", "QUEUE_TIME"),
    *("TIME_TO_FIRST_TOKEN", "REQUEST_LATENCY"),
)
_ENV_VAR = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_INTEGER = 1000
"""Bits of a number. Python writes no integer with more than 4,300 digits."""


@dataclass(frozen=True, slots=True)
class Resources(Arguments):
    """Resources of one instance. ``requests`` and ``limits``: ``cores`` (float), ``memory`` (MB), ``gpus``."""

    instances: int | str | None = None
    """Minimum number of instances; the same as ``Scaling.min_instances``."""
    requests: Mapping[str, float] | None = None
    limits: Mapping[str, float] | None = None

    def setting_values(self, what: str = "spec.resources") -> SettingValues:
        """
        Return the desired settings by name, without the component's prefix.

        :param what: the argument's name, for messages
        :raises InvalidInputError: a value of the wrong type, or a limit below its request
        """
        found: SettingValues = {}
        if self.instances is not None:
            found["scaling.min_instances"] = arguments.integer(f"{what}.instances", self.instances, least=0)
        for kind, given in (("requests", self.requests), ("limits", self.limits)):
            for unit, value in arguments.mapping(f"{what}.{kind}", {} if given is None else given, COMPUTE).items():
                found[f"resources.{kind}.{unit}"] = _COMPUTE[unit](f"{what}.{kind}.{unit}", value)
        return found


@dataclass(frozen=True, slots=True)
class Scaling(Arguments):
    """
    The number of instances. Percentages are 0 to 100 and above, ``*_seconds`` are seconds.

    With ``min_instances=0`` the deployment scales to zero: its status is then Idle, and the next request wakes it.
    """

    min_instances: int | str | None = None
    max_instances: int | str | None = None
    metric: str | None = None
    """CONCURRENCY, RPS, CPU or MEMORY; with vLLM also QUEUE_DEPTH, RUNNING_REQUESTS, KV_CACHE_USAGE, QUEUE_TIME,
    TIME_TO_FIRST_TOKEN or REQUEST_LATENCY."""
    target: float | str | None = None
    """The value of ``metric`` to keep per instance."""
    panic_window_percentage: float | str | None = None
    panic_threshold_percentage: float | str | None = None
    stable_window_seconds: int | str | None = None
    scale_to_zero_retention_seconds: int | str | None = None
    log_persistence: str | None = None
    """NONE or ALL_REPLICAS: whether logs are kept after their instance ends."""
    autoscaler: str | None = None
    """HPA or KEDA (5.2)."""
    scale_down_stabilization_window_seconds: int | str | None = None
    scale_up_stabilization_window_seconds: int | str | None = None
    additional_metrics: Sequence[Mapping[str, Any]] | None = None
    """Further metrics to scale by, ``{"metric": ..., "target": ...}`` each; replaced as a whole (5.2)."""
    idle_scale_to_zero: bool | str | None = None
    """Whether a deployment without Knative scales to zero (5.2); ``min_instances`` is 0 then."""
    idle_cooldown_seconds: int | str | None = None
    cold_start_timeout_seconds: int | str | None = None

    def setting_values(self, what: str = "spec.scaling") -> SettingValues:
        """
        Return the desired settings by name, without the component's prefix.

        :param what: the argument's name, for messages
        :raises InvalidInputError: a value of the wrong type
        """
        found = {f"scaling.{name}": _scaling(name, f"{what}.{name}", value) for name, value in self.given().items()}
        if found.get("scaling.idle_scale_to_zero"):
            found.setdefault("scaling.min_instances", 0)
        return found


def _scaling(name: str, what: str, value: object) -> Any:
    """Read one field of ``Scaling``."""
    words = {
        "metric": (*METRICS, *VLLM_METRICS),
        "log_persistence": ("NONE", "ALL_REPLICAS"),
        "autoscaler": ("HPA", "KEDA"),
    }
    if name in words:
        return arguments.choice(what, value, words[name])
    if name == "idle_scale_to_zero":
        return arguments.boolean(what, value)
    if name == "additional_metrics":
        return [_additional_metric(what, row) for row in arguments.sequence(what, value)]
    if name.endswith(("instances", "seconds")):
        return arguments.integer(what, value, least=0)
    return arguments.number(what, value, least=0)


def _additional_metric(what: str, row: object) -> dict[str, Any]:
    """Read one of ``Scaling.additional_metrics`` into its JSON for the server."""
    given = arguments.mapping(what, row, ("metric", "target"))
    found = {SCALING["metric"]: _scaling("metric", f"{what}.metric", given.get("metric"))}
    if given.get("target") is not None:
        found[SCALING["target"]] = _scaling("target", f"{what}.target", given["target"])
    return found


@dataclass(frozen=True, slots=True)
class TransformerSpec(Arguments):
    """The transformer: a script that processes requests before the predictor, and responses after it."""

    script_file: str | None = None
    """As ``DeploymentSpec.script_file``."""
    environment: str | None = None
    env_vars: Mapping[str, str] | None = None
    resources: Resources | Mapping[str, Any] | None = None
    scaling: Scaling | Mapping[str, Any] | None = None

    def setting_values(self) -> SettingValues:
        """
        Check the fields and return the desired settings.

        :raises InvalidInputError: a field is wrong; the message names it
        """
        found = _component(self, "spec.transformer")
        if self.script_file is not None:
            found["script_file"] = script_file_.read("spec.transformer.script_file", self.script_file)
        return {f"transformer.{name}": value for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class InferenceLogger(Arguments):
    """Which part of each inference is logged, and to which topic. ``mode="NONE"`` turns logging off."""

    mode: str | None = None
    """ALL, PREDICTIONS, MODEL_INPUTS or NONE; ALL when only a topic is set."""
    kafka_topic: str | None = None
    """A topic's name, or ``CREATE`` for a new topic, which is also the default when only a mode is set."""
    partitions: int | str | None = None
    """Number of partitions of a new topic."""
    replicas: int | str | None = None
    """Number of replicas of a new topic."""

    def setting_values(self) -> SettingValues:
        """
        Check the fields and return the desired settings.

        :raises InvalidInputError: a field is wrong; the message names it
        """
        what, found = "spec.inference_logger", SettingValues()
        if self.mode is not None:
            found["mode"] = arguments.choice(f"{what}.mode", self.mode, ("ALL", "PREDICTIONS", "MODEL_INPUTS", "NONE"))
        numbers = {
            name: arguments.integer(f"{what}.{name}", value, least=1)
            for name in ("partitions", "replicas")
            if (value := getattr(self, name)) is not None
        }
        topic = None if self.kafka_topic is None else arguments.resource_name(f"{what}.kafka_topic", self.kafka_topic)
        if numbers and topic != CREATE_TOPIC:
            arguments.refuse(f"{what}.kafka_topic", f"{CREATE_TOPIC!r}, with {' and '.join(numbers)}", topic)
        if found.get("mode") == "NONE" or topic == "NONE":
            if found.get("mode", "NONE") != "NONE" or topic not in (None, "NONE"):
                arguments.refuse(f"{what}.kafka_topic", "none with mode 'NONE', and one with any other", topic)
            found |= {"mode": "NONE", "kafka_topic": None}
        elif topic is not None:
            found["kafka_topic"] = Topic(topic, **numbers)
        return {f"inference_logger.{name}": value for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class Batcher(Arguments):
    """Whether the model server batches requests."""

    enabled: bool | str | None = None
    max_batch_size: int | str | None = None
    max_latency: int | str | None = None
    """Milliseconds."""
    timeout: int | str | None = None
    """Seconds."""

    def setting_values(self) -> SettingValues:
        """
        Check the fields and return the desired settings.

        :raises InvalidInputError: a field is wrong; the message names it
        """
        return {
            f"inference_batcher.{name}": (
                arguments.boolean(f"spec.inference_batcher.{name}", value)
                if name == "enabled"
                else arguments.integer(f"spec.inference_batcher.{name}", value, least=1)
            )
            for name, value in self.given().items()
        }


@dataclass(frozen=True, slots=True)
class DeploymentSpec(Arguments):
    """
    The configuration of a deployment. A field that is None is not requested: an update keeps the live value.

    To remove something, use ``script_file=False``, ``config_file=False``, ``transformer=False``, ``env_vars={}``,
    ``tags={}``, ``InferenceLogger(mode="NONE")`` or ``Batcher(enabled=False)``.

    A mapping with the same keys works as well. Use one where Airflow maps or templates the argument.
    """

    script_file: str | bool | None = None
    """
    The predictor: a ``.py`` file of the machine where the task runs, or one in the project
    (``/Projects/<project>/...``, also with ``hopsfs:`` or ``hdfs://`` before it). A local file is uploaded under a
    name with the hash of its content. A file in the project is compared by name alone: give new content a new name.
    """
    config_file: str | bool | None = None
    """The configuration of vLLM (YAML), or of a script; a file as above."""
    environment: str | None = None
    """Name of the Python environment that the model server runs in."""
    env_vars: Mapping[str, str] | None = None
    """Environment variables, replaced as a whole. Not for secrets: they are visible to all who can read the deployment.
    """
    resources: Resources | Mapping[str, Any] | None = None
    scaling: Scaling | Mapping[str, Any] | None = None
    transformer: TransformerSpec | Mapping[str, Any] | bool | None = None
    inference_logger: InferenceLogger | Mapping[str, Any] | None = None
    inference_batcher: Batcher | Mapping[str, Any] | None = None
    api_protocol: str | None = None
    """REST or GRPC; a GRPC deployment is not probed."""
    serving_tool: str | None = None
    """KSERVE or DEFAULT; without it, the one that the cluster has. It cannot be changed later."""
    description: str | None = None
    """Sent with other changes only: an update for a new description alone would restart the instances."""
    tags: Mapping[str, Any] | None = None
    """Values by name, replaced as a whole; their schemas must exist in Hopsworks."""
    extra: Mapping[str, Any] | None = None
    """Keys of the deployment resource that have no argument here, such as ``tracing`` or ``vllmVariant``."""

    def setting_values(self) -> SettingValues:
        """
        Check the fields and return the desired settings. A local script is read.

        :raises InvalidInputError: a field is wrong; the message names it
        """
        found = _component(self, "spec")
        for name in ("script_file", "config_file"):
            value = getattr(self, name)
            if value is not None:
                found[name] = None if _is_false(value) else script_file_.read(f"spec.{name}", value)
        if self.transformer is not None:
            away = _is_false(self.transformer)
            found |= (
                {"transformer.script_file": None}
                if away
                else TransformerSpec.read(self.transformer, "spec.transformer").setting_values()
            )
        found |= InferenceLogger.read(self.inference_logger, "spec.inference_logger").setting_values()
        found |= Batcher.read(self.inference_batcher, "spec.inference_batcher").setting_values()
        for name, words in (("api_protocol", ("REST", "GRPC")), ("serving_tool", ("KSERVE", "DEFAULT"))):
            if (value := getattr(self, name)) is not None:
                found[name] = arguments.choice(f"spec.{name}", value, words)
        if self.description is not None:
            found["description"] = arguments.text("spec.description", self.description)
        if self.tags is not None:
            found["tags"] = arguments.tags("spec.tags", self.tags)
        return found | _extra({} if self.extra is None else self.extra)


def check_literals(what: str, value: object) -> None:
    """
    Check a spec without its scripts, which are files of the machine where the task runs.

    :param what: the argument's name, for messages
    :param value: a mapping of fields
    :raises InvalidInputError: a field is wrong; the message names it
    """
    spec = replace(DeploymentSpec.read(value, what), script_file=None, config_file=None)
    if spec.transformer is not None and not _is_false(spec.transformer):
        transformer = TransformerSpec.read(spec.transformer, f"{what}.transformer")
        spec = replace(spec, transformer=replace(transformer, script_file=None))
    spec.setting_values()


def _is_false(value: object) -> bool:
    """Return whether a value is False, or its text from a template."""
    return value is False or (isinstance(value, str) and value.strip().lower() == "false")


def _component(spec: DeploymentSpec | TransformerSpec, what: str) -> SettingValues:
    """Read the fields that predictor and transformer have in common."""
    found: SettingValues = {}
    if spec.environment is not None:
        found["environment"] = arguments.resource_name(f"{what}.environment", spec.environment)
    if spec.env_vars is not None:
        found["env_vars"] = _env_vars(f"{what}.env_vars", spec.env_vars)
    resources = Resources.read(spec.resources, f"{what}.resources").setting_values(f"{what}.resources")
    scaling = Scaling.read(spec.scaling, f"{what}.scaling").setting_values(f"{what}.scaling")
    one, other = (half.get("scaling.min_instances") for half in (resources, scaling))
    if one is not None and other is not None and one != other:
        expected = f"the same as scaling.min_instances ({other}), or only one of them"
        arguments.refuse(f"{what}.resources.instances", expected, one)
    return found | resources | scaling


def _env_vars(what: str, given: object) -> dict[str, str]:
    """Read environment variables. Messages never show their values."""
    found = {}
    for name, item in arguments.mapping(what, given).items():
        value = arguments.python_value(item)
        if name in RESERVED:
            arguments.refuse(what, f"none of {', '.join(sorted(RESERVED))}: Hopsworks sets those itself", name)
        if not _ENV_VAR.fullmatch(name):
            arguments.refuse(what, "names of letters, digits and underscores, not beginning with a digit", name)
        is_long = isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER
        if isinstance(value, bool) or is_long or not isinstance(value, str | int | float):
            arguments.refuse(f"{what}.{name}", "a text or a number", type(value).__name__)
        found[name] = str(value)
    return found


def _extra(given: object) -> SettingValues:
    """Read keys of the deployment resource."""
    found = {}
    for key, value in arguments.json_mapping("spec.extra", given).items():
        if key in SET_BY_THE_SERVER:
            arguments.refuse("spec.extra", "no key that follows from something else", key)
        if (own := named(key)) is not None:
            arguments.refuse("spec.extra", f"no key that has a name of its own: use spec.{own} instead", key)
        found[f"{EXTRA}{key}"] = value
    return found
