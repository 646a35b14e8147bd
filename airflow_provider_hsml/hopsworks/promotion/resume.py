"""
Leaving a long wait to somebody else: what a trigger is told of it, and what it tells at its end.

Both are plain JSON: ids, names and numbers. What else is needed is in the deployment's journal: the rows to ask, and
what the version before answered to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api, errors
from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import RolloutCause, RolloutTracker
from airflow_provider_hsml.hopsworks.domain.verification import Verification
from airflow_provider_hsml.hopsworks.errors import (
    CertificateError,
    DeadlineExceededError,
    DeploymentError,
    DeploymentFailedError,
    HopsworksError,
    InvalidInputError,
    NotFoundError,
    SupersededError,
    UnsupportedError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, read_patiently
from airflow_provider_hsml.hopsworks.inference.predict import ROUTE_BUDGET
from airflow_provider_hsml.hopsworks.rollout.probe import Prober
from airflow_provider_hsml.hopsworks.rollout.status import with_log_tail
from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch

from .journal import read_probe_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Clock
    from airflow_provider_hsml.hopsworks.rollout.watch import WatchResult

ARRIVED, FAILED, START = "arrived", "failed", "start"
_OF_A_SENTENCE = (
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
    CertificateError,
    DeadlineExceededError,
    DeploymentError,
    VerificationError,
    SupersededError,
)
_NUMBERS = (
    "tolerance",
    "version_path",
    "health_path",
    "max_latency_ms",
    "bake_seconds",
    "probe_interval",
    "max_error_rate",
)


class _StartNeeded(Exception):
    """The START has to be sent again, which is for a worker to do."""


def why_not(watch: RolloutWatch) -> str:
    """
    Tell why a watch cannot be left to somebody else; empty when it can.

    :param watch: the watch
    """
    judge, checks = watch.verifier.judge, watch.verifier.checks
    if watch.worker_only:
        return "only this worker knows what may have to follow"
    if watch.noted is None and (checks.body is not None or judge.champion is not None):
        return "there is no journal to keep what verifies it"
    if checks.expect is not None and checks.expect.is_theirs:
        return f"{checks.expect.name} is code of yours, which is run in a worker only"
    return ""


def written(watch: RolloutWatch) -> dict[str, Any]:
    """
    Write a watch down.

    :param watch: the watch
    """
    roll, judge, checks = watch.roll, watch.verifier.judge, watch.verifier.checks
    return {
        "deployment_name": watch.verifier.name,
        "deployment_id": watch.deployment_id,
        "action": watch.action,
        "has_changed": watch.has_changed,
        "moved": roll.moved.name,
        "since": roll.since,
        "signature": list(roll.signature) if roll.signature else None,
        "old_names": sorted(roll.old_names),
        "can_wake": roll.can_wake,
        "started_again": roll.started_again,
        "timeout": watch.timeout,
        "deadline": watch.deadline,
        "poll_interval": watch.interval,
        "down_since": watch.down_since,
        "noted": watch.noted,
        "said": watch.said,
        "champion_version": judge.champion_version,
        "expect": checks.expect.name if checks.expect else None,
        "on_failure": "rollback" if checks.rolls_back else "leave",
        **{name: getattr(checks, name) for name in _NUMBERS},
    }


def read(project: Project, data: Mapping[str, Any], clock: Clock) -> RolloutWatch:
    """
    Make a watch of what ``written`` gave.

    :param project: the deployment's project
    :param data: what was written
    :param clock: tells the seconds since 1970
    """
    names = ("expect", "on_failure", *_NUMBERS)
    checks = Verification(**{name: data[name] for name in names}).checks()
    verifier = Prober(project, data["deployment_name"], clock, checks)
    verifier.judge.champion_version = data["champion_version"]
    roll = RolloutTracker(
        RolloutCause[data["moved"]],
        since=data["since"],
        signature=tuple(data["signature"]) if data["signature"] else None,
        old_names=frozenset(data["old_names"]),
        can_wake=data["can_wake"],
        started_again=data["started_again"],
    )
    return RolloutWatch(
        project,
        data["deployment_id"],
        roll,
        verifier,
        action=data["action"],
        has_changed=data["has_changed"],
        timeout=data["timeout"],
        deadline=data["deadline"],
        interval=data["poll_interval"],
        start=_leave,
        down_since=data["down_since"],
        noted=data["noted"],
        said=data["said"],
    )


async def _leave(deployment: Deployment) -> None:
    """Send no START."""
    raise _StartNeeded(deployment.name)


async def report(watch: RolloutWatch) -> dict[str, Any]:
    """
    See a watch through, and say how it ended, for ``Resumption`` to go on.

    :param watch: what ``read`` gave
    """
    verifier = watch.verifier
    try:
        if watch.noted is not None:
            asked = await read_probe_inputs(watch.project, verifier.name, watch.noted)
            verifier.checks = replace(verifier.checks, body=asked.get("body"))
            verifier.judge = replace(verifier.judge, checks=verifier.checks, champion=asked.get("champion"))
        seen: WatchResult = await watch.run()
    except _StartNeeded:
        ended: dict[str, Any] = {"status": START}
    except HopsworksError as error:
        ended = failed(error)
    else:
        ended = {"status": ARRIVED, "verified_by": seen.verified_by, "downtime": seen.downtime}
    return {**ended, "signature": list(watch.seen.signature) if watch.seen else None}


def failed(error: HopsworksError) -> dict[str, Any]:
    """
    Say how something ended that failed.

    :param error: what it failed with
    """
    return {"status": FAILED, "kind": type(error).__name__, "message": str(error), "transient": error.transient}


def check(event: object) -> Mapping[str, Any]:
    """
    Give an event back when it says how a watch has ended; nothing is taken for granted.

    :param event: what a trigger ended with
    :raises DeadlineExceededError: it says nothing; asking again attaches to what is under way
    """
    keys = {ARRIVED: {"verified_by", "downtime", "signature"}, FAILED: {"kind", "message", "transient"}, START: set()}
    if isinstance(event, dict) and keys.get(str(event.get("status")), {""}) <= set(event):
        return event
    message = (
        f"The wait in the triggerer ended with {event!r}, which says nothing. Have scheduler, triggerer and workers "
        "run the same version of this provider."
    )
    raise DeadlineExceededError(message)


def error_of(event: Mapping[str, Any], live: Deployment | None = None) -> HopsworksError:
    """
    Make the error that ``failed`` was told of.

    :param event: what it gave
    :param live: the deployment as it is
    """
    kind = getattr(errors, event["kind"], HopsworksError)
    if kind is DeploymentFailedError and live is not None:
        return DeploymentFailedError(live)
    # Those that are made of more than a sentence are as good as any other here.
    error = (kind if kind in _OF_A_SENTENCE else HopsworksError)(event["message"])
    error.transient = event["transient"]
    return error


@dataclass(slots=True)
class Resumption:
    """An arrival that goes on from how a watch has ended elsewhere. Drive ``run()``."""

    project: Project
    watch: RolloutWatch
    event: Mapping[str, Any]
    seen: Deployment | None = field(init=False, default=None)
    """As it was seen last."""

    @property
    def has_changed(self) -> bool:
        """Whether a change of ours has been carried out."""
        return self.watch.has_changed

    async def run(self) -> Outcome:
        """
        Go on.

        :raises HopsworksError: as ``Watch.run``
        """
        return await with_log_tail(self.project, self._go_on())

    async def _go_on(self) -> Outcome:
        watch, event, clock = self.watch, self.event, self.watch.verifier.clock
        backoff = Backoff(first=1.0, most=watch.interval, deadline=clock() + ROUTE_BUDGET, clock=clock)
        live = await read_patiently(api.get_deployment_by_id(self.project, watch.deployment_id), backoff)
        last = event.get("signature")
        if live is not None and last is not None:
            self.seen = replace(live, version=last[0], revision=last[1])
        if event["status"] == FAILED:
            raise error_of(event, live)
        if live is None or self.seen is None or live.signature != self.seen.signature:
            message = (
                f"{live or 'It'} was changed by somebody else while it was watched; what they set is left as it is."
            )
            raise SupersededError(message)
        if event["status"] == START:
            await api.start_deployment(self.project, live)
            roll = replace(watch.roll, since=clock(), started_again=True)
            seen = await replace(watch, roll=roll, seen=live)
            return Outcome(seen.deployment, watch.action, seen.verified_by, seen.downtime)
        return Outcome(live, watch.action, event["verified_by"], event["downtime"])
