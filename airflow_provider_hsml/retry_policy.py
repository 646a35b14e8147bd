"""
``HopsworksRetryPolicy`` for the argument ``retry_policy`` of tasks, on Airflow 3.3 and later.

No other module imports this one: on an earlier Airflow its import is an error that says so.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow import __version__ as airflow_version

from .hopsworks.domain import arguments
from .hopsworks.errors import HopsworksError

try:
    from airflow.providers.common.compat.sdk import RetryDecision, RetryPolicy
except ImportError:
    message = (
        f"HopsworksRetryPolicy needs Airflow 3.3 or later; this is Airflow {airflow_version}.\n"
        "Remove retry_policy from the task."
    )
    raise ImportError(message) from None

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = ["HopsworksRetryPolicy"]

LONGEST_REQUESTED_DELAY = timedelta(hours=1)
"""The most for which a server's Retry-After puts a retry off."""


class HopsworksRetryPolicy(RetryPolicy):
    """
    Decide by the provider's errors whether and when Airflow runs a failed task again.

    - No room in the cluster, or a reached quota: later. Airflow 3.4 reschedules the task, which uses none of its
      ``retries``. Airflow 3.3 uses one.
    - A transient error with a ``Retry-After`` that is longer than the task's ``retry_delay``: after that time, at most
      an hour.
    - A permanent error: the task fails.
    - Any other error: as Airflow does without a policy.

    :param capacity_delay: seconds, or a ``timedelta``, until the next attempt where there is no room or a quota is
        reached
    :param capacity_timeout: seconds, or a ``timedelta``, for which Airflow 3.4 reschedules a try before it has failed
    """

    def __init__(
        self, *, capacity_delay: float | timedelta = 600.0, capacity_timeout: float | timedelta = 6 * 3600.0
    ) -> None:
        self.capacity_delay = timedelta(seconds=arguments.seconds("capacity_delay", capacity_delay))
        self.capacity_timeout = timedelta(seconds=arguments.seconds("capacity_timeout", capacity_timeout))

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow passes it by name
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,
    ) -> RetryDecision:
        """
        Return the decision about a failed task.

        :param exception: the error that the task ended with
        :param try_number: the number of the try; unused
        :param max_tries: the number of tries; unused
        :param context: the context of the task
        """
        if not isinstance(exception, HopsworksError):
            return RetryDecision.default()
        if exception.is_out_of_capacity:
            return self._run_later("Hopsworks has no room, or a quota is reached")
        if not exception.transient:
            return RetryDecision.fail("Hopsworks: a retry would not help")
        delay = timedelta(seconds=min(exception.requested_delay or 0.0, LONGEST_REQUESTED_DELAY.total_seconds()))
        if delay > (context["task"].retry_delay if context else timedelta(0)):
            return RetryDecision.retry(delay, reason="The server asks for a retry after this time")
        return RetryDecision.default()

    def _run_later(self, reason: str) -> RetryDecision:
        reschedule = getattr(RetryDecision, "reschedule", None)
        if reschedule is None:  # Airflow 3.3
            return RetryDecision.retry(self.capacity_delay, reason)
        decision: RetryDecision = reschedule(
            self.capacity_delay, reschedule_timeout=self.capacity_timeout, reason=reason
        )
        return decision
