"""The journal of a promotion whose task is being killed: there are only seconds to find it."""

from __future__ import annotations

from airflow_provider_hsml.hopsworks.promotion.promote import Promotion, Selection
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from tests.support.fake import PROJECT, FakeHopsworks, row


def test_is_found_without_a_read_of_the_deployment_that_was_named() -> None:
    """A deployment that does not say which model version it serves could not be read, and would stay stopped."""
    fake = FakeHopsworks(row(modelVersion=None))
    run = Run(PROJECT, "digits", 600.0, 10.0, fake.clock)

    name, journal = fake.run(Promotion(run, Selection("digits"), {}).read_journal())

    assert (name, journal.newest, fake.looks) == ("digits", None, 0)
