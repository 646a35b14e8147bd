from __future__ import annotations

from typing import Any, ClassVar

import pytest

from airflow_provider_hsml.hopsworks import promotion
from airflow_provider_hsml.hopsworks.deployments import default_deployment_names
from airflow_provider_hsml.hopsworks.errors import InvalidInput, NotFound
from airflow_provider_hsml.hopsworks.models import Direction, ModelVersion, best_of
from airflow_provider_hsml.hopsworks.registry import find_version, list_versions

from .fake import PROJECT, FakeHopsworks, row


def version(number: int, value: object = None, name: str = "digits") -> ModelVersion:
    return ModelVersion(
        name, number, f"{name}_{number}", "demo", 119, {} if value is None else {"accuracy": value, "loss": 1}
    )


def decide(
    versions: list[ModelVersion],
    champion: ModelVersion | None = None,
    candidates: list[int] | None = None,
    direction: Direction = Direction.MAX,
) -> promotion.Decision:
    by = promotion.Metric("accuracy", direction, candidates)
    return promotion.choose(versions, champion, by, model_name="digits", project_name="demo")


V1, V2, V3 = version(1, 0.8), version(2, 0.9), version(3, 0.7)
NAN, TEXT, NONE, TRUE = version(4, float("nan")), version(5, "0.99"), version(6), version(7, True)
MAX, MIN = Direction.MAX, Direction.MIN


@pytest.mark.parametrize(
    ("versions", "direction", "best"),
    [
        ([V1, V2, V3], MAX, 2),
        ([V1, V2, V3], MIN, 3),
        ([NAN, TEXT, NONE, TRUE, V1], MAX, 1),
        ([NAN, TEXT, NONE, TRUE], MAX, None),
        ([], MAX, None),
        ([V1, version(9, 0.8)], MAX, 9),
        ([V1, version(9, 0.8)], MIN, 9),
    ],
)
def test_best_of(versions: list[ModelVersion], direction: Direction, best: int | None) -> None:
    found = best_of(versions, "accuracy", direction)

    assert (found and found.version) == best


@pytest.mark.parametrize(
    ("versions", "champion", "candidates", "direction", "chosen", "kept", "reason"),
    [
        ([V1, V2], None, None, MAX, 2, False, "none is served yet"),
        ([V1, V2], None, [1], MAX, 1, False, "the best of 1"),
        ([V1, V2], V1, None, MAX, 2, False, "beats the served version 1"),
        ([V1, V3], V1, None, MIN, 3, False, "beats the served version 1"),
        ([V1, V2, V3], V2, None, MAX, 2, True, "does not beat the served version 2"),
        ([V1, V2, V3], V2, [3], MAX, 2, True, "does not beat the served version 2"),
        ([V1, V2], V2, None, MAX, 2, True, "is the best already"),
        ([V2, V3], V3, [2], MAX, 3, True, "version 2 (0.9), which is older"),
        ([V1, version(2, 0.8)], V1, None, MAX, 1, True, "equals the served version 1"),
        ([V1, V2, NAN], V1, [2, 4], MAX, 2, False, "beats"),
        ([V1], version(9, 0.1, "other"), None, MAX, 1, False, "beats"),
    ],
)
def test_choose(
    versions: list[ModelVersion],
    champion: ModelVersion | None,
    candidates: list[int] | None,
    direction: Direction,
    chosen: int,
    kept: bool,
    reason: str,
) -> None:
    decision = decide(versions, champion, candidates, direction)

    assert (decision.chosen.version, decision.is_kept) == (chosen, kept)
    assert reason in decision.reason


def test_no_version_has_the_metric() -> None:
    with pytest.raises(
        InvalidInput, match=r"No candidate version .* has a finite metric 'accuracy'; metrics there: loss"
    ):
        decide([NAN, TEXT])


def test_the_champion_lacks_the_metric() -> None:
    with pytest.raises(InvalidInput, match="The served version 6"):
        decide([NONE, V2], NONE)


def test_no_candidates() -> None:
    with pytest.raises(InvalidInput, match="expected at least one version"):
        decide([V1], candidates=[])


def test_candidates_that_do_not_exist() -> None:
    with pytest.raises(NotFound, match=r"versions \[8, 9\] are not in the registry; those there: \[1\]"):
        decide([V1], candidates=[9, 8, 1])


def test_no_versions_at_all() -> None:
    with pytest.raises(NotFound, match="not in the registry of project"):
        decide([])


class TestLookingUp:
    MODELS: ClassVar[dict[str, Any]] = {
        "models": {"count": 2, "items": [{"id": f"digits_{n}", "name": "digits", "version": n} for n in (1, 2)]}
    }

    def test_the_newest_unless_told_otherwise(self) -> None:
        fake = FakeHopsworks(files=self.MODELS)

        assert fake.run(find_version(PROJECT, "digits", None)).version == 2

    def test_a_version_that_is_not_there_names_those_that_are(self) -> None:
        fake = FakeHopsworks(files=self.MODELS)

        with pytest.raises(NotFound, match=r"Version 7 of model 'digits' .* versions there: 1, 2"):
            fake.run(find_version(PROJECT, "digits", 7))

    def test_pages(self) -> None:
        """The count is of all rows, also of those that a page leaves out."""
        fake = FakeHopsworks(files={"models": self.MODELS["models"] | {"count": 4}})

        assert len(fake.run(list_versions(PROJECT, "digits"))) == 4
        assert len(fake.reads) == 2

    def test_the_name_that_the_sdk_gives_comes_first(self) -> None:
        names = default_deployment_names("My_Digits")
        fake = FakeHopsworks(row=row())

        assert names == ["MyDigits", "mydigits"]
        assert fake.run(promotion.find_deployment(PROJECT, names))[0] == "MyDigits"
        fake.row = None
        assert fake.run(promotion.find_deployment(PROJECT, names)) == ("mydigits", None)

    def test_the_champion_is_read_where_it_is_not_known(self) -> None:
        fake = FakeHopsworks(files={"models/digits_1": {"id": "digits_1", "name": "digits", "version": 1}})
        live = fake.run(promotion.find_deployment(PROJECT, ["x"]))[1]

        assert fake.run(promotion.find_champion(PROJECT, live, [])) is None
        fake.row = row()
        _, live = fake.run(promotion.find_deployment(PROJECT, ["digits"]))
        found = fake.run(promotion.find_champion(PROJECT, live, []))
        assert found is not None
        assert fake.run(promotion.find_champion(PROJECT, live, [V1])) is V1

    def test_a_champion_that_was_deleted_from_the_registry(self) -> None:
        fake = FakeHopsworks(row=row())
        _, live = fake.run(promotion.find_deployment(PROJECT, ["digits"]))
        fake.row = None

        with pytest.raises(NotFound, match="not in the registry any more"):
            fake.run(promotion.find_champion(PROJECT, live, []))
