"""The hook where the local Model Serving is as unkind as a cluster can be: late, slow, busy, of two minds."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hsml.local.cluster.behaviour import Speeds

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.hopsworks

_numbers = itertools.count()


@pytest.fixture
def name(register: Callable[..., int]) -> str:
    """A model of two versions, which answer 1 and 2."""
    name = f"worst{next(_numbers)}"
    for version in (1, 2):
        register(name, version)
    return name


@pytest.fixture(params=[{}, {"stale_status": "Idle"}, {"shows_updating": False}], ids=["seen", "idle", "unseen"])
def worst(request: pytest.FixtureRequest, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything late, slow and of two minds, in each way in which an update may be seen, or not."""
    cluster = serving.world.cluster
    speeds = Speeds(routing=1.0, handing_over=1.5, putting=0.5, reading_logs=0.3)
    monkeypatch.setattr(cluster, "speeds", speeds)
    monkeypatch.setattr(cluster, "profile", replace(cluster.profile, hand_over_503_every=3, **request.param))


@pytest.mark.usefixtures("worst")
def test_who_returned_serves_the_new_version_alone(hook: HsmlHook, name: str) -> None:
    created = hook.deploy_model(name, 1)
    answers = [hook.predict(name, instances=[[0]]) for _ in range(6)]
    updated = hook.deploy_model(name, 2)
    answers_then = [hook.predict(name, instances=[[0]]) for _ in range(6)]

    assert (created.action, created.verified_by) == ("created", "fingerprint")
    assert (updated.action, updated.verified_by) == ("updated", "fingerprint")
    assert answers == [{"predictions": [1]}] * 6
    assert answers_then == [{"predictions": [2]}] * 6


@pytest.mark.usefixtures("worst")
def test_where_no_answers_are_recorded(hook: HsmlHook, register: Callable[..., int]) -> None:
    name = f"worst{next(_numbers)}"
    for version in (1, 2):
        register(name, version, recorded=False)
    hook.deploy_model(name, 1)

    updated = hook.deploy_model(name, 2)

    assert updated.verified_by == "instances"
    assert [hook.predict(name, instances=[[0]]) for _ in range(6)] == [{"predictions": [2]}] * 6


@pytest.mark.parametrize("verb", ["update", "stop", "start", "delete"])
def test_a_lock_that_was_left_behind_is_waited_for(serving: LocalServing, hook: HsmlHook, name: str, verb: str) -> None:
    hook.deploy_model(name, 1)
    if verb == "start":
        hook.stop_deployment(name)
    serving.requests.clear()
    serving.world.leave_lock(name, seconds=2.0)

    match verb:
        case "update":
            assert hook.deploy_model(name, 2, poll_interval=0.2).model_version == 2
        case "stop":
            hook.stop_deployment(name, poll_interval=0.2)
            assert hook.get_deployment(name).status.value == "Stopped"
        case "start":
            hook.start_deployment(name, poll_interval=0.2)
            assert hook.get_deployment(name).status.value == "Running"
        case "delete":
            hook.delete_deployment(name, force=True)

    assert any(asked.status == 500 for asked in serving.requests), "it was refused at first"
