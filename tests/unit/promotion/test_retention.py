"""Deletion of old versions: nothing is deleted by a response that is odd or lacks rows."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry, PreviousState, ServedVersion
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.promotion.journal import FOLDER
from airflow_provider_hsml.hopsworks.promotion.retention import Retained, delete_versions
from tests.support.fake import PROJECT, FakeHopsworks, refusal, row

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMED: dict[str, Any] = {"modelName": "digits", "modelVersion": 1}


ACTIVE = {"version": 1, "active": True, "modelName": "digits", "modelVersion": 2}
"""The active version of the deployment, which a list of its versions holds for certain."""


def versions_of(*others: dict[str, Any], active: dict[str, Any] = ACTIVE) -> dict[str, Any]:
    return {"count": 1 + len(others), "items": [*others, active]}


def model(version: int) -> dict[str, Any]:
    return {"id": f"digits_{version}", "name": "digits", "version": version}


def _remove(files: dict[str, Any], version: int) -> None:
    items = [item for item in files["models"]["items"] if item["version"] != version]
    files["models"] = {"count": len(items), "items": items}


def retain(
    deployments: Any, versions: Any, models: Sequence[int] = (1, 2, 3, 4), keep: int = 1
) -> tuple[FakeHopsworks, Retained]:
    """Delete the versions of a model that a deployment serves in version 2."""
    fake = FakeHopsworks(row())
    items = [model(version) for version in models]
    fake.files["models"] = {"count": len(items), "items": items}
    for version in models:
        kind = f"DELETE modelregistries/119/models/digits_{version}"
        fake.on[kind] = functools.partial(_remove, fake.files, version)
    fake.faults["serving"] = [Answer(200, json.dumps(deployments).encode())]
    fake.faults["versions"] = [Answer(200, json.dumps(versions).encode())]
    try:
        return fake, fake.run(delete_versions(PROJECT, "digits", keep=keep))
    except UnexpectedResponseError:
        assert not fake.sent
        raise


@pytest.mark.parametrize(
    ("deployments", "versions"),
    [
        ({"count": 1, "items": []}, versions_of()),
        ({"count": 2, "items": [row()]}, versions_of()),
        ([row()], {"count": 2, "items": []}),
    ],
)
def test_a_list_that_lacks_rows(deployments: Any, versions: Any) -> None:
    with pytest.raises(UnexpectedResponseError, match="it counts"):
        retain(deployments, versions)


@pytest.mark.parametrize(
    "changes",
    [
        {"modelVersion": None},
        {"modelName": None},
        {"modelName": None, "modelVersion": None},
        {"modelName": "letters"},
        {"modelName": None, "modelVersion": None, "modelPath": None},
    ],
)
def test_a_deployment_that_does_not_say_clearly_what_it_serves(changes: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedResponseError, match="Nothing was deleted"):
        retain([row(**changes)], versions_of())


@pytest.mark.parametrize("changes", [{}, {"modelName": "digits"}, {"modelVersion": 1}])
def test_a_deployment_version_that_does_not_say_clearly_what_it_serves(changes: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedResponseError, match="version 8 of deployment 'digits' is unclear"):
        retain([row(version=8)], versions_of({"version": 8} | changes))


@pytest.mark.parametrize("changes", [{"modelPath": "/Projects/DEMO/Models/digits"}, {"modelPath": None}])
def test_the_project_may_be_in_another_case_or_missing(changes: dict[str, Any]) -> None:
    assert retain([row(modelVersion=2, **changes)], versions_of())[1].deleted == (1, 3)


def test_a_script_alone_uses_no_version() -> None:
    script: dict[str, Any] = {
        "modelName": None,
        "modelVersion": None,
        "modelPath": None,
        "predictor": "/Projects/demo/a.py",
    }

    assert retain([row(**script)], versions_of(active={"version": 1} | script))[1].deleted == (1, 2, 3)


@pytest.mark.parametrize("version", [1, None])
@pytest.mark.parametrize("versions", [{"count": 0}, [], {"items": []}])
def test_a_list_without_any_version(versions: Any, version: int | None) -> None:
    """Hopsworks keeps the active one for certain: the list was not read."""
    with pytest.raises(UnexpectedResponseError, match=r"answer lacks .*active"):
        retain([row(version=version)], versions)


def test_a_list_without_the_active_version() -> None:
    with pytest.raises(UnexpectedResponseError, match="answer lacks version 5, the active one"):
        retain([row(version=5)], versions_of(ACTIVE | {"version": 4}))


def test_a_version_that_is_listed_twice() -> None:
    """Counted by rows, the newest three would be version 4 alone."""
    with pytest.raises(UnexpectedResponseError, match="listed twice"):
        retain([row()], versions_of(), models=(4, 4, 4, 3, 2, 1), keep=3)


def test_a_deleted_version_that_is_still_listed_and_cannot_be_read() -> None:
    fake = FakeHopsworks(row())
    fake.files["models"] = {"count": 2, "items": [model(1), model(2)]}
    fake.files["variables/versions"] = [{"software": "hopsworks", "version": "5.2.0"}]
    odd = {"models": {"count": 2, "items": [model(1) | {"metrics": []}, model(2)]}}
    fake.on["DELETE modelregistries/119/models/digits_1"] = lambda: fake.files.update(odd)
    fake.faults["serving"] = [Answer(200, json.dumps([row(modelVersion=2)]).encode())]
    fake.faults["versions"] = [Answer(200, json.dumps(versions_of()).encode())]

    with pytest.raises(UnexpectedResponseError, match=r"deletion of its versions \[1\] was answered"):
        fake.run(delete_versions(PROJECT, "digits", keep=1, clock=fake.clock))


OLDER = JournalEntry(
    "id",
    EntryState.PROMOTING,
    "run",
    1.0,
    ServedVersion(None, "digits", 3),
    {},
    PreviousState.of(Deployment.from_json(row(modelVersion=2))),
    touches_env_vars=False,
)
"""The entry of a change from version 2 to version 3 of a model whose owner the journal does not tell."""


def older(journal: Any, *, is_listed: bool = True) -> FakeHopsworks:
    """Make a Hopsworks without versions of deployments, where version 1 of five is served, with a newest entry."""
    fake = FakeHopsworks(row(), has_versions=False)
    fake.files["models"] = {"count": 5, "items": [model(version) for version in (1, 2, 3, 4, 5)]}
    for version in (2, 3, 4):
        kind = f"DELETE modelregistries/119/models/digits_{version}"
        fake.on[kind] = functools.partial(_remove, fake.files, version)
    fake.files["variables/versions"] = [{"software": "hopsworks", "version": "4.6.0"}]
    file = "00000001-b00000000.json"
    if is_listed:
        entry = {"attributes": {"name": file, "size": len(json.dumps(journal))}}
        fake.files[f"{FOLDER}/digits"] = {"count": 1, "items": [entry]}
        fake.files[file] = journal
    fake.faults["serving"] = [Answer(200, json.dumps([row()]).encode())]
    return fake


@pytest.mark.parametrize("state", EntryState)
def test_before_5_2_the_journal_has_the_versions_that_a_rollback_needs(state: EntryState) -> None:
    entry = dataclasses.replace(OLDER, state=state)

    assert older(entry.to_json()).run(delete_versions(PROJECT, "digits", keep=1)).deleted == (4,)


def test_a_change_under_a_change_that_was_not_sent_is_kept_too() -> None:
    challenger = ServedVersion("demo", "digits", 4)
    newest = dataclasses.replace(OLDER, challenger=challenger, before=None, earlier=OLDER)

    assert older(newest.to_json()).run(delete_versions(PROJECT, "digits", keep=1)).deleted == ()


def test_a_deployment_without_a_journal_needs_no_other_version() -> None:
    fake = older({}, is_listed=False)

    assert fake.run(delete_versions(PROJECT, "digits", keep=1)).deleted == (2, 3, 4)


@pytest.mark.parametrize("has_versions", [False, True])
def test_a_journal_that_cannot_be_read(*, has_versions: bool) -> None:
    fake = older({"id": 7})
    fake.has_versions = has_versions

    with pytest.raises(UnexpectedResponseError):
        fake.run(delete_versions(PROJECT, "digits", keep=1))
    assert not fake.sent


def test_a_journal_that_the_key_may_not_read() -> None:
    """Where Hopsworks keeps versions of deployments, they tell; before, nothing does."""
    fake, kind = older({}), f"{FOLDER}/digits"
    fake.faults[kind] = [refusal(403, 320004)]
    with pytest.raises(InvalidInputError, match=r"may not read the journal(.|\n)*DATASET_VIEW"):
        fake.run(delete_versions(PROJECT, "digits", keep=1))
    assert not fake.sent

    fake = older({})
    fake.has_versions, fake.faults[kind] = True, [refusal(403, 320004)]
    assert fake.run(delete_versions(PROJECT, "digits", keep=1)).deleted == (2, 3, 4)


@pytest.mark.parametrize("version", ["9" * 5000 + ".1", "²³.1", "5.99999", "99999.1"])
def test_a_version_of_hopsworks_that_is_none(version: str) -> None:
    fake = FakeHopsworks(row(), has_versions=False)
    fake.files["models"] = {"count": 2, "items": [model(1), model(2)]}
    fake.files["variables/versions"] = [{"software": "hopsworks", "version": version}]
    fake.faults["serving"] = [Answer(200, json.dumps([row(**NAMED)]).encode())]

    with pytest.raises(UnexpectedResponseError, match="Nothing was deleted"):
        fake.run(delete_versions(PROJECT, "digits", keep=1))
    assert not fake.sent
