"""Each new version of a model is told of once: a table of looks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.domain.access import Access
from airflow_provider_hsml.hopsworks.errors import UnexpectedResponseError
from airflow_provider_hsml.hopsworks.sensing import conditions, new_versions
from airflow_provider_hsml.hopsworks.sensing.conditions import VersionCondition
from airflow_provider_hsml.hopsworks.sensing.new_versions import REMEMBERED, NewVersionFeed
from tests.support.fake import PROJECT, FakeHopsworks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion

APPROVED = {"approval": "approved"}


class Registry:
    """A registry, and somebody who announces what comes into it."""

    def __init__(self, *versions: int, **desired: Any) -> None:
        self.fake = FakeHopsworks()
        self.access = Access.from_connection(
            host="localhost", port=None, password="key", extra={"project": "demo"}, name="c"
        )
        self.desired = desired
        self.rows: dict[int, float] = {}
        self.odd: dict[int, dict[str, Any]] = {}
        self.add(versions)
        self.restart()

    def add(self, versions: Iterable[int], accuracy: float = 0.9, *, is_approved: bool = False) -> None:
        self.rows |= dict.fromkeys(versions, accuracy)
        items = [
            {"id": f"digits_{number}", "name": "digits", "version": number, "metrics": {"accuracy": value}}
            | self.odd.get(number, {})
            for number, value in self.rows.items()
        ]
        self.fake.files["models"] = {"count": len(items), "items": items}
        for number in versions:
            self.approve(number, is_approved=is_approved)

    def spoil(self, number: int, **odd: Any) -> None:
        """Make a row one that cannot be read; without a key, make it good again."""
        self.odd[number] = odd
        self.add([])

    def approve(self, number: int, *, is_approved: bool = True) -> None:
        items = [{"name": "approval", "value": '"approved"'}] if is_approved else []
        self.fake.files[f"digits_{number}/tags"] = {"count": len(items), "items": items}

    def restart(self, state: Any = None) -> None:
        self.announcer = NewVersionFeed(VersionCondition.read("digits", **self.desired))
        self.announcer.recall(json.loads(json.dumps(state)))

    def news(self) -> list[int]:
        found = self.fake.run(self.announcer.look(self.access, PROJECT))
        return [version["model_version"] for version in found]


def test_what_was_there_is_not_new() -> None:
    registry = Registry(1, 2)

    assert registry.news() == []
    registry.add([3])
    assert registry.news() == [3]
    assert registry.news() == []


def test_the_first_of_a_model_is_new() -> None:
    registry = Registry()
    assert registry.news() == []
    registry.add([1])

    assert registry.news() == [1]


def test_each_of_several_oldest_first_also_one_that_was_slower_to_come() -> None:
    registry = Registry(1)
    registry.news()
    registry.add([2, 4])
    assert registry.news() == [2, 4]
    registry.add([3, 5])

    assert registry.news() == [3, 5]


def test_those_above_a_number_are_new_at_once() -> None:
    assert Registry(1, 2, 3, newer_than=1).news() == [2, 3]


def test_only_those_that_are_good_enough() -> None:
    registry = Registry(1, metric="accuracy", at_least=0.8)
    registry.news()
    registry.add([2], accuracy=0.7)
    assert registry.news() == []
    registry.add([3])

    assert registry.news() == [3]


def test_one_is_new_when_it_is_approved() -> None:
    registry = Registry(1, 2, tag=APPROVED)
    assert registry.news() == []
    registry.approve(1)
    assert registry.news() == [1]
    registry.approve(2)

    assert registry.news() == [2]
    assert registry.news() == []


def test_one_that_cannot_be_described_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with metrics in a thousand lists."""

    def describe(access: Access, model: ModelVersion, **more: Any) -> dict[str, Any]:
        if model.version == 3:
            raise RecursionError
        return real(access, model, **more)

    registry, real = Registry(1), conditions.describe
    registry.news()
    registry.add([2, 3, 4])
    monkeypatch.setattr(new_versions, "describe", describe)

    assert registry.news() == [2, 4]
    assert "Version 3 of model 'digits' is left out" in caplog.text
    assert registry.news() == []


def test_a_poll_that_fails_loses_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(1)
    registry.news()
    registry.add([2])

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(new_versions, "describe", killed)
    with pytest.raises(KeyboardInterrupt):
        registry.news()
    monkeypatch.undo()
    assert registry.news() == [2]


def test_a_metric_of_many_digits_is_no_number() -> None:
    registry = Registry(1, metric="accuracy", at_least=0.5)
    registry.news()
    registry.add([2])
    registry.add([3], accuracy=10**400)

    assert registry.news() == [2]


def test_goes_on_where_an_earlier_one_ended() -> None:
    registry = Registry(1, newer_than=0)
    assert registry.news() == [1]
    state = registry.announcer.state
    registry.add([2])
    registry.restart(state)

    assert registry.news() == [2]


@pytest.mark.parametrize("state", [None, {}, "x", {"newer_than": "x", "told": []}, {"newer_than": 1}])
def test_begins_anew_where_nothing_is_known(state: Any) -> None:
    registry = Registry(1)
    registry.restart(state)

    assert registry.news() == []


def test_remembers_a_few() -> None:
    registry = Registry(*range(1, 101))
    registry.news()

    assert registry.announcer.state == {"newer_than": 80, "told": list(range(81, 101)), "unread": []}
    assert REMEMBERED == 20
    registry.add([101])
    assert registry.news() == [101]
    registry.restart(registry.announcer.state)
    assert registry.news() == []


ODD: list[dict[str, Any]] = [{"metrics": []}, {"framework": 1}, {"id": None}, {"created": "today"}]


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_one_that_could_not_be_read_at_first_is_not_new_later(odd: dict[str, Any], *, is_restarted: bool) -> None:
    registry = Registry(1, 2, 3)
    registry.spoil(2, **odd)
    assert registry.news() == []
    assert registry.news() == []
    if is_restarted:
        registry.restart(registry.announcer.state)
    registry.spoil(2)

    assert registry.news() == []
    registry.add([4])
    assert registry.news() == [4]


def test_one_that_could_not_be_read_at_first_is_new_when_it_is_approved() -> None:
    registry = Registry(1, 2, tag=APPROVED)
    registry.spoil(1, metrics=[])
    assert registry.news() == []
    registry.spoil(1)
    assert registry.news() == []
    registry.approve(1)

    assert registry.news() == [1]


def test_one_that_could_not_be_read_when_it_came_is_new_later() -> None:
    registry = Registry(1)
    registry.news()
    registry.add([2])
    registry.spoil(2, metrics=[])
    assert registry.news() == []
    registry.spoil(2)

    assert registry.news() == [2]


def test_one_above_a_number_is_new_when_it_can_be_read() -> None:
    registry = Registry(1, 2, 3, newer_than=1)
    registry.spoil(2, metrics=[])
    assert registry.news() == [3]
    registry.spoil(2)

    assert registry.news() == [2]


def test_one_whose_number_cannot_be_read_delays_the_first_poll() -> None:
    registry = Registry(1, 2)
    registry.spoil(1, version="1")
    with pytest.raises(UnexpectedResponseError, match="would count as new later"):
        registry.news()
    registry.spoil(1, metrics=[])
    assert registry.news() == []
    registry.spoil(1, version="1")
    assert registry.news() == []
    registry.spoil(1)
    assert registry.news() == []
    registry.add([3])
    registry.spoil(1, version="1")

    assert registry.news() == [3], "what is new is not held back"
