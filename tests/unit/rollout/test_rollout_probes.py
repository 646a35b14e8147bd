"""Probes during the settle time of a rollout: only their success counts, and only while it is the new version's."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.errors import SupersededError, VerificationError
from tests.support.arrivals import FILES, WITH_EXAMPLE, arrive, rolls
from tests.support.fake import LOST, FakeHopsworks, refusal, row

SETTLED_AT = 1011.0
"""The end of the settle time: the deployment is Running at 1005.5, which the poll at 1006 sees."""


def updated(
    files: dict[str, Any], names: tuple[str, ...] = ("new",), old: tuple[str, ...] = ("old",)
) -> tuple[FakeHopsworks, list[float]]:
    """Build a deployment that is updated within 5.5 s, and the list of the times at which it is probed."""
    fake = FakeHopsworks(row=row(), files=files, names=list(old))
    probed: list[float] = []
    rolls(fake, names=names)
    fake.on["predict"] = lambda: probed.append(fake.now)
    return fake, probed


def test_new_instances_that_answer_as_recorded_end_the_settle_time() -> None:
    fake, probed = updated(FILES)

    assert arrive(fake).verified_by == "fingerprint"
    assert probed == [1000, 1006, 1007, 1008, 1009, 1010]
    assert fake.now == 1010


def test_new_instances_alone_are_probed_during_the_settle_time() -> None:
    fake, probed = updated(WITH_EXAMPLE)

    assert arrive(fake).verified_by == "instances"
    assert probed == [1000, 1006, 1007, 1008, 1009, 1010]
    assert fake.now == SETTLED_AT


def test_so_is_a_version_that_answers_as_recorded_where_no_names_are_known() -> None:
    fake, probed = updated(FILES, names=(), old=())

    assert arrive(fake).verified_by == "fingerprint"
    assert probed == [1000, 1006, 1007, 1008, 1009, 1010]
    assert fake.now == SETTLED_AT


def test_answers_that_may_be_of_either_version_are_no_success() -> None:
    """Without names, the previous version may have given them."""
    fake, probed = updated(WITH_EXAMPLE, names=(), old=())

    assert arrive(fake).verified_by == "status"
    assert probed == [1000, 1006, 1011, 1012, 1013, 1014, 1015]


def test_previous_instances_are_not_probed() -> None:
    """They may give the answers of either version, until they are gone."""
    fake, probed = updated(WITH_EXAMPLE, names=("old", "new"))
    fake.after(9, fake.serves(["new"], [2]))

    assert arrive(fake).verified_by == "instances"
    assert min(probed[1:]) >= SETTLED_AT


def test_a_previous_instance_that_still_answers_is_neither_right_nor_wrong() -> None:
    fake, probed = updated(FILES, names=(), old=())
    rolls(fake, answers=(1,), names=())
    fake.after(9, fake.serves([], [2]))

    assert arrive(fake).verified_by == "fingerprint"
    assert sum(time > 1009 for time in probed) == 5
    assert fake.now > SETTLED_AT


@pytest.mark.parametrize("fault", [refusal(500, 250007, "not ready yet"), refusal(400, 250001), LOST])
def test_an_instance_that_fails_at_first_is_not_rejected(fault: object) -> None:
    fake, _ = updated(FILES)
    fake.faults["predict"] = [None, fault]

    assert arrive(fake).verified_by == "fingerprint"
    assert fake.now == SETTLED_AT + 4


def test_a_wrong_answer_is_found_after_the_settle_time() -> None:
    fake, _ = updated(FILES)
    rolls(fake, answers=(7,))

    with pytest.raises(VerificationError, match="otherwise than recorded"):
        arrive(fake)
    assert fake.now == SETTLED_AT


def test_one_wrong_answer_of_five_is_no_success() -> None:
    fake, probed = updated(FILES)
    fake.after(8.5, fake.serves(["new"], [7]))

    with pytest.raises(VerificationError, match="otherwise than recorded"):
        arrive(fake)
    assert probed[-1] == SETTLED_AT


def test_another_status_right_after_the_probes_takes_their_success_back() -> None:
    fake, probed = updated(FILES)
    fake.after(9.5, fake.becomes("Updating", instances=1))
    fake.after(15, fake.becomes("Running"))

    assert arrive(fake).verified_by == "fingerprint"
    assert sum(time > 1015 for time in probed) == 5


def test_another_clients_change_right_after_the_probes_is_found() -> None:
    fake, _ = updated(FILES)
    fake.after(9.5, fake.becomes("Running", revision="9"))

    with pytest.raises(SupersededError):
        arrive(fake)


def test_a_transformer_may_still_ask_the_previous_version() -> None:
    fake, probed = updated(FILES)
    assert fake.row is not None
    fake.row["transformer"] = "/Projects/demo/Resources/transformer.py"

    assert arrive(fake).verified_by == "fingerprint"
    assert min(probed[1:]) == SETTLED_AT


def test_polls_are_two_seconds_apart_and_the_row_that_was_read_back_is_the_first() -> None:
    fake, _ = updated(FILES)
    polled: list[float] = []
    fake.on["14"] = lambda: polled.append(fake.now)

    arrive(fake)
    assert polled == [1002, 1004, 1006, 1010]
