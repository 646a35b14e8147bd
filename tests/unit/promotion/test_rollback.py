"""A manual rollback: one read of the deployment that lacks something decides nothing."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
from airflow_provider_hsml.hopsworks.errors import SupersededError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.promotion.rollback import PromotionReference, Rollback
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from tests.support.arrivals import FILES
from tests.support.fake import PROJECT, FakeHopsworks, row

UNCLEAR: list[dict[str, Any]] = [
    {"modelVersion": None},
    {"modelName": None},
    {"modelName": None, "modelVersion": None},
]


RESOURCES = {"requests": {"cores": 1, "memory": 512, "gpus": 0}, "limits": {"cores": 2, "memory": 1024, "gpus": 0}}


def roll_back(lacks: dict[int, dict[str, Any]], status: str = "Running") -> FakeHopsworks:
    """Roll back a promotion of version 2, which is live."""
    live = row(status, modelVersion=2, version=2, predictorResources=RESOURCES)
    fake = FakeHopsworks(live, FILES.copy(), kept=[row(predictorResources=RESOURCES)], lacks=lacks)
    fake.files["models/digits_1"] = {"id": "digits_1", "name": "digits", "version": 1, "framework": "SKLEARN"}
    fake.serves(["new"], [2])()

    def restored() -> None:
        assert fake.row is not None
        fake.row |= {"version": 1, "revision": "101", "modelVersion": 1}
        fake.serves(["newest"], [1])()

    fake.on["POST"] = restored
    promotion = PromotionReference("digits", 14, "updated", ServedVersion("demo", "digits", 2))
    run = Run(PROJECT, "digits", 600.0, 10.0, fake.clock)
    assert fake.run(Rollback(run, promotion=promotion).roll_back()).outcome is not None
    return fake


@pytest.mark.parametrize("unclear", UNCLEAR)
@pytest.mark.parametrize("reads", [0, 1, 2])
def test_is_read_again(unclear: dict[str, Any], reads: int) -> None:
    fake = roll_back(dict.fromkeys(range(reads), unclear))

    assert fake.sent.count("POST") == 1
    assert fake.row is not None
    assert fake.row["modelVersion"] == 1


@pytest.mark.parametrize("unclear", UNCLEAR)
def test_for_the_third_time_is_an_error(unclear: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedResponseError, match=r"version that it serves is unclear: .*\nRead it again"):
        roll_back(dict.fromkeys(range(3), unclear))


@pytest.mark.parametrize("key", ["version", "revision", "modelPath", "predictorResources"])
def test_a_read_that_lacks_something_once_changes_nothing(key: str) -> None:
    """Whichever read of the deployment it is, the decision's or the one before the change."""
    plain = roll_back({})
    for number in range(plain.looks):
        fake = roll_back({number: {key: None}})

        assert fake.sent.count("POST") == 1, number
        assert fake.row == plain.row, number


def test_another_clients_change_after_the_decision_is_kept() -> None:
    """Also if it has the same settings: the state before it may be another one."""
    changed = {"version": 3, "revision": "300", "modelVersion": 3}

    with pytest.raises(SupersededError, match=r"changed by another client meanwhile\. Nothing was rolled back"):
        roll_back(dict.fromkeys(range(1, 9), changed))


def test_so_is_one_of_a_stopped_deployment() -> None:
    """It leaves version and revision as they are."""
    with pytest.raises(SupersededError, match=r"changed by another client meanwhile\. Nothing was rolled back"):
        roll_back({number: {"modelVersion": 3} for number in range(1, 9)}, "Stopped")
