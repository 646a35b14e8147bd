"""Lookup of versions: a row that cannot be read is a version all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.domain.criteria import Criteria
from airflow_provider_hsml.hopsworks.errors import NotFoundError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.registry.lookup import find_version, list_versions
from airflow_provider_hsml.hopsworks.sensing.search import search
from tests.support.fake import PROJECT, FakeHopsworks

if TYPE_CHECKING:
    from collections.abc import Callable

ODD: list[dict[str, Any]] = [
    {"metrics": []},
    {"framework": 1},
    {"description": {}},
    {"environment": 1},
    {"featureView": "view"},
    {"trainingDatasetVersion": "1"},
    {"created": "today"},
    {"tags": "approved"},
    {"tags": {"items": ["approved"]}},
    {"projectName": "elsewhere"},
    {"modelRegistryId": 7},
    {"id": None},
    {"name": None},
]
NUMBERLESS: list[dict[str, Any]] = [{"version": None}, {"version": "3"}, {"version": True}, {"version": 3.0}]


def registry(odd: dict[str, Any], number: int = 3) -> FakeHopsworks:
    """Make a registry with versions 1 to 3 of a model, one of which is odd."""
    rows: list[dict[str, Any]] = [
        {"id": f"digits_{version}", "name": "digits", "version": version, "metrics": {"auc": 0.8}}
        for version in (1, 2, 3)
    ]
    rows[number - 1] |= odd
    return FakeHopsworks(files={"models": {"count": 3, "items": rows}})


def newest(fake: FakeHopsworks) -> int:
    return fake.run(find_version(PROJECT, "digits", None)).version


def sought(fake: FakeHopsworks, **criteria: Any) -> int:
    return fake.run(search(PROJECT, "digits", Criteria.read(**criteria))).models[0].version


def candidate(fake: FakeHopsworks, number: int = 3) -> int:
    listed = fake.run(list_versions(PROJECT, "digits"))
    listed.check_candidates([number])
    return number


ASKING: dict[str, Callable[[FakeHopsworks], int]] = {
    "newest": newest,
    "sensor": sought,
    "sensor of a metric": lambda fake: sought(fake, metric="auc", at_least=0.5),
    "candidates": candidate,
}


@pytest.mark.parametrize("asking", ASKING)
@pytest.mark.parametrize("odd", [*ODD, *NUMBERLESS], ids=str)
def test_the_newest_version_that_cannot_be_read_is_not_replaced_by_an_older_one(
    odd: dict[str, Any], asking: str
) -> None:
    with pytest.raises(UnexpectedResponseError, match="cannot be read, and may be the one") as caught:
        ASKING[asking](registry(odd))
    assert caught.value.transient


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_version_that_cannot_be_read_hides_none_above_it(odd: dict[str, Any]) -> None:
    assert newest(registry(odd, 2)) == 3
    assert sought(registry(odd, 2)) == 3
    assert candidate(registry(odd, 2)) == 3
    assert candidate(registry(odd), 2) == 2


def test_a_version_that_cannot_be_read_and_is_not_newer_is_not_waited_for() -> None:
    fake, desired = registry(ODD[0], 2), Criteria.read(newer_than=2, metric="auc", at_least=0.9)

    assert "less than 0.9" in fake.run(search(PROJECT, "digits", desired)).reason
    with pytest.raises(UnexpectedResponseError, match="version 2 cannot be read"):
        fake.run(search(PROJECT, "digits", Criteria.read(newer_than=1, metric="auc", at_least=0.9)))


def test_a_version_that_does_not_exist_is_told_with_all_that_do() -> None:
    with pytest.raises(NotFoundError, match="versions there: 1, 2, 3"):
        registry(ODD[0]).run(find_version(PROJECT, "digits", 9))


def test_a_version_that_is_listed_twice_once_unreadably() -> None:
    with pytest.raises(UnexpectedResponseError, match="listed twice"):
        newest(registry({"version": 2, "metrics": []}))


def test_another_model_whose_name_differs_in_case_is_no_version() -> None:
    assert newest(registry({"name": "DIGITS", "id": "DIGITS_3"})) == 2
