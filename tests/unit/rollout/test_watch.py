from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.judge import Checks
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import InstanceTracker, RolloutCause, RolloutTracker
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError
from airflow_provider_hsml.hopsworks.rollout.inputs import ResumePoint
from airflow_provider_hsml.hopsworks.rollout.probe import Prober
from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch, SentChange
from tests.support.fake import PROJECT, FakeHopsworks, row


def watch(fake: FakeHopsworks, deadline: float, cause: RolloutCause = RolloutCause.CHANGE) -> RolloutWatch:
    """The wait for an update, as another process begins to run it."""
    tracker = RolloutTracker(cause, since=900.0, signature=None, instances=InstanceTracker(frozenset({"old"})))
    prober = Prober(PROJECT, "digits", fake.clock, Checks())
    change = SentChange("updated", has_changed=True)
    return RolloutWatch(14, tracker, prober, change, ResumePoint(), timeout=60, deadline=deadline, interval=10)


@pytest.mark.parametrize("late", [100, 5, 2, 0.5])
@pytest.mark.parametrize("status", ["Running", "Updating"])
def test_a_wait_that_begins_after_its_deadline_says_so(status: str, late: float) -> None:
    """As after an hour in the queue of a triggerer: nothing is known of the old instances then."""
    fake = FakeHopsworks(row(status))

    with pytest.raises(
        DeadlineExceededError, match=f"was not read once before the timeout of 60 s, but first {max(late, 1)} s"
    ) as c:
        fake.run(watch(fake, deadline=fake.now - late).run())

    assert "still run" not in str(c.value)
    assert "triggerer" in str(c.value).splitlines()[1]


def test_a_wait_that_was_read_in_time_says_what_it_saw() -> None:
    fake = FakeHopsworks(row("Updating"))

    with pytest.raises(DeadlineExceededError, match="is not live within 60 s") as caught:
        fake.run(watch(fake, deadline=fake.now + 60).run())

    assert "timeout" in str(caught.value).splitlines()[1]


def test_nothing_late_is_said_of_a_live_one() -> None:
    fake = FakeHopsworks(row(), names=["new"])
    ended: Any = fake.run(watch(fake, deadline=fake.now - 100, cause=RolloutCause.START).run())

    assert ended.deployment.status == "Running"
