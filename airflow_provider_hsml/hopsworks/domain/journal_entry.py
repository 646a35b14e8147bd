"""The values that a journal holds: one entry per file."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks.errors import DeploymentError

from .settings import ENV_VAR_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment


class EntryState(StrEnum):
    """How far a promotion has come."""

    PROMOTING = "promoting"
    ROLLING_BACK = "rolling_back"
    VERIFIED = "verified"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A model version; of a script alone all is None."""

    project: str | None = None
    """The project that owns the model."""
    name: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        """Name it, for messages."""
        return "a script without a model" if self.name is None else f"version {self.version} of model {self.name!r}"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A model version that was deployed and failed."""

    served: ServedVersion
    reason: str
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class PreviousState:
    """A deployment as it was before a change."""

    deployment_id: int
    version: int | None
    revision: str | None
    was_up: bool
    """Whether it served, or was on its way to."""
    served: ServedVersion
    row: Mapping[str, Any] = field(repr=False)
    """The whole deployment as the server gave it, but for its environment variables."""
    never_served: bool = False
    """Whether it was down because the first change of all had been taken back."""

    @classmethod
    def of(cls, live: Deployment) -> Self:
        """
        Take down a deployment.

        :param live: as it is
        """
        return cls(
            live.id,
            live.version,
            live.revision,
            was_up=not live.status.is_down,
            served=ServedVersion(live.model_project, live.model_name, live.model_version),
            row={key: value for key, value in live.raw.items() if key not in ENV_VAR_KEYS},
        )

    def is_still(self, live: Deployment) -> bool:
        """
        Tell whether nothing was written since, as far as Hopsworks counts that.

        :param live: as it is
        """
        return (self.deployment_id, self.version, self.revision) == (live.id, *live.signature)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What one file of the journal holds."""

    id: str
    """Of the promotion, the same in all its entries."""
    state: EntryState
    run: str
    """Which task it was, and which of its rounds of tries, ``<task>@<round>``; empty outside of Airflow."""
    at: float
    """Seconds since 1970."""
    challenger: ServedVersion
    desired: Mapping[str, Any]
    """The settings that the change sets, in plain JSON; never environment variables."""
    before: PreviousState | None
    """None: there was no deployment."""
    touches_env_vars: bool
    """Whether the change sets environment variables, so that ``before`` does not have all that it takes away."""
    reason: str = ""
    passes: bool = False
    """Whether that may succeed later, unchanged."""
    is_rollback: bool = False
    """Whether somebody asked for what was there earlier."""
    back_to: int | None = None
    """The deployment version that was to be the active one again for that."""
    over: tuple[int | None, str | None] | None = None
    """The signature of what the change was made over, where nobody had verified that, either."""
    asked: Mapping[str, Any] | None = None
    """What verifies it, for another process to go on with: ``body``, the request, where it was not registered with the
    model, and ``champion``, what the version before answered."""
    rejected: tuple[Rejection, ...] = ()
    """All that were rejected and not served well since, carried on from entry to entry."""

    @property
    def task(self) -> str:
        """Which task it was, whoever has cleared it since; empty outside of Airflow."""
        return self.run.partition("@")[0]

    @property
    def is_pending(self) -> bool:
        """Whether its change may be what is live, though it was never verified."""
        return self.state in (EntryState.PROMOTING, EntryState.ROLLING_BACK, EntryState.FAILED)

    @property
    def left_nothing(self) -> bool:
        """Whether it was stopped, and nothing had served before: what is there has never served."""
        return self.state is EntryState.ROLLED_BACK and (self.before is None or self.before.never_served)

    def failure(self) -> DeploymentError:
        """Give what it failed with, as far as that was noted."""
        error = DeploymentError(self.reason)
        error.transient = self.passes
        return error

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON values."""
        data = asdict(self)
        return data | {"wanted": data.pop("desired")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """
        Read what ``to_json`` gave; keys that a newer version of this added are ignored.

        :param data: an entry
        :raises KeyError, TypeError, ValueError: it is no entry
        """
        before = data["before"]
        rejected = [_fields(Rejection, row) | {"served": _served_version(row["served"])} for row in data["rejected"]]
        return cls(
            **_fields(cls, data)
            | {
                "desired": data["wanted"],
                "state": EntryState(data["state"]),
                "challenger": _served_version(data["challenger"]),
                "over": tuple(data["over"]) if data.get("over") else None,
                "before": before
                and PreviousState(**_fields(PreviousState, before) | {"served": _served_version(before["served"])}),
                "rejected": tuple(Rejection(**row) for row in rejected),
            }
        )


def _served_version(data: Mapping[str, Any]) -> ServedVersion:
    return ServedVersion(**_fields(ServedVersion, data))


def _fields(kind: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: data[one.name] for one in dataclasses.fields(kind) if one.name in data}
