"""The entries of a promotion journal, which has one file per entry."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks.errors import DeploymentError

from . import wire
from .deployment import Deployment
from .settings import ENV_VAR_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .deployment import DeploymentVersion
    from .model_version import ModelVersion


class EntryState(StrEnum):
    """The progress of a promotion."""

    PROMOTING = "promoting"
    ROLLING_BACK = "rolling_back"
    VERIFIED = "verified"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A model version that is served; for a script without a model, all fields are None."""

    project: str | None = None
    """The project that owns the model; None if that is not known."""
    name: str | None = None
    version: int | None = None

    @classmethod
    def of_model(cls, model: ModelVersion) -> Self:
        """
        Build it from a version in the registry.

        :param model: the version that is served, or is to be
        """
        return cls(model.project, model.name, model.version)

    @classmethod
    def of_live(cls, resource: Deployment | DeploymentVersion) -> Self:
        """
        Build it from the version that a deployment, or one of its deployment versions, is set to.

        :param resource: as Hopsworks gives it
        """
        return cls(resource.model_project, resource.model_name, resource.model_version)

    @classmethod
    def after(cls, live: Deployment | None, model: ModelVersion | None) -> Self:
        """
        Build it for a deployment after a change.

        :param live: the deployment before; None if there was none
        :param model: the version to serve; None keeps the one that is served
        """
        if model is not None:
            return cls.of_model(model)
        return cls() if live is None else cls.of_live(live)

    def is_same(self, other: ServedVersion | None) -> bool:
        """
        Return whether this is the same version as another, as far as both are known.

        Two known projects are compared in any case: a path may have the name in another one.
        """
        if other is None or (self.name, self.version) != (other.name, other.version):
            return False
        return self.project is None or other.project is None or self.project.lower() == other.project.lower()

    @property
    def key(self) -> tuple[str | None, str | None, int | None]:
        """The key that versions of known projects have in common if and only if they are the same."""
        return None if self.project is None else self.project.lower(), self.name, self.version

    def __str__(self) -> str:
        """Return the version, for messages."""
        return "a script without a model" if self.name is None else f"version {self.version} of model {self.name!r}"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A model version that was deployed and failed."""

    served: ServedVersion
    reason: str
    at: float
    """Seconds since 1970."""
    key: str | None = None
    """The configuration that it failed with (``rejection_key``); None: the version is rejected with every one."""

    def is_same(self, other: Rejection) -> bool:
        """Return whether another rejection is of the same version with the same configuration."""
        return self.key == other.key and self.served.is_same(other.served)


@dataclass(frozen=True, slots=True)
class PreviousState:
    """A deployment as it was before a change."""

    deployment_id: int
    version: int | None
    revision: str | None
    was_up: bool
    """Whether it was serving or starting."""
    served: ServedVersion
    row: Mapping[str, Any] = field(repr=False)
    """The deployment resource, without environment variables."""
    never_served: bool = False
    """Whether it was down because its very first change had been rolled back."""
    had_env_vars: bool = True
    """Whether it had environment variables, whose values are not stored here."""

    @property
    def env_vars(self) -> dict[str, None] | None:
        """The environment variables by their keys on the wire, if it had none; None if their values are unknown."""
        return None if self.had_env_vars else dict.fromkeys(ENV_VAR_KEYS)

    @classmethod
    def of(cls, live: Deployment) -> Self:
        """Build the state from the live deployment."""
        return cls(
            live.id,
            live.version,
            live.revision,
            was_up=not live.status.is_down,
            served=ServedVersion.of_live(live),
            row={key: value for key, value in live.raw.items() if key not in ENV_VAR_KEYS},
            had_env_vars=any(live.raw.get(key) for key in ENV_VAR_KEYS),
        )

    def matches(self, live: Deployment) -> bool:
        """Return whether id, version and revision of the deployment are unchanged."""
        return (self.deployment_id, self.version, self.revision) == (live.id, *live.signature)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry of the journal, written as one file."""

    id: str
    """The promotion's id, the same in all its entries."""
    state: EntryState
    run: str
    """The task and its round of tries, ``<task>@<round>``; empty outside of Airflow."""
    at: float
    """Seconds since 1970."""
    challenger: ServedVersion
    desired: Mapping[str, Any]
    """The settings that the change sets, in plain JSON; never environment variables."""
    before: PreviousState | None
    """None if there was no deployment."""
    touches_env_vars: bool
    """Whether the change sets environment variables, so that ``before`` does not hold every value it replaces."""
    timeout: float = 0.0
    """Seconds that the change may take; 0 in an entry of an older version of this package."""
    reason: str = ""
    passes: bool = False
    """Whether the failure was transient, so that the same promotion may succeed later."""
    unreachable: bool = False
    """Whether the failure was a deployment that did not answer."""
    failed_probes: int = 0
    """Probes that failed, if the change is or was rolled back."""
    is_rollback: bool = False
    """Whether this is a requested rollback."""
    back_to: int | None = None
    """The deployment version that the requested rollback activates again."""
    restored: Mapping[str, Any] = field(default_factory=dict)
    """
    The other settings that activating a deployment version changes, in plain JSON; never environment variables.

    Empty in an entry of an older version of this package.
    """
    over: tuple[int | None, str | None] | None = None
    """The signature of the live deployment before this change, if an unverified change of ours was live; else None."""
    asked: Mapping[str, Any] | None = None
    """
    The inputs of the probe, for the process that resumes the change.

    ``body`` is the request; None if it was registered with the model. ``checks`` are the other checks that were asked
    for. ``champion`` is the previous version's answer, ``champion_version`` its number, and ``old_names`` are its
    instances. ``body`` and ``champion`` are missing if they are too large for the journal.
    """
    rejected: tuple[Rejection, ...] = ()
    """All versions that were rejected and not verified since, copied from entry to entry."""
    routes: tuple[str, ...] = ()
    """Optional routes of Hopsworks that were used for this deployment: they cannot vanish."""
    audit: Mapping[str, Any] = field(default_factory=dict)
    """The task's try that made the change, and who approved its plan; empty outside of Airflow."""
    earlier: JournalEntry | None = None
    """The unverified change of ours that was live before this one; until this one is sent, it is still live."""

    @property
    def task(self) -> str:
        """The task, without the round of tries that a clear begins; empty outside of Airflow."""
        return self.run.partition("@")[0]

    @property
    def is_pending(self) -> bool:
        """Whether its change may be live, though it was never verified."""
        return self.state in (EntryState.PROMOTING, EntryState.ROLLING_BACK, EntryState.FAILED)

    def is_in_progress(self, now: float) -> bool:
        """
        Return whether the change may be under way: neither ended, nor older than its timeout.

        :param now: seconds since 1970
        """
        return self.state in (EntryState.PROMOTING, EntryState.ROLLING_BACK) and now - self.at < self.timeout

    @property
    def changes(self) -> Mapping[str, Any]:
        """All settings that the change sets, also those of a deployment version that it activates, in plain JSON."""
        return {**self.restored, **self.desired}

    @property
    def left_nothing(self) -> bool:
        """Whether the deployment was stopped by a rollback and had never served before."""
        return self.state is EntryState.ROLLED_BACK and (self.before is None or self.before.never_served)

    def failure(self) -> DeploymentError:
        """Return the error that it failed with, as far as the journal recorded it."""
        error = DeploymentError(self.reason)
        # Missing room is the only transient failure for which a change is rolled back.
        error.transient = error.is_out_of_capacity = self.passes
        error.failed_probes = self.failed_probes
        return error

    def to_json(self) -> dict[str, Any]:
        """Return the entry as plain JSON values."""
        data = asdict(self)
        earlier = None if self.earlier is None else self.earlier.to_json()
        return data | {"wanted": data.pop("desired"), "earlier": earlier}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """
        Read an entry that ``to_json`` wrote; keys that a newer version added are ignored.

        :raises KeyError, TypeError, ValueError: ``data`` is not an entry
        """
        wire.resource(data, {"id": str, "state": str, "challenger": dict, "wanted": dict, "rejected": list}, _ENTRY)
        before = data["before"]
        rejected = [_fields(Rejection, row) | {"served": _served_version(row["served"])} for row in data["rejected"]]
        return cls(
            **_fields(cls, data)
            | {
                "desired": data["wanted"],
                "state": EntryState(data["state"]),
                "at": float(data["at"]),
                "timeout": float(data.get("timeout") or 0.0),
                "challenger": _served_version(data["challenger"]),
                "routes": tuple(data.get("routes") or ()),
                "over": _signature(data.get("over")),
                "before": None if before is None else _previous_state(before),
                "rejected": tuple(Rejection(**row) for row in rejected),
                "earlier": cls.from_json(data["earlier"]) if data.get("earlier") else None,
            }
        )


MOST_BYTES = 1024 * 1024
"""The size of a probe input that an entry still holds: larger ones would make the journal unreadable."""


def that_fit(probe_inputs: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the probe inputs without those that are too large for an entry.

    :param probe_inputs: the inputs, as plain JSON
    """
    return {name: value for name, value in probe_inputs.items() if len(json.dumps(value)) <= MOST_BYTES}


_SERVED: dict[str, wire.Shape] = {"project": str, "name": str, "version": int}
_ENTRY: dict[str, wire.Shape] = {
    **dict.fromkeys(("run", "reason"), str),
    **dict.fromkeys(("touches_env_vars", "passes", "is_rollback"), bool),
    "at": float,
    "challenger": _SERVED,
    "before": {
        **dict.fromkeys(("was_up", "never_served", "had_env_vars"), bool),
        "deployment_id": int,
        "version": int,
        "revision": str,
        "served": _SERVED,
        "row": dict,
    },
    **dict.fromkeys(("back_to", "failed_probes"), int),
    **dict.fromkeys(("asked", "audit", "restored"), dict),
    "rejected": [{"served": _SERVED, "reason": str, "at": float, "key": str}],
    "routes": [str],
}
"""Types of the keys of an entry, beside those that identify it."""


def _previous_state(data: Mapping[str, Any]) -> PreviousState:
    Deployment.from_json(data["row"])  # Other code relies on the types of its keys.
    unknown = {"version": None, "revision": None}
    return PreviousState(**unknown | _fields(PreviousState, data) | {"served": _served_version(data["served"])})


def _served_version(data: Any) -> ServedVersion:
    return ServedVersion(**_fields(ServedVersion, wire.resource(data, {}, _SERVED)))


def _signature(data: Any) -> tuple[int | None, str | None] | None:
    if data is None:
        return None
    version, revision = data
    wire.check({"version": version, "revision": revision}, {"version": int, "revision": str}, "over")
    return version, revision


def _fields(kind: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that are fields of a class. One that is null counts as missing."""
    return {one.name: data[one.name] for one in dataclasses.fields(kind) if data.get(one.name) is not None}
