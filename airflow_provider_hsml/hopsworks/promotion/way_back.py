"""
The automatic way back of a failed change: restore the configuration that was read before the change.

``rollback.py`` is the manual rollback that a person asks for; it finds its target with ``find_way_back``.
``rollout/restore_version.py`` is the one request that activates an earlier deployment version.

Where Hopsworks keeps versions of deployments (5.2 and later), it restores by itself what they hold. Settings that they
do not hold, and all settings before 5.2, are restored by an update.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff
from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
from airflow_provider_hsml.hopsworks.errors import DeploymentFailedError, InvalidInputError, SupersededError
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.rollout import inputs
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, RolloutPolicy
from airflow_provider_hsml.hopsworks.rollout.reads import read_again, unchanged
from airflow_provider_hsml.hopsworks.rollout.reconcile import PreparedChange, Reconciler, reconcile
from airflow_provider_hsml.hopsworks.rollout.stop import stop

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.journal_entry import PreviousState
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.rollout.inputs import ResumePoint, Run

    from .change_record import ChangeRecord
    from .resume import Resumption

log = logging.getLogger(__name__)


async def find_way_back(
    run: Run,
    live: Deployment,
    version: int | None,
    former: Mapping[str, Any],
    *,
    also: Collection[str] = (),
    hides_env_vars: bool = False,
) -> tuple[int | None, SettingValues]:
    """
    Return how a deployment becomes what it was: the version to activate, where it is kept, and the settings to update.

    :param run: the run
    :param live: the deployment
    :param version: the deployment version that was active
    :param former: the deployment resource as it was
    :param also: settings to compare beside those that have a name
    :param hides_env_vars: whether environment variables have changed and ``former`` does not have their values
    :raises InvalidInputError: environment variables cannot be restored, because Hopsworks keeps no versions
    :raises UnexpectedResponseError: the list of versions is not whole: the version may be kept
    """
    desired = diff.read_settings(run.project, former, also=also)
    differing = diff.differences(live.raw, desired)
    # Only the numbers count here: a version of which Hopsworks lists more than we can read is kept as well.
    kept = await run.routes.version_numbers(run.project, live, run.backoff(inputs.FIRST_DELAY_START))
    is_kept = version in (kept or ())
    if hides_env_vars and not is_kept:
        message = (
            f"{live} cannot be rolled back: the change touched environment variables, whose former values are stored "
            "nowhere.\nDeploy the former version with its environment variables in spec."
        )
        raise InvalidInputError(message)
    names = [*differing, *diff.path_to_write(live.raw, desired, differing)]
    return version if is_kept else None, {name: desired[name] for name in names}


@dataclass(slots=True)
class WayBack:
    """The rollback of one recorded change to the state before it."""

    record: ChangeRecord
    resume_point: ResumePoint
    """How another process resumes the rollback."""
    policy: RolloutPolicy
    """How the change was rolled out."""
    seen: Deployment | None = field(init=False, default=None)
    """The deployment as it was read last."""

    async def restore(self, ours: Deployment | None, resumption: Resumption | None = None) -> Outcome:
        """
        Make the previous state live again.

        :param ours: the deployment as the change left it; None if that is not known
        :param resumption: the end of the rollback's long wait, if that was deferred
        :raises SupersededError: another client has changed the deployment, and their change is kept
        :raises HopsworksError: the previous state does not come up
        """
        if resumption is not None:
            try:
                return await resumption.run()
            except DeploymentFailedError as error:
                log.warning("%s", error)
                # Another trigger could end the same way, again and again.
                self.resume_point = dataclasses.replace(self.resume_point, worker_only=True)
        run, previous = self.record.run, self.record.previous
        backoff = run.backoff(inputs.FIRST_DELAY_START)
        live = await read_again(api.get_deployment(run.project, run.name), backoff, ours)
        if live is None:
            message = f"Deployment {run.name!r} was deleted by another client."
            raise SupersededError(message)
        if ours is not None:
            live = await self._check_ours(live, ours)
        if previous is None or not previous.was_up:
            log.warning("Stopping %s, which did not serve before", live)
            stopped = await stop(run.project, run.name, backoff, known=live)
            if stopped is not None:
                live = await self._check_ours(stopped, live)
        if previous is None:
            return Outcome(live, "stopped")
        return await self._reconcile(await self._desired(live, previous), live, is_up=previous.was_up)

    async def _desired(self, live: Deployment, previous: PreviousState) -> Desired:
        record = self.record
        entry, values = record.entry, previous.env_vars if record.env_vars is None else record.env_vars
        version, settings = await find_way_back(
            record.run,
            live,
            previous.version,
            {**previous.row, **(values or {})},
            also=entry.desired if entry else (),
            hides_env_vars=entry is not None and entry.touches_env_vars and values is None,
        )
        model = await self._previous_model(previous)
        log.warning("Restoring deployment %r as it was before: %s", record.run.name, previous.served)
        return Desired(settings, model, version, previous.was_up)

    async def _previous_model(self, previous: PreviousState) -> ModelVersion | None:
        run, served = self.record.run, previous.served
        if served.name is None or served.version is None:
            return None
        backoff = run.backoff(inputs.FIRST_DELAY_START)
        return await lookup.find_served(run.project, served.project, served.name, served.version, backoff)

    async def _reconcile(self, desired: Desired, live: Deployment, *, is_up: bool) -> Outcome:
        policy = dataclasses.replace(
            self.policy, wait=True, trust=False, recreate=self.policy.recreate and is_up, sends=True, is_way_back=True
        )
        reconciler = Reconciler(self.record.run, desired, policy, resume=self.resume_point)
        if self.record.entry is not None:
            reconciler.recall(self.record.entry.asked)
        try:
            async with reconciler:
                step = await reconciler.prepare(was=live)
                while isinstance(step, PreparedChange):
                    if step.needs_record:
                        await self._record(step.live, reconciler.seen or live, reconciler.probe_inputs)
                        reconciler.progress.resume = self.resume_point
                    step = await reconciler.apply(step)
                return step
        except DeploymentFailedError:
            # The previous configuration does not come up either, and nothing answers: stop and start it.
            resume = reconciler.progress.resume
            reconciler = Reconciler(self.record.run, desired, policy, resume=resume)
            return await reconcile(reconciler)
        finally:
            self.seen = reconciler.seen or self.seen

    async def _record(self, now: Deployment | None, ours: Deployment, probe_inputs: Mapping[str, Any]) -> None:
        """Check right before a request that no other client has changed the deployment, and write what verifies it."""
        await self._check_ours(now, ours)
        if await self.record.write_probe_inputs(probe_inputs):
            await self._check_ours(await self._read(ours), ours)

    async def _read(self, ours: Deployment) -> Deployment | None:
        run = self.record.run
        read = api.get_deployment(run.project, run.name)
        return await read_again(read, run.backoff(inputs.FIRST_DELAY_START), ours)

    async def _check_ours(self, found: Deployment | None, ours: Deployment) -> Deployment:
        """Return the deployment as it was read last, if no other client has changed it since it was ours."""
        now = await unchanged(self.record.run.project, found, ours, lambda: self._read(ours))
        if now is None:
            message = f"{found or ours} was changed by another client meanwhile, and their change is kept."
            raise SupersededError(message)
        return now
