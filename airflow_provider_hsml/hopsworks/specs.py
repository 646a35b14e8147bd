"""
How a deployment is to be configured: what users give, what is live, and how the two differ.

``DeploymentSpec`` uses the words of the SDK's ``model.deploy``. On the wire the same setting may stand in two places,
or under another key on another Hopsworks line. ``SETTINGS`` is the one table of this: reading what is live, comparing,
and writing an update all go by it, so they cannot disagree.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import reading
from .errors import InvalidInput
from .models import Framework

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .models import ModelVersion

S = TypeVar("S", bound="_Spec")

_COMPUTE: dict[str, Callable[[str, object], float]] = {
    "cores": lambda what, value: reading.number(what, value, least=0),
    "memory": lambda what, value: reading.integer(what, value, least=1),
    "gpus": lambda what, value: reading.integer(what, value, least=0),
}

DEFAULT_REQUESTS = {"cores": 0.2, "memory": 32, "gpus": 0}
DEFAULT_LIMITS = {"cores": 2, "memory": 1024, "gpus": 0}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a deployment and where it stands on the wire."""

    name: str
    """As it is called in a plan or a message: ``resources.requests.cores``."""
    paths: tuple[tuple[str, ...], ...]
    """All are written; the first that has a value is read."""
    versioned: bool = True
    """Whether a deployment version (5.2) keeps it, so that a rollback brings it back."""

    def read(self, raw: Mapping[str, Any]) -> Any:
        """
        Give the setting's value in an answer of the server; None when it is not there.

        :param raw: a deployment as the server gives it
        """
        for path in self.paths:
            value: Any = raw
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                return value
        return None

    def write(self, raw: dict[str, Any], value: object) -> None:
        """
        Put a value into a deployment that will be sent.

        :param raw: the deployment; changed in place
        :param value: the new value
        """
        for path in self.paths:
            place = raw
            for key in path[:-1]:
                if not isinstance(place.get(key), dict):
                    place[key] = {}
                place = place[key]
            place[path[-1]] = value


_SCALING = {
    "min_instances": "minInstances",
    "max_instances": "maxInstances",
    "metric": "scaleMetric",
    "target": "target",
    "panic_window_percentage": "panicWindowPercentage",
    "panic_threshold_percentage": "panicThresholdPercentage",
    "stable_window_seconds": "stableWindowSeconds",
    "scale_to_zero_retention_seconds": "scaleToZeroRetentionSeconds",
}

SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("model_name", (("modelName",),)),
        Setting("model_version", (("modelVersion",),)),
        Setting("model_path", (("modelPath",),)),
        Setting("framework", (("modelFramework",),)),
        Setting("environment", (("predictorEnvironment", "name"), ("environmentDTO", "name"))),
        Setting("description", (("description",),), versioned=False),
        *(
            Setting(f"resources.{kind}.{unit}", (("predictorResources", kind, unit),))
            for kind in ("requests", "limits")
            for unit in _COMPUTE
        ),
        # Two truths since 4.6: both are written, and the newer one is read.
        Setting("scaling.min_instances", (("predictorScalingConfig", "minInstances"), ("requestedInstances",))),
        *(
            Setting(f"scaling.{name}", (("predictorScalingConfig", key),))
            for name, key in _SCALING.items()
            if name != "min_instances"
        ),
    )
}

Wanted = dict[str, Any]
"""Settings by their name: those that were asked for, no others."""


class _Spec:
    """What the dataclasses below have in common: they read themselves strictly, and give what was given."""

    __slots__ = ()

    @classmethod
    def read(cls, value: object, what: str = "spec") -> Self:
        """
        Read a dataclass of this kind, a mapping of the same keys, or such a mapping as JSON text.

        :param value: what was given
        :param what: the argument's name, for messages
        :raises InvalidInput: an unknown key (names the nearest known one), or a value of the wrong kind
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                reading.refuse(what, f"a {cls.__name__}, a mapping, or JSON text of one", value)
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        given = {name: item for name, item in reading.mapping(what, value, names).items() if item is not None}
        return cls(**given)

    def given(self) -> dict[str, Any]:
        """Give the fields that are not None, as they are; fields inside them are not copied."""
        return {
            field.name: value.given() if isinstance(value, _Spec) else value
            for field in fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, field.name)) is not None
        }


@dataclass(frozen=True, slots=True)
class Resources(_Spec):
    """What one instance gets. ``requests`` and ``limits``: ``cores`` (float), ``memory`` (MB), ``gpus``."""

    instances: int | str | None = None
    """How many instances at the least; the same as ``Scaling.min_instances``."""
    requests: Mapping[str, float] | None = None
    limits: Mapping[str, float] | None = None

    def wanted(self) -> Wanted:
        """
        Give the settings that this asks for.

        :raises InvalidInput: a value of the wrong kind, or a limit below its request
        """
        found: Wanted = {}
        if self.instances is not None:
            found["scaling.min_instances"] = reading.integer("spec.resources.instances", self.instances, least=0)
        for kind, given in (("requests", self.requests), ("limits", self.limits)):
            for unit, value in reading.mapping(f"spec.resources.{kind}", given or {}, _COMPUTE).items():
                found[f"resources.{kind}.{unit}"] = _COMPUTE[unit](f"spec.resources.{kind}.{unit}", value)
        for unit in _COMPUTE:
            request, limit = (found.get(f"resources.{kind}.{unit}") for kind in ("requests", "limits"))
            if request is not None and limit is not None and limit < request:
                reading.refuse(f"spec.resources.limits.{unit}", f"at least what is requested ({request:g})", limit)
        return found


@dataclass(frozen=True, slots=True)
class Scaling(_Spec):
    """
    How many instances run. Percentages are 0 to 100 and above, ``*_seconds`` are seconds.

    ``min_instances=0`` lets the deployment scale to zero: it is Idle then, and the next request wakes it.
    """

    min_instances: int | str | None = None
    max_instances: int | str | None = None
    metric: str | None = None
    """CONCURRENCY, RPS, CPU or MEMORY."""
    target: float | str | None = None
    """The value of ``metric`` an instance should have."""
    panic_window_percentage: float | str | None = None
    panic_threshold_percentage: float | str | None = None
    stable_window_seconds: int | str | None = None
    scale_to_zero_retention_seconds: int | str | None = None

    def wanted(self) -> Wanted:
        """
        Give the settings that this asks for.

        :raises InvalidInput: a value of the wrong kind, or a maximum below the minimum
        """
        found: Wanted = {}
        for name, value in self.given().items():
            what = f"spec.scaling.{name}"
            if name == "metric":
                found[f"scaling.{name}"] = reading.choice(what, value, ("CONCURRENCY", "RPS", "CPU", "MEMORY"))
            elif name.endswith(("instances", "seconds")):
                found[f"scaling.{name}"] = reading.integer(what, value, least=0)
            else:
                found[f"scaling.{name}"] = reading.number(what, value, least=0)
        least, most = found.get("scaling.min_instances"), found.get("scaling.max_instances")
        if least is not None and most is not None and most < least:
            reading.refuse("spec.scaling.max_instances", f"at least min_instances ({least})", most)
        return found


@dataclass(frozen=True, slots=True)
class DeploymentSpec(_Spec):
    """
    How a deployment is to be configured. A field that is None is not asked for: an update keeps what is live.

    A mapping with the same keys does as well, and is what to use where Airflow maps or templates the argument.
    """

    environment: str | None = None
    """Name of the Python environment that the model server runs in."""
    resources: Resources | Mapping[str, Any] | None = None
    scaling: Scaling | Mapping[str, Any] | None = None
    description: str | None = None
    """Sent along with a change; a new description alone changes nothing, since it would restart the instances."""

    def wanted(self) -> Wanted:
        """
        Give the settings that this asks for, checked.

        :raises InvalidInput: what is wrong, by the name of the field
        """
        found: Wanted = {}
        for name in ("environment", "description"):
            if (value := getattr(self, name)) is not None:
                found[name] = reading.text(f"spec.{name}", value)
        resources = Resources.read(self.resources or {}, "spec.resources").wanted()
        scaling = Scaling.read(self.scaling or {}, "spec.scaling").wanted()
        one, other = (half.get("scaling.min_instances") for half in (resources, scaling))
        if one is not None and other is not None and one != other:
            reading.refuse(
                "spec.resources.instances", f"the same as scaling.min_instances ({other}), or only one of them", one
            )
        return found | resources | scaling


def model_wanted(model: ModelVersion) -> Wanted:
    """
    Give the settings with which a deployment serves a model version.

    :param model: the version to serve
    """
    return {
        "model_name": model.name,
        "model_version": model.version,
        "model_path": model.path,
        "framework": (model.framework or Framework.PYTHON).value,
    }


def differences(raw: Mapping[str, Any], wanted: Wanted) -> dict[str, tuple[Any, Any]]:
    """
    Tell what would have to change: setting -> (live, wanted). Empty when nothing has to.

    The description is left out: it is no reason to touch what runs.

    :param raw: the deployment as the server gives it
    :param wanted: what was asked for
    """
    return {
        name: (live, value)
        for name, value in wanted.items()
        if name != "description" and (live := SETTINGS[name].read(raw)) != value
    }


def changed(raw: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """
    Give the deployment to send: the live one, all it holds kept, with the wanted settings in it.

    :param raw: the deployment as the server gives it; not changed
    :param wanted: what was asked for
    """
    body = copy.deepcopy(dict(raw))
    for name, value in wanted.items():
        SETTINGS[name].write(body, value)
    return body


def needs_script(model: ModelVersion) -> str:
    """
    Say why a model cannot be deployed without a predictor script.

    :param model: the version
    """
    return (
        f"Version {model.version} of model {model.name!r} is of framework "
        f"{(model.framework or Framework.PYTHON).value}, which Hopsworks "
        "serves by a predictor script, and there is none. If scikit-learn can load the model, register it as SKLEARN."
    )


def created(name: str, model: ModelVersion, wanted: Wanted, *, serving_tool: str, minimum: int) -> dict[str, Any]:
    """
    Give the body that creates a deployment, with the SDK's defaults where nothing was asked for.

    :param name: the deployment's name
    :param model: the version to serve
    :param wanted: what was asked for
    :param serving_tool: KSERVE or DEFAULT
    :param minimum: instances where none were asked for
    :raises InvalidInput: a model of this framework cannot be deployed without a script
    """
    framework = model.framework or Framework.PYTHON
    if framework.needs_script:
        raise InvalidInput(needs_script(model))
    limits = {
        f"resources.limits.{unit}": max(least, wanted.get(f"resources.requests.{unit}", 0))
        for unit, least in DEFAULT_LIMITS.items()
    }
    defaults = {f"resources.requests.{unit}": value for unit, value in DEFAULT_REQUESTS.items()} | limits
    body: dict[str, Any] = {
        "name": name,
        "modelServer": framework.model_server,
        "servingTool": serving_tool,
        "apiProtocol": "REST",
        "batchingConfiguration": {"batchingEnabled": False},
    }
    return changed(body, defaults | {"scaling.min_instances": minimum} | model_wanted(model) | wanted)
