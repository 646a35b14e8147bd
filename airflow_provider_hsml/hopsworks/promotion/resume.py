"""
Defer the long wait of a change to a trigger, and resume the change from the trigger's event.

A trigger stores ids, names and numbers only. The rest is in the deployment's journal: the request that verifies the
change, and the answer of the previous version to it. A deferral takes these steps:

1. ``ChangeRecord.begin`` writes these probe inputs to the journal, before the change is sent.
2. ``_defer`` in operators/base.py calls ``to_json``: the result is an argument of the trigger. Airflow keeps it for the
   task as well, with ``ResumePoint.context``, which holds the decision.
3. ``RolloutTrigger`` in triggers/rollouts.py rebuilds the watch with ``from_json``, and drives ``run_in_trigger``. This
   reads the probe inputs from the journal.
4. ``run_in_trigger`` returns the event, in a shape of domain/trigger_event.py.
5. Airflow calls the operator's ``resume``, which parses the event with ``trigger_event.read`` and calls the hook.
6. ``resume_promotion`` of the hook rebuilds the watch and builds a ``Resumption``.
7. ``promote.resume_promotion`` rebuilds the decision from the context.
8. ``GuardedChange.resume`` finds the change in the journal by its id, and writes the end of the change there.
9. ``Resumption.run`` returns the outcome, raises the error of the event, or sends another START and watches on. It also
   watches on after an event that this version cannot read.

A start or restart keeps no journal: its hook method ``resume_start`` goes from step 5 to step 9.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.domain.deployment import DeploymentStatus, check_kept
from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import (
    FailureTracker,
    IdleTracker,
    InstanceTracker,
    RolloutCause,
    RolloutTracker,
)
from airflow_provider_hsml.hopsworks.domain.trigger_event import Failure, Success, Unknown
from airflow_provider_hsml.hopsworks.domain.verification import checks_from_json, checks_to_json
from airflow_provider_hsml.hopsworks.errors import DeploymentFailedError, HopsworksError, SupersededError
from airflow_provider_hsml.hopsworks.flow import Backoff, read_patiently
from airflow_provider_hsml.hopsworks.inference.predict import ROUTE_BUDGET
from airflow_provider_hsml.hopsworks.rollout.inputs import FIRST_DELAY_START, ResumePoint, Run
from airflow_provider_hsml.hopsworks.rollout.probe import Prober
from airflow_provider_hsml.hopsworks.rollout.start import send_start
from airflow_provider_hsml.hopsworks.rollout.status import with_log_tail
from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch, SentChange, StartNeeded

from .journal import read_probe_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.project import Project
    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event
    from airflow_provider_hsml.hopsworks.flow import Clock


log = logging.getLogger(__name__)

_STORED = ("verified_by", "downtime", "seconds", "failed_probes")
"""What an event keeps of the result of a watch, which the outcome holds under the same names."""


def why_not_deferrable(watch: RolloutWatch) -> str:
    """
    Return why a watch has to stay in the worker; an empty text if it may be deferred.

    :param watch: the watch
    """
    judge, checks = watch.prober.judge, watch.prober.checks
    if watch.resume.worker_only:
        return "the rest of the change needs what only this worker knows"
    if watch.resume.journal_id is None and (checks.body is not None or judge.champion is not None):
        return "there is no journal to keep the inputs of its verification"
    if checks.expect is not None and checks.expect.is_user_function:
        return f"{checks.expect.name} is code of yours, which runs in a worker only"
    return ""


def to_json(watch: RolloutWatch) -> dict[str, Any]:
    """
    Return a watch as a trigger stores it.

    :param watch: the watch
    """
    tracker, judge, checks = watch.tracker, watch.prober.judge, watch.prober.checks
    return {
        "deployment_name": watch.prober.name,
        "deployment_id": watch.deployment_id,
        "action": watch.change.action,
        "has_changed": watch.change.has_changed,
        "stopped_at": watch.change.stopped_at,
        "is_way_back": watch.change.is_way_back,
        "cause": tracker.cause.name,
        "since": tracker.since,
        "signature": list(tracker.signature) if tracker.signature else None,
        "model_version": tracker.model_version,
        "old_names": sorted(tracker.instances.previous),
        "can_wake": tracker.idle.can_wake,
        "started_again": tracker.started_again,
        "unschedulable_grace": tracker.failure.unschedulable_grace,
        "timeout": watch.timeout,
        "deadline": watch.deadline,
        "poll_interval": watch.interval,
        "journal_id": watch.resume.journal_id,
        "last_logged": watch.last_logged,
        "champion_version": judge.champion_version,
        "was_unreachable": watch.prober.was_unreachable,
        "is_dropped": watch.prober.is_dropped,
        **checks_to_json(checks),
    }


def from_json(project: Project, data: Mapping[str, Any], clock: Clock) -> RolloutWatch:
    """
    Rebuild a watch from the result of ``to_json``.

    :param project: the deployment's project
    :param data: the watch as a trigger stores it
    :param clock: returns the seconds since 1970
    """
    prober = Prober(project, data["deployment_name"], clock, checks_from_json(data))
    prober.judge.champion_version = data["champion_version"]
    # A wait of an older version of this package lacks these.
    prober.was_unreachable = data.get("was_unreachable", False)
    prober.is_dropped = data.get("is_dropped", False)
    tracker = RolloutTracker(
        RolloutCause[data["cause"]],
        since=data["since"],
        signature=tuple(data["signature"]) if data["signature"] else None,
        model_version=data["model_version"],
        instances=InstanceTracker(frozenset(data["old_names"])),
        idle=IdleTracker(can_wake=data["can_wake"]),
        started_again=data["started_again"],
        failure=FailureTracker(data["unschedulable_grace"]),
    )
    return RolloutWatch(
        data["deployment_id"],
        tracker,
        prober,
        SentChange(data["action"], data["has_changed"], data["stopped_at"], data.get("is_way_back", False)),
        ResumePoint(data["journal_id"]),
        timeout=data["timeout"],
        deadline=data["deadline"],
        interval=data["poll_interval"],
        last_logged=data["last_logged"],
    )


async def run_in_trigger(watch: RolloutWatch) -> dict[str, Any]:
    """
    Run a watch in a trigger, and return the event from which ``Resumption`` continues.

    :param watch: from ``from_json``
    """
    try:
        await _recall(watch)
        result = await watch.run()
    except HopsworksError as error:
        return trigger_event.failure(error, _signature(watch))
    if isinstance(result, StartNeeded):
        return trigger_event.start_needed(_signature(watch))
    found = {name: getattr(result, name) for name in _STORED}
    return trigger_event.success({**_signature(watch), **found})


async def _recall(watch: RolloutWatch) -> None:
    """Give a watch the probe inputs that its worker wrote to the journal."""
    prober, journal_id = watch.prober, watch.resume.journal_id
    if journal_id is not None:
        inputs = await read_probe_inputs(prober.project, prober.name, journal_id)
        prober.checks = dataclasses.replace(prober.checks, body=inputs.get("body"))
        prober.judge = dataclasses.replace(prober.judge, checks=prober.checks, champion=inputs.get("champion"))


def _signature(watch: RolloutWatch) -> dict[str, Any]:
    return {"signature": list(watch.seen.signature) if watch.seen else None}


@dataclass(slots=True)
class Resumption:
    """A change that continues after its long wait was deferred."""

    watch: RolloutWatch
    """The wait as it was deferred."""
    event: Event
    """The event with which the trigger ended."""
    seen: Deployment | None = field(init=False, default=None)
    """The deployment as the trigger read it last."""

    def __post_init__(self) -> None:
        """Keep nothing of an event that lacks what a watch is resumed from."""
        if not _is_readable(self.event):
            self.event = Unknown()

    @property
    def has_changed(self) -> bool:
        """Whether a change of ours was carried out, as far as is known."""
        return self.watch.change.has_changed

    async def run(self) -> Outcome:
        """
        Continue the change.

        :raises HopsworksError: as ``RolloutWatch.run``
        """
        return await with_log_tail(self.watch.prober.project, self._run())

    async def _run(self) -> Outcome:
        watch, event = self.watch, self.event
        project, clock = watch.prober.project, watch.prober.clock
        backoff = Backoff(first=1.0, most=watch.interval, deadline=clock() + ROUTE_BUDGET, clock=clock)
        last = event.result.get("signature")
        check = functools.partial(check_kept, watch.deployment_id, last or watch.tracker.signature or (None, None))
        live = await read_patiently(api.get_deployment_by_id(project, watch.deployment_id), backoff, check)
        if isinstance(event, Unknown):
            self.seen = live
        elif live is not None and last is not None:
            self.seen = dataclasses.replace(live, version=last[0], revision=last[1])
        if isinstance(event, Failure) and not (event.is_failed_deployment and live):
            raise event.error()
        if live is None or self.seen is None or not live.continues(self.seen.signature):
            message = f"{live or 'It'} was changed by another client while it was watched; their change is kept."
            raise SupersededError(message)
        if isinstance(event, Success):
            # An event of an older version of this package lacks some.
            found = {name: event.result[name] for name in _STORED if name in event.result}
            return Outcome(live, watch.change.action, **found)
        if isinstance(event, Failure) and live.status is DeploymentStatus.FAILED:
            failed = DeploymentFailedError(live)
            failed.transient = failed.is_out_of_capacity = event.transient
            raise failed
        log.info("Watching %s in this worker", live)
        await _recall(watch)
        # It stays in this worker: the context that another resumption needs is not in the watch.
        watch = dataclasses.replace(watch, seen=live, resume=dataclasses.replace(watch.resume, worker_only=True))
        result = StartNeeded(live) if isinstance(event, trigger_event.StartNeeded) else await watch
        if isinstance(result, StartNeeded):
            run = Run(project, live.name, watch.timeout, watch.interval, clock)
            await send_start(run, result.deployment, run.backoff(FIRST_DELAY_START, watch.deadline))
            watch.tracker = dataclasses.replace(watch.tracker, since=clock(), started_again=True)
            result = await watch
        if isinstance(result, StartNeeded):
            raise AssertionError  # noqa: TRY004 - no wrong type: a watch asks for another START only once
        return result.outcome(watch.change.action)


def _is_readable(event: Event) -> bool:
    """Whether an event has what ``run_in_trigger`` of this version writes."""
    match event:
        case Success({"signature": [_, _], "verified_by": _, "downtime": _}):
            return True
        case trigger_event.StartNeeded({"signature": [_, _]}) | Failure():
            return True
    return False
