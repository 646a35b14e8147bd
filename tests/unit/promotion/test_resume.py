"""The second START of a deferred change, which the resuming task sends: against a fake Hopsworks."""

from __future__ import annotations

import pytest

from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.domain.judge import Checks
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import RolloutCause, RolloutTracker
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, RequestRefusedError, SupersededError
from airflow_provider_hsml.hopsworks.promotion.resume import Resumption
from airflow_provider_hsml.hopsworks.rollout.inputs import ResumePoint
from airflow_provider_hsml.hopsworks.rollout.probe import Prober
from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch, SentChange
from tests.support.arrivals import FILES, starts
from tests.support.fake import LOST, PROJECT, UNSENT, FakeHopsworks, refusal, row

BUSY = refusal(500, 240004, "Instance is busy")


def stopped(*faults: object) -> FakeHopsworks:
    """Build a server with a stopped deployment; the faults befall the next STARTs."""
    fake = FakeHopsworks(row=row("Stopped", modelVersion=2), files=FILES, faults={"START": list(faults)})
    starts(fake)
    return fake


def resumption(fake: FakeHopsworks) -> Resumption:
    """Build a start whose trigger found that another START is needed."""
    watch = RolloutWatch(
        14,
        RolloutTracker(RolloutCause.START, since=fake.now, started_again=True),
        Prober(PROJECT, "digits", fake.clock, Checks()),
        SentChange("started", has_changed=True),
        ResumePoint(),
        timeout=600.0,
        deadline=fake.now + 600.0,
        interval=10.0,
    )
    return Resumption(watch, trigger_event.read(trigger_event.start_needed({"signature": [1, "100"]})))


def test_the_second_start_is_sent_once() -> None:
    fake = stopped()

    assert fake.run(resumption(fake).run()).action == "started"
    assert fake.sent.count("START") == 1


def test_a_busy_refusal_of_the_second_start_is_retried() -> None:
    fake = stopped(*[BUSY] * 5)

    assert fake.run(resumption(fake).run()).action == "started"
    assert fake.sent.count("START") == 6


def test_a_deployment_that_stays_busy_until_the_deadline() -> None:
    fake = stopped(*[BUSY] * 999)

    with pytest.raises(DeadlineExceededError, match=r"could not be started within 600 s: .*Instance is busy"):
        fake.run(resumption(fake).run())
    assert fake.now <= 1600.0


def test_a_second_start_without_a_response_is_not_sent_again() -> None:
    fake = stopped(LOST)

    assert fake.run(resumption(fake).run()).action == "started"
    assert fake.sent.count("START") == 1


def test_a_second_start_that_was_never_carried_out_fails_by_the_polls() -> None:
    fake = stopped(UNSENT)

    with pytest.raises(SupersededError, match="was stopped by another client"):
        fake.run(resumption(fake).run())
    assert fake.sent.count("START") == 1


def test_another_refusal_of_the_second_start_is_raised() -> None:
    fake = stopped(refusal(400, 240003, "quota reached"))

    with pytest.raises(RequestRefusedError, match="quota reached"):
        fake.run(resumption(fake).run())
    assert fake.sent.count("START") == 1
