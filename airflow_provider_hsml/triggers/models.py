"""Waiting for versions of models."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.triggers import BaseEventTrigger
from airflow.triggers.base import TriggerEvent

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError

from .base import HsmlTrigger, shared_client
from .sensing import LEAST_INTERVAL, SensorTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from airflow_provider_hsml.hopsworks.sensing.conditions import VersionCondition
    from airflow_provider_hsml.hopsworks.sensing.new_versions import NewVersionFeed

HANDED_ON = 3.0
"""
Seconds after which Airflow has surely noted an event: its triggerer hands them on once a second. What was told is
remembered after that, so that one killed in between tells it twice, and not never.
"""


class AwaitModelVersionTrigger(SensorTrigger):
    """
    Waits until a version of a model meets all that is asked for: what ``ModelVersionSensor`` is deferred to.

    :param model_name: the model in the registry
    :param desired: what the version has to meet: arguments of ``ModelVersionSensor``
    :param how: the arguments of ``SensorTrigger``
    """

    def __init__(self, *, model_name: str, wanted: Mapping[str, Any], **how: Any) -> None:
        super().__init__(**how)
        self.model_name = model_name
        self.wanted = wanted

    def lookout(self) -> VersionCondition:
        """Say what is looked for."""
        from airflow_provider_hsml.hopsworks.sensing.conditions import VersionCondition  # noqa: PLC0415 - not needed to parse a DAG

        return VersionCondition.read(self.model_name, **self.wanted)


class ModelVersionTrigger(HsmlTrigger, BaseEventTrigger):
    """
    Tells of each new version of a model once, whoever registers it: for an ``AssetWatcher`` (Airflow 3).

    New is what was not there when it began, or did not meet then what is asked for; with ``newer_than``, any above that
    number. On Airflow 3.3 and later it remembers what it has told, in the state store of the asset: a restart of the
    triggerer tells nothing twice, and of what came meanwhile. Before, it begins anew. So it does where arguments are
    changed.

    The event's payload is what ``ModelVersionSensor`` returns.

    :param model_name: the model in the registry
    :param newer_than: only versions with a higher number than this one, also those that are there already
    :param metric: only versions with a finite value of this metric
    :param at_least: ... of this at the least
    :param at_most: ... of this at the most
    :param tag: only versions with these tags: name -> value, from when they have them. They are read version by
        version, so give ``newer_than`` where a model has many
    :param model_project: another project that owns the model and shares its registry with this one
    :param poll_interval: seconds between looks
    :param more: the arguments of ``HsmlTrigger``: ``hsml_conn_id``, ``project``
    :raises TypeError: an argument is wrong
    """

    def __init__(
        self,
        *,
        model_name: str,
        newer_than: int | None = None,
        metric: str | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
        tag: Mapping[str, Any] | None = None,
        model_project: str | None = None,
        poll_interval: float = 60.0,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.model_name = model_name
        self.newer_than = newer_than
        self.metric = metric
        self.at_least = at_least
        self.at_most = at_most
        self.tag = tag
        self.model_project = model_project
        self.poll_interval = poll_interval
        try:
            arguments.number("poll_interval", poll_interval, least=LEAST_INTERVAL)
            self._announcer()
        except InvalidInputError as error:
            # The one error here that Airflow's triggerer survives.
            message = f"ModelVersionTrigger: {error}"
            raise TypeError(message) from error

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again, for as long as somebody watches."""
        announcer, said = self._announcer(), ""
        store = await self._recall(announcer)
        while True:
            try:
                async with shared_client(self.hsml_conn_id, self.project) as client:
                    project = await client.project()
                    while True:
                        remembered = announcer.state
                        look = announcer.look(client.access, project)
                        for version in await client.drive(look, math.inf):
                            yield TriggerEvent(version)  # type: ignore[no-untyped-call]
                        if store is not None and announcer.state != remembered:
                            await asyncio.sleep(HANDED_ON)
                            await store.aset(self._key, announcer.state)
                        said = ""
                        await asyncio.sleep(self.poll_interval)
            except HopsworksError as error:
                # There is no task that could fail. The connection is read anew: its key may be replaced meanwhile.
                if str(error) != said:
                    said = str(error)
                    self.log.warning("%s; looking again every %g s", said, self.poll_interval)
            await asyncio.sleep(self.poll_interval)

    def _announcer(self) -> NewVersionFeed:
        from airflow_provider_hsml.hopsworks.sensing.conditions import VersionCondition  # noqa: PLC0415
        from airflow_provider_hsml.hopsworks.sensing.new_versions import NewVersionFeed  # noqa: PLC0415 - brings more than it takes to parse a DAG

        return NewVersionFeed(VersionCondition.read(self.model_name, **self._wanted()))

    def _wanted(self) -> dict[str, Any]:
        return {
            "newer_than": self.newer_than,
            "metric": self.metric,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "tag": self.tag,
            "model_project": self.model_project,
        }

    @property
    def _key(self) -> str:
        """Where it is remembered: what was told for other arguments is another story."""
        wanted = json.dumps([self.hsml_conn_id, self.project, self._wanted()], sort_keys=True)
        return f"hsml_{self.model_name}_{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"

    async def _recall(self, announcer: NewVersionFeed) -> Any:
        """Go on where an earlier run ended; give where to remember how far this one comes, None where nowhere."""
        store = getattr(self, "asset_state_store", None)
        if store is not None:
            try:
                announcer.recall(await store.aget(self._key))
            except ValueError as error:
                # Airflow has one store an asset, and no name for each here.
                self.log.warning("Nothing is remembered: several assets watch with the same arguments (%s)", error)
                return None
        return store
