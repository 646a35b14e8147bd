"""One read of a deployment that lacks something, at any moment: it is read again, and is no other client's change."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.journal_entry import PreviousState
from airflow_provider_hsml.hopsworks.errors import UnsupportedError
from airflow_provider_hsml.hopsworks.inference.ingress import Ingress
from airflow_provider_hsml.hopsworks.promotion.way_back import WayBack
from airflow_provider_hsml.hopsworks.rollout.inputs import ResumePoint, RolloutPolicy, Run
from tests.support.arrivals import FILES, arrive, rolls, starts, stops
from tests.support.fake import PROJECT, FakeHopsworks, refusal, row
from tests.unit.rollout.test_probe import AT_INGRESS, LIMITS, deploy

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.api import Project

RESOURCES = {"requests": {"cores": 1, "memory": 512, "gpus": 0}, "limits": {"cores": 2, "memory": 1024, "gpus": 0}}

MORE_MEMORY: dict[str, Any] = {"resources.limits.memory": 2048}


def hopsworks(status: str = "Running", **changes: Any) -> FakeHopsworks:
    """Make a Hopsworks with a deployment whose updates, starts and stops work."""
    fake = FakeHopsworks(row=row(status, predictorResources=RESOURCES, **changes), files=FILES)
    rolls(fake)
    starts(fake)
    stops(fake)
    return fake


def lives(fake: FakeHopsworks, **more: Any) -> None:
    """Bring version 2 to life."""
    assert arrive(fake, **more).deployment.model_version == 2


def update() -> FakeHopsworks:
    fake = hopsworks()
    lives(fake, **MORE_MEMORY)
    return fake


def recreate() -> FakeHopsworks:
    fake = hopsworks()
    fake.on["PUT"] = lambda: None
    lives(fake, recreate=True)
    return fake


def start() -> FakeHopsworks:
    fake = hopsworks("Stopped", modelVersion=2)
    lives(fake)
    return fake


def adopt() -> FakeHopsworks:
    fake = hopsworks(modelVersion=2)
    fake.serves(["new"], [2])()
    lives(fake, trust=False)
    return fake


def confirm() -> FakeHopsworks:
    fake = hopsworks(modelVersion=2)
    fake.serves(["new"], [2])()
    lives(fake)
    return fake


def settle() -> FakeHopsworks:
    fake = hopsworks(modelVersion=2)
    fake.serves(["new"], [2])()
    lives(fake, trust=False, sends=False)
    return fake


def bake() -> FakeHopsworks:
    fake = hopsworks()
    deploy(fake, {"bake_seconds": 20, "probe_interval": 5})
    return fake


def way_back(
    *,
    has_versions: bool,
    recreates: bool = False,
    was_up: bool = True,
    status: str = "Running",
    project: Project = PROJECT,
    faults: dict[str, list[Any]] | None = None,
) -> FakeHopsworks:
    """Roll back from version 2, which is live."""
    changes = {"predictorResources": RESOURCES, "projectNamespace": "demo"}
    before = Deployment.from_json(row("Running" if was_up else "Stopped", **changes))
    fake = hopsworks(status, modelVersion=2, version=2 if has_versions else 1, revision="1000", projectNamespace="demo")
    fake.files = FILES | {"models/digits_1": {"id": "digits_1", "name": "digits", "version": 1}}
    fake.faults = faults or {}
    fake.has_versions = has_versions
    fake.kept = [row(predictorResources=RESOURCES)] if has_versions else []
    fake.serves(["new"], [2])()
    ours = Deployment.from_json(dict(fake.row or {}))
    rolls(fake, answers=[1], names=("newest",))
    starts(fake, answers=[1])

    def restored() -> None:
        assert fake.row is not None
        fake.row |= {"version": 1, "revision": "1001", "modelVersion": 1}
        fake.serves(["newest"], [1])()

    fake.on["POST"] = restored
    if recreates or not was_up:
        del fake.on["PUT"]

    async def nothing_new(_inputs: object) -> bool:
        return False

    run = Run(project, "digits", 600.0, 10.0, fake.clock)
    previous = PreviousState.of(before)
    record: Any = SimpleNamespace(run=run, previous=previous, entry=None, env_vars=None, write_probe_inputs=nothing_new)
    outcome = WayBack(record, ResumePoint(worker_only=True), RolloutPolicy(recreate=recreates)).restore(ours)
    assert fake.run(outcome).deployment.model_version == 1
    return fake


class TestARollbackWhoseProbeReachesNoVersion:
    """The previous version serves, as the instances show."""

    @pytest.mark.parametrize("status", LIMITS)
    @pytest.mark.parametrize("has_versions", [True, False])
    def test_at_the_ingress(self, status: int, has_versions: bool) -> None:
        project = replace(PROJECT, ingress=Ingress("http://127.0.0.1:9"))
        refused = {AT_INGRESS: [Answer(status, b"refused by Envoy")] * 99}

        fake = way_back(has_versions=has_versions, project=project, faults=refused)

        assert 0 < fake.sent.count(AT_INGRESS) < 5
        assert fake.now < 1100

    @pytest.mark.parametrize("code", ["ENTITY_NOT_FOUND", "FEATURE_STORE_UNAVAILABLE"])
    @pytest.mark.parametrize("status", ["Running", "Failed"])
    def test_without_features(self, code: str, status: str) -> None:
        """Also if the failing version did not come up, so that it was not asked before."""
        refused = {"predict": [refusal(400, 250008, code)] * 99}

        fake = way_back(has_versions=False, status=status, faults=refused)

        assert 0 < fake.sent.count("predict") <= 2
        assert fake.now < 1100


SCENES: dict[str, Callable[[], FakeHopsworks]] = {
    "update": update,
    "recreate": recreate,
    "start": start,
    "adopt": adopt,
    "confirm": confirm,
    "settle": settle,
    "bake": bake,
    "rollback to a version": lambda: way_back(has_versions=True),
    "rollback by an update": lambda: way_back(has_versions=False),
    "rollback by a restart": lambda: way_back(has_versions=False, recreates=True),
    "rollback to a stopped one": lambda: way_back(has_versions=False, was_up=False),
}


KEYS = ["version", "revision", "status", "modelName", "modelVersion", "modelPath", "predictorResources"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_a_read_that_lacks_something_once_changes_nothing(
    scene: Callable[[], FakeHopsworks], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever read of the deployment it is."""
    plain = scene()
    changes = [kind for kind in plain.sent if kind != "predict"]
    number = 0
    faults = {}
    made = FakeHopsworks.__init__

    def spoilt(fake: FakeHopsworks, *given: Any, **named: Any) -> None:
        made(fake, *given, **(named | {"lacks": {number: {key: None}}}))

    monkeypatch.setattr(FakeHopsworks, "__init__", spoilt)
    for number in range(plain.looks):
        try:
            fake = scene()
        except Exception as error:  # noqa: BLE001 - all reads are tried, for the message
            faults[number] = repr(error)
        else:
            if [kind for kind in fake.sent if kind != "predict"] != changes:
                faults[number] = str(fake.sent)
    assert not faults, f"of {plain.looks} reads"


class TestAReadBackThatLacksASetting:
    """The first answers after the PUT."""

    @staticmethod
    def lacking(reads: int) -> FakeHopsworks:
        fake = hopsworks()
        assert fake.row is not None
        del fake.row["predictorResources"]
        put = fake.on["PUT"]

        def forget() -> None:
            put()
            fake.lacks = {fake.looks + number: {"predictorResources": None} for number in range(reads)}

        fake.on["PUT"] = forget
        return fake

    @pytest.mark.parametrize("reads", [1, 2])
    def test_is_read_again(self, reads: int) -> None:
        fake = self.lacking(reads)

        assert arrive(fake, **MORE_MEMORY).verified_by == "fingerprint"
        assert fake.sent.count("PUT") == 1

    def test_for_the_third_time_is_evidence(self) -> None:
        with pytest.raises(UnsupportedError, match=r"does not know spec\.resources"):
            arrive(self.lacking(3), **MORE_MEMORY)
