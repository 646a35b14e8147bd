"""Deployments: the deployment resource of Hopsworks, its status and its versions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_hsml.hopsworks.errors import UnexpectedResponseError
from airflow_provider_hsml.hopsworks.untrusted_text import clean

from . import arguments, wire
from .model_version import model_of_path
from .plain import from_text

if TYPE_CHECKING:
    from collections.abc import Mapping


Signature: TypeAlias = "tuple[int | None, str | None]"
"""Version and revision of a deployment. None stands for one that is not known."""


class DeploymentStatus(StrEnum):
    """
    The status of a deployment, which Hopsworks computes at each read.

    ``UNKNOWN`` stands for any status that a newer server may add.
    """

    CREATING = "Creating"
    CREATED = "Created"
    STARTING = "Starting"
    FAILED = "Failed"
    RUNNING = "Running"
    IDLE = "Idle"
    UPDATING = "Updating"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    UNKNOWN = "Unknown"

    @classmethod
    def read(cls, text: object) -> DeploymentStatus:
        """
        Read a status as a server writes it; case does not matter.

        :param text: the value of ``status`` in an answer
        """
        try:
            return cls(str(text).capitalize())
        except ValueError:
            return cls.UNKNOWN

    @property
    def is_down(self) -> bool:
        """Whether no instance runs or is starting: only a START changes that."""
        return self in (DeploymentStatus.CREATED, DeploymentStatus.STOPPED)

    @property
    def is_stable(self) -> bool:
        """Whether the server accepts changes in this state."""
        return self.is_down or self in (DeploymentStatus.RUNNING, DeploymentStatus.IDLE, DeploymentStatus.FAILED)


def read_statuses(what: str, value: object) -> list[DeploymentStatus]:
    """
    Read one status or several, also as JSON text of a list.

    :param what: the argument's name, for messages
    :raises InvalidInputError: there is none, or a word is no status
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = from_text(what, value, '["Running", "Stopped"]')
    given = [value] if isinstance(value, str) else arguments.sequence(what, value)
    known = [status.value for status in DeploymentStatus if status is not DeploymentStatus.UNKNOWN]
    if not given:
        arguments.refuse(what, "at least one status", value)
    return [DeploymentStatus(arguments.choice(what, status, known)) for status in given]


@dataclass(frozen=True, slots=True)
class Condition:
    """The reason for a deployment's status. ``status``: True is done, False is failed, None is in progress."""

    type: str
    status: bool | None = None
    reason: str = ""

    @property
    def is_unschedulable(self) -> bool:
        """Whether the cluster has no room. Such a failure often passes when a node is added."""
        return self.type == "SCHEDULED" and self.status is False

    @property
    def component(self) -> str:
        """The component whose log is worth reading after a failure: ``predictor`` or ``transformer``."""
        return "transformer" if "transformer" in self.reason.lower() else "predictor"


_COMPONENTS = ("predictor", "transformer")
_AMOUNTS: dict[str, wire.Shape] = {"cores": float, "memory": float, "gpus": float}
_CONFIGURATION: dict[str, wire.Shape] = {
    **dict.fromkeys(("modelName", "modelPath", "modelFramework", "modelServer", "description", "apiProtocol"), str),
    **dict.fromkeys(("servingTool", "predictor", "transformer", "configFile", "inferenceLogging"), str),
    **dict.fromkeys(("modelVersion", "requestedInstances", "requestedTransformerInstances", "artifactVersion"), int),
    **{f"{component}EnvVars": [str] for component in _COMPONENTS},
    **{f"{component}Resources": {"requests": _AMOUNTS, "limits": _AMOUNTS} for component in _COMPONENTS},
    **{f"{component}ScalingConfig": {"minInstances": int, "maxInstances": int} for component in _COMPONENTS},
    **{f"{component}Environment": {"name": str} for component in _COMPONENTS},
    "environmentDTO": {"name": str},
    "kafkaTopicDTO": {"name": str},
    "batchingConfiguration": {"batchingEnabled": bool},
}
"""Types of the keys that our code reads in a deployment and in its versions."""
_STATE: dict[str, wire.Shape] = {
    "status": str,
    "version": int,
    "revision": str,
    "condition": {"type": str, "status": bool, "reason": str},
    "availableInstances": int,
    "projectNamespace": str,
}


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment as Hopsworks describes it at one read."""

    id: int
    name: str
    status: DeploymentStatus
    model_name: str | None = None
    """The model's name; None for a deployment of a script without a model."""
    model_version: int | None = None
    version: int | None = None
    """Number of the active deployment version; None on servers without versions (before 4.6)."""
    revision: str | None = None
    """Id of the last rollout; None before the first start. Ids are not ordered."""
    condition: Condition | None = None
    available_instances: int = 0
    serving_tool: str = "KSERVE"
    model_server: str = "PYTHON"
    api_protocol: str = "REST"
    model_project: str | None = None
    """The project that owns the model being served; None if the response does not tell."""
    minimum_instances: int = 0
    """The minimum number of instances; 0 means that the deployment may scale to zero (Idle)."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """
    The whole response: an update sends back the keys that this class does not know. It holds the values of environment
    variables, so it stays inside this package: see ``public``.
    """

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Deployment:
        """
        Build a deployment from a response of the serving endpoints.

        :param data: a ServingView
        :raises ValueError: ``data`` is not a deployment, or a key that our code reads has a wrong type
        """
        wire.resource(data, {"id": int, "name": str}, {**_CONFIGURATION, **_STATE})
        wire.sendable(data)
        condition = data.get("condition") or {}
        return cls(
            id=data["id"],
            name=data["name"],
            status=DeploymentStatus.read(data.get("status")),
            model_name=data.get("modelName"),
            model_version=data.get("modelVersion"),
            version=data.get("version"),
            revision=data.get("revision"),
            condition=Condition(condition["type"], condition.get("status"), clean(condition.get("reason") or "", 2048))
            if condition.get("type")
            else None,
            available_instances=data.get("availableInstances") or 0,
            serving_tool=data.get("servingTool") or "KSERVE",
            model_server=data.get("modelServer") or "PYTHON",
            api_protocol=data.get("apiProtocol") or "REST",
            model_project=_owner(data.get("modelPath")),
            minimum_instances=_minimum_instances(data),
            raw=data,
        )

    @property
    def public(self) -> Deployment:
        """The deployment without ``raw``, for users: Airflow stores everything that a ``@task`` returns."""
        return replace(self, raw={})

    @property
    def signature(self) -> Signature:
        """Version and revision: one of them changes with every change of the deployment, by any client."""
        return (self.version, self.revision)

    def continues(self, signature: Signature | None) -> bool:
        """
        Return whether version and revision are those of an earlier read; one that was not known then does not count.

        :param signature: of that read; None if neither was known
        """
        pairs = zip(signature or (None, None), self.signature, strict=True)
        return all(known in (None, now) for known, now in pairs)

    @property
    def reason(self) -> str:
        """The server's own explanation of the status, or an empty string."""
        return self.condition.reason if self.condition else ""

    @property
    def failed_component(self) -> str:
        """The component whose log explains a failure: ``predictor`` or ``transformer``."""
        return self.condition.component if self.condition else "predictor"

    @property
    def is_unschedulable(self) -> bool:
        """Whether the cluster has no room for its instances."""
        return self.condition is not None and self.condition.is_unschedulable

    def __str__(self) -> str:
        """Return name, status and model version, for messages."""
        version = "" if self.model_version is None else f", version {self.model_version} of model {self.model_name!r}"
        return f"deployment {self.name!r} ({self.status.value}{version})"


@dataclass(frozen=True, slots=True)
class DeploymentVersion:
    """A configuration that a deployment has, or had and can roll back to (Hopsworks 5.2)."""

    version: int
    is_active: bool
    model_name: str | None = None
    model_version: int | None = None
    model_project: str | None = None
    """The project that owns the model; None if the response does not tell."""
    created: str | int | None = None
    """As the server writes it."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DeploymentVersion:
        """
        Build a version from a response of ``/versions``.

        :param data: one item of the list
        :raises ValueError: ``data`` is not a version, or a key that our code reads has a wrong type
        """
        wire.resource(data, {"version": int}, {**_CONFIGURATION, "active": bool})
        return cls(
            version=data["version"],
            is_active=bool(data.get("active")),
            model_name=data.get("modelName"),
            model_version=data.get("modelVersion"),
            model_project=_owner(data.get("modelPath")),
            created=data.get("created"),
            raw=data,
        )

    @property
    def public(self) -> DeploymentVersion:
        """The version without ``raw``, for users."""
        return replace(self, raw={})


def _minimum_instances(data: Mapping[str, Any]) -> int:
    minimum = (data.get("predictorScalingConfig") or {}).get("minInstances")
    return int(data.get("requestedInstances") or 0) if minimum is None else int(minimum)


def _owner(model_path: object) -> str | None:
    """Return the project that owns the model of a path; None if the path does not tell."""
    found = model_of_path(model_path)
    return None if found is None else found[0]


def check_kept(deployment_id: int, known: Signature, found: Deployment | None) -> None:
    """
    Raise an error for a read that lacks the version or the revision of an earlier read: neither becomes null again.

    :param deployment_id: the id of the deployment that was read before; one that was created anew has another
    :param known: its signature then
    :param found: the deployment as it was just read; None if it does not exist
    :raises UnexpectedResponseError: it lacks one of them; transient
    """
    if found is None or found.id != deployment_id:
        return
    pairs = zip(("version", "revision"), known, found.signature, strict=True)
    lost = [key for key, was, now in pairs if was is not None and now is None]
    if lost:
        message = f"get {found}: the answer has no {' and no '.join(lost)}, which earlier ones had.\nRead it again."
        raise UnexpectedResponseError(message, status=200)


def is_model_clear(row: Deployment | DeploymentVersion) -> bool:
    """
    Return whether a row names the model version that it uses, or shows that it serves a script alone.

    One read without a model's name or version shows neither: the model's path is missing as well for a script alone.
    """
    if row.model_name is None and row.model_version is None:
        return row.raw.get("modelPath") is None
    return None not in (row.model_name, row.model_version)


def check_model(found: Deployment | None) -> None:
    """
    Raise an error for a deployment that does not say clearly which model version it serves, if it serves one.

    :param found: the deployment as it was just read; None if it does not exist
    :raises UnexpectedResponseError: it does not say so; transient
    """
    if found is None or is_model_clear(found):
        return
    message = (
        f"get {found}: the model version that it serves is unclear: modelName is {found.model_name!r}, modelVersion is "
        f"{found.model_version!r}, modelPath is {clean(str(found.raw.get('modelPath')))!r}.\nRead it again."
    )
    raise UnexpectedResponseError(message, status=200)


def check_deployment_name(name: object) -> str:
    """
    Return the name of a deployment if it is valid in Hopsworks.

    :raises InvalidInputError: the name is invalid
    """
    return arguments.deployment_name("Deployment name", name)


def default_deployment_names(model_name: str) -> list[str]:
    """
    Return the names to try for a model's deployment when none was set; the last one is the name for a new deployment.

    The first is the name that Hopsworks' own SDK derives (the case kept). The second is the same in lower case, which
    all versions of Hopsworks accept.
    """
    derived = re.sub(r"[^a-zA-Z0-9]", "", model_name)
    return list(dict.fromkeys([check_deployment_name(derived), derived.lower()]))
