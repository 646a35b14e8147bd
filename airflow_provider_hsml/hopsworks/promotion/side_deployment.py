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
5. Its waits stay in the worker: a trigger could not renew the lease.
"""

from __future__ import annotations

import dataclasses
import json
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
    newest_files,
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
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep, all_pages, attended, inlined, read_patiently
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes
from airflow_provider_hsml.hopsworks.rollout.inputs import FIRST_DELAY_START, Desired, RolloutPolicy
from airflow_provider_hsml.hopsworks.rollout.reconcile import PreparedChange, Reconciler
from airflow_provider_hsml.hopsworks.rollout.schema_carry import carry_schema
from airflow_provider_hsml.hopsworks.rollout.status import GoneGoal, StatusWait, wait_until
from airflow_provider_hsml.hopsworks.rollout.stop import send_change
from airflow_provider_hsml.hopsworks.rollout.update import default_serving_tool, least_instances

from .journal import FOLDER, list_files

if TYPE_CHECKING:
    from typing import Any

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.judge import Checks
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.flow import Clock
    from airflow_provider_hsml.hopsworks.rollout.inputs import Run

log = logging.getLogger(__name__)

REMOVAL_SECONDS = 300.0
"""Seconds for which the removal of an expired deployment is retried: some servers delete none that is starting."""
_REMOVAL_INTERVAL = 5.0
_READ_AGAIN = 2.0
"""Seconds after which a lease that is not whole is read once more: its task may be writing it."""
_DELETIONS = 3
"""How often the files of a lease are listed and deleted: a deletion may be answered and not carried out."""
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
        self._is_in_doubt = False
        """Whether the request that creates it may still be carried out."""
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

    async def remove(self) -> None:
        """
        Delete the temporary deployment and its lease. Does nothing without a lease.

        :raises HopsworksError: it could not be deleted; the lease is kept, so a later task deletes it
        """
        lease = self._lease
        if lease is None:
            return
        self._lease = None  # Nothing renews it any more.
        await _end(self._run.project, lease, self._run.backoff(FIRST_DELAY_START), keeps=self._is_in_doubt)

    async def _serve(
        self, desired: Desired, live: Deployment | None, policy: RolloutPolicy, checks: Checks | None
    ) -> Outcome:
        minimum = await self._minimum(desired, live)
        settings = desired.settings | (model_settings(desired.model) if desired.model else {})
        lease = self._lease
        if lease is None:
            lease = await self._claim()
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

    async def _claim(self) -> Lease:
        """
        End the leases that have expired or are of an earlier try, and write a new one.

        :raises DeploymentError: another task has a lease; transient
        :raises InvalidInputError: a deployment of the name is somebody else's, or the API key may not write files
        """
        run, now = self._run, self._run.clock()
        try:
            for lease in await _read_leases(run.project, self._live_name):
                if lease.is_expired(now) or (lease.purpose == self._purpose and lease.is_of(run.key)):
                    await _end(run.project, lease, run.backoff(FIRST_DELAY_START))
                elif lease.purpose == self._purpose:
                    raise self._in_use(lease)
            found = await api.get_deployment(run.project, self.name, any_case=True)
            if found is not None:
                message = (
                    f"{found}: its name is needed for a temporary deployment, and no lease in {FOLDER!r} says that it "
                    f"is one of deployment {self._live_name!r}. Nothing was changed.\nDelete it if nobody needs it."
                )
                raise InvalidInputError(message)
            await self._make_folder()
            seconds = max(SECONDS, 6 * run.interval)
            expires = run.clock() + seconds
            lease = Lease(uuid.uuid4().hex, self._purpose, self.name, self._live_name, run.key, expires, seconds)
            return await self._write(lease)
        except RequestRefusedError as error:
            if error.code != SCOPE_MISSING:
                raise
            raise without_scopes(self.name, error) from error

    def _in_use(self, lease: Lease) -> HopsworksError:
        by = f"task {lease.run}" if lease.run else "a call of the hook"
        left = max(lease.expires - self._run.clock(), 0.0)
        return _transient(
            f"Temporary deployment {self.name!r} is in use by {by}: its lease expires in {left:.0f} s, unless it is "
            "renewed. Nothing was changed.\nRun the task again then; a pool with one slot keeps tasks apart."
        )

    async def _make_folder(self) -> None:
        parts = f"{FOLDER}/{self._live_name}".split("/")
        if not await api.path_exists(self._run.project, "/".join(parts)):
            for depth in range(2, len(parts) + 1):
                await api.make_folder(self._run.project, "/".join(parts[:depth]))

    async def _write(self, lease: Lease) -> Lease:
        """Write a state of the lease, and delete the file of the one before."""
        project, folder, before = self._run.project, f"{FOLDER}/{self._live_name}", self._lease
        if before is not None:
            lease = dataclasses.replace(lease, number=before.number + 1)
        content = json.dumps(lease.to_json()).encode()
        await upload_bytes(project, f"{folder}/{lease.file_name}", content)
        self._lease = lease
        if before is not None:
            await api.delete_path(project, f"{folder}/{before.file_name}")
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
                self._is_in_doubt = error.outcome_unknown
                raise
        found = step.live if isinstance(step, PreparedChange) else step.deployment
        if found is None or not lease.holds(found):
            other = f"{found or self.name}: another task has created this temporary deployment at the same time."
            raise _transient(f"{other} Nothing was changed.\nRun the task again when that one has ended.")
        self.seen = found
        await self._write(dataclasses.replace(lease, deployment_id=found.id))
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
                body[key] = given.path if given else await self._script(key, live, body[key])
        if schema_id_of(live) is not None:
            backoff = run.backoff(FIRST_DELAY_START)
            schema = await carry_schema(
                run.project, run.routes, live, desired.model, body, backoff=backoff, to=self.name
            )
            schema.write(body)
        return body

    async def _script(self, key: str, live: Deployment, script: str) -> str:
        """
        Return the whole path of a script of the live deployment; some servers return its name alone.

        :raises InvalidInputError: it is not where Hopsworks keeps the scripts of deployments
        """
        project = self._run.project
        path = script if "/" in script else diff.path_of_script(project, live.raw, key, script)
        if "/" in path:
            return path
        folders = (f"Deployments/{live.name}/{live.version}", f"Deployments/{live.name}/resources/{_SCRIPTS[key][1]}")
        for folder in folders:
            if await api.path_exists(project, f"{folder}/{path}"):
                return f"/Projects/{project.name}/{folder}/{path}"
        message = (
            f"{live}: its script {path!r} was not found in {' or '.join(map(repr, folders))}, so no temporary "
            "deployment can be made like it.\nGive the script in spec, or leave preflight out."
        )
        raise InvalidInputError(message)


async def remove_expired(project: Project, live_name: str, clock: Clock) -> list[str]:
    """
    Delete the temporary deployments beside a live one whose leases have expired: their tasks were killed.

    :param live_name: the name of the live deployment
    :param clock: returns the seconds since 1970
    :return: the names of those that were deleted, or were gone already
    :raises HopsworksError: one could not be deleted
    """
    removed = []
    for lease in await _read_leases(project, live_name):
        if lease.is_expired(clock()):
            deadline = clock() + REMOVAL_SECONDS
            backoff = Backoff(first=FIRST_DELAY_START, most=_REMOVAL_INTERVAL, deadline=deadline, clock=clock)
            await _end(project, lease, backoff)
            removed.append(lease.name)
    return removed


async def remove_of(run: Run, seconds: float) -> None:
    """
    Delete the temporary deployments of a task that is being killed.

    :param run: the run of the task on the live deployment
    :param seconds: how long to retry
    """
    for lease in await _read_leases(run.project, run.name):
        if lease.is_of(run.key):
            await _end(run.project, lease, run.backoff(FIRST_DELAY_START, run.clock() + seconds))


async def remove_all_expired(project: Project, clock: Clock) -> list[str]:
    """
    Delete the temporary deployments of all deployments of a project whose leases have expired.

    :param clock: returns the seconds since 1970
    :return: the names of those that were deleted, or were gone already
    """
    folders = await all_pages(lambda offset: api.list_folder(project, FOLDER, offset=offset)) or []
    return [
        name for folder in folders if folder.is_folder for name in await remove_expired(project, folder.name, clock)
    ]


async def _read_leases(project: Project, live_name: str) -> list[Lease]:
    """
    Read the leases of temporary deployments beside a live one.

    :raises UnexpectedResponseError: a lease cannot be read; it may be in use
    """
    try:
        return await _read_whole_leases(project, live_name)
    except UnexpectedResponseError as error:
        log.warning("%s; reading it again", error)
        await Sleep(_READ_AGAIN)
        return await _read_whole_leases(project, live_name)


async def _read_whole_leases(project: Project, live_name: str) -> list[Lease]:
    folder = f"{FOLDER}/{live_name}"
    leases = []
    for files in newest_files(await list_files(project, live_name) or ()).values():
        path = f"{folder}/{files[0]}"
        try:
            lease = await api.read_json(project, path, Lease.from_json, size=None)
        except UnexpectedResponseError as error:
            hint = f"If this remains, delete the file {path!r}, and the temporary deployment if there is one."
            raise error.extended(hint) from error
        if lease is not None:  # Else its task has ended it meanwhile, or renewed it.
            leases.append(lease)
    return leases


async def _end(project: Project, lease: Lease, backoff: Backoff, *, keeps: bool = False) -> None:
    """
    Delete the deployment of a lease, the documents that were published for it, and the files of the lease.

    :param backoff: how often to retry, and until when
    :param keeps: whether to keep the lease if there is no deployment: it may still be created
    """
    is_deleted = await _delete(project, lease, backoff)
    if await read_patiently(api.get_deployment(project, lease.name, any_case=True), backoff) is None:
        await _delete_documents(project, lease.name)
    if keeps and not is_deleted:
        log.warning("Deployment %r may still be created; its lease is kept until it expires", lease.name)
        return
    folder = f"{FOLDER}/{lease.live_name}"
    for _ in range(_DELETIONS):
        files = newest_files(await list_files(project, lease.live_name) or ()).get(lease.id)
        if not files:
            return
        # The newest last: as long as a file is left, the lease is known as it was.
        for name in reversed(files):
            await api.delete_path(project, f"{folder}/{name}")


async def _delete_documents(project: Project, name: str) -> None:
    """Delete the folder of a deployment that is gone. Some servers have done so with the deployment."""
    try:
        await api.delete_path(project, f"Deployments/{name}")
    except HopsworksError as error:
        log.info("The folder of a temporary deployment was not deleted: %s", error)


async def _delete(project: Project, lease: Lease, backoff: Backoff) -> bool:
    """Delete the deployment of a lease, and return whether there was one."""
    while True:
        number = lease.deployment_id
        read = api.get_deployment(project, lease.name) if number is None else api.get_deployment_by_id(project, number)
        found = await read_patiently(read, backoff)
        if found is None:
            return False
        if not lease.holds(found):
            log.warning("%s is not the temporary deployment of lease %s, and is left as it is", found, lease.id)
            return False
        log.info("Deleting %s, a temporary deployment", found)
        if await send_change(api.delete_deployment(project, found), backoff):
            gone = api.get_deployment_by_id(project, found.id)
            await wait_until(StatusWait(GoneGoal(), backoff, f"deployment {lease.name!r} to be gone", found), gone)
            return True


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
