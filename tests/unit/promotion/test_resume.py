"""The second START of a deferred change, which the resuming task sends: against a fake Hopsworks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.judge import Checks
from airflow_provider_hsml.hopsworks.domain.rollout_tracker import RolloutCause, RolloutTracker
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    DeploymentFailedError,
    RequestRefusedError,
    SupersededError,
)
from airflow_provider_hsml.hopsworks.flow import drive
from airflow_provider_hsml.hopsworks.promotion.resume import Resumption, from_json, to_json, why_not_deferrable
from airflow_provider_hsml.hopsworks.rollout.inputs import ResumePoint
from airflow_provider_hsml.hopsworks.rollout.probe import Prober
from airflow_provider_hsml.hopsworks.rollout.watch import RolloutWatch, SentChange
from tests.support.arrivals import FILES, starts
from tests.support.fake import LOST, PROJECT, UNSENT, FakeHopsworks, refusal, row

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome

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


def test_a_second_start_that_was_not_sent_is_sent_again() -> None:
    fake = stopped(UNSENT)

    assert fake.run(resumption(fake).run()).action == "started"
    assert fake.sent.count("START") == 2


def test_a_second_start_that_was_accepted_and_not_carried_out_fails_by_the_polls() -> None:
    fake = stopped()
    del fake.on["START"]

    with pytest.raises(SupersededError, match="was stopped by another client"):
        fake.run(resumption(fake).run())
    assert fake.sent.count("START") == 1


def test_another_refusal_of_the_second_start_is_raised() -> None:
    fake = stopped(refusal(400, 240003, "quota reached"))

    with pytest.raises(RequestRefusedError, match="quota reached"):
        fake.run(resumption(fake).run())
    assert fake.sent.count("START") == 1


class TestAFailureInTheTriggerer:
    """The worker resumes some time later."""

    @staticmethod
    def resume(fake: FakeHopsworks, *, transient: bool) -> Outcome:
        watch = resumption(fake).watch
        watch.tracker.cause, watch.tracker.signature = RolloutCause.CHANGE, (1, "100")
        failed = DeploymentFailedError(Deployment.from_json(row("Failed")))
        failed.transient = transient
        event = trigger_event.read(trigger_event.failure(failed, {"signature": [1, "100"]}))
        return fake.run(Resumption(watch, event).run())

    @pytest.mark.parametrize("transient", [True, False])
    def test_that_lasts_is_as_transient_as_the_trigger_found_it(self, transient: bool) -> None:
        fake = FakeHopsworks(row=row("Failed", modelVersion=2), files=FILES)

        with pytest.raises(DeploymentFailedError) as caught:
            self.resume(fake, transient=transient)
        assert caught.value.transient is transient

    def test_that_has_passed_is_watched_on(self) -> None:
        fake = FakeHopsworks(row=row("Updating", modelVersion=2), files=FILES, answers=[2])
        fake.after(5, fake.becomes("Running"))

        assert self.resume(fake, transient=True).deployment.status.value == "Running"

    def test_of_a_deployment_that_another_client_changed_is_theirs(self) -> None:
        fake = FakeHopsworks(row=row("Failed", modelVersion=2, revision="101"), files=FILES)

        with pytest.raises(SupersededError, match="their change is kept"):
            self.resume(fake, transient=True)


class TestAnEventOfAnotherVersion:
    """The worker reads the live state, and watches on."""

    EVENTS = (
        {"codec": "hsml/99", "payload": "AAEC"},
        None,
        {"status": "success", "result": {}},
        {"status": "success", "result": {"signature": "1.100", "verified_by": "status", "downtime": None}},
        {"status": "start_needed", "result": {}},
    )

    @staticmethod
    def resume(fake: FakeHopsworks, event: object, tracker: RolloutTracker) -> Outcome:
        watch = resumption(fake).watch
        watch.tracker = tracker
        return fake.run(Resumption(watch, trigger_event.read(event)).run())

    @pytest.mark.parametrize("event", EVENTS, ids=str)
    def test_of_a_rollout_that_goes_on(self, event: object) -> None:
        fake = FakeHopsworks(row=row("Updating", modelVersion=2), files=FILES, answers=[2])
        fake.after(5, fake.becomes("Running"))

        outcome = self.resume(fake, event, RolloutTracker(RolloutCause.CHANGE, fake.now, (1, "100")))
        assert outcome.deployment.status.value == "Running"
        assert "START" not in fake.sent

    @pytest.mark.parametrize("event", EVENTS, ids=str)
    def test_of_a_change_that_another_client_replaced(self, event: object) -> None:
        fake = FakeHopsworks(row=row("Running", modelVersion=2, revision="101"), files=FILES)

        with pytest.raises(SupersededError, match="their change is kept"):
            self.resume(fake, event, RolloutTracker(RolloutCause.CHANGE, fake.now, (1, "100")))

    def test_of_a_deployment_that_is_gone(self) -> None:
        fake = FakeHopsworks(row=None, files=FILES)

        with pytest.raises(SupersededError):
            self.resume(fake, None, RolloutTracker(RolloutCause.CHANGE, fake.now, (1, "100")))

    def test_of_a_start_that_has_shown_no_effect(self) -> None:
        fake = stopped()

        assert self.resume(fake, None, RolloutTracker(RolloutCause.START, fake.now)).action == "started"
        assert fake.sent.count("START") == 1


def test_the_grace_of_a_watch_is_that_of_its_bake_and_is_stored() -> None:
    fake = stopped()
    watch = resumption(fake).watch
    watch.tracker.failure.unschedulable_grace = 1800.0
    watch.change = SentChange("updated", has_changed=True, is_way_back=True)

    again = from_json(PROJECT, json.loads(json.dumps(to_json(watch))), fake.clock)

    assert again.tracker.failure.unschedulable_grace == 1800.0
    assert again.change == watch.change


def test_a_watch_of_an_earlier_release_is_read() -> None:
    data = {name: value for name, value in to_json(resumption(stopped()).watch).items() if name != "is_way_back"}

    assert not from_json(PROJECT, data, lambda: 0.0).change.is_way_back


def test_the_second_start_waits_in_its_worker() -> None:
    fake, deferred = stopped(), []

    def defer(wait: Any) -> Any:
        deferred.append(why_not_deferrable(wait))
        return drive(wait.run(), fake.send, fake.sleep)

    drive(resumption(fake).run(), fake.send, fake.sleep, defer)

    assert deferred == ["the rest of the change needs what only this worker knows"]
