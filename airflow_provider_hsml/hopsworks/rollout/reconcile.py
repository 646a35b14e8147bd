"""
Has the change arrived? Bring a deployment to a wanted configuration, and know that it really serves.

What a GET says of version, revision and model is the row that our own PUT wrote; the cluster follows later, and a first
'Running' may still be the old instances. So an arrival is only believed when the state has been stable for a while, the
instances are new where their names are known, and the answers are right where answers were recorded.

``RolloutTracker`` judges one poll after another and says what to do next; ``Reconciler`` is the whole flow around it.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff, script_file
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus as Status
from airflow_provider_hsml.hopsworks.domain.judge import Attribution, Checks
from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import START_GRACE, RolloutCause, RolloutTracker
from airflow_provider_hsml.hopsworks.errors import (
    BUSY_CODES,
    DeadlineExceededError,
    DeploymentError,
    DeploymentFailedError,
    HopsworksError,
    RequestRefusedError,
    SupersededError,
    UnsupportedError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Flow, Sleep, read_patiently

from . import stop
from .probe import Prober
from .status import with_log_tail
from .update import Replan, Update
from .watch import FIRST_PAUSE_START, FIRST_PAUSE_UPDATE, RolloutWatch, read_instance_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.flow import Clock

log = logging.getLogger(__name__)

STRANGERS = 2
"""How often somebody else may change it before a change of ours is given up."""


@dataclass
class Reconciler:
    """
    Brings one deployment to a wanted configuration: creates, updates, starts, attaches, or does nothing.

    Drive ``run()``. It reads first, and sends a change only against the state that it read.
    """

    project: Project
    name: str
    desired: SettingValues
    """Settings asked for; none given: only that it serves."""
    timeout: float
    """Seconds for one change: sent, arrived, first prediction answered."""
    interval: float
    """Seconds between looks, once it takes longer."""
    model: ModelVersion | None = None
    """The version to serve; needed to create, and to find what to ask it."""
    wait: bool = True
    """Whether to wait for the last change to arrive."""
    serve: bool = True
    """Whether it is to serve afterwards; if not, what is down stays down."""
    trusted: bool = True
    """Whether what is as wanted already may be taken for one that has arrived; if not, it is followed and verified."""
    recreate: bool = False
    """Whether to stop it before a change and start it afterwards, where there is no room for old and new at once."""
    back_to: int | None = None
    """A deployment version to make the active one again first, where Hopsworks keeps them."""
    checks: Checks | None = None
    """What to ask of it; None: what was registered with the version."""
    before_change: Callable[[Deployment | None], Flow[str | None]] | None = None
    """What to do right before the first request that changes something, given what is there. It gives the journal's
    entry with which another process can go on; None: none can."""
    noted: str | None = None
    """That entry, where it was written before."""
    worker_only: bool = False
    """Whether no other process can go on."""
    told: Mapping[str, Any] | None = None
    """What that has to know, in plain JSON."""
    clock: Clock = time.time
    has_changed: bool = field(init=False, default=False)
    """Whether it has sent a change that was carried out, for all that is known."""
    seen: Deployment | None = field(init=False, default=None)
    """As it was seen last."""
    _change: Update = field(init=False)
    _verifier: Prober = field(init=False)
    _old_names: frozenset[str] = frozenset()
    _is_announced: bool = False
    _is_taken_down: bool = False
    """Whether it was stopped for the change, and not started since."""
    _down_since: float | None = None
    _action: str = ""
    _deadline: float = 0.0

    @property
    def asked(self) -> dict[str, Any]:
        """What verifies it, and another process cannot find out by itself."""
        return {"body": self._verifier.checks.body, "champion": self._verifier.judge.champion}

    async def run(self) -> Outcome:
        """
        Bring it about.

        :raises DeploymentFailedError: its instances do not come up; with the end of the log
        :raises VerificationError: it serves, but answers otherwise than recorded
        :raises SupersededError: somebody else is changing it
        :raises DeadlineExceededError: the timeout passed; asking again attaches to what is under way
        """
        self._deadline = self.clock() + self.timeout
        self._verifier = Prober(self.project, self.name, self.clock, self.checks or Checks())
        desired = script_file.absolute(self.project, self.desired)
        self._change = Update(self.project, self.name, desired, self.model, self.interval, self._deadline, self.clock)
        try:
            return await with_log_tail(self.project, self._converge())
        except Exception as error:
            if self._is_taken_down and not self.has_changed:
                await self._bring_up(error)
            raise

    async def _bring_up(self, why: Exception) -> None:
        """
        Start what was stopped for a change that does not come.

        :raises DeploymentError: it is left stopped, and there is no other error to say so
        """
        log.warning("Starting what was stopped for a change that does not come: %s", str(why) or type(why).__name__)
        self._deadline = self.clock() + self.timeout
        self._change = dataclasses.replace(self._change, deadline=self._deadline)
        try:
            live = await self._change.look()
            if live is not None and live.status is Status.STOPPING:
                live = await self._change.stable(live)
            while live is not None and live.status.is_down:
                if self.clock() >= self._deadline:
                    message = f"{live} could not be started within {self.timeout:g} s."
                    raise DeadlineExceededError(message)
                await self._send_start(live)
                live = await self._may_be_starting(live)
        except Replan:
            log.warning("Deployment %r was deleted meanwhile", self.name)
        except HopsworksError as error:
            what = f"Deployment {self.name!r} is left stopped: {error} Start it with StartDeploymentOperator."
            if not isinstance(why, HopsworksError):
                raise DeploymentError(what) from error
            why.args, why.without_logs = (f"{why}\n{what}",), f"{why.kept_text}\n{what}"

    async def _converge(self) -> Outcome:
        backoff = self._backoff(FIRST_PAUSE_UPDATE)
        disturbed = 0
        while disturbed < STRANGERS:
            live = await self._change.look()
            if self.checks is not None:
                self.model = await self._verifier.check(
                    live, self.desired, self.model, self._backoff(FIRST_PAUSE_START)
                )
            try:
                return await self._from(live if live is not None else await self._create())
            except Replan as again:
                disturbed += not again.is_busy
                self._is_announced = False
                pause = backoff.next_delay()
                if pause is None:
                    message = f"{live} was busy with something else until the timeout of {self.timeout:g} s."
                    raise DeadlineExceededError(message) from again
                await Sleep(pause)
        message = (
            f"Deployment {self.name!r} was changed by somebody else each time before a change of ours could be sent. "
            "Run the task again when they are done; a pool with one slot keeps tasks of one Airflow apart."
        )
        raise SupersededError(message)

    async def _from(self, live: Deployment) -> Outcome:
        """Go on from what is there."""
        if live.status in (Status.CREATING, Status.STOPPING):
            live = await self._change.stable(live)
        if self.back_to not in (None, live.version):
            return await self._go_back(live)
        if self._change.differs(live):
            return await self._update(live)
        if await self._change.bring_tags(live):
            self._action = self._action or "updated"
        if live.status.is_down and self.serve and not (self.trusted or self.has_changed):
            live = await self._may_be_starting(live)
        if live.status.is_down:
            return await self._start(live) if self.serve else Outcome(live, self._action or "unchanged")
        if live.status is Status.FAILED:
            return await self._revive(live)
        is_up = live.status in (Status.RUNNING, Status.IDLE)
        if self.trusted and is_up:
            return await self._unchanged(live)
        log.info("%s: %s", live, "seeing whether it has arrived" if is_up else "a rollout is under way; waiting for it")
        return await self._arrive(live, RolloutCause.CHANGE, "unchanged" if is_up else "attached")

    async def _announce(self, live: Deployment | None) -> None:
        """Say that a change comes, once; what it is now may be the first step of that change."""
        if self.has_changed and live and self.seen and live.signature == self.seen.signature:
            return
        if self.before_change is not None and not self._is_announced:
            self._is_announced = True
            self.noted = await self.before_change(live)
            self.worker_only = self.noted is None

    async def _may_be_starting(self, live: Deployment) -> Deployment:
        """Give a START of somebody who was killed right after it the time to be seen."""
        until = self.clock() + START_GRACE
        while live.status.is_down and self.clock() < until:
            await Sleep(FIRST_PAUSE_UPDATE)
            live = await self._change.look() or live
        return live

    # --- Steps, each a change or none ---------------------------------------------------------------------------------

    async def _create(self) -> Deployment:
        try:
            live, is_ours = await self._change.create(lambda: self._announce(None))
        except UnsupportedError:
            self.has_changed = True
            raise
        self.has_changed = True
        self._action = "created" if is_ours else ""
        return live

    async def _unchanged(self, live: Deployment) -> Outcome:
        action = self._action or "unchanged"
        if live.status is Status.IDLE or not self.wait:
            return Outcome(live, action, "status" if self.wait else None)
        await self._read_probe(live)
        verdict = await self._verifier.ask_served(live)
        now = await self._change.look()
        if now is None or now.signature != live.signature:
            # Changed while it was asked: who answered is not known.
            raise Replan
        live = now
        if verdict.wrong or verdict.likeness is Attribution.CHAMPION:
            wrong = verdict.wrong or "answers as the version before"
            log.warning("%s %s; a rollout may be under way", live, wrong)
            self._action = "attached"
            return await self._arrive(live, RolloutCause.CHANGE, self._action)
        return Outcome(live, action, "fingerprint" if verdict.likeness is Attribution.CHALLENGER else "status")

    async def _update(self, live: Deployment) -> Outcome:
        """Change what is there, against the state that was read."""
        await self._change.prepare_update(live)
        # What is wrong with them is found before anything else is changed.
        await self._change.bring_tags(live)
        await self._read_probe(live)
        settled = await self._change.stable(live)
        if settled.signature != live.signature:
            raise Replan
        live = settled
        newest = await read_patiently(api.get_newest_version(self.project, live), self._backoff(FIRST_PAUSE_UPDATE))
        await self._remember(live)
        await self._announce(live)
        if self.recreate and not live.status.is_down:
            live = await self._take_down(live)
        try:
            row = await self._change.update(live, newest_version=newest)
        except HopsworksError as error:
            self.has_changed = self.has_changed or isinstance(error, UnsupportedError)
            raise
        self.seen, self.has_changed = row, True
        return await self._follow(row)

    async def _follow(self, row: Deployment) -> Outcome:
        """Go on from a row that a change of ours has left."""
        if not row.status.is_down:
            return await self._arrive(row, RolloutCause.CHANGE, "updated")
        if not self.serve:
            return Outcome(row, "updated")
        return await self._start(row, "updated")

    async def _go_back(self, live: Deployment) -> Outcome:
        """Have Hopsworks make an earlier version the active one again; also while a rollout is under way."""
        await self._read_probe(live)
        if live.status is Status.STARTING:
            live = await self._change.stable(live)
        await self._remember(live)
        await self._announce(live)
        if self.recreate and not live.status.is_down:
            live = await self._take_down(live)
        row = await self._send_rollback(live)
        self.seen, self.has_changed = row, True
        if self._change.differs(row):
            # What versions do not hold is put back by an update, as soon as one is taken.
            return await self._update(row)
        return await self._follow(row)

    async def _send_rollback(self, live: Deployment) -> Deployment:
        if self.back_to is None:  # Nobody calls it then.
            raise AssertionError
        backoff = self._backoff(FIRST_PAUSE_UPDATE)
        while True:
            log.info("Rolling %s back to deployment version %s", live, self.back_to)
            try:
                await api.rollback_deployment(self.project, live, self.back_to)
            except HopsworksError as error:
                if not (error.in_doubt or error.transient):
                    raise
                log.warning("%s; looking what became of it", error)
            row = await self._change.look()
            if row is None:
                message = f"{live} was deleted by somebody else while it was rolled back."
                raise SupersededError(message)
            if row.version == self.back_to:
                return row
            if row.signature != live.signature:
                message = (
                    f"{row} was changed by somebody else while it was rolled back; what they set is left as it is."
                )
                raise SupersededError(message)
            pause = backoff.next_delay(at_least=1.0)
            if pause is None:
                target = f"deployment version {self.back_to}"
                message = f"{live} could not be rolled back to {target} within {self.timeout:g} s."
                raise DeadlineExceededError(message)
            await Sleep(pause)

    async def _take_down(self, live: Deployment) -> Deployment:
        """Stop it, to make room for what is to come."""
        log.info("Stopping %s to make room: it does not answer until the change has arrived", live)
        self._is_taken_down = True
        self._down_since = self.clock()
        stopped = await stop.stop(self.project, live.name, self._backoff(FIRST_PAUSE_START))
        if stopped is None or not diff.is_still(self.project, stopped, live):
            raise Replan
        return stopped

    async def _start(self, live: Deployment, action: str = "started") -> Outcome:
        """Start what is down."""
        self._action = self._action or action
        await self._read_probe(live)
        await self._announce(live)
        self.has_changed = True
        await self._send_start(live)
        return await self._arrive(live, RolloutCause.START, self._action)

    async def _send_start(self, live: Deployment) -> None:
        log.info("Starting %s", live)
        self._is_taken_down = False
        backoff = self._backoff(FIRST_PAUSE_START)
        while True:
            try:
                await api.start_deployment(self.project, live)
            except HopsworksError as error:
                if not (error.in_doubt or error.transient):
                    raise
                if not (isinstance(error, RequestRefusedError) and error.code in BUSY_CODES):
                    # Whether it was carried out is seen in the looks that follow; they ask again if it was not.
                    log.warning("%s; looking at what became of it", error)
                    return
                log.warning("%s; sending it again", error)
                pause = backoff.next_delay(at_least=1.0)
                if pause is None:
                    message = f"{live} could not be started within {self.timeout:g} s: {error}"
                    raise DeadlineExceededError(message) from error
                await Sleep(pause)
            else:
                return

    async def _revive(self, live: Deployment) -> Outcome:
        """Bring a Failed deployment back without taking down what may still answer; here, whoever drives."""
        self.worker_only = True
        await self._read_probe(live)
        action = self._action
        try:
            return await self._arrive(live, RolloutCause.CHANGE, "attached")
        except DeploymentFailedError as failed:
            self._action = action
            if await self._verifier.answers():
                message = (
                    f"{failed.deployment}: the last change does not come up ({failed.deployment.reason}), but the "
                    "revision before it still serves. Nothing was changed, since a restart would take that one down "
                    "too. Deploy another version."
                )
                raise VerificationError(message) from failed
        log.info("%s: nothing answers; stopping it to start it anew", live)
        await self._announce(live)
        return await self._start(await self._take_down(live))

    # --- Arriving -----------------------------------------------------------------------------------------------------

    async def _arrive(self, live: Deployment, moved: RolloutCause, action: str) -> Outcome:
        """Follow the rollout until the wanted configuration is what answers."""
        self._action = self._action or action
        if not self.wait:
            return Outcome(live, self._action)
        await self._read_probe(live)
        watch = RolloutWatch(
            self.project,
            live.id,
            RolloutTracker(
                moved,
                since=self.clock(),
                signature=None if moved is RolloutCause.START else live.signature,
                old_names=self._old_names,
                can_wake=self._verifier.can_ask,
            ),
            self._verifier,
            timeout=self.timeout,
            deadline=self._deadline,
            interval=self.interval,
            action=self._action,
            has_changed=self.has_changed,
            start=self._send_start,
            down_since=self._down_since,
            noted=self.noted,
            worker_only=self.worker_only,
            told=self.told,
            seen=self.seen,
        )
        try:
            seen = await watch
        finally:
            self.seen = watch.seen
        return Outcome(seen.deployment, self._action, seen.verified_by, seen.downtime)

    # --- Looks --------------------------------------------------------------------------------------------------------

    def _backoff(self, first: float) -> Backoff:
        return Backoff(first=first, most=self.interval, deadline=self._deadline, clock=self.clock)

    async def _remember(self, live: Deployment) -> None:
        """Note who serves before a change, and what they answer, where they may go on answering after it."""
        if self.recreate or live.status is not Status.RUNNING:
            return
        self._old_names = await read_instance_names(self.project, live)
        await self._verifier.remember_champion(live)

    async def _read_probe(self, live: Deployment) -> None:
        """Find out what to ask of the version to come, once."""
        if self.wait:
            self.model = await self._verifier.prepare(live, self.desired, self.model, self._backoff(FIRST_PAUSE_START))
