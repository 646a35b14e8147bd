"""A deployment that is not there yet, until it serves: against a Hopsworks whose clock and faults the test commands."""

from __future__ import annotations

import pytest

from airflow_provider_hsml.hopsworks.domain.model_version import Framework, ModelVersion
from airflow_provider_hsml.hopsworks.domain.settings import Script
from airflow_provider_hsml.hopsworks.errors import (
    InvalidInputError,
    RequestRefusedError,
    SupersededError,
    UnsupportedError,
)
from tests.support.arrivals import FILES, arrive, starts
from tests.support.fake import LOST, UNSENT, FakeHopsworks, refusal, row


class TestCreating:
    def test_creates_starts_and_verifies(self) -> None:
        fake = FakeHopsworks(files=FILES)
        starts(fake)

        arrived = arrive(fake)

        assert (arrived.action, arrived.verified_by) == ("created", "fingerprint")
        assert [kind for kind in fake.sent if kind != "predict"] == ["CREATE", "START"]
        assert fake.sent.count("predict") == 5

    @pytest.mark.parametrize(("least", "instances"), [("0", 0), ("-1", 1)])
    def test_the_cluster_says_whether_to_scale_to_zero(self, least: str, instances: int) -> None:
        fake = FakeHopsworks(files=FILES | {"variables/kube_serving_min_num_instances": {"successMessage": least}})
        starts(fake)

        arrive(fake)

        assert fake.bodies[0]["requestedInstances"] == instances
        assert fake.bodies[0]["predictorScalingConfig"] == {"minInstances": instances}

    def test_waits_for_creating(self) -> None:
        fake = FakeHopsworks(files=FILES)
        starts(fake)

        def creating() -> None:
            fake.becomes("Creating")()
            fake.after(8, fake.becomes("Created"))

        fake.on["CREATE"] = creating

        assert arrive(fake).action == "created"
        assert fake.now > 1008

    def test_a_lost_answer_does_not_create_twice(self) -> None:
        fake = FakeHopsworks(files=FILES, faults={"CREATE": [LOST]})
        starts(fake)

        assert arrive(fake).deployment.model_version == 2
        assert fake.sent.count("CREATE") == 1

    def test_an_answer_that_was_lost_on_the_way_there(self) -> None:
        fake = FakeHopsworks(files=FILES, faults={"CREATE": [UNSENT]})

        with pytest.raises(Exception, match="nobody answers"):
            arrive(fake)
        assert fake.row is None

    def test_another_run_creates_it_at_the_same_time(self) -> None:
        fake = FakeHopsworks(files=FILES, faults={"CREATE": [refusal(400, 240011)]})
        starts(fake)
        reads = iter(range(99))

        def appear() -> None:
            if next(reads) == 0:
                fake.row = row("Created", modelVersion=2, revision=None)

        fake.on["serving"] = appear

        assert arrive(fake).action == "started"

    def test_a_doubtful_create_that_was_not_carried_out(self) -> None:
        fake = FakeHopsworks(files=FILES, faults={"CREATE": [refusal(503, 120009)]})

        with pytest.raises(RequestRefusedError, match="120009"):
            arrive(fake)
        assert fake.now >= 1120

    def test_it_is_deleted_right_away(self) -> None:
        fake = FakeHopsworks(files=FILES)
        fake.on["CREATE"] = lambda: setattr(fake, "row", None)

        with pytest.raises(SupersededError, match="right after it was created"):
            arrive(fake)

    def test_another_run_makes_something_else_of_it_right_away(self) -> None:
        """That is no field which this Hopsworks does not know, and theirs to go on with."""
        fake = FakeHopsworks(files=FILES)
        fake.on["CREATE"] = lambda: setattr(fake, "row", row("Running", modelVersion=5, version=2, revision="7"))

        with pytest.raises(SupersededError, match="by another client right after our creating it: model_version"):
            arrive(fake)
        assert fake.sent == ["CREATE"]

    def test_without_a_model_there_must_be_a_deployment(self) -> None:
        fake = FakeHopsworks()

        with pytest.raises(InvalidInputError, match="does not exist in project 'demo'"):
            arrive(fake, None)
        assert fake.sent == []

    def test_a_script_alone(self) -> None:
        fake = FakeHopsworks(files=FILES | {"Resources/one.py": {"attributes": {"name": "one.py"}}})
        starts(fake)

        arrived = arrive(fake, None, script_file=Script("/Projects/demo/Resources/one.py"))

        assert (arrived.action, arrived.verified_by) == ("created", "instances")
        assert fake.sent == ["CREATE", "START"], "there is nothing to ask it"
        assert (fake.bodies[0]["modelServer"], fake.bodies[0]["predictor"]) == (
            "PYTHON",
            "/Projects/demo/Resources/one.py",
        )
        assert not any(key.startswith("model") and key != "modelServer" for key in fake.bodies[0])

    def test_what_the_server_left_out_is_not_started(self) -> None:
        fake = FakeHopsworks(files=FILES)
        fake.on["CREATE"] = lambda: fake.row.update(predictorEnvVars=None) if fake.row else None

        with pytest.raises(UnsupportedError, match=r"this Hopsworks does not know spec\.env_vars") as caught:
            arrive(fake, env_vars={"A": "1"})
        assert not caught.value.transient
        assert fake.sent == ["CREATE"]

    def test_a_script_that_is_not_there_changes_nothing(self) -> None:
        fake = FakeHopsworks(files=FILES)

        with pytest.raises(InvalidInputError, match=r"there is no '/Projects/demo/Resources/one.py'"):
            arrive(fake, script_file=Script("/Projects/demo/Resources/one.py"))
        assert fake.sent == []

    def test_two_pickles(self) -> None:
        two = {"items": [{"attributes": {"name": name}} for name in ("a.joblib", "b.pkl", "readme.md")]}
        fake = FakeHopsworks(files=FILES | {"Models/digits/2/Files": two})

        with pytest.raises(InvalidInputError, match=r"exactly one file .* found a.joblib, b.pkl"):
            arrive(fake)
        assert fake.sent == []

    def test_a_framework_that_needs_a_script(self) -> None:
        fake = FakeHopsworks(files=FILES)

        with pytest.raises(InvalidInputError, match="framework PYTHON"):
            arrive(fake, ModelVersion("digits", 2, "digits_2", "demo", 119, {}, Framework.PYTHON))
        assert fake.sent == []

    def test_not_waiting_returns_when_the_start_was_asked_for(self) -> None:
        fake = FakeHopsworks(files=FILES)

        arrived = arrive(fake, wait=False)

        assert (arrived.action, arrived.verified_by) == ("created", None)
        assert fake.sent == ["CREATE", "START"]
