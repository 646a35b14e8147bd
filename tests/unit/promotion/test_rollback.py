"""A manual rollback: one read of the deployment that lacks something decides nothing."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion
from airflow_provider_hsml.hopsworks.errors import UnexpectedResponseError
from airflow_provider_hsml.hopsworks.promotion.rollback import PromotionReference, Rollback
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from tests.support.arrivals import FILES
from tests.support.fake import PROJECT, FakeHopsworks, row

UNCLEAR: list[dict[str, Any]] = [
    {"modelVersion": None},
    {"modelName": None},
    {"modelName": None, "modelVersion": None},
]


def roll_back(lacks: dict[int, dict[str, Any]]) -> FakeHopsworks:
    """Roll back a promotion of version 2, which is live."""
    fake = FakeHopsworks(row(modelVersion=2, version=2), FILES.copy(), kept=[row()], lacks=lacks)
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
