"""Which version of a model is waited for: a table of wishes, and what is asked of the server."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.api import Call, Registry
from airflow_provider_hsml.hopsworks.domain.criteria import Criteria
from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, RequestRefusedError
from airflow_provider_hsml.hopsworks.flow import drive
from airflow_provider_hsml.hopsworks.sensing import search
from tests.support.fake import PROJECT, FakeHopsworks, refusal

NAN = float("nan")


def version(number: int, **metrics: Any) -> ModelVersion:
    return ModelVersion("digits", number, f"digits_{number}", "demo", 119, metrics)


@pytest.mark.parametrize(
    ("wanted", "metrics", "lack"),
    [
        ({}, {}, None),
        ({"newer_than": 2}, {}, None),
        ({"newer_than": "2"}, {}, None),
        ({"newer_than": 3}, {}, "is not newer than 3"),
        ({"newer_than": 0}, {}, None),
        ({"metric": "accuracy"}, {"accuracy": 0.0}, None),
        ({"metric": "accuracy"}, {"loss": 0.1}, "has no finite accuracy"),
        ({"metric": "accuracy"}, {"accuracy": NAN}, "has no finite accuracy"),
        ({"metric": "accuracy", "at_least": 0.9}, {"accuracy": 0.9}, None),
        ({"metric": "accuracy", "at_least": "0.9"}, {"accuracy": 0.8}, "has accuracy 0.8, less than 0.9"),
        ({"metric": "accuracy", "at_least": 0.9}, {"accuracy": NAN}, "has no finite accuracy"),
        ({"metric": "loss", "at_most": 0.2}, {"loss": 0.2}, None),
        ({"metric": "loss", "at_most": 0.2}, {"loss": 0.3}, "has loss 0.3, more than 0.2"),
        ({"metric": "loss", "at_least": 0.1, "at_most": 0.1}, {"loss": 0.1}, None),
        ({"metric": "loss", "at_least": 0, "newer_than": 3}, {"loss": 1}, "is not newer than 3"),
    ],
)
def test_what_a_version_lacks(wanted: dict[str, Any], metrics: dict[str, Any], lack: str | None) -> None:
    assert Criteria.read(**wanted).shortcoming(version(3, **metrics)) == lack


@pytest.mark.parametrize(
    ("tag", "tags", "lack"),
    [
        (None, {}, None),
        ({"approval": "approved"}, {"approval": "approved", "team": "fraud"}, None),
        ({"approval": "approved"}, {"approval": "rejected"}, "has the tag 'approval' with 'rejected', not 'approved'"),
        ({"approval": "approved"}, {}, "has no tag 'approval'"),
        ({"approval": "approved", "tier": 1}, {"approval": "approved"}, "has no tag 'tier'"),
        ({"tier": "1"}, {"tier": 1}, None),
        ({"tier": 1}, {"tier": 1}, None),
        ({"review": {"by": "me"}}, {"review": {"by": "me"}}, None),
        ({"review": {"by": "me"}}, {"review": {"by": "you"}}, "has the tag 'review'"),
    ],
)
def test_which_tag_a_version_lacks(tag: Any, tags: dict[str, Any], lack: str | None) -> None:
    found = Criteria.read(tag=tag).untagged(tags)

    assert found == lack if lack is None else str(found).startswith(lack)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"at_least": 0.9}, "Give its name as well"),
        ({"at_most": 0.9}, "Give its name as well"),
        ({"metric": "loss", "at_least": 2, "at_most": 1}, "No loss can be at_least 2 and at_most 1"),
        ({"metric": ""}, "metric: expected a text that is not empty"),
        ({"metric": "loss", "at_least": "much"}, "at_least: expected a finite number, got 'much'"),
        ({"metric": "loss", "at_least": NAN}, "at_least: expected a finite number"),
        ({"newer_than": "None"}, "newer_than: expected a whole number of 0 or more, got 'None'"),
        ({"newer_than": -1}, "newer_than: expected a whole number of 0 or more"),
        ({"model_version": 0}, "model_version: expected a whole number of 1 or more"),
        ({"model_version": "latest"}, "model_version: expected a whole number of 1 or more, got 'latest'"),
        ({"tag": {}}, "tag: expected at least one tag"),
        ({"tag": "approved"}, "tag: text as the whole value is read as JSON"),
        ({"tag": {"tier": NAN}}, "tag.tier: expected plain JSON values"),
    ],
)
def test_what_cannot_be_wanted(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Criteria.read(**wanted)


class TestLook:
    TAGGED = {"count": 1, "items": [{"name": "approval", "value": '"approved"'}]}  # noqa: RUF012

    def registry(self, *accuracies: float, **files: Any) -> FakeHopsworks:
        """Make a registry with versions numbered from 1; the keys of ``files`` are versions with tags: ``_2``."""
        rows: list[dict[str, Any]] = [
            {"id": f"digits_{number}", "name": "digits", "version": number, "metrics": {"accuracy": accuracy}}
            for number, accuracy in enumerate(accuracies, 1)
        ]
        tags = {f"digits{name}/tags": tags for name, tags in files.items()}
        rest = {f"models/{row['id']}": row for row in rows}
        return FakeHopsworks(files={"models": {"count": len(rows), "items": rows}, **tags, **rest})

    def look(self, fake: FakeHopsworks, **wanted: Any) -> search.SearchResult:
        return fake.run(search.search(PROJECT, "digits", Criteria.read(**wanted)))

    def newest(self, fake: FakeHopsworks, **wanted: Any) -> ModelVersion:
        (found,) = self.look(fake, **wanted).models
        return found

    def test_of_several_the_newest(self) -> None:
        fake = self.registry(0.9, 0.9, 0.8)
        found = self.newest(fake, metric="accuracy", at_least=0.85)

        assert found.version == 2
        assert fake.reads == ["models"]
        assert fake.sent == []

    def test_tags_are_read_only_of_those_that_meet_the_rest_and_only_until_one_does(self) -> None:
        fake = self.registry(0.9, 0.9, 0.9, 0.5, _2=self.TAGGED, _3={"count": 0})
        found = self.newest(fake, metric="accuracy", at_least=0.85, tag={"approval": "approved"})
        asked = [path for path in fake.reads if path == "tags"]

        assert (found.version, found.tags) == (2, {"approval": "approved"})
        assert len(asked) == 2, "of 3 and 2; 4 is not good enough, and 1 is older"

    def test_one_version_is_asked_for_by_its_number(self) -> None:
        fake = self.registry(0.9, 0.9, _1=self.TAGGED)
        found = self.newest(fake, model_version="1", tag={"approval": "approved"})

        assert found.version == 1
        assert fake.reads == ["digits_1", "tags"]

    def test_another_projects_tags_are_read_in_its_registry(self) -> None:
        fake = self.registry(0.9, _1=self.TAGGED)
        paths = []

        def send(call: Call[Any]) -> Any:
            paths.append(call.path)
            return fake.send(call)

        wanted = Criteria.read(tag={"approval": "approved"})
        (found,) = drive(search.search(PROJECT, "digits", wanted, Registry(7, "training")), send, fake.sleep).models

        assert found.project == "training"
        assert all("/project/119/modelregistries/7/models" in path for path in paths)
        assert len(paths) == 2

    @pytest.mark.parametrize(
        ("accuracies", "wanted", "reason"),
        [
            ((), {}, "Model 'digits' is not in the registry of project 'demo' yet"),
            ((0.9,), {"model_version": 2}, "Version 2 of model 'digits' is not in the registry of project 'demo' yet"),
            ((0.9,), {"newer_than": 1}, "Model 'digits': version 1 is not newer than 1"),
            (
                (0.9, 0.8),
                {"metric": "accuracy", "at_least": 0.95},
                "Model 'digits': version 2 has accuracy 0.8, less than 0.95; the 1 before it will not do either",
            ),
        ],
    )
    def test_why_there_is_none_yet(self, accuracies: Any, wanted: dict[str, Any], reason: str) -> None:
        assert self.look(self.registry(*accuracies), **wanted) == search.SearchResult((), reason)

    def test_a_version_that_is_deleted_meanwhile_is_passed_over(self) -> None:
        fake = self.registry(0.9, 0.9, _1=self.TAGGED)
        fake.faults["tags"] = [refusal(404, 360000)]
        found = self.newest(fake, tag={"approval": "approved"})

        assert found.version == 1

    def test_all_of_them_but_those_that_are_known(self) -> None:
        fake = self.registry(0.9, 0.5, 0.9, 0.9)
        wanted = Criteria.read(metric="accuracy", at_least=0.85)
        seen = fake.run(search.search(PROJECT, "digits", wanted, but={3}, is_one_enough=False))

        assert [model.version for model in seen.models] == [4, 1]

    def test_any_other_refusal_is_told(self) -> None:
        fake = self.registry(0.9)
        fake.faults["tags"] = [refusal(403, 320004)]

        with pytest.raises(RequestRefusedError, match="scopes PROJECT, SERVING and MODELREGISTRY"):
            self.look(fake, tag={"approval": "approved"})
