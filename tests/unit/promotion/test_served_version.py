"""Served versions are compared as far as they are known: the owner of a model may not be."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain import diff
from airflow_provider_hsml.hopsworks.domain.comparison import check_not_the_same
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.journal_entry import (
    EntryState,
    JournalEntry,
    PreviousState,
    Rejection,
    ServedVersion,
)
from airflow_provider_hsml.hopsworks.domain.model_version import Framework, ModelVersion, model_of_path
from airflow_provider_hsml.hopsworks.errors import DeploymentFailedError, InvalidInputError
from airflow_provider_hsml.hopsworks.promotion import rejections
from airflow_provider_hsml.hopsworks.promotion.journal import Journal
from airflow_provider_hsml.hopsworks.promotion.situation import Situation, find_champion, is_live
from airflow_provider_hsml.hopsworks.registry.lookup import find_served
from tests.support.fake import PROJECT, FakeHopsworks, row

PATHS = (
    None,
    "/Projects/demo/Models/digits",
    "/Projects/demo/Models/digits/",
    "/Projects/demo/Models/digits/1",
    "/Projects/demo/Models/digits/1/",
    "hdfs:///Projects/demo/Models/digits",
    "hopsfs://namenode:8020/Projects/demo/Models/digits",
    "hdfs:/Projects/demo/Models/digits",
    "/Projects/DEMO/Models/digits",
)
"""Forms of the path of a model of the project."""
OTHERS = ("/Projects/other/Models/digits", "hdfs:///Projects/other/Models/digits/", "/Projects/other/Models/digits/1")
MODEL = ModelVersion("digits", 1, "digits_1", "demo", 119, {"auc": 0.9}, Framework.SKLEARN)
SERVED = ServedVersion("demo", "digits", 1)


def live(path: str | None, **changes: Any) -> Deployment:
    return Deployment.from_json(row(modelPath=path, **changes))


def entry(path: str | None, **changes: Any) -> JournalEntry:
    before = PreviousState.of(live(path, requestedInstances=2, version=0))
    given: dict[str, Any] = {"desired": {}, "touches_env_vars": False, **changes}
    return JournalEntry("id", EntryState.PROMOTING, "run", 1.0, SERVED, before=before, **given)


@pytest.mark.parametrize("path", PATHS)
def test_the_same_version_whatever_the_form_of_its_path(path: str | None) -> None:
    found = PreviousState.of(live(path)).served

    assert found.is_same(SERVED)
    assert SERVED.is_same(found)
    with pytest.raises(InvalidInputError, match="nothing to compare"):
        check_not_the_same(found, SERVED)


@pytest.mark.parametrize("path", OTHERS)
def test_the_version_of_another_project(path: str) -> None:
    assert not PreviousState.of(live(path)).served.is_same(SERVED)


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (None, False),
        (ServedVersion(), False),
        (ServedVersion(None, "digits", 2), False),
        (ServedVersion(None, "letters", 1), False),
        (ServedVersion("demo", "Digits", 1), False),
        (ServedVersion(None, "digits", 1), True),
    ],
)
def test_name_and_version_are_known(other: ServedVersion | None, *, is_same: bool) -> None:
    assert SERVED.is_same(other) is is_same
    assert ServedVersion().is_same(ServedVersion())


@pytest.mark.parametrize(
    "path", ["", "digits", "/Projects/demo/Models", "/Projects/demo/Resources/digits", "/Projects/demo/Models/a/b", 7]
)
def test_any_other_path_tells_no_owner(path: object) -> None:
    assert model_of_path(path) is None


@pytest.mark.parametrize("path", PATHS)
def test_a_failed_change_of_settings_alone_rejects_no_version(path: str | None) -> None:
    found = live(path, status="Failed")

    failed = rejections.of_failure(DeploymentFailedError(found), entry(path), entry(path).before, found, at=1.0)
    assert failed is None


@pytest.mark.parametrize("path", OTHERS)
def test_a_failed_change_of_the_version_rejects_it(path: str) -> None:
    found = live(PATHS[1], status="Failed")

    failed = rejections.of_failure(DeploymentFailedError(found), entry(path), entry(path).before, found, at=1.0)
    assert failed is not None
    assert failed.served == SERVED


@pytest.mark.parametrize("path", PATHS)
def test_a_rejection_of_a_version_whose_owner_is_unknown_counts_for_the_gate(path: str | None) -> None:
    rejection = Rejection(PreviousState.of(live(path)).served, "it was rolled back from by hand", 1.0)
    newest = entry(path, rejected=(rejection,))
    found = Situation("digits", live(path), Journal(PROJECT, "digits", newest=newest), None)

    assert found.rejected_versions([MODEL], {}) == {1: rejection.reason}
    assert rejections.without(newest, live(path)) == ()


@pytest.mark.parametrize("path", PATHS)
def test_the_champion_is_found_among_the_known_versions(path: str | None) -> None:
    fake = FakeHopsworks()

    assert fake.run(find_champion(PROJECT, PreviousState.of(live(path)).served, [MODEL], "digits")) is MODEL
    assert fake.reads == []


def test_the_own_project_in_another_case_is_no_shared_one() -> None:
    files = {
        "modelregistries": {"count": 1, "items": [{"id": 119, "name": "demo"}]},
        "models/digits_1": {"id": "digits_1", "name": "digits", "version": 1},
    }

    found = FakeHopsworks(files=files).run(find_served(PROJECT, "DEMO", "digits", 1))
    assert found is not None
    assert found.project == "demo"


@pytest.mark.parametrize("path", PATHS)
def test_a_change_is_ours_whatever_the_form_of_the_path(path: str | None) -> None:
    desired = diff.model_settings(MODEL) | {"scaling.min_instances": 3}
    changed = live(path, requestedInstances=3, predictorScalingConfig={"minInstances": 3}, version=2)

    assert diff.differences(changed.raw, desired) == {}
    assert is_live(PROJECT, entry(PATHS[1], desired=diff.settings_to_json(desired)), changed)


@pytest.mark.parametrize("path", OTHERS)
def test_a_change_of_the_owner_is_one(path: str) -> None:
    desired = diff.model_settings(MODEL)

    assert set(diff.differences(live(path).raw, desired)) == {"model_path"}
    assert diff.update_body(live(path).raw, desired)["modelPath"] == MODEL.path


@pytest.mark.parametrize("path", PATHS)
def test_an_update_to_another_version_names_the_path(path: str | None) -> None:
    body = diff.update_body(live(path, modelVersion=2).raw, diff.model_settings(MODEL))

    assert (body["modelVersion"], body["modelPath"]) == (1, MODEL.path)


def test_a_path_that_is_not_known_is_not_written() -> None:
    """As where a way back restores a version whose path the server had left out."""
    desired = diff.model_settings(MODEL) | {"model_path": None}

    assert diff.update_body(live(MODEL.path, modelVersion=2).raw, desired)["modelPath"] == MODEL.path
    other = live("/Projects/demo/Models/letters", modelName="letters")
    assert diff.update_body(other.raw, desired)["modelPath"] is None
    assert diff.update_body(live(None).raw, diff.model_settings(MODEL))["modelPath"] == MODEL.path
