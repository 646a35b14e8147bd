"""
One change of a deployment, seen through: noted in the journal, brought about, verified, and taken back if it fails.

Whatever ends it in between, the journal and the deployment together tell the next run what is left to do.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff, script_file
from airflow_provider_hsml.hopsworks.domain.journal_entry import (
    EntryState,
    JournalEntry,
    PreviousState,
    Rejection,
    ServedVersion,
)
from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
from airflow_provider_hsml.hopsworks.domain.settings import ENV_VAR_KEYS, ENV_VAR_SETTINGS, SETTINGS
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    DeploymentError,
    DeploymentFailedError,
    HopsworksError,
    RolledBackError,
    SupersededError,
    UnsupportedError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, read_patiently
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.rollout import stop
from airflow_provider_hsml.hopsworks.rollout.reconcile import Reconciler
from airflow_provider_hsml.hopsworks.rollout.watch import FIRST_PAUSE_START

from . import way_back

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.judge import Checks
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.flow import Clock

    from .journal import Journal
    from .resume import Resumption

log = logging.getLogger(__name__)

JOURNAL = 30.0
"""Seconds for which a change waits until what became of it can be noted; production does not wait for that longer."""


class OutdatedDecision(Exception):
    """The deployment is not what the decision was made on: decide anew. Nothing was changed; not an error."""


@dataclass
class GuardedChange:
    """
    A change of a deployment, with its way back. Drive ``run()``.

    A change that fails is taken back: what served before serves again, what was down is down again, and what did not
    exist is stopped. Then the error says what failed and what serves now.
    """

    project: Project
    name: str
    desired: SettingValues
    id: str
    """Of the promotion, the same in all entries of the journal."""
    run_key: str
    """Which task does this; empty outside of Airflow."""
    journal: Journal
    decided_on: Deployment | None
    """The deployment as it was when this was decided on; None: there was none."""
    timeout: float
    """Seconds for the change, and again for its way back."""
    interval: float
    model: ModelVersion | None = None
    checks: Checks | None = None
    wait: bool = True
    recreate: bool = False
    back_to: int | None = None
    """A deployment version to roll back to."""
    rejects: bool = False
    """Whether the model version that it takes away is noted as rejected."""
    is_rollback: bool = False
    """Whether an update is to be called a rollback."""
    pending: JournalEntry | None = None
    """A change of ours that is live and that nobody has verified: the way back is to what was there before that one."""
    is_unverified: bool = False
    """Whether what is live was not verified, for another reason."""
    adopts: bool = False
    """Whether this is that change: it is not sent again, but seen through."""
    worker_only: bool = False
    """Whether another process cannot go on with it."""
    told: Mapping[str, Any] | None = None
    """What that has to know, in plain JSON."""
    clock: Clock = time.time
    before: PreviousState | None = field(init=False, default=None)
    """What was there before; None: nothing."""
    entry: JournalEntry | None = field(init=False, default=None)
    """What was noted last; None while nothing was."""
    seen: Deployment | None = field(init=False, default=None)
    """As the change left it, where it failed."""
    returned: Outcome | None = field(init=False, default=None)
    """How it was taken back."""
    _arrival: Reconciler = field(init=False)
    _values: dict[str, Any] | None = field(init=False, default=None)
    """Environment variables as they were, by their keys on the wire: they are never stored."""

    async def run(self) -> Outcome:
        """
        Bring the change about.

        :raises RolledBackError: it failed, and what was there before is there again
        :raises SupersededError: somebody else is changing it; what they set is left as it is
        :raises HopsworksError: it failed; a transient one leaves it to the next run to go on
        """
        if self.pending is not None:
            self.before = self.pending.before
        if self.adopts:
            self.entry = self.pending
        arrival = self._arrival = Reconciler(
            self.project,
            self.name,
            self.desired,
            timeout=self.timeout,
            interval=self.interval,
            model=self.model,
            wait=self.wait,
            trusted=self.journal.is_kept and not (self.pending or self.is_unverified),
            recreate=self.recreate,
            back_to=self.back_to,
            checks=self.checks,
            before_change=self._note,
            noted=self._noted() if self.adopts else None,
            worker_only=self.worker_only or (self.adopts and self._noted() is None),
            told=self.told,
            clock=self.clock,
        )
        return await self._conclude(arrival)

    async def resume(self, resumption: Resumption) -> Outcome:
        """
        Go on after what takes long was left to somebody else: as ``run``.

        :param resumption: how that ended
        :raises SupersededError: another change has been noted since
        """
        entry = self.journal.newest
        if resumption.watch.noted is not None:
            if entry is None or entry.id != resumption.watch.noted or not entry.is_pending:
                message = f"Deployment {self.name!r}: the journal tells of another change since; it is left as it is."
                raise SupersededError(message)
            self.pending = self.entry = entry
            self.before = entry.before
            self.is_rollback = entry.is_rollback
            if entry.state is EntryState.ROLLING_BACK:
                await self.roll_back(entry.failure(), None, resumption)
            self.adopts = not resumption.has_changed
        return await self._conclude(resumption)

    async def _conclude(self, arrival: Reconciler | Resumption) -> Outcome:
        """Note how it ends, and take it back where it failed."""
        try:
            arrived = await arrival.run()
        except SupersededError as error:
            self.seen = arrival.seen
            await self._write(EntryState.SUPERSEDED, str(error))
            raise
        except HopsworksError as error:
            self.seen = arrival.seen
            passes = error.transient and not isinstance(error, DeploymentFailedError)
            speaks_against_it = self.adopts and isinstance(error, DeploymentError | UnsupportedError)
            if passes or self.entry is None or not (arrival.has_changed or speaks_against_it):
                raise
            if self.checks is not None and not self.checks.rolls_back:
                await self._write(EntryState.FAILED, error.kept_text)
                raise
            await self.roll_back(error, arrival.seen)
            raise AssertionError from error  # Taking back always raises.
        if self.wait:
            if self.entry is None and self.is_unverified and self.journal.newest is not None:
                # Whoever brought it about, it was seen to serve: from now on it may be trusted.
                self.entry = dataclasses.replace(
                    self.journal.newest,
                    id=self.id,
                    run=self.run_key,
                    challenger=PreviousState.of(arrived.deployment).served,
                    desired=diff.stored(script_file.absolute(self.project, self.desired)),
                )
            await self._write(EntryState.VERIFIED, "")
        renamed = {"unchanged": "attached"} if self.adopts else {"updated": "rolled_back"} if self.is_rollback else {}
        action = renamed.get(arrived.action, arrived.action)
        what = "nothing had to be changed" if action == "unchanged" else action
        log.info("Deployment %r: %s; %s.", self.name, what, arrived.deployment)
        return dataclasses.replace(arrived, action=action)

    async def roll_back(
        self, why: HopsworksError, ours: Deployment | None, resumption: Resumption | None = None
    ) -> None:
        """
        Put back what was there before, verify it, and say so.

        :param why: what failed
        :param ours: the deployment as this change left it; None when that is not known
        :param resumption: how the arrival of what was put back has ended, where it was left to somebody else
        :raises RolledBackError: always, but for the following
        :raises SupersededError: it is not ours any more, and was left as it is
        :raises DeploymentError: it could not be put back
        """
        if self.entry is None and self.pending is not None:
            self.entry, self.before = self.pending, self.pending.before
        if resumption is None:
            log.error("%s", why)
            if isinstance(why, DeploymentFailedError) and not self.recreate and _waits_for_a_gpu(why):
                hint = "The old instance may hold the GPU that it waits for: rollout='recreate' stops that first."
                why.args, why.without_logs = (f"{why}\n{hint}",), f"{why.kept_text}\n{hint}"
            await self._write(
                EntryState.ROLLING_BACK, why.kept_text, rejected=self._rejected(why), passes=why.transient
            )
        try:
            now = await self._restore(ours, resumption)
        except SupersededError as error:
            await self._write(EntryState.SUPERSEDED, str(error))
            raise why.followed_by(SupersededError, f"It was not taken back: {error}") from why
        except HopsworksError as error:
            log.error("Taking it back: %s", error)  # noqa: TRY400 - the task fails with it
            what = f"Taking it back has not ended well: {error.kept_text}"
            if error.transient and not isinstance(error, DeploymentFailedError):
                # The journal says that it is being rolled back: the next run goes on with that.
                raise why.followed_by(DeadlineExceededError, what) from error
            ended = why.followed_by(DeploymentError, what)
            await self._write(EntryState.FAILED, ended.kept_text)
            raise ended from why
        await self._write(EntryState.ROLLED_BACK, why.kept_text)
        raise self._taken_back(why, now) from why

    # --- The way back -------------------------------------------------------------------------------------------------

    async def _restore(self, ours: Deployment | None, resumption: Resumption | None) -> Outcome:
        """Put back what was there before."""
        if resumption is not None:
            try:
                return await resumption.run()
            except DeploymentFailedError as error:
                log.warning("%s", error)
        backoff = self._backoff()
        live = await read_patiently(api.get_deployment(self.project, self.name), backoff)
        if live is None:
            message = f"Deployment {self.name!r} was deleted by somebody else."
            raise SupersededError(message)
        if ours is not None:
            _check_ours(self.project, live, ours)
        before = self.before
        if before is None or not before.was_up:
            log.warning("Stopping %s, which did not serve before", live)
            stopped = await stop.stop(self.project, self.name, backoff)
            if stopped is not None:
                _check_ours(self.project, stopped, live)
                live = stopped
        if before is None:
            return Outcome(live, "stopped")
        left = live
        former = {**before.row, **(self._values or {})}
        hides = self.entry is not None and self.entry.touches_env_vars and self._values is None
        back_to, desired = await way_back.way_back(
            self.project,
            live,
            before.version,
            former,
            self._backoff(),
            also=self.entry.desired if self.entry else (),
            hides=hides,
        )
        model = await self._former_model(before)
        log.warning("Putting back what deployment %r was before: %s", self.name, before.served)
        arrival = Reconciler(
            self.project,
            self.name,
            desired,
            timeout=self.timeout,
            interval=self.interval,
            model=model,
            serve=before.was_up,
            trusted=False,
            recreate=self.recreate and before.was_up,
            back_to=back_to,
            before_change=lambda now: self._note_restoring(now, arrival.seen or left, arrival.asked),
            noted=self._noted(),
            worker_only=self._noted() is None,
            told=self.told,
            clock=self.clock,
        )
        try:
            return await arrival.run()
        except DeploymentFailedError:
            # Only now, when it does not come up either and nothing answers: stopped and started anew.
            arrival = dataclasses.replace(arrival, before_change=None)
            return await arrival.run()
        finally:
            self.seen = arrival.seen or self.seen

    async def _note_restoring(self, now: Deployment | None, ours: Deployment, asked: Mapping[str, Any]) -> str | None:
        """See that nobody has changed it since, right before it is put back, and note what tells the two apart."""
        _check_ours(self.project, now, ours)
        if self.entry is not None and self.entry.asked != asked:
            self.entry = dataclasses.replace(self.entry, asked=asked)
            await self._write(EntryState.ROLLING_BACK, self.entry.reason)
            now = await read_patiently(api.get_deployment(self.project, self.name), self._backoff())
            _check_ours(self.project, now, ours)
        return self._noted()

    async def _former_model(self, before: PreviousState) -> ModelVersion | None:
        served = before.served
        if served.name is None or served.version is None:
            return None
        return await lookup.find_served(self.project, served.project, served.name, served.version, self._backoff())

    def _taken_back(self, why: HopsworksError, arrived: Outcome) -> HopsworksError:
        self.returned, now = arrived, arrived.deployment
        if self.before is not None and self.before.was_up:
            what = f"It was taken back: {now} serves again, verified by {arrived.verified_by}."
        elif self.before is not None:
            what = f"It was taken back: {now} is as it was before."
        else:
            what = f"It was stopped: {now}; nothing served before."
        error = why.followed_by(RolledBackError, what)
        error.transient = self.before is None and why.transient
        return error

    def _rejected(self, why: HopsworksError) -> Rejection | None:
        """Tell whether this speaks against the model version: not when there was no room, or it was served before."""
        has_room = not (isinstance(why, DeploymentFailedError) and why.transient)
        challenger = self.entry.challenger if self.entry else None
        is_new = self.before is None or not self.before.was_up or challenger != self.before.served
        if challenger is None or challenger.version is None or not is_new or not has_room:
            return None
        if not isinstance(why, DeploymentFailedError | VerificationError):
            return None
        return Rejection(challenger, why.kept_text.splitlines()[0], self.clock())

    # --- The journal --------------------------------------------------------------------------------------------------

    def _noted(self) -> str | None:
        """Give the entry with which another process can go on; None: none can."""
        entry = self.entry
        if entry is None or self.worker_only or not self.journal.is_kept:
            return None
        if entry.state is EntryState.ROLLING_BACK:
            return entry.id
        needs_env_vars = entry.touches_env_vars and entry.before is not None and entry.before.version is None
        is_asked_so = (entry.asked or {}).get("body") == (self.checks.body if self.checks else None)
        return entry.id if is_asked_so and not needs_env_vars else None

    async def _note(self, live: Deployment | None) -> str | None:
        """
        Note what is about to be changed, before it is.

        :return: the entry with which another process can go on
        :raises OutdatedDecision: it is not what was decided on
        """
        was = self.decided_on
        if (live is None) != (was is None) or (live and was and not diff.is_still(self.project, live, was)):
            raise OutdatedDecision
        earlier = self.pending
        if earlier is None:
            self.before = None if live is None else PreviousState.of(live)
            last = self.journal.newest
            left = last.before if last is not None and last.is_pending else None
            if self.before and live and left and left.was_up and left.is_still(live):
                # It was stopped for this change, by this run or by one that was killed.
                self.before = dataclasses.replace(self.before, was_up=True)
            elif self.before and last is not None and last.left_nothing:
                self.before = dataclasses.replace(self.before, never_served=not self.before.was_up)
        if live is not None and not (earlier and earlier.touches_env_vars):
            self._values = {key: live.raw.get(key) for key in ENV_VAR_KEYS}
        desired = script_file.absolute(self.project, self.desired)
        differing = set(desired) if live is None else set(diff.differences(live.raw, desired))
        touches_env_vars = bool(differing & set(ENV_VAR_SETTINGS))
        self.entry = JournalEntry(
            id=self.id,
            state=EntryState.PROMOTING,
            run=self.run_key,
            at=self.clock(),
            challenger=self._challenger(live),
            desired={
                **(earlier.desired if earlier else {}),
                **diff.stored({name: desired[name] for name in sorted(differing)}),
            },
            before=self.before,
            touches_env_vars=touches_env_vars or (earlier is not None and earlier.touches_env_vars),
            is_rollback=self.is_rollback,
            back_to=self.back_to,
            over=live.signature if live is not None and earlier is not None else None,
            asked=self._arrival.asked,
            rejected=self._known_rejected(live),
        )
        await self.journal.write(self.entry)
        return self._noted()

    def _known_rejected(self, live: Deployment | None) -> tuple[Rejection, ...]:
        """Give what was rejected until now, with what this takes away where that is asked for."""
        known = self.journal.newest.rejected if self.journal.newest else ()
        left = None if live is None or not self.rejects else PreviousState.of(live).served
        if left is None or left.version is None or left == self._challenger(live):
            return known
        others = (one for one in known if one.served != left)
        return (*others, Rejection(left, "it was rolled back from by hand", self.clock()))

    def _challenger(self, live: Deployment | None) -> ServedVersion:
        if self.model is not None:
            return ServedVersion(self.model.project, self.model.name, self.model.version)
        return ServedVersion() if live is None else PreviousState.of(live).served

    async def _write(
        self, state: EntryState, reason: str, rejected: Rejection | None = None, *, passes: bool | None = None
    ) -> None:
        if self.entry is None:
            return
        known = self.entry.rejected
        if state is EntryState.VERIFIED:
            known = tuple(one for one in known if one.served != self.entry.challenger)
        if rejected is not None:
            known = (*(one for one in known if one.served != rejected.served), rejected)
        passes = self.entry.passes if passes is None else passes
        self.entry = dataclasses.replace(
            self.entry, state=state, reason=reason, at=self.clock(), rejected=known, passes=passes
        )
        deadline = self.clock() + min(JOURNAL, self.timeout)
        backoff = Backoff(first=FIRST_PAUSE_START, most=self.interval, deadline=deadline, clock=self.clock)
        await self.journal.write(self.entry, backoff)

    def _backoff(self) -> Backoff:
        return Backoff(
            first=FIRST_PAUSE_START, most=self.interval, deadline=self.clock() + self.timeout, clock=self.clock
        )


def _check_ours(project: Project, now: Deployment | None, ours: Deployment) -> None:
    if now is None or not diff.is_still(project, now, ours):
        message = f"{now or ours} was changed by somebody else meanwhile, and is left as it is."
        raise SupersededError(message)


def _waits_for_a_gpu(failed: DeploymentFailedError) -> bool:
    return failed.transient and bool(SETTINGS["resources.limits.gpus"].read(failed.deployment.raw))
