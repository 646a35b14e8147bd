"""Send the change of a deployment once, and read back the deployment resource that it stored."""

from __future__ import annotations

import functools
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
    UnexpectedResponseError,
    UnsupportedError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep

from . import scripts, tags
from .preconditions import check_files
from .reads import confirmed, read_again, unchanged
from .schema_carry import carry_schema
from .status import StatusWait, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues

    from .inputs import Run
    from .schema_carry import CarriedSchema

log = logging.getLogger(__name__)

IN_DOUBT = 120.0
"""Seconds for which to poll for a change whose response was lost: a slow server may still carry it out."""
FIRST_PAUSE = 0.5
"""Seconds between the first two polls."""
_ALWAYS_KNOWN = frozenset({"model_name", "model_version", "model_path"})
"""Settings that no Hopsworks leaves out: where one is missing, the change was not carried out, or another followed."""
_NEW = (DeploymentStatus.CREATING, DeploymentStatus.CREATED)


class Replan(Exception):
    """Raised to plan again, since the deployment is no longer as it was read. Not an error."""

    def __init__(self, *, is_busy: bool = False) -> None:
        super().__init__()
        self.is_busy = is_busy
        """Whether the deployment is only busy, which passes; else another client has changed it."""


class _Settled:
    """The goal that the server accepts changes of a deployment, or that the deployment is gone."""

    def reached(self, deployment: Deployment | None, now: float) -> bool:  # noqa: ARG002 - part of the protocol
        return deployment is None or deployment.status.is_stable


@dataclass(frozen=True, slots=True)
class Update:
    """Stores a desired configuration in Hopsworks. Nothing here waits for instances."""

    run: Run
    settings: SettingValues
    """The desired settings, with the whole path of each script."""
    model: ModelVersion | None
    """The version to serve, if it changes or the deployment is new."""
    deadline: float
    """Seconds since 1970."""
    on_sent: Callable[[bool], object] = lambda _is_sent: None
    """Is called with True as soon as a change was accepted or its outcome is unknown; with False if it was not carried
    out after all."""
    template: Mapping[str, Any] | None = None
    """Keys of the body that creates the deployment, beside the settings; None for Hopsworks' defaults."""

    def backoff(self) -> Backoff:
        """Return the backoff for polls while the change is in progress."""
        return self.run.backoff(FIRST_PAUSE, self.deadline)

    async def read(self, was: Deployment | None = None) -> Deployment | None:
        """
        Read the live deployment.

        :param was: the deployment as it was read before; None if it was not
        """
        return await read_again(api.get_deployment(self.run.project, self.run.name), self.backoff(), was)

    async def stable(self, live: Deployment) -> Deployment:
        """
        Wait until the server accepts changes.

        :param live: the deployment as it was read last
        :raises Replan: the deployment was deleted meanwhile
        """
        if live.status.is_stable:
            return live
        what = f"deployment {self.run.name!r} to finish the change in progress"
        wait = StatusWait(_Settled(), self.backoff(), what, live)
        deployment = await wait_until(wait, api.get_deployment_by_id(self.run.project, live.id))
        if deployment is None:
            raise Replan
        return deployment

    def differs(self, deployment: Deployment) -> bool:
        """Return whether a deployment differs from the desired settings."""
        return bool(diff.differences(deployment.raw, self.settings))

    async def prepare_create(self) -> Mapping[str, Any]:
        """
        Check that the deployment can be created, and upload its scripts.

        :return: the body that creates it
        :raises InvalidInputError: the deployment cannot be created; nothing was changed
        """
        project, settings, template = self.run.project, self.settings, self.template or {}
        if self.model is None and not (settings.get("script_file") or template.get("modelServer")):
            raise _does_not_exist(self.run, await api.get_deployments(project))
        tool = settings.get("serving_tool") or template.get("servingTool") or await default_serving_tool(self.run)
        least = await least_instances(self.run)
        minimum = 0 if least == "0" and tool == "KSERVE" else 1
        body = diff.creation_body(
            self.run.name, self.model, settings, serving_tool=tool, minimum=minimum, template=template
        )
        present = {name for name, value in settings.items() if value is not None}
        preconditions.check_combination(body, {*present, "framework", "script_file", "serving_tool"})
        preconditions.check_minimum(body, must_be_zero=least == "0")
        await check_files(project, self.model, body)
        await self._provide_scripts(settings)
        return body

    async def create(self, body: Mapping[str, Any]) -> tuple[Deployment, bool]:
        """
        Create the deployment; afterwards it is stopped.

        :param body: from ``prepare_create``
        :return: the deployment, and whether this request created it, as far as known
        :raises Replan: another client has created the deployment meanwhile
        :raises UnsupportedError: the server left out settings that it does not know
        """
        log.info("Creating deployment %r of %s", self.run.name, _served(self.model))
        try:
            await api.put_deployment(self.run.project, legacy_artifacts.for_creating(body))
        except HopsworksError as error:
            if isinstance(error, RequestRefusedError) and error.code == api.DUPLICATED_ENTRY:
                log.warning("%s; continuing with the live deployment", error)
                raise Replan from error
            if not error.outcome_unknown:
                raise
            log.warning("%s; checking whether it was created", error)
            self.on_sent(True)
            live = await self._read_unknown_outcome(lambda deployment: deployment is not None)
            if live is None:
                self.on_sent(False)
                raise
            return live, False
        self.on_sent(True)
        live = await self._confirmed(await self.read(), None, None)
        if live is None:
            message = f"Deployment {self.run.name!r} was deleted by another client right after it was created."
            raise SupersededError(message)
        return live, True

    async def update(
        self, live: Deployment, *, newest_version: int | None, schema: CarriedSchema | None = None
    ) -> Deployment:
        """
        Send the change once, if the deployment is still as it was checked, and read back the stored resource.

        :param live: the deployment as it was checked, in a state in which the server accepts changes
        :param newest_version: number of the newest deployment version; None if the server keeps no versions
        :param schema: the schema of its requests afterwards, from ``prepare_update``; None: it stays as it is
        :raises Replan: the deployment has changed since, or is busy
        :raises SupersededError: another client changed or deleted the deployment meanwhile
        :raises UnsupportedError: the server left out settings that it does not know
        """
        before = await unchanged(self.run.project, await self.read(live), live, lambda: self.read(live))
        if before is None or not self.differs(before):
            raise Replan
        _check_changeable(before, schema)
        differing = diff.differences(before.raw, self.settings)
        log.info("Updating %s: %s", before, diff.describe_changes(differing))
        body = legacy_artifacts.for_changing(before.raw, _body(before, self.settings, schema), differing)
        new_version = newest_version is not None and any(setting_of(name).versioned for name in differing)
        try:
            await api.put_deployment(self.run.project, body, new_version=new_version)
        except HopsworksError as error:
            if isinstance(error, RequestRefusedError) and (error.status == 409 or error.not_now):
                log.warning("%s; reading it again", error)
                raise Replan(is_busy=error.status != 409) from error
            if not error.outcome_unknown:
                raise
            log.warning("%s; checking whether it was carried out", error)
            self.on_sent(True)
            stored = await self._read_unknown_outcome(
                lambda deployment: deployment is None or not self.differs(deployment), before
            )
            if stored is not None and self.differs(stored):
                if newest_version is not None and new_version:
                    await self._check_not_kept(stored, newest_version)
                raise Replan(is_busy=True) from error
        else:
            self.on_sent(True)
            stored = await self.read(before)
        stored = await self._confirmed(stored, before, schema)
        if stored is None:
            message = f"Deployment {self.run.name!r} was deleted by another client while it was updated."
            raise SupersededError(message)
        return stored

    async def prepare_update(self, live: Deployment) -> CarriedSchema:
        """
        Check the change against the live deployment, and upload its scripts and its request schema.

        :param live: the live deployment
        :return: the schema that its requests have afterwards
        :raises InvalidInputError: the deployment cannot be changed like this; no change was sent
        """
        differing = diff.differences(live.raw, self.settings)
        preconditions.check_live(live, self.model, differing)
        body = diff.update_body(live.raw, self.settings)
        preconditions.check_changes(body, differing)
        await check_files(self.run.project, self.model, body)
        schema = await carry_schema(self.run.project, self.run.routes, live, self.model, body, backoff=self.backoff())
        await self._provide_scripts({name: self.settings[name] for name in differing})
        return schema

    async def set_tags(self, deployment: Deployment) -> bool:
        """
        Set the desired tags of the deployment.

        :return: whether any tag had to be changed
        """
        if "tags" not in self.settings:
            return False
        return await tags.set_tags(self.run.project, deployment, self.settings["tags"], self.run.routes)

    async def _provide_scripts(self, desired: SettingValues) -> None:
        for name, script in desired.items():
            if isinstance(script, Script):
                await scripts.provide(self.run.project, name, script)

    async def _confirmed(
        self, stored: Deployment | None, before: Deployment | None, schema: CarriedSchema | None
    ) -> Deployment | None:
        """
        Read a deployment that was stored otherwise than desired again.

        :return: the deployment as it was read last; None if it was deleted
        :raises HopsworksError: it still is; ``_fault``
        """
        find = functools.partial(_fault, self.settings, before=before, schema=schema)
        stored = await confirmed(stored, lambda now: find(now) is not None, lambda: self.read(before))
        if stored is not None and (fault := find(stored)) is not None:
            raise fault
        return stored

    async def _check_not_kept(self, live: Deployment, newest_before: int) -> None:
        """
        Check that a change with an unknown outcome was not stored as a version that is not active yet.

        :raises DeploymentError: it was; sending it again would store it twice
        """
        versions = await self.run.routes.versions(self.run.project, live, complete=True, backoff=self.backoff())
        versioned = {name: value for name, value in self.settings.items() if setting_of(name).versioned}
        for version in versions or []:
            is_newer = version.version > newest_before
            if is_newer and not diff.differences({"name": self.run.name, **version.raw}, versioned):
                message = (
                    f"{live}: the change was stored as deployment version {version.version}, which is not the active "
                    "one. It is not sent again, since that would store it twice.\nRoll back to that version."
                )
                raise DeploymentError(message)

    async def _read_unknown_outcome(
        self, is_done: Callable[[Deployment | None], bool], was: Deployment | None = None
    ) -> Deployment | None:
        """Poll for a change whose response was lost, for as long as a slow server may still carry it out."""
        backoff = self.run.backoff(1.0, min(self.deadline, self.run.clock() + IN_DOUBT))
        while True:
            deployment = await read_again(api.get_deployment(self.run.project, self.run.name), backoff, was)
            if is_done(deployment):
                return deployment
            delay = backoff.next_delay(about=deployment or self.run.name)
            if delay is None:
                return deployment
            await Sleep(delay)


def _does_not_exist(run: Run, others: Sequence[Deployment]) -> InvalidInputError:
    known = ", ".join(sorted(other.name for other in others)) or "none"
    return InvalidInputError(
        f"Deployment {run.name!r} does not exist in project {run.project.name!r}; there are: {known}. To create it, "
        "name a model, or set script_file in spec."
    )


async def default_serving_tool(run: Run) -> str:
    """Return the serving tool of a new deployment for which none was requested: KSERVE, or DEFAULT without KServe."""
    installed = await run.routes.read(api.get_variable("kube_kserve_installed"), api.get_project(run.project.name))
    return "KSERVE" if installed == "true" else "DEFAULT"


async def least_instances(run: Run) -> str | None:
    """Return the cluster's lower limit for the minimum number of instances, as text: "0" requires 0, "-1" is none."""
    variable = api.get_variable("kube_serving_min_num_instances")
    return await run.routes.read(variable, api.get_project(run.project.name))


def _served(model: ModelVersion | None) -> str:
    return "a script" if model is None else f"version {model.version} of model {model.name!r}"


def _check_changeable(before: Deployment, schema: CarriedSchema | None) -> None:
    """
    Check that a deployment names the schema that was checked, and that the server accepts changes.

    :raises Replan: another client has published another schema or a first one, or the deployment is busy
    """
    if schema is not None and not schema.is_of(before.raw):
        raise Replan
    if not before.status.is_stable:
        raise Replan(is_busy=True)


def _fault(
    settings: SettingValues, stored: Deployment, before: Deployment | None, schema: CarriedSchema | None
) -> HopsworksError | None:
    """
    Return the fault of a stored resource; None if it is as desired.

    :param settings: the desired settings
    :param stored: the deployment as it was read back
    :param before: the deployment before the update; None if it was created
    :param schema: the schema of its requests after an update
    :return: ``UnsupportedError`` if the server dropped settings that it does not know; ``UnexpectedResponseError``
        if the change was answered, and was not carried out; ``SupersededError`` if another client changed it
    """
    missing = diff.differences(stored.raw, settings)
    if not missing:
        return _schema_fault(schema, stored)
    names = ", ".join(setting_of(name).field for name in missing)
    # A setting that the server dropped has its value from before, or the default in a new deployment. Any other
    # value was set by another client.
    dropped = all(
        live == (setting_of(name).read(before.raw) if before else setting_of(name).default)
        for name, (live, _desired) in missing.items()
    )
    # We have not started a new deployment yet. If it is neither Creating nor Created, another client started it.
    is_untouched = stored.status in _NEW if before is None else stored.signature == before.signature
    is_unknown = not _ALWAYS_KNOWN & missing.keys()
    if is_untouched and not is_unknown:
        message = (
            f"{stored}: the change of {names} was answered, and was not carried out.\nRun the task again. If this "
            "repeats, check whether a proxy answers for Hopsworks."
        )
        return UnexpectedResponseError(message, status=200)
    if is_unknown and (is_untouched or dropped):
        message = (
            f"{stored}: this Hopsworks does not know {names}: it accepted the change, but did not store that. "
            "Remove it from spec, or use a newer Hopsworks."
        )
        return UnsupportedError(message)
    message = (
        f"{stored} was changed by another client right after our {'update' if before else 'creating it'}: {names}."
    )
    return SupersededError(message)


def _schema_fault(schema: CarriedSchema | None, stored: Deployment) -> HopsworksError | None:
    """Return the fault of a change that was stored without the variables that name its schema; else None."""
    if schema is None or schema.is_stored(stored.raw):
        return None
    return UnsupportedError(
        f"{stored}: the change was stored without the environment variables that name its request schema.\n"
        "Check whether another client changed the deployment at the same time."
    )


def _body(before: Deployment, settings: SettingValues, schema: CarriedSchema | None) -> dict[str, Any]:
    body = diff.update_body(before.raw, settings)
    if schema is not None:
        schema.write(body)
    return body
