"""Settling the pending change of an earlier run: with which checks, and for how long a rollback waits for room."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry, ServedVersion
from airflow_provider_hsml.hopsworks.domain.judge import Checks, Expectation
from airflow_provider_hsml.hopsworks.domain.verification import checks_to_json
from airflow_provider_hsml.hopsworks.errors import DeploymentFailedError, InvalidInputError
from airflow_provider_hsml.hopsworks.promotion import way_back
from airflow_provider_hsml.hopsworks.promotion.settle import _checks_of
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, ResumePoint, RolloutPolicy, Run
from tests.support.fake import PROJECT, FakeHopsworks, row

OWN = Expectation("dags.checks.is_right", lambda _predictions, _rows: True, is_user_function=True)


def checks_of(asked: dict[str, Any] | None, own: Checks | None = None) -> Checks | None:
    served = ServedVersion("demo", "digits", 2)
    entry = JournalEntry("id", EntryState.PROMOTING, "run", 1.0, served, {}, None, touches_env_vars=False, asked=asked)
    return _checks_of("digits", entry, own)


class TestChecks:
    def test_are_those_that_the_change_was_made_with(self) -> None:
        made = Checks(body={"instances": [[1]]}, version_path="v", max_latency_ms=5.0, bake_seconds=9, rolls_back=False)

        assert checks_of({"body": made.body, "checks": checks_to_json(made)}, Checks(max_latency_ms=1.0)) == made

    @pytest.mark.parametrize("asked", [None, {"body": None, "champion": None}, {"body": None, "checks": None}])
    def test_of_a_change_without_any_are_none(self, asked: dict[str, Any] | None) -> None:
        assert checks_of(asked) is None, "a deployment of GRPC cannot be probed"

    def test_of_an_earlier_release_are_its_request(self) -> None:
        assert checks_of({"body": {"instances": [[1]]}, "champion": None}) == Checks(body={"instances": [[1]]})

    def test_that_call_a_function_need_it(self) -> None:
        asked = {"body": None, "checks": checks_to_json(Checks(expect=OWN))}

        with pytest.raises(InvalidInputError, match=r"calls dags\.checks\.is_right(.|\n)*accept_pending") as caught:
            checks_of(asked)
        assert caught.value.is_unverified
        assert checks_of(asked, Checks(expect=OWN)) == Checks(expect=OWN)

    def test_whose_rows_are_not_in_the_journal_cannot_be_made(self) -> None:
        with pytest.raises(InvalidInputError, match="too large for the journal"):
            checks_of({"checks": checks_to_json(Checks())})


def test_a_way_back_waits_for_room_as_long_as_its_change(monkeypatch: pytest.MonkeyPatch) -> None:
    class Built(Exception):
        pass

    def build(_run: object, _desired: object, policy: RolloutPolicy, **_more: object) -> None:
        raise Built(policy)

    monkeypatch.setattr(way_back, "Reconciler", build)
    record: Any = SimpleNamespace(run=None, entry=None)
    back = way_back.WayBack(record, ResumePoint(), RolloutPolicy(unschedulable_grace=1800.0, wait=False, sends=False))

    with pytest.raises(Built) as caught:
        FakeHopsworks().run(back._reconcile(Desired({}), Deployment.from_json(row()), is_up=True))
    assert caught.value.args == (RolloutPolicy(trust=False, unschedulable_grace=1800.0, is_way_back=True),)


def test_a_way_back_whose_deferred_wait_failed_ends_in_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """If what served before does not come up either, one deferral would follow the other for ever."""
    fake, points = FakeHopsworks(row=row()), list[ResumePoint]()

    async def run() -> None:
        raise DeploymentFailedError(Deployment.from_json(row("Failed")))

    async def reconcile(self: way_back.WayBack, *_: object, **_more: object) -> None:
        points.append(self.resume_point)

    async def desired(*_: object) -> Desired:
        return Desired({})

    monkeypatch.setattr(way_back.WayBack, "_reconcile", reconcile)
    monkeypatch.setattr(way_back.WayBack, "_desired", desired)
    of_run = Run(PROJECT, "digits", 60.0, 1.0, fake.clock)
    record: Any = SimpleNamespace(run=of_run, previous=SimpleNamespace(was_up=True))
    resumption: Any = SimpleNamespace(run=run)

    fake.run(way_back.WayBack(record, ResumePoint(), RolloutPolicy()).restore(None, resumption))
    assert [point.worker_only for point in points] == [True]
