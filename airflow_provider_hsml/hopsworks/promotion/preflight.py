"""
Preflight: try the configuration that a promotion would send in a temporary deployment, before production is touched.

A version that fails there on evidence is rejected in the journal, like one that was rolled back. Any other failure says
nothing about it: the task may be retried, and nothing is rejected.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments, diff, script_file
from airflow_provider_hsml.hopsworks.domain.journal_entry import (
    EntryState,
    JournalEntry,
    PreviousState,
    ServedVersion,
)
from airflow_provider_hsml.hopsworks.domain.judge import Checks
from airflow_provider_hsml.hopsworks.domain.settings import ENV_VAR_SETTINGS
from airflow_provider_hsml.hopsworks.errors import (
    AmbiguousVerificationError,
    DeadlineExceededError,
    DeploymentError,
    DeploymentFailedError,
    HopsworksError,
    InvalidInputError,
    SupersededError,
    UnreachableError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.rollout import inputs
from airflow_provider_hsml.hopsworks.rollout.probe import Prober
from airflow_provider_hsml.hopsworks.rollout.reads import read_again, unchanged

from . import rejections
from .change_record import JOURNAL_SECONDS
from .journal import OutdatedDecision, open_journal
from .leases import remove_expired
from .side_deployment import SideDeployment, is_without_scopes, without_scopes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from airflow_provider_hsml.hopsworks.domain.journal_entry import Rejection
    from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, Run

    from .situation import Situation

log = logging.getLogger(__name__)

PURPOSE = "preflight"
PASSED, FAILED, UNFINISHED = "passed", "failed", "not finished"
"""The ends of a preflight in a promotion's record; one that was left out has the reason instead."""
_EVIDENCE = (DeploymentFailedError, VerificationError)
_WRITES = 3
"""How often the rejection is written, if other runs write to the journal at the same time."""


class PreflightMode(StrEnum):
    """Whether a promotion tries its version first."""

    OFF = "off"
    REQUIRED = "required"
    IF_POSSIBLE = "if_possible"
    """Go on without where the cluster has no room for the temporary deployment, or the API key no right to a lease."""

    @classmethod
    def read(cls, what: str, value: object) -> PreflightMode:
        """
        Read the argument of an operator or the hook: true, false or "if_possible".

        :param what: the argument's name, for messages
        :raises InvalidInputError: it is anything else
        """
        given = arguments.preflight(what, value)
        return cls.IF_POSSIBLE if given == "if_possible" else cls.REQUIRED if given else cls.OFF


@dataclass(frozen=True, slots=True)
class Preflight:
    """The preflight of one promotion."""

    run: Run
    """The run on the live deployment."""
    mode: PreflightMode
    checks: Checks | None
    """How the version is verified; None: by what was registered with it."""
    unschedulable_grace: float | None = None

    async def try_out(
        self, situation: Situation, desired: Desired, differing: Mapping[str, tuple[Any, Any]]
    ) -> tuple[Situation, str]:
        """
        Try a version in a temporary deployment, which is deleted afterwards.

        :param situation: the situation that the decision was made on
        :param desired: what the live deployment would be sent
        :param differing: the settings that would change
        :return: the situation with the live deployment as it is now, and ``passed`` or why it was not tried
        :raises VerificationError: the version failed; production is untouched, and the version is rejected
        :raises OutdatedDecision: the live deployment was changed meanwhile
        :raises HopsworksError: it could not be tried; nothing was changed
        """
        side = SideDeployment(self.run, PURPOSE)
        log.info("Deployment %r: trying the change in the temporary deployment %r first", self.run.name, side.name)
        try:
            if not situation.journal.is_kept:
                raise without_scopes(side.name)
            await self._serve(side, situation, desired)
        except HopsworksError as error:
            left_out = self._left_out(error)
            if left_out is None:
                raise await self._failure(error, side, situation, desired, differing) from error
            log.warning("Deployment %r: %s: %s", self.run.name, left_out, error)
            return situation, left_out
        log.info("Deployment %r: the preflight has passed", self.run.name)
        return await self._unchanged(situation), PASSED

    async def _serve(self, side: SideDeployment, situation: Situation, desired: Desired) -> None:
        """Bring up the temporary deployment, and delete it however that ends; a failure of its own comes first."""
        try:
            await side.serve(desired, situation.live, self.checks, unschedulable_grace=self.unschedulable_grace)
        except HopsworksError:
            try:
                await side.remove()
            except HopsworksError as left:
                log.warning("%s; temporary deployment %r is deleted once its lease has expired", left, side.name)
            raise
        await side.remove()

    def _left_out(self, error: HopsworksError) -> str | None:
        """Return why the promotion goes on without; None if it does not."""
        if self.mode is not PreflightMode.IF_POSSIBLE:
            return None
        if error.is_out_of_capacity:
            return "left out, since there is no room for a temporary deployment"
        if is_without_scopes(error):
            return "left out, since the API key may not keep a lease in the project's files"
        return None

    async def _unchanged(self, situation: Situation) -> Situation:
        """
        Return the situation with the live deployment as it is now.

        :raises OutdatedDecision: it was changed since the decision
        """
        was, run = situation.live, self.run
        backoff = run.backoff(inputs.FIRST_DELAY_START, run.clock() + JOURNAL_SECONDS)
        read = functools.partial(read_again, api.get_deployment(run.project, run.name), backoff, was)
        now = await read()
        if was is None:
            is_outdated = now is not None
        else:
            now = await unchanged(run.project, now, was, read)
            is_outdated = now is None
        if is_outdated:
            raise OutdatedDecision
        return dataclasses.replace(situation, live=now)

    async def _failure(
        self,
        error: HopsworksError,
        side: SideDeployment,
        situation: Situation,
        desired: Desired,
        differing: Mapping[str, tuple[Any, Any]],
    ) -> HopsworksError:
        """Return the error of a failed preflight; reject the version if it is evidence against it."""
        untouched = f"This was the preflight of deployment {self.run.name!r}, which was not changed."
        if error.is_out_of_capacity:
            return error.extended(
                f"{untouched}\nA preflight needs room for one more deployment with one instance for a while: free "
                'some, raise the quota, or set preflight="if_possible".'
            )
        if isinstance(error, SupersededError | AmbiguousVerificationError):
            # Of the temporary deployment: nothing was done to the live one, and nothing is known of the version.
            retryable = error.followed_by(DeploymentError, untouched)
            retryable.transient = True
            return retryable
        if not isinstance(error, _EVIDENCE):
            return error if isinstance(error, InvalidInputError) else error.extended(untouched)
        if isinstance(error, UnreachableError) and not await self._answers(situation):
            return error.followed_by(
                DeadlineExceededError,
                f"{untouched} It does not answer either, so this says nothing about the version: check the route to "
                "the models.",
            )
        log.error("%s", error)
        rejection = await self._reject(error, side, situation, desired, differing)
        kept = " The version is rejected: the gate leaves it out with this configuration." if rejection else ""
        return error.followed_by(VerificationError, f"{untouched}{kept}")

    async def _answers(self, situation: Situation) -> bool:
        """Return whether the live deployment answers. If it cannot be asked, perhaps no version could be reached."""
        live, run = situation.live, self.run
        if live is None or live.status.is_down:
            return False
        prober = Prober(run.project, run.name, run.clock, self.checks or Checks(), run.files, run.routes)
        await prober.prepare(live, {}, None, run.backoff(inputs.FIRST_DELAY_START), is_optional=True)
        return prober.can_probe and await prober.is_reachable()

    async def _reject(
        self,
        error: HopsworksError,
        side: SideDeployment,
        situation: Situation,
        desired: Desired,
        differing: Mapping[str, tuple[Any, Any]],
    ) -> Rejection | None:
        """Write to the journal that the version is rejected, and return the rejection; None if it is none."""
        run, live = self.run, situation.live
        settings = script_file.absolute(run.project, desired.settings)
        now = run.clock()
        entry = JournalEntry(
            id=uuid.uuid4().hex,
            state=EntryState.SUPERSEDED,
            run=run.key,
            at=now,
            challenger=ServedVersion.after(live, desired.model),
            desired=diff.settings_to_json({name: settings[name] for name in sorted(differing)}),
            before=None if live is None else PreviousState.of(live),
            touches_env_vars=bool(differing.keys() & set(ENV_VAR_SETTINGS)),
            timeout=run.timeout,
            reason=f"It was not sent: {error.kept_text}",
            audit=run.audit,
        )
        ours = side.seen
        if ours is not None and live is not None:
            # The gate compares with the configuration that the live deployment would get.
            ours = dataclasses.replace(ours, raw=diff.update_body(live.raw, settings))
        rejection = rejections.of_failure(error, entry, entry.before, ours, at=now)
        if rejection is None:
            return None
        for _ in range(_WRITES):
            journal = await open_journal(run.project, run.name)
            newest = journal.newest or entry
            if newest.is_pending and newest != situation.journal.newest:
                # A copy of this entry would hide the end that the other run writes to it.
                log.warning(
                    "Deployment %r: the rejection was not recorded: another run is changing the deployment", run.name
                )
                return None
            others = tuple(one for one in newest.rejected if not one.is_same(rejection))
            rejected = dataclasses.replace(newest, rejected=(*others, rejection))
            backoff = run.backoff(inputs.FIRST_DELAY_START, run.clock() + JOURNAL_SECONDS)
            if await journal.write(rejected, backoff, begins=False):
                return rejection
        log.warning("Deployment %r: the rejection was not recorded: other runs write to its journal", run.name)
        return None


async def tidy(run: Run, situation: Situation) -> None:
    """
    Delete what killed tasks have left beside a deployment, once their leases have expired. A failure is only logged.

    :param run: the run on the deployment
    :param situation: the situation, whose journal was listed
    """
    if not situation.journal.has_leases:
        return
    try:
        for name in await remove_expired(run.project, situation.name, run.clock):
            log.warning("Temporary deployment %r of a task that was killed is deleted", name)
    except HopsworksError as error:
        log.warning("%s; a temporary deployment beside %r is left", error, situation.name)
