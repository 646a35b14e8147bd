"""Feature views as the feature store describes them, and the provenance of models."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.feature_view import FeatureView, Origin, Provenance, ViewName
from tests.support.samples import answer

VIEW: dict[str, Any] = json.loads(answer("featurestore/view").content)
LINKS: dict[str, Any] = json.loads(answer("featurestore/provenance").content)


def linked(**node: Any) -> dict[str, Any]:
    """Give links in which the node of the training dataset has other keys."""
    links = copy.deepcopy(LINKS)
    links["upstream"][0]["node"] |= node
    return links


class TestView:
    def test_as_registered(self) -> None:
        sent = FeatureView.from_json({**VIEW, "maxFeatureAgeSecs": 60}).as_registered()

        assert set(VIEW) - set(sent) == {"id", "servingKeys", "featurestoreName"}
        assert (sent["maxFeatureAgeSecs"], sent["extraLogColumns"]) == (60, None)
        assert "maxFeatureAgeSecs" not in FeatureView.from_json(VIEW).as_registered()

    @pytest.mark.parametrize(
        ("tags", "sent"),
        [
            # Answers, and the form in which hopsworks 5.2.1 sends them again (Tag.from_response_json, _tags_to_dict).
            (
                {
                    "count": 2,
                    "items": [
                        {"name": "owner", "value": '{"team":"\u00e9","n":[1]}', "createdOn": 1704067200000},
                        {"name": "stage", "value": '"prod"', "href": "h"},
                    ],
                },
                [{"name": "owner", "value": '{"team": "\\u00e9", "n": [1]}'}, {"name": "stage", "value": "prod"}],
            ),
            (
                {
                    "count": 4,
                    "items": [
                        {"name": "a", "value": "plain"},
                        {"name": "b", "value": "5"},
                        {"name": "c", "value": "[1,2]"},
                        {"name": "d", "value": {"x": 1}},
                    ],
                },
                [
                    {"name": "a", "value": "plain"},
                    {"name": "b", "value": 5},
                    {"name": "c", "value": [1, 2]},
                    {"name": "d", "value": '{"x": 1}'},
                ],
            ),
            ({"name": "one", "value": "{}", "href": "h"}, [{"name": "one", "value": "{}"}]),
            ({"count": 1, "items": [{"name": "schema only"}]}, None),
            ({"count": 0, "items": []}, None),
            ({"href": "h"}, None),
            (None, None),
            # Answers with which the SDK fails, or which are no JSON.
            ([], None),
            ({"count": 1, "items": "x"}, None),
            ({"count": 2, "items": ["x", {"name": "a", "value": None}]}, None),
            (
                {"count": 2, "items": [{"name": "a", "value": "null"}, {"name": "b", "value": "NaN"}]},
                [{"name": "a", "value": "null"}, {"name": "b", "value": "NaN"}],
            ),
            ({"name": "deep", "value": "[" * 100_000}, [{"name": "deep", "value": "[" * 100_000}]),
        ],
    )
    def test_its_tags_as_registered(self, tags: Any, sent: list[dict[str, Any]] | None) -> None:
        found = FeatureView.from_json({**VIEW, "tags": tags}).as_registered()

        assert found.get("tags") == (None if sent is None else {"count": len(sent), "items": sent})

    def test_a_key_that_is_joined_on_another_one(self) -> None:
        keys = [
            {"featureName": "id", "required": True, "prefix": "left_"},
            {"featureName": "id", "required": False, "prefix": "right_", "joinOn": "left_id"},
        ]

        assert FeatureView.from_json({**VIEW, "servingKeys": keys}).serving_keys == ("left_id",)

    def test_the_columns_after_transformations_are_unknown(self) -> None:
        assert FeatureView.from_json({**VIEW, "transformationFunctions": [{}]}).model_schema() is None
        assert FeatureView.from_json({**VIEW, "features": None}).model_schema() is None

    @pytest.mark.parametrize("changes", [{"name": None}, {"features": {}}, {"servingKeys": ["x"]}, {"version": "1"}])
    def test_another_form(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"name|features|servingKeys|version"):
            FeatureView.from_json({**VIEW, **changes})

    def test_in_messages(self) -> None:
        assert str(FeatureView.from_json(VIEW)) == "feature view 'mnist' version 2"
        assert str(ViewName("mnist")) == "feature view 'mnist'"


class TestProvenance:
    def test_both(self) -> None:
        assert Provenance.from_json(LINKS) == Provenance(Origin("mnist", 2), Origin("mnist_2", 2))

    @pytest.mark.parametrize("links", [{"count": 0}, json.loads(answer("featurestore/provenance_none").content)])
    def test_none(self, links: dict[str, Any]) -> None:
        assert Provenance.from_json(links) == Provenance()

    @pytest.mark.parametrize(
        ("node", "state"),
        [
            ({"exception_cause": "it broke"}, "faulty"),
            ({"exceptionCause": "it broke"}, "faulty"),
            ({"accessible": False, "deleted": True}, "deleted"),
            ({"accessible": False, "deleted": False}, "inaccessible"),
        ],
    )
    def test_states(self, node: dict[str, Any], state: str) -> None:
        found = Provenance.from_json(linked(**node)).training_dataset

        assert found == Origin("mnist_2", 2, state)

    def test_in_camel_case(self) -> None:
        links = linked(artifactType="TRAINING_DATASET", artifact_type=None)

        assert Provenance.from_json(links).training_dataset == Origin("mnist_2", 2)

    def test_two_training_datasets(self) -> None:
        links = linked()
        other = copy.deepcopy(links["upstream"][0])
        other["node"]["artifact"]["version"] = 9
        links["upstream"].append(other)

        with pytest.raises(ValueError, match="2 links of the type TRAINING_DATASET"):
            Provenance.from_json(links)

    def test_a_view_at_any_level(self) -> None:
        links = linked()
        (dataset,) = links["upstream"]
        between = {"node": {"artifact_type": "OTHER", "artifact": {}}, "upstream": dataset["upstream"]}
        dataset["upstream"] = [between]

        assert Provenance.from_json(links).feature_view == Origin("mnist", 2)
