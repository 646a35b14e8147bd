"""A deployment that an interrupted restart has left stopped is started, also through an outage."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError
from airflow_provider_hsml.hopsworks.flow import Backoff
from airflow_provider_hsml.hopsworks.rollout.restart import start_if_left_stopped
from tests.support.fake import LOST, PROJECT, UNSENT, FakeHopsworks, refusal, row

HTML = Answer(502, b"<html>bad gateway")


def start(fake: FakeHopsworks) -> None:
    backoff = Backoff(first=0.2, most=1, deadline=fake.now + 30, clock=fake.clock)
    fake.run(start_if_left_stopped(PROJECT, "digits", backoff))


@pytest.mark.parametrize("answer", [HTML, UNSENT, LOST, refusal(503, 0)])
def test_reads_that_fail_for_a_while(answer: Any) -> None:
    fake = FakeHopsworks(row("Stopped"), faults={"serving": [answer] * 15})
    fake.on["START"] = fake.becomes("Starting")

    start(fake)
    assert fake.sent == ["START"]


@pytest.mark.parametrize("answer", [HTML, UNSENT, refusal(400, 240003)])
def test_a_start_that_fails_for_a_while(answer: Any) -> None:
    fake = FakeHopsworks(row("Stopped"), faults={"START": [answer] * 10})
    fake.on["START"] = fake.becomes("Starting")

    start(fake)
    assert fake.row is not None
    assert fake.row["status"] == "Starting"


def test_a_start_whose_answer_is_lost_is_sent_once() -> None:
    fake = FakeHopsworks(row("Stopped"), faults={"START": [LOST]})
    fake.on["START"] = fake.becomes("Starting")

    start(fake)
    assert fake.sent == ["START"]


@pytest.mark.parametrize("status", ["Stopping", "Stopped"])
def test_one_that_cannot_be_started(status: str) -> None:
    fake = FakeHopsworks(row(status), faults={"START": [HTML] * 99})

    with pytest.raises(DeadlineExceededError):
        start(fake)
