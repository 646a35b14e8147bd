"""The state machine that follows a rollout: a table of looks, and what it says next."""

from __future__ import annotations

import pytest

from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import NextStep, RolloutCause, RolloutTracker
from airflow_provider_hsml.hopsworks.errors import (
    DeploymentFailedError,
    HopsworksError,
    SupersededError,
    VerificationError,
)
from tests.support.samples import deployment

LOOK, WAKE, START, NAMES, PROBE = NextStep.LOOK, NextStep.WAKE, NextStep.START, NextStep.NAMES, NextStep.PROBE

RUNNING = deployment("serving/running")
SIGNATURE = RUNNING.signature
OURS = {"version": RUNNING.version, "revision": RUNNING.revision}


def look(status: str, *, instances: int = 1, minimum: int = 1, **changes: object) -> Deployment:
    raw = {"status": status, "availableInstances": instances, "predictorScalingConfig": {"minInstances": minimum}}
    return deployment("serving/running", **(OURS | {"condition": None} | raw | changes))


UPDATING, IDLE, FAILED = look("Updating"), look("Idle", instances=0), look("Failed")
IDLE_ZERO = look("Idle", instances=0, minimum=0)
CREATED, STOPPED, STOPPING, STARTING = (
    look("Created", revision=None),
    look("Stopped"),
    look("Stopping"),
    look("Starting"),
)
UNSCHEDULABLE = look("Failed", condition={"type": "SCHEDULED", "status": False, "reason": "no room"})
BROKEN = look("Failed", condition={"type": "STARTED", "status": False, "reason": "crashed"})
STRANGER = look("Running", revision="9")

Script = list[tuple[float, Deployment, NextStep | type[HopsworksError]]]


def play(roll: RolloutTracker, script: Script) -> None:
    """Show one look after another; each has its time, and what has to come of it."""
    for number, (now, seen, expected) in enumerate(script):
        if isinstance(expected, NextStep):
            assert roll.next(seen, now) is expected, f"look {number} at {now} s"
        else:
            with pytest.raises(expected):
                roll.next(seen, now)


AFTER_A_CHANGE: dict[str, Script] = {
    "a first Running is not believed": [(0, RUNNING, LOOK), (19, RUNNING, LOOK), (20, RUNNING, PROBE)],
    "a rollout that was seen settles sooner": [
        (0, RUNNING, LOOK),
        (2, UPDATING, LOOK),
        (9, RUNNING, LOOK),
        (14, RUNNING, PROBE),
    ],
    "Updating begins the settling anew": [
        (0, UPDATING, LOOK),
        (2, RUNNING, LOOK),
        (6, UPDATING, LOOK),
        (7, RUNNING, LOOK),
        (12, RUNNING, PROBE),
    ],
    "too few instances are not enough": [
        (0, UPDATING, LOOK),
        (2, look("Running", instances=1, minimum=2), LOOK),
        (30, look("Running", instances=1, minimum=2), LOOK),
        (31, look("Running", instances=2, minimum=2), LOOK),
        (36, look("Running", instances=2, minimum=2), PROBE),
    ],
    "a stale Idle passes": [(0, IDLE, LOOK), (2, UPDATING, LOOK), (5, RUNNING, LOOK), (10, RUNNING, PROBE)],
    "Idle with instances to keep means that it was never applied": [
        (0, IDLE, LOOK),
        (59, IDLE, LOOK),
        (60, IDLE, VerificationError),
    ],
    "Idle is counted anew after anything else": [
        (0, IDLE, LOOK),
        (50, UPDATING, LOOK),
        (55, IDLE, LOOK),
        (100, IDLE, LOOK),
    ],
    "Idle that may be is woken, once in a while": [
        (0, IDLE_ZERO, WAKE),
        (5, IDLE_ZERO, LOOK),
        (30, IDLE_ZERO, WAKE),
        (35, look("Running", minimum=0), LOOK),
        (55, look("Running", minimum=0), PROBE),
    ],
    "an unknown status is not there yet": [(0, look("Rebalancing"), LOOK), (100, look("Rebalancing"), LOOK)],
    "Failed that passes": [
        (0, BROKEN, LOOK),
        (29, BROKEN, LOOK),
        (30, UPDATING, LOOK),
        (40, BROKEN, LOOK),
        (69, BROKEN, LOOK),
    ],
    "Failed that stays": [(0, BROKEN, LOOK), (30, BROKEN, DeploymentFailedError)],
    "no room may take longer to pass": [
        (0, UNSCHEDULABLE, LOOK),
        (299, UNSCHEDULABLE, LOOK),
        (300, UNSCHEDULABLE, DeploymentFailedError),
    ],
    "somebody else changes it": [(0, UPDATING, LOOK), (2, STRANGER, SupersededError)],
    "somebody stops it": [(0, UPDATING, LOOK), (2, STOPPING, SupersededError)],
    "somebody stopped it": [(0, STOPPED, SupersededError)],
    "creating after an update": [(0, look("Creating"), LOOK), (5, RUNNING, LOOK), (10, RUNNING, PROBE)],
}


@pytest.mark.parametrize("script", AFTER_A_CHANGE.values(), ids=AFTER_A_CHANGE)
def test_after_a_change(script: Script) -> None:
    play(RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE), script)


AFTER_A_START: dict[str, Script] = {
    "nothing old can answer, so nothing has to settle": [(0, CREATED, LOOK), (1, STARTING, LOOK), (4, RUNNING, PROBE)],
    "the first revision is ours": [
        (0, CREATED, LOOK),
        (1, look("Starting", revision="7"), LOOK),
        (2, look("Running", revision="7"), PROBE),
    ],
    "a second one is not": [
        (1, look("Starting", revision="7"), LOOK),
        (2, look("Running", revision="8"), SupersededError),
    ],
    "a START that did nothing is sent once more": [
        (0, STOPPED, LOOK),
        (9, STOPPED, LOOK),
        (10, STOPPED, START),
        (19, STOPPED, LOOK),
        (20, STOPPED, SupersededError),
    ],
    "a stale Stopping passes": [(0, STOPPING, LOOK), (2, STARTING, LOOK)],
    "a Stopping later is somebody's": [(0, STARTING, LOOK), (11, STOPPING, SupersededError)],
    "Failed that stays": [(1, STARTING, LOOK), (5, BROKEN, LOOK), (35, BROKEN, DeploymentFailedError)],
}


@pytest.mark.parametrize("script", AFTER_A_START.values(), ids=AFTER_A_START)
def test_after_a_start(script: Script) -> None:
    play(RolloutTracker(RolloutCause.START, since=0), script)


def test_the_default_tool_settles_in_its_own_time() -> None:
    plain = look("Running", servingTool="DEFAULT")

    play(
        RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE),
        [(0, plain, LOOK), (9, plain, LOOK), (10, plain, PROBE)],
    )


def test_old_names_hold_it_up() -> None:
    roll = RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE, old_names=frozenset({"old"}))

    play(roll, [(0, UPDATING, LOOK), (2, RUNNING, LOOK), (7, RUNNING, NAMES)])
    assert not roll.names(frozenset({"old", "new"}))
    play(roll, [(9, RUNNING, LOOK), (16, RUNNING, LOOK), (17, RUNNING, NAMES)])
    assert roll.names(frozenset({"new"}))
    play(roll, [(18, RUNNING, PROBE)])


def test_says_when_to_look_again() -> None:
    roll = RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE, old_names=frozenset({"old"}))

    assert (roll.next(UPDATING, 0), roll.look_within) == (LOOK, 2)
    assert (roll.next(RUNNING, 2), roll.look_within) == (LOOK, 5)
    assert (roll.next(RUNNING, 7), roll.look_within) == (NAMES, 10)
    assert (roll.next(RUNNING, 9), roll.look_within) == (LOOK, 8)


def test_looks_come_late_by_a_quarter_of_the_time_at_the_most() -> None:
    roll = RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE)
    seen = [
        (roll.next(deployment, now), roll.look_within)
        for deployment, now in ((RUNNING, 1), (UPDATING, 4), (UPDATING, 60))
    ]

    assert seen == [(LOOK, 2), (LOOK, 2), (LOOK, 15)]


def test_names_that_cannot_be_read_hold_nothing_up() -> None:
    roll = RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE, old_names=frozenset({"old"}))

    assert roll.names(frozenset())
    assert not roll.names_are_new


def test_an_answer_of_the_version_before_begins_the_settling_anew() -> None:
    roll = RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE)

    play(roll, [(0, RUNNING, LOOK), (20, RUNNING, PROBE)])
    roll.not_yet()
    play(roll, [(21, RUNNING, LOOK), (26, RUNNING, PROBE)])


def test_idle_without_anything_to_wake_it_with_settles() -> None:
    roll = RolloutTracker(RolloutCause.CHANGE, since=0, signature=SIGNATURE, can_wake=False)

    play(roll, [(0, IDLE_ZERO, LOOK), (20, IDLE_ZERO, PROBE)])
