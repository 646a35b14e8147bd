"""The bake after a rollout, against a Hopsworks whose clock and faults the test controls."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.errors import (
    AmbiguousVerificationError,
    DeadlineExceededError,
    DeploymentError,
    DeploymentFailedError,
    SupersededError,
    UnreachableError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.inference.ingress import Ingress
from tests.support.arrivals import FILES, V2, WITHOUT_EXPECTED
from tests.support.fake import LOST, PROJECT, UNSENT, FakeHopsworks, refusal, row
from tests.unit.rollout.test_probe import AT_THE_INGRESS, LLM, deploy

if TYPE_CHECKING:
    from collections.abc import Callable

VERIFICATION = {"bake_seconds": 60, "probe_interval": 5}
OK, WRONG = None, Answer(200, b'{"predictions": [3]}')
HUGE = Answer(200, b'{"predictions": [1' + b"0" * 400 + b"]}")
BROKEN, NOT_READY = refusal(400, 250008, "no"), refusal(400, 250008)
POLL = "14"
"""The fake's name for a poll of the deployment."""
PROBES = ["predict"] * 5
"""The probes after a START."""


@pytest.fixture
def fake() -> FakeHopsworks:
    """A stopped deployment of version 2, which runs as soon as it is started."""
    fake = FakeHopsworks(row=row("Stopped", modelVersion=2), files=FILES, answers=[2])
    fake.on["START"] = fake.becomes("Running", revision="7")
    return fake


def baked(fake: FakeHopsworks, *outcomes: Any, **more: Any) -> float:
    """Deploy and bake it, with these outcomes of the probes, and return the seconds that the bake took."""
    fake.faults["predict"] = [*[OK] * 5, *outcomes]
    begun = fake.now + 4  # Five probes, one second apart.
    deploy(fake, VERIFICATION | more, timeout=30)
    return fake.now - begun


def when(fake: FakeHopsworks, seconds: float, action: Callable[[], None]) -> None:
    """Let something happen some seconds after the bake has begun."""
    fake.on["START"] = _both(fake.on["START"], lambda: fake.after(4 + seconds, action))


def _both(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        one()
        other()

    return both


def probed(fake: FakeHopsworks) -> int:
    return fake.sent.count("predict") - 5


class TestInterval:
    def test_a_probe_every_interval_on_top_of_the_timeout(
        self, fake: FakeHopsworks, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)

        assert baked(fake) == 60
        assert probed(fake) == 12
        assert "watched for 60 s; 12 probes, 0 failed, the slowest took 0 ms" in caplog.text

    @pytest.mark.parametrize(("seconds", "interval", "probes"), [(2, 5, 1), (5, 5, 1), (9, 5, 1), (0.3, 0.1, 3)])
    def test_short_bakes(self, fake: FakeHopsworks, seconds: float, interval: float, probes: int) -> None:
        assert baked(fake, bake_seconds=seconds, probe_interval=interval) <= seconds + 1e-6
        assert probed(fake) == probes

    def test_slow_probes_are_not_made_up_for(self, fake: FakeHopsworks) -> None:
        slow = iter([0.0] * 5)
        fake.on["predict"] = lambda: fake.sleep(next(slow, 12.0))

        assert baked(fake) == 62, "probed at 5, 20, 35 and 50 seconds"
        assert probed(fake) == 4

    def test_a_deployment_without_a_probe_is_polled(self, fake: FakeHopsworks) -> None:
        fake.files = WITHOUT_EXPECTED

        deploy(fake, VERIFICATION)

        assert fake.now == 1060
        assert "predict" not in fake.sent
        assert fake.reads.count(POLL) == 1 + 12 + 1


class TestErrorRate:
    @pytest.mark.parametrize(
        "outcome", [WRONG, HUGE, BROKEN, NOT_READY, LOST, refusal(500, 250007, "no healthy upstream")]
    )
    def test_no_probe_may_fail_by_default(self, fake: FakeHopsworks, outcome: Any) -> None:
        with pytest.raises(
            VerificationError, match="1 of 3 probes failed while it was watched for 60 s; the allowed share is 0"
        ):
            baked(fake, OK, OK, outcome)
        assert fake.now == 1004 + 15, "it can only get worse"

    def test_a_share_of_the_probes_may_fail(self, fake: FakeHopsworks) -> None:
        assert baked(fake, WRONG, OK, BROKEN, NOT_READY, max_error_rate=0.25) == 60

    def test_a_larger_share_fails_as_soon_as_it_is_certain(self, fake: FakeHopsworks) -> None:
        with pytest.raises(VerificationError, match="4 of 5 probes failed"):
            baked(fake, WRONG, OK, BROKEN, NOT_READY, WRONG, max_error_rate=0.25)

    def test_shares_are_not_lost_in_rounding(self, fake: FakeHopsworks) -> None:
        """0.29 * 100 is a little less than 29."""
        assert baked(fake, *[WRONG] * 29, bake_seconds=100, probe_interval=1, max_error_rate=0.29) == 100

    def test_the_share_is_of_the_probes_that_were_sent(self, fake: FakeHopsworks) -> None:
        """One of twelve may fail, but slow probes leave time for only four."""
        slow = iter([0.0] * 5)
        fake.on["predict"] = lambda: fake.sleep(next(slow, 12.0))
        when(fake, 18, lambda: setattr(fake, "answers", [3]))
        when(fake, 34, lambda: setattr(fake, "answers", [2]))

        with pytest.raises(VerificationError, match="1 of 4 probes failed"):
            baked(fake, max_error_rate=0.1)

    def test_a_slow_answer_is_a_failed_probe(self, fake: FakeHopsworks) -> None:
        slow = iter([0.0] * 6)
        fake.on["predict"] = lambda: fake.sleep(next(slow, 0.5))

        with pytest.raises(
            VerificationError, match=r"1 of 2 probes failed .* it answered in 500 ms; 200 ms are allowed"
        ):
            baked(fake, max_latency_ms=200)

    def test_an_answer_of_the_champion_is_a_failed_probe(self) -> None:
        fake = FakeHopsworks(row=row(), files=FILES)
        fake.on["PUT"] = fake.serves(["new"], [2])
        fake.after(45, fake.serves(["old"], [1]))

        with pytest.raises(VerificationError, match="The last: it answers as the previous version"):
            deploy(fake, VERIFICATION)


class TestKindsOfFailures:
    """They say as much as right after a rollout, so that a rollback rejects no version without evidence."""

    @pytest.mark.parametrize("lost", [NOT_READY, LOST, refusal(500, 250007, "no healthy upstream")])
    def test_an_unreachable_deployment(self, fake: FakeHopsworks, lost: Any) -> None:
        with pytest.raises(UnreachableError, match="is unreachable"):
            baked(fake, lost, OK, lost, lost, lost, max_error_rate=0.25)

    @pytest.mark.parametrize("wrong", [WRONG, BROKEN])
    def test_wrong_answers_among_them(self, fake: FakeHopsworks, wrong: Any) -> None:
        with pytest.raises(VerificationError) as caught:
            baked(fake, NOT_READY, LOST, wrong, NOT_READY, max_error_rate=0.25)
        assert type(caught.value) is VerificationError

    @pytest.mark.parametrize(
        ("names", "more", "kind"),
        [
            (["new"], {}, VerificationError),
            ([], {}, AmbiguousVerificationError),
            (["new"], {"transformer": "/Projects/demo/Resources/t.py"}, AmbiguousVerificationError),
        ],
    )
    def test_answers_of_the_previous_version(
        self, names: list[str], more: dict[str, Any], kind: type[VerificationError]
    ) -> None:
        """They are evidence only if all instances are known to be new."""
        fake = FakeHopsworks(row=row(**more), files=FILES, names=["old"] if names else [])
        fake.on["PUT"] = fake.serves(names, [2])
        fake.after(45, fake.serves(names, [1]))

        with pytest.raises(VerificationError, match="The last: it answers as the previous version") as caught:
            deploy(fake, VERIFICATION)
        assert type(caught.value) is kind


class TestPolls:
    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"revision": "8"}, SupersededError, "was changed by another client while it was watched"),
            ({"status": "Stopping"}, SupersededError, "was stopped or deleted by another client while it was watched"),
            ({"status": "Stopped"}, SupersededError, "was stopped or deleted by another client"),
        ],
    )
    def test_a_change_is_seen_at_the_next_poll(
        self, fake: FakeHopsworks, changes: dict[str, Any], error: type[DeploymentError], message: str
    ) -> None:
        when(fake, 12, lambda: fake.row.update(changes) if fake.row else None)

        with pytest.raises(error, match=message):
            baked(fake)
        assert fake.now == 1004 + 15
        assert probed(fake) == 2

    def test_a_failed_that_stays(self, fake: FakeHopsworks) -> None:
        when(fake, 12, lambda: fake.row.update(status="Failed") if fake.row else None)

        with pytest.raises(DeploymentFailedError, match="its instances do not come up"):
            baked(fake)
        assert fake.now == 1004 + 15 + 30

    def test_a_failed_for_want_of_room_stays_for_the_grace_that_was_asked_for(self, fake: FakeHopsworks) -> None:
        no_room = {"condition": {"type": "SCHEDULED", "status": False, "reason": "no nodes"}}
        when(fake, 12, lambda: fake.row.update(status="Failed", **no_room) if fake.row else None)
        when(fake, 400, fake.becomes("Running"))
        begun = fake.now

        deploy(fake, VERIFICATION, timeout=30, grace=1800.0)

        assert fake.now > begun + 400

    def test_a_failed_that_passes(self, fake: FakeHopsworks) -> None:
        """The status is computed at each read: one more instance that finds no room is enough for Failed."""
        when(fake, 12, fake.becomes("Failed"))
        when(fake, 22, fake.becomes("Running"))

        assert baked(fake) == 60

    def test_a_deleted_deployment(self, fake: FakeHopsworks) -> None:
        when(fake, 12, lambda: setattr(fake, "row", None))

        with pytest.raises(SupersededError, match="stopped or deleted"):
            baked(fake)

    def test_an_instance_that_is_replaced(self, fake: FakeHopsworks) -> None:
        """Only the answers meanwhile count."""
        when(fake, 12, fake.becomes("Starting"))
        when(fake, 22, fake.becomes("Running"))

        assert baked(fake) == 60
        assert probed(fake) == 12

    def test_an_idle_deployment_is_woken_and_that_is_not_counted(self, fake: FakeHopsworks) -> None:
        assert fake.row is not None
        fake.row |= {"requestedInstances": 0, "predictorScalingConfig": {"minInstances": 0}}
        when(fake, 12, fake.becomes("Idle"))
        seconds = iter([0.0] * 7 + [25.0])

        def ask() -> None:
            fake.sleep(next(seconds, 0.0))
            if fake.row and fake.row["status"] == "Idle":
                fake.becomes("Running")()

        fake.on["predict"] = ask

        assert baked(fake, max_latency_ms=100) == 60
        assert probed(fake) == 2 + 1 + 5


class TestUnavailableServer:
    """An unavailable server says nothing about the deployment."""

    def test_probes_that_were_not_sent_are_not_counted(self, fake: FakeHopsworks) -> None:
        assert baked(fake, UNSENT, UNSENT) == 60

    def test_a_probe_that_was_lost_when_it_went_down_is_not_counted(self, fake: FakeHopsworks) -> None:
        when(fake, 4.5, lambda: fake.faults.update({POLL: [OK, UNSENT, UNSENT]}))

        assert baked(fake, LOST) == 60

    def test_the_server_comes_back(self, fake: FakeHopsworks) -> None:
        when(fake, 4.5, lambda: fake.faults.update({POLL: [UNSENT] * 8}))

        assert baked(fake) <= 65
        assert 3 <= probed(fake) < 12

    def test_the_server_stays_away(self, fake: FakeHopsworks) -> None:
        when(fake, 4.5, lambda: fake.faults.update({POLL: [UNSENT] * 100}))

        with pytest.raises(DeadlineExceededError, match="nobody answers"):
            baked(fake)
        assert fake.now >= 1060

    def test_without_any_probe_the_bake_continues_for_a_while(self, fake: FakeHopsworks) -> None:
        assert baked(fake, *[UNSENT] * 14) == 75
        assert probed(fake) == 15

    def test_without_any_probe_the_bake_fails_in_the_end(self, fake: FakeHopsworks) -> None:
        with pytest.raises(DeadlineExceededError, match="could not be probed once while it was watched"):
            baked(fake, *[UNSENT] * 100)


def test_no_bake_by_default(fake: FakeHopsworks) -> None:
    deploy(fake, {}, V2)

    assert fake.sent == ["START", *PROBES]


@pytest.mark.parametrize("fault", [LOST, refusal(500, 120000)])
def test_an_address_that_cannot_be_read_is_no_failed_probe(fault: Any) -> None:
    """Hopsworks is asked for the address again, since no request was answered at the last one."""
    fake = FakeHopsworks(row=row("Stopped", modelServer="VLLM", modelVersion=2), files=AT_THE_INGRESS)
    fake.on["START"] = fake.becomes("Running", revision="7")
    faults = {"models": [Answer(404, b"")], "kube_knative_domain_name": [fault]}
    when(fake, 12, lambda: fake.faults.update(faults))
    project = replace(PROJECT, ingress=Ingress("http://127.0.0.1:9"))

    outcome = deploy(fake, VERIFICATION | {"max_error_rate": 0.1}, LLM, project=project)

    assert outcome.deployment.model_version == 2
    assert faults == {"models": [], "kube_knative_domain_name": []}
