"""A START that is refused: only one that the server accepted can have been undone by another client."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    HopsworksError,
    RequestRefusedError,
    SupersededError,
)
from airflow_provider_hsml.hopsworks.rollout.reconcile import Reconciler, reconcile
from tests.support.arrivals import FILES, V1, arrival, starts, stops
from tests.support.fake import LOST, UNSENT, FakeHopsworks, refusal, row

REFUSALS = {
    "internal error": refusal(500, 120000),
    "rate": refusal(429, 120009),
    "unavailable": refusal(503, 120009),
    "busy": refusal(500, 240004),
    "another state": refusal(400, 240003),
    "a proxy": Answer(502, b"<html>bad gateway"),
    "unsent": UNSENT,
}


def recreate(fake: FakeHopsworks) -> Reconciler:
    """Stop a deployment for a change of it, and start it afterwards."""
    stops(fake)
    starts(fake)
    return arrival(fake, recreate=True)


def start(fake: FakeHopsworks) -> Reconciler:
    assert fake.row is not None
    fake.row |= {"status": "Stopped", "modelVersion": 2}
    starts(fake)
    return arrival(fake)


def replace(fake: FakeHopsworks) -> Reconciler:
    """Stop and start a failed deployment of which nothing answers."""
    assert fake.row is not None
    fake.row |= {"status": "Failed"}
    fake.answers = refusal(500, 250007)
    stops(fake)
    starts(fake, answers=[1])
    return arrival(fake, V1)


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("change", [recreate, start, replace])
class TestARefusalForNow:
    def test_is_followed_by_another_start(self, change: Any, refused: Any) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"START": [refused] * 4})

        outcome = fake.run(reconcile(change(fake)))

        assert outcome.deployment.status == "Running"
        assert fake.sent.count("START") == 5

    def test_until_the_deadline_leaves_the_change_pending(self, change: Any, refused: Any) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"START": [refused] * 9999})

        with pytest.raises(HopsworksError) as caught:
            fake.run(reconcile(change(fake)))

        assert isinstance(caught.value, DeadlineExceededError)
        assert caught.value.transient
        assert "could not be started within 600 s" in str(caught.value)
        assert ("is left stopped" in str(caught.value)) == (change is not start)


def test_the_delay_that_the_server_asks_for_is_kept() -> None:
    body = refusal(429, 120009).content
    fake = FakeHopsworks(row=row(), files=FILES, faults={"START": [Answer(429, body, {"retry-after": "25"})] * 4})
    change = start(fake)
    begun = fake.now

    fake.run(reconcile(change))

    assert fake.now - begun >= 100


def test_a_refusal_that_was_carried_out_is_not_sent_again() -> None:
    fake = FakeHopsworks(row=row(), files=FILES, faults={"START": [refusal(500, 120000)]})
    change = start(fake)
    fake.after(8, fake.on["START"])

    assert fake.run(reconcile(change)).action == "started"
    assert fake.sent.count("START") == 1


def test_a_deployment_that_is_deleted_meanwhile_is_another_clients() -> None:
    fake = FakeHopsworks(row=row(), files=FILES, faults={"START": [LOST]})
    change = start(fake)
    fake.on["START"] = lambda: setattr(fake, "row", None)

    with pytest.raises(SupersededError, match="was deleted by another client"):
        fake.run(reconcile(change))


def test_a_refusal_for_good_leaves_a_deployment_that_was_stopped_for_the_change_started() -> None:
    """The first START is refused, and the one that undoes the stop is not."""
    fake = FakeHopsworks(row=row(), files=FILES, faults={"START": [refusal(403, 150068, "no role")]})

    with pytest.raises(RequestRefusedError, match="150068"):
        fake.run(reconcile(recreate(fake)))
    assert fake.sent.count("START") == 2
    assert fake.row is not None
    assert fake.row["status"] == "Starting"
