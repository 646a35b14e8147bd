"""The triggers that wait for model versions."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.triggers import BaseEventTrigger
from airflow.triggers.base import TriggerEvent

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.criteria import read_wanted
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError

from .base import HsmlTrigger, shared_client
from .sensor import MIN_POLL_INTERVAL, SensorTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import timedelta

    from airflow_provider_hsml.hopsworks.sensing.conditions import VersionCondition
    from airflow_provider_hsml.hopsworks.sensing.new_versions import NewVersionFeed

EVENT_STORED_AFTER = 3.0
"""
Seconds after which Airflow has surely stored an event: its triggerer passes events on once a second. The trigger saves
its progress only then, so that a triggerer killed in between sends the event twice instead of never.
"""


class AwaitModelVersionTrigger(SensorTrigger):
    """
    Wait until a version of a model meets all conditions. ``ModelVersionSensor`` defers to it.

    :param model_name: the model in the registry
    :param wanted: the conditions, by the names of ``ModelVersionSensor``'s arguments
    :param how: the arguments of ``SensorTrigger``
    """

    def __init__(self, *, model_name: str, wanted: Mapping[str, Any], **how: Any) -> None:
        super().__init__(**how)
        self.model_name = model_name
        self.wanted = wanted

    def condition(self) -> VersionCondition:
        """Return the condition to wait for."""
        from airflow_provider_hsml.hopsworks.sensing.conditions import VersionCondition  # noqa: PLC0415 - not needed to parse a DAG

        return VersionCondition.read(self.model_name, **self.wanted)


class ModelVersionTrigger(HsmlTrigger, BaseEventTrigger):
    """
    Send an event for each new version of a model, once. Use it in an ``AssetWatcher`` (Airflow 3), to start a DAG.

    It does not matter which client registers the version. A version is new if it did not exist, or did not meet the
    conditions, when the trigger started. With ``newer_than``, every version above that number is new.

    On Airflow 3.3 and later, the trigger saves its progress in the asset's state store. A restarted triggerer sends no
    event twice, and sends those of versions registered meanwhile. Before 3.3, or with changed arguments, each start is
    a first start.

    The event's payload is the same as the result of ``ModelVersionSensor``.

    :param model_name: the model in the registry
    :param newer_than: only versions with a higher number than this one, including existing ones
    :param metric: only versions with a finite value of this metric
    :param at_least: the lowest accepted value of ``metric``
    :param at_most: the highest accepted value of ``metric``
    :param tag: only versions with these tags, values by tag name; a version counts as new once it has them. Each
        version's tags are read separately, so set ``newer_than`` for a model with many versions
    :param model_project: another project that owns the model and shares its registry with this one
    :param poll_interval: seconds between polls, or a ``timedelta``
    :param more: the arguments of ``HsmlTrigger``: ``hsml_conn_id``, ``project``
    :raises TypeError: an argument is invalid
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
        poll_interval: float | timedelta = 60.0,
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
        try:
            self.poll_interval = arguments.seconds("poll_interval", poll_interval, least=MIN_POLL_INTERVAL)
            _, read, _ = read_wanted(model_name, **self._criteria())
        except InvalidInputError as error:
            # Airflow's triggerer survives no other error than TypeError here.
            message = f"ModelVersionTrigger: {error}"
            raise TypeError(message) from error
        self.newer_than, self.at_least, self.at_most = read.newer_than, read.at_least, read.at_most
        self.tag = dict(read.tags) or None
        # As read: Airflow stores the arguments of a trigger, so they have to be numbers and text of Python.
        as_read = {name: value for name, value in self._criteria().items() if name in self._arguments}
        self._arguments = {**self._arguments, **as_read, "poll_interval": self.poll_interval}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll and send events, until Airflow stops the trigger."""
        feed, last_logged = self._feed(), ""
        store = await self._restore(feed)
        while True:
            pause = self.poll_interval
            try:
                async with shared_client(self.hsml_conn_id, self.project) as client:
                    project = await client.project()
                    while True:
                        saved = feed.state
                        look = feed.look(client.access, project)
                        for version in await client.drive(look, math.inf):
                            yield TriggerEvent(version)  # type: ignore[no-untyped-call]
                        if store is not None and feed.state != saved:
                            await asyncio.sleep(EVENT_STORED_AFTER)
                            await store.aset(self._key, feed.state)
                        last_logged = ""
                        await asyncio.sleep(self.poll_interval)
            except Exception as error:
                # There is no task that could fail, and the next response may be good, whatever this one has caused. The
                # connection is read again: its key may have been replaced.
                known = isinstance(error, HopsworksError)
                pause = max(pause, (error.retry_after if isinstance(error, HopsworksError) else None) or 0.0)
                text = str(error) if known else f"The poll ended with an unexpected {type(error).__name__}"
                if text != last_logged:
                    last_logged = text
                    shown = None if known else error
                    self.log.warning("%s; polling again every %g s", text, self.poll_interval, exc_info=shown)
            await asyncio.sleep(pause)

    def _feed(self) -> NewVersionFeed:
        from airflow_provider_hsml.hopsworks.sensing.conditions import VersionCondition  # noqa: PLC0415
        from airflow_provider_hsml.hopsworks.sensing.new_versions import NewVersionFeed  # noqa: PLC0415 - imports more than parsing a DAG needs

        return NewVersionFeed(VersionCondition.read(self.model_name, **self._criteria()))

    def _criteria(self) -> dict[str, Any]:
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
        """The key of the saved progress. It depends on the arguments: progress with others does not apply."""
        wanted = json.dumps([self.hsml_conn_id, self.project, self._criteria()], sort_keys=True)
        return f"hsml_{self.model_name}_{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"

    async def _restore(self, feed: NewVersionFeed) -> Any:
        """Restore the progress of an earlier run. Return the store for further progress, or None without one."""
        store = getattr(self, "asset_state_store", None)
        if store is not None:
            try:
                feed.recall(await store.aget(self._key))
            except ValueError as error:
                # Airflow has one store for each asset, and this trigger cannot tell which asset to use.
                self.log.warning("Progress is not saved: several assets watch with the same arguments (%s)", error)
                return None
        return store
