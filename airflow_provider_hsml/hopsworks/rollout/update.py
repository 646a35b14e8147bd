"""Sending a change of a deployment once, and finding the row that it wrote."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff, legacy_artifacts, preconditions
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus
from airflow_provider_hsml.hopsworks.domain.settings import Script, setting_of
from airflow_provider_hsml.hopsworks.errors import (
    DeploymentError,
    HopsworksError,
    InvalidInputError,
    RequestRefusedError,
    SupersededError,
    UnsupportedError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep, read_patiently

from . import scripts, tags
from .preconditions import check_files, check_schema
from .status import StatusWait, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues

    from .inputs import Run

log = logging.getLogger(__name__)

IN_DOUBT = 120.0
"""Seconds for which to look for a change whose answer was lost: a slow server may still be at it."""
FIRST_PAUSE = 0.5
_NEW = (DeploymentStatus.CREATING, DeploymentStatus.CREATED)


class Replan(Exception):
    """The deployment is not what was read: begin again with what it is now. Not an error."""

    def __init__(self, *, is_busy: bool = False) -> None:
        super().__init__()
        self.is_busy = is_busy
        """Whether it is only moving, which passes; else somebody has changed it."""


class _Settled:
    """The goal of being in a state in which the server accepts changes, or of being gone."""

    def reached(self, deployment: Deployment | None, now: float) -> bool:  # noqa: ARG002 - asked of every goal
        return deployment is None or deployment.status.is_stable


@dataclass(frozen=True, slots=True)
class Update:
    """A desired configuration, and how Hopsworks is made to store it. Nothing here waits for instances."""

    run: Run
    settings: SettingValues
    """The desired settings, with the whole path of each script."""
    model: ModelVersion | None
    """The version to serve, if that changes or the deployment is new."""
    deadline: float
    """Seconds since 1970."""

    def backoff(self) -> Backoff:
        """Return how often to poll while the change is under way."""
        return self.run.backoff(FIRST_PAUSE, self.deadline)

    async def read(self) -> Deployment | None:
        """Read the live deployment."""
        return await read_patiently(api.get_deployment(self.run.project, self.run.name), self.backoff())

    async def stable(self, live: Deployment) -> Deployment:
        """
        Wait until the server accepts changes.

        :param live: as it was seen
        :raises Replan: it was deleted meanwhile
        """
        if live.status.is_stable:
            return live
        what = f"deployment {self.run.name!r} to finish what is under way"
        wait = StatusWait(_Settled(), self.backoff(), what, live)
        deployment = await wait_until(wait, api.get_deployment_by_id(self.run.project, live.id))
        if deployment is None:
            raise Replan
        return deployment

    def differs(self, deployment: Deployment) -> bool:
        """
        Tell whether it is not yet what is wanted.

        :param deployment: as it was seen
        """
        return bool(diff.differences(deployment.raw, self.settings))

    async def prepare_create(self) -> Mapping[str, Any]:
        """
        Check that the deployment can be created, and upload its scripts.

        :return: the body that creates it
        :raises InvalidInputError: it cannot be created so; nothing was changed
        """
        project, settings = self.run.project, self.settings
        if self.model is None and not settings.get("script_file"):
            others = await api.get_deployments(project)
            known = ", ".join(sorted(other.name for other in others)) or "none"
            message = (
                f"Deployment {self.run.name!r} does not exist in project {project.name!r}; there are: {known}. To "
                "create it, name a model, or give a script_file in spec."
            )
            raise InvalidInputError(message)
        tool = "KSERVE" if await api.get_variable("kube_kserve_installed") == "true" else "DEFAULT"
        tool = settings.get("serving_tool") or tool
        least = await api.get_variable("kube_serving_min_num_instances")
        minimum = 0 if least == "0" and tool == "KSERVE" else 1
        body = diff.created(self.run.name, self.model, settings, serving_tool=tool, minimum=minimum)
        given = {name for name, value in settings.items() if value is not None}
        preconditions.check_combination(body, {*given, "framework", "script_file", "serving_tool"})
        preconditions.check_minimum(body, must_be_zero=least == "0")
        await check_files(project, self.model, body)
        await self._provide_scripts(settings)
        return body

    async def create(self, body: Mapping[str, Any]) -> tuple[Deployment, bool]:
        """
        Create the deployment; afterwards it is stopped.

        :param body: from ``prepare_create``
        :return: the deployment, and whether this request created it, as far as is known
        :raises Replan: another client has created it meanwhile
        :raises UnsupportedError: the server left out what it does not know
        """
        log.info("Creating deployment %r of %s", self.run.name, _what_of(self.model))
        try:
            await api.put_deployment(self.run.project, legacy_artifacts.for_creating(body))
        except HopsworksError as error:
            if isinstance(error, RequestRefusedError) and error.code == api.DUPLICATED_ENTRY:
                log.warning("%s; continuing with the live deployment", error)
                raise Replan from error
            if not error.in_doubt:
                raise
            log.warning("%s; checking whether it was created", error)
            live = await self._read_after_doubt(lambda deployment: deployment is not None)
            if live is None:
                raise
            return live, False
        live = await self.read()
        if live is None:
            message = f"Deployment {self.run.name!r} was deleted by another client right after it was created."
            raise SupersededError(message)
        self._check_stored(live, before=None)
        return live, True

    async def update(self, live: Deployment, *, newest_version: int | None) -> Deployment:
        """
        Send the change once, against the state that it was checked with, and find its row.

        :param live: the deployment, in a state in which it can be changed, as it was checked
        :param newest_version: number of the newest version; None where the server keeps none
        :raises Replan: it is not like that any more, or busy
        :raises SupersededError: somebody else changed or deleted it meanwhile
        :raises UnsupportedError: the server left out what it does not know
        """
        before = await self.read()
        if before is None or not diff.is_still(self.run.project, before, live) or not self.differs(before):
            raise Replan
        if not before.status.is_stable:
            raise Replan(is_busy=True)
        differing = diff.differences(before.raw, self.settings)
        log.info("Updating %s: %s", before, diff.described(differing))
        body = legacy_artifacts.for_changing(before.raw, diff.changed(before.raw, self.settings), differing)
        new_version = newest_version is not None and any(setting_of(name).versioned for name in differing)
        try:
            await api.put_deployment(self.run.project, body, new_version=new_version)
        except HopsworksError as error:
            if isinstance(error, RequestRefusedError) and (error.status == 409 or error.not_now):
                log.warning("%s; reading it again", error)
                raise Replan(is_busy=error.status != 409) from error
            if not error.in_doubt:
                raise
            log.warning("%s; checking whether it was carried out", error)
            row = await self._read_after_doubt(lambda deployment: deployment is None or not self.differs(deployment))
            if row is not None and self.differs(row):
                if newest_version is not None and new_version:
                    await self._check_not_kept(row, newest_version)
                raise Replan(is_busy=True) from error
        else:
            row = await self.read()
        if row is None:
            message = f"Deployment {self.run.name!r} was deleted by another client while it was updated."
            raise SupersededError(message)
        self._check_stored(row, before)
        return row

    async def prepare_update(self, live: Deployment) -> None:
        """
        Check the change against what is there, and bring its scripts into the project.

        :param live: the deployment
        :raises InvalidInputError: it cannot be changed so; nothing was sent
        """
        differing = diff.differences(live.raw, self.settings)
        preconditions.check_live(live, self.model, differing)
        body = diff.changed(live.raw, self.settings)
        preconditions.check_combination(body, differing)
        await check_schema(self.run.project, live, self.model)
        await check_files(self.run.project, self.model, body)
        await self._provide_scripts({name: self.settings[name] for name in differing})

    async def set_tags(self, deployment: Deployment) -> bool:
        """
        Give the deployment the tags that were asked for.

        :param deployment: the deployment
        :return: whether any had to be changed
        """
        if "tags" not in self.settings:
            return False
        return await tags.set_tags(self.run.project, deployment, self.settings["tags"])

    async def _provide_scripts(self, desired: SettingValues) -> None:
        for name, script in desired.items():
            if isinstance(script, Script):
                await scripts.provide(self.run.project, name, script)

    def _check_stored(self, row: Deployment, before: Deployment | None) -> None:
        """Refuse a row that is not what was sent: of a server that drops what it does not know, or of somebody else."""
        missing = diff.differences(row.raw, self.settings)
        if not missing:
            return
        names = ", ".join(setting_of(name).field for name in missing)
        # What is dropped reads as before, or as the default: a value that nobody asked for is somebody's change.
        dropped = all(
            live == (setting_of(name).read(before.raw) if before else setting_of(name).default)
            for name, (live, _wanted) in missing.items()
        )
        # Nobody starts what is new before we have looked but somebody else.
        is_untouched = row.status in _NEW if before is None else row.signature == before.signature
        if is_untouched or dropped:
            message = (
                f"{row}: this Hopsworks does not know {names}: it accepted the change and left that out. Leave it out "
                "of spec, or use a newer Hopsworks."
            )
            raise UnsupportedError(message)
        message = (
            f"{row} was changed by another client right after our {'update' if before else 'creating it'}: {names}."
        )
        raise SupersededError(message)

    async def _check_not_kept(self, row: Deployment, newest_before: int) -> None:
        """
        See that a change in doubt was not kept as a version that is yet to become the active one.

        :raises DeploymentError: it was; sent again, it would be kept twice
        """
        page = await read_patiently(api.get_versions(self.run.project, row), self.backoff())
        versioned = {name: value for name, value in self.settings.items() if setting_of(name).versioned}
        for version in page.items if page else []:
            is_newer = version.version > newest_before
            if is_newer and not diff.differences({"name": self.run.name, **version.raw}, versioned):
                message = (
                    f"{row}: the change was kept as deployment version {version.version}, which is not the active one. "
                    "It is not sent again, since that would keep it twice: roll back to that version."
                )
                raise DeploymentError(message)

    async def _read_after_doubt(self, is_done: Callable[[Deployment | None], bool]) -> Deployment | None:
        """Poll for a change whose response was lost, for as long as a slow server may still carry it out."""
        backoff = self.run.backoff(1.0, min(self.deadline, self.run.clock() + IN_DOUBT))
        while True:
            deployment = await read_patiently(api.get_deployment(self.run.project, self.run.name), backoff)
            if is_done(deployment):
                return deployment
            delay = backoff.next_delay()
            if delay is None:
                return deployment
            await Sleep(delay)


def _what_of(model: ModelVersion | None) -> str:
    return "a script" if model is None else f"version {model.version} of model {model.name!r}"
