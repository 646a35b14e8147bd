"""A change that is resumed: another task may have gone on with the same journal entry meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry, ServedVersion
from airflow_provider_hsml.hopsworks.errors import SupersededError
from airflow_provider_hsml.hopsworks.promotion.guarded_change import GuardedChange
from airflow_provider_hsml.hopsworks.rollout.watch import SentChange
from tests.support.fake import FakeHopsworks


@pytest.mark.parametrize(
    ("state", "is_way_back"), [(EntryState.PROMOTING, True), (EntryState.ROLLING_BACK, False)], ids=str
)
def test_the_end_of_a_rollback_is_no_end_of_the_change_nor_the_other_way_round(
    state: EntryState, *, is_way_back: bool
) -> None:
    """Two tasks make the same change: one rolls it back, while the other adopts it."""
    served = ServedVersion("demo", "digits", 2)
    entry = JournalEntry("id", state, "run", 1.0, served, {}, None, touches_env_vars=False)
    record: Any = SimpleNamespace(journal=SimpleNamespace(newest=entry), run=SimpleNamespace(name="digits"))
    change = SentChange("updated", has_changed=True, is_way_back=is_way_back)
    resumption: Any = SimpleNamespace(watch=SimpleNamespace(change=change, resume=SimpleNamespace(journal_id="id")))

    with pytest.raises(SupersededError, match="the journal holds another change meanwhile"):
        FakeHopsworks().run(GuardedChange(record).resume(resumption))
