"""
One change of a deployment, guarded by the journal and a rollback.

The states of a change, as its journal entries have them::

    PROMOTING ──live and verified──> VERIFIED
        │ └──another client's change──> SUPERSEDED      (their change is kept)
        │ └──refused, so that nothing was sent──> the entry before it is written again
        │ └──evidence, on_failure="leave"──> FAILED
        └──evidence against the new configuration──> ROLLING_BACK ──previous state is live──> ROLLED_BACK
                                                          └──rollback fails for good──> FAILED

Theory of operation:

1. A change is *prepared*, *recorded* as PROMOTING with the state before it, and *applied* (``rollout/reconcile.py``).
   Whatever ends the worker in between, journal and deployment together tell the next run what is left to do.
2. Only evidence about the new configuration rolls it back (``EVIDENCE``): its instances do not come up, its answers
   are wrong, or Hopsworks stored something else. Any other failure says nothing about it: the entry stays PROMOTING,
   which is a *pending* change, and the error says "live but unverified". A retry adopts the change, and the next
   promotion verifies it before it considers new candidates (``settle.py``). Both take the previous version's answer and
   instances from the entry.
3. A rollback restores the previous configuration and verifies it. A deployment that was stopped before is stopped
   again; one that did not exist is stopped. A change of another client is never overwritten.
4. The long waits of both may be deferred: ``resume`` continues from the trigger's event and the journal.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState
from airflow_provider_hsml.hopsworks.domain.settings import SETTINGS
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
from airflow_provider_hsml.hopsworks.rollout.inputs import ResumePoint, RolloutPolicy
from airflow_provider_hsml.hopsworks.rollout.reconcile import PreparedChange, Reconciler

from .way_back import WayBack

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.judge import Checks
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome

    from .change_record import ChangeRecord
    from .resume import Resumption

log = logging.getLogger(__name__)

EVIDENCE = (DeploymentFailedError, VerificationError, UnsupportedError)
"""The errors that say something about a version and its configuration: only these roll a change back."""


@dataclass(slots=True)
class GuardedChange:
    """A change of a deployment that is rolled back if it fails: the error then says what failed and what serves now."""

    record: ChangeRecord
    policy: RolloutPolicy = RolloutPolicy()  # noqa: RUF009 - it is frozen
    checks: Checks | None = None
    """How the change is verified; None: by what was registered with the version."""
    resume_point: ResumePoint = ResumePoint(worker_only=True)  # noqa: RUF009 - it is frozen
    """How another process resumes the change; only with the context of its task can it."""
    seen: Deployment | None = field(init=False, default=None)
    """The deployment as a failed change left it."""
    restored: Outcome | None = field(init=False, default=None)
    """The outcome of the rollback."""

    async def apply(self) -> Outcome:
        """
        Make the change.

        :raises RolledBackError: it failed, and the previous state is live again
        :raises SupersededError: another client is changing the deployment; their change is kept
        :raises HopsworksError: it failed; after a transient error the next run resumes
        """
        record, point = self.record, self.resume_point
        if record.adopts:
            point = self._resume_point()
        is_trusted = record.journal.is_kept and not (record.pending or record.is_unverified)
        policy = dataclasses.replace(self.policy, trust=is_trusted)
        reconciler = Reconciler(record.run, record.desired, policy, self.checks, point)
        # After a rollback that failed, the entry holds the rollback's inputs: its old instances are the change's own.
        if record.adopts and record.entry is not None and record.entry.state is EntryState.PROMOTING:
            reconciler.recall(record.entry.asked)
        try:
            # The journal was read after the deployment, and no change is in progress: it need not be read again yet.
            outcome = await self._reconcile(reconciler, record.decided_on if is_trusted else None)
        except HopsworksError as error:
            failure = await self._failure(error, reconciler)
            if failure is error:
                raise
            raise failure from error
        return await self._conclude(outcome)

    async def resume(self, resumption: Resumption) -> Outcome:
        """
        Continue after the long wait was deferred, as ``apply`` would have.

        :param resumption: the end of that wait
        :raises SupersededError: the journal holds another change meanwhile
        """
        record, journal_id = self.record, resumption.watch.resume.journal_id
        if journal_id is not None:
            entry, is_way_back = record.journal.newest, resumption.watch.change.is_way_back
            is_same = entry is not None and entry.id == journal_id and entry.is_pending
            # Another task may have begun to roll the same change back, or to make it again, in the same entry.
            if entry is None or not is_same or is_way_back != (entry.state is EntryState.ROLLING_BACK):
                message = f"Deployment {record.run.name!r}: the journal holds another change meanwhile, which is kept."
                raise SupersededError(message)
            record.resume(entry)
            if entry.state is EntryState.ROLLING_BACK:
                why = entry.failure()
                raise await self.roll_back(why, None, resumption) from why
            record.adopts = not resumption.has_changed
        try:
            outcome = await resumption.run()
        except HopsworksError as error:
            failure = await self._failure(error, resumption)
            if failure is error:
                raise
            raise failure from error
        return await self._conclude(outcome)

    async def roll_back(
        self, why: HopsworksError, ours: Deployment | None, resumption: Resumption | None = None
    ) -> HopsworksError:
        """
        Restore the previous state and verify it.

        :param why: the failure
        :param ours: the deployment as this change left it; None if that is not known
        :param resumption: the end of the rollback's long wait, if that was deferred
        :return: the error to raise: ``RolledBackError``; ``SupersededError`` if another client has changed the
            deployment; else one that says how the rollback failed
        """
        record = self.record
        if record.entry is None and record.pending is not None:
            record.resume(record.pending)
        if resumption is None:
            log.error("%s", why)
            if isinstance(why, DeploymentFailedError) and not self.policy.recreate and _waits_for_a_gpu(why):
                why = why.extended("The old instance may hold the GPU: rollout='recreate' stops that instance first.")
            await record.begin_rollback(why, ours)
        way_back = WayBack(record, self._resume_point(), self.policy)
        try:
            outcome = await way_back.restore(ours, resumption)
        except SupersededError as error:
            await record.write(EntryState.SUPERSEDED, str(error))
            return why.followed_by(SupersededError, f"It was not rolled back: {error}")
        except HopsworksError as error:
            log.error("The rollback: %s", error)  # noqa: TRY400 - the task fails with it
            await record.withdraw_rejection()
            what = f"The rollback failed: {error.kept_text}"
            if error.transient and not isinstance(error, DeploymentFailedError):
                # The journal says ROLLING_BACK: the next run resumes it.
                return why.followed_by(DeadlineExceededError, what)
            ended = why.followed_by(DeploymentError, what)
            await record.write(EntryState.FAILED, ended.kept_text)
            return ended
        finally:
            self.seen = way_back.seen or self.seen
        await record.write(EntryState.ROLLED_BACK, why.kept_text)
        self.restored = outcome
        return self._rolled_back(why, outcome)

    async def _reconcile(self, reconciler: Reconciler, known: Deployment | None) -> Outcome:
        async with reconciler:
            step = await reconciler.prepare(known, was=self.record.decided_on)
            while isinstance(step, PreparedChange):
                if step.needs_record:
                    await self.record.begin(step.live, reconciler.probe_inputs)
                    reconciler.progress.resume = self._resume_point()
                step = await reconciler.apply(step)
            return step

    def _resume_point(self) -> ResumePoint:
        """Return how another process resumes, as the journal has it now."""
        body = self.checks.body if self.checks else None
        return self.record.resume_point(self.resume_point, body)

    async def _conclude(self, outcome: Outcome) -> Outcome:
        """Record that the change is live and verified, and return its outcome under the name of what was asked for."""
        record = self.record
        if self.policy.wait:
            await record.verified(outcome.deployment)
        action = outcome.action
        if record.adopts and action == "unchanged":
            action = "attached"
        elif not record.adopts and record.rollback is not None and action == "updated":
            action = "rolled_back"
        what = "nothing had to be changed" if action == "unchanged" else action
        log.info("Deployment %r: %s; %s.", record.run.name, what, outcome.deployment)
        return dataclasses.replace(outcome, action=action)

    async def _failure(self, error: HopsworksError, attempt: Reconciler | Resumption) -> HopsworksError:
        """Record a failure, roll the change back if it is evidence against it, and return the error to raise."""
        record, self.seen = self.record, attempt.seen
        if isinstance(error, SupersededError):
            await record.write(EntryState.SUPERSEDED, str(error))
            return error
        if record.entry is None:
            return error
        if not (attempt.has_changed or record.adopts):
            if isinstance(attempt, Reconciler) and not attempt.progress.is_stopped:
                await record.withdraw(error.kept_text)
            return error
        if not isinstance(error, EVIDENCE):
            return self._unverified(error)
        if self.checks is not None and not self.checks.rolls_back:
            await record.write(EntryState.FAILED, error.kept_text)
            return error
        return await self.roll_back(error, attempt.seen)

    def _unverified(self, error: HopsworksError) -> HopsworksError:
        """Return the error of a change that is live and could not be verified; the journal keeps it as pending."""
        # After a timeout nothing shows that it is live.
        what = "sent" if isinstance(error, DeadlineExceededError) else "live"
        unverified = error.extended(
            f"Deployment {self.record.run.name!r}: the change is {what} but unverified, and stays pending.\n"
            "Run the task again: it verifies the change. To accept it as it is: "
            f"HsmlHook(...).accept_pending({self.record.run.name!r})."
        )
        unverified.is_unverified = unverified.transient = True
        return unverified

    def _rolled_back(self, why: HopsworksError, outcome: Outcome) -> HopsworksError:
        previous, now = self.record.previous, outcome.deployment
        if previous is not None and previous.was_up:
            what = f"It was rolled back: {now} serves again, verified by {outcome.verified_by}."
        elif previous is not None:
            what = f"It was rolled back: {now} is as it was before."
        else:
            what = f"It was stopped: {now}; nothing served before."
        error = why.followed_by(RolledBackError, what)
        error.transient = previous is None and why.transient
        error.is_out_of_capacity = why.is_out_of_capacity
        return error


def _waits_for_a_gpu(failed: DeploymentFailedError) -> bool:
    return failed.transient and bool(SETTINGS["resources.limits.gpus"].read(failed.deployment.raw))
