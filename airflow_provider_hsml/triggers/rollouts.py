"""Following rollouts to their end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, HopsworksError
from airflow_provider_hsml.hopsworks.flow import Backoff, steady

from .base import HsmlTrigger, find_project, shared_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class RolloutTrigger(HsmlTrigger):
    """
    Follows a rollout until it has arrived or is lost, asks it, and bakes it: what deploying tasks are deferred to.

    It only reads and probes; what is to be done then is the task's. Where a person kills the task meanwhile, Airflow
    3.3 and later tell it, and ``stop_when_killed`` has the deployment stopped.

    :param watch: what is watched: ids, names and numbers, as ``hopsworks.promotion.resume.to_json`` returns them
    :param cut_off: when it ends at the latest, seconds since 1970: the task's execution_timeout; None: by itself
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
        """Watch, and tell how it ended."""
        left = None if self.cut_off is None else max(self.cut_off - time.time(), 0.0)
        try:
            async with asyncio.timeout(left):
                event = await self._see_through()
        except TimeoutError:
            message = f"Deployment {self.watch['deployment_name']!r}: the task's execution_timeout has passed."
            event = trigger_event.failure(DeadlineExceededError(message))
        except HopsworksError as error:
            event = trigger_event.failure(error)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _see_through(self) -> dict[str, Any]:
        from airflow_provider_hsml.hopsworks.promotion import resume  # noqa: PLC0415 - brings more than it takes to store one

        clock = steady()
        backoff = Backoff(first=1.0, most=self.watch["poll_interval"], deadline=self.watch["deadline"], clock=clock)
        async with shared_client(self.hsml_conn_id, self.project) as client:
            watch = resume.from_json(await find_project(client, backoff), self.watch, clock)
            return await client.drive(resume.run_in_trigger(watch), self.watch["deadline"])

    async def on_kill(self) -> None:
        """Stop a deployment that was being created, where that was asked for; a person has killed the task."""
        name = self.watch["deployment_name"]
        if not self.stop_when_killed:
            self.log.info("Deployment %r is left as it is: what was asked of it goes on.", name)
            return
        async with shared_client(self.hsml_conn_id, self.project) as client:
            project = await client.project()
            deployment = await client.send(api.get_deployment_by_id(project, self.watch["deployment_id"]))
            if deployment is not None and not deployment.status.is_down:
                self.log.info("Stopping %s, which this task was creating", deployment)
                await client.send(api.stop_deployment(project, deployment))
