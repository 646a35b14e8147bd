"""
What has to be remembered of a deployment's promotions from task to task: a small journal in the project's own files.

A worker that is killed between a change and its verification leaves a version that nobody has verified; a rejected one
is the best by its metric again tomorrow; and before Hopsworks 5.2 nobody else remembers what was there before. So each
promotion notes what it is about to do, and how it ended: each time in a new file, of which the newest counts. Values of
environment variables are never written down.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import uuid
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.settings import SETTINGS
from airflow_provider_hsml.hopsworks.errors import SCOPE_MISSING, DeploymentError, HopsworksError, Refused, Superseded
from airflow_provider_hsml.hopsworks.flow import Pace, Procedure, ask, patiently
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

log = logging.getLogger(__name__)

FOLDER = "Resources/airflow-provider-hsml/journal"
KEPT = 20
"""Files of a deployment that are not deleted when a promotion ends."""
ENV_VARS = ("env_vars", "transformer.env_vars")
"""The settings whose values are never stored."""
ENV_VAR_KEYS = frozenset(path[0] for name in ENV_VARS for path in SETTINGS[name].paths)
"""The same, as they are called on the wire."""
_DELETED_AT_ONCE = 3
_READ_AT_MOST = 5
"""Files that cannot be read before the journal is taken for an empty one."""


class State(StrEnum):
    """How far a promotion has come."""

    PROMOTING = "promoting"
    ROLLING_BACK = "rolling_back"
    VERIFIED = "verified"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Served:
    """A model version; of a script alone all is None."""

    project: str | None = None
    """The project that owns the model."""
    name: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        """Name it, for messages."""
        return "a script without a model" if self.name is None else f"version {self.version} of model {self.name!r}"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A model version that was deployed and failed."""

    served: Served
    reason: str
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Before:
    """A deployment as it was before a change."""

    deployment_id: int
    version: int | None
    revision: str | None
    was_up: bool
    """Whether it served, or was on its way to."""
    served: Served
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
            served=Served(live.model_project, live.model_name, live.model_version),
            row={key: value for key, value in live.raw.items() if key not in ENV_VAR_KEYS},
        )

    def is_still(self, live: Deployment) -> bool:
        """
        Tell whether nothing was written since, as far as Hopsworks counts that.

        :param live: as it is
        """
        return (self.deployment_id, self.version, self.revision) == (live.id, *live.signature)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one file of the journal holds."""

    id: str
    """Of the promotion, the same in all its entries."""
    state: State
    run: str
    """Which task it was, and which of its rounds of tries, ``<task>@<round>``; empty outside of Airflow."""
    at: float
    """Seconds since 1970."""
    challenger: Served
    wanted: Mapping[str, Any]
    """The settings that the change sets, in plain JSON; never environment variables."""
    before: Before | None
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
    rejected: tuple[Rejected, ...] = ()
    """All that were rejected and not served well since, carried on from entry to entry."""

    @property
    def task(self) -> str:
        """Which task it was, whoever has cleared it since; empty outside of Airflow."""
        return self.run.partition("@")[0]

    @property
    def is_unfinished(self) -> bool:
        """Whether its change may be what is live, though it was never verified."""
        return self.state in (State.PROMOTING, State.ROLLING_BACK, State.FAILED)

    @property
    def left_nothing(self) -> bool:
        """Whether it was stopped, and nothing had served before: what is there has never served."""
        return self.state is State.ROLLED_BACK and (self.before is None or self.before.never_served)

    def failure(self) -> DeploymentError:
        """Give what it failed with, as far as that was noted."""
        error = DeploymentError(self.reason)
        error.transient = self.passes
        return error

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """
        Read what ``to_json`` gave; keys that a newer version of this added are ignored.

        :param data: an entry
        :raises KeyError, TypeError, ValueError: it is no entry
        """
        before = data["before"]
        rejected = [_fields(Rejected, row) | {"served": _served(row["served"])} for row in data["rejected"]]
        return cls(
            **_fields(cls, data)
            | {
                "state": State(data["state"]),
                "challenger": _served(data["challenger"]),
                "over": tuple(data["over"]) if data.get("over") else None,
                "before": before and Before(**_fields(Before, before) | {"served": _served(before["served"])}),
                "rejected": tuple(Rejected(**row) for row in rejected),
            }
        )


def _served(data: Mapping[str, Any]) -> Served:
    return Served(**_fields(Served, data))


def _fields(kind: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: data[one.name] for one in dataclasses.fields(kind) if one.name in data}


@dataclass(slots=True)
class Journal:
    """The journal of one deployment, as it was when it was opened."""

    project: Project
    deployment_name: str
    names: list[str] = field(default_factory=list)
    """Its files, newest first."""
    newest: Entry | None = None
    is_kept: bool = True
    """Whether the key may write it; without, nothing is remembered."""
    has_folder: bool = False

    def write(self, entry: Entry, pace: Pace | None = None) -> Procedure[None]:
        """
        Write a new entry. One with which a promotion ends also has old ones deleted.

        One that does not begin a change is left out when another run has written since this was opened: what that
        one has begun, and not verified, is to stay the newest.

        :param entry: the entry
        :param pace: how long to try; None: it has to be written now
        :raises HopsworksError: it cannot be written; with a pace it is only warned about
        """
        if self.is_kept:
            try:
                yield from self._write(entry)
            except HopsworksError as error:
                if isinstance(error, Refused) and error.code == SCOPE_MISSING:
                    self._give_up(error)
                elif pace is None:
                    raise
                else:
                    yield from self._try_again(entry, error, pace)
        self.newest = entry

    def _try_again(self, entry: Entry, error: HopsworksError, pace: Pace) -> Procedure[None]:
        call = api.path_exists(self.project, "Resources")
        try:
            if not error.transient:
                raise error
            yield from patiently(call, pace)
            yield from self._write(entry)
        except HopsworksError as last:
            log.warning("%s; the next run verifies deployment %r again", last, self.deployment_name)

    def _write(self, entry: Entry) -> Procedure[None]:
        folder = f"{FOLDER}/{self.deployment_name}"
        if not self.has_folder:
            for path in (FOLDER.rpartition("/")[0], FOLDER, folder):
                yield from ask(api.make_folder(self.project, path))
            self.has_folder = True
        begins = entry.state is State.PROMOTING
        there = yield from _list(self.project, folder)
        if not begins and set(there or ()) - set(self.names):
            log.warning("Deployment %r: another run has noted something meanwhile, which counts", self.deployment_name)
            return
        # Two runs at once may take the same number: then a change that begins is newer than one that ends.
        number = 1 + max((int(name[:8]) for name in (*self.names, *(there or ()))), default=0)
        name = f"{number:08d}-{'b' if begins else 'a'}{uuid.uuid4().hex[:8]}.json"
        self.names.insert(0, name)
        yield from upload_bytes(self.project, f"{folder}/{name}", json.dumps(entry.to_json()).encode())
        if entry.state not in (State.PROMOTING, State.ROLLING_BACK):
            for old in self.names[KEPT:][:_DELETED_AT_ONCE]:
                try:
                    yield from ask(api.delete_path(self.project, f"{folder}/{old}"))
                except HopsworksError as error:
                    log.info("An old file of the journal stays: %s", error)
                    return

    def _give_up(self, error: HopsworksError) -> None:
        self.is_kept = False
        log.warning(
            "%s Without it, what is verified, rejected or half done is not remembered from one run to the next: it is "
            "verified each time, and a version that failed is tried again.",
            error,
        )


def open_journal(project: Project, deployment_name: str) -> Procedure[Journal]:
    """
    Read the newest entry of a deployment's journal: two requests, unless files in it are broken.

    :param project: the deployment's project
    :param deployment_name: the deployment's name
    """
    journal = Journal(project, deployment_name)
    folder = f"{FOLDER}/{deployment_name}"
    try:
        names = yield from _list(project, folder)
        journal.has_folder = names is not None
        journal.names = names or []
        for name in journal.names[:_READ_AT_MOST]:
            content = yield from ask(api.download(project, f"{folder}/{name}"))
            journal.newest = _read(content, name)
            if journal.newest is not None:
                break
    except Refused as error:
        if error.code != SCOPE_MISSING:
            raise
        journal._give_up(error)  # noqa: SLF001 - its own module
    return journal


def read_asked(project: Project, deployment_name: str, entry_id: str) -> Procedure[Mapping[str, Any]]:
    """
    Read what verifies a change that another process has made.

    :param project: the deployment's project
    :param deployment_name: the deployment's name
    :param entry_id: the change
    :raises Superseded: another change has been noted since
    """
    journal = yield from open_journal(project, deployment_name)
    if journal.newest is None or journal.newest.id != entry_id:
        message = (
            f"Deployment {deployment_name!r}: the journal tells of another change since; what it set is left as it is."
        )
        raise Superseded(message)
    return journal.newest.asked or {}


def _list(project: Project, folder: str) -> Procedure[list[str] | None]:
    """Give the journal's files, newest first; None: there is no such folder."""
    names = yield from ask(api.list_folder(project, folder))
    return None if names is None else sorted(filter(_is_ours, names), reverse=True)


def _is_ours(name: str) -> bool:
    return name.endswith(".json") and name[:8].isdecimal() and name[8:9] == "-"


def _read(content: bytes | None, name: str) -> Entry | None:
    try:
        return Entry.from_json(json.loads(content or b""))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.warning("The journal's file %r cannot be read, and the one before it is taken: %r", name, error)
        return None
