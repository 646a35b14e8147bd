"""The whole procedure, against a Hopsworks whose clock and faults the test commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.arrival import Arrival, Arrived
from airflow_provider_hsml.hopsworks.changes import model_wanted
from airflow_provider_hsml.hopsworks.errors import (
    DeploymentError,
    DeploymentFailed,
    InvalidInput,
    NotInTime,
    NotVerified,
    Refused,
    Superseded,
    Unsupported,
)
from airflow_provider_hsml.hopsworks.models import Framework, ModelVersion
from airflow_provider_hsml.hopsworks.settings import Script

from .fake import LOST, PROJECT, UNSENT, FakeHopsworks, refusal, row

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.deployments import Deployment
    from airflow_provider_hsml.hopsworks.waiting import Procedure

V1 = ModelVersion("digits", 1, "digits_1", "demo", 119, {}, Framework.SKLEARN)
V2 = ModelVersion("digits", 2, "digits_2", "demo", 119, {}, Framework.SKLEARN)

FILES = {
    "Models/digits/1/Files": {"items": [{"attributes": {"name": "model.joblib"}}]},
    "Models/digits/2/Files": {"items": [{"attributes": {"name": "model.joblib"}}]},
    "Models/digits/1/expected.json": {"instances": [[0]], "predictions": [1]},
    "Models/digits/2/expected.json": {"instances": [[0]], "predictions": [2]},
    "variables/kube_kserve_installed": {"successMessage": "true"},
    "variables/kube_serving_min_num_instances": {"successMessage": "-1"},
}
WITHOUT_EXPECTED = {name: content for name, content in FILES.items() if "expected" not in name}
WITH_EXAMPLE = WITHOUT_EXPECTED | {"Models/digits/2/input_example.json": [[0]]}


def arrival(
    fake: FakeHopsworks, model: ModelVersion | None = V2, *, timeout: float = 600.0, wait: bool = True, **wanted: Any
) -> Arrival:
    """Make the procedure with which the version is to be served."""
    return Arrival(
        PROJECT,
        "digits",
        (model_wanted(model) if model else {}) | wanted,
        timeout=timeout,
        interval=10.0,
        model=model,
        wait=wait,
        clock=fake.clock,
    )


def arrive(fake: FakeHopsworks, model: ModelVersion | None = V2, **more: Any) -> Arrived:
    return fake.run(arrival(fake, model, **more).run())


def rolls(
    fake: FakeHopsworks,
    *,
    begins: float = 1.5,
    takes: float = 4.0,
    answers: Any = (2,),
    names: tuple[str, ...] = ("new",),
) -> None:
    """Let an update go as Hopsworks' do: the row first, the instances later."""

    def begin() -> None:
        fake.after(begins, fake.becomes("Updating", instances=1))
        fake.after(begins + takes, fake.becomes("Running"))
        fake.after(begins + takes, fake.serves(list(names), list(answers)))

    fake.on["PUT"] = begin


def starts(fake: FakeHopsworks, *, takes: float = 4.0, answers: Any = (2,)) -> None:
    """Let a START go as Hopsworks' do."""

    def begin() -> None:
        fake.becomes("Starting", revision="7")()
        fake.after(takes, fake.becomes("Running"))
        fake.after(takes, fake.serves(["new"], list(answers)))

    fake.on["START"] = begin


def stops(fake: FakeHopsworks) -> None:
    """Let a STOP go as Hopsworks' do."""

    def begin() -> None:
        fake.becomes("Stopping")()
        fake.after(3, fake.becomes("Stopped"))

    fake.on["STOP"] = begin


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

        with pytest.raises(Refused, match="120009"):
            arrive(fake)
        assert fake.now >= 1120

    def test_it_is_deleted_right_away(self) -> None:
        fake = FakeHopsworks(files=FILES)
        fake.on["CREATE"] = lambda: setattr(fake, "row", None)

        with pytest.raises(Superseded, match="right after it was created"):
            arrive(fake)

    def test_another_run_makes_something_else_of_it_right_away(self) -> None:
        """That is no field which this Hopsworks does not know, and theirs to go on with."""
        fake = FakeHopsworks(files=FILES)
        fake.on["CREATE"] = lambda: setattr(fake, "row", row("Running", modelVersion=5, version=2, revision="7"))

        with pytest.raises(Superseded, match="by somebody else right after our creating it: model_version"):
            arrive(fake)
        assert fake.sent == ["CREATE"]

    def test_without_a_model_there_must_be_a_deployment(self) -> None:
        fake = FakeHopsworks()

        with pytest.raises(InvalidInput, match="does not exist in project 'demo'"):
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

        with pytest.raises(Unsupported, match=r"this Hopsworks does not know spec\.env_vars") as caught:
            arrive(fake, env_vars={"A": "1"})
        assert not caught.value.transient
        assert fake.sent == ["CREATE"]

    def test_a_script_that_is_not_there_changes_nothing(self) -> None:
        fake = FakeHopsworks(files=FILES)

        with pytest.raises(InvalidInput, match=r"there is no '/Projects/demo/Resources/one.py'"):
            arrive(fake, script_file=Script("/Projects/demo/Resources/one.py"))
        assert fake.sent == []

    def test_two_pickles(self) -> None:
        two = {"items": [{"attributes": {"name": name}} for name in ("a.joblib", "b.pkl", "readme.md")]}
        fake = FakeHopsworks(files=FILES | {"Models/digits/2/Files": two})

        with pytest.raises(InvalidInput, match=r"exactly one file .* found a.joblib, b.pkl"):
            arrive(fake)
        assert fake.sent == []

    def test_a_framework_that_needs_a_script(self) -> None:
        fake = FakeHopsworks(files=FILES)

        with pytest.raises(InvalidInput, match="framework PYTHON"):
            arrive(fake, ModelVersion("digits", 2, "digits_2", "demo", 119, {}, Framework.PYTHON))
        assert fake.sent == []

    def test_not_waiting_returns_when_the_start_was_asked_for(self) -> None:
        fake = FakeHopsworks(files=FILES)

        arrived = arrive(fake, wait=False)

        assert (arrived.action, arrived.verified_by) == ("created", None)
        assert fake.sent == ["CREATE", "START"]


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

        with pytest.raises(NotInTime, match="old instances still run"):
            arrive(fake, timeout=120)
        assert fake.sent.count("PUT") == 1

    def test_a_change_that_is_lost_seen_by_the_answers(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, names=[])

        with pytest.raises(NotInTime, match="answers are those of the version before"):
            arrive(fake, timeout=120)

    def test_answers_of_neither(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake, answers=[3])

        with pytest.raises(NotVerified, match="answers otherwise than recorded"):
            arrive(fake)

    def test_a_probe_that_the_model_refuses(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        rolled = fake.on["PUT"]

        def roll_then_refuse() -> None:
            rolled()
            fake.after(6, fake.serves(["new"], refusal(400, 250008, "expected 64 features")))

        fake.on["PUT"] = roll_then_refuse

        with pytest.raises(NotVerified, match="expected 64 features"):
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

        with pytest.raises(NotVerified, match="does not answer"):
            arrive(fake)

    @pytest.mark.parametrize(
        ("probe", "look", "error"),
        [(LOST, None, NotVerified), (LOST, UNSENT, NotInTime), (UNSENT, UNSENT, NotInTime), (UNSENT, None, NotInTime)],
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

        with pytest.raises(DeploymentError, match="kept as deployment version 2, which is not the active one"):
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
        with pytest.raises(Superseded, match="changed by somebody else each time"):
            arrive(fake)
        assert fake.sent.count("PUT") == 2

    def test_a_start_is_sent_again_while_it_is_busy(self) -> None:
        busy = refusal(500, 240004, "Instance is busy")
        fake = FakeHopsworks(row=row("Stopped", modelVersion=2), files=FILES, faults={"START": [busy] * 5})
        starts(fake)

        assert arrive(fake).action == "started"
        assert fake.sent.count("START") == 6
        fake = FakeHopsworks(row=row("Stopped", modelVersion=2), files=FILES, faults={"START": [busy] * 999})
        with pytest.raises(NotInTime, match=r"could not be started within 600 s: .*Instance is busy"):
            arrive(fake)

    @pytest.mark.parametrize("answer", [refusal(500, 240002), refusal(500, 240004), refusal(400, 240003)])
    def test_busy_is_waited_for(self, answer: Any) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [answer] * 5})
        rolls(fake)

        assert arrive(fake).action == "updated"
        fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [answer] * 999})
        with pytest.raises(NotInTime, match="busy with something else"):
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

        with pytest.raises(Refused, match="wrong"):
            arrive(fake)

    def test_another_model_server(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)

        with pytest.raises(InvalidInput, match="Hopsworks cannot change that"):
            arrive(fake, ModelVersion("digits", 2, "digits_2", "demo", 119, {}, Framework.TENSORFLOW))
        assert fake.sent == []

    def test_a_setting_that_the_server_does_not_store(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)

        def drop() -> None:
            assert fake.row is not None
            fake.row |= {"predictorEnvironment": None, "environmentDTO": None, "revision": "100", "version": 1}

        fake.on["PUT"] = drop

        with pytest.raises(Unsupported, match=r"does not know spec\.environment"):
            arrive(fake, V1, environment="new")

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

        def announce(live: Deployment | None) -> Procedure[str | None]:
            assert live is not None
            announced.append(live.raw.get("predictorResources"))
            yield from ()
            return None

        fake.on["versions"] = change
        update = arrival(fake)
        update.before_change, update.serve = announce, False

        assert fake.run(update.run()).action == "updated"
        assert announced == [None, {"requests": {"cores": 2}}]

    def test_somebody_changes_it_while_it_is_asked(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)

        def change() -> None:
            if fake.row is not None and fake.row["revision"] == "1000" and fake.sent.count("predict") > 5:
                fake.row |= {"revision": "stranger"}

        fake.on["predict"] = change

        with pytest.raises(Superseded, match="changed by somebody else"):
            arrive(fake)

    def test_the_second_step_of_a_way_back_is_not_announced_as_a_change_of_its_own(self) -> None:
        """A version is rolled back to; before what it does not hold can be updated, the rollout has begun."""
        fake = FakeHopsworks(row=row(version=2, modelVersion=2), files=FILES, answers=[2])
        announced = []

        def announce(live: Deployment | None) -> Procedure[str | None]:
            announced.append(live and live.version)
            yield from ()
            return None

        def roll_back() -> None:
            assert fake.row is not None
            fake.row |= {"version": 1, "revision": "200", "modelVersion": 1}
            fake.on["versions"] = begin

        def begin() -> None:
            del fake.on["versions"]
            fake.becomes("Updating", instances=1)()
            fake.after(5, fake.becomes("Running"))

        fake.on |= {"POST": roll_back, "PUT": fake.serves(["new"], [1])}
        back = arrival(fake, V1, environment="old")
        back.back_to, back.before_change = 1, announce

        assert fake.run(back.run()).action == "updated"
        assert announced == [2]
        assert [kind for kind in fake.sent if kind != "predict"] == ["POST", "PUT"]

    def test_somebody_changes_it_after_we_did(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        fake.after(4, lambda: fake.row.update(revision="stranger") if fake.row else None)

        with pytest.raises(Superseded, match="changed by somebody else"):
            arrive(fake)
        assert fake.sent.count("PUT") == 1

    def test_somebody_changes_it_right_after_we_did(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.on["PUT"] = lambda: fake.row.update(modelVersion=7) if fake.row else None

        with pytest.raises(Superseded, match="right after our update: model_version"):
            arrive(fake)

    def test_somebody_deletes_it_right_after_we_updated(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.on["PUT"] = lambda: setattr(fake, "row", None)

        with pytest.raises(Superseded, match="while it was updated"):
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

        with pytest.raises(NotInTime, match=r"has not arrived within 120 s.*Allow more by 'timeout'"):
            arrive(fake, timeout=120)

    def test_a_server_that_is_away_until_the_timeout(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        rolls(fake)
        fake.faults["14"] = [UNSENT] * 999

        with pytest.raises(NotInTime, match=r"Gave up at the timeout: .*nobody answers"):
            arrive(fake, timeout=60)

    def test_failed_with_a_log_that_cannot_be_read(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.on["PUT"] = lambda: fake.after(2, fake.becomes("Failed"))
        fake.faults["logs"] = [None, refusal(500, 240004)]

        with pytest.raises(DeploymentFailed, match="the server gives no reason"):
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

        with pytest.raises(DeploymentFailed, match=r"(?s)no module.*a line of old") as caught:
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
            with pytest.raises(NotVerified, match="worker died"):
                arrive(fake, V1)
        assert fake.sent == ["predict"] * min(failures + 1, 5)

    def test_a_model_that_refuses_is_believed_at_once(self) -> None:
        refused = refusal(400, 250008, "no such column")
        fake = FakeHopsworks(row=row(), files=FILES, faults={"predict": [refused]})

        with pytest.raises(NotVerified, match="no such column"):
            arrive(fake, V1)
        assert fake.sent == ["predict"]

    def test_idle_is_not_woken(self) -> None:
        fake = FakeHopsworks(row=row("Idle"), files=FILES)

        assert arrive(fake, V1).action == "unchanged"
        assert fake.sent == []

    def test_a_row_whose_version_does_not_answer(self) -> None:
        """A worker died between PUT and verification, and the change never reached the cluster."""
        fake = FakeHopsworks(row=row(modelVersion=2), files=FILES, answers=[1])

        with pytest.raises(NotVerified):
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

        with pytest.raises(Refused, match="quota reached"):
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

        with pytest.raises(Superseded, match="deleted"):
            arrive(fake, V1)


class TestFailed:
    def test_comes_back_by_itself(self) -> None:
        fake = FakeHopsworks(row=row("Failed"), files=FILES)
        fake.after(20, fake.becomes("Running"))

        assert arrive(fake, V1).action == "attached"
        assert set(fake.sent) == {"predict"}

    def test_is_left_alone_while_something_answers(self) -> None:
        fake = FakeHopsworks(row=row("Failed"), files=FILES)

        with pytest.raises(NotVerified, match="still serves"):
            arrive(fake, V1)
        assert set(fake.sent) == {"predict"}

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

        with pytest.raises(DeploymentFailed):
            arrive(fake, V1)
        assert fake.sent.count("START") == 1


def test_what_was_stopped_for_a_change_that_does_not_come_is_started() -> None:
    """A change whose answer is lost again and again is no work of somebody else, either."""
    fake = FakeHopsworks(row=row(), files=FILES, faults={"PUT": [refusal(503, 120009)] * 9})
    stops(fake)
    starts(fake, answers=[1])
    down = arrival(fake, timeout=400.0)
    down.recreate = True

    with pytest.raises(NotInTime):
        fake.run(down.run())

    assert fake.sent == ["STOP", *["PUT"] * fake.sent.count("PUT"), "START"]
    assert fake.row is not None
    assert (fake.row["status"], fake.row["modelVersion"]) == ("Starting", 1)


class TestWhatWasStoppedForADecisionThatIsOutdated:
    class Outdated(Exception):
        """No error of ours: somebody else has changed what was decided on."""

    def recreate(self, fake: FakeHopsworks) -> Arrival:
        """Make an arrival that stops it, meets somebody else, and gives way when it announces its change again."""
        told: list[bool] = []

        def announce(_: object) -> Procedure[None]:
            told.append(True)
            if len(told) == 2:
                raise self.Outdated
            yield from ()

        stops(fake)
        fake.faults["PUT"] = [refusal(409, 240000)]
        down = arrival(fake, timeout=400.0)
        down.recreate, down.before_change = True, announce
        return down

    def test_is_started_though_the_first_start_is_lost(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"START": [UNSENT, UNSENT]})
        starts(fake, answers=[1])

        with pytest.raises(self.Outdated):
            fake.run(self.recreate(fake).run())

        assert fake.sent == ["STOP", "PUT", "START", "START", "START"]
        assert fake.row is not None
        assert fake.row["status"] == "Starting"

    def test_is_an_error_that_says_so_where_it_cannot_be_started(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES, faults={"START": [refusal(400, 240003, "quota")]})

        with pytest.raises(DeploymentError, match=r"'digits' is left stopped: (.|\n)*quota.*StartDeploymentOperator"):
            fake.run(self.recreate(fake).run())

    def test_is_said_beside_the_error_that_there_is(self) -> None:
        faults = {"PUT": [refusal(400, 240026, "too much")], "START": [refusal(400, 240003, "quota")]}
        fake = FakeHopsworks(row=row(), files=FILES, faults=faults)
        stops(fake)
        down = arrival(fake)
        down.recreate = True

        with pytest.raises(Refused, match=r"240026(.|\n)*is left stopped: (.|\n)*quota") as caught:
            fake.run(down.run())
        assert "left stopped" in caught.value.kept_text
