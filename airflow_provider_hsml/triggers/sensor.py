"""The base of the triggers that sensors defer to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_hsml.hopsworks.domain import trigger_event

from .base import HsmlTrigger, find_project, shared_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_hsml.hopsworks.sensing.conditions import SensorCondition

MIN_POLL_INTERVAL = 0.5
"""The shortest time between two polls in seconds, even if a sensor's poke_interval is shorter."""


class SensorTrigger(HsmlTrigger):
    """
    Poll until the sensor's condition is met, and send the result to the sensor. It only reads.

    :param deadline: end of the wait in seconds since 1970, so that a restarted triggerer does not wait longer
    :param poll_interval: seconds between polls
    :param longest_interval: seconds to which the interval grows; None: it stays the same
    :param more: the arguments of ``HsmlTrigger``
    """

    def __init__(
        self, *, deadline: float, poll_interval: float = 60.0, longest_interval: float | None = None, **more: Any
    ) -> None:
        super().__init__(**more)
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.longest_interval = longest_interval

    def condition(self) -> SensorCondition:
        """Return the condition to wait for."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the condition is met, can no longer be met, or the deadline has passed."""
        from airflow_provider_hsml.hopsworks.flow import Backoff, steady  # noqa: PLC0415 - not needed to create a trigger
        from airflow_provider_hsml.hopsworks.sensing.conditions import wait_until_met  # noqa: PLC0415

        first = max(self.poll_interval, MIN_POLL_INTERVAL)
        most = max(first, self.longest_interval or 0.0)
        backoff = Backoff(first=first, most=most, deadline=self.deadline, clock=steady())
        try:
            async with shared_client(self.hsml_conn_id, self.project) as client:
                project = await find_project(client, backoff)
                seen = wait_until_met(self.condition(), client.access, project, backoff)
                found = await client.drive(seen, self.deadline)
        except Exception as error:  # noqa: BLE001 - a task must hear of any end
            yield TriggerEvent(self.failure(error))  # type: ignore[no-untyped-call]
        else:
            yield TriggerEvent(trigger_event.success(found))  # type: ignore[no-untyped-call]
