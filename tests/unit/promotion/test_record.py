"""The record for people."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry, PreviousState
from airflow_provider_hsml.hopsworks.promotion.change_record import ChangeRecord
from airflow_provider_hsml.hopsworks.promotion.journal import Journal
from airflow_provider_hsml.hopsworks.promotion.record import Record
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, Run
from tests.support.fake import PROJECT, row

RECORD = Record(
    deployment_name="digits",
    deployment_id=14,
    action="updated",
    reason="version 6 (accuracy 0.995) beats the served version 3 (accuracy 0.665)",
    model_name="digits",
    model_version=6,
    previous_model_version=3,
    metric="accuracy",
    metric_value=0.995,
    previous_metric_value=0.665,
    verified_by="fingerprint",
    status="Running",
    inference_url="https://host/predict",
    url="https://host/p/119/deployments/14",
)


def test_says_what_serves_and_why() -> None:
    assert RECORD.summary().splitlines() == [
        "Deployment 'digits':",
        "  action      updated",
        "  model       'digits': version 6 (accuracy 0.995); before: version 3 (accuracy 0.665)",
        "  verified by fingerprint",
        "  state       Running",
        "  why         version 6 (accuracy 0.995) beats the served version 3 (accuracy 0.665)",
        "  inference   https://host/predict",
        "  see         https://host/p/119/deployments/14",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"is_kept": True}, "  action      updated (the served version is kept)"),
        ({"action": "kept", "is_kept": True}, "  action      kept"),
        ({"failure": "It failed.\nIt was rolled back."}, "  failure     It failed.\n              It was rolled back."),
        ({"downtime_seconds": 41.6}, "  downtime    42 s"),
        (
            {"metric_value": None, "previous_metric_value": None, "previous_model_version": None},
            "version 6; before: none",
        ),
        ({"model_version": None, "action": "kept"}, "'digits': none; before: version 3"),
        ({"model_version": 3, "is_kept": True}, "'digits': version 3 (accuracy 0.995), as before"),
        ({"model_version": 3, "action": "unchanged"}, "'digits': version 3 (accuracy 0.995), as before"),
        (
            {"action": "rolled_back", "failure": "wrong", "model_version": 3, "script": "script a.py -> b.py"},
            "'digits': script a.py -> b.py failed; version 3 (accuracy 0.665) serves again",
        ),
        ({"action": "rolled_back"}, "'digits': version 6 (accuracy 0.995); before: version 3 (accuracy 0.665)"),
    ],
)
def test_each_in_its_line(changes: dict[str, Any], line: str) -> None:
    assert line in dataclasses.replace(RECORD, **changes).summary()


def test_what_was_taken_back_is_told_from_what_serves() -> None:
    failed = dataclasses.replace(
        RECORD,
        action="rolled_back",
        verified_by=None,
        inference_url=None,
        failure="It answers otherwise.\nIt was rolled back.",
        reason=f"{RECORD.reason}; It answers otherwise.\nIt was rolled back.",
    )
    assert failed.summary().splitlines() == [
        "Deployment 'digits':",
        "  action      rolled_back",
        "  model       'digits': version 6 (accuracy 0.995) failed; version 3 (accuracy 0.665) serves again",
        "  state       Running",
        "  failure     It answers otherwise.",
        "              It was rolled back.",
        "  attempted   version 6 (accuracy 0.995) beats the served version 3 (accuracy 0.665)",
        "  see         https://host/p/119/deployments/14",
    ]
    first = dataclasses.replace(failed, previous_model_version=None, previous_metric_value=None)
    assert "version 6 (accuracy 0.995) failed; nothing served before" in first.summary()


def test_a_script_has_no_model() -> None:
    assert "model" not in dataclasses.replace(RECORD, model_name=None, reason="asked for").summary()


@pytest.mark.parametrize("action", ["created", "updated", "started", "attached", "rolled_back"])
def test_what_counts_as_a_change(action: str) -> None:
    assert dataclasses.replace(RECORD, action=action).has_changed


@pytest.mark.parametrize("action", ["kept", "unchanged", "planned", "failed", "superseded"])
def test_what_does_not(action: str) -> None:
    assert not dataclasses.replace(RECORD, action=action).has_changed


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("/Projects/demo/x/a.py", "/Projects/demo/x/b-0123456789abcdef.py", "script a.py -> b.py"),
        ("a-0123456789abcdef.py", "a-fedcba9876543210.py", "script a-0123456789abcdef.py -> a-fedcba9876543210.py"),
        (None, "b.py", "script none -> b.py"),
    ],
)
def test_a_change_of_a_script_alone(old: str | None, new: str, shown: str) -> None:
    assert changed_script(old, {"script_file": new}, same_version=True) == shown
    assert changed_script(old, {"script_file": new}, same_version=False) is None
    assert changed_script(old, {"script_file": new, "environment": "x"}, same_version=True) is None
    assert changed_script(old, {}, same_version=True) is None


def changed_script(old: str | None, desired: dict[str, Any], *, same_version: bool) -> str | None:
    """What a change of a deployment that serves version 1 says of its script."""
    before = PreviousState.of(Deployment.from_json(row(predictor=old)))
    served = before.served if same_version else dataclasses.replace(before.served, version=2)
    entry = JournalEntry("id", EntryState.ROLLED_BACK, "run", 1.0, served, desired, before, touches_env_vars=False)
    record = ChangeRecord(Run(PROJECT, "digits", 60.0, 1.0), Desired({}), Journal(PROJECT, "digits"), None)
    record.entry = entry
    return record.changed_script
