"""
Bring a deployment to a desired state, and prove that the new configuration really serves.

The states in which the live deployment can be found, and the change that each one leads to::

    not there ──CREATE──> stopped
    another configuration ──UPDATE──> rollout        (RESTORE first, if an earlier version is to be activated)
    stopped ──START──> rollout
    failed, and stays failed, and nothing answers ──REPLACE (stop, start)──> rollout
    rollout in progress ──> watch it                 (nothing is sent)
    as desired ──> one probe                         (nothing is sent)
    rollout ──RolloutWatch──> live and verified

Theory of operation:

1. *Prepare* reads the deployment and does all checks, until one change can be sent or nothing has to be. Tags and
   scripts are brought to Hopsworks here: they change nothing that runs.
2. The caller *records* the change in the journal, if there is one. A change of two steps is recorded once:
   ``PreparedChange.needs_record`` is False for its second step.
3. *Apply* sends that one change against the state that was read, and watches the rollout. The result is the outcome,
   or the next prepared change.
4. A deployment that is not what was read raises ``Replan`` inside, and the change is prepared anew. A busy deployment
   is waited for; after two concurrent changes of other clients, ours is given up.
5. The response to our own PUT proves nothing: version, revision and model version in a GET are what that PUT stored,
   and the cluster follows later. ``RolloutTracker`` says when a rollout is through, ``rollout_probes`` whether the
   answers are right. The resource that is read back after the change is the first poll of the rollout.
6. A deployment that was stopped to make room for a change is started again if the change fails before its own START
   (``Reconciler.__aexit__``).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus as Status
from airflow_provider_hsml.hopsworks.domain.judge import Attribution, Checks
from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import RolloutCause
from airflow_provider_hsml.hopsworks.errors import DeploymentFailedError, SupersededError

from . import inputs
from .inputs import Desired, ResumePoint, RolloutPolicy, Run
from .probe import probe_serving
from .reads import confirm_model, confirmed
from .start import wait_for_start
from .status import with_log_tail
from .steps import Progress, Steps
from .update import Replan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Backoff

    from .schema_carry import CarriedSchema

log = logging.getLogger(__name__)

CONCURRENT_CHANGES = 2
"""How often another client may change the deployment before a change of ours is given up."""


class Kind(Enum):
    """The kinds of change."""

    CREATE = auto()
    RESTORE = auto()
    """Activate an earlier deployment version."""
    UPDATE = auto()
    START = auto()
    REPLACE = auto()
    """Stop a failed deployment of which nothing answers, and start it."""


@dataclass(frozen=True, slots=True)
class PreparedChange:
    """The next change of a deployment: checked against the live deployment, and not sent yet."""

    kind: Kind
    live: Deployment | None
    """The deployment that it was checked against; None if it is to be created."""
    needs_record: bool
    """Whether the journal has to hold it before it is sent."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """The body that creates the deployment."""
    newest_version: int | None = None
    """Number of the newest deployment version, for an update; None where Hopsworks keeps none."""
    schema: CarriedSchema | None = None
    """The schema of its requests after an update; None for other changes."""


class Reconciler:
    """
    Creates, updates or starts one deployment, adopts a rollout in progress, or finds that nothing has to be done.

    Use it as an async context: ``prepare`` it, and ``apply`` each ``PreparedChange`` until an ``Outcome`` comes back.
    ``reconcile`` does that where no journal is kept.

    :param run: the run
    :param desired: the state that the deployment is brought to
    :param policy: how the change is rolled out
    :param checks: how the deployment is verified; None: by what was registered with the version
    :param resume: how another process resumes the change
    """

    def __init__(
        self,
        run: Run,
        desired: Desired,
        policy: RolloutPolicy = RolloutPolicy(),  # noqa: B008 - it is frozen
        checks: Checks | None = None,
        resume: ResumePoint = ResumePoint(),  # noqa: B008 - it is frozen
    ) -> None:
        self.progress = Progress(resume=resume)
        self._run = run
        self._policy = policy
        self._recalled: Mapping[str, Any] = {}
        self._steps = Steps(run, desired, policy, checks, self.progress)
        self._update = self._steps.update
        self._replan_backoff: Backoff = self._steps.backoff(inputs.FIRST_DELAY_UPDATE)

    @property
    def probe_inputs(self) -> dict[str, Any]:
        """The inputs of the verification that another process cannot find out by itself."""
        return self._steps.probe_inputs()

    def recall(self, probe_inputs: Mapping[str, Any] | None) -> None:
        """
        Take over what the process that sent this change knew of the previous version.

        :param probe_inputs: its ``probe_inputs``; None if they are unknown
        """
        self._recalled = probe_inputs or {}
        self._steps.recall(self._recalled)

    @property
    def seen(self) -> Deployment | None:
        """The deployment as it was read last."""
        return self.progress.seen

    @property
    def has_changed(self) -> bool:
        """Whether a change of ours was carried out, as far as is known."""
        return self.progress.has_changed

    async def __aenter__(self) -> Self:
        """Return this reconciler."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Start the deployment again if it was stopped for a change that fails."""
        if isinstance(error, Exception) and self.progress.is_stopped:
            await self._steps.undo_stop(error)

    async def prepare(
        self, known: Deployment | None = None, *, was: Deployment | None = None
    ) -> PreparedChange | Outcome:
        """
        Read the deployment and check the next change, until it can be sent or nothing has to be.

        :param known: the deployment if it was read just before, and no change of it is known to be in progress
        :param was: the deployment as it was read before, if it was: a read that lacks its revision is read again
        :raises InvalidInputError: the change is impossible; nothing was changed
        :raises SupersededError: another client keeps changing the deployment
        :raises DeadlineExceededError: the deployment was busy until the timeout
        """
        is_up = known is not None and known.status is Status.RUNNING
        # Before an update it is read once more, and after a probe; before a stop and a restored version it is not.
        may_use = is_up and not self._policy.recreate and self._steps.desired.restore is None
        self.progress.was = was or known
        return await with_log_tail(self._run.project, self._prepare(known if may_use else None))

    async def apply(self, change: PreparedChange) -> PreparedChange | Outcome:
        """
        Send a prepared change, and watch the rollout.

        :param change: the change, which is recorded if it has to be
        :return: the next change, or the outcome
        :raises DeploymentFailedError: its instances do not come up; with the end of the log
        :raises VerificationError: it serves, but does not answer as it should
        :raises SupersededError: another client changed, stopped or deleted it
        :raises DeadlineExceededError: the timeout passed; a retry adopts the rollout
        """
        self.progress.is_recorded = True
        return await with_log_tail(self._run.project, self._apply_or_replan(change))

    # --- Prepare ------------------------------------------------------------------------------------------------------

    async def _prepare(
        self, known: Deployment | None = None, *, before: Deployment | None = None
    ) -> PreparedChange | Outcome:
        """
        Read the deployment, and prepare the change that it needs next.

        :param known: the deployment if it was read just before
        :param before: the deployment as a change was prepared for it that was not sent; None if there was none
        """
        while True:
            live, known = known or await self._update.read(self.progress.was), None
            self.progress.was = live or self.progress.was
            if live is not None and before is not None and live.continues(before.signature):
                # No change followed: the answer and the instances recorded before that change may be the live ones.
                self._steps.recall(self._recalled)
            if not self._policy.sends:
                live = await _check_stored(self._steps, live)
            await self._steps.check_verification(live)
            try:
                if live is not None:
                    return await self._next(live)
                body = await self._update.prepare_create()
            except Replan as replan:
                await self._replan(replan, live)
                before = live
            else:
                return self._change(Kind.CREATE, None, body=body)

    async def _replan(self, replan: Replan, live: Deployment | None) -> None:
        """Wait before the change is prepared anew."""
        progress, run = self.progress, self._run
        progress.concurrent_changes += not replan.is_busy
        progress.is_recorded = False
        too_late = f"{live} was busy with something else until the timeout of {run.timeout:g} s."
        await self._replan_backoff.wait(too_late, about=live)
        if progress.concurrent_changes >= CONCURRENT_CHANGES:
            message = (
                f"Deployment {run.name!r} was changed by another client each time before our change could be sent.\n"
                "Run the task again when they are done; a pool with one slot keeps tasks of one Airflow apart."
            )
            raise SupersededError(message)

    def _change(self, kind: Kind, live: Deployment | None, **more: Any) -> PreparedChange:
        seen = self.progress.seen
        # If the live deployment is as our own first step left it, this is the second step of the recorded change.
        is_ours = bool(self.progress.has_changed and live and seen and live.signature == seen.signature)
        return PreparedChange(kind, live, needs_record=not (is_ours or self.progress.is_recorded), **more)

    async def _next(self, live: Deployment) -> PreparedChange | Outcome:
        """Prepare the change that the live deployment needs next."""
        desired, progress = self._steps.desired, self.progress
        if live.status in (Status.CREATING, Status.STOPPING):
            live = await self._update.stable(live)
        if desired.restore not in (None, live.version):
            return await self._prepare_restore(live)
        if self._update.differs(live):
            return await self._prepare_update(live)
        if await self._update.set_tags(live):
            progress.action = progress.action or "updated"
        if live.status.is_down and desired.serve and not (self._policy.trust or progress.has_changed):
            live = await wait_for_start(self._run, live, self._update.backoff())
        if live.status.is_down:
            if not desired.serve:
                return Outcome(live, progress.action or "unchanged")
            return await self._prepare_start(live, "started")
        return await self._revive(live) if live.status is Status.FAILED else await self._adopt(live)

    async def _prepare_restore(self, live: Deployment) -> PreparedChange:
        await self._steps.read_probe(live)
        if live.status is Status.STARTING:
            live = await self._update.stable(live)
        await self._steps.remember_previous(live)
        return self._change(Kind.RESTORE, live)

    async def _prepare_update(self, live: Deployment) -> PreparedChange:
        schema = await self._update.prepare_update(live)
        # Errors in the tags are found before anything else is changed.
        await self._update.set_tags(live)
        await self._steps.read_probe(live)
        settled = await self._update.stable(live)
        if settled.signature != live.signature:
            raise Replan
        run, backoff = self._run, self._steps.backoff(inputs.FIRST_DELAY_UPDATE)
        witness = api.get_deployment_by_id(run.project, settled.id)
        newest_version = await run.routes.read(api.get_newest_version(run.project, settled), witness, backoff)
        await self._steps.remember_previous(settled)
        return self._change(Kind.UPDATE, settled, newest_version=newest_version, schema=schema)

    async def _prepare_start(self, live: Deployment, action: str) -> PreparedChange:
        self.progress.action = self.progress.action or action
        await self._steps.read_probe(live)
        return self._change(Kind.START, live)

    async def _adopt(self, live: Deployment) -> Outcome:
        """Confirm a deployment that is as desired, or watch its rollout; nothing is sent."""
        is_up = live.status in (Status.RUNNING, Status.IDLE)
        if self._policy.trust and is_up:
            return await self._confirm(live)
        log.info("%s: %s", live, "checking whether the rollout is complete" if is_up else "a rollout is in progress")
        return await self._steps.watch(live, RolloutCause.CHANGE, "unchanged" if is_up else "attached")

    async def _confirm(self, live: Deployment) -> Outcome:
        """Probe a deployment that is as desired; watch it if it answers as the previous version."""
        progress = self.progress
        action = progress.action or "unchanged"
        if live.status is Status.IDLE or not self._policy.wait:
            return Outcome(live, action, "status" if self._policy.wait else None)
        await self._steps.read_probe(live)
        result = await probe_serving(self._steps.prober, live)
        read = functools.partial(self._update.read, live)
        now = await confirm_model(await read(), live.model_version, read)
        if now is None or not now.continues(live.signature):
            # It changed during the probe: which configuration answered is unknown.
            raise Replan
        if result.wrong or result.attribution is Attribution.CHAMPION:
            wrong = result.wrong or "answers as the previous version"
            log.warning("%s %s; a rollout may be in progress", now, wrong)
            progress.action = "attached"
            return await self._steps.watch(now, RolloutCause.CHANGE, progress.action)
        return Outcome(now, action, "fingerprint" if result.attribution is Attribution.CHALLENGER else "status")

    async def _revive(self, live: Deployment) -> PreparedChange | Outcome:
        """Watch a failed deployment recover; if it does not, replace it unless its previous revision answers."""
        self.progress.resume = dataclasses.replace(self.progress.resume, worker_only=True)
        await self._steps.read_probe(live)
        action = self.progress.action
        try:
            return await self._steps.watch(live, RolloutCause.CHANGE, "attached")
        except DeploymentFailedError as error:
            self.progress.action = action
            if await self._steps.prober.is_reachable():
                what = (
                    "The previous revision still serves. Nothing was changed: a restart would stop that one too.\n"
                    "Deploy another version."
                )
                raise error.extended(what) from error
        log.info("%s: nothing answers; stopping and starting it", live)
        return self._change(Kind.REPLACE, live)

    # --- Apply --------------------------------------------------------------------------------------------------------

    async def _apply_or_replan(self, change: PreparedChange) -> PreparedChange | Outcome:
        try:
            return await self._apply(change)
        except Replan as replan:
            await self._replan(replan, change.live)
            return await self._prepare(before=change.live)

    async def _apply(self, change: PreparedChange) -> PreparedChange | Outcome:
        steps, live = self._steps, change.live
        if change.kind is Kind.CREATE or live is None:
            return await self._next(await steps.create(change.body))
        if change.kind is Kind.START:
            self.progress.has_changed = True
            await steps.start(live)
            return await steps.watch(live, RolloutCause.START, self.progress.action)
        if change.kind is Kind.REPLACE:
            return await self._prepare_start(await steps.stop(live), "started")
        restore = steps.desired.restore if change.kind is Kind.RESTORE else None
        stored = await steps.store(live, restore=restore, newest_version=change.newest_version, schema=change.schema)
        if change.kind is Kind.RESTORE and self._update.differs(stored):
            # Settings that a deployment version does not hold follow by an update.
            return await self._prepare_update(stored)
        if not stored.status.is_down:
            return await steps.watch(stored, RolloutCause.CHANGE, "updated", is_fresh=True)
        return await self._prepare_start(stored, "updated") if steps.desired.serve else Outcome(stored, "updated")


async def _check_stored(steps: Steps, live: Deployment | None) -> Deployment | None:
    """
    Return a deployment as it was read last, if it is as desired.

    :raises SupersededError: it is not, and its run may not change it
    """
    live = await confirmed(live, lambda now: not steps.is_stored(now), steps.update.read)
    if not steps.is_stored(live):
        message = f"{live or steps.run.name} was changed by another client meanwhile; their change is kept."
        raise SupersededError(message)
    return live


async def reconcile(reconciler: Reconciler) -> Outcome:
    """Bring a deployment to its desired state without a journal, and return the outcome."""
    async with reconciler:
        step = await reconciler.prepare()
        while isinstance(step, PreparedChange):
            step = await reconciler.apply(step)
        return step
