"""Another version in a deployment, until it serves: against a Hopsworks whose clock and faults the test commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.domain.model_version import Framework, ModelVersion
from airflow_provider_hsml.hopsworks.errors import (
    AmbiguousVerificationError,
    DeadlineExceededError,
    DeploymentError,
    DeploymentFailedError,
    InvalidInputError,
    RequestRefusedError,
    SupersededError,
    UnexpectedResponseError,
    UnsupportedError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.rollout.reconcile import PreparedChange, reconcile
from tests.support.arrivals import (
    FILES,
    V1,
    WITH_EXAMPLE,
    WITHOUT_EXPECTED,
    arrival,
    arrive,
    recorded,
    rolls,
    starts,
    stops,
)
from tests.support.fake import LOST, UNSENT, FakeHopsworks, refusal, row

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.rollout.reconcile import Reconciler

HALVES = {"Models/digits/2/expected.json": {"instances": [[0]], "predictions": [2.5]}}
"""Recorded answers of version 2 that are no whole numbers."""


class TestUpdating:
    def test_updates_and_proves_who_answers(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)

        arrived = arrive(fake)

        assert (arrived.action, arrived.verified_by) == ("updated", "fingerprint")
        assert [kind for kind in fake.sent if kind != "predict"] == ["PUT"]
        assert fake.bodies[0]["modelVersion"] == 2
        assert fake.bodies[0]["something"] == {"newer": True}, "what we do not know is sent back"

    def test_the_old_instances_answering_under_a_new_row_is_not_an_arrival(self) -> None:
        """The status never moves, as in Standard mode, and the answers change after 40 s."""
        fake = FakeHopsworks(row=row(), files=FILES, names=[])
        fake.on["PUT"] = lambda: fake.after(40, fake.serves([], [2]))

        arrived = arrive(fake)

        assert arrived.verified_by == "fingerprint"
        assert fake.now >= 1040

    def test_instances_prove_it_where_answers_do_not(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE)
        rolls(fake)

        assert arrive(fake).verified_by == "instances"

    def test_answers_that_are_alike_prove_nothing(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, answers=[2], names=[])
        rolls(fake, names=())

        assert arrive(fake).verified_by == "status"

    def test_without_names_or_rows_it_is_the_status(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITHOUT_EXPECTED, names=[])
        rolls(fake, names=())

        assert arrive(fake).verified_by == "status"
        assert "predict" not in fake.sent, "a body is never invented"

    def test_a_change_that_is_lost(self) -> None:
        """201, and nothing happens for ever."""
        fake = FakeHopsworks(row=row(), files=FILES)

        with pytest.raises(DeadlineExceededError, match="old instances still run"):
            arrive(fake, timeout=120)
        assert fake.sent.count("PUT") == 1

    def test_a_change_that_is_lost_seen_by_the_answers(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, names=[])

        with pytest.raises(AmbiguousVerificationError, match="still answers as the previous version, a minute after"):
            arrive(fake, timeout=120)

    @pytest.mark.parametrize("answer", [3, 10**400])
    def test_answers_of_neither(self, answer: int) -> None:
        fake = FakeHopsworks(row=row(), files=FILES | HALVES)
        rolls(fake, answers=[answer])

        with pytest.raises(VerificationError, match="answers otherwise than recorded"):
            arrive(fake)

    @pytest.mark.parametrize("answer", [10**400, [[10**400]], {"a": -(10**400)}])
    def test_a_champion_whose_answer_is_beyond_the_range_of_float(self, answer: Any) -> None:
        fake = FakeHopsworks(row=row(), files=FILES | HALVES, answers=[answer])
        rolls(fake, answers=[2.5])

        assert arrive(fake).verified_by == "fingerprint"

    def test_a_probe_that_the_model_refuses(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        rolled = fake.on["PUT"]

        def roll_then_refuse() -> None:
            rolled()
            fake.after(6, fake.serves(["new"], refusal(400, 250008, "expected 64 features")))

        fake.on["PUT"] = roll_then_refuse

        with pytest.raises(VerificationError, match="expected 64 features"):
            arrive(fake)

    def test_a_route_that_is_not_there_yet(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        not_yet = refusal(400, 250008)
        fake.faults["predict"] = [None, not_yet, not_yet, refusal(500, 250007, "no healthy upstream")]

        assert arrive(fake).verified_by == "fingerprint"

    def test_a_route_that_never_comes(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        fake.faults["predict"] = [None, *[refusal(400, 250008)] * 100]

        with pytest.raises(VerificationError, match="does not answer"):
            arrive(fake)

    @pytest.mark.parametrize(
        ("probe", "look", "error"),
        [
            (LOST, None, VerificationError),
            (LOST, UNSENT, DeadlineExceededError),
            (UNSENT, UNSENT, DeadlineExceededError),
            (UNSENT, None, DeadlineExceededError),
        ],
    )
    def test_a_server_that_is_away_says_nothing_of_the_version(
        self, probe: str, look: str | None, error: type[Exception]
    ) -> None:
        """A model that hangs while Hopsworks itself answers is another matter."""
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        fake.faults["predict"] = [None, *[probe] * 100]
        fake.after(60, lambda: fake.faults.update({"14": [look] * 9}))

        with pytest.raises(error, match="does not answer"):
            arrive(fake)
        assert fake.now >= 1070

    def test_what_is_stopped_is_updated_and_started(self) -> None:
        fake = FakeHopsworks(row=row("Stopped"), files=FILES)
        starts(fake)

        arrived = arrive(fake)

        assert (arrived.action, arrived.verified_by) == ("updated", "fingerprint")
        assert [kind for kind in fake.sent if kind != "predict"] == ["PUT", "START"]

    def test_waits_for_what_is_under_way(self) -> None:
        fake = FakeHopsworks(row=row("Updating"), files=FILES)
        fake.after(20, fake.becomes("Running"))
        rolls(fake)

        assert arrive(fake).action == "updated"
        assert fake.now > 1020

    @pytest.mark.parametrize("fault", [LOST, refusal(500, 120000), refusal(429, 120009)])
    def test_a_doubtful_put_is_looked_for_and_not_sent_again(self, fault: Any) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        if fault is not LOST:
            stored = fake.on["PUT"]

            def carried_out() -> None:
                assert fake.row is not None
                fake.row |= {"modelVersion": 2, "version": 2, "revision": "1000"}
                stored()

            fake.after(3, carried_out)
        fake.faults["PUT"] = [fault]

        assert arrive(fake).verified_by == "fingerprint"
        assert fake.sent.count("PUT") == 1

    def test_a_doubtful_put_that_was_not_carried_out_is_sent_again(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [refusal(503, 120009)]})
        rolls(fake)

        assert arrive(fake).action == "updated"
        assert fake.sent.count("PUT") == 2
        assert fake.now >= 1120

    def test_a_doubtful_put_that_was_kept_and_is_not_active_is_not_sent_again(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [refusal(503, 120009)]})
        fake.on["predict"] = lambda: fake.after(1, lambda: fake.kept.append(row(version=2, modelVersion=2)))

        with pytest.raises(DeploymentError, match="stored as deployment version 2, which is not the active one"):
            arrive(fake)
        assert fake.sent.count("PUT") == 1

    def test_a_doubtful_put_beside_versions_that_were_there_is_sent_again(self) -> None:
        """One of them is like it: it was rolled back, and is deployed again."""
        fake = FakeHopsworks(row=row(version=4), files=FILES, faults={"PUT": [refusal(503, 120009)]})
        fake.kept = [row(version=5, modelVersion=2)]
        fake.on["predict"] = lambda: fake.after(1, lambda: fake.kept.append(row(version=6, modelVersion=7)))
        rolls(fake)

        assert arrive(fake).action == "updated"
        assert fake.sent.count("PUT") == 2

    def test_a_conflict_plans_anew_once(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [refusal(409, 240038)]})
        rolls(fake)

        assert arrive(fake).action == "updated"
        fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [refusal(409, 240038)] * 9})
        with pytest.raises(SupersededError, match="changed by another client each time"):
            arrive(fake)
        assert fake.sent.count("PUT") == 2

    def test_a_start_is_sent_again_while_it_is_busy(self) -> None:
        busy = refusal(500, 240004, "Instance is busy")
        fake = FakeHopsworks(row=row("Stopped", modelVersion=2), files=FILES, faults={"START": [busy] * 5})
        starts(fake)

        assert arrive(fake).action == "started"
        assert fake.sent.count("START") == 6
        fake = FakeHopsworks(row=row("Stopped", modelVersion=2), files=FILES, faults={"START": [busy] * 999})
        with pytest.raises(DeadlineExceededError, match=r"could not be started within 600 s: .*Instance is busy"):
            arrive(fake)

    @pytest.mark.parametrize("answer", [refusal(500, 240002), refusal(500, 240004), refusal(400, 240003)])
    def test_busy_is_waited_for(self, answer: Any) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [answer] * 5})
        rolls(fake)

        assert arrive(fake).action == "updated"
        fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [answer] * 999})
        with pytest.raises(DeadlineExceededError, match="busy with something else"):
            arrive(fake)

    def test_it_begins_to_move_before_we_write(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)

        def move() -> None:
            del fake.on["versions"]
            fake.becomes("Updating")()
            fake.after(5, fake.becomes("Running"))

        fake.on["versions"] = move

        assert arrive(fake).action == "updated"
        assert fake.sent.count("PUT") == 1

    def test_a_refusal_that_lasts(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [refusal(422, 120001, "wrong")]})

        with pytest.raises(RequestRefusedError, match="wrong"):
            arrive(fake)

    def test_another_model_server(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)

        with pytest.raises(InvalidInputError, match="Hopsworks cannot change that"):
            arrive(fake, ModelVersion("digits", 2, "digits_2", "demo", 119, {}, Framework.TENSORFLOW))
        assert fake.sent == []

    def test_a_setting_that_the_server_does_not_store(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)

        def drop() -> None:
            assert fake.row is not None
            fake.row |= {"predictorEnvironment": None, "environmentDTO": None, "revision": "100", "version": 1}

        fake.on["PUT"] = drop

        with pytest.raises(UnsupportedError, match=r"does not know spec\.environment"):
            arrive(fake, V1, environment="new")

    def test_a_put_that_was_answered_and_not_carried_out_is_no_setting_that_the_server_does_not_know(self) -> None:
        """Nothing was rolled out, so there is nothing to roll back: a retry sends it again."""
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.faults["PUT"] = [Answer(201, json.dumps(row(modelVersion=2)).encode())]
        rolls(fake)

        with pytest.raises(UnexpectedResponseError, match="model_version was answered, and was not carried out"):
            arrive(fake)
        assert arrive(fake).action == "updated"

    def test_somebody_puts_the_previous_version_back_right_away(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.on["PUT"] = lambda: fake.row.update(modelVersion=1, version=3, revision="theirs") if fake.row else None

        with pytest.raises(SupersededError, match="right after our update: model_version"):
            arrive(fake)

    def test_somebody_changes_it_before_we_do(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        reads = iter(range(99))

        def change() -> None:
            if fake.row is not None and next(reads) == 0:
                fake.row |= {"revision": "stranger", "description": "by hand"}

        fake.on["versions"] = change

        assert arrive(fake).action == "updated"
        assert fake.bodies[0]["description"] == "by hand", "what was not read is not overwritten"

    def test_somebody_changes_one_that_is_stopped_where_its_signature_stays(self) -> None:
        """What was there before is announced with their change, so that taking it back does not undo that."""
        fake = FakeHopsworks(row=row("Stopped"), files=FILES, has_versions=False)
        announced = []

        def change() -> None:
            assert fake.row is not None
            fake.row |= {"predictorResources": {"requests": {"cores": 2}}}

        def announce(live: Deployment | None) -> None:
            assert live is not None
            announced.append(live.raw.get("predictorResources"))

        fake.on["versions"] = change
        update = arrival(fake, serve=False)

        assert fake.run(recorded(update, announce)).action == "updated"
        assert announced == [None, {"requests": {"cores": 2}}]

    def test_somebody_changes_it_while_it_is_stopped_for_the_change(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, has_versions=False)
        stops(fake)
        starts(fake)
        stop, announced = fake.on["STOP"], []

        def stop_and_change() -> None:
            stop()
            assert fake.row is not None
            fake.row |= {"modelVersion": 1, "inferenceLogging": "ALL"}

        def announce(live: Deployment | None) -> None:
            assert live is not None
            announced.append((live.status, live.raw.get("inferenceLogging")))

        fake.on["STOP"] = stop_and_change
        update = arrival(fake, recreate=True)

        assert fake.run(recorded(update, announce)).action == "updated"
        assert announced == [("Running", None), ("Stopped", "ALL")], "it is decided on anew"
        assert fake.sent[:3] == ["predict", "STOP", "PUT"]

    def test_somebody_changes_it_while_it_is_asked(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)

        def change() -> None:
            if fake.row is not None and fake.row["revision"] == "1000" and fake.sent.count("predict") > 5:
                fake.row |= {"revision": "stranger"}

        fake.on["predict"] = change

        with pytest.raises(SupersededError, match="changed by another client"):
            arrive(fake)

    def test_the_second_step_of_a_way_back_is_not_announced_as_a_change_of_its_own(self) -> None:
        """A version is rolled back to; before what it does not hold can be updated, the rollout has begun."""
        fake = FakeHopsworks(row=row(version=2, modelVersion=2), files=FILES, answers=[2])
        announced = []

        def announce(live: Deployment | None) -> None:
            announced.append(live and live.version)

        def roll_back() -> None:
            assert fake.row is not None
            fake.row |= {"version": 1, "revision": "200", "modelVersion": 1}
            fake.on["versions"] = begin

        def begin() -> None:
            del fake.on["versions"]
            fake.becomes("Updating", instances=1)()
            fake.after(5, fake.becomes("Running"))

        fake.on |= {"POST": roll_back, "PUT": fake.serves(["new"], [1])}
        back = arrival(fake, V1, environment="old", restore=1)

        assert fake.run(recorded(back, announce)).action == "updated"
        assert announced == [2]
        assert [kind for kind in fake.sent if kind != "predict"] == ["POST", "PUT"]

    def test_somebody_changes_it_after_we_did(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        fake.after(4, lambda: fake.row.update(revision="stranger") if fake.row else None)

        with pytest.raises(SupersededError, match="changed by another client"):
            arrive(fake)
        assert fake.sent.count("PUT") == 1

    def test_somebody_changes_it_right_after_we_did(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.on["PUT"] = lambda: fake.row.update(modelVersion=7) if fake.row else None

        with pytest.raises(SupersededError, match="right after our update: model_version"):
            arrive(fake)

    def test_somebody_deletes_it_right_after_we_updated(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.on["PUT"] = lambda: setattr(fake, "row", None)

        with pytest.raises(SupersededError, match="while it was updated"):
            arrive(fake)

    def test_somebody_deletes_it_while_what_is_under_way_is_waited_for(self) -> None:
        """Then it is created anew."""
        fake = FakeHopsworks(row=row("Updating"), files=FILES)
        fake.after(5, lambda: setattr(fake, "row", None))
        starts(fake)

        assert arrive(fake).action == "created"

    @pytest.mark.parametrize("logs", [refusal(404, 240027), refusal(403, 320004)])
    def test_names_that_cannot_be_read(self, logs: Any) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE, faults={"logs": [logs] * 9})
        rolls(fake)

        assert arrive(fake).verified_by == "status"

    def test_a_champion_that_cannot_be_asked(self) -> None:
        """Its instances have changed, and the answers are those recorded: not proof, since it may answer alike."""
        fake = FakeHopsworks(row=row(), files=FILES, faults={"predict": [refusal(500, 250007, "broken")]})
        rolls(fake)

        assert arrive(fake).verified_by == "instances"

    @pytest.mark.parametrize("other", [{"apiProtocol": "GRPC"}, {"modelServer": "VLLM"}])
    def test_what_has_no_rest_is_not_asked(self, other: dict[str, Any]) -> None:
        fake = FakeHopsworks(row=row("Stopped", **other), files=FILES)
        starts(fake)

        assert arrive(fake, None).verified_by == "instances"
        assert "predict" not in fake.sent

    def test_not_in_time(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.on["PUT"] = lambda: fake.after(2, fake.becomes("Updating"))

        with pytest.raises(DeadlineExceededError, match=r"is not live within 120 s.*\nAllow more time with 'timeout'"):
            arrive(fake, timeout=120)

    def test_a_server_that_is_away_until_the_timeout(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        fake.faults["14"] = [UNSENT] * 999

        with pytest.raises(DeadlineExceededError, match=r"Gave up at the timeout: .*nobody answers"):
            arrive(fake, timeout=60)

    def test_failed_with_a_log_that_cannot_be_read(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.on["PUT"] = lambda: fake.after(2, fake.becomes("Failed"))
        fake.faults["logs"] = [None, refusal(500, 240004)]

        with pytest.raises(DeploymentFailedError, match="the server gives no reason"):
            arrive(fake)

    def test_new_versions_only_where_the_server_keeps_them(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, has_versions=False)
        rolls(fake)

        arrive(fake)

        assert fake.row is not None
        assert fake.row["version"] == 1

    def test_the_server_is_away_while_it_rolls(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        fake.faults["14"] = [None, *[UNSENT] * 5]

        assert arrive(fake).verified_by == "fingerprint"

    def test_failed_with_the_end_of_its_log(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        broken = {"type": "STARTED", "status": False, "reason": "Failed to run: no module"}
        fake.on["PUT"] = lambda: fake.after(2, fake.becomes("Failed", condition=broken))

        with pytest.raises(DeploymentFailedError, match=r"(?s)no module.*a line of old") as caught:
            arrive(fake)
        assert not caught.value.transient

    def test_idle_wakes_up(self) -> None:
        fake = FakeHopsworks(row=row("Idle", predictorScalingConfig={"minInstances": 0}), files=FILES)
        fake.on["PUT"] = lambda: fake.after(2, fake.becomes("Idle"))

        def wake() -> None:
            if fake.row is not None and fake.row["status"] == "Idle":
                fake.becomes("Running")()
                fake.serves(["new"], [2])()

        fake.on["predict"] = wake

        assert arrive(fake).deployment.status.value == "Running"


class TestAnswersOfThePreviousVersion:
    """Its own recorded answers differ from them: the version was registered with stale files."""

    def test_from_new_instances_are_evidence(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, names=["old"])
        rolls(fake, answers=[1], names=("new",))

        with pytest.raises(VerificationError, match=r"all its instances are new, and answer as the previous") as caught:
            arrive(fake)
        assert not isinstance(caught.value, AmbiguousVerificationError)
        assert fake.now < 1000 + 120, "it is not waited for until the timeout"

    def test_are_no_evidence_if_another_client_changed_the_deployment_meanwhile(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, names=["old"])
        rolls(fake, answers=[1], names=("new",))

        def change() -> None:
            if fake.row is not None and fake.names == ["new"]:
                fake.row["revision"] = "theirs"

        fake.on["predict"] = change

        with pytest.raises(SupersededError, match="their change is kept"):
            arrive(fake)

    def test_from_unknown_instances_are_ambiguous_after_a_minute(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, names=[])
        rolls(fake, answers=[1], names=())

        with pytest.raises(AmbiguousVerificationError, match=r"'model_path'"):
            arrive(fake)
        assert 1000 + 60 < fake.now < 1000 + 200

    def test_from_instances_whose_names_become_unreadable_are_ambiguous_after_a_minute(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, names=["old"])
        rolls(fake, answers=[1], names=())

        with pytest.raises(AmbiguousVerificationError, match=r"'model_path'"):
            arrive(fake)
        assert 1000 + 60 < fake.now < 1000 + 200

    def test_of_a_rollout_that_goes_on_are_waited_for(self) -> None:
        """The old instances answer under a stale status, and the rollout is seen only then."""
        fake = FakeHopsworks(row=row(), files=FILES, names=[])

        def begin() -> None:
            for seconds, status in ((50, "Updating"), (90, "Running")):
                fake.after(seconds, fake.becomes(status, instances=1))
            fake.after(130, fake.serves([], [2]))

        fake.on["PUT"] = begin

        assert arrive(fake).verified_by == "fingerprint"

    def test_do_not_end_a_way_back(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, names=[])
        rolls(fake, answers=[1], names=())
        fake.after(300, fake.serves([], [2]))

        assert arrive(fake, is_way_back=True).verified_by == "fingerprint"

    def test_a_wrong_answer_is_not_said_to_be_the_previous_versions(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, names=[], answers=refusal(400, 250008, "no such column"))
        rolls(fake, answers=[3], names=())

        with pytest.raises(DeadlineExceededError, match=r"answers otherwise than recorded(.|\n)*It is unknown whether"):
            arrive(fake, timeout=40)

    def test_from_old_instances_are_waited_for(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, names=["old"])
        rolls(fake, answers=[1], names=("old",))
        fake.after(100, fake.serves(["new"], [2]))

        assert arrive(fake).verified_by == "fingerprint"


class TestTheProbeBeforeAChange:
    def test_that_hopsworks_refuses_ends_it_with_nothing_changed(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE, faults={"predict": [refusal(403, 320004, "scope")] * 9})

        with pytest.raises(RequestRefusedError, match="320004"):
            arrive(fake)
        assert "PUT" not in fake.sent

    def test_that_hopsworks_refuses_stops_nothing_to_make_room(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE, faults={"predict": [refusal(403, 320004, "scope")] * 9})

        with pytest.raises(RequestRefusedError, match="320004"):
            arrive(fake, recreate=True)
        assert fake.sent == ["predict"]

    def test_that_hopsworks_refuses_does_not_keep_a_way_back_from_being_sent(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE, faults={"predict": [refusal(403, 320004, "scope")]})
        rolls(fake)

        assert arrive(fake, is_way_back=True).action == "updated"

    def test_that_cannot_be_found_does_not_keep_a_way_back_from_being_sent(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES | {"Models/digits/2/expected.json": {"predictions": [2]}})
        rolls(fake)

        with pytest.raises(UnexpectedResponseError):
            arrive(fake)
        assert fake.sent == []
        assert arrive(fake, is_way_back=True).action == "updated"

    def test_that_the_serving_model_refuses_is_no_reason(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"predict": [refusal(400, 250008, "no such column")]})
        rolls(fake)

        assert arrive(fake).action == "updated"

    def test_after_the_change_such_a_refusal_is_no_evidence(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        rolled = fake.on["PUT"]

        def revoke() -> None:
            rolled()
            fake.faults["predict"] = [refusal(401, 320002, "no key")] * 50

        fake.on["PUT"] = revoke

        with pytest.raises(RequestRefusedError, match="320002"):
            arrive(fake)


class TestAReadThatIsRefusedRightAfterTheChange:
    @staticmethod
    def refused(fake: FakeHopsworks, *, recreate: bool = False) -> Reconciler:
        """Send a change whose first read is refused, and return its reconciler."""

        def refuse() -> None:
            fake.faults["serving"] = [refusal(403, 200014, "not now")]

        fake.on["PUT"] = fake.on["CREATE"] = refuse
        change = arrival(fake, recreate=recreate)
        with pytest.raises(RequestRefusedError, match="200014"):
            fake.run(reconcile(change))
        return change

    @pytest.mark.parametrize("before", [row(), None])
    def test_leaves_a_change_of_ours(self, before: dict[str, Any] | None) -> None:
        assert self.refused(FakeHopsworks(row=before, files=FILES)).has_changed

    def test_leaves_nothing_stopped(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        stops(fake)
        starts(fake)

        assert self.refused(fake, recreate=True).has_changed
        assert fake.sent == ["predict", "STOP", "PUT", "START"]

    def test_a_refused_change_is_none(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [refusal(400, 240026, "too much")]})
        change = arrival(fake)

        with pytest.raises(RequestRefusedError, match="240026"):
            fake.run(reconcile(change))
        assert not change.has_changed


def test_what_a_run_that_may_not_send_finds_changed_is_kept() -> None:
    fake = FakeHopsworks(row=row(), files=FILES)

    with pytest.raises(SupersededError, match="their change is kept"):
        arrive(fake, sends=False)
    assert fake.sent == []


class TestProbeInputs:
    """What another process has to know of the previous version."""

    def test_are_taken_over(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        first = arrival(fake)
        fake.run(_prepared(first))
        assert first.probe_inputs["old_names"] == ["old"]
        rolls(fake)
        slow = FakeHopsworks(row=row(modelVersion=2, version=2), files=FILES)
        slow.after(150, slow.serves(["new"], [2]))
        second = arrival(slow, trust=False)
        second.recall(first.probe_inputs)

        assert slow.run(reconcile(second)).verified_by == "fingerprint"

    def test_an_answer_to_another_request_is_not(self) -> None:
        second = arrival(FakeHopsworks())
        second.recall({"body": {"instances": [[7]]}, "champion": {"predictions": [1]}})

        assert second.probe_inputs["champion"] is None

    def test_hold_what_answers_are_compared_with(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.answers = Answer(200, json.dumps({"predictions": [1], "blob": "x" * 5_000_000}).encode())
        change = arrival(fake)
        fake.run(_prepared(change))

        assert change.probe_inputs["champion"] == {"predictions": [1]}


async def _prepared(change: Reconciler) -> None:
    async with change:
        await change.prepare()


class TestADeploymentThatIsKnownAlready:
    """The decision has read it: it is not read to prepare an update, and the PUT still goes against its state."""

    def read(self, fake: FakeHopsworks) -> Deployment:
        deployment = fake.run(arrival(fake)._update.read())
        assert deployment is not None
        fake.reads.clear()
        return deployment

    def test_is_read_again_right_before_the_put(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        known, reconciler = self.read(fake), arrival(fake)

        change = fake.run(reconciler.prepare(known))
        assert isinstance(change, PreparedChange)
        assert (change.live, fake.reads.count("serving")) == (known, 0)
        fake.run(reconciler.apply(change))
        assert fake.reads.count("serving") == 2, "before the PUT and after it"

    def test_that_another_client_has_changed_since_is_not_overwritten(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        known, reconciler = self.read(fake), arrival(fake)
        assert fake.row is not None
        fake.row |= {"revision": "9", "predictorResources": {"limits": {"memory": 2048}}}

        change = fake.run(reconciler.prepare(known))
        assert isinstance(change, PreparedChange)
        again = fake.run(reconciler.apply(change))
        assert isinstance(again, PreparedChange)
        assert again.needs_record
        assert again.live is not None
        assert again.live.revision == "9"
        assert "PUT" not in fake.sent

    @pytest.mark.parametrize(("status", "more"), [("Stopped", {}), ("Running", {"recreate": True}), ("Updating", {})])
    def test_is_read_again_before_a_start_and_a_stop(self, status: str, more: dict[str, Any]) -> None:
        fake = FakeHopsworks(row=row(status), files=FILES)
        known = self.read(fake)
        fake.after(5, fake.becomes("Running"))

        fake.run(arrival(fake, **more).prepare(known))
        assert "serving" in fake.reads
