"""What a deployment serves while rows are scored."""

from __future__ import annotations

from airflow_provider_hsml.hopsworks.batch.served import read_served
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from tests.support.fake import PROJECT, FakeHopsworks, row


def test_a_read_that_does_not_say_which_version_serves_is_repeated() -> None:
    fake = FakeHopsworks(row(), lacks={0: {"modelVersion": None}})
    run = Run(PROJECT, "digits", 60.0, 1.0, fake.clock)

    served = fake.run(read_served(run, run.backoff(1.0)))

    assert (served.model_name, served.model_version, fake.looks) == ("digits", 1, 2)
