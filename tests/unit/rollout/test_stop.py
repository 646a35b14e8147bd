from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, InvalidInputError, RequestRefusedError
from airflow_provider_hsml.hopsworks.flow import Backoff
from airflow_provider_hsml.hopsworks.rollout.stop import delete, stop
from tests.support.fake import LOST, PROJECT, UNSENT, FakeHopsworks, refusal, row


def backoff(fake: FakeHopsworks, timeout: float = 60) -> Backoff:
    return Backoff(first=0.5, most=10, deadline=fake.now + timeout, clock=fake.clock)


class TestStopping:
    def test_stops(self) -> None:
        fake = FakeHopsworks(row=row())
        fake.on["STOP"] = lambda: fake.after(3, fake.becomes("Stopped"))

        stopped = fake.run(stop(PROJECT, "digits", backoff(fake)))

        assert stopped is not None
        assert stopped.status.value == "Stopped"
        assert fake.sent == ["STOP"]

    @pytest.mark.parametrize("before", [None, row("Stopped"), row("Created")])
    def test_nothing_to_do(self, before: dict[str, Any] | None) -> None:
        fake = FakeHopsworks(row=before)

        fake.run(stop(PROJECT, "digits", backoff(fake)))
        assert fake.sent == []

    @pytest.mark.parametrize("fault", [refusal(400, 240003, "being updated"), LOST, UNSENT])
    def test_a_rollout_under_way_is_waited_out(self, fault: Any) -> None:
        fake = FakeHopsworks(row=row("Updating"), faults={"STOP": [fault]})
        fake.on["STOP"] = fake.becomes("Stopped")

        fake.run(stop(PROJECT, "digits", backoff(fake)))
        assert fake.row is not None
        assert fake.row["status"] == "Stopped"

    def test_never_stops(self) -> None:
        fake = FakeHopsworks(row=row())
        fake.on["STOP"] = fake.becomes("Stopping")

        with pytest.raises(DeadlineExceededError, match="to stop until the timeout"):
            fake.run(stop(PROJECT, "digits", backoff(fake)))

    def test_always_busy(self) -> None:
        fake = FakeHopsworks(row=row("Starting"), faults={"STOP": [refusal(500, 240004)] * 99})

        with pytest.raises(DeadlineExceededError, match="Gave up at the timeout: stop deployment"):
            fake.run(stop(PROJECT, "digits", backoff(fake)))

    def test_no_role(self) -> None:
        fake = FakeHopsworks(row=row(), faults={"STOP": [refusal(403, 150068)]})

        with pytest.raises(RequestRefusedError, match="Data owner"):
            fake.run(stop(PROJECT, "digits", backoff(fake)))

    def test_without_waiting(self) -> None:
        fake = FakeHopsworks(row=row())
        fake.on["STOP"] = fake.becomes("Stopping")

        stopped = fake.run(stop(PROJECT, "digits", backoff(fake), wait=False))

        assert stopped is not None
        assert stopped.status.value == "Stopping"


class TestDeleting:
    def test_deletes_and_waits(self) -> None:
        fake = FakeHopsworks(row=row("Stopped"))
        fake.on["DELETE"] = lambda: fake.after(3, lambda: setattr(fake, "row", None))

        before = fake.run(delete(PROJECT, "digits", backoff(fake)))

        assert before is not None
        assert fake.row is None
        assert fake.sent == ["DELETE"]

    def test_is_gone_already(self) -> None:
        fake = FakeHopsworks()

        assert fake.run(delete(PROJECT, "digits", backoff(fake))) is None
        assert fake.sent == []

    def test_not_while_it_runs(self) -> None:
        fake = FakeHopsworks(row=row())

        with pytest.raises(InvalidInputError, match="force=True"):
            fake.run(delete(PROJECT, "digits", backoff(fake)))
        assert fake.sent == []

    @pytest.mark.parametrize("fault", [refusal(500, 240001), LOST, UNSENT])
    def test_a_refusal_that_passes(self, fault: Any) -> None:
        fake = FakeHopsworks(row=row("Updating"), faults={"DELETE": [fault]})
        fake.on["DELETE"] = lambda: setattr(fake, "row", None)

        fake.run(delete(PROJECT, "digits", backoff(fake), force=True))
        assert fake.row is None

    def test_always_busy(self) -> None:
        fake = FakeHopsworks(row=row("Updating"), faults={"DELETE": [refusal(500, 240001)] * 99})

        with pytest.raises(DeadlineExceededError, match="Gave up at the timeout: delete deployment"):
            fake.run(delete(PROJECT, "digits", backoff(fake), force=True))

    def test_no_role(self) -> None:
        fake = FakeHopsworks(row=row("Stopped"), faults={"DELETE": [refusal(403, 150068)]})

        with pytest.raises(RequestRefusedError, match="Data owner"):
            fake.run(delete(PROJECT, "digits", backoff(fake)))
