"""The state machine that follows a rollout: a table of polls and the next step after each."""

from __future__ import annotations

import pytest

from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import (
    EarlyProbes,
    IdleTracker,
    InstanceTracker,
    NextStep,
    RolloutCause,
    RolloutTracker,
)
from airflow_provider_hsml.hopsworks.errors import (
    AmbiguousVerificationError,
    DeploymentFailedError,
    HopsworksError,
    SupersededError,
)
from tests.support.samples import deployment

POLL, WAKE, START, READ_NAMES, PROBE_EARLY, PROBE, LIVE = (
    NextStep.POLL,
    NextStep.WAKE,
    NextStep.START,
    NextStep.READ_NAMES,
    NextStep.PROBE_EARLY,
    NextStep.PROBE,
    NextStep.LIVE,
)

RUNNING = deployment("serving/running")
SIGNATURE = RUNNING.signature
OURS = {"version": RUNNING.version, "revision": RUNNING.revision}


def poll(status: str, *, instances: int = 1, minimum: int = 1, **changes: object) -> Deployment:
    raw = {"status": status, "availableInstances": instances, "predictorScalingConfig": {"minInstances": minimum}}
    return deployment("serving/running", **(OURS | {"condition": None} | raw | changes))


UPDATING, IDLE, FAILED = poll("Updating"), poll("Idle", instances=0), poll("Failed")
IDLE_ZERO = poll("Idle", instances=0, minimum=0)
CREATED, STOPPED, STOPPING, STARTING = (
    poll("Created", revision=None),
    poll("Stopped"),
    poll("Stopping"),
    poll("Starting"),
)
UNSCHEDULABLE = poll("Failed", condition={"type": "SCHEDULED", "status": False, "reason": "no room"})
BROKEN = poll("Failed", condition={"type": "STARTED", "status": False, "reason": "crashed"})
CHANGED_BY_ANOTHER = poll("Running", revision="9")

Script = list[tuple[float, Deployment, NextStep | type[HopsworksError]]]


def play(tracker: RolloutTracker, script: Script) -> None:
    """Feed the polls to the tracker in turn; each has its time, and the expected step or error."""
    for number, (now, seen, expected) in enumerate(script):
        if isinstance(expected, NextStep):
            assert tracker.next(seen, now) is expected, f"poll {number} at {now} s"
        else:
            with pytest.raises(expected):
                tracker.next(seen, now)


AFTER_A_CHANGE: dict[str, Script] = {
    "a first Running proves nothing": [
        (0, RUNNING, POLL),
        (4, RUNNING, POLL),
        (5, RUNNING, PROBE_EARLY),
        (19, RUNNING, POLL),
        (20, RUNNING, PROBE),
    ],
    "a rollout that a poll saw settles sooner": [
        (0, RUNNING, POLL),
        (2, UPDATING, POLL),
        (9, RUNNING, PROBE_EARLY),
        (11, RUNNING, POLL),
        (14, RUNNING, PROBE),
    ],
    "Updating restarts the settle time": [
        (0, UPDATING, POLL),
        (2, RUNNING, PROBE_EARLY),
        (6, UPDATING, POLL),
        (7, RUNNING, POLL),
        (12, RUNNING, PROBE),
    ],
    "too few instances are not enough": [
        (0, UPDATING, POLL),
        (2, poll("Running", instances=1, minimum=2), POLL),
        (30, poll("Running", instances=1, minimum=2), POLL),
        (31, poll("Running", instances=2, minimum=2), PROBE_EARLY),
        (36, poll("Running", instances=2, minimum=2), PROBE),
    ],
    "a stale Idle passes": [(0, IDLE, POLL), (2, UPDATING, POLL), (5, RUNNING, PROBE_EARLY), (10, RUNNING, PROBE)],
    "Idle with a minimum of instances means that the change was never applied": [
        (0, IDLE, POLL),
        (59, IDLE, POLL),
        (60, IDLE, AmbiguousVerificationError),
    ],
    "any other status restarts the count of Idle": [
        (0, IDLE, POLL),
        (50, UPDATING, POLL),
        (55, IDLE, POLL),
        (100, IDLE, POLL),
    ],
    "Idle with a minimum of 0 is woken now and then": [
        (0, IDLE_ZERO, WAKE),
        (5, IDLE_ZERO, POLL),
        (30, IDLE_ZERO, WAKE),
        (35, poll("Running", minimum=0), POLL),
        (55, poll("Running", minimum=0), PROBE),
    ],
    "an unknown status is polled again": [(0, poll("Rebalancing"), POLL), (100, poll("Rebalancing"), POLL)],
    "Failed that passes": [
        (0, BROKEN, POLL),
        (29, BROKEN, POLL),
        (30, UPDATING, POLL),
        (40, BROKEN, POLL),
        (69, BROKEN, POLL),
    ],
    "Failed that stays": [(0, BROKEN, POLL), (30, BROKEN, DeploymentFailedError)],
    "an unschedulable deployment has more time": [
        (0, UNSCHEDULABLE, POLL),
        (299, UNSCHEDULABLE, POLL),
        (300, UNSCHEDULABLE, DeploymentFailedError),
    ],
    "another client changes it": [(0, UPDATING, POLL), (2, CHANGED_BY_ANOTHER, SupersededError)],
    "another client stops it": [(0, UPDATING, POLL), (2, STOPPING, SupersededError)],
    "another client has stopped it": [(0, STOPPED, SupersededError)],
    "Creating after an update": [(0, poll("Creating"), POLL), (5, RUNNING, PROBE_EARLY), (10, RUNNING, PROBE)],
}


@pytest.mark.parametrize("script", AFTER_A_CHANGE.values(), ids=AFTER_A_CHANGE)
def test_after_a_change(script: Script) -> None:
    play(RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE), script)


AFTER_A_START: dict[str, Script] = {
    "no old instance can answer, so there is no settle time": [
        (0, CREATED, POLL),
        (1, STARTING, POLL),
        (4, RUNNING, PROBE),
    ],
    "the first revision is ours": [
        (0, CREATED, POLL),
        (1, poll("Starting", revision="7"), POLL),
        (2, poll("Running", revision="7"), PROBE),
    ],
    "a second revision is another client's": [
        (1, poll("Starting", revision="7"), POLL),
        (2, poll("Running", revision="8"), SupersededError),
    ],
    "another model version is another client's": [
        (1, poll("Running", modelVersion=77), SupersededError),
    ],
    "a response without a model version is no other client's": [
        (1, poll("Starting", modelVersion=None), POLL),
        (2, RUNNING, PROBE),
    ],
    "a START without effect is sent once more": [
        (0, STOPPED, POLL),
        (9, STOPPED, POLL),
        (10, STOPPED, START),
        (19, STOPPED, POLL),
        (20, STOPPED, SupersededError),
    ],
    "a stale Stopping passes": [(0, STOPPING, POLL), (2, STARTING, POLL)],
    "a later Stopping is another client's": [(0, STARTING, POLL), (11, STOPPING, SupersededError)],
    "Failed that stays": [(1, STARTING, POLL), (5, BROKEN, POLL), (35, BROKEN, DeploymentFailedError)],
}


@pytest.mark.parametrize("script", AFTER_A_START.values(), ids=AFTER_A_START)
def test_after_a_start(script: Script) -> None:
    play(RolloutTracker(RolloutCause.START, since=0, model_version=RUNNING.model_version), script)


def test_the_default_tool_has_its_own_settle_time() -> None:
    plain = poll("Running", servingTool="DEFAULT")

    play(
        RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE),
        [(0, plain, POLL), (9, plain, PROBE_EARLY), (10, plain, PROBE)],
    )


def test_previous_instances_delay_the_probe() -> None:
    tracker = RolloutTracker(
        RolloutCause.CHANGE, since=0, signature=SIGNATURE, instances=InstanceTracker(frozenset({"old"}))
    )

    play(tracker, [(0, UPDATING, POLL), (2, RUNNING, PROBE_EARLY), (7, RUNNING, READ_NAMES)])
    assert not tracker.instances.record(frozenset({"old", "new"}))
    play(tracker, [(9, RUNNING, POLL), (16, RUNNING, POLL), (17, RUNNING, READ_NAMES)])
    assert tracker.instances.record(frozenset({"new"}))
    play(tracker, [(18, RUNNING, PROBE)])


def test_seconds_until_the_next_poll() -> None:
    tracker = RolloutTracker(
        RolloutCause.CHANGE, since=0, signature=SIGNATURE, instances=InstanceTracker(frozenset({"old"}))
    )

    assert (tracker.next(UPDATING, 0), tracker.poll_within) == (POLL, 2)
    assert (tracker.next(RUNNING, 2), tracker.poll_within) == (PROBE_EARLY, 5)
    assert (tracker.next(RUNNING, 7), tracker.poll_within) == (READ_NAMES, 10)
    assert (tracker.next(RUNNING, 9), tracker.poll_within) == (POLL, 8)


def test_polls_are_late_by_at_most_a_quarter_of_the_time() -> None:
    tracker = RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE)
    seen = [
        (tracker.next(deployment, now), tracker.poll_within)
        for deployment, now in ((RUNNING, 1), (UPDATING, 4), (UPDATING, 60))
    ]

    assert seen == [(POLL, 2), (POLL, 2), (POLL, 15)]


def test_unknown_names_delay_nothing() -> None:
    tracker = RolloutTracker(
        RolloutCause.CHANGE, since=0, signature=SIGNATURE, instances=InstanceTracker(frozenset({"old"}))
    )

    assert tracker.instances.record(frozenset())
    assert not tracker.instances.all_new


def test_an_answer_of_the_previous_version_restarts_the_settle_time() -> None:
    tracker = RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE)

    play(tracker, [(0, RUNNING, POLL), (20, RUNNING, PROBE)])
    tracker.record_previous_answer(100)
    play(tracker, [(21, RUNNING, PROBE_EARLY), (26, RUNNING, PROBE)])


class TestEarlyProbes:
    """Probes during the settle time: their success counts as long as the status stays stable."""

    def tracker(self, early: EarlyProbes) -> RolloutTracker:
        tracker = RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE)
        play(tracker, [(0, UPDATING, POLL), (2, RUNNING, PROBE_EARLY)])
        tracker.settle.early = early
        return tracker

    def test_proof_ends_the_settle_time(self) -> None:
        play(self.tracker(EarlyProbes.PROVED), [(6, RUNNING, LIVE)])

    def test_success_without_proof_waits_for_its_end(self) -> None:
        play(self.tracker(EarlyProbes.PASSED), [(6, RUNNING, POLL), (7, RUNNING, LIVE)])

    @pytest.mark.parametrize("early", [EarlyProbes.PROVED, EarlyProbes.PASSED])
    @pytest.mark.parametrize("status", [UPDATING, BROKEN, IDLE, poll("Running", instances=0)])
    def test_another_status_takes_it_back(self, early: EarlyProbes, status: Deployment) -> None:
        tracker = self.tracker(early)

        play(tracker, [(6, status, POLL), (8, RUNNING, POLL), (13, RUNNING, PROBE)])
        assert tracker.settle.early is EarlyProbes.SENT

    def test_another_clients_change_is_found_after_it(self) -> None:
        play(self.tracker(EarlyProbes.PROVED), [(6, CHANGED_BY_ANOTHER, SupersededError)])

    def test_they_are_sent_once(self) -> None:
        play(
            self.tracker(EarlyProbes.SENT),
            [(4, RUNNING, POLL), (5, UPDATING, POLL), (6, RUNNING, POLL), (11, RUNNING, PROBE)],
        )

    @pytest.mark.parametrize("cannot", ["wake", "tell which transformer answers"])
    def test_they_are_not_sent_where_they_prove_nothing(self, cannot: str) -> None:
        is_unasked = cannot == "wake"
        running = poll("Running", transformer=None if is_unasked else "/Projects/demo/Resources/t.py")
        tracker = RolloutTracker(
            RolloutCause.CHANGE, since=0, signature=SIGNATURE, idle=IdleTracker(can_wake=not is_unasked)
        )

        play(tracker, [(0, UPDATING, POLL), (2, running, POLL), (7, running, PROBE)])


def test_idle_without_a_request_to_wake_it_settles() -> None:
    tracker = RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE, idle=IdleTracker(can_wake=False))

    play(tracker, [(0, IDLE_ZERO, POLL), (20, IDLE_ZERO, PROBE)])


PARTLY_KNOWN: dict[str, tuple[tuple[int | None, str | None] | None, Script]] = {
    "a revision that was not known is learned": (
        (RUNNING.version, None),
        [(0, UPDATING, POLL), (2, CHANGED_BY_ANOTHER, SupersededError)],
    ),
    "nor does the first revision after a START have to be there at once": (
        None,
        [(0, poll("Starting", revision=None), POLL), (2, STARTING, POLL), (4, CHANGED_BY_ANOTHER, SupersededError)],
    ),
    "a version that was not known is learned": (
        (None, RUNNING.revision),
        [(0, UPDATING, POLL), (2, poll("Running", version=99), SupersededError)],
    ),
    "what is known has to stay": ((99, None), [(0, UPDATING, SupersededError)]),
}


@pytest.mark.parametrize(("signature", "script"), PARTLY_KNOWN.values(), ids=PARTLY_KNOWN)
def test_a_signature_that_is_known_in_part(signature: tuple[int | None, str | None] | None, script: Script) -> None:
    play(RolloutTracker(RolloutCause.CHANGE, since=0, signature=signature), script)
