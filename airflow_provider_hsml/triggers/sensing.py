"""What sensors are deferred to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.flow import Backoff, steady

from .base import HsmlTrigger, find_project, shared_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_hsml.hopsworks.sensing.conditions import SensorCondition

LEAST_INTERVAL = 0.5
"""Seconds between looks at the least, whatever a sensor's poke_interval is."""


class SensorTrigger(HsmlTrigger):
    """
    Looks until it is there, and tells the sensor how that ended. It only reads.

    :param deadline: when it gives up, seconds since 1970, so that a restart of the triggerer does not begin anew
    :param poll_interval: seconds between looks
    :param longest_interval: seconds to which that grows; None: it does not
    :param more: the arguments of ``HsmlTrigger``
    """

    def __init__(
        self, *, deadline: float, poll_interval: float = 60.0, longest_interval: float | None = None, **more: Any
    ) -> None:
        super().__init__(**more)
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.longest_interval = longest_interval

    def lookout(self) -> SensorCondition:
        """Say what is looked for."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is there, cannot be there any more, or the deadline has passed."""
        from airflow_provider_hsml.hopsworks.sensing.conditions import wait_until_met  # noqa: PLC0415 - not needed to make one

        first = max(self.poll_interval, LEAST_INTERVAL)
        most = max(first, self.longest_interval or 0.0)
        backoff = Backoff(first=first, most=most, deadline=self.deadline, clock=steady())
        try:
            async with shared_client(self.hsml_conn_id, self.project) as client:
                project = await find_project(client, backoff)
                seen = wait_until_met(self.lookout(), client.access, project, backoff)
                found = await client.drive(seen, self.deadline)
        except HopsworksError as error:
            yield TriggerEvent(trigger_event.failure(error))  # type: ignore[no-untyped-call]
        else:
            yield TriggerEvent(trigger_event.success(found))  # type: ignore[no-untyped-call]
