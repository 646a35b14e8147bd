"""The journal's entries of one change: written before it is sent, and again when it ends."""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import diff, script_file
from airflow_provider_hsml.hopsworks.domain.journal_entry import (
    EntryState,
    JournalEntry,
    PreviousState,
    Rejection,
    ServedVersion,
    that_fit,
)
from airflow_provider_hsml.hopsworks.domain.settings import ENV_VAR_KEYS, ENV_VAR_SETTINGS, SETTINGS
from airflow_provider_hsml.hopsworks.errors import HopsworksError, UnreachableError
from airflow_provider_hsml.hopsworks.rollout import inputs

from . import rejections
from .journal import OutdatedDecision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Backoff
    from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, ResumePoint, Run

    from .journal import Journal

JOURNAL_SECONDS = 30.0
"""Seconds for which a write to the journal is retried after a change was sent. Then it is given up with a warning."""


@dataclass(frozen=True, slots=True)
class ManualRollback:
    """A rollback that a person asked for."""

    rejects: bool
    """Whether the model version that it replaces is recorded as rejected."""


@dataclass(slots=True)
class ChangeRecord:
    """The record of one change in the journal, and the previous state that a rollback restores."""

    run: Run
    desired: Desired
    journal: Journal
    decided_on: Deployment | None
    """The deployment that the decision was made on; None if there was none."""
    pending: JournalEntry | None = None
    """A change of ours that is live and not verified: a rollback restores the state before that one."""
    adopts: bool = False
    """Whether the pending change is the one that is desired now: it is only watched, not sent again."""
    is_unverified: bool = False
    """Whether the live deployment was not verified for another reason: the journal does not know it."""
    rollback: ManualRollback | None = None
    entry: JournalEntry | None = field(init=False, default=None)
    """The entry that was written last; None before the first."""
    previous: PreviousState | None = field(init=False, default=None)
    """The deployment before the change; None if there was none."""
    replaced: JournalEntry | None = field(init=False, default=None)
    """The newest entry before the change was recorded."""
    env_vars: dict[str, Any] | None = field(init=False, default=None)
    """Values of environment variables before the change, by their keys on the wire: they are never stored."""

    def __post_init__(self) -> None:
        """Take the previous state from the pending change, and the known routes from the journal."""
        self.run.routes.recall(self.journal.used_routes)
        if self.pending is not None:
            self.previous = self.pending.before
            self.entry = self.pending if self.adopts else None

    def resume(self, entry: JournalEntry) -> None:
        """Continue an entry that another process has written."""
        self.pending = self.entry = entry
        self.previous = entry.before
        if entry.is_rollback:
            self.rollback = ManualRollback(rejects=False)

    def resume_point(self, point: ResumePoint, body: Mapping[str, Any] | None) -> ResumePoint:
        """
        Return how another process resumes from the entry that was written last.

        :param point: what is known of it without the journal
        :param body: the request that verifies the change, if it was not registered with the model
        """
        journal_id, entry = None, self.entry
        if entry is not None and not point.worker_only and self.journal.is_kept:
            before = entry.before
            needs_env_vars = (
                entry.touches_env_vars and before is not None and before.had_env_vars and before.version is None
            )
            is_probed_alike = (entry.asked or {}).get("body") == body
            if entry.state is EntryState.ROLLING_BACK or (is_probed_alike and not needs_env_vars):
                journal_id = entry.id
        return dataclasses.replace(point, journal_id=journal_id, worker_only=journal_id is None)

    async def begin(self, live: Deployment | None, probe_inputs: Mapping[str, Any]) -> None:
        """
        Write that a change is about to be sent, and what was there before.

        :param live: the deployment that the change was prepared against
        :param probe_inputs: the inputs of its verification that another process cannot find out by itself
        :raises OutdatedDecision: the decision was made on another state
        """
        was, project = self.decided_on, self.run.project
        if (live is None) != (was is None) or (live and was and not diff.is_unchanged(project, live, was)):
            raise OutdatedDecision
        earlier = self.pending
        if earlier is None:
            self.previous = self._previous(live)
        if live is not None and not (earlier and earlier.touches_env_vars):
            self.env_vars = {key: live.raw.get(key) for key in ENV_VAR_KEYS}
        desired = script_file.absolute(project, self.desired.settings)
        differing = set(desired) if live is None else set(diff.differences(live.raw, desired))
        restored = {} if live is None else diff.differences(live.raw, self.desired.restored)
        kept = {name: value for name, value in earlier.desired.items() if name not in restored} if earlier else {}
        touches_env_vars = bool(differing & set(ENV_VAR_SETTINGS))
        if self.entry is None:
            self.replaced = self.journal.newest
        self.entry = JournalEntry(
            id=self.entry.id if self.entry else uuid.uuid4().hex,
            state=EntryState.PROMOTING,
            run=self.run.key,
            at=self.run.clock(),
            timeout=self.run.timeout,
            challenger=ServedVersion.after(live, self.desired.model),
            desired={
                **kept,
                **diff.settings_to_json({name: desired[name] for name in sorted(differing)}),
            },
            before=self.previous,
            touches_env_vars=touches_env_vars or (earlier is not None and earlier.touches_env_vars),
            is_rollback=self.rollback is not None,
            back_to=self.desired.restore,
            restored={
                **(earlier.restored if earlier else {}),
                **diff.settings_to_json({name: value for name, (_, value) in restored.items()}),
            },
            over=live.signature if live is not None and earlier is not None else None,
            asked=that_fit(probe_inputs),
            routes=tuple(sorted(self.run.routes.used | set(self.journal.used_routes))),
            audit=self.run.audit,
            rejected=self._known_rejections(live),
            earlier=None if earlier is None else dataclasses.replace(earlier, earlier=None, rejected=()),
        )
        await self.journal.write(self.entry)

    async def withdraw(self, reason: str) -> None:
        """
        Write that a recorded change was not sent: the entry before it counts again.

        :param reason: the reason for it, for people
        """
        if self.entry is None:
            return
        before = self.entry.earlier or self.replaced
        if before is None:
            await self.write(EntryState.SUPERSEDED, f"It was not sent: {reason}")
            return
        self.entry = dataclasses.replace(before, rejected=self.entry.rejected, routes=self.entry.routes)
        await self.journal.write(self.entry, self._backoff(), begins=False)

    @property
    def changed_script(self) -> str | None:
        """The change in words, if it keeps the model's version and replaces a script only; else None."""
        entry = self.entry
        if entry is None or entry.before is None or not entry.challenger.is_same(entry.before.served):
            return None
        names = [name for name in ("script_file", "transformer.script_file") if name in entry.desired]
        if not names or len(names) != len(entry.desired) or entry.touches_env_vars:
            return None
        changes = ((SETTINGS[name].read(entry.before.row), entry.desired[name]) for name in names)
        return f"script {', '.join(script_file.describe_change(old, new) for old, new in changes)}"

    async def verified(self, live: Deployment) -> None:
        """
        Write that a deployment was verified, whoever has changed it: the next run may trust it.

        :param live: the verified deployment
        """
        last = self.journal.newest
        if self.entry is None and self.is_unverified and last is not None:
            if last.is_rollback and last.state is EntryState.SUPERSEDED:
                # It stays the last entry: verified, it would be a rollback that "previous" leads back from.
                return
            desired = script_file.absolute(self.run.project, self.desired.settings)
            self.entry = dataclasses.replace(
                last,
                id=uuid.uuid4().hex,
                # A manual rollback stays that of its task, which is not to roll back from it when it is cleared.
                run=last.run if last.is_rollback else self.run.key,
                audit=last.audit if last.is_rollback else self.run.audit,
                challenger=ServedVersion.of_live(live),
                desired=diff.settings_to_json(desired),
                back_to=None,
                restored={},
            )
        if self.entry is not None:
            kept = rejections.without(self.entry, live)
            self.entry = dataclasses.replace(self.entry, rejected=kept)
        await self.write(EntryState.VERIFIED, "")

    async def write(
        self, state: EntryState, reason: str, rejection: Rejection | None = None, *, passes: bool | None = None
    ) -> None:
        """
        Write a new state of the change; nothing if none was written before.

        :param state: the state
        :param reason: the reason for it, for people
        :param rejection: a version that this state rejects
        :param passes: whether the change may succeed later; None keeps what was written
        """
        if self.entry is None:
            return
        known = self.entry.rejected
        if rejection is not None:
            known = (*(one for one in known if not one.is_same(rejection)), rejection)
        passes = self.entry.passes if passes is None else passes
        now = self.run.clock()
        self.entry = dataclasses.replace(self.entry, state=state, reason=reason, at=now, rejected=known, passes=passes)
        await self.journal.write(self.entry, self._backoff())

    async def begin_rollback(self, why: HopsworksError, ours: Deployment | None) -> None:
        """
        Write that the change is being rolled back, and whether its version is rejected.

        :param why: the failure
        :param ours: the deployment as the change left it; None if that is not known
        """
        rejection = rejections.of_failure(why, self.entry, self.previous, ours, at=self.run.clock())
        if self.entry is not None and isinstance(why, UnreachableError):
            self.entry = dataclasses.replace(self.entry, unreachable=True)
        if self.entry is not None and self.entry.state is not EntryState.ROLLING_BACK:
            # Its probe inputs are those of the change; the rollback writes its own.
            self.entry = dataclasses.replace(self.entry, asked=None, failed_probes=why.failed_probes)
        await self.write(EntryState.ROLLING_BACK, why.kept_text, rejection, passes=why.transient)

    async def withdraw_rejection(self) -> None:
        """Write that the version is not rejected, if it did not answer: perhaps no version can be reached."""
        entry = self.entry
        if entry is None or not entry.unreachable:
            return
        reason = entry.reason.partition("\n")[0]
        others = tuple(
            one for one in entry.rejected if one.reason != reason or not one.served.is_same(entry.challenger)
        )
        self.entry = dataclasses.replace(entry, rejected=others)
        await self.write(entry.state, entry.reason)

    async def write_probe_inputs(self, probe_inputs: Mapping[str, Any]) -> bool:
        """Write the inputs that verify a rollback, and return whether they had to be written."""
        asked = that_fit(probe_inputs)
        if self.entry is None or self.entry.asked == asked:
            return False
        self.entry = dataclasses.replace(self.entry, asked=asked)
        await self.write(EntryState.ROLLING_BACK, self.entry.reason)
        return True

    def _backoff(self) -> Backoff:
        """Return how long the journal is retried after a change was sent."""
        deadline = self.run.clock() + min(JOURNAL_SECONDS, self.run.timeout)
        return self.run.backoff(inputs.FIRST_DELAY_START, deadline)

    def _previous(self, live: Deployment | None) -> PreviousState | None:
        if live is None:
            return None
        previous, last = PreviousState.of(live), self.journal.newest
        left = last.before if last is not None and last.is_pending else None
        if left and left.was_up and left.matches(live):
            # It was stopped for this change, by this run or by one that was killed.
            return dataclasses.replace(previous, was_up=True)
        if last is not None and last.left_nothing:
            return dataclasses.replace(previous, never_served=not previous.was_up)
        return previous

    def _known_rejections(self, live: Deployment | None) -> tuple[Rejection, ...]:
        """Return the rejections until now, with the version that a manual rollback rejects."""
        known = self.journal.newest.rejected if self.journal.newest else ()
        if live is None or self.rollback is None or not self.rollback.rejects:
            return known
        left = ServedVersion.of_live(live)
        if left.version is None or left.is_same(ServedVersion.after(live, self.desired.model)):
            return known
        others = (one for one in known if not one.served.is_same(left))
        return (*others, Rejection(left, "it was rolled back from by hand", self.run.clock()))
