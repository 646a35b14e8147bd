"""Models of a feature view: looked up before the upload, sent as Hopsworks' SDK sends it, read back as provenance."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import HsmlHook, RegisterModelOperator
from airflow_provider_hsml.hopsworks.domain.feature_view import Origin, Provenance
from airflow_provider_hsml.local import FeatureView, RequestFault
from tests.support.samples import sdk_requests
from tests.support.tasks import FakeTaskInstance, changes, execute, rendered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_hsml.local import LocalServing

_numbers = itertools.count()
_VIEW = FeatureView(
    name="transactions_view",
    description="d",
    features={"amount": "double", "age": "bigint"},
    labels={"is_fraud": "int"},
    serving_keys={"cc_num": "bigint"},
    training_datasets=(2, 3),
)
_NAMED = {"feature_view": "transactions_view", "feature_view_version": 1, "training_dataset_version": 2}


@pytest.fixture
def name() -> str:
    return f"viewed{next(_numbers)}"


@pytest.fixture(autouse=True)
def views(serving: LocalServing) -> None:
    """The first view has one version, the second one has two."""
    serving.world.declare(_VIEW)
    for version in (1, 2):
        serving.world.declare(FeatureView(name="pixels", version=version, features={"pixel": "float"}))


@pytest.fixture
def registering(name: str, model_file: Callable[..., Path]) -> Callable[..., Any]:
    """Makes the operator that registers a version."""
    folder = model_file(answer=1)

    def make(**arguments: Any) -> Any:
        return RegisterModelOperator(
            task_id="task", model_name=name, model_path=folder, framework="SKLEARN", **arguments
        )

    return make


def _sent(serving: LocalServing, name: str) -> dict[str, Any]:
    """Give the body with which a model was registered last."""
    bodies = [one.body for one in serving.requests if one.method == "PUT" and f"/models/{name}_" in one.path]
    return dict(bodies[-1])


class TestSent:
    def test_as_the_sdk_sends_it(self, serving: LocalServing, name: str, registering: Callable[..., Any]) -> None:
        (theirs,) = [asked["body"] for asked in sdk_requests("register_with_view") if asked["method"] == "PUT"]
        # The recording is of another project, after which its feature store is named.
        theirs = json.loads(json.dumps(theirs).replace("demo_featurestore", f"{serving.project}_featurestore"))

        execute(registering(**_NAMED))

        ours = _sent(serving, name)
        assert ours["trainingDatasetVersion"] == theirs["trainingDatasetVersion"] == 2
        # The SDK's nulls are not in the recording.
        assert {key for key, value in ours["featureView"].items() if value is not None} == set(theirs["featureView"])
        assert list(_differing(ours["featureView"], theirs["featureView"])) == []

    def test_the_schema_of_the_model_as_the_sdk_infers_it(
        self, serving: LocalServing, name: str, registering: Callable[..., Any]
    ) -> None:
        execute(registering(**_NAMED))

        files = serving.world.project(serving.project_id).files
        assert json.loads(files.read(f"Models/{name}/1/model_schema.json").read_bytes()) == {
            "input_schema": {
                "columnar_schema": [{"name": "amount", "type": "double"}, {"name": "age", "type": "bigint"}]
            },
            "output_schema": {"columnar_schema": [{"name": "is_fraud", "type": "int"}]},
        }

    def test_a_schema_that_is_given_stays(
        self, serving: LocalServing, name: str, registering: Callable[..., Any]
    ) -> None:
        execute(registering(**_NAMED, model_schema={"input_schema": {}}))

        files = serving.world.project(serving.project_id).files
        assert json.loads(files.read(f"Models/{name}/1/model_schema.json").read_bytes()) == {"input_schema": {}}

    @pytest.mark.airflow
    @pytest.mark.parametrize(
        "named",
        [
            {"feature_view": "transactions_view"},
            {"feature_view": {"name": "transactions_view", "version": "1"}},
            {"feature_view": '{"name": "transactions_view"}'},
            {"feature_view": {"name": "transactions_view"}, "feature_view_version": "1"},
            {"feature_view": {"name": "transactions_view", "version": 1}, "feature_view_version": 1},
        ],
    )
    def test_the_ways_to_name_it(
        self, serving: LocalServing, name: str, registering: Callable[..., Any], named: dict[str, Any]
    ) -> None:
        execute(rendered(registering(), **named))

        view = _sent(serving, name)["featureView"]
        assert (view["name"], view["version"], view["featurestoreId"]) == ("transactions_view", 1, 67)

    def test_a_training_dataset_alone_is_sent_without_a_look_up(
        self, serving: LocalServing, name: str, registering: Callable[..., Any]
    ) -> None:
        execute(registering(training_dataset_version=9))

        assert _sent(serving, name)["trainingDatasetVersion"] == 9
        assert "featureView" not in _sent(serving, name)
        assert not [asked for asked in serving.requests if "featurestores" in asked.path]

    def test_a_retry_sends_it_once(self, serving: LocalServing, registering: Callable[..., Any]) -> None:
        ti = FakeTaskInstance()
        first = execute(registering(**_NAMED), ti)
        serving.requests.clear()

        assert execute(registering(**_NAMED), ti) == first
        assert changes(serving) == []


def _differing(ours: Any, theirs: Any, where: str = "") -> Iterator[str]:
    """Give where two bodies have other values. The SDK fills its own objects with defaults, and leaves ids out."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() & theirs.keys():
            yield from _differing(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differing(one, other, f"{where}[{number}]")
    elif ours != theirs:
        yield where


class TestRefused:
    """Before anything is uploaded, naming those that exist."""

    CASES = (
        (
            {"feature_view": "nope"},
            r"no such feature view in 'example_featurestore'; there are: pixels, transactions_view",
        ),
        ({"feature_view": "pixels"}, r"has the versions 1, 2\.\nSet feature_view_version"),
        ({"feature_view": "pixels", "feature_view_version": 3}, r"no such version; there are: 1, 2\."),
        (
            {"feature_view": {"name": "transactions_view", "version": 1}, "training_dataset_version": 7},
            r"training_dataset_version 7: .* no such training dataset; there are: 2, 3\.",
        ),
        ({"feature_view": "pixels", "feature_view_version": 1, "training_dataset_version": 1}, "there are: none"),
        ({"feature_view": "../x"}, "feature_view: expected a name"),
        ({"feature_view": {"name": "pixels", "verison": 1}}, "did you mean 'version'"),
        (
            {"feature_view": {"name": "pixels", "version": 1}, "feature_view_version": 2},
            "the version in feature_view, 1",
        ),
        ({"feature_view": {"name": "pixels", "version": True}}, "feature_view.version: expected a whole number"),
        ({"feature_view_version": 1}, "it needs a feature_view"),
    )

    @pytest.mark.parametrize(("named", "message"), CASES)
    def test_what_does_not_exist(
        self, serving: LocalServing, registering: Callable[..., Any], named: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(AirflowFailException, match=message):
            execute(registering(**named))

        assert changes(serving) == []

    def test_a_key_without_the_scope(
        self, serving: LocalServing, registering: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(serving.connection_fields("viewless.key9")))

        with pytest.raises(
            AirflowFailException, match=r"'transactions_view' .* does not have the scope FEATURESTORE\."
        ):
            execute(registering(feature_view="transactions_view"))

        assert changes(serving) == []
        execute(registering(training_dataset_version=2))

    @pytest.mark.airflow
    @pytest.mark.parametrize("empty", ["", " ", "None"])
    def test_a_template_that_gives_nothing(self, registering: Callable[..., Any], empty: str) -> None:
        with pytest.raises(AirflowFailException, match="feature_view"):
            execute(rendered(registering(feature_view="{{ x }}"), feature_view=empty))

    def test_names_that_cannot_be_listed_are_not_in_the_message(
        self, serving: LocalServing, registering: Callable[..., Any]
    ) -> None:
        serving.faults.add(
            RequestFault("GET", "/project/*/featurestores/*/featureview", status=400, body={"errorCode": 1})
        )

        with pytest.raises(AirflowFailException, match=r"no such feature view in 'example_featurestore'\.\nName one"):
            execute(registering(feature_view="nope"))
        serving.faults.clear()

    def test_another_refusal_is_told_as_it_is(self, serving: LocalServing, registering: Callable[..., Any]) -> None:
        body = {"errorCode": 270008, "usrMsg": "no such store"}
        serving.faults.add(RequestFault("GET", "/project/*/featurestores/*", status=400, body=body))

        with pytest.raises(AirflowFailException, match="270008"):
            execute(registering(feature_view="pixels"))
        serving.faults.clear()


class TestProvenance:
    def test_the_view_and_the_training_dataset(
        self, hook: HsmlHook, name: str, registering: Callable[..., Any]
    ) -> None:
        execute(registering(**_NAMED))

        assert hook.get_provenance(name, 1) == Provenance(
            Origin("transactions_view", 1), Origin("transactions_view_1", 2)
        )

    @pytest.mark.parametrize("named", [_NAMED, {"feature_view": "transactions_view"}])
    def test_no_part_is_asked_for_that_older_lines_do_not_know(
        self, serving: LocalServing, registering: Callable[..., Any], named: dict[str, Any]
    ) -> None:
        """They answer a bare 404 to ``expand=mandatorytags``, which would look like a view that is missing."""
        serving.requests.clear()

        execute(registering(**named))

        queries = [asked.query for asked in serving.requests if "/featureview/" in asked.path and asked.query]
        assert queries
        assert not [query for query in queries if "mandatorytags" in query]

    def test_none_of_a_version_without_a_training_dataset(
        self, hook: HsmlHook, name: str, registering: Callable[..., Any]
    ) -> None:
        execute(registering(feature_view="transactions_view"))

        assert hook.get_provenance(name, 1) == Provenance()

    def test_what_was_deleted_since(
        self, hook: HsmlHook, serving: LocalServing, name: str, registering: Callable[..., Any]
    ) -> None:
        execute(registering(**_NAMED))
        serving.world.declare(dataclasses.replace(_VIEW, training_datasets=(3,)))

        assert hook.get_provenance(name, 1) == Provenance(
            Origin("transactions_view", 1), Origin("transactions_view_1", 2, "deleted")
        )

    def test_of_a_version_that_the_sdk_registered(self, hook: HsmlHook, serving: LocalServing, name: str) -> None:
        """The SDK's own body, as it was recorded, sent by another client."""
        (theirs,) = [asked["body"] for asked in sdk_requests("register_with_view") if asked["method"] == "PUT"]
        serving.world.register_model(name, {"model.joblib": b"{}"})
        registry = serving.world.project(serving.project_id).registry
        registry.put(f"{name}_1", {**theirs, "id": f"{name}_1", "name": name, "version": 1})

        found = hook.get_model(name, 1)
        assert (found.feature_view, found.feature_view_version, found.training_dataset_version) == (
            "transactions_view",
            1,
            2,
        )
        assert hook.get_provenance(name, 1).feature_view == Origin("transactions_view", 1)


class TestLineage:
    @pytest.mark.parametrize(
        ("named", "expected"),
        [
            ({}, []),
            ({"feature_view": "transactions_view"}, [("example/feature_views/transactions_view", "1")]),
            (
                _NAMED,
                [
                    ("example/feature_views/transactions_view", "1"),
                    ("example/feature_views/transactions_view/1/training_datasets", "2"),
                ],
            ),
        ],
    )
    def test_inputs(
        self, registering: Callable[..., Any], named: dict[str, Any], expected: list[tuple[str, str]]
    ) -> None:
        pytest.importorskip("airflow.providers.openlineage")
        operator = registering(**named)
        execute(operator)

        lineage = operator.get_openlineage_facets_on_complete(None)

        assert [(one.name, one.facets["version"].datasetVersion) for one in lineage.inputs] == expected


class TestWarnings:
    ROWS = ({"instances": [{"cc_num": 1}], "predictions": [0]}, {"instances": [[1]], "predictions": [0]})

    @pytest.mark.parametrize("expected", ROWS)
    def test_recorded_answers_of_rows_with_serving_keys(
        self, registering: Callable[..., Any], caplog: pytest.LogCaptureFixture, expected: dict[str, Any]
    ) -> None:
        with caplog.at_level(logging.WARNING):
            execute(registering(**_NAMED, expected=expected))

        assert "has the serving keys cc_num. Predictions for rows with serving keys change" in caplog.text

    def test_not_for_rows_without_them(self, registering: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            execute(registering(**_NAMED, expected={"instances": [{"amount": 1.0}], "predictions": [0]}))

        assert "serving keys" not in caplog.text

    def test_a_view_without_a_training_dataset(
        self, registering: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            execute(registering(feature_view="transactions_view"))

        assert "Hopsworks records no provenance" in caplog.text
