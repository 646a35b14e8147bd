"""The trigger that watches a rollout."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError

from .base import HsmlTrigger, find_project, shared_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class RolloutTrigger(HsmlTrigger):
    """
    Watch a rollout until it has finished or failed, and probe and bake the deployment. Deploying tasks defer to it.

    It only reads and probes; the task acts on the result. If a person kills the task meanwhile, Airflow 3.3 and later
    notify the trigger, and with ``stop_when_killed`` it stops the deployment.

    :param watch: the ids, names and numbers of the watch, from ``hopsworks.promotion.resume.to_json``
    :param cut_off: the task's execution_timeout in seconds since 1970, at which the watch ends; None: no limit
    :param stop_when_killed: whether to stop the deployment when a person kills the task
    :param more: the arguments of ``HsmlTrigger``
    """

    def __init__(
        self,
        *,
        watch: Mapping[str, Any],
        cut_off: float | None = None,
        stop_when_killed: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.watch = watch
        self.cut_off = cut_off
        self.stop_when_killed = stop_when_killed

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the rollout, and send the result to the task."""
        left = None if self.cut_off is None else max(self.cut_off - time.time(), 0.0)
        try:
            async with asyncio.timeout(left):
                event = await self._finish_watch()
        except TimeoutError:
            message = f"Deployment {self.watch['deployment_name']!r}: the task's execution_timeout has passed."
            event = trigger_event.failure(DeadlineExceededError(message))
        except Exception as error:  # noqa: BLE001 - a task must hear of any end
            event = self.failure(error)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _finish_watch(self) -> dict[str, Any]:
        from airflow_provider_hsml.hopsworks.flow import Backoff, steady  # noqa: PLC0415 - imports more than storing a trigger needs
        from airflow_provider_hsml.hopsworks.promotion import resume  # noqa: PLC0415

        clock = steady()
        backoff = Backoff(first=1.0, most=self.watch["poll_interval"], deadline=self.watch["deadline"], clock=clock)
        async with shared_client(self.hsml_conn_id, self.project) as client:
            watch = resume.from_json(await find_project(client, backoff), self.watch, clock)
            return await client.drive(resume.run_in_trigger(watch), self.watch["deadline"])

    async def on_kill(self) -> None:
        """Stop the deployment that was being created, if ``stop_when_killed`` is set. A person has killed the task."""
        from airflow_provider_hsml.hopsworks import api  # noqa: PLC0415 - imports more than storing a trigger needs

        name = self.watch["deployment_name"]
        if not self.stop_when_killed:
            self.log.info("Deployment %r is left as it is: Hopsworks still carries out the change that was sent.", name)
            return
        async with shared_client(self.hsml_conn_id, self.project) as client:
            project = await client.project()
            deployment = await client.send(api.get_deployment_by_id(project, self.watch["deployment_id"]))
            if deployment is not None and not deployment.status.is_down:
                self.log.info("Stopping %s, which this task was creating", deployment)
                await client.send(api.stop_deployment(project, deployment))
