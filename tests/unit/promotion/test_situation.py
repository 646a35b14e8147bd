from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar

import pytest

from airflow_provider_hsml.hopsworks.domain import diff
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, default_deployment_names
from airflow_provider_hsml.hopsworks.domain.journal_entry import (
    EntryState,
    JournalEntry,
    PreviousState,
    Rejection,
    ServedVersion,
)
from airflow_provider_hsml.hopsworks.domain.model_version import Direction, ModelVersion, best_of
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NotFoundError
from airflow_provider_hsml.hopsworks.promotion import situation
from airflow_provider_hsml.hopsworks.promotion.change_record import ChangeRecord, ManualRollback
from airflow_provider_hsml.hopsworks.promotion.journal import Journal
from airflow_provider_hsml.hopsworks.registry.lookup import find_version, list_versions
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, Run
from tests.support.fake import PROJECT, FakeHopsworks, row


def version(number: int, value: object = None, name: str = "digits") -> ModelVersion:
    return ModelVersion(
        name, number, f"{name}_{number}", "demo", 119, {} if value is None else {"accuracy": value, "loss": 1}
    )


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


def champion_of(fake: FakeHopsworks, live: Deployment | None, known: list[ModelVersion]) -> ModelVersion | None:
    """Find what a deployment serves."""
    served = None if live is None else PreviousState.of(live).served
    return fake.run(situation.find_champion(PROJECT, served, known, "digits"))


class TestPending:
    """A worker died after it had recorded its change of version 1 to version 2."""

    @staticmethod
    def pending(live: dict[str, Any], **recorded: Any) -> bool:
        before = PreviousState.of(Deployment.from_json(row(modelVersion=1, version=1, revision="1")))
        served = ServedVersion("demo", "digits", 2)
        entry = JournalEntry("id", EntryState.PROMOTING, "run", 1.0, served, {"model_version": 2}, before, **recorded)
        journal = Journal(PROJECT, "digits", newest=entry)
        return situation._find_pending(PROJECT, journal, Deployment.from_json(row(**live))) is not None

    def test_a_change_that_is_live_is_ours(self) -> None:
        live = {"modelVersion": 2, "version": 2, "revision": "2"}

        assert self.pending(live, touches_env_vars=True, routes=("versions",))
        assert self.pending(live | {"version": 1}, touches_env_vars=False), "a Hopsworks that keeps no versions"

    def test_the_same_values_without_a_version_of_their_own_are_another_clients(self) -> None:
        live = {"modelVersion": 2, "version": 1, "revision": "2"}

        assert not self.pending(live, touches_env_vars=True, routes=("versions",))

    @pytest.mark.parametrize("is_stored", [True, False])
    def test_under_a_change_that_was_not_sent_the_earlier_one_is_ours(self, is_stored: bool) -> None:
        """An earlier release did not store it."""
        before = PreviousState.of(Deployment.from_json(row(modelVersion=1, version=1, revision="1")))
        live = Deployment.from_json(row(modelVersion=2, version=2, revision="2"))
        second, third = (ServedVersion("demo", "digits", number) for number in (2, 3))
        rejected = (Rejection(third, "it failed", 1.0),)
        earlier = JournalEntry(
            "earlier", EntryState.PROMOTING, "first", 1.0, second, {"model_version": 2}, before, touches_env_vars=False
        )
        entry = dataclasses.replace(
            earlier,
            id="id",
            run="second",
            challenger=third,
            desired={"model_version": 3},
            over=live.signature,
            rejected=rejected,
            earlier=earlier if is_stored else None,
        )
        entry = JournalEntry.from_json(json.loads(json.dumps(entry.to_json())))

        found = situation._find_pending(PROJECT, Journal(PROJECT, "digits", newest=entry), live)

        assert found is not None
        assert (found.challenger, found.desired, found.rejected) == (second, {"model_version": 2}, rejected)
        assert (found.run == "first") is is_stored

    def test_one_that_was_not_sent_is_not_live(self) -> None:
        assert not self.pending({"modelVersion": 1, "version": 1, "revision": "1"}, touches_env_vars=False)


class TestAPendingRollbackToAKeptVersion:
    """A worker died after it had activated version 1, which holds less memory than version 2."""

    BEFORE = row(modelVersion=2, version=2, revision="2", predictorResources={"limits": {"memory": 2048}})
    KEPT: ClassVar[dict[str, Any]] = {"version": 1, "revision": "3", "predictorResources": {"limits": {"memory": 1024}}}

    @staticmethod
    def recorded(live: dict[str, Any], desired: Desired, pending: JournalEntry | None = None) -> JournalEntry:
        """Return the entry that a rollback by hand, or a promotion over it, writes."""
        deployment = Deployment.from_json(live)
        journal = Journal(PROJECT, "digits", newest=pending, is_kept=False)
        record = ChangeRecord(Run(PROJECT, "digits", 60.0, 1.0), desired, journal, deployment, pending)
        record.rollback = None if desired.restore is None else ManualRollback(rejects=True)
        FakeHopsworks(live).run(record.begin(deployment, {}))
        assert record.entry is not None
        return JournalEntry.from_json(json.loads(json.dumps(record.entry.to_json())))

    def rollback(self, number: int) -> JournalEntry:
        kept = row(modelVersion=number, **self.KEPT)
        return self.recorded(
            self.BEFORE, Desired({"model_version": number}, None, 1, restored=diff.versioned_settings(PROJECT, kept))
        )

    @staticmethod
    def is_pending(entry: JournalEntry, **live: Any) -> bool:
        journal = Journal(PROJECT, "digits", newest=entry)
        return situation._find_pending(PROJECT, journal, Deployment.from_json(row(**live))) is not None

    @pytest.mark.parametrize("number", [1, 2])
    def test_is_ours(self, number: int) -> None:
        """Also if the kept version serves the same model version."""
        entry = self.rollback(number)

        assert self.is_pending(entry, modelVersion=number, **self.KEPT)
        assert not self.is_pending(entry, **self.BEFORE), "it was not sent"

    @pytest.mark.parametrize("number", [1, 2])
    @pytest.mark.parametrize(
        "theirs",
        [
            {"predictorResources": {"limits": {"memory": 3000}}},
            {"modelVersion": 3},
            {"inferenceLogging": "ALL"},
            {"predictorScalingConfig": {"minInstances": 5}},
        ],
        ids=str,
    )
    def test_changed_by_another_client_is_theirs(self, number: int, theirs: dict[str, Any]) -> None:
        live = {"modelVersion": number, **self.KEPT}

        assert not self.is_pending(self.rollback(number), **{**live, **theirs})

    def test_the_same_settings_without_that_version_are_another_clients(self) -> None:
        entry = dataclasses.replace(self.rollback(2), routes=("versions",))

        assert not self.is_pending(entry, **{**self.BEFORE, **self.KEPT, "version": 2})

    def test_a_promotion_over_it_is_pending_too(self) -> None:
        live = row(modelVersion=2, **self.KEPT)
        entry = self.recorded(live, Desired({"model_version": 3}), self.rollback(2))

        sent = {**live, "version": 3, "revision": "4", "modelVersion": 3}
        assert self.is_pending(entry, **sent)
        assert not self.is_pending(entry, **{**sent, "predictorResources": {"limits": {"memory": 2048}}})

    def test_over_a_pending_promotion_that_version_counts(self) -> None:
        """The promotion has set the memory to another value than the kept version has."""
        promoted = {**self.BEFORE, "version": 3, "revision": "4", "predictorResources": {"limits": {"memory": 4096}}}
        pending = self.recorded(self.BEFORE, Desired({"resources.limits.memory": 4096}))
        kept = row(modelVersion=2, **self.KEPT)
        desired = Desired({"model_version": 2}, None, 1, restored=diff.versioned_settings(PROJECT, kept))

        entry = self.recorded(promoted, desired, pending)

        assert self.is_pending(entry, modelVersion=2, **self.KEPT)
        assert not self.is_pending(entry, **{**promoted, "version": 1, "revision": "5"})

    def test_the_journal_holds_nothing_that_the_server_left_out(self) -> None:
        held = diff.versioned_settings(PROJECT, {"version": 1, "modelVersion": 2, "predictorEnvVars": ["KEY=secret"]})

        assert held == {"model_version": 2}


class TestLookingUp:
    MODELS: ClassVar[dict[str, Any]] = {
        "models": {"count": 2, "items": [{"id": f"digits_{n}", "name": "digits", "version": n} for n in (1, 2)]}
    }

    def test_the_newest_unless_told_otherwise(self) -> None:
        fake = FakeHopsworks(files=self.MODELS)

        assert fake.run(find_version(PROJECT, "digits", None)).version == 2

    def test_a_version_that_is_not_there_names_those_that_are(self) -> None:
        fake = FakeHopsworks(files=self.MODELS)

        with pytest.raises(NotFoundError, match=r"Version 7 of model 'digits' .* versions there: 1, 2"):
            fake.run(find_version(PROJECT, "digits", 7))

    def test_pages(self) -> None:
        """The count is of all rows, also of those that a page leaves out."""
        first, second = (
            {"items": [{"id": f"digits_{number}", "name": "digits", "version": number} for number in page], "count": 4}
            for page in ((1, 2), (3, 4))
        )
        fake = FakeHopsworks(files={"models": first})
        fake.on["models"] = lambda: fake.files.update(models=second)

        assert [model.version for model in fake.run(list_versions(PROJECT, "digits")).models] == [1, 2, 3, 4]
        assert len(fake.reads) == 2

    def test_the_name_that_the_sdk_gives_comes_first(self) -> None:
        names = default_deployment_names("My_Digits")
        fake = FakeHopsworks(row=row(name="MyDigits"))

        assert names == ["MyDigits", "mydigits"]
        assert fake.run(situation.find_deployment(PROJECT, names))[0] == "MyDigits"
        fake.row = None
        assert fake.run(situation.find_deployment(PROJECT, names)) == ("mydigits", None)

    @pytest.mark.parametrize(
        ("keys", "served"),
        [
            ({"modelName": "other"}, "model 'other'"),
            (dict.fromkeys(("modelName", "modelVersion", "modelPath")), "a script without a model"),
        ],
    )
    def test_a_derived_name_takes_over_nothing_else(self, keys: dict[str, Any], served: str) -> None:
        """Two models may lead to the same name: ``demand_1_12`` and ``demand_11_2``."""
        fake = FakeHopsworks(row("Stopped", name="demand112", **keys))
        names = default_deployment_names("demand_1_12")

        with pytest.raises(InvalidInputError, match=rf"serves {served}") as caught:
            fake.run(situation.find_deployment(PROJECT, names, "demand_1_12"))

        assert 'set deployment_name="demand112"' in str(caught.value)
        assert fake.run(situation.find_deployment(PROJECT, names))[0] == "demand112", "a name that was given may"

    @pytest.mark.parametrize("lacks", [{"modelName": None}, dict.fromkeys(("modelName", "modelVersion"))])
    def test_one_read_without_a_model_is_no_other_deployment(self, lacks: dict[str, Any]) -> None:
        fake = FakeHopsworks(row(), lacks={0: lacks, 1: lacks})

        assert fake.run(situation.find_deployment(PROJECT, ["digits"], "digits"))[1] is not None

    def test_the_same_model_of_another_project_is_the_same(self) -> None:
        fake = FakeHopsworks(row(name="digits", modelPath="/Projects/other/Models/digits"))

        assert fake.run(situation.find_deployment(PROJECT, ["digits"], "digits"))[1] is not None

    def test_the_champion_is_read_where_it_is_not_known(self) -> None:
        fake = FakeHopsworks(files={"models/digits_1": {"id": "digits_1", "name": "digits", "version": 1}})
        live = fake.run(situation.find_deployment(PROJECT, ["digits"]))[1]

        assert champion_of(fake, live, []) is None
        fake.row = row()
        _, live = fake.run(situation.find_deployment(PROJECT, ["digits"]))
        champion = champion_of(fake, live, [])
        assert champion is not None
        assert champion_of(fake, live, [V1]) is V1

    def test_a_champion_that_was_deleted_from_the_registry(self) -> None:
        fake = FakeHopsworks(row=row())
        _, live = fake.run(situation.find_deployment(PROJECT, ["digits"]))
        fake.row = None

        with pytest.raises(NotFoundError, match="not in the registry any more"):
            champion_of(fake, live, [])

    def test_a_derived_name_finds_the_deployment_in_any_case(self) -> None:
        fake = FakeHopsworks(row=row(name="Digits"))

        name, live = fake.run(situation.find_deployment(PROJECT, ["digits"], named_after="digits"))
        assert live is not None
        assert name == live.name == "Digits"

    def test_a_given_name_has_to_be_the_real_one(self) -> None:
        fake = FakeHopsworks(row=row(name="Digits"))

        with pytest.raises(InvalidInputError, match=r"'digits' does not exist: its name is 'Digits'"):
            fake.run(situation.find_deployment(PROJECT, ["digits"]))
