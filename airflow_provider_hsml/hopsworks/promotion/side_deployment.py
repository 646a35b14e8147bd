"""
Temporary deployments beside a live one, to try a version where no user is answered.

The steps of a task, and what the next one finds if the task dies after each::

    lease written ──────────> a lease without a deployment
    deployment created ─────> a lease without an id, and a deployment whose description names the lease
    lease completed ────────> a lease with the id of the deployment
    started, used, renewed    the same
    deployment deleted ─────> a lease whose deployment is gone
    lease deleted             nothing

Theory of operation:

1. A *lease* is a file in the journal's folder of the live deployment. Each state of it is a new file, since an upload
   replaces none; the newest counts. It is written before the deployment is created, and renewed while it is in use.
2. Two tasks may write their leases at the same time. Only one of them can create the deployment, whose name is the
   same for both. The description of the deployment tells which.
3. Only the deployment of a lease is deleted: by its id, and only while it has the name. One of that name without a
   lease is somebody else's, and refused.
4. The lease of another task that has not expired is left alone. One that has, or that an earlier try of the same task
   holds, is ended: its deployment is deleted, then its files.
5. The documents of the deployment are in a folder of its name. They may be another task's, so they are left as long as
   there is another lease of that name. Of two leases that end at the same time, the last one finds no other and
   deletes them: it looks again once its own files are deleted.
6. Its waits stay in the worker: a trigger could not renew the lease.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff, script_file
from airflow_provider_hsml.hopsworks.domain.deployment_schema import schema_id_of
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.side_deployment import (
    SECONDS,
    Lease,
    mandatory_tags,
    side_name,
    side_settings,
    template,
)
from airflow_provider_hsml.hopsworks.errors import (
    SCOPE_MISSING,
    DeploymentError,
    HopsworksError,
    InvalidInputError,
    RequestRefusedError,
    SupersededError,
)
from airflow_provider_hsml.hopsworks.flow import attended, inlined
from airflow_provider_hsml.hopsworks.rollout.inputs import FIRST_DELAY_START, Desired, RolloutPolicy
from airflow_provider_hsml.hopsworks.rollout.reconcile import PreparedChange, Reconciler
from airflow_provider_hsml.hopsworks.rollout.schema_carry import carry_schema
from airflow_provider_hsml.hopsworks.rollout.update import default_serving_tool, least_instances

from . import leases
from .journal import FOLDER

if TYPE_CHECKING:
    from typing import Any

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.judge import Checks
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.rollout.inputs import Run

log = logging.getLogger(__name__)

_RENEW_AGAIN = 30.0
"""Seconds between two tries to renew a lease."""
_SCRIPTS = {
    "predictor": ("script_file", "predictor"),
    "transformer": ("transformer.script_file", "transformer"),
    "configFile": ("config_file", "config"),
}
"""The keys of a deployment's scripts: the setting of each, and the folder that Hopsworks' SDK uploads it to."""


class SideDeployment:
    """
    A temporary deployment beside a live one, held by a lease.

    Call ``serve`` for each configuration to try, ``renew`` now and then during a long use, and ``remove`` at the end,
    also after a failure.

    :param run: the run on the live deployment
    :param purpose: what it is for, in lower-case letters: ``preflight``
    """

    def __init__(self, run: Run, purpose: str) -> None:
        self.name = side_name(run.name, purpose)
        self.seen: Deployment | None = None
        """The temporary deployment as it was read last."""
        self._live_name = run.name
        self._purpose = purpose
        self._run = dataclasses.replace(run, name=self.name)
        self._lease: Lease | None = None
        self.is_in_doubt = False
        """Whether the request that creates it may still be carried out."""
        self._earlier: list[Lease] = []
        """Leases of earlier tries, whose requests to create it may still be carried out."""
        self._not_before = 0.0
        """When a renewal that failed may be tried again, in seconds since 1970."""

    async def serve(
        self,
        desired: Desired,
        live: Deployment | None,
        checks: Checks | None = None,
        *,
        unschedulable_grace: float | None = None,
    ) -> Outcome:
        """
        Bring the temporary deployment to a configuration, and wait until it is live and verified.

        The first call creates it. A later one updates it; it is stopped for that, so it needs no room for two.

        :param desired: what the live deployment would be sent
        :param live: the live deployment; None if there is none
        :param checks: how it is verified; None: by what was registered with the version
        :param unschedulable_grace: seconds for which a cluster without room may find some; None for the default
        :raises InvalidInputError: a deployment of its name is somebody else's, or the API key may not write the lease
        :raises DeploymentError: another task uses it (transient), or its instances do not come up
        :raises VerificationError: it serves, but does not answer as it should
        """
        policy = RolloutPolicy(recreate=True, unschedulable_grace=unschedulable_grace)
        return await attended(inlined(self._serve(desired, live, policy, checks)), self.renew)

    async def renew(self) -> None:
        """
        Renew the lease if a third of it has passed; without a request otherwise.

        :raises DeploymentError: it has expired, so another task may have deleted the deployment; transient
        """
        lease, now = self._lease, self._run.clock()
        if lease is None or now < max(lease.renewed_from, self._not_before):
            return
        if lease.is_expired(now):
            message = (
                f"Temporary deployment {self.name!r}: its lease could not be renewed in time, so another task may have "
                "deleted the deployment.\nRun the task again."
            )
            raise _transient(message)
        self._not_before = now + _RENEW_AGAIN
        try:
            await self._write(dataclasses.replace(lease, expires=now + lease.seconds))
        except HopsworksError as error:
            if not error.transient:
                raise
            log.warning("%s; the lease of deployment %r is renewed later", error, self.name)

    async def remove(self) -> bool:
        """
        Delete the temporary deployment and its lease. Does nothing without a lease.

        :return: False if the deployment may still be created; its lease is kept
        :raises HopsworksError: it could not be deleted; the lease is kept, so a later task deletes it
        """
        run, lease = self._run, self._lease
        if lease is None:
            return True
        self._lease = None  # Nothing renews it any more.
        is_ended = await leases.end_lease(run.project, lease, run.backoff(FIRST_DELAY_START), keeps=self.is_in_doubt)
        if lease.deployment_id is not None:  # It had the name all this time, so no other was created.
            for earlier in self._earlier:
                await leases.end_lease(run.project, earlier, run.backoff(FIRST_DELAY_START))
        return is_ended

    async def _serve(
        self, desired: Desired, live: Deployment | None, policy: RolloutPolicy, checks: Checks | None
    ) -> Outcome:
        minimum = await self._minimum(desired, live)
        settings = desired.settings | (model_settings(desired.model) if desired.model else {})
        lease = self._lease
        if lease is None:
            lease = await self.claim()
            await self._create(settings, desired, live, minimum)
        wanted = Desired(side_settings(settings, minimum, lease.description), desired.model)
        checks = None if checks is None else dataclasses.replace(checks, bake_seconds=0)
        async with (reconciler := Reconciler(self._run, wanted, policy, checks)):
            step = await reconciler.prepare()
            while isinstance(step, PreparedChange):
                self._check_own(step.live)
                step = await reconciler.apply(step)
        self._check_own(step.deployment)
        return step

    async def _minimum(self, desired: Desired, live: Deployment | None) -> int:
        """Return the minimum number of instances: 0 unless the serving tool or the cluster needs more."""
        tool = live.serving_tool if live else desired.settings.get("serving_tool")
        if (tool or await default_serving_tool(self._run)) != "KSERVE":
            return 1
        least = await least_instances(self._run)
        return int(least) if least is not None and least.isdecimal() else 0

    # --- The lease ----------------------------------------------------------------------------------------------------

    async def claim(self) -> Lease:
        """
        End the leases that have expired or are of an earlier try, and write a new one.

        ``serve`` does so. For a caller that creates the deployment by itself, with the lease's description.

        :raises DeploymentError: another task has a lease; transient
        :raises InvalidInputError: a deployment of the name is somebody else's, or the API key may not write files
        """
        run, now = self._run, self._run.clock()
        try:
            for lease in await leases.read_leases(run.project, self._live_name):
                is_expired = lease.is_expired(now)
                if is_expired or (lease.purpose == self._purpose and lease.is_of(run.key)):
                    if not await leases.end_lease(
                        run.project, lease, run.backoff(FIRST_DELAY_START), keeps=not is_expired
                    ):
                        self._earlier.append(lease)
                elif lease.purpose == self._purpose:
                    raise in_use(lease, run.clock())
            found = await api.get_deployment(run.project, self.name, any_case=True)
            if found is not None and any(earlier.holds(found) for earlier in self._earlier):
                raise _transient(f"{found} was created by an earlier try just now.\nRun the task again.")
            if found is not None:
                message = (
                    f"{found}: its name is needed for a temporary deployment, and no lease in {FOLDER!r} says that it "
                    f"is one of deployment {self._live_name!r}. Nothing was changed.\nDelete it if nobody needs it."
                )
                raise InvalidInputError(message)
            await leases.make_folder(run.project, self._live_name)
            seconds = max(SECONDS, 6 * run.interval)
            expires = run.clock() + seconds
            lease = Lease(uuid.uuid4().hex, self._purpose, self.name, self._live_name, run.key, expires, seconds)
            return await self._write(lease)
        except RequestRefusedError as error:
            if error.code != SCOPE_MISSING:
                raise
            raise without_scopes(self.name, error) from error

    async def _write(self, lease: Lease) -> Lease:
        """Write a state of the lease, and delete the file of the one before."""
        before = self._lease
        if before is not None:
            lease = dataclasses.replace(lease, number=before.number + 1)
        await leases.write_file(self._run.project, lease)
        self._lease = lease
        if before is not None:
            await leases.delete_file(self._run.project, before)
        return lease

    def _check_own(self, found: Deployment | None) -> None:
        """
        Check that a deployment is the one of the lease.

        :raises SupersededError: another client has deleted it, or made another one in its place
        """
        self.seen = found or self.seen
        if found is None or self._lease is None or not self._lease.holds(found):
            what = "deleted" if found is None else "replaced"
            message = f"Temporary deployment {self.name!r} was {what} by another client.\nRun the task again."
            superseded = SupersededError(message)
            superseded.transient = True
            raise superseded

    async def complete(self, deployment: Deployment) -> None:
        """
        Add the id of the deployment to the lease, once it has been created.

        :raises SupersededError: it is not the deployment of the lease
        """
        self._check_own(deployment)
        if self._lease is not None:
            await self._write(dataclasses.replace(self._lease, deployment_id=deployment.id))

    # --- The deployment -----------------------------------------------------------------------------------------------

    async def _create(self, settings: SettingValues, desired: Desired, live: Deployment | None, minimum: int) -> None:
        """Create the deployment, stopped, and complete the lease with its id."""
        lease, run = self._lease, self._run
        if lease is None:
            raise AssertionError
        whole = script_file.absolute(run.project, settings)
        body = await self._template(whole, desired, live, minimum)
        own = side_settings(settings, minimum, lease.description)
        created = Desired(own, desired.model, serve=False, template=body)
        async with (reconciler := Reconciler(run, created, RolloutPolicy(wait=False))):
            step = await reconciler.prepare()
            try:
                if isinstance(step, PreparedChange) and step.live is None:
                    step = await reconciler.apply(step)
            except HopsworksError as error:
                self.is_in_doubt = error.outcome_unknown
                raise
        found = step.live if isinstance(step, PreparedChange) else step.deployment
        if found is None or not lease.holds(found):
            other = f"{found or self.name}: another task has created this temporary deployment at the same time."
            raise _transient(f"{other} Nothing was changed.\nRun the task again when that one has ended.")
        await self.complete(found)
        for name, value in mandatory_tags(found, live, settings).items():
            await api.put_deployment_tag(run.project, found, name, value)

    async def _template(
        self, settings: SettingValues, desired: Desired, live: Deployment | None, minimum: int
    ) -> dict[str, Any]:
        """Return the body to create it from, after publishing the request schema for it."""
        body = template(live, settings, minimum)
        if live is None:
            return body
        run = self._run
        for key, (setting, _) in _SCRIPTS.items():
            if body.get(key):
                given = settings.get(setting)
                body[key] = given.path if given else await _path_of_script(run.project, key, live, body[key])
        if schema_id_of(live) is not None:
            backoff = run.backoff(FIRST_DELAY_START)
            schema = await carry_schema(
                run.project, run.routes, live, desired.model, body, backoff=backoff, to=self.name
            )
            schema.write(body)
        return body


async def _path_of_script(project: Project, key: str, live: Deployment, script: str) -> str:
    """
    Return the whole path of a script of a live deployment; some servers return its name alone.

    :param key: one of ``_SCRIPTS``
    :param script: the path or the name of the script
    :raises InvalidInputError: it is not where Hopsworks keeps the scripts of deployments
    """
    path = diff.path_of_script(project, live.raw, key, script)
    if "/" in path:
        return path
    folders = (f"Deployments/{live.name}/{live.version}", f"Deployments/{live.name}/resources/{_SCRIPTS[key][1]}")
    for folder in folders:
        if await api.path_exists(project, f"{folder}/{path}"):
            return f"/Projects/{project.name}/{folder}/{path}"
    message = (
        f"{live}: its script {path!r} was not found in {' or '.join(map(repr, folders))}, so no temporary deployment "
        "can be made like it.\nGive the script in spec, or leave preflight out."
    )
    raise InvalidInputError(message)


def in_use(lease: Lease, now: float) -> HopsworksError:
    """
    Return the error for a temporary deployment that another task has a lease of.

    :param now: seconds since 1970
    """
    by = f"task {lease.run}" if lease.run else "a call of the hook"
    left = max(lease.expires - now, 0.0)
    return _transient(
        f"Temporary deployment {lease.name!r} is in use by {by}: its lease expires in {left:.0f} s, unless it is "
        "renewed. Nothing was changed.\nRun the task again then; a pool with one slot keeps tasks apart."
    )


def _transient(message: str) -> DeploymentError:
    error = DeploymentError(message)
    error.transient = True
    return error


_SCOPES = "the scopes DATASET_VIEW, DATASET_CREATE and DATASET_DELETE"


def is_without_scopes(error: HopsworksError) -> bool:
    """Return whether an error is that of an API key that may not keep a lease."""
    return isinstance(error, InvalidInputError) and _SCOPES in str(error)


def without_scopes(name: str, error: HopsworksError | None = None) -> InvalidInputError:
    """
    Return the error for an API key that may not keep a lease.

    :param name: the name of the temporary deployment
    :param error: the refusal; None if it was met before
    """
    refused = f": {error}" if error else "."
    return InvalidInputError(
        f"Temporary deployment {name!r}: its lease is a file of the project, which this API key may not list, write or "
        f"delete{refused}\nUse a key with {_SCOPES}, or leave preflight out."
    )
