"""What is there already, and what has failed: against a Hopsworks whose clock and faults the test commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    DeploymentError,
    DeploymentFailedError,
    RequestRefusedError,
    SupersededError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.rollout.reconcile import reconcile
from tests.support.arrivals import FILES, V1, V2, WITHOUT_EXPECTED, arrival, arrive, recorded, starts, stops
from tests.support.fake import LOST, UNSENT, FakeHopsworks, refusal, row

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome


class TestWhatIsThereAlready:
    def test_unchanged_after_one_probe(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)

        arrived = arrive(fake, V1)

        assert (arrived.action, arrived.verified_by) == ("unchanged", "fingerprint")
        assert fake.sent == ["predict"]
        assert len(fake.reads) <= 8

    def test_what_is_changed_while_it_is_asked_is_not_called_unchanged(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)

        def others() -> None:
            fake.on.pop("predict")
            fake.becomes("Running", version=2, revision="200", modelVersion=2)()

        fake.on |= {"predict": others, "PUT": fake.serves(["new"], [1])}

        assert arrive(fake, V1).action == "updated"
        assert fake.sent.count("PUT") == 1

    @pytest.mark.parametrize("failures", [1, 4, 5])
    def test_a_model_that_fails_is_believed_when_it_does_so_again_and_again(self, failures: int) -> None:
        failed = refusal(500, 250007, "worker died")
        fake = FakeHopsworks(row=row(), files=FILES, faults={"predict": [failed] * failures})

        if failures < 5:
            assert arrive(fake, V1).action == "unchanged"
        else:
            with pytest.raises(VerificationError, match="worker died"):
                arrive(fake, V1)
        assert fake.sent == ["predict"] * min(failures + 1, 5)

    def test_a_model_that_refuses_is_believed_at_once(self) -> None:
        refused = refusal(400, 250008, "no such column")
        fake = FakeHopsworks(row=row(), files=FILES, faults={"predict": [refused]})

        with pytest.raises(VerificationError, match="no such column"):
            arrive(fake, V1)
        assert fake.sent == ["predict"]

    def test_idle_is_not_woken(self) -> None:
        fake = FakeHopsworks(row=row("Idle"), files=FILES)

        assert arrive(fake, V1).action == "unchanged"
        assert fake.sent == []

    def test_a_row_whose_version_does_not_answer(self) -> None:
        """A worker died between PUT and verification, and the change never reached the cluster."""
        fake = FakeHopsworks(row=row(modelVersion=2), files=FILES, answers=[1])

        with pytest.raises(VerificationError):
            arrive(fake, V2)
        assert fake.now >= 1060

    def test_a_row_whose_version_does_not_answer_yet(self) -> None:
        """A retry right after the PUT of a worker that died."""
        fake = FakeHopsworks(row=row(modelVersion=2), files=FILES, answers=[1])
        fake.after(10, fake.becomes("Updating"))
        fake.after(20, fake.becomes("Running"))
        fake.after(20, fake.serves(["new"], [2]))

        assert arrive(fake, V2).action == "attached"

    @pytest.mark.parametrize("status", ["Updating", "Starting"])
    def test_attaches_to_a_rollout(self, status: str) -> None:
        fake = FakeHopsworks(row=row(status, modelVersion=2), files=FILES)
        fake.after(15, fake.becomes("Running"))
        fake.after(15, fake.serves(["new"], [2]))

        assert arrive(fake).action == "attached"
        assert set(fake.sent) == {"predict"}

    @pytest.mark.parametrize("status", ["Stopped", "Created"])
    def test_starts_what_is_down(self, status: str) -> None:
        fake = FakeHopsworks(row=row(status), files=FILES)
        starts(fake, answers=[1])

        assert arrive(fake, V1).action == "started"

    def test_waits_for_stopping_and_starts(self) -> None:
        fake = FakeHopsworks(row=row("Stopping"), files=FILES)
        fake.after(10, fake.becomes("Stopped"))
        starts(fake, answers=[1])

        assert arrive(fake, V1).action == "started"
        assert fake.sent.count("START") == 1

    @pytest.mark.parametrize("fault", [LOST, refusal(500, 240004), UNSENT])
    def test_a_doubtful_start_is_looked_at(self, fault: Any) -> None:
        fake = FakeHopsworks(row=row("Stopped"), files=FILES, faults={"START": [fault]})
        starts(fake, answers=[1])

        assert arrive(fake, V1).action == "started"
        assert fake.sent.count("START") == (1 if fault is LOST else 2)

    def test_no_room_in_the_quota(self) -> None:
        fake = FakeHopsworks(row=row("Stopped"), files=FILES, faults={"START": [refusal(400, 240003, "quota reached")]})

        with pytest.raises(RequestRefusedError, match="quota reached"):
            arrive(fake, V1)

    def test_start_without_naming_a_model(self) -> None:
        fake = FakeHopsworks(
            row=row("Stopped"), files=FILES | {"models/digits_1": {"id": "digits_1", "name": "digits", "version": 1}}
        )
        starts(fake, answers=[1])

        assert arrive(fake, None).action == "started"

    def test_deleted_while_waited_for(self) -> None:
        fake = FakeHopsworks(row=row("Updating"), files=FILES)
        fake.after(5, lambda: setattr(fake, "row", None))

        with pytest.raises(SupersededError, match="deleted"):
            arrive(fake, V1)


class TestFailed:
    def test_comes_back_by_itself(self) -> None:
        fake = FakeHopsworks(row=row("Failed"), files=FILES)
        fake.after(20, fake.becomes("Running"))

        assert arrive(fake, V1).action == "attached"
        assert set(fake.sent) == {"predict"}

    def test_is_left_alone_while_something_answers(self) -> None:
        fake = FakeHopsworks(row=row("Failed"), files=FILES)

        with pytest.raises(DeploymentFailedError, match="still serves"):
            arrive(fake, V1)
        assert set(fake.sent) == {"predict"}

    def test_for_want_of_room_while_something_answers_says_nothing_of_the_version(self) -> None:
        no_room = {"type": "SCHEDULED", "status": False, "reason": "no nodes"}
        fake = FakeHopsworks(row=row("Failed", condition=no_room), files=FILES)

        with pytest.raises(DeploymentFailedError, match="no nodes") as caught:
            arrive(fake, V1)
        assert caught.value.transient

    def test_is_restarted_once_when_nothing_answers(self) -> None:
        fake = FakeHopsworks(row=row("Failed"), files=FILES, answers=refusal(500, 250007))
        stops(fake)
        starts(fake, answers=[1])

        assert arrive(fake, V1).verified_by == "fingerprint"
        assert [kind for kind in fake.sent if kind != "predict"] == ["STOP", "START"]

    def test_nothing_to_ask_it_with(self) -> None:
        fake = FakeHopsworks(row=row("Failed"), files=WITHOUT_EXPECTED)
        fake.on["STOP"] = fake.becomes("Stopped")
        starts(fake, answers=[1])

        assert arrive(fake, V1).action == "started"

    def test_is_deleted_while_it_is_restarted(self) -> None:
        fake = FakeHopsworks(row=row("Failed"), files=WITHOUT_EXPECTED)
        fake.on["STOP"] = lambda: setattr(fake, "row", None)
        starts(fake, answers=[1])

        assert arrive(fake, V1).action == "created"

    def test_fails_again(self) -> None:
        fake = FakeHopsworks(row=row("Failed"), files=FILES, answers=refusal(500, 250007))
        fake.on["STOP"] = fake.becomes("Stopped")
        fake.on["START"] = fake.becomes("Failed", revision="8")

        with pytest.raises(DeploymentFailedError):
            arrive(fake, V1)
        assert fake.sent.count("START") == 1


def test_what_was_stopped_for_a_change_that_does_not_come_is_started() -> None:
    """A change whose answer is lost again and again is no work of somebody else, either."""
    fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [refusal(503, 120009)] * 9})
    stops(fake)
    starts(fake, answers=[1])
    down = arrival(fake, timeout=400.0, recreate=True)

    with pytest.raises(DeadlineExceededError):
        fake.run(reconcile(down))

    assert fake.sent == ["predict", "STOP", *["PUT"] * fake.sent.count("PUT"), "START"]
    assert fake.row is not None
    assert (fake.row["status"], fake.row["modelVersion"]) == ("Starting", 1)


class TestWhatWasStoppedForADecisionThatIsOutdated:
    class OutdatedDecision(Exception):
        """No error of ours: somebody else has changed what was decided on."""

    def recreate(self, fake: FakeHopsworks) -> Outcome:
        """Stop it for a change, meet a concurrent change, and give way when the change is recorded again."""
        records: list[object] = []

        def record(live: object) -> None:
            records.append(live)
            if len(records) == 2:
                raise self.OutdatedDecision

        stops(fake)
        fake.faults["PUT"] = [refusal(409, 240000)]
        down = arrival(fake, timeout=400.0, recreate=True)
        return fake.run(recorded(down, record))

    def test_is_started_though_the_first_start_is_lost(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"START": [UNSENT, UNSENT]})
        starts(fake, answers=[1])

        with pytest.raises(self.OutdatedDecision):
            self.recreate(fake)

        assert fake.sent == ["predict", "STOP", "PUT", "START", "START", "START"]
        assert fake.row is not None
        assert fake.row["status"] == "Starting"

    def test_is_an_error_that_says_so_where_it_cannot_be_started(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"START": [refusal(400, 240003, "quota")]})

        with pytest.raises(
            DeploymentError, match=r"'digits' is left stopped: (.|\n)*quota(.|\n)*StartDeploymentOperator"
        ):
            self.recreate(fake)

    def test_is_said_beside_the_error_that_there_is(self) -> None:
        faults = {"PUT": [refusal(400, 240026, "too much")], "START": [refusal(400, 240003, "quota")]}
        fake = FakeHopsworks(row=row(), files=FILES, faults=faults)
        stops(fake)
        down = arrival(fake, recreate=True)

        with pytest.raises(RequestRefusedError, match=r"240026(.|\n)*is left stopped: (.|\n)*quota") as caught:
            fake.run(reconcile(down))
        assert "left stopped" in caught.value.kept_text
